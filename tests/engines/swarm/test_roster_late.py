"""A DHT whose replies come late, or never: what counts as published, and when a worker's record is there after all."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.swarm import dht_roster
from pluralis_lab.engines.swarm.dht_roster import RECORD_LIFETIME_S, DHTRoster, Record
from pluralis_lab.engines.swarm.peering import dial
from pluralis_lab.errors import RunError

RUN_ID = "ab" * 32
KEY = HotKey.from_seed(b"worker-0")
REPLY_TIMEOUT_S = 1.0
TIMEOUT_S = 60.0
REFUSED = "the DHT did not take the record of worker-0"


@dataclass
class Pair:
    """Two DHT nodes that know each other: the one that publishes, and the other, whose libp2p daemon can be made silent."""

    own: DHTRoster
    other: DHTRoster

    def record(self, incarnation: int = 0) -> Record:
        return Record("worker-0", 0, 0, KEY.address, incarnation, self.own.node.peer_id.to_base58(), ("/ip4/127.0.0.1/tcp/1",))

    @property
    def daemon(self) -> int:
        child = self.other.node.p2p._child
        assert child is not None
        return int(child.pid)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Stop the other's daemon: it holds its connections and answers nothing, like one that gets no processor time.

        Only meanwhile replies have a short time: a node that is awake may take its own on a crowded machine.
        """
        os.kill(self.daemon, signal.SIGSTOP)
        os.waitid(os.P_PID, self.daemon, os.WSTOPPED)  # else its threads may answer for some milliseconds more
        self.own.node.protocol.wait_timeout = REPLY_TIMEOUT_S
        try:
            yield
        finally:
            self.own.node.protocol.wait_timeout = TIMEOUT_S
            os.kill(self.daemon, signal.SIGCONT)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Two nodes on loopback; they and their daemons are gone afterwards."""
    monkeypatch.setattr(P2P, "_UNIX_SOCKET_PREFIX", f"/unix{tmp_path}/")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with contextlib.AsyncExitStack() as stack:

        async def daemon() -> P2P:
            p2p = await P2P.create(auto_nat=False, nat_port_map=False, use_relay=False, use_auto_relay=False)
            stack.push_async_callback(p2p.shutdown)
            return p2p

        async def node(p2p: P2P, initial_peers: list[str]) -> DHTNode:
            made = await DHTNode.create(p2p=p2p, initial_peers=initial_peers or None, wait_timeout=TIMEOUT_S)
            stack.push_async_callback(made.shutdown)
            return made

        first, second = await daemon(), await daemon()
        other = await node(first, [])
        addresses = [str(address) for address in await first.get_visible_maddrs()]
        await dial(second, first.peer_id, addresses)
        own = await node(second, addresses)
        keys = {"worker-0": KEY.address}
        yield Pair(DHTRoster(own, RUN_ID, keys), DHTRoster(other, RUN_ID, keys))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".sock")]
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]


def on_warning(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> list[str]:
    """Call `act` with its number at each warning of the roster, and return the list that the warnings are added to."""
    warnings: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())
            act(len(warnings))

    monkeypatch.setattr(dht_roster.log, "handlers", [*dht_roster.log.handlers, Listener(logging.WARNING)])
    return warnings


async def test_a_silent_node_does_not_keep_a_record_from_the_roster(pair: Pair) -> None:
    with pair.silence():
        # hivemind counts the own node as one that took it; the others ask that node too.
        await asyncio.wait_for(pair.own.publish(pair.record(), KEY), TIMEOUT_S)
        assert await pair.own.read() == {"worker-0": pair.record()}
    assert await pair.other.read() == {"worker-0": pair.record()}


async def test_a_record_that_ends_before_the_replies_come_is_refused_by_name(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # The search for the nearest nodes takes as long as the silent one may; by then the record has ended, and the own node
    # refuses it too. In a run that takes a DHT that is RECORD_LIFETIME_S late.
    monkeypatch.setattr(dht_roster, "RECORD_LIFETIME_S", REPLY_TIMEOUT_S / 2)
    with pair.silence():
        with pytest.raises(RunError, match=REFUSED):
            await asyncio.wait_for(pair.own.publish(pair.record(), KEY), TIMEOUT_S)
        assert await pair.own.read() == {}
    assert await pair.other.read() == {}


async def test_the_first_record_is_stored_again_when_the_replies_came_late(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def wake(number: int) -> None:
        os.kill(pair.daemon, signal.SIGCONT)
        monkeypatch.setattr(dht_roster, "RECORD_LIFETIME_S", RECORD_LIFETIME_S)

    warnings = on_warning(monkeypatch, wake)
    monkeypatch.setattr(dht_roster, "RECORD_LIFETIME_S", REPLY_TIMEOUT_S / 2)
    with pair.silence():
        await asyncio.wait_for(pair.own.publish_first(pair.record(), KEY), TIMEOUT_S)
        assert len(warnings) == 1
        assert warnings[0].startswith(REFUSED)
        assert warnings[0].endswith("trying again")
    assert await pair.own.read() == {"worker-0": pair.record()}
    assert await pair.other.read() == {"worker-0": pair.record()}


async def test_the_first_record_is_stored_again_until_it_ends_later_than_its_predecessors(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A node refuses what ends no later than what it has: a predecessor's record from a machine whose clock is ahead, or the same
    # record that came by another way meanwhile.
    with monkeypatch.context() as patch:
        patch.setattr(dht_roster, "RECORD_LIFETIME_S", RECORD_LIFETIME_S + 60)
        await pair.own.publish(pair.record(), KEY)
    successor = pair.record(incarnation=1)
    with pytest.raises(RunError, match=REFUSED):
        await pair.own.publish(successor, KEY)
    assert await pair.other.read() == {"worker-0": pair.record()}

    def time_goes_by(number: int) -> None:
        monkeypatch.setattr(dht_roster, "RECORD_LIFETIME_S", RECORD_LIFETIME_S + 120)

    warnings = on_warning(monkeypatch, time_goes_by)
    await asyncio.wait_for(pair.own.publish_first(successor, KEY), TIMEOUT_S)
    assert warnings
    assert await pair.own.read() == {"worker-0": successor}
    assert await pair.other.read() == {"worker-0": successor}
