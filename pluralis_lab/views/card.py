"""A run's facts in a few rows, as a cell shows them that ends in a run."""

import html

from pluralis_lab.store import RunDirectory


def run_card(run: RunDirectory) -> str:
    """Return the facts as an HTML table."""
    info, spec = run.info, run.spec
    facts = {
        "Run": run.id[:8],
        "State": info["state"] + (f" ({info['reason']})" if info.get("reason") else ""),
        "Model": f"{type(spec.model).__name__}, {info['model_parameters']:,} parameters",
        "Workers": f"{spec.stages} stages × {spec.replicas} replicas",
        "Data": info["corpus"]["name"],
        "Participants": ", ".join(participant["name"] for participant in info["participants"]),
    }
    rows = "".join(
        f"<tr><th style='text-align:left'>{key}</th><td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return f"<table>{rows}</table>"
