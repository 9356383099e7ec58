"""The same loop on a real node behind a URL: anvil from npm."""

import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.chain import Chain, Token
from pluralis_lab.chain import sessions as sessions_module
from pluralis_lab.errors import ChainError
from tests.engines.swarm.conftest import descendants_of, small_spec

ANVIL = "@foundry-rs/anvil@1.7.1"
ETHER = 10**18


def _install(folder: Path) -> Path | None:
    binaries = folder / "node_modules" / "@foundry-rs"
    for _ in range(2):
        found = [path for path in binaries.glob("anvil-*/bin/anvil") if os.access(path, os.X_OK)]
        if found:
            return found[0]
        if shutil.which("npm") is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", ANVIL], capture_output=True, check=False
        )
    return None


@pytest.fixture
def anvil(require_system, tmp_path):
    """The URL of a fresh anvil."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluralis_lab" / "anvil"
    binary = _install(cache) if sys.platform == "linux" else None
    require_system("anvil", binary is not None, f"npm install --prefix {cache} {ANVIL}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(binary), "--port", str(port), "--silent", "--chain-id", "77001"])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "anvil did not come up"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.drawn("on anvil", keep=1)
@pytest.mark.system("npm")
def test_the_whole_loop_works_on_any_node(anvil, direct, signed_run, monkeypatch):
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", "correct horse battery")
    monkeypatch.setattr(sessions_module, "_tokens", {})
    chain = Chain(anvil, home=direct.home)
    chain._daemon = direct._daemon
    assert chain.chain_id == 77001
    for letter in "abc":
        chain.web3.provider.make_request("anvil_setBalance", [chain.account(f"lab-{letter}").address, hex(100 * ETHER)])
    run = signed_run(chain)
    for _ in range(2):
        run.close()
    token = run.tokenize()
    assert run.tokenize().address == token.address == run.plan["token"]
    token.pay(ether=1)
    with pytest.raises(ChainError, match="NothingPaid"):
        token.pay(ether=0)
    claimed = token.claim()
    status = token.status()
    assert status["paid_wei"] == ETHER == status["claimed_wei"] + status["dust_wei"]
    assert sum(claimed["wei"]) == status["claimed_wei"]
    assert Token.open(run.info, chain).status() == status
    description = chain.describe()
    assert description == {"kind": "url", "url": anvil, "chain_id": 77001, "profile": "lab"}
    with pytest.raises(ChainError, match="never changes its chain"):
        Chain.from_description(description | {"chain_id": 1}, home=direct.home)


def test_a_node_that_is_not_there_is_named(direct):
    chain = Chain("http://127.0.0.1:9", home=direct.home)
    with pytest.raises(ChainError, match="could not be reached"):
        chain.describe()


def test_the_key_of_a_hosted_node_is_in_no_error(direct):
    nowhere, unspoken = (
        f"{start}/v3/0123456789abcdef" for start in ("http://user:word@127.0.0.1:9", "wss://user:word@node.example")
    )
    with pytest.raises(ChainError, match="could not be reached") as unreachable:
        Chain(nowhere, home=direct.home).describe()
    with pytest.raises(ChainError, match="use the http or https endpoint") as unusable:
        Chain(unspoken, home=direct.home)
    with pytest.raises(ChainError, match="use the http or https endpoint") as forgotten:
        Chain(nowhere.removeprefix("http://"), home=direct.home)
    for raised in (unreachable, unusable, forgotten):
        told = "".join(traceback.format_exception(raised.value))
        assert "0123456789abcdef" not in told
        assert "word@" not in told


@pytest.mark.drawn("on anvil", keep=1)
@pytest.mark.system("npm")
@pytest.mark.timeout(240)
def test_a_launched_run_signs_its_epochs_with_accounts_behind_a_passphrase(anvil, lab_home, monkeypatch):
    secret = "correct horse battery staple"
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", secret)
    monkeypatch.setattr(sessions_module, "_tokens", {})
    chain = Chain(anvil)
    spec = small_spec(steps=90, epoch_rounds=30, checkpoint_every=30, eval_every=30)
    run = pl.launch(spec, chain=chain, account="alice", participants=["alice", "bob"])
    monkeypatch.delenv("PLURALIS_LAB_PASSPHRASE")
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 - nobody is there to be asked either
    for process in descendants_of(run):
        assert secret not in "".join(process.environ().values())
        assert "PLURALIS_LAB_PASSPHRASE" not in process.environ()
    tokens = list(sessions_module._tokens.values())

    run.wait(round=31, timeout_s=90)
    first, *_ = _until_closed(run, 1)
    assert first.body["attested_by"] == ["alice", "bob"]
    chain.stop()  # the daemon starts again when it is needed, with every account behind a passphrase locked
    run.wait(timeout_s=90)
    assert run.state == "serving", "a signature that is not to be had does not stop the training"
    attested = [event.body["attested_by"] for event in run.events("epoch")]
    signed = attested.count(["alice", "bob"])  # a quick machine closes a second one meanwhile
    assert signed in (1, 2)
    assert attested == [["alice", "bob"]] * signed + [[]] * (3 - signed)
    messages = [event.body["message"] for event in run.events("error")]
    assert len(messages) == 2 * (3 - signed)
    assert messages[0].startswith(f"epoch {signed} is closed without the signature of alice: account 'alice' is locked again")
    assert "run.tokenize() asks for its passphrase" in messages[0]
    assert {finding.kind for finding in run.audit().findings} == {"no-quorum"}

    with pytest.raises(ChainError, match="nobody to ask"):
        run.tokenize()
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", secret)
    for name in ("alice", "bob"):
        chain.web3.provider.make_request("anvil_setBalance", [chain.account(name).address, hex(100 * ETHER)])
    token = run.tokenize()
    assert run.audit().ok
    token.pay(ether=1)
    claimed = token.claim()
    assert set(claimed["name"]) == {"alice", "bob"}
    assert sum(claimed["wei"]) + token.status()["dust_wei"] == ETHER
    run.stop()
    assert [path for path in lab_home.rglob("*") if path.is_file() and _holds(path, [secret, *tokens])] == []


def _until_closed(run, number):
    deadline = time.monotonic() + 30
    while len(closed := run.events("epoch")) < number:
        assert time.monotonic() < deadline, "the epoch was not closed"
        time.sleep(0.1)
    return closed


def _holds(path, secrets):
    return any(secret.encode() in path.read_bytes() for secret in secrets)
