"""Leaving in order: a worker that was asked to takes no more work, and goes when nobody needs anything of it."""

from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.exchange import Exchanges
from pluralis_lab.worker.membership import Membership
from pluralis_lab.worker.round_state import RoundState


class Leaving:
    """Decides when a worker that is leaving may end.

    Its last contribution says that it leaves (`lanes.LEAVING`), so from the next lanes on it is dealt nothing. What it has
    counted is stepped with and receipted by then; nothing of it has to be computed anew, as it would if it died.
    """

    def __init__(self, desk: Desk, membership: Membership, exchanges: Exchanges) -> None:
        self.desk, self._membership, self._exchanges = desk, membership, exchanges
        self._has_left = False
        self._counted_until = 0

    def on_step(self, state: RoundState) -> None:
        """Note whether this worker has a part in the step that was made."""
        if state.counted:
            self._counted_until = state.round + 1

    def leave_if_free(self) -> None:
        """End this worker, if it may."""
        if not self._has_left and self._is_free():
            self._has_left = True
            self.desk.leave()

    def _is_free(self) -> bool:
        desk = self.desk
        if desk.state in ("starting", "joining"):
            return True  # it has nothing that others could want
        if desk.state == "syncing" or not self._membership.has_successor:
            return False
        if desk.is_local and self._exchanges.settled < self._counted_until:
            return False  # how far it came since the last exchange would be lost
        told = range(desk.round, desk.dealt_from(desk.me.stage, desk.round))
        lanes = desk.roster.lanes(desk.me.stage)
        is_dealt_some = not desk.is_finished and any(desk.me.replica in lanes.dealt(number) for number in told)
        is_past_settled = all(number >= desk.round for number in desk.rounds)
        return is_past_settled and not is_dealt_some and not any(state.begun for state in desk.rounds.values())
