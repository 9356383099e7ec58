"""The state that a joiner gets from a replica, chunk by chunk: each is checked by its hash, and what has come is kept.

A replica offers the state with the hashes of its chunks. The joiner asks for some of them at a time, so that no more than those
are ever under way. If the replica dies, the next one's offer is gone on with: replicas that are in step have the same bytes.
"""

from pluralis_lab.learning import tasks
from pluralis_lab.learning.state_chunks import hash_at, hash_of, num_chunks
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.desk import Desk

AT_ONCE = 32
"""Chunks that are asked for and have not come: 4 MB, which is what a link of 300 Mbit/s and 100 ms has under way."""
TOLD = 10
"""How often the state's coming is reported."""


class Download:
    """What has come of the state, and who sends it.

    offer : what is being downloaded; None before anybody has offered it
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.offer: wire.StateOffer | None = None
        self._donor = ""
        self._chunks: dict[int, bytes] = {}
        self._asked: set[int] = set()
        self._bytes_in = self._told = 0
        self._is_whole = False

    def on_offer(self, source: str, message: wire.StateOffer) -> None:
        """Download what a replica offers, if no other one is sending it."""
        if self.desk.state != "joining":
            return
        before, kept = self.offer, self._chunks
        self.offer, self._donor = message, source
        is_alike = before is not None and before.size_bytes == message.size_bytes
        self._chunks = {
            index: chunk
            for index, chunk in (kept if is_alike else {}).items()
            if hash_of(chunk) == hash_at(message.hashes, index)
        }
        self._asked = set()
        self._bytes_in = sum(map(len, self._chunks.values()))
        self._told = -1  # each offer is told of
        self._tell()
        self._go_on()

    def on_chunk(self, source: str, message: wire.StateChunk) -> None:
        """Keep a chunk that was asked for. Its sender is expelled when it is not what it had announced."""
        offer = self.offer
        if offer is None or source != self._donor or message.digest != offer.digest or message.index not in self._asked:
            return  # of an offer that is not gone on with
        if hash_of(message.data) != hash_at(offer.hashes, message.index):
            self.desk.expel_live(source, f"sent another chunk {message.index} of its state than it had announced")
            return
        self._asked.discard(message.index)
        self._chunks[message.index] = message.data
        self._bytes_in += len(message.data)
        self._tell()
        self._go_on()

    def on_lost(self, name: str) -> bool:
        """Say whether `name`, which is gone, was sending the state; what has come of it is kept."""
        if name != self._donor or self._is_whole:
            return False
        self._donor = ""
        self._asked = set()
        return True

    def refuse(self, reason: str) -> None:
        """Drop a state that cannot be loaded, and who sent it."""
        donor, self._donor = self._donor, ""
        self.offer, self._chunks, self._is_whole = None, {}, False
        self.desk.expel_live(donor, reason)

    def _go_on(self) -> None:
        """Ask for what comes next, or load the state when it is whole."""
        offer = self.offer
        assert offer is not None
        count = num_chunks(offer.size_bytes)
        if len(self._chunks) == count:
            state = b"".join(self._chunks[index] for index in range(count))
            self._chunks, self._is_whole = {}, True
            self.desk.roster.take_over_lanes(self.desk.me.stage, offer.lanes)
            if offer.next_lanes:
                self.desk.roster.take_over_lanes(self.desk.me.stage + 1, offer.next_lanes)
            self.desk.compute(tasks.Restore(offer.version, state, offer.digest))
            return
        missing = (index for index in range(count) if index not in self._chunks and index not in self._asked)
        wanted = [index for _, index in zip(range(AT_ONCE - len(self._asked)), missing, strict=False)]
        if wanted:
            self._asked.update(wanted)
            self.desk.send(self._donor, wire.FetchState(offer.version, offer.digest, tuple(wanted)))

    def _tell(self) -> None:
        """Report how much has come, a few times in all."""
        offer = self.offer
        assert offer is not None
        part = TOLD * self._bytes_in // offer.size_bytes
        if self._told < part < TOLD:
            self._told = part
            self.desk.enter("syncing", round=offer.version, received_bytes=self._bytes_in, size_bytes=offer.size_bytes)
