"""All runs that are being followed: one `LiveRun` each, made for the first viewer and let go a while after the last."""

import asyncio
from typing import Any

from pluralis_lab.gpus import Gpus
from pluralis_lab.server.live.live_run import LiveRun
from pluralis_lab.server.live.viewer import Line, Viewer
from pluralis_lab.server.metering import Meters
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.settings import Settings
from pluralis_lab.store import RunDirectory

THREAD_END_S = 2.0


class Hub:
    """Hands out live runs and counts their viewers. For the loop's thread.

    Raises
    ------
    Refusal : 503 when as many runs are followed, or as many viewers are there, as the settings allow.
    """

    def __init__(self, settings: Settings, meters: Meters) -> None:
        self._settings, self._meters = settings, meters
        self.gpus = Gpus()
        self._live: dict[str, LiveRun] = {}
        self._farewells: dict[str, asyncio.TimerHandle] = {}
        self._ending: list[Any] = []
        self.num_viewers = 0

    def check_room(self, run_id: str) -> None:
        """Raise Refusal when no further viewer of this run can be taken in."""
        if self.num_viewers >= self._settings.max_viewers:
            raise Refusal(503, f"{self.num_viewers} viewers are open, the limit is max_viewers; close a view, or raise it")
        self._check_runs(run_id)

    def _check_runs(self, run_id: str) -> None:
        if run_id in self._live or len(self._live) < self._settings.max_live_runs:
            return
        idle = next((known for known, live in self._live.items() if not live.viewers), None)
        if idle is None:
            limit = self._settings.max_live_runs
            raise Refusal(503, f"{limit} runs are being followed, the limit is max_live_runs; close a view, or raise it")
        self._let_go(idle)

    def join(self, directory: RunDirectory, line: Line, since: int) -> "Seat":
        """Take in a viewer of a run."""
        self.check_room(directory.id)
        live = self._follow(directory)
        viewer = Viewer(line, since)
        self.num_viewers += 1
        self._meters.viewers.set(self.num_viewers)
        live.add(viewer)
        return Seat(self, live, viewer)

    def leave(self, live: LiveRun, viewer: Viewer) -> None:
        """A viewer has gone; the last one's run is kept for the grace time."""
        live.remove(viewer)
        self.num_viewers -= 1
        self._meters.viewers.set(self.num_viewers)
        if not live.viewers and self._live.get(live.id) is live:
            self._wait_for_others(live.id)

    async def poll(
        self, directory: RunDirectory, num_points: int, since: int
    ) -> tuple[int, dict[str, Any] | None, float | None, str]:
        """Answer one who polls: see `LiveRun.poll`."""
        self._check_runs(directory.id)
        live = self._follow(directory)
        if not live.viewers:
            self._wait_for_others(live.id)
        return await live.poll(num_points, since)

    def _follow(self, directory: RunDirectory) -> LiveRun:
        live = self._live.get(directory.id)
        if live is None:
            live = self._live[directory.id] = LiveRun(directory, meters=self._meters, gpus=self.gpus, on_end=self._ended)
            self._meters.followed.set(len(self._live))
        if (farewell := self._farewells.pop(directory.id, None)) is not None:
            farewell.cancel()
        return live

    def _wait_for_others(self, run_id: str) -> None:
        if (earlier := self._farewells.pop(run_id, None)) is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        self._farewells[run_id] = loop.call_later(self._settings.grace_s, self._let_go, run_id)

    def _ended(self, live: LiveRun) -> None:
        if self._live.get(live.id) is live:
            self._let_go(live.id)

    def _let_go(self, run_id: str) -> None:
        if (farewell := self._farewells.pop(run_id, None)) is not None:
            farewell.cancel()
        if (live := self._live.pop(run_id, None)) is not None:
            self._ending = [thread for thread in self._ending if not thread.join(0)]
            self._ending.append(live.close())
            self._meters.followed.set(len(self._live))

    def forget(self, run_id: str) -> None:
        """Let go of a run that is about to be deleted and has no viewers."""
        live = self._live.get(run_id)
        if live is not None and not live.viewers:
            self._let_go(run_id)

    @property
    def followed(self) -> list[str]:
        """The ids of the runs that are followed now."""
        return list(self._live)

    async def close(self) -> None:
        """End all: the server stops."""
        for run_id in list(self._live):
            self._let_go(run_id)
        for thread in self._ending:
            await asyncio.to_thread(thread.join, THREAD_END_S)
        self._ending = []


class Seat:
    """A viewer's place: what a socket does with its messages and its end."""

    def __init__(self, hub: Hub, live: LiveRun, viewer: Viewer) -> None:
        self._hub, self._live, self._viewer = hub, live, viewer

    def acknowledge(self, seq: int) -> None:
        """The viewer has drawn the picture of `seq`."""
        self._live.acknowledge(self._viewer, seq)

    def set_visible(self, visible: bool) -> None:
        """The viewer is hidden, or seen again."""
        self._live.set_visible(self._viewer, visible)

    def leave(self) -> None:
        """The viewer has gone."""
        self._hub.leave(self._live, self._viewer)
