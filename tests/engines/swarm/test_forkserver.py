"""What every worker is forked from: one thread, everything loaded, and CUDA never started."""

import subprocess
import sys

import pytest
import torch

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
