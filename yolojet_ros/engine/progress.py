"""Tell every few seconds how far a build is."""

from __future__ import annotations

from contextlib import contextmanager
import signal
import threading
import time
from typing import Callable, Dict, Iterator, Optional

INTERVAL_S = 5.0


class Progress:
    """
    Reports phase and elapsed time from a thread of its own until closed.

    :param report: called with one line of text, from that thread too
    :param interval: seconds between two reports
    """

    def __init__(self, report: Callable[[str], None], interval: float = INTERVAL_S) -> None:
        self._report = report
        self._interval = interval
        self._phase = 'starting'
        self._detail = ''
        self._start = time.monotonic()
        self._done = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._run, name='build-progress', daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start

    def phase(self, name: str) -> None:
        """Begin a phase, and tell it at once."""
        self._phase, self._detail = name, ''
        self._tell()

    def detail(self, text: str) -> None:
        """Refine the phase for the next report."""
        self._detail = text

    def _run(self) -> None:
        while not self._done.wait(self._interval):
            self._tell()

    def _tell(self) -> None:
        detail = f' ({self._detail})' if self._detail else ''
        self._report(f'{self.elapsed:5.0f} s  {self._phase}{detail}')


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let Ctrl-C end the process at once while a library does not come back to Python.

    Nothing is written while TensorRT builds, so nothing is left behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def make_monitor(trt, progress: Progress):
    """Return a trt.IProgressMonitor that feeds `progress`, None where there is none."""
    if not hasattr(trt, 'IProgressMonitor'):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: Dict[str, int] = {}

        def phase_start(self, phase_name, parent_phase, num_steps) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name, step) -> bool:
            progress.detail(f'{phase_name}: {step + 1} of {self._steps.get(phase_name, "?")}')
            return True

        def phase_finish(self, phase_name) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
