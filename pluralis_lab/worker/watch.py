"""Who of this stage has gone silent: replicas that keep a round waiting are asked whether they are there.

A process that is stopped, or a machine that hangs, has not died: its connections stand, and nobody hears that it is gone. But no
round ends without it, since all replicas make the same step. So who waits much longer for the end of a round than rounds take
asks its replicas (`Ping`), and one that does not answer (`Pong`), or has work and gets nothing done, is set aside by the engine
(`SetAside`): the others go on as if it had died, and it joins anew when it answers.

How long is too long follows from the rounds that were seen here. As long as rounds go on, nothing is sent.
"""

from collections import deque
from dataclasses import dataclass

from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Ping, Pong
from pluralis_lab.worker.roster import GREETING_S, Peer

MIN_ROUNDS = 3
ROUNDS_SEEN = 32
"""A round with an evaluation, an exchange or a checkpoint is longer than others, and must be among those seen."""

TIMES_A_ROUND = 3.0
"""So many times the longest round seen are far longer than a replica that is only slow takes: its pace is in those rounds."""

LEAST_S = 4.0
"""Who is set aside joins anew, which takes a second for a small stage and more for a large one; and on a busy machine a process
that is well can be kept waiting for as long. To be less patient is no gain."""

UNKNOWN_S = 600.0
"""Patience in the first round, which takes what it takes to begin; with less than `MIN_ROUNDS` seen, these are trusted less."""

PROGRESS_TIMES = 2.0
"""A replica that answers and has one task in hand gets so much more patience: a single task may be a long one."""


@dataclass
class _Asked:
    """A replica that was asked: when, and what it said; `done_at`, when it had first done so many tasks."""

    at: float
    number: int
    done: int = -1
    done_at: float = 0.0
    is_busy: bool = False


class Watch:
    """Looks after the other replicas of the stage while a round lasts."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._rounds: deque[float] = deque(maxlen=max(ROUNDS_SEEN, (desk.spec.sync_every or 0) + 2))
        self._disturbed: deque[float] = deque(maxlen=MIN_ROUNDS)
        self._began: float | None = None
        self._is_disturbed = True
        self._due = 0.0
        self._number = 0
        self._heard: dict[str, float] = {}
        self._asked: dict[str, _Asked] = {}

    @property
    def patience_s(self) -> float:
        """Seconds without a sign of life after which a replica counts as silent."""
        if len(self._rounds) >= MIN_ROUNDS:
            return max(LEAST_S, TIMES_A_ROUND * max(self._rounds))
        # Where somebody comes or goes in each round, those are longer than others, and all that there is to go by.
        if not (seen := [*self._disturbed, *self._rounds]):
            return UNKNOWN_S
        times = TIMES_A_ROUND * MIN_ROUNDS / min(MIN_ROUNDS, len(seen))
        return min(UNKNOWN_S, max(LEAST_S, times * max(seen)))

    def on_round(self) -> None:
        """Note that a round begins here."""
        desk = self.desk
        if self._began is not None:
            (self._disturbed if self._is_disturbed else self._rounds).append(desk.now - self._began)
        self._began, self._is_disturbed = desk.now, False
        self._asked.clear()
        self._wait()

    def on_woken(self) -> float:
        """Ask the replicas, or have those set aside that did not answer; return for how long this worker was not there itself."""
        desk = self.desk
        late_s = desk.now - self._due
        away_s = late_s if late_s > min(self.patience_s, 2 * GREETING_S) / 4 else 0.0
        if desk.state != "active":
            self._wait()
            return away_s
        if away_s:
            self._asked.clear()  # what the others said meanwhile it has still to read
            self._is_disturbed = True
        for peer in desk.mates(desk.round):
            if peer.is_met:  # another is given up as such (`Membership.forget_unmet`)
                self._look_after(peer)
        self._wait()
        return away_s

    def on_heard(self, source: str) -> None:
        """Note a sign of life."""
        self._heard[source] = self.desk.now

    def on_ping(self, source: str, message: Ping) -> None:
        """Say that this worker is there, and how far its arithmetic is."""
        self.desk.send(source, Pong(message.number, self.desk.num_done, self.desk.num_asked - self.desk.num_done))

    def on_pong(self, source: str, message: Pong) -> None:
        asked = self._asked.get(source)
        if asked is None or asked.number != message.number:
            return
        if message.done != asked.done:
            asked.done, asked.done_at = message.done, self.desk.now
        asked.is_busy = message.waiting > 0

    def on_peer_found(self, peer: Peer) -> None:
        """Note that somebody comes in: the round that waits for it is no measure."""
        self._is_disturbed = True

    def on_peer_lost(self, lost: Peer) -> None:
        """Forget a worker that is gone: the round that it leaves is no measure either."""
        self._asked.pop(lost.name, None)
        self._heard.pop(lost.name, None)
        self._is_disturbed = True

    def _look_after(self, peer: Peer) -> None:
        desk, asked = self.desk, self._asked.get(peer.name)
        if asked is None:
            self._ask(peer, _Asked(desk.now, 0))
            return
        heard = self._heard.get(peer.name, 0.0)
        if heard < asked.at:
            silent_s = desk.now - max(heard, self._began or 0.0)
            if silent_s >= self.patience_s:
                desk.set_aside(peer, silent_s, "silent")
        elif asked.is_busy and desk.now - asked.done_at >= PROGRESS_TIMES * self.patience_s:
            desk.set_aside(peer, desk.now - asked.done_at, "gets nothing done")
        else:
            asked.at = desk.now
            self._ask(peer, asked)

    def _ask(self, peer: Peer, asked: _Asked) -> None:
        self._number += 1
        asked.number = self._number
        self._asked[peer.name] = asked
        self.desk.send(peer.name, Ping(self._number))

    def _wait(self) -> None:
        """Be woken after half of the patience: first to ask, then to see who has answered; and who has not greeted yet."""
        desk = self.desk
        looks_after = desk.has_mates and not desk.is_finished
        if not looks_after and not desk.roster.unmet:
            desk.set_timer(None)
            return
        half_s = min(self.patience_s / 2, GREETING_S) if desk.roster.unmet else self.patience_s / 2
        self._due = desk.now + half_s
        desk.set_timer(half_s)
