"""One NVIDIA GPU, by NVML: of PCs and servers, in part of Jetson Thor."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, Optional, Tuple

from yolojet_ros.operate.samplers.sample import Sample

# nvml.h, nvmlClocksEventReasons: what lowers clocks, without idling and what the user has set.
_REASONS = (
    (0x04, 'the GPU is at its power limit'),
    (0x08, 'the GPU slows down by hardware (heat or power)'),
    (0x20, 'the GPU slows down, because it or its memory is too hot'),
    (0x40, 'the GPU slows down by hardware, because it is too hot'),
    (0x80, 'the power supply makes the GPU slow down'))
_LIBRARY = 'libnvidia-ml.so.1'
_HARDWARE, _ITS_CAUSES = 0x08, 0x40 | 0x80


def reasons(bits: int) -> Tuple[str, ...]:
    """Return why a GPU's clocks are lowered, of NVML's bits."""
    if bits & _ITS_CAUSES:  # of which hardware slowdown is the summary
        bits &= ~_HARDWARE
    return tuple(text for bit, text in _REASONS if bits & bit)


class NvmlReader:
    """
    A GPU as CUDA counts it where the order is that of the bus, or named in CUDA_VISIBLE_DEVICES.

    Without a driver, nvidia-ml-py (pynvml) or such a GPU it reads nothing, and `why` says so. It
    is opened by the first look, which may take long where no other program uses the driver.
    """

    name = 'NVML'

    def __init__(self, device: int = 0) -> None:
        self.why, self.model = '', ''
        self._device, self._nvml = device, None
        self._opened = False

    def _open(self) -> None:
        self._opened = True
        try:
            ctypes.CDLL(_LIBRARY)  # without it the binding is not worth its memory
        except OSError:
            self.why = f'there is no {_LIBRARY}, so no NVIDIA driver'
            return
        try:
            import pynvml
        except ImportError:
            self.why = 'nvidia-ml-py is not installed'
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.why = str(error)
            return
        self._nvml = pynvml
        try:
            self._handle = _handle(pynvml, self._device)
            name = pynvml.nvmlDeviceGetName(self._handle)
            self.model = name.decode() if isinstance(name, bytes) else name  # of old releases
        except pynvml.NVMLError as error:
            self.why = str(error)
            self.close()

    def read(self) -> Sample:
        """Return what the GPU tells; each value alone may be one that it does not."""
        if not self._opened:
            self._open()
        nvml = self._nvml
        if nvml is None:
            return Sample()
        ask = self._ask
        milliwatts = ask(nvml.nvmlDeviceGetPowerUsage)
        use, memory = ask(nvml.nvmlDeviceGetUtilizationRates), ask(nvml.nvmlDeviceGetMemoryInfo)
        bits = ask(getattr(nvml, 'nvmlDeviceGetCurrentClocksThrottleReasons', None))
        heat = ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
        clock = ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_GRAPHICS)
        return Sample(
            temperature_c=None if heat is None else float(heat),
            gpu_temperature_c=None if heat is None else float(heat),
            power_w=None if milliwatts is None else milliwatts * 1e-3,
            power_of=None if milliwatts is None else 'GPU',
            gpu_percent=None if use is None else float(use.gpu),
            gpu_memory_bytes=None if memory is None else int(memory.used),
            gpu_memory_total_bytes=None if memory is None else int(memory.total),
            gpu_clock_mhz=None if clock is None else float(clock),
            throttling=None if bits is None else reasons(bits))

    def _ask(self, function: Optional[Callable], *arguments: Any) -> Any:
        try:
            return function(self._handle, *arguments) if function else None
        except self._nvml.NVMLError:  # not supported here, or not by this driver
            return None

    def close(self) -> None:
        """Let NVML go."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


def _handle(nvml: Any, device: int) -> Any:
    visible = [word.strip() for word in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')]
    chosen = visible[device] if device < len(visible) else ''
    if chosen.startswith('GPU-'):
        return nvml.nvmlDeviceGetHandleByUUID(chosen.encode())
    return nvml.nvmlDeviceGetHandleByIndex(int(chosen) if chosen.isdecimal() else device)
