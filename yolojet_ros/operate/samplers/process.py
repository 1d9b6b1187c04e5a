"""The load of the machine and of one process, by psutil."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from yolojet_ros.operate.samplers.sample import Sample


class ProcessReader:
    """
    CPU and memory of everybody and of one process.

    Loads are those since the last look, so that the first look knows none.

    :param pid: of the process; None for this one
    """

    name = 'psutil'

    def __init__(self, pid: Optional[int] = None) -> None:
        self.why = ''
        self._psutil: Any = None
        self._process: Any = None
        self._times: Optional[Tuple[float, float]] = None  # of all cores: in all, idle
        try:
            import psutil
        except ImportError:
            self.why = 'psutil is not installed'
            return
        self._psutil = psutil
        self._first = True
        self.watch(pid)

    def watch(self, pid: Optional[int]) -> None:
        """Look at another process from now on."""
        if self._psutil:
            try:
                self._process = self._psutil.Process(pid)
                self._process.cpu_percent()  # from here on
            except self._psutil.Error:
                self._process = None

    def read(self) -> Sample:
        """Return what there is; nothing of a process that has ended."""
        psutil = self._psutil
        if psutil is None:
            return Sample()
        memory, load = psutil.virtual_memory(), self._load()
        own, rss = None, None
        if self._process:
            try:
                with self._process.oneshot():
                    own, rss = self._process.cpu_percent(), self._process.memory_info().rss
            except psutil.Error:
                self._process = None
        first, self._first = self._first, False
        return Sample(
            cpu_percent=load, process_cpu_percent=None if first else own,
            rss_bytes=rss, memory_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total, swap_bytes=psutil.swap_memory().used)

    def _load(self) -> Optional[float]:
        """Return percent of all cores since the last look, in whatever thread that was."""
        times = self._psutil.cpu_times()
        # Guests are in `user` and `nice` already.
        total = sum(times) - getattr(times, 'guest', 0) - getattr(times, 'guest_nice', 0)
        now = total, times.idle + getattr(times, 'iowait', 0)
        before, self._times = self._times, now
        if before is None or now[0] <= before[0]:
            return None
        return 100 * (1 - (now[1] - before[1]) / (now[0] - before[0]))

    def close(self) -> None:
        """Look no more."""
        self._psutil = None
