"""One figure that a benchmark measured, as JSON and as a line of a table."""

import datetime
import functools
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Result:
    """A figure with its target.

    name : "benchmark.figure"; unit : of target, measured and peer
    target : the most that `measured` may be, or with `at_least` the least; None where a figure is only reported
    peer : the same figure for the usual approach, measured in the same run; `peer_name` says which; None where there is none
    repeats : how many measurements `measured` is the median of; note : how it was measured
    is_missed : whether its target, which is a share of a peer's figure, could not even be set; the note says why
    shown : whether the README shows it though it has neither a target nor a peer, as what stands beside another figure
    date : the day on which it was measured
    """

    name: str
    unit: str
    target: float | None
    measured: float
    repeats: int
    peer: float | None = None
    peer_name: str = ""
    note: str = ""
    at_least: bool = False
    is_missed: bool = False
    shown: bool = False
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    @property
    def ok(self) -> bool:
        if self.target is None:
            return not self.is_missed
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the peer's."""
        if not self.peer or not self.measured:
            return None
        return self.measured / self.peer if self.at_least else self.peer / self.measured

    def to_json(self) -> dict[str, Any]:
        rounded = {
            name: value if value is None else float(f"{value:.4g}")
            for name, value in {"measured": self.measured, "peer": self.peer, "ratio": self.ratio}.items()
        }
        return {**asdict(self), **rounded, "machine": machine(), "ok": self.ok}


@functools.cache
def machine() -> str:
    """Return what this ran on, in a line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.processor()
    memory_gb = psutil.virtual_memory().total / 1e9
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{psutil.cpu_count()} x {processor}, {memory_gb:.0f} GB, {system}"


def table(results: Sequence[Result]) -> str:
    """Return the figures as a table with aligned columns."""
    heads = ("figure", "measured", "target", "peer", "ratio", "", "how")
    rows = [
        (
            one.name,
            f"{one.measured:.3g} {one.unit}",
            "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g} {one.unit}",
            "" if one.peer is None else f"{one.peer:.3g} {one.unit}",
            "" if one.ratio is None else f"{one.ratio:.3g} x",
            "ok" if one.ok else "MISSED",
            f"{one.note}{f'; peer: {one.peer_name}' if one.peer_name else ''}; {one.repeats} x",
        )
        for one in results
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)]
    return "\n".join([*lines, f"on {machine()}"])
