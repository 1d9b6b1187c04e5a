"""The signals that ask a command to end, as one: what was begun is undone, then it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Dict

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_SECONDS = 1.0


class Interrupts:
    """
    While entered, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt.

    What comes within a second of the first, as from a terminal and a parent both, is the same
    wish and does not interrupt what the first one began. A signal that the process was started to ignore (by nohup, or as a job in the
    background) stays ignored. Processes forked meanwhile take signals as before.

    number: the signal that came last, or 0
    """

    def __init__(self) -> None:
        self.number = 0
        self._raised = -_SAME_SECONDS
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._take)
            os.register_at_fork(after_in_child=self._restore)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.number:  # the end itself is not to be interrupted
            self._before = dict.fromkeys(self._before, signal.SIG_IGN)
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _take(self, number: int, frame: Any) -> None:
        if time.monotonic() - self._raised >= _SAME_SECONDS:
            self.number, self._raised = number, time.monotonic()
            raise KeyboardInterrupt
