"""Streams between workers over hivemind's P2P: one ordered stream a direction, and the news that a peer is gone."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.utils.multiaddr import Multiaddr

from pluralis_lab.engines.meter import WireMeter
from pluralis_lab.engines.pieces import Assembly, cut, may_wait
from pluralis_lab.engines.swarm.dht_roster import Record
from pluralis_lab.engines.swarm.frames import frame, read_frame
from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import Payload
from pluralis_lab.worker.encoding import decode, encode, traffic_class
from pluralis_lab.worker.messages import Message

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
"""A peer that takes no stream for so long, though its record is in the DHT, counts as gone."""

_Outgoing = tuple[int, int, str, int, Message | bytes]
"""What waits to be sent: (0 or, if it may wait, 1; order; traffic class; bytes, nearly; a message or a piece of one)."""

_FIELDS_BYTES = 512
"""What a message without arrays takes, nearly."""

OnMessage = Callable[[str, Message], None]
OnLost = Callable[[str, int], None]
OnBreach = Callable[[str, int, str], None]


class Peering:
    """Sends and receives messages of one run.

    Parameters
    ----------
    p2p : hivemind's libp2p node of this process
    run_id : streams of other runs are not accepted
    find : returns the record of a libp2p identity, from the DHT if it is not known yet; None for a stranger
    on_message, on_lost : called in the event loop, in order for each peer
    on_breach : called with (worker, incarnation, why) in place of `on_lost` when a peer did what no correct one does
    limit_bytes : no frame may be larger
    max_waiting_bytes : no more may wait for one peer. What training has under way is bounded by the protocol and must fit; who
        asks for more than it takes is given up, so that it cannot fill this process's memory
    """

    def __init__(
        self,
        p2p: P2P,
        run_id: str,
        *,
        find: Callable[[PeerID], Awaitable[Record | None]],
        on_message: OnMessage,
        on_lost: OnLost,
        on_breach: OnBreach,
        limit_bytes: int,
        max_waiting_bytes: int,
    ) -> None:
        self.p2p, self._find, self._on_message, self._on_lost, self._on_breach = p2p, find, on_message, on_lost, on_breach
        self._protocol = f"/pluralis-lab/{run_id}/1"
        self._limit_bytes, self._max_waiting_bytes = limit_bytes, max_waiting_bytes
        self.meter = WireMeter()
        self._outgoing: dict[str, asyncio.PriorityQueue[_Outgoing]] = {}
        self.waiting_bytes: dict[str, int] = {}
        """What waits to be sent, by peer."""
        self._order = itertools.count()
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._accepted: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._records: dict[str, Record] = {}
        self._is_closing = False

    async def listen(self) -> None:
        """Accept streams of this run from now on."""
        await self.p2p.add_binary_stream_handler(self._protocol, self._accept)

    def connect(self, record: Record) -> None:
        """Send to `record` from now on; replaces an older incarnation of the same worker."""
        known = self._records.get(record.name)
        if known is not None and known.incarnation >= record.incarnation:
            return
        self.disconnect(record.name)
        self._records[record.name] = record
        queue: asyncio.PriorityQueue[_Outgoing] = asyncio.PriorityQueue()
        self._outgoing[record.name], self.waiting_bytes[record.name] = queue, 0
        self._writers[record.name] = asyncio.create_task(self._write(record, queue), name=f"to {record.name}")

    def disconnect(self, name: str) -> None:
        """Drop what waits for `name` and close its stream."""
        self._outgoing.pop(name, None)
        self.waiting_bytes.pop(name, None)
        self._records.pop(name, None)
        writer = self._writers.pop(name, None)
        if writer is not None:
            writer.cancel()

    def send(self, name: str, message: Message) -> None:
        """Queue `message` for `name`, in pieces behind everything else if it may wait; dropped when that worker is gone."""
        if name not in self._outgoing:
            return
        if may_wait(message):
            for piece in cut(encode(message)):
                self._put(name, 1, traffic_class(message), len(piece), piece)
        else:
            self._put(name, 0, traffic_class(message), _FIELDS_BYTES + _size_bytes(message), message)

    def _put(self, name: str, rank: int, traffic: str, size_bytes: int, content: Message | bytes) -> None:
        """Queue something for `name`, or give it up if too much waits for it already."""
        if name not in self._outgoing:
            return  # it was given up with the piece before
        if self.waiting_bytes[name] + size_bytes > self._max_waiting_bytes:
            self._lose(
                self._records[name],
                f"takes too little of what it asks for: {self.waiting_bytes[name]:,} bytes wait for it",
                is_breach=True,
            )
            return
        self.waiting_bytes[name] += size_bytes
        self._outgoing[name].put_nowait((rank, next(self._order), traffic, size_bytes, content))

    async def close(self) -> None:
        """Close all streams."""
        self._is_closing = True
        for task in self._writers.values():
            task.cancel()
        # Accepted streams are closed, not cancelled: hivemind runs their handlers and would log the cancellation as an error.
        for writer in self._accepted.values():
            writer.close()
        await asyncio.gather(*self._writers.values(), *self._accepted, return_exceptions=True)

    async def _write(self, record: Record, queue: asyncio.PriorityQueue[_Outgoing]) -> None:
        """Open the stream and write the queue to it until it breaks."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):  # `wait_for` of Python 3.11 can lose a cancellation
                await dial(self.p2p, record.peer_id, record.addresses)
                _, _, writer = await self.p2p.call_binary_stream_handler(record.peer_id, self._protocol)
        except Exception as error:  # whatever hivemind raises, the peer cannot be reached
            self._lose(record, f"cannot be reached ({type(error).__name__}: {error})")
            return
        try:
            while True:
                _, _, traffic, size_bytes, content = await queue.get()
                data = frame(content if isinstance(content, bytes) else encode(content))
                self.meter.sent(record.name, traffic, len(data))
                writer.write(data)
                await writer.drain()
                if self._outgoing.get(record.name) is queue:
                    self.waiting_bytes[record.name] -= size_bytes
        except OSError as error:
            self._lose(record, f"its stream broke ({type(error).__name__}: {error})")
        finally:
            writer.close()

    async def _accept(self, info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the messages of whoever opened a stream, if it is a worker of this run."""
        task = asyncio.current_task()
        assert task is not None
        self._accepted[task] = writer
        try:
            record = await self._find(info.peer_id)
            if record is None:
                log.warning("refused a stream of %s, who is no worker of this run", info.peer_id)
                return
            await self._read(record, reader)
        finally:
            del self._accepted[task]
            writer.close()

    async def _read(self, record: Record, reader: asyncio.StreamReader) -> None:
        self.connect(record)
        assembly = Assembly(self._limit_bytes)
        try:
            while (data := await read_frame(reader, limit_bytes=self._limit_bytes)) is not None:
                if self._records.get(record.name) != record:
                    return  # given up, or replaced by a later incarnation, whose messages these are not
                self.meter.received(len(data))
                if (whole := assembly.take(data)) is not None:
                    self._on_message(record.name, decode(whole))
        except WireError as error:
            self._lose(record, f"sent no message of ours: {error}", is_breach=True)
            return
        self._lose(record, "closed its stream")

    def _lose(self, record: Record, why: str, *, is_breach: bool = False) -> None:
        """Report a peer as gone, once for each incarnation."""
        known = self._records.get(record.name)
        if self._is_closing or known is None or known.incarnation != record.incarnation:
            return
        log.warning("%s (incarnation %d) %s", record.name, record.incarnation, why)
        if is_breach:
            self._on_breach(record.name, record.incarnation, why)
        else:
            self._on_lost(record.name, record.incarnation)


def _size_bytes(message: Message) -> int:
    """Return how many bytes of data `message` carries."""
    values = vars(message).values()
    return sum(
        value.size_bytes if isinstance(value, Payload) else len(value) for value in values if isinstance(value, Payload | bytes)
    )


async def dial(p2p: P2P, peer: PeerID, addresses: Iterable[str]) -> None:
    """Connect to `peer` at one of its multiaddresses (with or without ``/p2p/...`` at the end)."""
    suffix = Multiaddr(f"/p2p/{peer.to_base58()}")
    plain = [Multiaddr(address) for address in addresses]
    await p2p._client.connect(peer, [m.decapsulate(suffix) if str(m).endswith(str(suffix)) else m for m in plain])
