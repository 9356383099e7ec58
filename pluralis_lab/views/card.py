"""A run's facts in a few rows: what a cell shows that ends in a run whose record cannot be drawn."""

from pluralis_lab.markup import facts
from pluralis_lab.store import RunDirectory


def run_card(run: RunDirectory) -> str:
    """Return the facts as an HTML table."""
    info, spec = run.info, run.spec
    rows = {
        "State": info["state"] + (f" ({info['reason']})" if info.get("reason") else ""),
        "Model": f"{type(spec.model).__name__}, {info['model_parameters']:,} parameters",
        "Workers": f"{spec.stages} stages × {spec.replicas} replicas",
        "Data": info["corpus"]["name"],
        "Participants": ", ".join(participant["name"] for participant in info["participants"]),
    }
    return facts(f"Run {run.id[:8]}", rows.items())
