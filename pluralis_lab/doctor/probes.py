"""The heavy half of the doctor: `python -m pluralis_lab.doctor.probes NAME` prints one line of JSON.

Every import of torch and hivemind is inside a function: this module is also read without them.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def probe_torch() -> dict[str, Any]:
    """Import torch and differentiate something."""
    import numpy
    import torch

    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad((x * x).sum(), x)
    if gradient.tolist() != [2.0, 2.0, 2.0]:
        raise ArithmeticError(f"torch {torch.__version__} computed the gradient {gradient} of x² at 1, expected 2")
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "numpy": numpy.__version__}


def probe_hivemind() -> dict[str, Any]:
    """Find hivemind's daemon, and start and stop it once."""
    import hivemind

    path = os.path.join(os.path.dirname(hivemind.__file__), "hivemind_cli", "p2pd")
    found: dict[str, Any] = {"version": hivemind.__version__, "p2pd": path, "executable": os.access(path, os.X_OK)}
    if found["executable"]:
        found["start_s"] = asyncio.run(_start_daemon())
    return found


def probe_averaging() -> dict[str, Any]:
    """Average known vectors over two peers with each compression; return the largest error against the true mean."""
    from pluralis_lab.doctor.averaging import averaging_errors

    return {"errors": asyncio.run(averaging_errors())}


def probe_gpus() -> dict[str, Any]:
    """Return the devices that torch can use and those that the NVIDIA driver has."""
    import pynvml
    import torch

    usable = []
    for index in range(torch.cuda.device_count()):
        memory_gib = torch.cuda.get_device_properties(index).total_memory / 2**30
        usable.append(f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory_gib:.0f} GiB")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: no NVIDIA device
        return {"torch": usable, "driver": [], "build": torch.__version__}
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    pynvml.nvmlShutdown()
    return {"torch": usable, "driver": names, "build": torch.__version__}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": probe_torch,
    "hivemind": probe_hivemind,
    "averaging": probe_averaging,
    "gpus": probe_gpus,
}


async def _start_daemon() -> float:
    from hivemind.p2p import P2P

    started = time.perf_counter()
    p2p = await P2P.create(host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False, use_auto_relay=False)
    seconds = time.perf_counter() - started
    await p2p.shutdown()
    return seconds


def main() -> int:
    """Run the probe named on the command line; a failure is one line and status 1."""
    try:
        found = PROBES[sys.argv[1]]()
    except Exception as error:  # whatever a broken library raises is the finding
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
