"""From a finished run's evidence to its owners: what an audit names, and that the token pays exactly what was earned."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.contributions.receipts import statement_hash
from pluralis_lab.errors import ChainError, RunError
from pluralis_lab.store import RunDirectory
from tests.engines.swarm.conftest import small_spec

SMALL: dict[str, Any] = {"steps": 4, "epoch_rounds": 2, "eval_every": 4, "checkpoint_every": 4, "batch_size": 4}
PEOPLE = ["lab-a", "lab-b", "lab-c"]


@pytest.fixture(scope="module")
def run(home: Path) -> pl.Run:
    """Two epochs of three participants, simulated on the embedded chain."""
    chain = pl.Chain.embedded(home=home)
    return pl.simulate(small_spec(**SMALL), chain=chain, account="lab-a", participants=PEOPLE).wait(timeout_s=90)


@pytest.fixture(scope="module")
def other(home: Path) -> pl.Run:
    """Another run, simulated without a chain."""
    return pl.simulate(small_spec(**{**SMALL, "steps": 2, "replicas": 1, "seed": 7})).wait(timeout_s=60)


@pytest.fixture
def copy(run: pl.Run, home: Path) -> Iterator[pl.Run]:
    """The run with a copy of its evidence, which a test may damage; the original comes back afterwards."""
    evidence, kept = run.path / "evidence", run.path / "evidence.kept"
    shutil.copytree(evidence, kept)
    yield run
    shutil.rmtree(evidence)
    kept.rename(evidence)


def rewrite(run: pl.Run, epoch: int, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the statements of an epoch on disk."""
    file = run.path / "evidence" / f"epoch-{epoch}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines))


def name_of(line: dict[str, Any]) -> dict[str, Any]:
    body = line["body"]
    return {"hash": statement_hash(line), **{key: body[key] for key in ("kind", "round", "worker", "signer")}}


def test_an_untouched_run_is_in_order(run: pl.Run) -> None:
    report = run.audit()
    assert report.ok, str(report)
    assert (len(report.tables), report.num_attestations) == (2, 6)


@pytest.mark.parametrize("place", [0, 7, -1])
def test_one_flipped_byte_is_named(copy: pl.Run, place: int) -> None:
    forged: dict[str, Any] = {}

    def flip(lines: list[dict[str, Any]]) -> None:
        item = lines[place]["body"]["items"][0]
        item["digest"] = f"{int(item['digest'][0], 16) ^ 1:x}" + item["digest"][1:]
        forged.update(name_of(lines[place]))

    rewrite(copy, 0, flip)
    report = copy.audit()
    assert not report.ok
    assert (report.findings[0].kind, report.findings[0].epoch) == ("forged", 0)
    assert report.findings[0].statement == forged


def test_a_dropped_statement_is_named(copy: pl.Run) -> None:
    dropped: dict[str, Any] = {}
    rewrite(copy, 1, lambda lines: dropped.update(name_of(lines.pop(3))))
    report = copy.audit()
    assert (report.findings[0].kind, report.findings[0].epoch) == ("missing", 1)
    assert report.findings[0].statement == dropped


def test_a_statement_replayed_into_another_epoch_is_named(copy: pl.Run) -> None:
    old = copy._directory.evidence.statements(0)[5]
    rewrite(copy, 1, lambda lines: lines.insert(0, old))
    report = copy.audit()
    assert (report.findings[0].kind, report.findings[0].epoch) == ("replayed", 1)
    assert report.findings[0].statement == name_of(old)


def test_a_statement_of_another_run_is_named(copy: pl.Run, other: pl.Run) -> None:
    foreign = other._directory.evidence.statements(0)[0]
    rewrite(copy, 0, lambda lines: lines.append(foreign))
    report = copy.audit()
    assert [finding.kind for finding in report.findings] == ["foreign-run"]
    assert report.findings[0].statement == name_of(foreign)


def test_owners_claim_what_was_paid_to_the_wei_apart_from_dust(run: pl.Run, home: Path) -> None:
    token = run.tokenize()
    shares = token.shares()
    assert sum(shares["shares_wei"]) == 2 * run.spec.emission * 10**18, "each epoch's emission, exactly"
    assert set(shares["name"]) == set(PEOPLE)

    payments = ["0.000000000000000007", "0.333333333333333331", "1.000000000000000001"]
    for ether in payments:
        token.pay(ether=ether, account="customer")
    paid = 7 + 333_333_333_333_333_331 + 1_000_000_000_000_000_001
    claimed = token.claim()
    status = token.status()
    assert status["paid_wei"] == paid == sum(claimed["wei"]) + status["dust_wei"]
    assert status["claimed_wei"] == sum(claimed["wei"])
    assert status["claimable_wei"] == 0
    assert status["balance_wei"] == status["dust_wei"] < len(PEOPLE) + 1
    assert token.claim().empty, "nothing is paid twice"

    again = run.tokenize()
    assert (again.address, again.ledger) == (token.address, token.ledger)
    assert run.token.shares().equals(token.shares())


def test_a_run_without_a_chain_says_how_to_bind_one(other: pl.Run) -> None:
    for ask in (other.tokenize, lambda: other.token):
        with pytest.raises(RunError, match=r"without a chain; simulate\(spec, chain=pl\.Chain\.embedded\(\)\)"):
            ask()


def test_before_the_first_epoch_there_is_nothing_to_tokenize(copy: pl.Run) -> None:
    (copy.path / "evidence" / "closes.jsonl").unlink()
    with pytest.raises(RunError, match=r"no closed epoch yet \(an epoch is 2 rounds\)"):
        copy.tokenize()


def test_another_chain_is_refused(run: pl.Run) -> None:
    directory = RunDirectory(run.path)
    bound = directory.info["chain"]
    try:
        directory.update_info(chain={**bound, "chain_id": 1})
        for ask in (run.tokenize, lambda: run.token):
            with pytest.raises(ChainError, match="launched with chain 1; a run never changes its chain"):
                ask()
    finally:
        directory.update_info(chain=bound)


def test_an_epoch_that_could_not_be_signed_is_signed_when_the_run_is_tokenized(copy: pl.Run, home: Path) -> None:
    closes = copy.path / "evidence" / "closes.jsonl"
    lines = [json.loads(line) for line in closes.read_text().splitlines()]
    signed = lines[1]["attestations"]
    lines[1]["attestations"] = signed[:1]
    closes.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines))
    (finding,) = copy.audit().findings
    assert (finding.kind, finding.epoch) == ("no-quorum", 1)
    copy.tokenize()
    report = copy.audit()
    assert report.ok, str(report)
    assert report.num_attestations == 6
    assert closes.read_text().count("signature") == 4, "the close itself is left as it was"
