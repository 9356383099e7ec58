"""Streams between real libp2p daemons: what is sent comes in order, and what is none of ours changes nothing."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.utils import get_dht_time

from pluralis_lab.canonical import canonical_json
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.pieces import PIECE_BYTES, cut
from pluralis_lab.engines.swarm.dht_roster import DHTRoster, Record, _body
from pluralis_lab.engines.swarm.frames import frame
from pluralis_lab.engines.swarm.peering import Peering, dial
from pluralis_lab.worker.encoding import encode
from pluralis_lab.worker.messages import Counted, Fetch, Message, StateChunk

RUN_ID = "ab" * 32
LIMIT_BYTES = 1 << 20
MAX_WAITING_BYTES = 4 << 20
TIMEOUT_S = 10.0
UNKNOWN = msgpack.packb(["Surrender", {"round": 1}])


@dataclass
class Node:
    """One libp2p daemon with its peering, and what came in."""

    p2p: P2P
    record: Record
    peering: Peering
    received: asyncio.Queue[tuple[str, Message]] = field(default_factory=asyncio.Queue)
    lost: asyncio.Queue[tuple[str, int]] = field(default_factory=asyncio.Queue)
    breaches: asyncio.Queue[tuple[str, int, str]] = field(default_factory=asyncio.Queue)

    async def next(self) -> tuple[str, Message]:
        return await asyncio.wait_for(self.received.get(), TIMEOUT_S)

    async def next_lost(self, timeout_s: float = TIMEOUT_S) -> tuple[str, int]:
        return await asyncio.wait_for(self.lost.get(), timeout_s)

    async def next_breach(self) -> tuple[str, int, str]:
        return await asyncio.wait_for(self.breaches.get(), TIMEOUT_S)


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[int], Any]]:
    """Make nodes that know each other by their records; all of them, and their daemons, are gone afterwards."""
    monkeypatch.setattr(P2P, "_UNIX_SOCKET_PREFIX", f"/unix{tmp_path}/")
    nodes: list[Node] = []
    records: dict[str, Record] = {}
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    async def find(peer: PeerID) -> Record | None:
        return records.get(peer.to_base58())

    async def one(number: int) -> Node:
        p2p = await P2P.create(auto_nat=False, nat_port_map=False, use_relay=False, use_auto_relay=False)
        addresses = tuple(str(address) for address in await p2p.get_visible_maddrs())
        record = Record(f"worker-{number}", number, 0, "0x", 0, p2p.peer_id.to_base58(), addresses)
        records[record.peer] = record
        received: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
        lost: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        breaches: asyncio.Queue[tuple[str, int, str]] = asyncio.Queue()
        peering = Peering(
            p2p,
            RUN_ID,
            find=find,
            on_message=lambda name, message: received.put_nowait((name, message)),
            on_lost=lambda name, incarnation: lost.put_nowait((name, incarnation)),
            on_breach=lambda name, incarnation, why: breaches.put_nowait((name, incarnation, why)),
            limit_bytes=LIMIT_BYTES,
            max_waiting_bytes=MAX_WAITING_BYTES,
        )
        await peering.listen()
        nodes.append(Node(p2p, record, peering, received, lost, breaches))
        return nodes[-1]

    yield one
    for node in nodes:
        await node.peering.close()
        await node.p2p.shutdown()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".sock")]
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]


async def raw_stream(stranger: P2P, node: Node) -> asyncio.StreamWriter:
    await dial(stranger, node.record.peer_id, node.record.addresses)
    _, _, writer = await stranger.call_binary_stream_handler(node.record.peer_id, f"/pluralis-lab/{RUN_ID}/1")
    return writer


async def test_messages_arrive_in_order_and_every_byte_is_counted(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    a.peering.connect(b.record)
    sent = [Counted(number, tuple(range(number % 7))) for number in range(300)]
    for message in sent:
        a.peering.send("worker-1", message)
    assert [await b.next() for _ in sent] == [("worker-0", message) for message in sent]
    links, _ = a.peering.meter.take()
    assert links == {"worker-1": {"control_bytes": sum(len(frame(encode(message))) for message in sent)}}
    b.peering.send("worker-0", Fetch(1, "worker-1"))  # b has opened its own stream back by itself
    assert await a.next() == ("worker-1", Fetch(1, "worker-1"))


async def test_a_strangers_stream_changes_nothing(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    stranger = await P2P.create(auto_nat=False, nat_port_map=False, use_relay=False, use_auto_relay=False)
    try:
        writer = await raw_stream(stranger, b)
        writer.write(frame(encode(Counted(0, (1,)))))
        await writer.drain()
        a.peering.connect(b.record)
        a.peering.send("worker-1", Counted(0, (2,)))
        assert await b.next() == ("worker-0", Counted(0, (2,)))
        assert b.received.empty()
        assert b.lost.empty()
    finally:
        await stranger.shutdown()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff" * 64, "announces"),
        ((2**60).to_bytes(8, "big"), "announces 1,152,921,504,606,846,976 bytes"),
        ((LIMIT_BYTES + 1).to_bytes(8, "big"), f"the limit here is {LIMIT_BYTES:,}"),
        (frame(encode(Counted(0, (1,))))[:-3], None),
        (frame(b"\x00\x00\x00\x05garbage"), "no message"),
        (frame(len(UNKNOWN).to_bytes(4, "big") + UNKNOWN), "Surrender"),
        (frame(encode(Counted(0, (1,))) + b"more"), "carries 4 bytes"),
        (frame(next(cut(b"x" * PIECE_BYTES * 2))) * (LIMIT_BYTES // PIECE_BYTES + 1), "a message in pieces"),
    ],
    ids=[
        "garbage",
        "a frame of 2**60 bytes",
        "a frame a byte too large",
        "a truncated frame",
        "a malformed message",
        "a message of an unknown type",
        "trailing bytes",
        "pieces without end",
    ],
)
async def test_broken_bytes_are_reported_and_others_are_still_heard(
    make: Callable[[int], Any], data: bytes, says: str | None
) -> None:
    broken, b, honest = await make(0), await make(1), await make(2)
    writer = await raw_stream(broken.p2p, b)
    writer.write(data)
    await writer.drain()
    if says is None:  # it broke off, as one that dies does
        writer.close()
        assert await b.next_lost() == ("worker-0", 0)
    else:
        worker, incarnation, why = await b.next_breach()
        assert (worker, incarnation) == ("worker-0", 0)
        assert says in why
        assert b.lost.empty()
    honest.peering.connect(b.record)
    honest.peering.send("worker-1", Counted(0, (2,)))
    assert await b.next() == ("worker-2", Counted(0, (2,)))


async def test_a_peer_that_asks_and_does_not_read_is_given_up_before_it_fills_the_memory(make: Callable[[int], Any]) -> None:
    a, reader = await make(0), await make(2)
    deaf = await P2P.create(auto_nat=False, nat_port_map=False, use_relay=False, use_auto_relay=False)
    try:
        is_done = asyncio.Event()

        async def never_read(info: StreamInfo, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await is_done.wait()
            writer.close()

        await deaf.add_binary_stream_handler(f"/pluralis-lab/{RUN_ID}/1", never_read)
        addresses = tuple(str(address) for address in await deaf.get_visible_maddrs())
        a.peering.connect(Record("worker-1", 1, 0, "0x", 0, deaf.peer_id.to_base58(), addresses))
        a.peering.connect(reader.record)
        sent, most = 0, 0
        async with asyncio.timeout(60):
            while a.breaches.empty():
                a.peering.send("worker-1", StateChunk(1, "d", 0, bytes(LIMIT_BYTES // 4)))
                a.peering.send("worker-2", Counted(sent, ()))
                sent += 1
                most = max(most, sum(a.peering.waiting_bytes.values()))
                await asyncio.sleep(0)
        worker, incarnation, why = a.breaches.get_nowait()
        assert (worker, incarnation) == ("worker-1", 0)
        assert "bytes wait for it" in why
        assert MAX_WAITING_BYTES // 2 < most <= 2 * MAX_WAITING_BYTES
        a.peering.disconnect("worker-1")
        assert list(a.peering.waiting_bytes) == ["worker-2"]
        assert [await reader.next() for _ in range(sent)] == [("worker-0", Counted(number, ())) for number in range(sent)]
        is_done.set()
    finally:
        await deaf.shutdown()


async def test_what_was_read_makes_room_for_more(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    a.peering.connect(b.record)
    for number in range(3 * MAX_WAITING_BYTES // (LIMIT_BYTES // 2)):
        a.peering.send("worker-1", StateChunk(number, "d", 0, bytes(LIMIT_BYTES // 2)))
        _, message = await b.next()
        assert message.version == number
    assert a.breaches.empty()


async def test_a_killed_daemon_is_reported(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    a.peering.connect(b.record)
    a.peering.send("worker-1", Counted(0, ()))
    await b.next()
    child = a.p2p._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    assert await b.next_lost(10.0) == ("worker-0", 0)
    with contextlib.suppress(FileNotFoundError):  # a killed daemon does not always; in a run its supervisor does
        os.remove(a.p2p._daemon_listen_maddr["unix"])


async def test_messages_of_a_replaced_incarnation_are_not_taken_for_its_successors(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    a.peering.connect(b.record)
    a.peering.send("worker-1", Counted(0, (1,)))
    await b.next()
    b.peering.connect(Record("worker-0", 0, 0, "0x", 1, a.record.peer, a.record.addresses))
    a.peering.send("worker-1", Counted(0, (2,)))
    a.peering.send("worker-1", Counted(0, (3,)))
    await asyncio.wait_for(asyncio.gather(*b.peering._accepted), TIMEOUT_S)  # b has stopped to read the old one's stream
    assert b.received.empty()


async def test_only_the_authorised_keys_own_record_of_this_run_is_in_the_roster(make: Callable[[int], Any]) -> None:
    a = await make(0)
    node = await DHTNode.create(p2p=a.p2p)
    try:
        keys = {name: HotKey.from_seed(name.encode()) for name in ("worker-0", "worker-1", "worker-2", "worker-3")}
        roster = DHTRoster(node, RUN_ID, {name: key.address for name, key in keys.items()})

        def record(name: str) -> Record:
            return Record(name, 0, 0, keys[name].address, 0, a.record.peer, a.record.addresses)

        async def store(subkey: str, run: str, of: Record, key: HotKey) -> None:
            body = _body(run, of)
            value = [body, key.sign(canonical_json(body))]
            assert await node.store(f"pluralis-lab/{RUN_ID}/roster", value, get_dht_time() + 30, subkey=subkey)

        await roster.publish(record("worker-0"), keys["worker-0"])
        await store("worker-1", RUN_ID, record("worker-1"), keys["worker-2"])  # signed by another key
        await store("worker-2", "cd" * 32, record("worker-2"), keys["worker-2"])  # of another run
        await store("worker-3", RUN_ID, record("worker-0"), keys["worker-0"])  # under another's name
        assert await node.store(f"pluralis-lab/{RUN_ID}/roster", b"\xff", get_dht_time() + 30, subkey="worker-4")
        assert await roster.read() == {"worker-0": record("worker-0")}
    finally:
        await node.shutdown()


async def test_a_peering_that_is_closed_while_it_opens_a_stream_ends_at_once(make: Callable[[int], Any]) -> None:
    a, b = await make(0), await make(1)
    await dial(a.p2p, b.record.peer_id, b.record.addresses)  # from now on opening a stream takes a few turns of the loop

    async def find(peer: PeerID) -> Record | None:
        return None

    for turns in range(120):
        ignore: Any = lambda *_: None
        calls = {"on_message": ignore, "on_lost": ignore, "on_breach": ignore}
        closing = Peering(a.p2p, RUN_ID, find=find, **calls, limit_bytes=LIMIT_BYTES, max_waiting_bytes=MAX_WAITING_BYTES)
        closing.connect(b.record)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(TIMEOUT_S):
            await closing.close()
