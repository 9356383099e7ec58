"""The roster in the hivemind DHT: each worker's signed record of who and where it is."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.p2p import PeerID
from hivemind.utils import get_dht_time

from pluralis_lab.canonical import canonical_json
from pluralis_lab.contributions.keys import HotKey, recover
from pluralis_lab.errors import EvidenceError, RunError

log = logging.getLogger(__name__)

RECORD_LIFETIME_S = 30.0
"""A record that nobody renewed for so long is gone; each worker renews its own three times in that span."""

RETRY_S = 0.2
REPLY_TIMEOUT_S = 15.0
"""hivemind gives a DHT node 3 s to reply, too little for one that shares a core with many; who is gone refuses at once anyway."""


@dataclass(frozen=True)
class Record:
    """What a worker says of itself in the DHT. `addresses` are libp2p multiaddresses, `peer` its libp2p identity."""

    name: str
    stage: int
    replica: int
    key: str
    incarnation: int
    peer: str
    addresses: tuple[str, ...]

    @property
    def peer_id(self) -> PeerID:
        return PeerID.from_base58(self.peer)


class DHTRoster:
    """Publishes one record and reads all of a run.

    A record counts when the hot key that signed it is the one the participant authorised for that worker (`keys`): so nobody can
    take another's slot, whoever else writes to the DHT.
    """

    def __init__(self, node: DHTNode, run_id: str, keys: dict[str, str]) -> None:
        self.node, self.run_id, self.keys = node, run_id, keys
        self._topic = f"pluralis-lab/{run_id}/roster"

    async def publish(self, record: Record, key: HotKey) -> None:
        """Store `record`, signed. Raises RunError when no DHT node took it."""
        body = _body(self.run_id, record)
        stored = await self.node.store(
            self._topic, [body, key.sign(canonical_json(body))], get_dht_time() + RECORD_LIFETIME_S, subkey=record.name
        )
        if not stored:
            raise RunError(f"the DHT did not take the record of {record.name}: it came too late, or a later one is there")

    async def publish_first(self, record: Record, key: HotKey) -> None:
        """Store the record for the first time, again until a node takes it: on a crowded machine replies come late."""
        while True:
            try:
                return await self.publish(record, key)
            except RunError as error:
                log.warning("%s; trying again", error)
            await asyncio.sleep(RETRY_S)

    async def read(self) -> dict[str, Record]:
        """Return the valid records by worker name."""
        found = await self.node.get(self._topic, latest=True)
        entries: dict[str, Any] = {} if found is None or not isinstance(found.value, dict) else found.value
        records = {}
        for name, entry in entries.items():
            record = self._parse(entry.value)
            if record is not None and record.name == name:
                records[name] = record
        return records

    async def renew_forever(self, record: Record, key: HotKey) -> None:
        """Renew the own record until cancelled."""
        while True:
            await asyncio.sleep(RECORD_LIFETIME_S / 3)
            try:
                await self.publish(record, key)
            except RunError as error:  # the next renewal comes before the record ends
                log.warning("%s", error)

    def _parse(self, value: object) -> Record | None:
        """Return the record, None for one that is malformed, foreign or signed by another key."""
        if not isinstance(value, (list, tuple)) or len(value) != 2 or not isinstance(value[0], dict):
            return None
        body, signature = value
        try:
            signer = recover(canonical_json(body), signature)
            record = Record(**{**body["record"], "addresses": tuple(body["record"]["addresses"])})
        except (EvidenceError, TypeError, KeyError, ValueError):
            return None
        if body.get("run") != self.run_id or signer != record.key or self.keys.get(record.name) != signer:
            return None
        return record


def _body(run_id: str, record: Record) -> dict[str, Any]:
    return {"run": run_id, "record": {**record.__dict__, "addresses": list(record.addresses)}}
