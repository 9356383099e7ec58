"""How a stage's micro-batches are dealt out to its replicas: in lanes, as many to each as its measured pace allows.

A lane is a replica's slot and its pace. What the lanes of a round are follows from steps that the replicas made together, so all
heads deal alike without asking each other; and it does not depend on who lives, so a death moves nobody else's work.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field

Table = tuple[tuple[int, int, int | None], ...]
"""The lanes of a round, in the order of their slots: (slot, first round, level of the pace or None while it is not known)."""

ROUNDS_KEPT = 64
"""Of which it is remembered who is dealt what: more than are under way at a time."""

LEVELS_PER_OCTAVE = 8
"""Paces are told in steps of 9 %: a level is eight times the binary logarithm of what a micro-batch takes, in 2^-40 seconds."""
ONE_SECOND = 40 * LEVELS_PER_OCTAVE
MAX_LEVEL = 2 * ONE_SECOND
LEAVING = MAX_LEVEL + 1
"""In place of a level: who is about to leave, and is dealt nothing from the next lanes on."""

ON_TRIAL = MAX_LEVEL + 2
"""In place of a level: who was set aside because it was silent, and is dealt one micro-batch until its work is in a step."""

_OCTAVE = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)
"""1024 times 2 to the n/8. In integers, as all heads must come to the same result, whatever machine they are on."""
_MOST_OCTAVES = 16


@dataclass
class Lanes:
    """The lanes of one stage by round.

    stage : micro-batches move on by so many turns every round, so that neighbours who counter-sign each other's work change
    num_micro_batches : of a round
    """

    stage: int
    num_micro_batches: int
    tables: list[tuple[int, Table]]
    """(first round, lanes), the oldest first."""
    _dealt: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _turned: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def of(self, round_: int) -> Table:
        """Return the lanes of `round_`, or of the earliest round that is remembered."""
        return next((table for since, table in reversed(self.tables) if since <= round_), self.tables[0][1])

    def change(self, since: int, table: Table, *, keep: int) -> None:
        """Set the lanes from round `since` on, and remember those of `keep` changes."""
        if not table or table == self.of(since):
            return
        self.tables = [*(entry for entry in self.tables if entry[0] < since), (since, table)][-keep:]
        self._dealt.clear()
        self._turned.clear()

    def dealt(self, round_: int) -> tuple[int, ...]:
        """Return the slot of each micro-batch of `round_`, before the stage's turns."""
        if round_ not in self._dealt:
            if len(self._dealt) > ROUNDS_KEPT:
                self._dealt.clear()
                self._turned.clear()
            self._dealt[round_] = deal(self.of(round_), self.num_micro_batches, round_)
        return self._dealt[round_]

    def turns(self, round_: int, index: int) -> list[int]:
        """Return the slots that serve micro-batch `index` of `round_`: the one of its lane, then who takes over, in order.

        Those of one lane are taken over by all others in turn: a replica that had to do a dead one's work as well would be waited
        for by everybody.
        """
        if (turned := self._turned.get((round_, index))) is None:
            turned = self._turned[round_, index] = self._turns_of(round_, index)
        return turned

    def _turns_of(self, round_: int, index: int) -> list[int]:
        dealt = self.dealt(round_)
        at = (index + self.stage * round_) % len(dealt)
        slots = [slot for slot, *_ in self.of(round_)]
        place = slots.index(dealt[at])
        others = [*slots[place + 1 :], *slots[:place]]
        turn = dealt[:at].count(dealt[at]) % len(others) if others else 0
        return [slots[place], *others[turn:], *others[:turn]]


def deal(table: Table, count: int, round_: int) -> tuple[int, ...]:
    """Return the slot of each of `count` micro-batches.

    Everybody gets as many, in turns, unless that takes a fifth longer than giving each to who would be done with it first: what
    is measured on a busy machine is rough. Where not all get as many, the order of the slots moves on every round. Who is on
    trial gets one, if that leaves something for the others.
    """
    table = tuple(lane for lane in table if lane[2] != LEAVING) or table
    others = tuple(lane for lane in table if lane[2] != ON_TRIAL)
    if others and len(others) < len(table):
        tried = [slot for slot, _, level in table if level == ON_TRIAL][: count - 1]
        return (*tried, *deal(others, count - len(tried), round_))
    slots, paces = [slot for slot, *_ in table], _paces(table)
    even = [1] * len(slots)
    chosen = even
    each = -(-count // len(slots))
    if 5 * each * max(paces) > 6 * max(number * paces[place] for place, number in _counts(paces, count, 0).items()):
        chosen = paces
    counts = _counts(chosen, count, 0)
    is_even = len(counts) == len(slots) and len(set(counts.values())) == 1
    return tuple(slots[place] for place in _turns(chosen, count, 0 if is_even else round_ % len(slots)))


def _paces(table: Table) -> list[int]:
    """Return relative seconds a micro-batch; who is not measured is taken to be like the one in the middle."""
    known = sorted(level for *_, level in table if level is not None)
    if not known:
        return [1] * len(table)
    middle, most = known[len(known) // 2], LEVELS_PER_OCTAVE * _MOST_OCTAVES - 1
    levels = [min((middle if level is None else level) - known[0], most) for *_, level in table]
    return [_OCTAVE[level % LEVELS_PER_OCTAVE] << (level // LEVELS_PER_OCTAVE) for level in levels]


def _turns(paces: list[int], count: int, first: int) -> list[int]:
    """Return whose turn it is, `count` times: who would be done first with one more, of several the next one from `first` on."""
    order = [*range(first, len(paces)), *range(first)]
    line = [(paces[place], number, place) for number, place in enumerate(order)]
    heapq.heapify(line)
    turns = []
    for _ in range(count):
        done_at, number, place = line[0]
        heapq.heapreplace(line, (done_at + paces[place], number, place))
        turns.append(place)
    return turns


def _counts(paces: list[int], count: int, first: int) -> Counter[int]:
    return Counter(_turns(paces, count, first))


def next_table(
    table: Table,
    round_: int,
    *,
    since: int,
    paces: dict[int, int | None],
    dealt: set[int],
    joined: dict[int, bool],
    is_head: bool,
) -> Table:
    """Return the lanes after the step of `round_` that the stage's replicas made together.

    A slot that was dealt no micro-batch drifts to the pace of the others, so that it is tried again. One that was dealt some and
    is not in the step has lost its worker, among heads, who claim what they are dealt: it is no lane any more. (In later stages
    it stays one, and others take over what is dealt to it.)

    table : the newest lanes
    since : first round of the new ones
    paces : level by slot, of those whose work is in the step
    dealt : slots that had micro-batches in `round_`
    joined : slots that are admitted with the step, and whether they are on trial
    """
    told = sorted(level for level in paces.values() if level is not None and level != LEAVING)
    middle = told[len(told) // 2] if told else None
    lanes: dict[int, tuple[int, int | None]] = {}
    for slot, first, level in table:
        if slot in paces:
            lanes[slot] = (first, paces[slot])
        elif slot not in dealt and level == ON_TRIAL and first <= round_:
            lanes[slot] = (first, None)  # there was nothing to try it with
        elif slot not in dealt and level is not None and level < LEAVING and middle is not None:
            lanes[slot] = (first, level + (middle > level) - (middle < level))
        elif slot not in dealt or first > round_ or not is_head:
            lanes[slot] = (first, level)
    for slot, on_trial in joined.items():
        known = lanes[slot][1] if slot in lanes else None
        lanes[slot] = (since, ON_TRIAL if on_trial else None if known in (LEAVING, ON_TRIAL) else known)
    return tuple((slot, first, level) for slot, (first, level) in sorted(lanes.items()))
