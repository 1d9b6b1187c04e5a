"""All readers of a machine as one, within a budget where they run beside other work."""

from __future__ import annotations

import platform
import time
from typing import List, Optional, Protocol, Sequence

from yolojet_ros.operate.samplers.sample import merged, Sample

_LONGEST = 60.0  # s between two looks of a reader, however much it costs


class Reader(Protocol):
    """What tells a part of a sample."""

    name: str

    def read(self) -> Sample:
        """Return what it tells now; never raises."""

    def close(self) -> None:
        """Give back what it holds."""


class Machine:
    """
    Ask several readers, the one first whose word counts more.

    :param share: of a core that they may cost in all; each is asked as rarely as its part of it
        demands, and what it told last counts until then. 0 asks all of them every time.
    """

    def __init__(self, readers: Sequence[Reader], share: float = 0.0) -> None:
        self.readers = list(readers)
        self._share = share / max(len(self.readers), 1)
        self._last: List[Sample] = [Sample()] * len(self.readers)
        self._due = [0.0] * len(self.readers)

    @property
    def name(self) -> str:
        """Return what machine this is, as far as anybody tells."""
        models = [getattr(reader, 'model', '') for reader in self.readers]
        return ', '.join(filter(None, models)) or platform.machine()

    def read(self) -> Sample:
        """Return what is known now."""
        for index, reader in enumerate(self.readers):
            now = time.monotonic()
            if now < self._due[index]:
                continue
            used = time.thread_time()
            self._last[index] = reader.read()
            used = time.thread_time() - used
            if self._share:
                self._due[index] = now + min(used / self._share, _LONGEST)
        return merged(self._last)

    def close(self) -> None:
        """Close all readers."""
        for reader in self.readers:
            reader.close()


def this_machine(
    pid: Optional[int] = None, device: int = 0, tegrastats: bool = False, share: float = 0.0,
) -> Machine:
    """
    Return what there is to read here.

    :param pid: of the process to watch; None for this one
    :param device: index of the GPU
    :param tegrastats: also start NVIDIA's program, where it is installed
    :param share: see Machine
    """
    from yolojet_ros.operate.samplers.nvml import NvmlReader
    from yolojet_ros.operate.samplers.process import ProcessReader
    from yolojet_ros.operate.samplers.sysfs import SysfsReader
    from yolojet_ros.operate.samplers.tegrastats import TegrastatsReader

    readers: List[Reader] = [SysfsReader(), NvmlReader(device), ProcessReader(pid)]
    if tegrastats:
        readers.append(TegrastatsReader())
    return Machine(readers, share)
