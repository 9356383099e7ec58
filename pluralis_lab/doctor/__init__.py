"""Checks of this machine: does everything that a run needs work here, and what to do where it does not.

The checks of heavy libraries run in child processes with a time-out, so that a broken one can neither hang nor crash the
caller.
"""

from pluralis_lab.doctor.check import Check
from pluralis_lab.doctor.checks import run_checks

__all__ = ["Check", "run_checks"]
