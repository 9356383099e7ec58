"""Who uses which GPU, through NVIDIA's management library, where there is one."""

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

    def _connect(self) -> bool:
        if self._nvml is None and not self._is_absent:
            import pynvml

            try:
                pynvml.nvmlInit()
                self._nvml = pynvml
            except pynvml.NVMLError:
                self._is_absent = True
        return self._nvml is not None
