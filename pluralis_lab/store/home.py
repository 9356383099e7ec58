"""Where everything that outlives a process is kept: `$PLURALIS_LAB_HOME`."""

import os
from pathlib import Path


def lab_home(home: str | os.PathLike[str] | None = None) -> Path:
    """Return `home`, else `$PLURALIS_LAB_HOME`, else `~/.pluralis_lab`; made with mode 0700 if it is not there."""
    path = Path(home or os.environ.get("PLURALIS_LAB_HOME") or Path.home() / ".pluralis_lab").expanduser().absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
