"""Deploying a run's ledger and token from the run's own deployer, whose nonces fix their addresses beforehand."""

from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.contract_files import load_artifact
from pluralis_lab.chain.profiles import PROFILES
from pluralis_lab.contributions.shares import HALVING_EPOCHS
from pluralis_lab.errors import ChainError

if TYPE_CHECKING:
    from pluralis_lab.chain.client import Chain

# Measured 1.7 and 2.2 million; the limits leave room for many attesters. A creation that ran out of gas would use up its nonce.
DEPLOY_GAS_LEDGER, DEPLOY_GAS_ATTESTER, DEPLOY_GAS_TOKEN = 2_500_000, 50_000, 3_500_000


def ledger_contract(chain: "Chain", address: str) -> Any:
    """The ContributionLedger at `address`."""
    return _contract(chain, "ContributionLedger", address)


def token_contract(chain: "Chain", address: str) -> Any:
    """The ModelToken at `address`."""
    return _contract(chain, "ModelToken", address)


def _contract(chain: "Chain", name: str, address: str) -> Any:
    from eth_typing import ChecksumAddress

    return chain.web3.eth.contract(address=ChecksumAddress(address), abi=load_artifact(name)["abi"])  # type: ignore[arg-type]


def deploy(chain: "Chain", run_id: str, attesters: list[str], emission_wei0: int, account: str) -> dict[str, str]:
    """Deploy what of a run's two contracts is missing and return the run's plan (deployer, ledger, token).

    Raises ChainError when the contracts at the planned addresses were deployed with other parameters.
    """
    plan = chain.plan(run_id)
    deployed = int(chain.web3.eth.get_transaction_count(plan["deployer"]))  # type: ignore[arg-type]
    window = PROFILES[chain.profile].challenge_window_s
    if deployed < 2:
        ledger_arguments: list[Any] = [bytes.fromhex(run_id), plan["token"], attesters, emission_wei0, HALVING_EPOCHS, window]
        token_arguments: list[Any] = [f"pluralis_lab run {run_id[:8]}", f"PL-{run_id[:8]}", plan["ledger"]]
        steps = [
            ("ContributionLedger", ledger_arguments, DEPLOY_GAS_LEDGER + DEPLOY_GAS_ATTESTER * len(attesters)),
            ("ModelToken", token_arguments, DEPLOY_GAS_TOKEN),
        ][deployed:]
        _fund(chain, plan["deployer"], sum(gas for _, _, gas in steps), account)
        for contract, arguments, gas in steps:
            artifact = load_artifact(contract)
            factory = chain.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
            data = factory.constructor(*arguments).data_in_transaction
            chain.transact(run_id, to=None, data=data, gas=gas, kind="deployer")
    _require_same(ledger_contract(chain, plan["ledger"]), plan, run_id, attesters, emission_wei0)
    return plan


def _fund(chain: "Chain", deployer: str, gas: int, account: str) -> None:
    eth = chain.web3.eth
    needed = gas * (2 * int(eth.get_block("latest").get("baseFeePerGas", 0)) + int(eth.max_priority_fee)) * 5 // 4
    missing = needed - chain.balance(deployer)
    if missing > 0:
        chain.transact(account, to=deployer, value=missing, gas=21_000)


def _require_same(ledger: Any, plan: dict[str, str], run_id: str, attesters: list[str], emission_wei0: int) -> None:
    functions = ledger.functions
    found = {
        "run id": functions.runId().call().hex(),
        "token": functions.token().call(),
        "attesters": sorted(functions.attesters().call()),
        "emission of epoch 0": functions.emission0().call(),
    }
    wanted = {"run id": run_id, "token": plan["token"], "attesters": sorted(attesters), "emission of epoch 0": emission_wei0}
    for name, value in wanted.items():
        if found[name] != value:
            raise ChainError(
                f"the ledger at {plan['ledger']} has {name} {found[name]}, this run has {value}; it is not this run's ledger"
            )
