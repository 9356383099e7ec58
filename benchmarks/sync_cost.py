"""What exchanging with other replicas adds to a round: four replicas of a whole model, each rule, beside `hivemind.Optimizer`.

The stall is a round's time less that of four bare loops which train as much at the same time on the same cores and talk to
nobody, just before and just after. `hivemind.Optimizer` has the best of its settings: all are tried once, and the two that cost
least then take turns with our rules, as from run to run they cost a half or the double. Its rounds are epochs, in which its peers
may make several steps, and all of those count as training. On loopback, and as root also, once, over links of 100 Mbit/s each.

The right answer comes first: every run must begin at the loss of an untrained model and end below it, all of our replicas must
be there after the last round, and peers of hivemind must have trained together (one that finds nobody goes on alone, and is
quick), and end with the same weights where they average gradients.
"""

import json
import math
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluralis_lab as pl
from benchmarks.engine_run import end_in_order, hivemind_peer, in_process_of_its_own, temporary_home
from benchmarks.result import Result
from benchmarks.shaped import ShapedNetwork, shaped_network, why_not

REPLICAS, ROUNDS, SKIP, REPEATS = 4, 100, 15, 5
RATE = "100mbit"
PEER_ROUNDS, PEER_LIMIT_S, PEER_TRIES = 20, 150.0, 2

RULES: dict[str, pl.FullSync | pl.DiLoCo | pl.SliceSync] = {
    "FullSync": pl.FullSync(),
    "FullSync, butterfly": pl.FullSync(transport="butterfly"),
    "DiLoCo(20)": pl.DiLoCo(inner_steps=20),
    "SliceSync(0.05, every 20)": pl.SliceSync(fraction=0.05, every=20),
}
LEAST = {"FullSync": 5.0, "FullSync, butterfly": 5.0, "DiLoCo(20)": 20.0, "SliceSync(0.05, every 20)": 20.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "waits, matchmaking 1.5 s": {"use_local_updates": False, "matchmaking_time": 1.5},
    "waits, matchmaking 0.5 s": {"use_local_updates": False, "matchmaking_time": 0.5},
    "delayed averaging and step": {
        "use_local_updates": False,
        "matchmaking_time": 1.5,
        "delay_grad_averaging": True,
        "delay_optimizer_step": True,
        "offload_optimizer": True,
    },
    "local updates, delayed state averaging": {
        "use_local_updates": True,
        "matchmaking_time": 1.5,
        "delay_state_averaging": True,
    },
}


def spec_of(sync: pl.FullSync | pl.DiLoCo | pl.SliceSync, rounds: int, replicas: int = REPLICAS) -> pl.RunSpec:
    """Return the run of four replicas of one stage; with `replicas` 1 what one of them computes."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=2, n_head=4, d_model=64, context=64),
        boundary=pl.Dense(),
        replicas=replicas,
        sync=sync,
        optimizer=pl.AdamW(lr=1e-3),
        steps=rounds,
        batch_size=8,
        micro_batches=2,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=rounds,
        epoch_rounds=rounds,
    )


@dataclass(frozen=True)
class Cost:
    """What a round costs beyond its arithmetic.

    stall_s : seconds a round above those of the bare loops around it, of which one took `bare_s`
    sent_bytes : what a worker sends in a round; of hivemind's peers it is not known
    num_steps, num_met : how many steps a peer of hivemind made in a round, and how often it averaged with all the others
    """

    stall_s: float
    bare_s: float
    sent_bytes: float = 0.0
    num_steps: float = 1.0
    num_met: int = 0


Costs = dict[str, list[Cost]]
"""By rule or setting, one for each time that it was measured."""


class BareLoops:
    """Four bare loops at once, again after all that is measured: what the machine does meanwhile changes within a minute."""

    def __init__(self, file: Path, rounds: int) -> None:
        self._file, self._rounds, self._last = file, rounds, 0.0
        self.measure()

    def measure(self) -> None:
        """Measure the loops just before what is measured next."""
        self._last = bare_s(self._file, self._rounds)

    def cost(self, seconds: float, *, num_steps: float = 1.0, **facts: Any) -> Cost:
        """Return what a round of so many seconds and steps, measured just now, costs beyond the loops before and after it."""
        before = self._last
        self.measure()
        bare = (before + self._last) / 2
        return Cost(seconds - num_steps * bare, bare, num_steps=num_steps, **facts)


def run(*, quick: bool) -> list[Result]:
    """Measure our rules and hivemind's settings in turns, with the bare loops between them."""
    rounds, peer_rounds, repeats = (30, 6, 1) if quick else (ROUNDS, PEER_ROUNDS, REPEATS)
    with temporary_home() as home:
        file = home / "spec.json"
        file.write_bytes(spec_of(pl.FullSync(), rounds, replicas=1).to_json())
        bare = BareLoops(file, rounds)
        costs = measured(bare, file, rounds, peer_rounds, None, repeats=repeats)
        results = compared("stall", *costs, rounds, peer_rounds, has_target=not quick)
        if (why := why_not()) is not None:
            print(f"  no links of {RATE}: {why}", file=sys.stderr)
            return results
        with shaped_network(REPLICAS) as network:
            network.shape(RATE)
            costs = measured(bare, file, rounds, peer_rounds, network, repeats=1)
        return results + compared(f"stall at {RATE}/s", *costs, rounds, peer_rounds, has_target=False)


def measured(
    bare: BareLoops, file: Path, rounds: int, peer_rounds: int, network: ShapedNetwork | None, *, repeats: int
) -> tuple[Costs, Costs]:
    """Return what our rules and hivemind's settings cost; nothing for a time when a setting's peers did not train together."""
    ours: Costs = {name: [] for name in RULES}
    theirs: Costs = {name: [] for name in SETTINGS}
    for repeat in range(repeats):
        print(f"  {repeat + 1}/{repeats}", file=sys.stderr, flush=True)
        for name in SETTINGS if repeat == 0 else quickest(theirs):
            tries = (hivemind_s(file, peer_rounds, SETTINGS[name], name, network) for _ in range(PEER_TRIES))
            if (trained := next(filter(None, tries), None)) is not None:
                theirs[name].append(bare.cost(**trained))
            else:
                bare.measure()
        for name, rule in RULES.items():
            seconds, sent_bytes = round_s(spec_of(rule, rounds), network)
            ours[name].append(bare.cost(seconds, sent_bytes=sent_bytes))
    return ours, theirs


def quickest(theirs: Costs) -> list[str]:
    """Return the two settings that cost least when all were tried."""
    sound = [name for name, costs in theirs.items() if costs]
    return sorted(sound, key=lambda name: theirs[name][0].stall_s)[:2]


def compared(what: str, ours: Costs, theirs: Costs, rounds: int, peer_rounds: int, *, has_target: bool) -> list[Result]:
    """Return what our rules and hivemind's settings add to a round: medians."""
    repeats = max(map(len, ours.values()))
    steady = {name: costs for name, costs in theirs.items() if 2 * len(costs) > repeats}
    best = min(steady, key=lambda name: stall_ms(steady[name]), default="")
    peer = stall_ms(steady[best]) if best else None
    beside = f", {spread(steady[best])}{_met(steady[best], peer_rounds)}" if best else ""
    alone = "" if best else f"; no target: with none of its settings did hivemind's peers all make {peer_rounds} rounds together"
    results = [
        Result(
            name=f"sync_cost.{what} ({name})",
            unit="ms",
            target=peer / LEAST[name] if has_target and peer is not None else None,
            measured=stall_ms(costs),
            peer=peer,
            peer_name=f"hivemind.Optimizer, {best}{beside}" if best else "",
            repeats=len(costs),
            is_missed=has_target and peer is None,
            note=f"{spread(costs)}a round's time over that of four bare loops ({_bare_ms(costs):.0f} ms); {rounds} rounds, "
            f"nobody lost, {costs[0].sent_bytes / 1e3:.0f} kB sent a worker and round{alone}",
        )
        for name, costs in ours.items()
    ]
    for name, of_setting in theirs.items():
        if not of_setting:
            print(f"  hivemind, {name}: its peers did not make {peer_rounds} rounds together", file=sys.stderr)
            continue
        note = f"{spread(of_setting)}{peer_rounds} rounds, {_met(of_setting, peer_rounds)}"
        figure = f"sync_cost.hivemind_{what} ({name})"
        results.append(Result(figure, "ms", None, stall_ms(of_setting), len(of_setting), note=note))
    return results


def stall_ms(costs: list[Cost]) -> float:
    """Return the median of what a round cost beyond its arithmetic."""
    return 1000 * statistics.median(cost.stall_s for cost in costs)


def spread(costs: list[Cost]) -> str:
    """Return in words between which costs that median lies, if there are several."""
    stalls = [1000 * cost.stall_s for cost in costs]
    return f"{min(stalls):.0f} to {max(stalls):.0f} ms, " if len(stalls) > 1 else ""


def _bare_ms(costs: list[Cost]) -> float:
    return 1000 * statistics.median(cost.bare_s for cost in costs)


def _met(costs: list[Cost], rounds: int) -> str:
    steps, least = statistics.median(cost.num_steps for cost in costs), min(cost.num_met for cost in costs)
    return f"{steps:.1f} steps a round, all averaged {'at least ' * (len(costs) > 1)}{least} times in {rounds} rounds"


def bare_s(file: Path, rounds: int) -> float:
    """Return the seconds a round of four bare loops at once."""
    with ThreadPoolExecutor(REPLICAS) as pool:
        outs = list(pool.map(lambda _: json.loads(in_process_of_its_own("bare_loop", file, 1, rounds, SKIP)), range(REPLICAS)))
    for out in outs:
        check_learned(out["losses"])
    seconds: float = sum(out["seconds"] for out in outs) / len(outs) / (rounds - SKIP)
    print(f"  bare: {1000 * seconds:.1f} ms a round", file=sys.stderr, flush=True)
    return seconds


def round_s(spec: pl.RunSpec, network: ShapedNetwork | None) -> tuple[float, float]:
    """Return the seconds a round with real workers, in `network`'s namespaces, and the bytes that a worker sends in one.

    Bytes are those of the rounds before the last: with that one all weights are exchanged, by every rule, as the run ends.
    """
    started = pl.launch(spec, lifetime="kernel", namespaces=network.addresses if network is not None else None)
    try:
        started.wait(round=spec.steps)
        rounds = sorted(started.events("round"), key=lambda event: event.round or 0)
        work = [event for event in started.events("worker.round") if (event.round or 0) < spec.steps - 1]
        deaths = [event for event in started.events("worker.state") if event.body["state"] == "dead"]
    finally:
        started.stop()
    assert not deaths, f"{deaths[0].worker} was lost"
    check_learned([event.body["loss"] for event in rounds])
    seconds = (rounds[-1].time - rounds[SKIP - 1].time) / (len(rounds) - SKIP)
    print(f"  {spec.sync!r}: {1000 * seconds:.1f} ms a round", file=sys.stderr, flush=True)
    return seconds, sum(event.body["bytes_out"] for event in work) / len(work)


def hivemind_s(
    file: Path, rounds: int, settings: dict[str, Any], name: str, network: ShapedNetwork | None
) -> dict[str, Any] | None:
    """Return what `BareLoops.cost` wants to know of four peers, in `network`'s namespaces.

    None when not all of them made their rounds in time, and together.
    """
    places = [("", "127.0.0.1")] * REPLICAS if network is None else list(network.addresses.items())

    def start(place: tuple[str, str], *entry: str) -> subprocess.Popen[str]:
        within = ("ip", "netns", "exec", place[0]) if place[0] else ()
        arguments = (file, REPLICAS, rounds, json.dumps(settings), place[1], *entry)
        return hivemind_peer("hivemind_rounds", *arguments, within=within)

    peers = [start(places[0])]

    def give_up() -> None:
        for peer in peers:
            peer.kill()

    timer = threading.Timer(PEER_LIMIT_S, give_up)
    timer.start()
    try:
        address = _line(peers[0])
        peers += [start(place, address) for place in places[1:]]
        for peer in peers[1:]:
            _line(peer)
        for peer in peers:
            assert peer.stdin is not None
            peer.stdin.write("go\n")
            peer.stdin.flush()
        outs = [json.loads(_line(peer) or "null") for peer in peers]
    finally:
        timer.cancel()
        end_in_order(peers)
    if None in outs:
        print(f"  hivemind, {name}: not all peers made {rounds} rounds in {PEER_LIMIT_S:.0f} s", file=sys.stderr, flush=True)
        return None
    for out in outs:
        check_learned(out["losses"], is_short=True)
    if not all(trained_together(out, rounds) for out in outs):
        met = ", ".join(str(num_met(out)) for out in outs)
        print(f"  hivemind, {name}: its peers averaged with all others {met} times", file=sys.stderr, flush=True)
        return None
    norms = [out["norm"] for out in outs]
    assert settings["use_local_updates"] or max(norms) - min(norms) < 1e-3 * max(norms), f"peers hold different weights: {norms}"
    seconds, steps = (sum(out[figure] for out in outs) / len(outs) for figure in ("seconds", "steps_a_round"))
    print(f"  hivemind, {name}: {1000 * seconds:.1f} ms a round of {steps:.1f} steps", file=sys.stderr, flush=True)
    return {"seconds": seconds, "num_steps": steps, "num_met": min(num_met(out) for out in outs)}


def num_met(out: dict[str, Any]) -> int:
    """Return how often a peer of hivemind averaged with all the others."""
    return sum(size == REPLICAS for size in out["met"])


def trained_together(out: dict[str, Any], rounds: int) -> bool:
    """Return whether a peer of hivemind averaged with all the others at least as often as the rarest of our rules does.

    One that finds nobody never does, and fills each round by itself. Often some of the four meet without the rest: that is no
    reason to leave a setting out, but what it costs is then not what four would.
    """
    rarest = max(rule.every if isinstance(rule, pl.SliceSync) else 1 for rule in RULES.values())
    return num_met(out) * rarest >= rounds


def _line(peer: subprocess.Popen[str]) -> str:
    assert peer.stdout is not None
    return peer.stdout.readline().strip()


def check_learned(losses: list[float], *, is_short: bool = False) -> None:
    """Raise AssertionError unless training began untrained and went down."""
    assert abs(losses[0] - math.log(256)) < 1, (
        f"the first loss is {losses[0]}, which is not that of an untrained model over bytes"
    )
    assert losses[-1] < losses[0] - (0.1 if is_short else 0.5), f"from {losses[0]} to {losses[-1]}: it did not learn"
