"""The gate against those who were not invited, who lie, and who speak nonsense: the run goes on, and says who it was."""

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.invitation import Invitation, InvitationBook
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.engines.swarm.certificate import open_pinned
from pluralis_lab.engines.swarm.frames import PREFIX_BYTES, json_frame, read_json
from pluralis_lab.engines.swarm.gate_words import Welcome, proof_text
from pluralis_lab.engines.swarm.guest_words import check_word
from pluralis_lab.engines.swarm.joiner import Gateway
from pluralis_lab.engines.virtual import Kill
from pluralis_lab.errors import RunError, WireError
from tests.engines.conftest import RUN_ID, run_virtual, tiny_spec
from tests.engines.swarm.conftest import small_spec


def authorisation(run: pl.Run, worker: str, key: HotKey, **changes: str) -> dict[str, Any]:
    """Return the founder's authorisation of `key`, with some fields changed after it was signed."""
    chain = run.info["chain"]
    signer = signer_for(chain, seed=0, home=run.path.parent.parent)
    typed = authorisation_typed_data(run.id, worker, key.address, chain["chain_id"], chain["ledger"])
    line = {"run": run.id, "worker": worker, "participant": "lab-a", "address": signer.address("lab-a"), "key": key.address}
    return {**line, "signature": signer.sign("lab-a", typed), **changes}


async def refusal(invitation: Invitation, first: bytes) -> dict[str, Any] | None:
    """Return what the gate answers to `first`, None when it hangs up."""
    reader, writer = await open_pinned(invitation.host, invitation.port, invitation.fingerprint)
    writer.write(first)
    async with asyncio.timeout(20):
        answer = await read_json(reader)
    writer.close()
    return answer


async def take_seat(run: pl.Run, invitation: Invitation) -> tuple[Gateway, HotKey, dict[str, Any]]:
    """Come in as a new worker of the founder's, and return the order to start its process."""
    gateway, key = await Gateway.open(invitation), HotKey.generate()
    facts = (await gateway.ask(op="join", secret=invitation.secret))["facts"]
    assert Welcome.read(facts, run_id=run.id).spec_hash == run.spec.hash
    assert {"pid", "account", "lifetime"}.isdisjoint(facts)
    seat = await gateway.ask(op="reserve", stages=[1])
    await gateway.ask(op="enrol", authorisation=authorisation(run, seat["worker"], key), device="cpu")
    order = await gateway.hear()
    assert order is not None
    assert order["op"] == "spawn"
    return gateway, key, order


async def hang_up_of(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(20):
        while await reader.read(1 << 16):
            pass


async def speak_old_tls(invitation: Invitation) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    await asyncio.open_connection(invitation.host, invitation.port, ssl=context)


async def attack(run: pl.Run) -> None:
    invitation = run.invite(seats=3, stage=1)
    secret = {"op": "join", "secret": invitation.secret}
    for first in (
        b"\xff" * PREFIX_BYTES,
        json_frame({"op": "stop"}),
        json_frame({"op": "hello", "worker": "worker-0", "incarnation": 0, "token": ""}),
        json_frame({"op": "hello", "worker": ["x"], "incarnation": 0, "token": None}),
        json_frame({}),
        (60_000).to_bytes(PREFIX_BYTES, "big") + b"[" * 60_000,
        (5).to_bytes(PREFIX_BYTES, "big") + b"[1,2]",
    ):
        assert await refusal(invitation, first) is None, first
    for said, why in (
        ({"op": "join", "secret": "guessed"}, "no such invitation"),
        ({"op": "join", "secret": None}, "no such invitation"),
        ({"op": "join", "worker": "worker-0"}, "no seat any more"),
        ({"op": "join", "worker": {"x": 1}}, "no seat any more"),
    ):
        answer = await refusal(invitation, json_frame(said))
        assert answer is not None
        assert why in answer["error"]

    gateway = await Gateway.open(invitation)
    await gateway.ask(**secret)
    with pytest.raises(RunError, match="can work at no stage where one is wanted"):
        await gateway.ask(op="reserve", stages=[0])
    key = HotKey.generate()
    name = (await gateway.ask(op="reserve", stages=None))["worker"]
    for line in (
        None,
        authorisation(run, "worker-0", key),
        {**authorisation(run, name, key), "key": HotKey.generate().address},
        authorisation(run, name, key, address=HotKey.generate().address),
    ):
        with pytest.raises(RunError):
            await gateway.ask(op="enrol", authorisation=line, device="cpu")
    gateway.close()

    first, first_key, order = await take_seat(run, invitation)
    assert order["worker"] == name, "a seat that nobody took is given to the next"
    # Somebody who does not have its key.
    stranger = await Gateway.open(invitation)
    await stranger.ask(op="join", worker=name)
    with pytest.raises(RunError, match="not the key"):
        await stranger.ask(op="prove", signature=HotKey.generate().sign(proof_text(run.id, name, "00")))
    # Its own line, with a report that no worker makes.
    reader, writer = await open_pinned(invitation.host, invitation.port, invitation.fingerprint)
    first.say(op="spawned", pid=4_000_000)
    writer.write(json_frame({"op": "hello", "worker": name, "incarnation": 0, "token": order["token"]}))
    writer.write(json_frame({"op": "report", "kind": "round", "time": 1.0, "body": {"round": 2, "loss": "low", "tokens": 1}}))
    await hang_up_of(reader)
    end = await first.hear()
    assert end is not None
    assert (end["op"], "install the same version" in end["reason"]) == ("end", True)
    # It comes back with its key, and says what a machine cannot say: nothing has started there.
    again = await Gateway.open(invitation)
    await again.prove(name, first_key)
    while (order := await again.hear() or {})["op"] != "spawn":
        pass
    again.say(op="exited", pid=1, status=0)
    assert await again.hear() is None
    writer.close()


def test_nobody_comes_in_or_breaks_anything(home: Path) -> None:
    run = pl.launch(small_spec(steps=5000), account="lab-a")
    try:
        run.wait(round=2, timeout_s=60)
        for arguments, said in (
            ({"seats": 0}, "seats=0"),
            ({"seats": 1.5}, r"seats=1\.5"),
            ({"stage": 2}, "the run has the stages 0 to 1"),
            ({"for_hours": -1}, "for_hours=-1"),
        ):
            with pytest.raises(pl.PluralisError, match=said):
                run.invite(**arguments)
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            asyncio.run(speak_old_tls(run.invite()))
        assert (run.path / "gate.pem").stat().st_mode & 0o077 == 0
        assert (run.path / "invitations.json").stat().st_mode & 0o077 == 0
        asyncio.run(attack(run))
        assert [event.worker for event in run.events("error")] == ["worker-4"]
        assert "said what no worker says: loss" in run.events("error")[0].body["message"]
        assert run.state == "running"
        seen = len(run.metrics())
        run.wait(round=seen + 10, timeout_s=60)
        assert {row["name"] for row in run.info["workers"] if row.get("remote")} == {"worker-4"}
    finally:
        run.stop()
    with pytest.raises(pl.PluralisError, match="is not running"):
        run.invite()
    assert run.audit().ok
    log = (run.path / "logs" / "supervisor.log").read_text()
    assert "Traceback" not in log, log[-3000:]


@pytest.mark.parametrize("text", ["", "pluralis1.", "pluralis1.e30", "pluralis2.abc", None, 7, "pluralis1.*", "x" * 10_000])
def test_what_is_no_invitation_is_refused(text: object) -> None:
    with pytest.raises(RunError, match="this is no invitation"):
        Invitation.parse(text)


def test_an_invitation_survives_its_text() -> None:
    invitation = Invitation("ab" * 32, "::1", 4711, "cd" * 32, "secret")
    assert Invitation.parse(f" {invitation}\n") == invitation
    for changes in ({"run": "x"}, {"host": "example.org"}, {"port": 0}, {"port": True}, {"fingerprint": ""}, {"secret": 1}):
        with pytest.raises(RunError, match="this is no invitation"):
            Invitation.parse(str(Invitation(**{**invitation.__dict__, **changes})))


def test_the_book_counts_seats_and_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = InvitationBook(tmp_path / "invitations.json")
    assert not book.exists
    secret = book.add(seats=2, stage=None, for_hours=1)
    other = book.add(seats=1, stage=1, for_hours=1)
    for _ in range(2):
        book.use(book.find(secret))
    with pytest.raises(RunError, match="as many workers have come"):
        book.find(secret)
    assert InvitationBook(tmp_path / "invitations.json").find(other)["stage"] == 1
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3601)
    with pytest.raises(RunError, match="has run out"):
        book.find(other)


BODIES: list[tuple[str, dict[str, Any]]] = [
    ("state", {"state": "king", "round": 1, "incarnation": 0, "parameters": 1, "device": "cpu"}),
    ("state", {"state": "active", "round": -1, "incarnation": 0, "parameters": 1, "device": "cpu"}),
    ("state", {"state": "active", "round": 1, "incarnation": 0, "parameters": 1, "device": "cpu", "<b>": 1}),
    ("round", {"round": 10**20, "loss": 1.0, "tokens": 1}),
    ("round", {"round": 41, "loss": 1.0, "tokens": 1}),
    ("round", {"round": 1, "loss": float("nan"), "tokens": 1}),
    ("checkpoint", {"round": 1, "digest": "../x", "size_bytes": 1}),
    ("stalled", {"stage": 9, "round": 1}),
    ("reroute", {"round": 1, "index": 0, "stage": 1, "dead": "worker-1; rm", "to": "worker-2"}),
    ("unmet", {"peer": "<b>", "waited_s": 30.0}),
    ("unmet", {"peer": "worker-2", "waited_s": -1.0}),
    ("statements", {"round": 1, "statements": [{"body": {}, "signature": "0x"}]}),
    ("statements", {"round": 1, "statements": ["x"]}),
    ("work", {"round": 1}),
    ("links", {"links": {"worker-1": {"control_bytes": -1}}, "bytes_out": 1, "bytes_in": 0}),
    ("links", {"links": {"<b>": {"control_bytes": 1}}, "bytes_out": 1, "bytes_in": 0}),
    ("links", {"links": {}, "bytes_out": 0}),
    ("links", {"round": 1, "links": {}, "bytes_out": 0, "bytes_in": 0}),
]


@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_a_report_of_the_wrong_shape_is_refused(kind: str, body: dict[str, Any]) -> None:
    message = {"op": "report", "kind": kind, "time": 1.0, "body": body}
    with pytest.raises(WireError):
        check_word(message, worker="worker-4", run_id="ab" * 32, spec=small_spec(), vocab=256)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"op": "go"},
        {"op": "address", "addresses": []},
        {"op": "address", "addresses": "x"},
        {"op": "up", "device": "cpu", "parameters": "many"},
        {"op": "suspect", "worker": 4, "incarnation": 0},
        {"op": "answer", "request": "a1", "token": 256, "loss": None, "tokens": 0, "error": "", "is_last": False},
        {"op": "report", "kind": "secret", "time": 1.0, "body": {}},
        {"op": "report", "kind": "state", "time": 1.0, "body": []},
    ],
)
def test_a_word_that_no_worker_says_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        check_word(message, worker="worker-4", run_id="ab" * 32, spec=small_spec(), vocab=256)


def test_the_last_token_of_the_vocabulary_passes_and_the_one_after_it_is_named() -> None:
    answer = {"op": "answer", "request": "a1", "token": 255, "loss": None, "tokens": 0, "error": "", "is_last": False}
    check_word(answer, worker="worker-4", run_id="ab" * 32, spec=small_spec(), vocab=256)
    with pytest.raises(WireError, match="token 256 of an answer; the vocabulary has 0 to 255"):
        check_word({**answer, "token": 256}, worker="worker-4", run_id="ab" * 32, spec=small_spec(), vocab=256)


@pytest.mark.parametrize("sync", [pl.FullSync(), pl.SliceSync(0.5, 2)])
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_what_workers_say_passes(text: Corpus, sync: Any, schedule: str) -> None:
    """The virtual engine's workers are the same machines: each of their reports has a shape that a guest may send."""
    spec = tiny_spec(text, replicas=2, steps=8, epoch_rounds=4, sync=sync, schedule=schedule)
    seen = run_virtual(spec, text, kills=(Kill("worker-3", 400, 800),))
    kinds = set()
    for worker, at, kind, body in seen.reports:
        kinds.add(kind)
        if kind == "state":
            if body["state"] in ("dead", "stopped"):
                continue  # what its supervisor says of it
            body = {**body, "incarnation": 0, "parameters": 1, "device": "cpu"}
        word = json.loads(json.dumps({"op": "report", "kind": kind, "time": at, "body": body}))
        check_word(word, worker=worker, run_id=RUN_ID, spec=spec, vocab=text.info().vocab)
    assert {"state", "round", "work", "links", "statements", "validation", "reroute"} <= kinds
    assert ("exchange" in kinds) == isinstance(sync, pl.SliceSync)
