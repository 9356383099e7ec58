// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";

import {ModelToken} from "./ModelToken.sol";

/// @title The contributions of one training run, epoch by epoch
/// @notice A quorum of the run's attesters signs, for each epoch, the Merkle root of who earned how much. The ledger takes the root,
/// not the table: it has the epoch's emission minted to itself once, and hands it out against proofs.
/// @dev No owner, no proxy, no initialiser. Anyone may post, finalise and relay a claim; only signatures and proofs count. What an
/// epoch mints is a schedule and not an argument, so a captured quorum can misdirect one epoch and never inflate.
contract ContributionLedger is EIP712, Multicall {
    using BitMaps for BitMaps.BitMap;

    /// @notice What is kept of a posted epoch. `revenueIndex` is the token's revenue index when the epoch was finalised.
    struct EpochRecord {
        bytes32 root;
        bytes32 dataHash;
        bytes32 modelHash;
        uint256 revenueIndex;
        uint128 minted;
        uint128 claimed;
        uint64 postedAt;
        bool finalized;
    }

    /// @notice The struct that attesters sign. The run id is this ledger's own, so a root of another run never has a quorum here.
    bytes32 public constant EPOCH_TYPEHASH =
        keccak256("Epoch(bytes32 runId,uint64 epoch,uint32 attempt,bytes32 root,bytes32 dataHash,bytes32 modelHash)");

    /// @notice The run whose contributions are recorded here.
    bytes32 public immutable runId;
    /// @notice The token that is minted for contributions.
    ModelToken public immutable token;
    /// @notice Signatures of distinct attesters that a root needs: floor(2n / 3) + 1.
    uint256 public immutable minQuorum;
    /// @notice What epoch 0 mints, in token wei.
    uint256 public immutable emission0;
    /// @notice Epochs after which the emission halves.
    uint64 public immutable halvingEpochs;
    /// @notice Seconds between posting an epoch and its finalisation.
    uint64 public immutable challengeWindow;

    /// @notice The epoch that must be posted next.
    uint64 public nextEpoch;
    /// @notice How many epochs are final.
    uint64 public numFinalized;

    address[] private _attesters;
    mapping(address account => bool) public isAttester;
    mapping(uint64 epoch => EpochRecord) private _epochs;
    mapping(uint64 epoch => BitMaps.BitMap) private _claims;

    event EpochPosted(
        uint64 indexed epoch, uint32 attempt, bytes32 root, bytes32 dataHash, bytes32 modelHash, address[] signers
    );
    event EpochFinalized(uint64 indexed epoch, uint256 minted);
    event Claimed(uint64 indexed epoch, uint256 indexed index, address indexed account, uint256 amount);

    error NoAttesters();
    error BadAttester(address account);
    error BadSchedule();
    error EpochOutOfOrder(uint64 expected, uint64 given);
    error WrongAttempt(uint32 expected, uint32 given);
    error QuorumNotReached(uint256 given, uint256 needed);
    error NotAnAttester(address signer);
    error SignersNotAscending(address previous, address signer);
    error EpochNotPosted(uint64 epoch);
    error EpochAlreadyFinal(uint64 epoch);
    error ChallengeWindowOpen(uint64 epoch, uint256 finalAt);
    error EpochNotFinal(uint64 epoch);
    error AlreadyClaimed(uint64 epoch, uint256 index);
    error InvalidProof(uint64 epoch, uint256 index);
    error EpochOverdrawn(uint64 epoch, uint256 minted, uint256 wanted);

    /// @param runId_ the run's 32-byte id
    /// @param token_ the run's token, whose address is known before it is deployed
    /// @param attesters_ distinct accounts; order does not matter
    /// @param emission0_ token wei that epoch 0 mints
    /// @param halvingEpochs_ epochs after which the emission halves, at least 1
    /// @param challengeWindow_ seconds from posting to finalisation
    constructor(
        bytes32 runId_,
        ModelToken token_,
        address[] memory attesters_,
        uint256 emission0_,
        uint64 halvingEpochs_,
        uint64 challengeWindow_
    ) EIP712("pluralis_lab", "1") {
        uint256 count = attesters_.length;
        if (count == 0) revert NoAttesters();
        // 2^127 keeps every sum of minted shares inside the 208 bits of a vote checkpoint.
        if (halvingEpochs_ == 0 || emission0_ > type(uint128).max >> 1) revert BadSchedule();
        for (uint256 i = 0; i < count; ++i) {
            address attester = attesters_[i];
            if (attester == address(0) || isAttester[attester]) revert BadAttester(attester);
            isAttester[attester] = true;
        }
        _attesters = attesters_;
        runId = runId_;
        token = token_;
        minQuorum = (2 * count) / 3 + 1;
        emission0 = emission0_;
        halvingEpochs = halvingEpochs_;
        challengeWindow = challengeWindow_;
    }

    /// @notice Record the root of the next epoch. Anyone may call; what counts are the attesters' signatures.
    /// @param signatures of distinct attesters over the Epoch struct, ordered by ascending signer address
    /// @dev A root of zero says that nothing was earned: the epoch is recorded and mints nothing.
    function postEpoch(
        uint64 epoch,
        uint32 attempt,
        bytes32 root,
        bytes32 dataHash,
        bytes32 modelHash,
        bytes[] calldata signatures
    ) external {
        if (epoch != nextEpoch) revert EpochOutOfOrder(nextEpoch, epoch);
        if (attempt != 0) revert WrongAttempt(0, attempt);
        if (signatures.length < minQuorum) revert QuorumNotReached(signatures.length, minQuorum);

        bytes32 message = _hashTypedDataV4(
            keccak256(abi.encode(EPOCH_TYPEHASH, runId, epoch, attempt, root, dataHash, modelHash))
        );
        address[] memory signers = new address[](signatures.length);
        address previous = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = ECDSA.recover(message, signatures[i]);
            if (!isAttester[signer]) revert NotAnAttester(signer);
            if (signer <= previous) revert SignersNotAscending(previous, signer);
            signers[i] = signer;
            previous = signer;
        }

        nextEpoch = epoch + 1;
        EpochRecord storage record = _epochs[epoch];
        record.root = root;
        record.dataHash = dataHash;
        record.modelHash = modelHash;
        record.postedAt = uint64(block.timestamp);
        emit EpochPosted(epoch, attempt, root, dataHash, modelHash, signers);
    }

    /// @notice Mint a posted epoch's emission to this ledger once its window has passed. Anyone may call.
    function finalizeEpoch(uint64 epoch) external {
        EpochRecord storage record = _epochs[epoch];
        if (epoch >= nextEpoch) revert EpochNotPosted(epoch);
        if (record.finalized) revert EpochAlreadyFinal(epoch);
        uint256 finalAt = uint256(record.postedAt) + challengeWindow;
        if (block.timestamp < finalAt) revert ChallengeWindowOpen(epoch, finalAt);

        record.finalized = true;
        numFinalized += 1;
        uint256 amount = record.root == bytes32(0) ? 0 : emission(epoch);
        record.minted = uint128(amount);
        record.revenueIndex = token.mintEpoch(amount);
        emit EpochFinalized(epoch, amount);
    }

    /// @notice Hand `account` its shares of a final epoch, with the revenue they earned since. Anyone may relay.
    /// @param index the leaf's position in the epoch's table
    /// @param amount token wei, as in the leaf
    /// @param proof sibling hashes from the leaf to the root, pairs sorted
    function claim(uint64 epoch, uint256 index, address account, uint256 amount, bytes32[] calldata proof) external {
        EpochRecord storage record = _epochs[epoch];
        if (!record.finalized) revert EpochNotFinal(epoch);
        if (_claims[epoch].get(index)) revert AlreadyClaimed(epoch, index);
        bytes32 leaf = keccak256(
            bytes.concat(keccak256(abi.encode(runId, epoch, index, account, amount, record.dataHash)))
        );
        if (!MerkleProof.verifyCalldata(proof, record.root, leaf)) revert InvalidProof(epoch, index);
        // A table that sums to more than the epoch minted must not reach into the shares of another epoch.
        uint256 claimed = record.claimed + amount;
        if (claimed > record.minted) revert EpochOverdrawn(epoch, record.minted, claimed);

        _claims[epoch].set(index);
        record.claimed = uint128(claimed);
        emit Claimed(epoch, index, account, amount);
        token.release(account, amount, record.revenueIndex);
    }

    /// @notice What epoch `epoch` mints, in token wei.
    function emission(uint64 epoch) public view returns (uint256) {
        return emission0 >> (epoch / halvingEpochs);
    }

    /// @notice Whether leaf `index` of `epoch` was claimed.
    function isClaimed(uint64 epoch, uint256 index) external view returns (bool) {
        return _claims[epoch].get(index);
    }

    /// @notice What is recorded of `epoch`; all zero when it was not posted.
    function epochRecord(uint64 epoch) external view returns (EpochRecord memory) {
        return _epochs[epoch];
    }

    /// @notice The accounts whose signatures count, as given at deployment.
    function attesters() external view returns (address[] memory) {
        return _attesters;
    }
}
