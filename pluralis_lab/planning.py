"""How fast a run would be: the real protocol in virtual time, with arithmetic and data modelled by their sizes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pluralis_lab.churn import Churn
from pluralis_lab.errors import RunSpecError
from pluralis_lab.launching import check_circumstances
from pluralis_lab.links import Links
from pluralis_lab.markup import facts
from pluralis_lab.spec import RunSpec, worker_name

ROUNDS = 12
"""Rounds of a plan at least; the first half, in which a pipeline fills and replicas learn each other's pace, is not counted."""
RUN_ID = "00" * 32
STAGES_SHOWN = 8
"""Of so many each one's share is written out."""


@dataclass(frozen=True)
class Plan:
    """What a run would reach. All times are virtual.

    tokens_per_s : tokens trained on a second; round_s : seconds a round takes
    busy : by stage, the share of the time that its workers compute, on average
    bytes_per_round : that all workers send in one round, by what it is for ("forward", "backward", "sync", "control")
    busiest : (from, to, share of the time that this link is busy) of the link that is busiest; to "*" is the uplink of `from`
    links : what joined the workers
    """

    num_workers: int
    tokens_per_s: float
    round_s: float
    busy: tuple[float, ...]
    bytes_per_round: dict[str, float]
    busiest: tuple[str, str, float]
    links: Links = field(default_factory=Links)

    def _rows(self) -> list[tuple[str, str]]:
        a, b, share = self.busiest
        sent = ", ".join(f"{kind} {size / 1e6:,.3g} MB" for kind, size in self.bytes_per_round.items())
        return [
            ("workers", f"{self.num_workers:,}"),
            ("tokens a second", f"{self.tokens_per_s:,.4g} (virtual)"),
            ("a round takes", f"{self.round_s:,.4g} s (virtual)"),
            ("workers compute", f"{self._busy_stages()} of the time"),
            ("sent a round", sent),
            ("links", self.links.described()),
            ("busiest link", f"{f'the uplink of {a}' if b == '*' else f'{a} to {b}'}, {share:.0%} of the time"),
        ]

    def _busy_stages(self) -> str:
        """Return the share of each stage, or of many only the least, the middle and the largest one."""
        shares = [(busy, stage) for stage, busy in enumerate(self.busy)]
        if len(shares) > STAGES_SHOWN:
            shares.sort()
            shares = [shares[0], shares[len(shares) // 2], shares[-1]]
        return ", ".join(f"stage {stage} {busy:.0%}" for busy, stage in shares)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return facts("Plan", self._rows())


def plan(
    spec: RunSpec,
    *,
    links: Links | None = None,
    speeds: Mapping[str, float] | None = None,
    churn: Churn | None = None,
    device_flops: float = 20e9,
    vocab: int = 256,
) -> Plan:
    """Say how fast `spec` would train on such links and machines, without training it.

    The workers' own protocol runs, some rounds of it, in virtual time; arithmetic takes its FLOPs, messages have their sizes,
    and nothing is computed. `simulate`, which computes, takes the same virtual time; only a joiner's state and an exchange of
    more than 2 MB are modelled more coarsely. Each pair of workers has a wire of its own: for machines whose link to everybody is
    one, as a home's is, give `Links` an `uplink`. It takes this machine as long as there are messages: a thousand workers with 16
    micro-batches a head less than a minute.

    Parameters
    ----------
    links, speeds, churn : as for `simulate`
    device_flops : floating-point operations a second that a worker of speed 1 really reaches (one core: about 20e9; a large
        GPU in bfloat16: 100e12 to 400e12)
    vocab : token ids (or classes) of the data

    Raises RunSpecError for what makes no sense.

    Example
    -------
    >>> spec = pl.RunSpec(model=pl.GPT(n_layer=32, n_head=32, d_model=4096, context=2048), stages=8, replicas=4, ...)
    >>> pl.plan(spec, links=pl.Links("80mbit", latency_ms=50), device_flops=100e12, vocab=50_257)
    """
    if not isinstance(spec, RunSpec):
        raise RunSpecError(f"spec={spec!r:.80} is no RunSpec; describe the run with pl.RunSpec(...)")
    if not 0 < device_flops < float("inf") or not isinstance(vocab, int) or vocab < 2:
        raise RunSpecError(f"device_flops={device_flops!r}, vocab={vocab!r}; give a number above 0 and at least two tokens")
    names = [worker_name(number) for number in range(spec.num_workers)]
    check_circumstances(names, links, speeds, churn)
    steps = num_rounds(spec) + rounds_after(spec)
    changes: dict[str, Any] = {"steps": steps, "checkpoint_every": steps, "epoch_rounds": steps}
    changes |= {"eval_every": 0, "eval_batches": 1, "own_data": 0.0}  # nobody brings any data to a plan
    short = RunSpec.model_validate({**spec.model_dump(), **changes})
    return _measured(
        short, names, links or Links(), {"speeds": speeds, "churn": churn, "device_flops": device_flops, "vocab": vocab}
    )


def num_rounds(spec: RunSpec) -> int:
    """Return how many rounds a plan of `spec` takes: enough for two exchanges in the half that counts, and a full pipeline."""
    return max(ROUNDS, 4 * (spec.sync_every or 0), 6 * spec.window)


def rounds_after(spec: RunSpec) -> int:
    """Return how many rounds the planned run has after those, of which none has to reach its end.

    Replicas that train on their own exchange all weights after the last round, which a plan of a few rounds must not count.
    """
    return 0 if spec.sync_every is None else max(spec.sync_every, 2 * spec.window + 2)


def _measured(spec: RunSpec, names: list[str], links: Links, circumstances: dict[str, Any]) -> Plan:
    from rich.console import Console
    from rich.progress import Progress

    from pluralis_lab.contributions.keys import HotKey
    from pluralis_lab.engines.virtual import VirtualSwarm

    rounds = num_rounds(spec)
    # By then every stage has reported the last of them: none is further behind the tail.
    last = min(rounds + spec.window, spec.steps - 1)
    ended: dict[int, float] = {}
    work: list[tuple[str, dict[str, Any]]] = []

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            ended.setdefault(body["round"], at)
            bar.update(task, completed=len(ended))
        elif kind == "work":
            work.append((worker, body))

    keys = {name: HotKey.from_seed(name.encode()) for name in names}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"planning {spec.num_workers} workers", total=last + 1)
        swarm = VirtualSwarm(spec, None, run_id=RUN_ID, links=links, keys=keys, on_report=on_report, **circumstances)
        swarm.run(should_stop=lambda: last in ended and spec.sync_every is not None)
    if last not in ended:
        raise RunSpecError(
            f"the run ends after {len(ended)} of {last + 1} rounds: a stage has no live worker left; less churn helps"
        )
    skipped = rounds // 2
    seconds = ended[rounds - 1] - ended[skipped - 1]
    counted = [(worker, body) for worker, body in work if skipped <= body["round"] < rounds]
    busy = [0.0] * spec.stages
    sent: dict[str, float] = defaultdict(float)
    on_link: dict[tuple[str, str], int] = defaultdict(int)
    on_uplink: dict[str, int] = defaultdict(int)
    for worker, body in counted:
        busy[spec.stage_of(int(worker.removeprefix("worker-")))] += body["compute_s"] / seconds / spec.replicas
        for peer, sizes in body["links"].items():
            for kind, size in sizes.items():
                if kind.endswith("_bytes"):
                    sent[kind.removesuffix("_bytes")] += size / (rounds - skipped)
                    on_link[worker, peer] += size
                    on_uplink[worker] += size
    shares = {(worker, "*"): links.uplink_seconds(size) / seconds for worker, size in on_uplink.items() if links.uplink}
    shares |= {pair: links.between(*pair).seconds(size) / seconds for pair, size in on_link.items()}
    pair = max(shares, key=lambda pair: shares[pair], default=("-", "-"))
    tokens = spec.num_micro_batches * spec.tokens_per_micro_batch * (rounds - skipped)
    return Plan(
        num_workers=spec.num_workers,
        tokens_per_s=tokens / seconds,
        round_s=seconds / (rounds - skipped),
        busy=tuple(min(share, 1.0) for share in busy),
        bytes_per_round={kind: sent[kind] for kind in ("forward", "backward", "sync", "control") if kind in sent},
        busiest=(*pair, shares.get(pair, 0.0)),
        links=links,
    )
