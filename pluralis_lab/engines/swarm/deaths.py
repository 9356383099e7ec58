"""What the end of a worker's process means: an accident, after which its slot is started anew, or one that will come again.

The second kind ends the run only where nobody else has the stage; else the others go on, the error is told, and the slot is tried
again a few times.
"""

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


def why_no_accident(seat: Seat, status: int) -> str | None:
    """Return why another process in `seat`, which has counted this end already, is not likely to fare better; else None."""
    reason = describe_end(status)
    words = f": {seat.last_words}" if seat.last_words else ""
    if is_beyond_help(seat):
        guess = "; is memory short?" if status < 0 else ""
        return f"{seat.name} died {seat.deaths_in_a_row} times in a row ({reason}){words or guess}"
    # Whoever has said why it fails may be killed before it ends: the others miss it, and the supervisor ends whom they miss.
    if (words or status > 0) and status not in (EXIT_EXPELLED, EXIT_AWAY):
        return f"{seat.name} failed ({reason}){words}"
    if not seat.is_told_to_go and seat.founding and seat.incarnation == seat.first_incarnation:
        return f"{seat.name} died while the run was starting ({reason})"
    return None


def is_beyond_help(seat: Seat) -> bool:
    """Whether no further process is started in `seat`."""
    return seat.deaths_in_a_row > MAX_DEATHS_IN_A_ROW
