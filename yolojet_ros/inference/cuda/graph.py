"""
CUDA graphs through libcuda: record a stream's work once, launch it with one call.

PyCUDA offers no graphs, so the driver's functions are called directly; they are the same from
CUDA 10.2 on, but for the instantiation.
"""

from __future__ import annotations

import ctypes
from typing import Callable

from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda.driver import driver, error_name, function

# Forbid unsafe calls of this thread only while recording, not those of a stranger's thread.
_THREAD_LOCAL = 1


class Graph:
    """
    Work recorded from a stream.

    :param stream: handle of the stream
    :param work: enqueues onto that stream; no allocation and no synchronization
    :raises BackendError: if the work cannot be recorded.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._driver = driver()
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _check('record a CUDA graph', self._driver.cuStreamBeginCapture_v2(
            self._stream, _THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            self._driver.cuGraphDestroy(graph)
            raise
        _check('record a CUDA graph', self._driver.cuStreamEndCapture(
            self._stream, ctypes.byref(graph)))
        try:
            _check('instantiate a CUDA graph', self._instantiate(graph))
        finally:
            self._driver.cuGraphDestroy(graph)
        self._launch = self._driver.cuGraphLaunch

    def launch(self) -> None:
        """Enqueue the recorded work on the stream it was recorded from."""
        status = self._launch(self._executable, self._stream)
        if status:
            _check('launch a CUDA graph', status)

    def close(self) -> None:
        """Free it; safe to call twice."""
        if self._executable:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    def _instantiate(self, graph: ctypes.c_void_p) -> int:
        target = ctypes.byref(self._executable)
        if hasattr(self._driver, 'cuGraphInstantiateWithFlags'):  # CUDA 11.4
            return self._driver.cuGraphInstantiateWithFlags(target, graph, ctypes.c_ulonglong(0))
        instantiate = function('cuGraphInstantiate_v2', 'cuGraphInstantiate')
        return instantiate(target, graph, None, None, ctypes.c_size_t(0))


def _check(what: str, status: int) -> None:
    if status:
        raise BackendError(f'could not {what}: {error_name(status)} ({status})')
