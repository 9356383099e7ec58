"""A real run over hivemind from the browser's side: launch, watch, kill, invite, let go, stop, resume, pay, claim, delete."""

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.engines.invitation import Invitation, InvitationBook
from tests.server.asking import API, Api, until


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose chain daemon and runs are ended with the test."""
    path = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    monkeypatch.setenv("PLURALIS_LAB_HOME", str(path))
    monkeypatch.setenv("PLURALIS_LAB_HEADLESS", "1")
    yield path
    for run in (path / "runs").glob("*"):
        pl.open_run(run.name, home=path).stop()
    pl.Chain.embedded(home=path).stop()
    shutil.rmtree(path, ignore_errors=True)


SPEC: dict[str, Any] = {
    "model": {"kind": "gpt", "n_layer": 2, "n_head": 2, "d_model": 32, "context": 64},
    "stages": 2,
    "replicas": 2,
    "boundary": {"kind": "subspace", "rank": 8},
    "steps": 4_000,
    "batch_size": 8,
    "micro_batches": 2,
    "epoch_rounds": 10,
    "eval_every": 20,
    "checkpoint_every": 10,
    "own_data": 0.5,
}


def num_questions() -> int:
    """How many connections this server has to supervisors: each text that is being written takes one."""
    return sum(socket.status != psutil.CONN_LISTEN for socket in psutil.Process().net_connections("unix"))


async def leaves_in_the_middle_of_a_text(api: Api, run: str, port: int) -> None:
    """A client that is gone is written for no longer."""
    before = num_questions()
    body = json.dumps({"prompt": "a", "tokens": 100_000}).encode()
    heads = f"Host: localhost\r\nAuthorization: token {api.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(f"POST {api.base_url}{API}/runs/{run}/generate HTTP/1.1\r\n{heads}".encode() + body)
    assert b"200 OK" in await reader.readline()
    await reader.readuntil(b'"is_last":false')
    assert num_questions() == before + 1
    writer.close()
    await until(lambda: num_questions() == before)


async def is_invited_to(api: Api, run: str, heard: pytest.LogCaptureFixture) -> None:
    """An invitation opens the run's gate for as many as it says; its secret is in the reply and nowhere else."""
    for wrong, says in (
        ({"stage": 2}, "stage=2; the run has the stages 0 to 1"),
        ({"seats": 0}, "seats=0"),
        ({"for_hours": 0}, "for_hours=0"),
        ({"host": "0.0.0.0"}, "host"),
    ):
        refused, reply = await api.post(f"runs/{run}/invite", wrong)
        assert (refused, says in reply["message"]) == (400, True), reply
    before = time.time()
    status, made = await api.post(f"runs/{run}/invite", {"seats": 3, "stage": 1, "for_hours": 2})
    assert status == 201, made
    invitation, path = Invitation.parse(made["invitation"]), pl.open_run(run).path
    entry = InvitationBook(path / "invitations.json").find(invitation.secret)
    assert (invitation.run, entry["left"], entry["stage"]) == (run, 3, 1)
    assert (made["host"], made["port"], made["is_local"]) == ("127.0.0.1", invitation.port, True)
    assert made["seats"] == 3
    assert before + 7200 <= made["until"] <= time.time() + 7200
    secrets = (made["invitation"], invitation.secret)
    kept = [file for file in path.parents[1].rglob("*") if file.is_file()]
    assert {"events.db", "supervisor.log", "invitations.json"} <= {file.name for file in kept}
    for file in kept:
        with contextlib.suppress(FileNotFoundError):  # a checkpoint that a later one has replaced meanwhile
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
    assert not [secret for secret in secrets if secret in heard.text]
    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["host"], row["own_data"]) == ("127.0.0.1", 0.5)


@pytest.mark.timeout(900)
async def test_a_run_from_its_launch_to_its_end(
    api: Api, watch: Callable[..., Any], jp_http_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    refused, reply = await api.post("runs", {"spec": {**SPEC, "stages": 9}})
    assert (refused, "stages=9" in reply["message"]) == (400, True)
    refused, reply = await api.post("runs", {"spec": {**SPEC, "data": "path:/no/such/file"}})
    assert (refused, "/no/such/file" in reply["message"]) == (400, True)

    status, reply = await api.post("runs", {"spec": SPEC, "account": "lab-a", "participants": ["lab-a", "lab-b"]})
    assert status == 201, reply
    run = reply["id"]
    viewer = await watch(run)
    picture = (await viewer.picture())["picture"]
    while picture["rounds_done"] < 24 or picture["epochs_closed"] < 2:
        picture = (await viewer.picture(60))["picture"]
    assert picture["state"] == "running"
    assert picture["loss"]["y"][-1] < picture["loss"]["y"][0]
    assert [worker["state"] for worker in picture["workers"]] == ["active"] * 4
    while not all(worker.get("cpu_percent") is not None for worker in picture["workers"]):
        picture = (await viewer.picture(60))["picture"]
    assert all(worker["memory_bytes"] > 10_000_000 for worker in picture["workers"])

    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["state"], row["live_workers"], row["chain"], row["account"]) == ("running", 4, "embedded", "lab-a")
    check = (await api.post("spec/check", {"spec": SPEC}))[1]
    assert check["estimate"]["round_s"] > 0
    assert check["estimate"]["vocab_is_known"] is True
    assert (await api.ask("DELETE", f"runs/{run}"))[0] == 409
    assert (await api.post(f"runs/{run}/resume"))[0] == 409
    assert (await api.post(f"runs/{run}/kill", {"worker": "worker-99"}))[0] == 409

    # A worker dies and comes back.
    (pid,) = [worker["pid"] for worker in picture["workers"] if worker["name"] == "worker-3"]
    assert (await api.post(f"runs/{run}/kill", {"worker": "worker-3"}))[1] == {"state": "running"}
    while not (picture := (await viewer.picture(60))["picture"])["workers"][3]["deaths"]:
        pass
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    done = picture["rounds_done"]
    while picture["rounds_done"] < done + 3:
        picture = (await viewer.picture(60))["picture"]
    assert (await api.get(f"runs/{run}/log/supervisor"))[0] == 200
    receipts = (await api.get(f"runs/{run}/receipts", worker="worker-0", limit=3))[1]
    assert receipts["total"] > 3
    assert receipts["receipts"][0]["signer_participant"] in ("lab-a", "lab-b")

    # A worker is added, where it is asked to be and for whom.
    notes = tmp_path / "notes.txt"
    notes.write_text("the quick brown fox jumps over the lazy dog. " * 1000)
    for wrong, status, says in (
        ({"stage": 2}, 400, "stage=2; the run has the stages 0 to 1"),
        ({"stage": True}, 400, "stage=True"),
        ({"device": "gpu"}, 400, "device='gpu'"),
        ({"device": "cuda:93"}, 409, "CUDA devices on this machine; use 'cpu'"),
        ({"account": "nobody"}, 400, "account='nobody' is not in this home; it has lab-a, lab-b"),
        ({"data": "stdlib"}, 400, "data='stdlib'"),
        ({"data": "path:/no/such/notes.txt"}, 400, "/no/such/notes.txt does not exist; give a text file"),
        ({"data": f"path:{notes}", "stage": 1}, 409, "only workers of stage 0 draw"),
    ):
        refused, reply = await api.post(f"runs/{run}/attach", wrong)
        assert (refused, says in reply["message"]) == (status, True), reply
    assert len(pl.open_run(run).info["workers"]) == 4
    status, added = await api.post(f"runs/{run}/attach", {"stage": 1, "account": "lab-b"})
    assert (status, added) == (201, {"worker": "worker-4", "stage": 1, "replica": 2, "participant": "lab-b"})
    states: list[str] = []
    while not states or states[-1] != "active":
        picture = (await viewer.picture(60))["picture"]
        states += [worker["state"] for worker in picture["workers"] if worker["name"] == "worker-4"]
    while picture["live_workers"] < 5:
        picture = (await viewer.picture(60))["picture"]
    assert (picture["workers"][4]["stage"], picture["workers"][4]["participant"]) == (1, "lab-b")
    assert {"starting", "joining", "syncing", "warming", "active"} >= set(states)  # what is short can fall between two pictures
    assert [mark["worker"] for mark in picture["marks"] if mark["kind"] == "joined"] == ["worker-4"]

    await is_invited_to(api, run, caplog)

    # One comes with a text of its own, another one is let go and does not come back.
    status, added = await api.post(f"runs/{run}/attach", {"account": "lab-b", "data": f"path:{notes}"})
    assert (status, added) == (201, {"worker": "worker-5", "stage": 0, "replica": 2, "participant": "lab-b"})
    refused, reply = await api.post(f"runs/{run}/detach", {"worker": "worker-99"})
    assert (refused, "no worker 'worker-99'; there are worker-0" in reply["message"]) == (409, True), reply
    assert await api.post(f"runs/{run}/detach", {"worker": "worker-4"}) == (200, {"state": "running"})
    left: dict[str, Any] = {"state": ""}
    while left["state"] != "stopped":
        workers = (await viewer.picture(60))["picture"]["workers"]
        (left,) = [worker for worker in workers if worker["name"] == "worker-4"]
    assert left["reason"] == "left the run"
    while not pl.open_run(run).data()["tokens"].sum():
        await viewer.picture(60)

    # The model goes on with a text; who has heard enough goes away.
    status, text = await api.post(f"runs/{run}/generate", {"prompt": "def ", "tokens": 12, "temperature": 0})
    lines = [json.loads(line) for line in text.splitlines()]
    assert (status, [line["is_last"] for line in lines]) == (200, [False] * 11 + [True])
    assert {line["error"] for line in lines} == {""}
    for wrong, says in (({"prompt": ""}, "prompt=''"), ({"prompt": "a", "tokens": 0}, "tokens=0"), ({}, "needs prompt")):
        refused, reply = await api.post(f"runs/{run}/generate", wrong)
        assert (refused, says in reply["message"]) == (400, True), reply
    await leaves_in_the_middle_of_a_text(api, run, jp_http_port)

    # Stopped, and gone on with.
    assert (await api.post(f"runs/{run}/stop"))[1] == {"state": "stopped"}
    assert (await api.post(f"runs/{run}/stop"))[0] == 409
    refused, reply = await api.post(f"runs/{run}/attach")
    assert (refused, "resume it, then add a worker" in reply["message"]) == (409, True)
    refused, reply = await api.post(f"runs/{run}/generate", {"prompt": "a"})
    assert (refused, "is not running" in reply["message"]) == (409, True)
    while not (picture := (await viewer.picture(60))["picture"])["over"]:
        pass
    status, reply = await api.post(f"runs/{run}/resume")
    assert status == 200, reply
    while (picture := (await viewer.picture(60))["picture"])["state"] != "running" or picture["live_workers"] < 5:
        pass
    assert (await api.post(f"runs/{run}/stop"))[1] == {"state": "stopped"}

    # Owned.
    audit = (await api.post(f"runs/{run}/audit"))[1]
    assert (audit["ok"], audit["findings"]) == (True, []), audit["verdict"]
    ownership = (await api.get(f"runs/{run}/ownership"))[1]
    assert (ownership["state"], ownership["token"], ownership["can_pay"]) == ("untokenized", None, False)
    assert set(ownership["accounts"]) == {"lab-a", "lab-b"}
    assert set(ownership["epochs"][0]["amounts_wei"]) == {"lab-a", "lab-b"}
    assert (await api.post(f"runs/{run}/pay", {"amount_eth": "1"}))[0] == 409
    status, ownership = await api.post(f"runs/{run}/tokenize", {})
    assert (status, ownership["state"], ownership["can_pay"]) == (200, "tokenized", True), ownership
    assert sum(int(holder["shares_wei"]) for holder in ownership["token"]["holders"]) == int(ownership["token"]["supply_wei"])

    status, reply = await api.post(f"runs/{run}/pay", {"amount_eth": "1", "account": "nobody"})
    assert (status, "lab-a, lab-b" in reply["message"]) == (400, True)
    assert set((await api.get(f"runs/{run}/ownership"))[1]["accounts"]) == {"lab-a", "lab-b"}
    status, reply = await api.post(f"runs/{run}/pay", {"amount_eth": "1000"})
    assert (status, "cannot pay 1000" in reply["message"]) == (409, True)
    status, paid = await api.post(f"runs/{run}/pay", {"amount_eth": "0.5"})
    assert (status, paid["wei"], paid["account"]) == (200, "500000000000000000", "lab-a")
    status, claims = await api.post(f"runs/{run}/claim", {})
    assert {claim["name"] for claim in claims["claims"]} == {"lab-a", "lab-b"}
    token = (await api.get(f"runs/{run}/ownership"))[1]["token"]
    assert int(token["paid_wei"]) == int(token["claimed_wei"]) + int(token["claimable_wei"]) + int(token["dust_wei"])
    assert int(token["claimed_wei"]) == sum(int(claim["wei"]) for claim in claims["claims"])

    assert (await api.ask("DELETE", f"runs/{run}"))[0] == 204
    while await viewer.read():
        pass
    assert viewer.connection.close_code == 4404
    assert (await api.get("runs"))[1] == {"runs": []}
