"""Which devices this machine has, and on which of them a run's workers are put."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pluralis_lab.errors import RunError
from pluralis_lab.gpus import Gpus
from pluralis_lab.spec import RunSpec, worker_name

if TYPE_CHECKING:
    import pandas as pd


def devices() -> "pd.DataFrame":
    """Return what a worker on this machine can be put on: a row a device (`cpu`, `cuda:0`, ...) with its name and memory in GiB.

    As NVIDIA's driver lists them; torch can use a GPU only in a build for CUDA (`pluralis-lab doctor` compares).
    """
    import pandas as pd
    import psutil

    rows = [{"device": "cpu", "name": "processor", "memory_gib": psutil.virtual_memory().total / 2**30}]
    rows += [
        {"device": gpu["device"], "name": gpu["name"], "memory_gib": gpu["memory_bytes"] / 2**30} for gpu in Gpus().devices()
    ]
    return pd.DataFrame(rows).set_index("device").round(1)


def check_device(device: object) -> str:
    """Return `device` with its number: "cpu", "cuda:0". Raises RunError for what is no device of this machine."""
    if device == "cpu":
        return "cpu"
    number = re.fullmatch(r"cuda(?::(\d{1,3}))?", device) if isinstance(device, str) else None
    if number is None:
        raise RunError(f"device={device!r}; use 'cpu', or 'cuda:0' for this machine's first GPU")
    import torch

    if int(number[1] or 0) >= torch.cuda.device_count():
        raise RunError(f"device={device!r}: torch finds {torch.cuda.device_count()} CUDA devices on this machine; use 'cpu'")
    return f"cuda:{int(number[1] or 0)}"


def kind_of(device: str) -> str:
    """Return "cpu" or "cuda"."""
    return device.partition(":")[0]


def place(spec: RunSpec, devices: str | Sequence[str] | None) -> dict[str, str]:
    """Return the device of each of the run's workers by name.

    devices : one for all, or several that are dealt out in turn, worker-0 first; None: the CPU

    Raises RunError for what is no device of this machine, where replicas that must agree to the bit could not, and where blocks
    are to be compiled for a device that this machine cannot compile for.
    """
    if isinstance(devices, Sequence) and not devices:
        raise RunError("devices=[] leaves the workers nowhere to run; name one, e.g. devices=['cuda:0'], or leave it out")
    given = ["cpu"] if devices is None else [devices] if isinstance(devices, str) else devices
    if not isinstance(given, Sequence):
        raise RunError(f"devices={devices!r}; give 'cuda:0', or a list that is dealt out to the workers: ['cuda:0', 'cuda:1']")
    checked = [check_device(device) for device in given]
    placed = {worker_name(number): checked[number % len(checked)] for number in range(spec.num_workers)}
    for stage in range(spec.stages):
        names = [name for number, name in enumerate(placed) if spec.stage_of(number) == stage]
        for name in names[1:]:
            check_kinds(spec, stage, [placed[names[0]]], placed[name])
    if spec.compile:
        from pluralis_lab.models.arithmetic import missing_compiler

        for device in checked:
            if missing := missing_compiler(kind_of(device)):
                raise RunError(f"compile=True on {device}: {missing}")
    return placed


def check_kinds(spec: RunSpec, stage: int, present: Sequence[str], device: str) -> None:
    """Raise RunError where a worker on `device` would end up with other last bits than `stage`'s replicas on `present`.

    With `FullSync` each replica makes the step itself. With rules that train locally what they have in common is computed on the
    processor, wherever the rest is.
    """
    others = [other for other in present if kind_of(other) != kind_of(device)]
    if others and spec.sync_every is None:
        raise RunError(
            f"stage {stage} would have replicas on {others[0]} and on {device}, whose steps differ in the last bits, and with "
            "FullSync replicas agree to the bit; put a stage's replicas on devices of one kind, or use sync=pl.DiLoCo()"
        )
