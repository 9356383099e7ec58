"""A Jupyter-native laboratory for protocol learning: train together, prove every contribution, own the result.

Everything here is loaded on first use, so that ``import pluralis_lab as pl`` takes milliseconds and brings in neither torch,
hivemind nor web3.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "RunSpec": "spec",
    "GPT": "parts",
    "MLP": "parts",
    "Blocks": "parts",
    "Dense": "parts",
    "Subspace": "parts",
    "Int8": "parts",
    "TopK": "parts",
    "FullSync": "parts",
    "DiLoCo": "parts",
    "SliceSync": "parts",
    "AdamW": "parts",
    "NAdam": "parts",
    "SGD": "parts",
    "Muon": "parts",
    "Links": "links",
    "Absence": "churn",
    "Churn": "churn",
    "policies": None,
    "aggregators": None,
    "Run": "run",
    "Generation": "generation",
    "HeldOutLoss": "generation",
    "AttachedWorker": "attaching",
    "Invitation": "engines.invitation",
    "Joined": "joined",
    "join": "joined",
    "devices": "placing",
    "launch": "launching",
    "simulate": "launching",
    "Plan": "planning",
    "Replay": "replaying",
    "plan": "planning",
    "open_run": "listing",
    "runs": "listing",
    "Chain": "chain",
    "Token": "chain",
    "PluralisError": "errors",
}

if TYPE_CHECKING:
    from pluralis_lab import aggregators, policies
    from pluralis_lab.attaching import AttachedWorker
    from pluralis_lab.chain import Chain, Token
    from pluralis_lab.churn import Absence, Churn
    from pluralis_lab.engines.invitation import Invitation
    from pluralis_lab.errors import PluralisError
    from pluralis_lab.generation import Generation, HeldOutLoss
    from pluralis_lab.joined import Joined, join
    from pluralis_lab.launching import launch, simulate
    from pluralis_lab.links import Links
    from pluralis_lab.listing import open_run, runs
    from pluralis_lab.parts import (
        GPT,
        MLP,
        SGD,
        AdamW,
        Blocks,
        Dense,
        DiLoCo,
        FullSync,
        Int8,
        Muon,
        NAdam,
        SliceSync,
        Subspace,
        TopK,
    )
    from pluralis_lab.placing import devices
    from pluralis_lab.planning import Plan, plan
    from pluralis_lab.replaying import Replay
    from pluralis_lab.run import Run
    from pluralis_lab.spec import RunSpec

__all__ = [
    "GPT",
    "MLP",
    "SGD",
    "Absence",
    "AdamW",
    "AttachedWorker",
    "Blocks",
    "Chain",
    "Churn",
    "Dense",
    "DiLoCo",
    "FullSync",
    "Generation",
    "HeldOutLoss",
    "Int8",
    "Invitation",
    "Joined",
    "Links",
    "Muon",
    "NAdam",
    "Plan",
    "PluralisError",
    "Replay",
    "Run",
    "RunSpec",
    "SliceSync",
    "Subspace",
    "Token",
    "TopK",
    "aggregators",
    "devices",
    "join",
    "launch",
    "open_run",
    "plan",
    "policies",
    "runs",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = _PUBLIC[name]
    if home is None:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter's server where its extension is; only the server asks, so only it pays for the import."""
    extension = importlib.import_module(f"{__name__}.server.extension")
    return [{"module": __name__, "app": extension.PluralisLabExtension}]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext pluralis_lab`` gives the shell the magic ``%pluralis``."""
    importlib.import_module(f"{__name__}.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext pluralis_lab`` takes the magic away again."""
    importlib.import_module(f"{__name__}.magics").unload(shell)
