"""What systemd hears of a node: ready, a sentence, the watchdog's food, the end."""

from __future__ import annotations

import time
from typing import Callable, Optional

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from yolojet_ros.operate.service_manager import ServiceManager

_TELL_SECONDS = 5.0  # between two sentences, where no watchdog waits
_LOAD_SECONDS = 600.0  # that a model may load; whoever takes longer hangs
_EXTENSION = 30.0  # s to start in, from each word while a model loads


class Service:
    """
    Tell the service manager how a node is, from a timer in the executor's thread.

    So an executor that hangs lets the watchdog starve. Where nobody listens nothing is done.

    :param fault: asked in the same thread for why a new process is needed, '' if it is not
    :param sentence: asked for how the node is
    """

    def __init__(
        self, node: Node, fault: Callable[[], str], sentence: Callable[[], str],
    ) -> None:
        self._node, self._fault, self._sentence = node, fault, sentence
        self._manager = ServiceManager()
        watchdog = self._manager.watchdog
        # sd_watchdog_enabled(3) recommends the half.
        self._period = watchdog / 2 if watchdog else _TELL_SECONDS
        self._ready = False
        self._told = -self._period
        self._loading: Optional[float] = None  # since when
        self._starving = ''
        if self._manager.problem:
            node.get_logger().warning(self._manager.problem)

    @property
    def watchdog(self) -> float:
        """Return the seconds that the service manager grants between two words, 0 for ever."""
        return self._manager.watchdog or 0.0

    def ready(self) -> None:
        """Say that the node is up, and go on telling how it is while it spins."""
        if not self._manager.listens:
            return
        self._ready, self._loading = True, None
        self._manager.ready()
        self._tell()
        self._node.create_timer(
            self._period, self._tell, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def keep_up(self) -> None:
        """Say that a model is loading; called again and again by the executor's thread."""
        now = time.monotonic()
        if now - self._told < self._period:
            return
        if self._loading is None:
            self._loading = now
        self._told = now
        self._manager.status('loading the model')
        if now - self._loading > _LOAD_SECONDS:
            return
        if self._ready:
            self._manager.feed()
        else:
            self._manager.extend(max(_EXTENSION, 3 * self._period))

    def stopping(self) -> None:
        """Say that the node ends."""
        self._manager.stopping()

    def _tell(self) -> None:
        self._told, self._loading = time.monotonic(), None
        fault = self._fault()
        self._manager.status(fault or self._sentence())
        if not fault:
            self._manager.feed()
        elif not self._starving and self.watchdog:
            self._node.get_logger().error(
                f'{fault}: the watchdog of the service manager is not fed any more')
        self._starving = fault
