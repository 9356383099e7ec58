"""The colours of every view: Okabe and Ito's set, which stays apart for colour-blind eyes; never the only sign of a meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pluralis_lab.views.fold import RunPicture

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#C9B400",
    "#7A7F87",
)
# Okabe and Ito's blue is too dark for a thin line on a dark page; this one can be read on both.
LINE_BLUE = "#1F8FD6"
TRAIN, VALIDATION, BASELINE, DEAD = BLUE, VERMILLION, GREY, VERMILLION
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY)


def colour_of(index: int) -> str:
    """Return the colour of the `index`-th participant or worker; the cycle repeats after eight."""
    return CYCLE[index % len(CYCLE)]


def shade(colour: str, towards_white: float) -> str:
    """Return `colour` mixed with white, by a fraction in [0, 1]: replicas of one owner differ in lightness."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * towards_white):02x}" for part in parts)


def worker_colours(picture: RunPicture) -> dict[str, str]:
    """Return a colour for each worker: that of its owner, lighter for each further worker of the same owner."""
    owners: dict[str, list[str]] = {name: [] for name in picture.participants}
    for _, group in picture.grouped():
        for worker in group:
            owners.setdefault(worker.participant or worker.name, []).append(worker.name)
    return {
        name: shade(colour_of(index), 0.55 * place / max(1, len(names)))
        for index, names in enumerate(owners.values())
        for place, name in enumerate(names)
    }


def ink_on(colour: str) -> str:
    """Return black or white, whichever can be read on `colour` (relative luminance as in WCAG 2)."""
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 for c in (int(colour[i : i + 2], 16) for i in (1, 3, 5))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#10151a" if luminance > 0.18 else "#ffffff"
