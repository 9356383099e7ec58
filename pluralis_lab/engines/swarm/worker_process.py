"""A worker of the swarm engine: one process, one event loop, one compute thread around the sans-IO `Worker`."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines.meter import links_report, with_bytes
from pluralis_lab.engines.own_corpus import open_own
from pluralis_lab.engines.scenario import ScenarioLog, sender_of
from pluralis_lab.engines.swarm.checkpoint_writer import CheckpointWriter
from pluralis_lab.engines.swarm.compute_thread import ComputeThread
from pluralis_lab.engines.swarm.limits import largest_message_bytes, most_waiting_bytes
from pluralis_lab.engines.swarm.node import SwarmNode, UnreachableError
from pluralis_lab.engines.swarm.peering import Peering
from pluralis_lab.engines.swarm.stillness import Stillness
from pluralis_lab.engines.swarm.supervisor_line import SupervisorLine
from pluralis_lab.engines.swarm.worker_exit import EXIT_ASIDE, EXIT_EXPELLED, EXIT_LEFT
from pluralis_lab.errors import PluralisError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder, versions_kept
from pluralis_lab.worker import (
    Answer,
    Compute,
    Effect,
    Enrolled,
    Event,
    Expel,
    Leave,
    Left,
    Peer,
    PeerLost,
    Probed,
    Prompted,
    Received,
    Report,
    Send,
    SetAside,
    SetTimer,
    Started,
    Store,
    Withdrawn,
    Woken,
    Worker,
)
from pluralis_lab.worker.messages import Hello, Lost, Message

log = logging.getLogger(__name__)


QUIET_S = 1.0
"""What is sent after the last round is told as soon as nothing more was for so long: a text in one report, not each token."""
TELL_LINKS_S = 60.0
"""Or after so long, where there is always more."""


class Expelled(PluralisError):
    """The others have declared this incarnation lost."""


class WasSetAside(Expelled):
    """The others have gone on without this incarnation, which did not answer."""


def main(arguments: dict[str, Any]) -> int:
    """Run a worker to its end and return its exit status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    torch.set_num_threads(1)
    try:
        return asyncio.run(WorkerProcess(arguments).run())
    except (Expelled, UnreachableError) as error:
        log.warning("%s", error)
        return EXIT_ASIDE if isinstance(error, WasSetAside) else EXIT_EXPELLED
    except Exception:
        log.exception("worker %s failed", arguments["name"])
        return 1


class WorkerProcess:
    """Connects a `Worker` to its supervisor, its peers and its arithmetic.

    arguments : name, incarnation, founding (whether it begins at once), on_trial (whether the one before was set aside),
    version (rounds its weights stand at), run (the run directory), home, host (this machine's address, for the others), socket
    and token (the supervisor's)
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.name: str = arguments["name"]
        self.incarnation: int = arguments["incarnation"]
        self.founding: bool = arguments["founding"]
        self.version: int = arguments["version"]
        self.on_trial: bool = arguments["on_trial"]
        self.mark: tasks.SyncMark | None = None
        self.arguments = arguments
        self.directory = RunDirectory(arguments["run"])
        self.spec, info = self.directory.spec, self.directory.info
        self.info = info
        self.keys = {worker["name"]: worker["key"] for worker in info["workers"]}
        folder = self.directory.worker_folder(self.name)
        self.key = HotKey.load(folder / "hot.key")
        self.checkpoints = CheckpointWriter(
            CheckpointFolder(folder, keep=versions_kept(self.spec)), on_stored=self._on_stored, on_failed=self._fail
        )
        seats = {worker["name"]: (worker["stage"], worker["replica"]) for worker in info["workers"]}
        self.me = Peer(self.name, *seats[self.name], self.key.address, self.incarnation, self.version if self.founding else None)
        vocab = info["corpus"]["vocab"]
        self.machine = Worker(self.spec, info["id"], self.me, self.key, keys=self.keys, vocab=vocab, seats=seats)
        self.scenario: ScenarioLog | None = None
        if info.get("recorded"):
            facts = {"founding": self.founding, "version": self.version, "seats": list(seats)}
            self.scenario = ScenarioLog(folder, self.incarnation, **facts)
        self._early: list[Event] | None = []
        self._failed: asyncio.Future[None]
        self._left = asyncio.Event()
        self._stillness = Stillness(lambda: self.line.tell(op="awake"))
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Start up, serve until the supervisor says stop or goes away, leave nothing behind, and return the exit status."""
        self._failed = asyncio.get_running_loop().create_future()
        self.line = await SupervisorLine.open(self.arguments["socket"])
        self.line.tell(op="hello", token=self.arguments["token"], worker=self.name, incarnation=self.incarnation)
        self.thread = ComputeThread(self._build, forwards_last=self.spec.is_async)
        self.node = await SwarmNode.start(
            self.me, self.key, folder=Path(self.arguments["socket"]).parent, host=self.arguments["host"]
        )
        self.peering = Peering(
            self.node.p2p,
            self.directory.id,
            find=self.node.find,
            on_message=self._on_message,
            on_lost=self._on_lost,
            on_breach=self._give_up,
            limit_bytes=largest_message_bytes(self.spec, self.info["stage_parameters"]),
            max_waiting_bytes=most_waiting_bytes(self.spec, self.info["stage_parameters"]),
        )
        try:
            there = await self._come_in()
            if there is not None:
                self._begin(*there)
                await _until_first(
                    self.line.obey(self._orders()),
                    self.thread.run_forever(self._dispatch),
                    self.node.renew_forever(),
                    self._raise_failure(),
                    self._until_left(),
                    self._stillness.beat_forever(),
                    self._tell_links_forever(),
                )
            return EXIT_LEFT if self._left.is_set() else 0
        except Exception as error:
            if not isinstance(error, Expelled):  # where the disk is full, the log of this process is empty
                self.line.tell(op="failed", message=f"{type(error).__name__}: {error}")
            raise
        finally:
            await self.checkpoints.finish()
            self._tell_links()
            await self.peering.close()
            await self.node.close()
            self.thread.close()
            self.line.close()
            if self.scenario is not None:
                self.scenario.close()

    async def _come_in(self) -> tuple[tuple[Peer, ...], dict[str, int]] | None:
        """Enter the DHT, finish the stage and meet the others; return them, and the last incarnations of those that are gone.

        None when the supervisor wants this worker to end before that.
        """
        self.line.tell(op="address", addresses=self.node.addresses)
        bootstrap = await self.line.expect("bootstrap")
        if bootstrap is None:
            return None
        await self.node.join(bootstrap["addresses"], self.directory.id, self.keys)
        await self.peering.listen()
        self.compute = await self.thread.built()
        log.info("stage %d is built", self.me.stage)
        self.line.tell(op="up", device=str(self.compute.device), parameters=self.compute.num_parameters)
        go = await self.line.expect("go")
        if go is None:
            return None
        for worker in go["attached"]:
            self._enrol(worker)
        expected = {name: entry for name, entry in go["peers"].items() if name != self.name}
        peers = await self.node.meet(expected)
        for name in expected:
            self.peering.connect(self.node.records[name])
        log.info("met all %d peers", len(self.node.records))
        return peers, go["lost"]

    def _orders(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        """Return what to do at each word of the supervisor."""
        return {
            "lost": lambda said: self._lose(said["worker"], said["incarnation"]),
            "enrol": lambda said: self._enrol(said["worker"]),
            "prompt": lambda said: self._dispatch(
                Prompted(
                    said["request"], tuple(said["ids"]), said["tokens"], said["temperature"], said["seed"], tuple(said["drawn"])
                )
            ),
            "probe": lambda said: self._dispatch(Probed(said["request"], said["batches"])),
            "leave": lambda said: self._dispatch(Leave()),
            "withdraw": lambda said: self._dispatch(Withdrawn(said["request"])),
            "aside": lambda said: self._fail(WasSetAside("the others went on without this worker; starting anew")),
            "awake": lambda said: self._go_on(),
        }

    def _enrol(self, worker: dict[str, Any]) -> None:
        """Know `worker` from now on, who was attached to the run after this process began, and say so."""
        self.keys[worker["name"]] = worker["key"]  # whose record in the DHT counts
        enrolled = Enrolled(worker["name"], worker["stage"], worker["replica"], worker["key"])
        now = asyncio.get_running_loop().time()
        self._note(enrolled, now)
        self.machine.handle(enrolled, now)
        self.line.tell(op="enrolled", worker=worker["name"])

    def _begin(self, peers: tuple[Peer, ...], gone: dict[str, int]) -> None:
        """Start the machine, and let it have what has come since its first peer could reach this worker.

        First who is gone already: others may not have heard of it yet, and name them as if they were there.
        """
        early, self._early = self._early or [], None
        self._dispatch(Started(peers, founding=self.founding, mark=self.mark, on_trial=self.on_trial))
        for name, incarnation in gone.items():
            self._lose(name, incarnation)
        for event in early:
            self._dispatch(event)

    def _build(self) -> StageCompute:
        """Build the stage, with the checkpoint's weights if there is one to start from; a head also opens the corpus."""
        corpus = None
        if self.me.stage == 0:
            facts = self.info["corpus"]
            corpus = open_corpus(
                self.spec.data, context=self.spec.context, home=Path(self.arguments["home"]), expected_hash=facts["hash"]
            )
        row = next(worker for worker in self.info["workers"] if worker["name"] == self.name)
        vocab, home = self.info["corpus"]["vocab"], Path(self.arguments["home"])
        own = open_own(self.directory.worker_folder(self.name), self.spec, row.get("data"), vocab=vocab, home=home)
        compute = StageCompute(self.spec, self.me.stage, corpus, vocab=vocab, device=row.get("device", "cpu"), own=own)
        if self.founding and self.version:
            state, digest = self.checkpoints.folder.load(self.version)
            restored = compute.run(tasks.Restore(self.version, state, digest))
            assert isinstance(restored, tasks.RestoreDone)
            self.mark = restored.mark
        return compute

    async def _tell_links_forever(self) -> None:
        """Tell what no round is left to tell of: texts, held-out losses, states for who comes late."""
        meter, seen, told_at = self.peering.meter, 0, 0.0
        while True:
            await asyncio.sleep(QUIET_S)
            is_quiet, seen = meter.num_messages == seen, meter.num_messages
            now = asyncio.get_running_loop().time()
            if self.machine.desk.state == "serving" and (is_quiet or now - told_at > TELL_LINKS_S):
                told_at = now
                self._tell_links()

    def _tell_links(self) -> None:
        """Tell what was sent and received since the last report of it."""
        if (body := links_report(self.peering.meter)) is not None:
            self._report("links", body)

    def _go_on(self) -> None:
        """Do what was put off, unless this worker was set aside meanwhile."""
        for act in self._stillness.end():
            if not self._failed.done():
                act()

    def _on_message(self, source: str, message: Message) -> None:
        if self._stillness.holds(partial(self._on_message, source, message)):
            return
        if isinstance(message, Lost) and message.worker == self.name and message.incarnation >= self.incarnation:
            self._fail(Expelled(f"{source} declared this worker lost; starting anew"))
            return
        record = self.node.records.get(source)
        if isinstance(message, Hello) and record is not None and message.incarnation != record.incarnation:
            self._give_up(source, record.incarnation, f"says it is incarnation {message.incarnation}")
            return
        self._dispatch(Received(source, message))

    def _on_lost(self, name: str, incarnation: int) -> None:
        if self._stillness.holds(partial(self._on_lost, name, incarnation)):
            return
        self.line.tell(op="suspect", worker=name, incarnation=incarnation)
        self._lose(name, incarnation)

    def _lose(self, name: str, incarnation: int) -> None:
        record = self.node.records.get(name)
        if record is not None and record.incarnation <= incarnation:
            self.node.records.pop(name)
            self.peering.disconnect(name)
        self._dispatch(PeerLost(name, incarnation))

    def _give_up(self, name: str, incarnation: int, reason: str) -> None:
        """Go on without a peer that broke the protocol."""
        log.error("gave up %s: %s", name, reason)
        self.line.tell(op="error", message=f"gave up {name} (incarnation {incarnation}): {reason}")
        self._on_lost(name, incarnation)

    def _dispatch(self, event: Event) -> None:
        """Give `event` to the machine and do what it says."""
        if self._early is not None:
            self._early.append(event)
            return
        if self._stillness.holds(partial(self._dispatch, event)):
            return
        now = asyncio.get_running_loop().time()
        try:
            self._note(event, now)
            for effect in self.machine.handle(event, now):
                self._perform(effect)
        except Exception as error:  # hivemind, whose handlers end here too, would log it and go on
            self._fail(error)

    def _note(self, event: Event, now: float) -> None:
        """Record `event`, where the run is recorded, and unless it is a message that will be dropped."""
        if self.scenario is None:
            return
        sender = sender_of(event, self.machine.desk.roster.get(event.source)) if isinstance(event, Received) else 0
        if sender is not None:
            self.scenario.note(event, at=now, sender=sender)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.peering.send(effect.target, effect.message)
        elif isinstance(effect, Compute):
            self.thread.put(effect.task)
        elif isinstance(effect, Report):
            self._report(effect.kind, effect.body)
        elif isinstance(effect, Answer):
            self.line.tell(op="answer", **asdict(effect))
        elif isinstance(effect, Expel):
            self._give_up(effect.worker, effect.incarnation, effect.reason)
        elif isinstance(effect, SetAside):
            log.warning("%s: %s for %.1f s", effect.worker, effect.reason, effect.silent_s)
            self.line.tell(op="silent", **asdict(effect))
        elif isinstance(effect, SetTimer):
            self._set_timer(effect.after_s)
        elif isinstance(effect, Left):
            log.info("left in round %d", self.machine.desk.round)
            self._tell_links()
            self.line.tell(op="left")  # behind its last reports, which the supervisor waits for
            self._left.set()
        else:
            self.checkpoints.write(effect)

    def _on_stored(self, store: Store, size_bytes: int) -> None:
        self._report("checkpoint", {"round": store.version, "digest": store.digest, "size_bytes": size_bytes})

    def _set_timer(self, after_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if after_s is None else loop.call_later(after_s, self._dispatch, Woken())

    def _report(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "work":
            body = with_bytes(body, self.peering.meter, self.thread.take_busy_s())
        elif kind == "state":
            body = {
                **body,
                "incarnation": self.incarnation,
                "parameters": self.compute.num_parameters,
                "device": str(self.compute.device),
            }
        self.line.tell(op="report", kind=kind, time=time.time(), body=body)

    async def _until_left(self) -> None:
        await self._left.wait()

    async def _raise_failure(self) -> None:
        await self._failed

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)


async def _until_first(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run `jobs` until one ends, end the others, and raise what it raised."""
    running = [asyncio.create_task(job) for job in jobs]
    done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
