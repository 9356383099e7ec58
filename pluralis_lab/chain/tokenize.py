"""From signed epochs to shares on the chain: deploy, post, finalise, claim; whatever is done already is skipped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.claims import Claim, ClaimBook, Close, read_closes
from pluralis_lab.chain.deploy import deploy, ledger_contract
from pluralis_lab.chain.reads import read_many
from pluralis_lab.errors import ChainError

if TYPE_CHECKING:
    from pluralis_lab.chain.client import Chain
    from pluralis_lab.chain.token import Token

# Upper bounds of one call inside a batch; tests/chain measures what they really use. The cap of a transaction is 16,777,216.
GAS_POST, GAS_SIGNATURE, GAS_FINALIZE, GAS_CLAIM, GAS_SIBLING, GAS_BATCH = 200_000, 20_000, 220_000, 190_000, 3_000, 60_000
MAX_BATCH_GAS = 15_000_000


@dataclass(frozen=True)
class Step:
    """One call of the ledger, encoded, with an upper bound of its gas."""

    what: str
    data: str
    gas: int


def tokenize(
    chain: "Chain",
    run_info: dict[str, Any],
    emission_wei0: int,
    lines: list[dict[str, Any]],
    account: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> "Token":
    """See `Chain.tokenize`."""
    from pluralis_lab.chain.token import Token, account_names

    report = progress or (lambda what, done, total: None)
    run_id = str(run_info["id"])
    closes = read_closes(run_id, lines)
    bound = run_info.get("chain") or {}
    if bound.get("chain_id") is None:
        raise ChainError(f"run {run_id[:8]} was launched without a chain, so nothing is signed for one; launch with chain=")
    chain.require_id(int(bound["chain_id"]))
    plan = chain.plan(run_id)
    for contract in ("ledger", "token"):
        if bound.get(contract) and bound[contract] != plan[contract]:
            raise ChainError(
                f"run {run_id[:8]} was launched with the {contract} {bound[contract]}, but this home makes {plan[contract]}; "
                "tokenize from the home it was launched from"
            )
    chain.account(account)
    attesters = [entry["address"] for entry in run_info["attesters"]]
    if not chain.web3.eth.get_code(plan["token"]):  # type: ignore[arg-type]
        report("deploying the ledger and the token", 0, 1)
    deploy(chain, run_id, attesters, emission_wei0, account)
    ClaimBook(chain.home, plan["ledger"]).save(run_id, lines, account_names(run_info))

    steps, problem = _steps(chain, plan["ledger"], closes, set(attesters))
    done = 0
    for batch in batches(steps):
        report(batch[0].what, done, len(steps))
        send_batch(chain, plan["ledger"], batch, account)
        done += len(batch)
    report("done" if steps else "nothing to do: every closed epoch is on the chain", done, len(steps))
    if problem:
        raise ChainError(problem)
    return Token(chain, plan["token"], plan["ledger"], account=account)


def _steps(chain: "Chain", ledger_address: str, closes: list[Close], attesters: set[str]) -> tuple[list[Step], str | None]:
    """The calls that are still to be made, and why they stop where they do."""
    ledger = ledger_contract(chain, ledger_address)
    next_epoch, window = ledger.functions.nextEpoch().call(), ledger.functions.challengeWindow().call()
    quorum = ledger.functions.minQuorum().call()
    steps: list[Step] = []
    for close in closes:
        is_posted = close.epoch < next_epoch
        if is_posted:
            record = ledger.functions.epochRecord(close.epoch).call()
            if record[0] != close.root:
                return (
                    steps,
                    f"epoch {close.epoch} is on the chain with another root than in the evidence; audit the run",
                )
            is_final, posted_at = record[-1], record[-2]
            if is_final and record[4] == record[5]:
                continue  # all that was minted is handed out
        else:
            if close.epoch != next_epoch:
                return steps, f"epoch {next_epoch} is missing from the evidence, and epochs are posted in order"
            signed = sorted((int(a, 16), s) for a, s in close.signatures.items() if a in attesters)
            if len(signed) < quorum:
                return (
                    steps,
                    f"epoch {close.epoch} has {len(signed)} of {quorum} signatures; the epochs before it are done",
                )
            arguments = [close.epoch, close.attempt, close.root, close.data_hash, close.model_hash, [s for _, s in signed]]
            data = ledger.encode_abi("postEpoch", args=arguments)
            steps.append(Step(f"posting epoch {close.epoch}", data, GAS_POST + GAS_SIGNATURE * len(signed)))
            next_epoch, is_final, posted_at = close.epoch + 1, False, chain.now()
        if not is_final:
            if posted_at + window > chain.now():
                continue  # a later call finalises it, once its window has passed
            steps.append(
                Step(f"finalising epoch {close.epoch}", ledger.encode_abi("finalizeEpoch", args=[close.epoch]), GAS_FINALIZE)
            )
        asked = [(close.epoch, claim.index) for claim in close.claims] if is_posted else []
        done = read_many(ledger, "isClaimed", asked, chain.web3.eth.block_number) or [False] * len(close.claims)
        steps += [claim_step(ledger, claim) for claim, is_claimed in zip(close.claims, done, strict=True) if not is_claimed]
    return steps, None


def claim_step(ledger: Any, claim: Claim) -> Step:
    """The call that hands one participant its shares of one epoch."""
    proof = claim.proof
    gas = GAS_CLAIM + GAS_SIBLING * len(proof)
    arguments = [claim.epoch, claim.index, claim.account, claim.amount, proof]
    return Step(f"handing out the shares of epoch {claim.epoch}", ledger.encode_abi("claim", args=arguments), gas)


def batches(steps: list[Step]) -> Iterator[list[Step]]:
    """Cut the steps, in order, into batches that stay under the gas of one transaction."""
    batch: list[Step] = []
    for step in steps:
        if batch and sum(s.gas for s in batch) + step.gas + GAS_BATCH > MAX_BATCH_GAS:
            yield batch
            batch = []
        batch.append(step)
    if batch:
        yield batch


def send_batch(chain: "Chain", ledger_address: str, batch: list[Step], account: str) -> dict[str, Any]:
    """Make all calls of a batch in one transaction: together or not at all."""
    ledger = ledger_contract(chain, ledger_address)
    data = ledger.encode_abi("multicall", args=[[step.data for step in batch]])
    return chain.transact(account, to=ledger_address, data=data, gas=sum(step.gas for step in batch) + GAS_BATCH)
