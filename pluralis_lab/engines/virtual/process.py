"""The process of a simulated run: ``python -m pluralis_lab.engines.virtual.process``; `engines.handover` gives it its run."""

import logging
import os
import select
import signal
import sys
import threading
from collections import Counter
from functools import partial
from typing import Any

from pluralis_lab.churn import Absence, Churn
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines import control
from pluralis_lab.engines.handover import take_run
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.resuming import MAX_TIMES_BACK, resume_version
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.engines.virtual.swarm import Start, VirtualSwarm
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.links import Links
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder, versions_kept

log = logging.getLogger(__name__)


class Simulation:
    """Runs a `VirtualSwarm` and writes what it reports into the run directory."""

    def __init__(self, run: RunDirectory, *, version: int, granted: dict[str, str]) -> None:
        self.run, self.version, self.spec, self.info = run, version, run.spec, run.info
        self.stopping = threading.Event()
        self.now = 0.0
        home = run.path.parent.parent
        signer = signer_for(self.info["chain"], seed=self.spec.seed, home=home, granted=granted)
        self._new_recorder = partial(Recorder, run, sign_epoch=signer.sign, clock=lambda: self.now)
        self.recorder = self._new_recorder()
        self._times_back: Counter[int] = Counter()
        self.corpus = open_corpus(self.spec.data, context=self.spec.context, home=home, expected_hash=self.info["corpus"]["hash"])
        names, keep = [worker["name"] for worker in self.info["workers"]], versions_kept(self.spec)
        self.folders = {name: CheckpointFolder(run.worker_folder(name), keep=keep) for name in names}

    def main(self) -> int:
        """Simulate to the end and return the exit status."""
        control.write_control(self.run, {"socket": None, "token": "", "sockets": {}})
        state, reason = "stopped", ""
        try:
            self.recorder.forget_after(self.version)
            self.recorder.run_state("running", pid=os.getpid())
            swarm = VirtualSwarm(
                self.spec,
                self.corpus,
                run_id=self.run.id,
                links=Links(**self.info["links"]),
                keys={name: HotKey.load(folder.path / "hot.key") for name, folder in self.folders.items()},
                on_report=self._on_report,
                on_store=self._on_store,
                speeds=self.info.get("speeds"),
                churn=None if self.version else Churn([Absence(**absence) for absence in self.info.get("churn", [])]),
                start=self._start(self.version),
                on_lost=lambda: self._go_back(swarm.now, swarm.empty_stages()[0]),
            )
            swarm.run(should_stop=self.stopping.is_set)
            if not self.stopping.is_set() and (empty := swarm.empty_stages()):
                raise RunError(
                    f"stage {empty[0]} has no live replica left after {swarm.now:.3g} virtual seconds; "
                    "run.resume() goes on from the last checkpoint, with everybody back"
                )
            reason = "stopped by its owner" if self.stopping.is_set() else "the simulation is complete"
        except PluralisError as error:
            state, reason = "failed", str(error)
            self.recorder.error(reason)
        except Exception as error:
            log.exception("the simulation failed")
            state, reason = "failed", f"{type(error).__name__}: {error}"
            self.recorder.error(reason, log_tail=self.run.log_tail("supervisor"))
        finally:
            self.recorder.run_state(state, reason, pid=None)
            self.recorder.close()
            control.remove_control(self.run)
        return 1 if state == "failed" else 0

    def _go_back(self, now: float, stage: int) -> Start:
        """Return what all go on from, because a stage's weights were lost: the newest checkpoint that every stage has."""
        self.now, lost = now, f"stage {stage} had no live replica left"
        self.recorder.run_state("paused", f"{lost}; all go back to the last checkpoint")
        self.recorder.close()
        version = resume_version(self.run)
        self._times_back[version] += 1
        self.recorder = self._new_recorder()
        if self._times_back[version] > MAX_TIMES_BACK:
            raise RunError(f"{lost}, {self._times_back[version]} times after round {version} without a checkpoint between them")
        self.run.update_info(started_from=version)
        self.recorder.forget_after(version)
        for state in ("starting", "running"):
            self.recorder.run_state(state, f"{lost}; all go on from round {version}", pid=os.getpid())
        return self._start(version)

    def _start(self, version: int) -> Start:
        """Return each worker's checkpoint of `version`; who has none takes its stage's. Later ones are forgotten."""
        for folder in self.folders.values():
            folder.forget_after(version)
        if not version:
            return 0, {}
        states: dict[str, tuple[bytes, str]] = {}
        by_stage: dict[int, tuple[bytes, str]] = {}
        for worker in self.info["workers"]:
            folder = self.folders[worker["name"]]
            if folder.is_intact(version):
                states[worker["name"]] = by_stage[worker["stage"]] = folder.load(version)
        for worker in self.info["workers"]:
            states.setdefault(worker["name"], by_stage[worker["stage"]])
        return version, states

    def _on_report(self, worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        self.now = at
        if kind == "state":
            body = {**body, "device": "virtual", "pid": None}
        self.recorder.report(worker, at, kind, body)
        if kind == "work":
            for epoch in self.recorder.epochs_to_close():
                closed = self.recorder.close_epoch(epoch)
                self.recorder.write_close(closed, at=at)
                if closed["deviants"]:  # here nobody lies, and no memory is bad
                    raise RunError(f"{closed['deviants']} held other weights than their stages' others; report this as a bug")

    def _on_store(self, worker: str, version: int, state: bytes, digest: str) -> None:
        size = self.folders[worker].save(version, state, digest)
        self.recorder.report(worker, self.now, "checkpoint", {"round": version, "digest": digest, "size_bytes": size})


def _watch_stdin(stopping: threading.Event) -> None:
    """Stop when whoever started the simulation is gone."""
    while not stopping.is_set():
        readable, _, _ = select.select([sys.stdin], [], [], None)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            stopping.set()


def main() -> int:
    """Start from the command line."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import torch

    torch.set_num_threads(1)  # with more, the order of a sum depends on the machine, and losses would not repeat to the bit
    handed = take_run()
    if handed is None:
        return 0
    run = handed.run
    simulation = Simulation(run, version=handed.version, granted=handed.granted)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: simulation.stopping.set())
    if run.info["lifetime"] == "kernel":
        threading.Thread(target=_watch_stdin, args=(simulation.stopping,), daemon=True).start()
    return simulation.main()


if __name__ == "__main__":
    sys.exit(main())
