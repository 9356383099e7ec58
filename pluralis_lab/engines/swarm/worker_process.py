"""A worker of the swarm engine: one process, one event loop, one compute thread around the sans-IO `Worker`."""

import asyncio
import concurrent.futures
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import torch
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines.meter import with_bytes
from pluralis_lab.engines.swarm.dht_roster import REPLY_TIMEOUT_S, DHTRoster, Record
from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.engines.swarm.peering import Peering, dial
from pluralis_lab.engines.swarm.worker_exit import EXIT_EXPELLED
from pluralis_lab.errors import PluralisError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.parts import GPT
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder
from pluralis_lab.worker import Compute, Computed, Effect, Expel, Peer, PeerLost, Received, Refused, Report, Send, Started, Worker
from pluralis_lab.worker.events import Event
from pluralis_lab.worker.messages import Hello, Lost, Message

log = logging.getLogger(__name__)

SEND_BUFFER_BYTES = 8 << 20
"""Of the socket to the supervisor: what is in it survives a SIGKILL of this worker, so receipts that were signed are not lost."""


class Expelled(PluralisError):
    """The others have declared this incarnation lost."""


def main(arguments: dict[str, Any]) -> int:
    """Run a worker to its end and return its exit status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    torch.set_num_threads(1)
    try:
        asyncio.run(WorkerProcess(arguments).run())
    except Expelled as error:
        log.warning("%s", error)
        return EXIT_EXPELLED
    except Exception:
        log.exception("worker %s failed", arguments["name"])
        return 1
    return 0


class WorkerProcess:
    """Connects a `Worker` to its supervisor, its peers and its arithmetic.

    arguments : name, number, incarnation, founding (whether it begins at once), version (rounds its weights stand at), run
    (the run directory), home, socket and token (the supervisor's)
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.name: str = arguments["name"]
        self.incarnation: int = arguments["incarnation"]
        self.founding: bool = arguments["founding"]
        self.version: int = arguments["version"]
        self.arguments = arguments
        self.directory = RunDirectory(arguments["run"])
        self.spec, info = self.directory.spec, self.directory.info
        self.info = info
        self.keys = {worker["name"]: worker["key"] for worker in info["workers"]}
        folder = self.directory.worker_folder(self.name)
        self.key = HotKey.load(folder / "hot.key")
        self.checkpoints = CheckpointFolder(folder)
        stage, replica = divmod(arguments["number"], self.spec.replicas)
        self.me = Peer(self.name, stage, replica, self.key.address, self.incarnation, self.version if self.founding else None)
        self.machine = Worker(self.spec, info["id"], self.me, self.key, keys=self.keys, vocab=info["corpus"]["vocab"])
        self.records: dict[str, Record] = {}
        self._early: list[Event] | None = []
        self._tasks: deque[tasks.Task] = deque()
        self._has_tasks = asyncio.Event()
        self._failed: asyncio.Future[None]
        self._compute_s = 0.0

    async def run(self) -> None:
        """Start up, serve until the supervisor says stop or goes away, and leave nothing behind."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        reader, self.writer = await asyncio.open_unix_connection(self.arguments["socket"])
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._tell({"op": "hello", "token": self.arguments["token"], "worker": self.name, "incarnation": self.incarnation})
        pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        building = loop.run_in_executor(pool, self._build)
        # Its daemon's sockets go into the supervisor's private folder, where whoever cleans up finds them, also after a SIGKILL.
        P2P._UNIX_SOCKET_PREFIX = f"/unix{Path(self.arguments['socket']).parent}/{self.name}.{self.incarnation}-"
        p2p = await P2P.create(auto_nat=False, nat_port_map=False, use_relay=False, use_auto_relay=False)
        node: DHTNode | None = None
        log.info("libp2p is up")
        try:
            addresses = [str(address) for address in await p2p.get_visible_maddrs()]
            self._tell({"op": "address", "addresses": addresses})
            bootstrap = await self._expect(reader, "bootstrap")
            if bootstrap is None:
                return
            node = await self._join_dht(p2p, bootstrap["addresses"])
            roster = DHTRoster(node, self.directory.id, self.keys)
            record = Record(
                self.name,
                self.me.stage,
                self.me.replica,
                self.key.address,
                self.incarnation,
                p2p.peer_id.to_base58(),
                tuple(addresses),
            )
            await roster.publish_first(record, self.key)
            log.info("in the DHT")
            self.peering = Peering(
                p2p,
                self.directory.id,
                find=lambda peer: self._find(roster, peer),
                on_message=self._on_message,
                on_lost=self._on_lost,
                limit_bytes=self._limit_bytes(),
            )
            await self.peering.listen()
            self.compute = await building
            log.info("stage %d is built", self.me.stage)
            self._tell({"op": "up", "device": str(self.compute.device), "parameters": self.compute.num_parameters})
            go = await self._expect(reader, "go")
            if go is None:
                return
            await self._meet(roster, {name: entry for name, entry in go["peers"].items() if name != self.name})
            log.info("met all %d peers", len(self.records))
            peers = tuple(
                self._peer(record, go["peers"][name]["since"]) for name, record in self.records.items() if name in go["peers"]
            )
            early, self._early = self._early or [], None
            self._dispatch(Started(peers, founding=self.founding))
            for event in early:
                self._dispatch(event)
            await self._until_first(
                self._obey(reader), self._compute_forever(pool), roster.renew_forever(record, self.key), self._raise_failure()
            )
        finally:
            if hasattr(self, "peering"):
                await self.peering.close()
            if node is not None:
                await node.shutdown()
            await p2p.shutdown()
            pool.shutdown(wait=False, cancel_futures=True)
            self.writer.close()

    async def _until_first(self, *jobs: Coroutine[Any, Any, None]) -> None:
        """Run `jobs` until one ends, end the others, and raise what it raised."""
        running = [asyncio.create_task(job) for job in jobs]
        done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    def _build(self) -> StageCompute:
        """Build the stage, with the checkpoint's weights if there is one to start from; a head also opens the corpus."""
        corpus = None
        if self.me.stage == 0:
            context = self.spec.model.context if isinstance(self.spec.model, GPT) else None
            facts = self.info["corpus"]
            corpus = open_corpus(self.spec.data, context=context, home=Path(self.arguments["home"]), expected_hash=facts["hash"])
        compute = StageCompute(self.spec, self.me.stage, corpus, vocab=self.info["corpus"]["vocab"])
        if self.founding and self.version:
            state, digest = self.checkpoints.load(self.version)
            compute.run(tasks.Restore(self.version, state, digest))
        return compute

    async def _join_dht(self, p2p: P2P, addresses: list[str]) -> DHTNode:
        if addresses:
            for address in addresses:
                await dial(p2p, PeerID.from_base58(Multiaddr(address)["p2p"]), [address])
        return await DHTNode.create(p2p=p2p, initial_peers=addresses or None, wait_timeout=REPLY_TIMEOUT_S)

    async def _meet(self, roster: DHTRoster, expected: dict[str, Any]) -> None:
        """Find every expected worker's record in the DHT and open a stream to it."""
        while True:
            self.records = {name: record for name, record in (await roster.read()).items() if name != self.name}
            missing = [
                name
                for name, entry in expected.items()
                if name not in self.records or self.records[name].incarnation < entry["incarnation"]
            ]
            if not missing:
                break
            # The DHT has no way to say "now": records spread to their nearest nodes within milliseconds of being stored.
            await asyncio.sleep(0.05)
        for name in expected:
            self.peering.connect(self.records[name])

    async def _find(self, roster: DHTRoster, peer: PeerID) -> Record | None:
        """Return the record of a libp2p identity, looking into the DHT for one that is new."""
        for _ in range(20):
            for record in self.records.values():
                if record.peer == peer.to_base58():
                    return record
            self.records.update({name: record for name, record in (await roster.read()).items() if name != self.name})
            if any(record.peer == peer.to_base58() for record in self.records.values()):
                continue
            await asyncio.sleep(0.1)  # it opened the stream before its record reached the DHT nodes that we ask
        return None

    def _peer(self, record: Record, since: int | None) -> Peer:
        return Peer(record.name, record.stage, record.replica, record.key, record.incarnation, since)

    def _limit_bytes(self) -> int:
        """Return the largest frame that can be meant: a stage's state with its optimizer, or a micro-batch at full width."""
        largest: int = max(self.info["stage_parameters"])
        width = self.spec.model.d_model if isinstance(self.spec.model, GPT) else max(self.spec.model.widths)
        return (1 << 20) + 4 * 8 * largest + 2 * 8 * self.spec.tokens_per_micro_batch * width

    async def _expect(self, reader: asyncio.StreamReader, op: str) -> dict[str, Any] | None:
        """Return the supervisor's next message, which must be `op`; None when it wants this worker to end."""
        message = await read_json(reader)
        if message is None or message["op"] == "stop":
            return None
        if message["op"] == "lost":
            return await self._expect(reader, op)
        if message["op"] != op:
            raise WireError(f"the supervisor said {message['op']!r} where {op!r} was due")
        return message

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        """Follow the supervisor until it says stop or its socket ends."""
        while (message := await read_json(reader)) is not None and message["op"] != "stop":
            if message["op"] == "lost":
                self._lose(message["worker"], message["incarnation"])

    def _on_message(self, source: str, message: Message) -> None:
        if isinstance(message, Lost) and message.worker == self.name and message.incarnation >= self.incarnation:
            self._fail(Expelled(f"{source} declared this worker lost; starting anew"))
            return
        record = self.records.get(source)
        if isinstance(message, Hello) and record is not None and message.incarnation != record.incarnation:
            self._give_up(source, record.incarnation, f"says it is incarnation {message.incarnation}")
            return
        self._dispatch(Received(source, message))

    def _on_lost(self, name: str, incarnation: int) -> None:
        self._tell({"op": "suspect", "worker": name, "incarnation": incarnation})
        self._lose(name, incarnation)

    def _lose(self, name: str, incarnation: int) -> None:
        record = self.records.get(name)
        if record is not None and record.incarnation <= incarnation:
            self.records.pop(name)
            self.peering.disconnect(name)
        self._dispatch(PeerLost(name, incarnation))

    def _give_up(self, name: str, incarnation: int, reason: str) -> None:
        """Go on without a peer that broke the protocol."""
        log.error("gave up %s: %s", name, reason)
        self._tell({"op": "error", "message": f"gave up {name} (incarnation {incarnation}): {reason}"})
        self._on_lost(name, incarnation)

    def _dispatch(self, event: Event) -> None:
        """Give `event` to the machine and do what it says."""
        if self._early is not None:
            self._early.append(event)
            return
        try:
            effects = self.machine.handle(event)
        except Exception as error:
            self._fail(error)
            return
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.peering.send(effect.target, effect.message)
        elif isinstance(effect, Compute):
            self._tasks.append(effect.task)
            self._has_tasks.set()
        elif isinstance(effect, Report):
            self._report(effect.kind, effect.body)
        elif isinstance(effect, Expel):
            self._give_up(effect.worker, effect.incarnation, effect.reason)
        else:
            size = self.checkpoints.save(effect.version, effect.state, effect.digest)
            self._report("checkpoint", {"round": effect.version, "digest": effect.digest, "size_bytes": size})

    def _report(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "work":
            body = with_bytes(body, self.peering.meter, self._compute_s)
            self._compute_s = 0.0
        elif kind == "state":
            body = {
                **body,
                "incarnation": self.incarnation,
                "parameters": self.compute.num_parameters,
                "device": str(self.compute.device),
            }
        self._tell({"op": "report", "kind": kind, "time": time.time(), "body": body})

    def _tell(self, message: dict[str, Any]) -> None:
        self.writer.write(json_frame(message))

    async def _compute_forever(self, pool: concurrent.futures.ThreadPoolExecutor) -> None:
        """Run tasks one after the other in the compute thread."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._tasks:
                self._has_tasks.clear()
                await self._has_tasks.wait()
            task = self._tasks.popleft()
            begin = time.perf_counter()
            event: Event
            try:
                event = Computed(task, await loop.run_in_executor(pool, self.compute.run, task))
            except WireError as error:  # what a peer sent cannot be computed with
                event = Refused(task, str(error))
            self._compute_s += time.perf_counter() - begin
            self._dispatch(event)

    async def _raise_failure(self) -> None:
        await self._failed

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
