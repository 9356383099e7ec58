"""Cases of which each run of the suite draws a few, by a seed that it says; `make deep` runs all of them.

``@pytest.mark.drawn(keep=2)`` keeps two of a test's cases; ``@pytest.mark.drawn("a group", keep=2)`` two of all cases of the
tests that name the group. A case that is asked for by its own name runs.
"""

import os
import random
from collections import defaultdict

import pytest

SEED_VARIABLE = "PLURALIS_TEST_SEED"


def choose_seed() -> int:
    """Return the seed of this session: the variable's, or a new one, which is the same in all processes of the session."""
    return int(os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(2**31))))


def draws(config: pytest.Config) -> bool:
    """Whether this session draws: one that asks for deep tests runs every case."""
    return str(config.option.markexpr) == "not deep"


def keep_drawn(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of `items`, in place, the cases that were not drawn."""
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    keep: dict[str, int] = {}
    for item in items:
        marker = item.get_closest_marker("drawn")
        if marker is not None and item.get_closest_marker("deep") is None:
            group = marker.args[0] if marker.args else item.nodeid.partition("[")[0]
            groups[group].append(item)
            keep[group] = marker.kwargs["keep"]
    luck = random.Random(choose_seed())
    left_out: set[pytest.Item] = set()
    for group, cases in groups.items():
        drawn = luck.sample(cases, min(keep[group], len(cases)))
        left_out |= set(cases) - set(drawn)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
