"""What a spec would cost: parameters, bytes and FLOPs from the spec alone, seconds from runs that were measured here."""

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from pluralis_lab.errors import PluralisError
from pluralis_lab.learning.wire_cost import codec_bytes_per_token, sync_bytes_per_weight
from pluralis_lab.models.cost import stage_flops_per_token, stage_parameters
from pluralis_lab.parts import MLP
from pluralis_lab.spec import RunSpec
from pluralis_lab.store import RunDirectory, list_runs
from pluralis_lab.views.picture_parts import finite

NEWEST_RUNS = 8
MEASURED_ROUNDS = 25
ASSUMED_VOCAB = 256
"""Texts are read as bytes: no corpus of ours has more tokens, most have fewer."""
PASSES = 3
"""A backward pass costs two forward passes (arXiv 2001.08361, section 2.1)."""


def estimate(spec: RunSpec, homes: list[Path]) -> dict[str, Any]:
    """Return the estimate of the form (`server.shapes.spec.Estimate`).

    boundary_bytes_per_round : what a worker in the middle sends on average: activations forward and gradients backward, of the
        micro-batches that come its way. A worker at an end sends one of the two.
    contribution_bytes_per_round : a worker's weight gradient to each other replica of its stage, for the largest stage; where
        replicas exchange only now and then, on average over the rounds
    """
    vocab, is_known = _vocab(spec, homes)
    parameters = [stage_parameters(spec, stage, vocab) for stage in range(spec.stages)]
    tokens = spec.num_micro_batches * spec.tokens_per_micro_batch
    flops = PASSES * tokens * sum(stage_flops_per_token(spec, stage, vocab) for stage in range(spec.stages))
    forward, backward = codec_bytes_per_token(spec, vocab) if spec.stages > 1 else (0.0, 0.0)
    both = forward + backward if spec.stages > 2 else max(forward, backward)
    speed = measured_flops_per_s(homes)
    return {
        "workers": spec.num_workers,
        "model_parameters": sum(parameters),
        "stage_parameters": parameters,
        "boundary_bytes_per_round": round(both * tokens / spec.replicas),
        "contribution_bytes_per_round": round(max(parameters) * sync_bytes_per_weight(spec) * (spec.replicas - 1)),
        "flops_per_round": flops,
        "round_s": None if speed is None else flops / speed,
        "tokens_per_round": tokens,
        "vocab_is_known": is_known,
    }


def _vocab(spec: RunSpec, homes: list[Path]) -> tuple[int, bool]:
    """Return (size of the vocabulary, whether it is certain): from a run or a cached corpus with the same data, else assumed."""
    if isinstance(spec.model, MLP):
        return spec.model.widths[-1], True
    for run in _newest_runs(homes):
        try:
            if run.spec.data == spec.data:
                return int(run.info["corpus"]["vocab"]), True
        except (PluralisError, KeyError, TypeError, ValueError, OSError):
            continue  # a damaged run is shown as such in the list
    return ASSUMED_VOCAB, False


def measured_flops_per_s(homes: list[Path]) -> float | None:
    """Return the FLOPs a second that this home's newest run of real processes did, over its last rounds; None without one.

    All workers of this machine together: they share it, so a run of more workers is not faster by their number.
    """
    for run in _newest_runs(homes):
        try:
            if run.info["engine"] != "swarm":
                continue
            speed = _speed(run)
        except (PluralisError, KeyError, TypeError, ValueError, OSError):
            continue
        if speed is not None:
            return speed
    return None


def _speed(run: RunDirectory) -> float | None:
    reader = run.reader()
    try:
        rounds = reader.newest("round", MEASURED_ROUNDS)
        works = reader.newest("worker.round", (MEASURED_ROUNDS + 4) * run.spec.num_workers)
    finally:
        reader.close()
    flops: dict[int | None, float] = defaultdict(float)
    for event in works:
        flops[event.round] += finite(event.body.get("work_flops")) or 0.0
    speeds = []
    for event in rounds:
        seconds = finite(event.body.get("seconds"))
        if seconds and flops[event.round]:
            speeds.append(flops[event.round] / seconds)
    return median(speeds) if speeds else None


def _newest_runs(homes: list[Path]) -> list[RunDirectory]:
    runs = [run for home in homes for run in reversed(list_runs(home))]
    return runs[: NEWEST_RUNS * max(1, len(homes))]
