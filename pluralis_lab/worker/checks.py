"""What a message of a peer must look like before anything is changed by it. A peer that sends another one is given up.

The engine has identified the sender by its connection; so whatever fails here is the sender's own doing.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import torch

from pluralis_lab.contributions.receipts import ItemKind
from pluralis_lab.errors import WireError
from pluralis_lab.learning.chunks import ChunkedSums, hashes_layout
from pluralis_lab.learning.drawing import falls_to_own_data
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.local_sync import is_exchanged, part_size
from pluralis_lab.learning.payload import Payload
from pluralis_lab.learning.refresh import extra_layout
from pluralis_lab.learning.state_chunks import HASH_BYTES, MOST_CHUNKS, largest_state_bytes, num_chunks
from pluralis_lab.learning.usable import largest_usable
from pluralis_lab.learning.wire_cost import entry_shapes
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.models.stage import torch_dtype
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.download import AT_ONCE
from pluralis_lab.worker.lanes import LEAVING, ON_TRIAL, Table
from pluralis_lab.worker.messages import Item
from pluralis_lab.worker.own_data import ids_layout
from pluralis_lab.worker.round_state import Joiners

LOOKAHEAD_ROUNDS = 8
"""No peer can be so many rounds ahead: a step needs the next stage's and the replicas' consent, a claim its head's."""


class Checks:
    """Raises WireError or EvidenceError for a message that no correct worker at the sender's seat can have sent.

    vocab : the corpus's vocabulary, for the size of a stage's weight gradient
    """

    def __init__(self, desk: Desk, *, vocab: int) -> None:
        self.desk = desk
        weights = stage_parameters(desk.spec, desk.me.stage, vocab)
        self._num_weights, self._vocab = weights, vocab
        self._largest_state = largest_state_bytes(weights, is_local=desk.is_local)
        self._format = FlatFormat(desk.spec.sync.payload, torch_dtype(desk.spec))
        self._chunked = ChunkedSums(self._format, weights) if desk.spec.is_butterfly else None
        self._gradient_layout = wire.COMMITMENT_LAYOUT if desk.is_local else self._format.layout(weights)
        if self._chunked is not None:
            self._gradient_layout = hashes_layout(weights)
        self._agreed: dict[int, tuple[tuple[tuple[str, str], ...], Joiners]] = {}
        self._dealt: dict[int, Table] = {}
        """Of each stage what it last named, and was found right."""
        self._checks: dict[type, Callable[[str, Any], None]] = {
            wire.Hello: self._hello,
            wire.Activation: self._activation,
            wire.Drawn: self._drawn,
            wire.Gradient: self._gradient,
            wire.Counted: self._counted,
            wire.Contribution: self._contribution,
            wire.Piece: self._piece,
            wire.FetchPiece: self._fetch_piece,
            wire.Reduced: self._reduced,
            wire.FetchReduced: self._fetch_reduced,
            wire.Have: self._have,
            wire.Fetch: self._fetch,
            wire.Committed: self._committed,
            wire.Displacement: self._displacement,
            wire.Gathered: self._exchange,
            wire.Merged: self._exchange,
            wire.FetchDisplacement: self._fetch_displacement,
            wire.Join: lambda source, _: self._stage_of(source, 0),
            wire.StateOffer: self._state_offer,
            wire.FetchState: self._fetch_state,
            wire.StateChunk: self._state_chunk,
            wire.Lost: self._lost,
            wire.Ping: self._ping,
            wire.Pong: self._ping,
            wire.EvalActivation: self._eval_activation,
            wire.EvalDone: self._eval_done,
            wire.ProbeActivation: self._probe_activation,
            wire.ProbeDone: self._probe_done,
            wire.ProbeMislaid: self._probe_mislaid,
            wire.InferActivation: self._infer_activation,
            wire.Token: self._token,
            wire.Mislaid: lambda source, message: self._of_a_text(source, message.request, message.attempt),
            wire.Ended: self._ended,
        }

    def check(self, source: str, message: wire.Message) -> None:
        """Check `message` of worker `source`."""
        self._checks[type(message)](source, message)

    def _seat(self, name: str) -> tuple[int, int]:
        seat = self.desk.seats.get(name)
        if seat is None:
            raise WireError(f"{name[:80]!r} is no worker of this run")
        return seat

    def _stage_of(self, source: str, *offsets: int) -> None:
        """Require that `source` sits so many stages after this one."""
        stage = self._seat(source)[0]
        if stage - self.desk.me.stage not in offsets:
            raise WireError(f"{source} of stage {stage} has no such message for stage {self.desk.me.stage}")

    def _round(self, round_: int) -> None:
        desk = self.desk
        if not 0 <= round_ < desk.spec.steps:
            raise WireError(f"round {round_} is none of the run's {desk.spec.steps}")
        if desk.state in ("active", "serving") and round_ > desk.round + LOOKAHEAD_ROUNDS + 2 * desk.spec.window:
            raise WireError(f"round {round_} is far ahead of {desk.round}")

    def _indices(self, indices: tuple[int, ...], count: int) -> None:
        if not all(0 <= index < count for index in indices):
            raise WireError(f"the indices {str(indices)[:80]} are not all from 0 to {count - 1}")

    def _work(self, kind: ItemKind, round_: int, author: str, item: Item, payload: Payload) -> tuple[int, ...]:
        """Return the indices of `item` if `author` signed it over exactly this `payload`."""
        desk = self.desk
        work = desk.signing.verify_work(item, desk.keys[author], desk.run_id, round_, kind, desk.seats[author][0], author)
        if work.digest != payload.digest:
            raise WireError(f"{author} signed other bytes than it sent ({kind}, round {round_}, indices {list(work.indices)})")
        if work.tokens != len(work.indices) * desk.spec.tokens_per_micro_batch:
            raise WireError(f"{author} claims {work.tokens} tokens for {len(work.indices)} micro-batches of round {round_}")
        self._indices(work.indices, desk.spec.num_micro_batches)
        return work.indices

    def _hello(self, source: str, message: wire.Hello) -> None:
        desk = self.desk
        if source == desk.me.name or (message.stage, message.replica) != self._seat(source) or message.key != desk.keys[source]:
            raise WireError(f"a Hello from stage {message.stage}, replica {message.replica} with another's seat or key")
        if message.incarnation < 0 or (message.since is not None and not 0 <= message.since <= desk.spec.steps):
            raise WireError(f"a Hello of incarnation {message.incarnation} since round {message.since}")

    def _activation(self, source: str, message: wire.Activation) -> None:
        self._stage_of(source, -1)
        self._round(message.round)
        if self._work("forward", message.round, source, message.item, message.payload) != (message.index,):
            raise WireError(f"{source} signed another micro-batch than {message.index} of round {message.round}")
        if message.own and not falls_to_own_data(self.desk.spec, message.round, message.index):
            raise WireError(f"{source} says that micro-batch {message.index} of round {message.round} is of a head's own data")

    def _drawn(self, source: str, message: wire.Drawn) -> None:
        self._stage_of(source, 1)
        self._round(message.round)
        spec = self.desk.spec
        self._indices((message.index,), spec.num_micro_batches)
        expected = ids_layout(entry_shapes(spec, 1)[0], vocab=self._vocab)
        if not spec.own_data or message.payload.layout != expected:
            raise WireError(f"ids laid out as {str(message.payload.layout)[:80]}, not {expected}, with own_data={spec.own_data}")

    def _gradient(self, source: str, message: wire.Gradient) -> None:
        self._stage_of(source, 1)
        self._round(message.round)
        if self._work("backward", message.round, source, message.item, message.payload) != (message.index,):
            raise WireError(f"{source} signed another micro-batch than {message.index} of round {message.round}")

    def _counted(self, source: str, message: wire.Counted) -> None:
        self._stage_of(source, 0)
        self._round(message.round)
        self._indices(message.indices, self.desk.spec.num_micro_batches)

    def _contribution(self, source: str, message: wire.Contribution) -> None:
        """A contribution comes from its author, or from a replica that has it."""
        desk = self.desk
        self._stage_of(source, 0)
        self._round(message.round)
        self._stage_of(message.worker, 0)
        kind: ItemKind = "local_step" if desk.is_local else "contribution"
        if not self._work(kind, message.round, message.worker, message.item, message.payload):
            raise WireError(f"a contribution of {message.worker} in round {message.round} that is made of nothing")
        expected = (*self._gradient_layout, *extra_layout(desk.spec, desk.me.stage, message.round))
        if message.payload.layout != expected:
            raise WireError(f"a weight gradient laid out as {str(message.payload.layout)[:80]}, not {expected}")
        if desk.is_tail != (message.loss is not None) or not _is_loss(message.loss or 0.0):
            raise WireError(f"a contribution with loss {message.loss} at stage {desk.me.stage} of {desk.spec.stages}")

        if not _is_pace(message.pace):
            raise WireError(f"a contribution at the pace {message.pace}")

    def _chunk(self, source: str, round_: int, chunk: int) -> ChunkedSums:
        """Require that a replica speaks of a chunk that there is, and return the arithmetic on them."""
        self._stage_of(source, 0)
        self._round(round_)
        if self._chunked is None:
            raise WireError(
                f"a chunk of a gradient in a run whose replicas do not add up for each other ({self.desk.spec.sync!r})"
            )
        if not 0 <= chunk < len(self._chunked.bounds):
            raise WireError(f"chunk {chunk} of a gradient that has {len(self._chunked.bounds)}")
        return self._chunked

    def _fetch_piece(self, source: str, message: wire.FetchPiece) -> None:
        self._chunk(source, message.round, message.chunk)

    def _fetch_reduced(self, source: str, message: wire.FetchReduced) -> None:
        self._chunk(source, message.round, 0)

    def _piece(self, source: str, message: wire.Piece) -> None:
        expected = self._chunk(source, message.round, message.chunk).piece_layout(message.chunk)
        if message.payload.layout != expected:
            raise WireError(f"a chunk laid out as {str(message.payload.layout)[:80]}, not {expected}")

    def _reduced(self, source: str, message: wire.Reduced) -> None:
        expected = self._chunk(source, message.round, message.chunk).sum_layout(message.chunk, len(message.parts))
        self._agreement(self.desk.me.stage, message.parts, ())
        self._stage_of(message.by, 0)
        if not message.parts or message.payload.layout != expected:
            raise WireError(f"a sum laid out as {str(message.payload.layout)[:80]}, not {expected}")

    def _agreement(self, stage: int, parts: tuple[tuple[str, str], ...], joiners: Joiners) -> None:
        """Check the workers that a step at `stage` names. Its replicas name the same, one after the other."""
        if self._agreed.get(stage) == (parts, joiners):
            return
        for names in ([worker for worker, _ in parts], [worker for worker, *_ in joiners]):
            if any(self._seat(name)[0] != stage for name in names):
                raise WireError(f"a step of stage {stage} names {names}, not all of that stage")
        if len({worker for worker, _ in parts}) < len(parts):
            raise WireError(f"a step of stage {stage} with two contributions of one worker")
        for entries in (parts, joiners):
            if list(entries) != sorted(set(entries)):
                raise WireError(f"{str(entries)[:80]} is not sorted, each once")
        self._agreed[stage] = parts, joiners

    def _have(self, source: str, message: wire.Have) -> None:
        self._stage_of(source, 0, 1)
        self._round(message.round)
        if not message.parts:
            raise WireError("a Have of nothing")
        self._agreement(self._seat(source)[0], message.parts, message.joiners)

    def _fetch(self, source: str, message: wire.Fetch) -> None:
        self._stage_of(source, 0)
        self._round(message.round)

    def _committed(self, source: str, message: wire.Committed) -> None:
        self._stage_of(source, -1, 0, 1)
        self._round(message.round)
        self._agreement(self._seat(source)[0], message.parts, message.joiners)
        self._lanes(self._seat(source)[0], message.lanes)

    def _exchanged(self, round_: int) -> None:
        self._round(round_)
        if not is_exchanged(self.desk.spec, round_):
            raise WireError(f"there is no exchange after round {round_}")

    def _displacement(self, source: str, message: wire.Displacement) -> None:
        """A displacement comes from its author, or from a replica that has it."""
        desk = self.desk
        self._stage_of(source, 0)
        self._stage_of(message.worker, 0)
        self._exchanged(message.round)
        every = desk.spec.sync_every or 0
        if not 0 <= message.wish <= every:
            raise WireError(f"{message.worker} wishes for {message.wish} rounds, an exchange has at most {every}")
        rounds = [round_ for round_, _ in message.items]
        if rounds != sorted(set(rounds)) or any(
            not max(message.round - every, -1) < round_ <= message.round for round_ in rounds
        ):
            raise WireError(f"a displacement after round {message.round} for the rounds {str(rounds)[:80]}")
        for round_, item in message.items:
            self._work("contribution", round_, message.worker, item, message.payload)
        seal = (desk.keys[message.worker], desk.run_id, message.round, "local_step", desk.me.stage, message.worker)
        if desk.signing.verify_work(message.seal, *seal).digest != message.digest:
            raise WireError(f"a displacement after round {message.round} that is not as {message.worker} has sealed it")
        expected = self._format.layout(part_size(desk.spec, message.round, self._num_weights))
        if message.payload.layout != expected:
            raise WireError(f"a displacement laid out as {str(message.payload.layout)[:80]}, not {expected}")

    def _exchange(self, source: str, message: wire.Gathered | wire.Merged) -> None:
        self._stage_of(source, 0)
        self._exchanged(message.round)
        self._agreement(self.desk.me.stage, message.parts, ())

    def _fetch_displacement(self, source: str, message: wire.FetchDisplacement) -> None:
        self._stage_of(source, 0)
        self._exchanged(message.round)

    def _state_offer(self, source: str, message: wire.StateOffer) -> None:
        self._version(source, message.version)
        if not 0 < message.size_bytes <= self._largest_state:
            raise WireError(f"a state of {message.size_bytes:,} bytes; this stage's has at most {self._largest_state:,}")
        if len(message.hashes) != HASH_BYTES * num_chunks(message.size_bytes):
            raise WireError(f"{len(message.hashes)} bytes of hashes for a state of {message.size_bytes:,} bytes")
        # A stage can be so far ahead of the one before, and agrees on the lanes of so many rounds beyond.
        last = message.version + 2 * self.desk.spec.window + 4
        self._tables(self.desk.me.stage, message.lanes, last)
        if not self.desk.is_tail:
            self._tables(self.desk.me.stage + 1, message.next_lanes, last)
        elif message.next_lanes:
            raise WireError(f"a state with lanes of a stage after the last: {str(message.next_lanes)[:80]}")
        names = [name for name, *_ in message.peers]
        if names != sorted(set(names)) or any(not 0 <= since <= last for _, _, since, _ in message.peers):
            raise WireError(f"{str(message.peers)[:80]} are not in order, or begin after round {last}")
        for name in names:
            self._stage_of(name, 0, 1)

    def _fetch_state(self, source: str, message: wire.FetchState) -> None:
        self._version(source, message.version)
        if len(set(message.indices)) < len(message.indices) or len(message.indices) > AT_ONCE:
            raise WireError(f"{len(message.indices)} chunks of a state at once, or one twice; at most {AT_ONCE} are sent")
        self._indices(message.indices, MOST_CHUNKS)

    def _state_chunk(self, source: str, message: wire.StateChunk) -> None:
        self._version(source, message.version)
        self._indices((message.index,), MOST_CHUNKS)

    def _version(self, source: str, version: int) -> None:
        """Require that a replica of this stage speaks of weights that the run can have."""
        self._stage_of(source, 0)
        if not 0 <= version <= self.desk.spec.steps:
            raise WireError(f"a state of version {version} in a run of {self.desk.spec.steps} rounds")

    def _tables(self, stage: int, tables: wire.Tables, last: int) -> None:
        """Check how micro-batches of rounds up to `last` are said to be dealt out in `stage`, change by change."""
        rounds, most = [since for since, _ in tables], self.desk.roster.changes_kept
        if not 0 < len(rounds) <= most or rounds != sorted(set(rounds)) or not 0 <= rounds[0] <= rounds[-1] <= last:
            raise WireError(f"lanes of stage {stage}, {str(tables)[:80]}, not 1 to {most} changes in order up to round {last}")
        for _, table in tables:
            if not table:
                raise WireError(f"lanes of stage {stage} with nobody in them")
            self._lanes(stage, table)

    def _lanes(self, stage: int, table: Table) -> None:
        """Check how `stage` says that it deals micro-batches out."""
        if self._dealt.get(stage) == table:
            return
        slots = self.desk.slots(stage)
        told = [slot for slot, *_ in table]
        if (
            not slots.issuperset(told)
            or told != sorted(set(told))
            or any(not _is_pace(level) and level != ON_TRIAL for *_, level in table)
        ):
            raise WireError(f"the lanes {str(table)[:80]} of stage {stage}, which has the slots {sorted(slots)}")
        self._dealt[stage] = table

    def _lost(self, source: str, message: wire.Lost) -> None:
        self._seat(message.worker)

    def _ping(self, source: str, message: wire.Ping | wire.Pong) -> None:
        self._stage_of(source, 0)
        if min(vars(message).values()) < 0:
            raise WireError(f"{str(message)[:80]} counts below 0")

    def _eval_activation(self, source: str, message: wire.EvalActivation) -> None:
        self._stage_of(source, -1)
        self._indices((message.index,), self.desk.spec.eval_batches)
        if self._seat(message.origin)[0] != 0 or not 0 <= message.version <= self.desk.spec.steps:
            raise WireError(f"a validation of version {message.version} for {message.origin}")

    def _eval_done(self, source: str, message: wire.EvalDone) -> None:
        desk = self.desk
        if not desk.is_head or self._seat(source)[0] != desk.spec.stages - 1:
            raise WireError("a validation loss that does not go from a tail to a head")
        self._indices((message.index,), desk.spec.eval_batches)
        if not _is_loss(message.loss) or message.tokens != desk.spec.tokens_per_micro_batch:
            raise WireError(f"a validation loss of {message.loss} over {message.tokens} tokens")

    def _request(self, request: str) -> None:
        if re.fullmatch("[0-9a-f]{16}", request) is None:
            raise WireError(f"{request[:80]!r} is no request's id, which has 16 hexadecimal digits")

    def _probe_activation(self, source: str, message: wire.ProbeActivation) -> None:
        self._stage_of(source, -1)
        self._request(message.request)
        if self._seat(message.origin)[0] != 0 or message.index < 0:
            raise WireError(f"held-out micro-batch {message.index} for {message.origin}")

    def _probe_done(self, source: str, message: wire.ProbeDone) -> None:
        desk = self.desk
        if not desk.is_head or self._seat(source)[0] != desk.spec.stages - 1:
            raise WireError("a loss that does not go from a tail to a head")
        self._request(message.request)
        if message.tokens != desk.spec.tokens_per_micro_batch:
            raise WireError(f"a loss over {message.tokens} tokens, expected {desk.spec.tokens_per_micro_batch}")

    def _probe_mislaid(self, source: str, message: wire.ProbeMislaid) -> None:
        self._seat(source)
        self._request(message.request)
        if not self.desk.is_head or message.index < 0:
            raise WireError(f"held-out micro-batch {message.index} given back to who asks for no loss")

    def _infer_activation(self, source: str, message: wire.InferActivation) -> None:
        self._stage_of(source, -1)
        self._request(message.request)
        is_sound = math.isfinite(message.temperature) and message.temperature >= 0 and message.seed >= 0
        if self._seat(message.origin)[0] != 0 or message.attempt < 1 or not is_sound:
            raise WireError(f"attempt {message.attempt} at a text of {message.origin}, temperature {message.temperature}")
        if not 0 <= message.start <= message.position:
            raise WireError(f"a text's token {message.position} after {message.start} positions")

    def _of_a_text(self, source: str, request: str, attempt: int) -> None:
        self._seat(source)
        self._request(request)
        if not self.desk.is_head or attempt < 1:
            raise WireError(f"an answer to attempt {attempt} at a text that does not go to a head")

    def _token(self, source: str, message: wire.Token) -> None:
        self._of_a_text(source, message.request, message.attempt)
        if self._seat(source)[0] != self.desk.spec.stages - 1 or not 0 <= message.token < self._vocab:
            raise WireError(f"token {message.token} of {source}; the vocabulary has 0 to {self._vocab - 1}, and a tail draws")

    def _ended(self, source: str, message: wire.Ended) -> None:
        self._stage_of(source, -1)
        self._request(message.request)


def _is_loss(loss: float) -> bool:
    """Whether a loss can be added to others' and reported: JSON has no infinity."""
    return abs(loss) <= largest_usable(torch.float64)


def _is_pace(level: int | None) -> bool:
    return level is None or 0 <= level <= LEAVING
