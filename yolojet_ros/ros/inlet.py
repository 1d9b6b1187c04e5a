"""
Let one thread wait for images and take them when it is free for one.

An executor unpacks every message as soon as it comes, also one that nobody will look at; a wait
set of our own leaves it in the middleware, where a newer one takes its place.
"""

from __future__ import annotations

from contextlib import ExitStack
import threading
from typing import Any, Dict, Optional, Sequence

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.subscription import Subscription


class OwnHands(ReentrantCallbackGroup):
    """
    A callback group that the executor leaves alone: images are taken, events asked for.

    Also events, because Fast DDS wakes who waits for an event of a subscription again and again
    while an image waits there.
    """

    def can_execute(self, entity: Any) -> bool:
        """Return that the executor may not wait for `entity`."""
        return False


def deliver_events(subscription: Subscription, context: Context) -> None:
    """Call the callbacks of the events that a subscription has had since the last time."""
    events = []
    for handler in subscription.event_handlers:
        try:
            with context.handle:
                wait_set = _rclpy.WaitSet(0, 0, 0, 0, 0, 1, context.handle)
                wait_set.clear_entities()
                handler.add_to_wait_set(wait_set)
                wait_set.wait(0)
                events.append((handler, handler.is_ready(wait_set) and handler.take_data()))
        except _rclpy.InvalidHandle:  # destroyed, by the callback of another's event
            return
    for handler, event in events:
        if event:
            handler.callback(event)


class Inlet:
    """
    A place to wait at for images and for a word from other threads.

    One thread calls `wait`; all others, and any thread, `wake`.

    :ivar sizes: bytes of an image of each topic that images have come from; what comes at once
        must fit one socket
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._woken = threading.Event()
        self._guard = GuardCondition(None, None, context)
        self._wait_set: Any = None
        self._size = -1
        self.waiting = False
        self.sizes: Dict[str, int] = {}

    def wake(self) -> None:
        """End the present call of `wait`, or the next one."""
        self._woken.set()
        self._guard.trigger()

    def wait(self, subscriptions: Sequence[Subscription], seconds: Optional[float] = None) -> None:
        """Return once one of them has a message, `wake` was called, or the time is over."""
        try:
            self._wait(subscriptions, seconds)
        except Exception:
            if self._context.ok():
                raise
            self._woken.wait(seconds)  # no message comes any more, but perhaps a word
        self._woken.clear()

    def _wait(self, subscriptions: Sequence[Subscription], seconds: Optional[float]) -> None:
        with ExitStack() as held:  # what is destroyed meanwhile lives until we are through
            handles = []
            for subscription in subscriptions:
                try:
                    held.enter_context(subscription.handle)
                except _rclpy.InvalidHandle:
                    continue
                handles.append(subscription.handle)
            held.enter_context(self._guard.handle)
            held.enter_context(self._context.handle)
            if len(handles) != self._size:
                self._wait_set = _rclpy.WaitSet(
                    len(handles), 1, 0, 0, 0, 0, self._context.handle)
                self._size = len(handles)
            self._wait_set.clear_entities()
            for handle in handles:
                self._wait_set.add_subscription(handle)
            self._wait_set.add_guard_condition(self._guard.handle)
            self.waiting = True
            try:
                self._wait_set.wait(-1 if seconds is None else int(seconds * 1e9))
            finally:
                self.waiting = False

    def close(self) -> None:
        """Free everything; no thread waits any more."""
        self._wait_set = None
        self._guard.destroy()
