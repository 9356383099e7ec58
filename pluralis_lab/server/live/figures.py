"""What the worker processes of this machine use right now: processor, memory, GPU. Sampled once a run, not once a viewer."""

import os
import time
from typing import Any

import psutil

from pluralis_lab.engines.control import is_alive, read_control
from pluralis_lab.gpus import Gpus
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.picture_parts import COMING_STATES, LIVE_STATES

SAMPLE_S = 2.0

Figures = dict[str, dict[str, Any]]


class ProcessFigures:
    """Samples the workers of one run, at most every `SAMPLE_S` seconds; for one thread at a time."""

    def __init__(self, directory: RunDirectory, gpus: Gpus) -> None:
        self._directory, self._gpus = directory, gpus
        self._processes: dict[int, psutil.Process] = {}
        self._figures: Figures = {}
        self._sampled_at = -SAMPLE_S

    def of(self, picture: RunPicture) -> Figures:
        """Return by worker name: cpu_percent, memory_bytes and, with a GPU, gpu_percent and gpu_memory_bytes."""
        now = time.monotonic()
        if now - self._sampled_at >= SAMPLE_S:
            self._sampled_at = now
            self._figures = self._sample(picture)
        return self._figures

    def _sample(self, picture: RunPicture) -> Figures:
        ours = self._pids_of_run()
        self._processes = {pid: process for pid, process in self._processes.items() if pid in ours}
        figures: Figures = {}
        gpu = self._gpus.sample() if ours else {}
        for worker in picture.workers.values():
            # A number from an event alone proves nothing: it must be a process below this run's supervisor.
            is_up = worker.pid in ours and worker.state in LIVE_STATES | COMING_STATES
            if is_up and worker.pid is not None and (found := self._one(worker.pid)) is not None:
                figures[worker.name] = found | gpu.get(worker.pid, {})
        return figures

    def _pids_of_run(self) -> set[int]:
        try:
            control = read_control(self._directory)
            if control is None or not is_alive(control):
                return set()
            return {child.pid for child in psutil.Process(control["pid"]).children(recursive=True)}
        except (psutil.Error, OSError, ValueError, KeyError, TypeError):
            return set()  # it ended meanwhile, or its control file is damaged: then there is nothing to sample

    def _one(self, pid: int) -> dict[str, Any] | None:
        try:
            process = self._processes.get(pid)
            if process is None:
                process = self._processes[pid] = psutil.Process(pid)
                process.cpu_percent()  # the first call only sets the mark that later ones measure from
                cpu = None
            else:
                cpu = process.cpu_percent()
            if process.uids().real != os.getuid():
                return None
            return {"cpu_percent": cpu, "memory_bytes": process.memory_info().rss}
        except psutil.Error:
            self._processes.pop(pid, None)
            return None
