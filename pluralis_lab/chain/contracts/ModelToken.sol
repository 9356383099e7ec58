// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";

/// @title Shares in one trained model
/// @notice ERC-20 shares that carry the model's revenue: ether paid in belongs to all shares in equal parts, and each holder takes
/// its part when it likes. Shares that wait in the ledger for their claimant earn like any others.
/// @dev Revenue accumulator. `revenueIndex` is the revenue per share since the beginning, scaled by `SCALE`; what does not divide
/// evenly is carried to the next payment, and credits are kept scaled, so that always, exactly,
///   sum of revenueCredit(holder) + revenue of unclaimed tranches + carry == (totalPaid - totalClaimed) * SCALE.
/// Only whole wei are paid out; the fractions (less than one wei a holder) are the dust that stays here.
/// `multicall` lets a client read many holders at once; it takes no ether, so it cannot count one payment twice.
/// No owner. Only the ledger mints and releases, and its address is fixed at deployment.
contract ModelToken is ERC20, ERC20Permit, ERC20Votes, Multicall, ReentrancyGuardTransient {
    /// @notice Credits and the revenue index are in wei times this.
    uint256 public constant SCALE = 1 << 128;

    /// @notice The run's ledger: the only minter, and the holder of all unclaimed shares.
    address public immutable ledger;

    /// @notice Revenue per share since the beginning, times `SCALE`.
    uint256 public revenueIndex;
    /// @notice Revenue that did not divide evenly over the shares and waits for the next payment, in wei times `SCALE`.
    uint256 public carry;
    /// @notice Wei paid in so far.
    uint256 public totalPaid;
    /// @notice Wei paid out to holders so far.
    uint256 public totalClaimed;

    mapping(address account => uint256) private _credit;
    mapping(address account => uint256) private _indexOf;

    event RevenuePaid(address indexed payer, uint256 amount);
    event RevenueClaimed(address indexed account, address indexed to, uint256 amount);

    error OnlyLedger(address caller);
    error NobodyToPay();
    error NothingPaid();
    error NothingToClaim(address account);
    error PaymentRefused(address to);
    error CannotHoldShares(address account);

    modifier onlyLedger() {
        if (msg.sender != ledger) revert OnlyLedger(msg.sender);
        _;
    }

    /// @param name_ the token's name
    /// @param symbol_ the token's symbol
    /// @param ledger_ the run's ledger, whose address is known before this is deployed
    constructor(string memory name_, string memory symbol_, address ledger_) ERC20(name_, symbol_) ERC20Permit(name_) {
        ledger = ledger_;
    }

    /// @notice Pay revenue to all shares, also by a plain transfer of ether.
    receive() external payable {
        _pay();
    }

    /// @notice Pay revenue to all shares.
    function pay() external payable {
        _pay();
    }

    /// @notice Send the caller's whole wei of revenue to `to`.
    /// @return amount wei sent
    function claimRevenue(address payable to) external nonReentrant returns (uint256 amount) {
        _settle(msg.sender);
        amount = _credit[msg.sender] / SCALE;
        if (amount == 0) revert NothingToClaim(msg.sender);
        _credit[msg.sender] %= SCALE;
        totalClaimed += amount;
        emit RevenueClaimed(msg.sender, to, amount);
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert PaymentRefused(to);
    }

    /// @notice Mint an epoch's emission to the ledger. Ledger only.
    /// @return index the revenue index from which the epoch's shares earn
    function mintEpoch(uint256 amount) external onlyLedger returns (uint256 index) {
        if (amount != 0) _mint(ledger, amount);
        return revenueIndex;
    }

    /// @notice Move claimed shares to their owner, with the revenue they earned since `sinceIndex`. Ledger only.
    function release(address account, uint256 amount, uint256 sinceIndex) external onlyLedger {
        _transfer(ledger, account, amount);
        _credit[account] += amount * (revenueIndex - sinceIndex);
    }

    /// @notice Whole wei that `account` could claim now. Revenue of shares it has yet to claim at the ledger is not in it.
    function claimableRevenue(address account) external view returns (uint256) {
        return revenueCredit(account) / SCALE;
    }

    /// @notice What `account` has earned and not taken, in wei times `SCALE`; 0 for the ledger, whose shares are others'.
    function revenueCredit(address account) public view returns (uint256) {
        if (account == ledger) return 0;
        return _credit[account] + balanceOf(account) * (revenueIndex - _indexOf[account]);
    }

    /// @notice Who votes for `account`: itself until it delegates. Unclaimed shares in the ledger have no vote.
    function delegates(address account) public view override returns (address) {
        if (account == ledger) return address(0);
        address delegatee = super.delegates(account);
        return delegatee == address(0) ? account : delegatee;
    }

    /// @notice Votes are counted by time, so that they mean the same on chains with irregular blocks.
    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    /// @notice The machine-readable form of `clock` (ERC-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    /// @inheritdoc ERC20Permit
    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    /// @dev Delegating to nobody means voting oneself: a zero delegate with votes would block every later transfer.
    function _delegate(address account, address delegatee) internal override {
        super._delegate(account, delegatee == address(0) ? account : delegatee);
    }

    /// @dev Both sides are settled before balances change. Nobody can send shares to the ledger or to this contract, where
    /// their revenue would be out of reach.
    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        if (to == address(this) || (to == ledger && from != address(0))) revert CannotHoldShares(to);
        _settle(from);
        _settle(to);
        super._update(from, to, value);
    }

    function _settle(address account) private {
        if (account == address(0) || account == ledger) return;
        _credit[account] = revenueCredit(account);
        _indexOf[account] = revenueIndex;
    }

    /// @dev Guarded, so that a payee cannot pay in while it is being paid.
    function _pay() private nonReentrant {
        uint256 supply = totalSupply();
        if (supply == 0) revert NobodyToPay();
        if (msg.value == 0) revert NothingPaid();
        totalPaid += msg.value;
        uint256 scaled = msg.value * SCALE + carry;
        revenueIndex += scaled / supply;
        carry = scaled % supply;
        emit RevenuePaid(msg.sender, msg.value);
    }
}
