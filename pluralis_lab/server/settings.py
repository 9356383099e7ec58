"""What an administrator may set, as plain values: the traits of the extension without Jupyter."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The extension's configuration.

    roots : homes whose runs are shown; runs are started in the first
    read_only : refuse whatever changes a run or spends money (`Route.changes`)
    allowed_chains : "embedded", or URLs of nodes that may be asked for ownership
    interpreter : the Python that checks specs, launches and pays
    max_request_bytes, max_launches, max_live_runs, max_viewers, max_events : limits of one request or of the server
    grace_s : how long a run's picture is kept after its last viewer left, so that a reload finds it
    """

    roots: tuple[Path, ...]
    read_only: bool = False
    allowed_chains: tuple[str, ...] = ("embedded",)
    interpreter: str = "python3"
    max_request_bytes: int = 262_144
    max_launches: int = 2
    max_live_runs: int = 16
    max_viewers: int = 200
    max_events: int = 5_000
    grace_s: float = 30.0
