"""What every worker is forked from: one thread, everything loaded, and CUDA never started."""

import os
import platform
import subprocess
import sys

import psutil
import pytest
import torch

from pluralis_lab.engines.swarm.forkclient import GLIBC_MEMORY, ForkServer
from pluralis_lab.engines.swarm.forkserver import refuse_after_cuda
from pluralis_lab.errors import RunError

LOADING = """
import threading
import torch
touched = []
for name in ("_cuda_init", "_cuda_getDeviceCount"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, lambda *_: touched.append(1))
torch.cuda._lazy_init = lambda: touched.append(1)
from pluralis_lab.engines.swarm import forkserver
forkserver.preload(for_one=False)
forkserver.refuse_after_cuda()
assert not touched, "CUDA was asked for something"
assert not torch.cuda.is_initialized()
assert threading.active_count() == 1, threading.enumerate()
torch.cuda._lazy_init()
assert touched
print("ready")
"""


def test_the_fork_server_loads_everything_without_a_thread_and_never_starts_cuda() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "ready\n", done.stderr[-2000:]


LOADING_FOR_ONE = """
import sys
from pluralis_lab.engines.swarm import forkserver
forkserver.preload(for_one=True)
late = {"scipy.optimize._optimize", "sympy", "torch.fx.experimental.symbolic_shapes"}
assert not late & sys.modules.keys(), late & sys.modules.keys()
import hivemind.averaging.load_balancing as uses_it
assert uses_it.scipy.optimize.linprog([1.0], bounds=(2, 3)).fun == 2
from scipy.optimize._numdiff import approx_derivative
from pluralis_lab.engines.swarm.compute_thread import load_backward
load_backward()
assert late <= sys.modules.keys()
print("ready")
"""


def test_for_one_worker_what_it_does_not_need_to_start_is_left_for_later() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING_FOR_ONE], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "ready\n", done.stderr[-2000:]


def test_nothing_is_forked_after_cuda_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RunError, match="CUDA has been started in the fork server"):
        refuse_after_cuda()


COMING_AND_GOING = """
import resource
import threading
import numpy

def train():
    for round_ in range(60):
        if round_ == 10:  # what is kept is there by now
            before.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        arrays = [numpy.ones(mib << 17) for mib in (1, 2, 3, 5)]
        del arrays

before = []
thread = threading.Thread(target=train)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_a_worker_keeps_the_memory_of_arrays_that_come_and_go() -> None:
    """One of them alone is 256 pages, and there are 200 of them after the first rounds."""
    command = [sys.executable, "-c", COMING_AND_GOING]
    kept, given_back = (
        int(subprocess.run(command, env={**settings, **os.environ}, capture_output=True, check=True).stdout)
        for settings in (GLIBC_MEMORY, {})
    )
    assert kept < 1000
    assert given_back > 10_000, "the settings make no difference any more"


def test_the_fork_server_is_started_with_them_unless_the_user_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    server = ForkServer.launch()
    try:
        settings = psutil.Process(server.process.pid).environ()
    finally:
        server.process.kill()
        server.process.wait()
        server.control.close()
        server.early.close()
    assert {key: settings[key] for key in GLIBC_MEMORY} == GLIBC_MEMORY | {"MALLOC_ARENA_MAX": "3"}
