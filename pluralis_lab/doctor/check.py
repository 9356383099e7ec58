"""The result of one check."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What one check found.

    Parameters
    ----------
    name : what was looked at
    ok : whether it will do
    detail : what was found, with values
    remedy : what to do about it; empty where `ok`
    needed : False for what a run can do without (a GPU): it never fails the whole
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True
