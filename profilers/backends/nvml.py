"""Clocks, throttling and foreign processes, through NVIDIA's management library."""

import os
from typing import Any

from profilers.backends.cuda_rules import GpuState


class Nvml:
    """One GPU; every question has a harmless answer where the library (``nvidia-ml-py``) or a permission is missing.

    Args:
        uuid: The GPU's UUID as torch reports it, without the ``GPU-`` prefix.
    """

    def __init__(self, uuid: str) -> None:
        self._nvml: Any = None
        self._device: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            self._nvml = pynvml
        except Exception:  # without NVML there is only less to know; the library has no common error but Exception
            self._nvml = None

    def _ask(self, function: str, *arguments: Any) -> Any:
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, function)(self._device, *arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None

    def state(self) -> GpuState:
        """Return clock, throttling reasons and foreign processes now."""
        clock = self._ask("nvmlDeviceGetClockInfo", getattr(self._nvml, "NVML_CLOCK_SM", 1))
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return GpuState(sm_clock_mhz=clock, reasons=int(reasons or 0), foreign=self.foreign_processes())

    def foreign_processes(self) -> int:
        """Return how many compute processes other than this one use the GPU, as far as they can be seen."""
        running = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        return sum(process.pid != os.getpid() for process in running)

    def facts(self) -> dict[str, Any]:
        """Return driver, power limit, persistence mode and temperature."""
        driver = None
        if self._nvml is not None:
            driver = self._nvml.nvmlSystemGetDriverVersion()
        return {
            "driver": driver.decode() if isinstance(driver, bytes) else driver,
            "power_limit_mw": self._ask("nvmlDeviceGetEnforcedPowerLimit"),
            "persistence": self._ask("nvmlDeviceGetPersistenceMode"),
            "temperature": self._ask("nvmlDeviceGetTemperature", 0),
        }

    def close(self) -> None:
        """Release the library."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None
