"""A worker's place among the others: its libp2p identity, its record in the DHT, and whom it has found there."""

import asyncio
import logging
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError
from hivemind.utils.multiaddr import Multiaddr

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.swarm.dht_roster import REPLY_TIMEOUT_S, DHTRoster, Record
from pluralis_lab.engines.swarm.peering import dial
from pluralis_lab.errors import PluralisError
from pluralis_lab.worker import Peer

log = logging.getLogger(__name__)


class UnreachableError(PluralisError):
    """Nobody whom this worker was to meet can be reached."""


class SwarmNode:
    """Enters the DHT as `me` and finds the other workers of the run; `start` makes one.

    records : of the workers that this one has found and not lost since, by name
    """

    def __init__(self, p2p: P2P, addresses: list[str], me: Peer, key: HotKey) -> None:
        self.p2p, self.addresses = p2p, addresses
        self._record = Record(
            me.name, me.stage, me.replica, key.address, me.incarnation, p2p.peer_id.to_base58(), tuple(addresses)
        )
        self._key = key
        self._dht: DHTNode | None = None
        self.records: dict[str, Record] = {}

    @classmethod
    async def start(cls, me: Peer, key: HotKey, *, folder: Path, host: str = "127.0.0.1") -> "SwarmNode":
        """Start libp2p, reachable at `host` and alone so far.

        host : an address of this machine; the loopback one is for workers of this machine alone
        folder : the supervisor's private one takes the daemon's sockets: whoever cleans up finds them, also after a SIGKILL
        """
        P2P._UNIX_SOCKET_PREFIX = f"/unix{folder}/{me.name}.{me.incarnation}-"
        p2p = await P2P.create(
            host_maddrs=[f"/ip{ip_address(host).version}/{host}/tcp/0"],
            auto_nat=False,
            nat_port_map=False,
            use_relay=False,
            use_auto_relay=False,
        )
        log.info("libp2p is up")
        try:
            return cls(p2p, [str(address) for address in await p2p.get_visible_maddrs()], me, key)
        except BaseException:
            await p2p.shutdown()
            raise

    async def join(self, addresses: list[str], run_id: str, keys: dict[str, str]) -> None:
        """Enter the DHT through the nodes at `addresses`, or begin it where there are none, and publish the own record.

        Raises UnreachableError when none of the nodes answers: who was there when `addresses` were told can have died since.
        """
        answers = await asyncio.gather(*map(self._can_reach, addresses))
        reachable = [address for address, answered in zip(addresses, answers, strict=True) if answered]
        if addresses and not reachable:
            raise UnreachableError(f"none of {len(addresses)} addresses of the others answers")
        self._dht = await DHTNode.create(p2p=self.p2p, initial_peers=reachable or None, wait_timeout=REPLY_TIMEOUT_S)
        self._roster = DHTRoster(self._dht, run_id, keys)
        await self._roster.publish_first(self._record, self._key)
        log.info("in the DHT")

    async def _can_reach(self, address: str) -> bool:
        """Connect to the node at `address`; False when it does not answer."""
        try:
            await dial(self.p2p, PeerID.from_base58(Multiaddr(address)["p2p"]), [address])
        except P2PDaemonError as error:
            log.warning("%s does not answer: %s", address, error)
            return False
        return True

    async def renew_forever(self) -> None:
        """Keep the own record in the DHT until cancelled."""
        await self._roster.renew_forever(self._record, self._key)

    async def meet(self, expected: dict[str, Any]) -> tuple[Peer, ...]:
        """Find every expected worker's record in the DHT and return who they are.

        expected : the "incarnation" of each at least, and "since" when it has taken part, by name
        """
        while True:
            self.records = await self._read_others()
            missing = [
                name
                for name, entry in expected.items()
                if name not in self.records or self.records[name].incarnation < entry["incarnation"]
            ]
            if not missing:
                break
            # The DHT has no way to say "now": records spread to their nearest nodes within milliseconds of being stored.
            await asyncio.sleep(0.05)
        return tuple(
            Peer(name, record.stage, record.replica, record.key, record.incarnation, expected[name]["since"])
            for name, record in self.records.items()
            if name in expected
        )

    async def find(self, peer: PeerID) -> Record | None:
        """Return the record of a libp2p identity, looking into the DHT for one that is new; None for a stranger."""
        for _ in range(20):
            for record in self.records.values():
                if record.peer == peer.to_base58():
                    return record
            self.records.update(await self._read_others())
            if any(record.peer == peer.to_base58() for record in self.records.values()):
                continue
            await asyncio.sleep(0.1)  # it opened the stream before its record reached the DHT nodes that we ask
        return None

    async def close(self) -> None:
        """Leave the DHT and end libp2p."""
        if self._dht is not None:
            await self._dht.shutdown()
        await self.p2p.shutdown()

    async def _read_others(self) -> dict[str, Record]:
        return {name: record for name, record in (await self._roster.read()).items() if name != self._record.name}
