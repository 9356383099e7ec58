"""Entering the DHT while others die: real libp2p daemons."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.swarm.node import SwarmNode, UnreachableError
from pluralis_lab.worker import Peer

RUN_ID = "cd" * 32
KEYS = {f"worker-{number}": HotKey.from_seed(bytes([number])) for number in range(3)}
ADDRESSES = {name: key.address for name, key in KEYS.items()}


@asynccontextmanager
async def node(number: int) -> AsyncIterator[SwarmNode]:
    name = f"worker-{number}"
    folder = Path(tempfile.mkdtemp(prefix="pl-"))  # socket paths must be short
    started = await SwarmNode.start(Peer(name, 0, number, KEYS[name].address), KEYS[name], folder=folder)
    try:
        yield started
    finally:
        await started.close()
        shutil.rmtree(folder)


async def test_a_worker_enters_through_those_who_live_and_says_so_when_nobody_does() -> None:
    async with node(0) as alive:
        await alive.join([], RUN_ID, ADDRESSES)
        async with node(1) as dead:
            gone = dead.addresses
        async with node(2) as late:
            with pytest.raises(UnreachableError, match=r"none of [0-9]+ addresses"):
                await late.join(gone, RUN_ID, ADDRESSES)
            await late.join([*gone, *alive.addresses], RUN_ID, ADDRESSES)
            (met,) = await late.meet({"worker-0": {"incarnation": 0, "since": 4}})
            assert (met.name, met.key, met.since) == ("worker-0", ADDRESSES["worker-0"], 4)
