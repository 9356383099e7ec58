"""Which tests may run beside each other: two test processes, one of them for all that start workers, kernels or browsers."""

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

# What trains in real processes, or draws in a browser, takes both cores of a small machine: two at once would disturb each other.
ONE_AT_A_TIME = ("tests/browser/", "tests/engines/swarm/", "tests/run/")
# Session fixtures that are costly (a compiled chain, a drawn view) are made once where a folder stays together.
TOGETHER = ("tests/chain/", "tests/contributions/", "tests/views/")


def lane_of(nodeid: str) -> str:
    """Return the name of the group of tests that `nodeid` stays with, in the order of the suite and in one test process."""
    path = nodeid.split("::", 1)[0]
    if path.startswith(ONE_AT_A_TIME):
        return "processes"
    return next((folder for folder in TOGETHER if path.startswith(folder)), path)


class LaneScheduling(LoadScopeScheduling):
    """Hand out whole lanes, in the order of the suite: the long one first, so that the short ones fill up the other process."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)
