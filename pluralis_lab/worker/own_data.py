"""Micro-batches that a head draws from a corpus of its own, which nobody else can draw again.

A micro-batch of the common corpus is a pure function of (seed, round, index), so whoever takes it over from a dead head computes
the very same. One of a head's own corpus is not: who takes it over draws another, and a gradient of the first would then come
back to the second. So every stage remembers the ids that an index is made of, which travel with each activation. Whoever gets the
same index with other ids says what it is made of (`Drawn`); that goes back to the head, and the head makes it of those.
"""

from collections.abc import Callable

from pluralis_lab.learning import tasks
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Activation, Drawn
from pluralis_lab.worker.round_state import RoundState


class OwnData:
    """Keeps what each micro-batch is made of the same on its whole way. Without `RunSpec.own_data` it does nothing.

    take_back : undoes what an activation began here
    """

    def __init__(self, desk: Desk, take_back: Callable[[RoundState, int], None]) -> None:
        self.desk, self._take_back = desk, take_back

    def note(self, state: RoundState, message: Activation) -> None:
        """Remember what an activation that is used here is made of."""
        if self.desk.spec.own_data:
            state.drawn[message.index] = message.payload.only("ids")
            if message.own:
                state.own.add(message.index)

    def is_other(self, state: RoundState, source: str, message: Activation) -> bool:
        """Say whether `source` sent a micro-batch that is here already with other ids; it is told, then."""
        known = state.drawn.get(message.index)
        if known is None or known == message.payload.only("ids"):
            return False
        self.desk.send(source, Drawn(message.round, message.index, known))
        return True

    def on_drawn(self, source: str, message: Drawn) -> None:
        """Make a micro-batch anew, of the ids that the next stage has it with; between head and there, tell the stage before."""
        desk, index = self.desk, message.index
        state = desk.rounds.get(message.round)
        if state is None or state.sent_to.get(index) != source or index in state.accepted:
            return
        if (index, source) in state.redrawn:
            desk.expel_live(source, f"says again that micro-batch {index} of round {message.round} was drawn otherwise")
            return
        state.redrawn.add((index, source))
        del state.sent[index], state.sent_to[index]
        if desk.is_head:
            desk.compute(tasks.Forward(message.round, index, None, drawn=message.payload))
            return
        for sender in state.senders[index]:
            desk.send(sender, message)
        self._take_back(state, index)

    def on_refused(self, state: RoundState, index: int, reason: str) -> None:
        """Give up who wanted a micro-batch made of ids that cannot be, and draw it as at first."""
        for of, source in sorted(state.redrawn):
            if of == index:
                self.desk.expel_live(source, reason)
        self.desk.compute(tasks.Forward(state.round, index, None))


def ids_layout(shape: tuple[int, ...], *, vocab: int) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return how the ids of a micro-batch lie in a `Drawn`, `shape` being ``[size, context + 1]``."""
    return (("ids", "u2" if vocab <= 65536 else "i4", shape),)
