"""Gradients added up chunk by chunk, each chunk by one replica for all (`FullSync(transport="butterfly")`).

A contribution is then only the hashes of its chunks, signed. Its author sends each chunk (`Piece`) to the replica that adds it
up, and that one sends the sum to all (`Reduced`). Who holds the sums of all chunks of a set of contributions holds what others
hold under ``transport="gather"`` when they have all contributions, and `Commit` goes on from there in the same way: it announces
the set, everybody moves to the largest set that a live replica has announced, and nobody steps before all have announced the
same. So whoever dies, a sum that is needed again is at everybody who has announced it (`FetchReduced`).

Who adds up which chunk need not be agreed on: whoever does gets the same numbers. Each replica goes by whom it knows to be there,
and sends what another one is to have by now when somebody has died.

A piece that cannot be computed with (NaN, say) is its author's fault: who is to add it up expels the author and makes no sum, so
that the set comes about nowhere. Then a sum that is not usable is its sender's, who has made it up: all numbers of usable pieces
are small enough to be added up (`usable`).

A sum is taken on trust, so it is checked by chance: each replica draws one foreign chunk a round, has its pieces sent, and adds
them up itself. Where two replicas hold different sums of the same contributions, both check all of them. Who sent a false one as
its own is expelled. But once a replica has announced a sum it goes on with it, true or false, unless one whom it does not have
to doubt has announced another: somebody may have made the step. (BTARD, arXiv 2106.11257, checks after the step in the same way.)
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.chunks import HASHES, sums_digest
from pluralis_lab.learning.payload import Payload
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import FetchPiece, FetchReduced, Have, Piece, Reduced
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import Part, Parts, RoundState

MAX_SETS = 8
"""Of contributions, whose sums are taken of one replica in a round: another one comes about only when somebody dies."""


@dataclass(frozen=True)
class _Found:
    """The sum of a chunk: who sent it, who is said to have added it up, and the sum."""

    source: str
    by: str
    total: Payload


@dataclass
class _Sums:
    """What is held of one set of contributions: sums by chunk, and when there are all, `all` and their digest.

    is_begun : what was here to add up has been; later pieces are looked at one by one
    asked : chunks that this replica adds up, of which it checks those in `checking`
    only_from : the replica whose sums are taken instead of those that were here; "": anybody's; `heard`, which of its chunks came
    corrections : by chunk, a sum that turned out to be false when it was announced already, and the true one
    """

    found: dict[int, _Found] = field(default_factory=dict)
    is_begun: bool = False
    asked: set[int] = field(default_factory=set)
    checking: set[int] = field(default_factory=set)
    all: tuple[Payload, ...] = ()
    digest: str = ""
    only_from: str = ""
    heard: set[int] = field(default_factory=set)
    corrections: dict[int, tuple[_Found, Payload]] = field(default_factory=dict)


@dataclass
class _Round:
    """One round at one replica.

    own : its chunks, by its contribution's digest; `newest` of them; `pushed`, (receiver, digest, chunk) that were sent
    pieces : others' chunks by (contribution, chunk)
    sums : by set of contributions; `told`, the last sets that each replica sent sums of, so that nobody can fill the memory
    fetching : (holder, set) whose sums were asked for
    """

    own: dict[str, tuple[Payload, ...]] = field(default_factory=dict)
    newest: str = ""
    pushed: set[tuple[str, str, int]] = field(default_factory=set)
    pieces: dict[tuple[Part, int], Payload] = field(default_factory=dict)
    sums: dict[Parts, _Sums] = field(default_factory=dict)
    told: dict[str, list[Parts]] = field(default_factory=dict)
    fetching: set[tuple[str, Parts]] = field(default_factory=set)


class Butterfly:
    """Gets the sums of a round's contributions together.

    advance : called with the round's state when there is more than before
    """

    def __init__(self, desk: Desk, advance: Callable[[RoundState], None]) -> None:
        self.desk, self._advance = desk, advance
        self._rounds: dict[int, _Round] = {}
        self._disturbed_until = -1

    def on_joined(self) -> None:
        """Note that this replica takes part from the present round on, of which it may have missed something."""
        self._disturbed_until = self.desk.round + 1 + self.desk.spec.window

    def on_collected(self, state: RoundState, digest: str, pieces: tuple[Payload, ...]) -> None:
        """Send the chunks of the own contribution, which is announced already, to whoever adds them up."""
        r = self._of(state.round)
        r.own[digest], r.newest = pieces, digest
        self._push(state, r)
        self._add_up_what_is_here(state)

    def on_piece(self, source: str, message: Piece) -> None:
        """Keep a chunk that belongs to its author's contribution."""
        state = self.desk.rounds.get(message.round)
        contribution = None if state is None else state.contributions.get((source, message.digest))
        if state is None or contribution is None:
            return  # of a round that is over, or of nothing that was announced
        hashes = contribution.payload.only(HASHES).data
        if hashes and hashes[32 * message.chunk :][:32].hex() != message.payload.digest:
            self.desk.expel_live(source, f"sent another chunk {message.chunk} of round {message.round} than it signed")
            return
        self._of(message.round).pieces[(source, message.digest), message.chunk] = message.payload
        self._add_up_what_is_here(state, [message.chunk])
        self._advance(state)

    def on_fetch_piece(self, source: str, message: FetchPiece) -> None:
        r = self._rounds.get(message.round)
        pieces = () if r is None else r.own.get(message.digest, ())
        if message.chunk < len(pieces):
            self.desk.send(source, Piece(message.round, message.digest, message.chunk, pieces[message.chunk]))

    def on_reduced(self, source: str, message: Reduced) -> None:
        if message.round < self.desk.round:
            return
        r, state = self._of(message.round), self.desk.of(message.round)
        told = r.told.setdefault(source, [])
        if message.parts not in told:
            told.append(message.parts)
            if len(told) > MAX_SETS:
                self._forget(r, told.pop(0), source)
        sums = self._sums(r, message.parts)
        if sums.only_from in ("", source):
            sums.heard.add(message.chunk)
            known = sums.found.get(message.chunk)
            if sums.only_from and known is not None and known.total.digest != message.payload.digest and state.applying is None:
                self._drop(state, sums, lambda found: found is known)  # all go by that one's, also where this one knows better
            sums.found.setdefault(message.chunk, _Found(source, message.by, message.payload))
        self._advance(state)

    def on_have(self, source: str, message: Have) -> None:
        """Note that `source` holds these sums, whatever it could not send before."""
        self._of(message.round).fetching.discard((source, message.parts))

    def on_fetch_reduced(self, source: str, message: FetchReduced) -> None:
        state, r = self.desk.rounds.get(message.round), self._rounds.get(message.round)
        if state is None or r is None:
            return
        decision = state.applying or state.have
        if decision is None or not (sums := self._sums(r, decision.parts)).all:
            return
        for chunk, found in sorted(sums.found.items()):
            self.desk.send(source, Reduced(message.round, decision.parts, chunk, found.by, found.total))

    def on_reduce_done(self, task: tasks.Reduce, done: tasks.ReduceDone) -> None:
        desk = self.desk
        if (r := self._rounds.get(task.round)) is None:
            return
        sums = self._sums(r, task.parts)
        known = sums.found.get(task.chunk)
        if done.total is None:
            self._convict_authors(task, done.unusable, known)
            return
        if known is not None:
            sums.checking.discard(task.chunk)
            if task.said is known.total and not done.agrees:
                self._convict(task, sums, known, done.total)
        else:
            sums.found[task.chunk] = _Found(desk.me.name, desk.me.name, done.total)
            desk.broadcast(desk.mates(task.round), Reduced(task.round, task.parts, task.chunk, desk.me.name, done.total))
        if (state := desk.rounds.get(task.round)) is not None:
            self._advance(state)

    def on_peer_found(self, peer: Peer) -> None:
        """Send a replica that has just begun what it may have missed."""
        desk = self.desk
        if peer.stage != desk.me.stage or peer.since is None:
            return
        self._disturbed_until = max(self._disturbed_until, peer.since + desk.spec.window)
        for round_, r in self._rounds.items():
            r.pushed = {entry for entry in r.pushed if entry[0] != peer.name}
            for parts, sums in r.sums.items():
                for chunk, found in sums.found.items():
                    if found.source == desk.me.name and round_ >= peer.since:
                        desk.send(peer.name, Reduced(round_, parts, chunk, desk.me.name, found.total))
        self._push(desk.current(), self._of(desk.round))

    def on_peer_lost(self, lost: Peer) -> None:
        """Have the dead replica's chunks added up by others."""
        desk = self.desk
        if lost.stage != desk.me.stage:
            return
        # A replica that is a round ahead may hold sums of the dead one that nobody will send here any more.
        self._disturbed_until = desk.round + 1 + desk.spec.window
        for r in self._rounds.values():
            r.fetching = {entry for entry in r.fetching if entry[0] != lost.name}
            for sums in r.sums.values():
                if sums.only_from == lost.name:
                    sums.only_from = ""
        for round_ in sorted(self._rounds):
            if (state := desk.rounds.get(round_)) is not None and round_ >= desk.round:
                self._push(state, self._rounds[round_])
                self._add_up_what_is_here(state)

    def is_whole(self, state: RoundState, parts: Parts, holder: str | None = None) -> bool:
        """Whether the sums of `parts`, whose contributions are here, are all here; what is to be added up here then is.

        holder : who has announced to hold them, and is asked where somebody may have died who should have sent one
        """
        r = self._of(state.round)
        sums = self._sums(r, parts)
        if sums.all:
            return True
        count = self._num_chunks(state, parts)
        if not sums.is_begun:
            sums.is_begun = True
            self._add_up(state, r, parts, range(count))
        if len(sums.found) < count:
            if holder is not None and (state.round <= self._disturbed_until or sums.only_from):
                self._fetch(state, r, parts, holder)
            return False
        sums.all = tuple(sums.found[chunk].total for chunk in range(count))
        sums.digest = sums_digest(sums.all)
        self._check_one(state, r, parts)
        return True

    def sums_of(self, state: RoundState, parts: Parts) -> tuple[Payload, ...]:
        """Return the sums of all chunks of `parts`, which are whole."""
        return self._sums(self._of(state.round), parts).all

    def digest_of(self, state: RoundState, parts: Parts) -> str:
        """Return what stands for `sums_of`."""
        return self._sums(self._of(state.round), parts).digest

    def settle(self, state: RoundState, parts: Parts, others: Mapping[str, str]) -> None:
        """Find out which sums of `parts` are true: `others` (digest by replica) hold other ones.

        Every chunk is added up here. Where a contribution's author is gone, nobody can do that any more: then all take those with
        the largest digest, which is one step's harm at most, and no two replicas make different ones.
        """
        r = self._of(state.round)
        sums = self._sums(r, parts)
        due = {chunk: known for chunk, known in sums.corrections.items() if others.keys() - {known[0].source}}
        if due:
            for chunk, (false, total) in due.items():
                del sums.corrections[chunk]
                self._correct(state, sums, chunk, false, total)
            self._advance(state)
            return
        if all(self.desk.roster.is_live(worker) for worker, _ in parts):
            for chunk in range(len(sums.all)):
                self._check(state, r, parts, chunk)
            return
        digest, holder = max((digest, name) for name, digest in others.items())
        if sums.only_from == holder and len(sums.heard) == len(sums.all):
            self.desk.expel_live(holder, f"announced other sums of round {state.round} than it sends")
        elif digest > self.digest_of(state, parts):
            sums.only_from, sums.heard = holder, set()
            self._drop(state, sums, lambda found: found.source != self.desk.me.name)
            self._fetch(state, r, parts, holder)

    def _fetch(self, state: RoundState, r: _Round, parts: Parts, holder: str) -> None:
        """Ask who has announced to hold `parts` for the sums, once."""
        if (holder, parts) not in r.fetching and self._sums(r, parts).only_from in ("", holder):
            r.fetching.add((holder, parts))
            self.desk.send(holder, FetchReduced(state.round))

    def _of(self, round_: int) -> _Round:
        for old in [number for number in self._rounds if number not in self.desk.rounds and number < self.desk.round]:
            del self._rounds[old]
        return self._rounds.setdefault(round_, _Round())

    @staticmethod
    def _sums(r: _Round, parts: Parts) -> _Sums:
        return r.sums.setdefault(parts, _Sums())

    @staticmethod
    def _forget(r: _Round, parts: Parts, source: str) -> None:
        """Drop what `source` sent of `parts`, unless they are whole."""
        sums = r.sums.get(parts)
        if sums is None or sums.all:
            return
        sums.found = {chunk: entry for chunk, entry in sums.found.items() if entry.source != source}
        if not sums.found and not sums.asked:
            del r.sums[parts]

    @staticmethod
    def _num_chunks(state: RoundState, parts: Parts) -> int:
        (_, _, shape), *_ = state.contributions[parts[0]].payload.layout
        return shape[0]

    def _is_mine(self, round_: int, chunk: int, count: int) -> bool:
        return self._reducer(round_, chunk, count).name == self.desk.me.name

    def _reducer(self, round_: int, chunk: int, count: int) -> Peer:
        """Return who adds up a chunk, as far as is known here: the replicas in slot order, with chunks side by side."""
        replicas = self.desk.roster.serving(self.desk.me.stage, round_)
        return replicas[chunk * len(replicas) // count]

    def _push(self, state: RoundState, r: _Round) -> None:
        """Send the chunks of the newest own contribution to those who add them up, each once."""
        pieces = r.own.get(r.newest, ())
        for chunk, piece in enumerate(pieces):
            target = self._reducer(state.round, chunk, len(pieces)).name
            if target != self.desk.me.name and (target, r.newest, chunk) not in r.pushed:
                r.pushed.add((target, r.newest, chunk))
                self.desk.send(target, Piece(state.round, r.newest, chunk, piece))

    def _add_up_what_is_here(self, state: RoundState, chunks: Sequence[int] | None = None) -> None:
        """Go on with `chunks`, or all, of every set of contributions that anybody has spoken of."""
        r = self._of(state.round)
        for parts in list(r.sums):
            is_here = all(part in state.contributions for part in parts)
            if is_here and state.covers(parts, self.desk.spec.num_micro_batches):
                self._add_up(state, r, parts, range(self._num_chunks(state, parts)) if chunks is None else chunks)

    def _add_up(self, state: RoundState, r: _Round, parts: Parts, chunks: Sequence[int]) -> None:
        """Add up those of `chunks` that are for this replica, or that it checks, and whose pieces are all here."""
        sums, count = self._sums(r, parts), self._num_chunks(state, parts)
        for chunk in chunks:
            is_checked = chunk in sums.checking
            if chunk in sums.asked or (not is_checked and (chunk in sums.found or not self._is_mine(state.round, chunk, count))):
                continue
            pieces = [self._piece(r, part, chunk) for part in parts]
            if all(piece is not None for piece in pieces):
                sums.asked.add(chunk)
                said = sums.found[chunk].total if chunk in sums.found else None
                found = tuple(piece for piece in pieces if piece is not None)
                self.desk.compute(tasks.Reduce(state.round, parts, chunk, found, said))

    def _piece(self, r: _Round, part: Part, chunk: int) -> Payload | None:
        worker, digest = part
        if worker != self.desk.me.name:
            return r.pieces.get((part, chunk))
        own = r.own.get(digest, ())
        return own[chunk] if chunk < len(own) else None

    def _check_one(self, state: RoundState, r: _Round, parts: Parts) -> None:
        """Check one chunk that somebody else added up.

        Which one follows from a signature that never leaves this worker: nobody else can know, and a replay draws the same.
        """
        found = self._sums(r, parts).found
        foreign = [chunk for chunk in sorted(found) if found[chunk].source != self.desk.me.name]
        if foreign and len(parts) > 1:
            drawn = self.desk.key.sign(f"pluralis_lab: the chunk to check in round {state.round} of {self.desk.run_id}".encode())
            number = int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:8], "big")
            self._check(state, r, parts, foreign[number % len(foreign)])

    def _check(self, state: RoundState, r: _Round, parts: Parts, chunk: int) -> None:
        """Have the pieces of a chunk sent here, to add them up."""
        sums = self._sums(r, parts)
        if chunk in sums.checking or chunk in sums.asked:
            return
        sums.checking.add(chunk)
        for part in parts:
            if self._piece(r, part, chunk) is None:
                self.desk.send(part[0], FetchPiece(state.round, part[1], chunk))
        self._add_up(state, r, parts, [chunk])

    def on_false_sums(self, state: RoundState, parts: Parts, chunks: Sequence[int]) -> None:
        """Expel who sent sums that no usable pieces add up to; they are asked for elsewhere."""
        sums = self._sums(self._of(state.round), parts)
        false = [sums.found[chunk] for chunk in chunks if chunk in sums.found]
        for source in sorted({found.source for found in false}):
            self.desk.expel_live(source, f"sent a sum of round {state.round} that its pieces cannot add up to")
        self._drop(state, sums, lambda found: any(found is entry for entry in false))

    def _convict_authors(self, task: tasks.Reduce, unusable: Mapping[str, str], known: _Found | None) -> None:
        """Expel who signed a piece that cannot be computed with, and who says what it adds up to.

        A finite sum that somebody sent stays: others may have stepped with it, and it is no worse than any other false one.
        """
        for worker, reason in unusable.items():
            if worker == self.desk.me.name:
                raise RunError(f"{reason}; it was found sound before it was sent: report this as a bug")
            self.desk.expel_live(worker, reason)
        if known is not None and known.source == known.by:
            self.desk.expel_live(known.source, f"sent a false sum of chunk {task.chunk} of round {task.round}")

    def _convict(self, task: tasks.Reduce, sums: _Sums, false: _Found, total: Payload) -> None:
        """Expel who sent a false sum as its own, and go on with the true one, if nobody can have made a step with the false."""
        if false.source == false.by:
            self.desk.expel_live(false.source, f"sent a false sum of chunk {task.chunk} of round {task.round}")
        if (state := self.desk.rounds.get(task.round)) is None or state.applying is not None:
            return
        have = state.have
        others = [told for name, told in state.haves.items() if name != false.source and told.parts == task.parts]
        if have is not None and have.parts == task.parts and all(told.sums == have.sums for told in others):
            sums.corrections[task.chunk] = (false, total)  # somebody may have made the step with it
        else:
            self._correct(state, sums, task.chunk, false, total)

    def _correct(self, state: RoundState, sums: _Sums, chunk: int, false: _Found, total: Payload) -> None:
        """Take the true sum of `chunk` in place of a `false` one, whose sender's other sums are asked for elsewhere."""
        self._drop(state, sums, lambda found: found is false or false.source == found.source == found.by)
        sums.found[chunk] = _Found(self.desk.me.name, self.desk.me.name, total)

    @staticmethod
    def _drop(state: RoundState, sums: _Sums, is_dropped: Callable[[_Found], bool]) -> None:
        """Forget sums that may be false, and what was measured with them."""
        sums.found = {chunk: found for chunk, found in sums.found.items() if not is_dropped(found)}
        sums.all, state.inspected, state.inspecting = (), None, None
