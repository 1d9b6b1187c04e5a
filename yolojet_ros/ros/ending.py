"""How a process of nodes ends: at the first SIGINT or SIGTERM, in order, whatever follows it."""

from __future__ import annotations

from contextlib import suppress
import gc
import os
import signal
import sys
import threading
from typing import Any

from rclpy.context import Context
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.signals import uninstall_signal_handlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """
    Take the signals of a process from now to its end.

    The first one shuts the context down, which ends whatever waits for ROS. Nothing is
    raised: an exception could come in the middle of a library in C or of a destructor,
    which swallow it, and a second one would cut the clean-up short. Threads in C++ that
    this has not ended abort the process ("terminate called ...").

    :param context: of the process, before or after its `init`

    logger: name of the node's, once there is one
    told: whether a signal has come, also one before `init`
    """

    def __init__(self, context: Context) -> None:
        self.told = False
        self.logger = ''
        self._context = context
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def _take(self, number: int, frame: Any) -> None:
        # rclpy's own thread does the same, but may wake the executor before it has.
        if not self.told and self._context.handle:
            with suppress(Exception):  # it is shut down already
                self._context.handle.shutdown()
            if self.logger:  # rclpy calls it an error that it cannot go on without a context
                set_logger_level(self.logger, LoggingSeverity.FATAL)
        self.told = True

    def release(self) -> None:
        """Take back rclpy's handlers; call it once after `init`, before what they touch goes."""
        self.told = True  # there is nothing left to shut down by a signal
        uninstall_signal_handlers()

    def finish(self) -> None:
        """Heed no more signals; the interpreter would let them kill it while it ends."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> int:
    """
    Return the exit code of a process, or end it here if another thread still runs.

    At a regular end C++ libraries abort where such a thread uses them. Call it where
    nothing refers to nodes any more.
    """
    if threading.active_count() > 1:
        gc.collect()  # nodes, which are circles; the last one takes its shared memory along
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
