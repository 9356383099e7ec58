"""The live socket: since-resume, acknowledgements, standby, one tail for all, long runs, deletion."""

import asyncio
import json
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from pluralis_lab.server.lab import Lab
from pluralis_lab.server.live import follower
from pluralis_lab.server.live.live_run import LiveRun
from pluralis_lab.store import RunDirectory
from tests.server.asking import RUN, Api, until
from tests.views.made_up_run import event_rows, make_run, write_rows

Watch = Callable[..., Any]
Hide = Callable[[Any], Awaitable[None]]


def add_round(run: RunDirectory, round_: int, loss: float = 1.5) -> int:
    """Write the next round as the run's process would."""
    writer = run.writer()
    seq = writer.append("round", round=round_, body={"loss": loss, "tokens": 1, "seconds": 1, "tokens_per_s": 1})
    writer.close()
    return seq


def tails() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pluralis-live-")]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Puts a viewer on standby, and returns when the server has heard it: a round comes by another way."""

    async def say(viewer: Any) -> None:
        heard, hear = asyncio.Event(), LiveRun.set_visible
        with monkeypatch.context() as patch:
            patch.setattr(LiveRun, "set_visible", lambda *told: (hear(*told), heard.set()))
            viewer.say(type="visible", visible=False)
            await asyncio.wait_for(heard.wait(), 20)

    return say


async def test_a_viewer_gets_the_picture_and_then_what_is_new(watch: Watch, going: RunDirectory) -> None:
    viewer = await watch(RUN)
    message = await viewer.picture()
    assert (message["picture"]["seq"], message["partial"]) == (going.last_seq(), False)
    seq = add_round(going, 20, 1.25)
    picture = (await viewer.picture())["picture"]
    assert (picture["seq"], picture["loss"]["y"][-1]) == (seq, 1.25)


async def test_since_keeps_what_is_known_from_being_sent(watch: Watch, going: RunDirectory) -> None:
    known = going.last_seq()
    viewer = await watch(RUN, since=known)
    pulse = await viewer.read()
    assert (pulse["type"], pulse["seq"], pulse["problem"]) == ("pulse", known, "")
    assert pulse["silent_s"] is not None
    seq = add_round(going, 20)
    assert (await viewer.picture())["picture"]["seq"] == seq
    late = await watch(RUN, since=known)
    assert (await late.picture())["picture"]["seq"] == seq


async def test_a_viewer_that_does_not_acknowledge_gets_one_merged_picture(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    slow, quick = await watch(RUN), await watch(RUN)
    first = await slow.read("picture")
    await quick.picture()
    for round_ in range(20, 26):
        seq = add_round(going, round_)
        assert (await quick.picture())["picture"]["seq"] == seq
    sent = lab.meters.registry.get_sample_value("pluralis_lab_messages_sent_total", {"type": "picture"})
    assert sent == 1 + 7  # the slow one has had its first, and nothing is waiting for it in any queue
    slow.say(type="ack", seq=first["picture"]["seq"])
    merged = (await slow.picture())["picture"]
    assert merged["seq"] == seq
    assert merged["rounds_done"] == 26


async def test_a_run_that_nobody_draws_costs_no_pictures(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    viewer = await watch(RUN)
    await viewer.read("picture")
    encoded = lab.meters.registry.get_sample_value("pluralis_lab_pictures_encoded_total")
    seq = add_round(going, 20)
    await until(lambda: lab.meters.registry.get_sample_value("pluralis_lab_events_folded_total") == seq)
    assert lab.meters.registry.get_sample_value("pluralis_lab_pictures_encoded_total") == encoded


async def test_viewers_share_one_tail_and_one_text(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    viewers = [await watch(RUN) for _ in range(8)]
    pictures = [await viewer.picture() for viewer in viewers]
    assert len(tails()) == 1
    assert all(picture == pictures[0] for picture in pictures)
    encoded = lab.meters.registry.get_sample_value("pluralis_lab_pictures_encoded_total")
    assert encoded is not None
    assert encoded <= 2
    assert lab.meters.registry.get_sample_value("pluralis_lab_viewers") == 8
    for viewer in viewers:
        viewer.close()
    await until(lambda: not tails() and not lab.hub.num_viewers)  # the grace time of these tests is 0.2 s
    assert lab.hub.followed == []


@pytest.mark.parametrize("lab_options", [{"grace_s": 60.0}])
async def test_a_reload_within_the_grace_time_finds_the_picture(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    viewer = await watch(RUN)
    await viewer.picture()
    thread = tails()
    viewer.close()
    again = await watch(RUN)
    await again.picture()
    assert tails() == thread


async def test_on_standby_only_the_end_is_sent(watch: Watch, going: RunDirectory, hide: Hide) -> None:
    viewer, other = await watch(RUN), await watch(RUN)
    await viewer.picture()
    await other.picture()
    await hide(viewer)
    for round_ in (20, 21):
        seq = add_round(going, round_)
        await other.picture()
    writer = going.writer()
    end = writer.append("run.state", body={"state": "stopped", "reason": "enough"})
    writer.close()
    message = await viewer.read()
    assert (message["type"], message["picture"]["seq"], message["picture"]["state"]) == ("picture", end, "stopped")
    assert end == seq + 1


async def test_coming_back_from_standby_shows_the_newest(watch: Watch, going: RunDirectory, hide: Hide) -> None:
    viewer, other = await watch(RUN), await watch(RUN)
    await viewer.picture()
    await other.picture()
    await hide(viewer)
    seq = add_round(going, 20)
    await other.picture()
    viewer.say(type="visible", visible=True)
    assert (await viewer.picture())["picture"]["seq"] == seq


async def test_a_run_that_ended_and_is_resumed_goes_on(watch: Watch, finished: RunDirectory) -> None:
    viewer = await watch(RUN)
    assert (await viewer.picture())["picture"]["over"] is True
    writer = finished.writer()
    writer.append("run.state", body={"state": "running", "reason": ""})
    writer.close()
    picture = (await viewer.picture())["picture"]
    assert (picture["state"], picture["over"]) == ("running", False)


async def test_a_deleted_run_ends_its_views(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    viewer = await watch(RUN)
    await viewer.picture()
    shutil.rmtree(going.path)
    assert "deleted" in (await viewer.read("pulse"))["problem"]
    assert await viewer.read() == {}
    assert viewer.connection.close_code == 4404
    assert lab.hub.followed == []
    with pytest.raises(HTTPClientError) as refused:
        await watch(RUN)
    assert refused.value.code == 404


async def test_a_damaged_run_ends_its_views_with_the_reason(watch: Watch, going: RunDirectory) -> None:
    for beside in ("events.db-wal", "events.db-shm"):
        (going.path / beside).unlink(missing_ok=True)
    (going.path / "events.db").write_bytes(b"no database" * 1_000)
    viewer = await watch(RUN)
    assert "cannot be read" in (await viewer.read("pulse"))["problem"]
    assert await viewer.read() == {}
    assert viewer.connection.close_code == 4409


async def test_a_viewer_that_talks_nonsense_is_let_go(watch: Watch, lab: Lab, going: RunDirectory) -> None:
    nonsense = ["", "[]", '{"type": "ack"}', '{"type": "ack", "seq": "1"}', '{"type": "stop"}', "[" * 2_000, '{"type": []}']
    for text in nonsense:
        viewer = await watch(RUN, since=10**6)
        viewer.connection.write_message(text)
        assert await viewer.read() == {}, text
        assert viewer.connection.close_code == 1008
    viewer = await watch(RUN, since=10**6)
    viewer.connection.write_message("x" * 100_000)
    assert await viewer.read() == {}


@pytest.mark.parametrize("lab_options", [{"max_viewers": 2, "max_live_runs": 1, "grace_s": 60.0}])
async def test_limits_refuse_with_the_limit_named(api: Api, watch: Watch, root: Path, lab: Lab, going: RunDirectory) -> None:
    other = make_run(root, run_id="ab" * 32)
    first = await watch(RUN)
    with pytest.raises(HTTPClientError) as refused:
        await watch(other.id)
    assert refused.value.code == 503
    assert "max_live_runs" in json.loads(refused.value.response.body)["message"]
    status, reply = await api.get(f"runs/{other.id}/picture")
    assert (status, reply["reason"]) == (503, "busy")
    second = await watch(RUN)
    with pytest.raises(HTTPClientError) as refused:
        await watch(RUN)
    assert refused.value.code == 503
    first.close()
    second.close()
    await until(lambda: not lab.hub.num_viewers)
    # A run that is kept only for its grace time makes room for one that somebody looks at.
    await watch(other.id)
    assert lab.hub.followed == [other.id]


async def test_bad_parameters_are_refused_before_the_socket_opens(watch: Watch, going: RunDirectory) -> None:
    with pytest.raises(HTTPClientError) as refused:
        await watch(RUN, since="now")
    assert refused.value.code == 400


async def test_those_who_poll_see_the_same(api: Api, watch: Watch, going: RunDirectory) -> None:
    viewer = await watch(RUN)
    live = (await viewer.picture())["picture"]
    reply = (await api.get(f"runs/{RUN}/picture"))[1]
    assert reply["seq"] == going.last_seq()
    assert {key: value for key, value in reply["picture"].items() if key != "workers"} == {
        key: value for key, value in live.items() if key != "workers"
    }
    assert (await api.get(f"runs/{RUN}/picture", since=reply["seq"]))[1]["picture"] is None
    coarse = (await api.get(f"runs/{RUN}/picture", points=8))[1]["picture"]
    assert len(coarse["loss"]["x"]) <= 8


async def test_a_long_run_shows_a_first_picture_before_it_is_read(
    watch: Watch, api: Api, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LONG_RUN", 500)
    monkeypatch.setattr(follower, "CHUNK", 50)
    monkeypatch.setattr(follower, "INTERVAL_S", 0.0)
    run = make_run(root, rounds=400)
    write_rows(run, event_rows(run))
    viewer = await watch(RUN)
    first = await viewer.picture()
    assert first["partial"] is True
    progress = await viewer.read("reading")
    assert 0 < progress["done"] <= progress["total"] == run.last_seq()
    while (message := await viewer.picture())["partial"]:
        pass
    whole, part = message["picture"], first["picture"]
    assert whole["seq"] == run.last_seq()
    for key in ("state", "loss", "validation", "rounds_done", "epochs_closed", "participants"):
        if key != "participants":
            assert part[key] == whole[key], key
    assert [worker["state"] for worker in part["workers"]] == [worker["state"] for worker in whole["workers"]]
