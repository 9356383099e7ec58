"""A run's figures as pandas tables: a row a round, or a row a worker."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.own_texts import OwnText, own_texts

if TYPE_CHECKING:
    import pandas as pd

    from pluralis_lab.store import RunDirectory

CONTRIBUTION_COLUMNS = (
    "worker",
    "participant",
    "stage",
    "replica",
    "state",
    "rounds",
    "tokens",
    "work_pflop",
    "share",
    "gradient_norm",
    "agreement",
    "own_tokens",
)
WORKER_COLUMNS = (
    "worker",
    "stage",
    "replica",
    "participant",
    "state",
    "reason",
    "device",
    "pid",
    "incarnation",
    "deaths",
    "parameters",
    "model_share",
    "round",
    "delay",
    "busy",
    "bytes_out",
    "bytes_in",
    "bytes_per_s",
)
LINK_KINDS = ("forward", "backward", "sync", "control")
LINK_COLUMNS = ("source", "target", *(f"{kind}_bytes" for kind in LINK_KINDS), "bytes")


def metrics(run_dir: RunDirectory) -> pd.DataFrame:
    """Return a row a round: `round, epoch, loss, validation_loss, tokens, tokens_per_s, seconds`.

    Losses are nats a token (`validation_loss` is NaN where none was taken), `seconds` the time since the round before.
    """
    import pandas as pd

    picture = RunPicture.of(run_dir)
    columns = {
        "loss": picture.loss,
        "validation_loss": picture.validation,
        "tokens": picture.tokens,
        "tokens_per_s": picture.tokens_per_s,
        "seconds": picture.seconds,
    }
    table = pd.DataFrame({name: pd.Series(series.y, index=series.x, dtype="float64") for name, series in columns.items()})
    table = table.sort_index().rename_axis("round").reset_index()
    table.insert(1, "epoch", table["round"] // picture.epoch_rounds)
    table["round"], table["epoch"] = table["round"].astype("int64"), table["epoch"].astype("int64")
    return table


def contributions(run_dir: RunDirectory) -> pd.DataFrame:
    """Return a row a worker: what it did, as its neighbours counted it. The column `share` sums to 1.

    Columns: `worker, participant, stage, replica, state, rounds, tokens, work_pflop` (10^15 operations), `share` (of all
    work seen, paid or not), `gradient_norm` and `agreement` (means over its rounds; the cosine with the mean of the other
    replicas, NaN for a stage with one replica), `own_tokens` (drawn from a text that it brought, as the workers of stage 1
    counted them; a contribution beside its work, and not paid).
    """
    import pandas as pd

    picture = RunPicture.of(run_dir)
    total = picture.total_work_flops
    own = {text.worker: text.tokens for text in own_texts(picture)}
    rows = [
        {
            "worker": worker.name,
            "participant": worker.participant,
            "stage": worker.stage,
            "replica": worker.replica,
            "state": worker.state,
            "rounds": len(worker.tokens.x),
            "tokens": int(worker.total_tokens),
            "work_pflop": worker.total_work_flops / 1e15,
            "share": worker.total_work_flops / total if total else 0.0,
            "gradient_norm": worker.grad_norm.mean(),
            "agreement": worker.agreement.mean(),
            "own_tokens": own.get(worker.name, 0),
        }
        for _, group in picture.grouped()
        for worker in group
    ]
    return pd.DataFrame(rows, columns=list(CONTRIBUTION_COLUMNS)).astype({"gradient_norm": "float64", "agreement": "float64"})


def data(run_dir: RunDirectory) -> pd.DataFrame:
    """Return a row a worker that brought a corpus of its own.

    Columns: `worker, participant, corpus, hash, size` (its training tokens), `tokens` (drawn from it, as the workers of stage 1
    counted them) and `share` (of all tokens that stage 1 counted).
    """
    import pandas as pd

    rows = [asdict(text) for text in own_texts(RunPicture.of(run_dir))]
    return pd.DataFrame(rows, columns=[field.name for field in fields(OwnText)])


def workers(run_dir: RunDirectory) -> pd.DataFrame:
    """Return a row a worker: where it sits, how it is, and how much of the model it holds.

    Columns: `worker, stage, replica, participant, state, reason, device, pid, incarnation, deaths, parameters,
    model_share` (its parameters over the model's), `round` (its last), `delay` (steps that its gradients were late; NaN under
    ``schedule="sync"``), `busy` (seconds of compute over seconds of the run's clock in its last 20 rounds), `bytes_out, bytes_in,
    bytes_per_s`.
    """
    import pandas as pd

    picture = RunPicture.of(run_dir)
    rows = [
        {
            "worker": worker.name,
            "stage": worker.stage,
            "replica": worker.replica,
            "participant": worker.participant,
            "state": worker.state,
            "reason": worker.reason,
            "device": worker.device,
            "pid": worker.pid,
            "incarnation": worker.incarnation,
            "deaths": worker.deaths,
            "parameters": worker.parameters,
            "model_share": worker.parameters / picture.model_parameters
            if worker.parameters is not None and picture.model_parameters
            else None,
            "round": worker.round,
            "delay": worker.delay,
            "busy": worker.recent.busy,
            "bytes_out": int(worker.bytes_out),
            "bytes_in": int(worker.bytes_in),
            "bytes_per_s": worker.bytes_per_s,
        }
        for _, group in picture.grouped()
        for worker in group
    ]
    table = pd.DataFrame(rows, columns=list(WORKER_COLUMNS))
    integers = dict.fromkeys(("pid", "parameters", "round"), "Int64")
    return table.astype({**integers, **dict.fromkeys(("model_share", "delay", "busy", "bytes_per_s"), "float64")})


def links(run_dir: RunDirectory) -> pd.DataFrame:
    """Return a row a link and direction: what each worker sent to each other one, in all rounds and after them.

    Columns: `source, target, forward_bytes` (activations), `backward_bytes` (their gradients), `sync_bytes` (exchanges between
    replicas), `control_bytes` (all else) and `bytes` (their sum), as the sender counted them on the wire.
    """
    import pandas as pd

    rows = []
    for _, group in RunPicture.of(run_dir).grouped():
        for worker in group:
            for target, sent in sorted(worker.links.items()):
                sizes = {f"{kind}_bytes": int(sent.get(f"{kind}_bytes", 0.0)) for kind in LINK_KINDS}
                if total := sum(sizes.values()):
                    rows.append({"source": worker.name, "target": target, **sizes, "bytes": total})
    return pd.DataFrame(rows, columns=list(LINK_COLUMNS))
