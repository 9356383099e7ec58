"""The GPUs and who uses which, through NVIDIA's management library, where there is one."""

import os
from collections.abc import Iterator
from typing import Any


class Gpus:
    """Asked once a sample; on a machine without an NVIDIA driver it answers with nothing, and is not asked again."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._is_absent = False

    def sample(self) -> dict[int, dict[str, Any]]:
        """Return by process: gpu_percent (of the whole device, which is all the driver tells) and gpu_memory_bytes."""
        if not self._connect():
            return {}
        nvml, found = self._nvml, dict[int, dict[str, Any]]()
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                percent = nvml.nvmlDeviceGetUtilizationRates(device).gpu
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(device):
                    found[process.pid] = {"gpu_percent": float(percent), "gpu_memory_bytes": process.usedGpuMemory}
        except nvml.NVMLError:
            return found  # a device that answers in part, such as one cut into MIG slices
        return found

    def devices(self) -> list[dict[str, Any]]:
        """Return the GPUs that a worker started from here would see: device (cuda:0, ...), name, memory_bytes.

        They are counted as under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``; where they are not alike, CUDA's own order can be another.
        """
        if not self._connect():
            return []
        nvml, found = self._nvml, list[dict[str, Any]]()
        try:
            for handle in self._visible():
                name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle).total
                found.append({"device": f"cuda:{len(found)}", "name": str(name), "memory_bytes": int(memory)})
        except nvml.NVMLError:
            return found  # as CUDA does: what comes after a device that is none is not seen
        return found

    def _visible(self) -> Iterator[Any]:
        """Go through the handles of what the environment leaves to CUDA."""
        nvml, left = self._nvml, os.environ.get("CUDA_VISIBLE_DEVICES")
        names = map(str, range(nvml.nvmlDeviceGetCount())) if left is None else filter(None, map(str.strip, left.split(",")))
        for name in names:
            yield nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)

    def _connect(self) -> bool:
        if self._nvml is None and not self._is_absent:
            import pynvml

            try:
                pynvml.nvmlInit()
                self._nvml = pynvml
            except pynvml.NVMLError:
                self._is_absent = True
        return self._nvml is not None
