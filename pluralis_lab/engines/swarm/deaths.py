"""What the end of a worker's process means: start its slot anew, or fail the run because that cannot help."""

import signal

from pluralis_lab.engines.swarm.seats import Seat
from pluralis_lab.engines.swarm.worker_exit import EXIT_AWAY, EXIT_EXPELLED

MAX_DEATHS_IN_A_ROW = 5
"""Deaths of one worker without a finished round between them, after which the machine, not chance, is the reason."""


def describe_end(status: int) -> str:
    """Return an exit status in words; a negative one is the signal that killed."""
    if status == EXIT_AWAY:
        return "its machine cannot be reached"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def why_fatal(seat: Seat, status: int) -> str | None:
    """Return why the run fails with this end, which `seat` has counted already; None when another process may sit there."""
    reason = describe_end(status)
    # Whoever has said why it fails may be killed before it ends: the others miss it, and the supervisor ends whom they miss.
    if seat.last_words or (status > 0 and status not in (EXIT_EXPELLED, EXIT_AWAY)):
        return f"{seat.name} failed ({reason})" + (f": {seat.last_words}" if seat.last_words else "")
    if seat.deaths_in_a_row > MAX_DEATHS_IN_A_ROW:
        return f"{seat.name} died {seat.deaths_in_a_row} times in a row ({reason}); is memory short?"
    if not seat.is_told_to_go and seat.founding and seat.incarnation == seat.first_incarnation:
        return f"{seat.name} died while the run was starting ({reason})"
    return None
