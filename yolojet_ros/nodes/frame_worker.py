"""One thread that owns the network and always works on the newest image."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
import threading
from typing import Any, Callable, Deque, Iterable, Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame

_ASK_SECONDS = 0.1  # between two questions whether to go on waiting
_ABANDON_SECONDS = 1.0  # that a load which nobody waits for may still take


class FrameWorker:
    """
    Run a detector in a thread of its own.

    A CUDA context belongs to one thread, so loading, running and closing all
    happen in this one. At most one offered item waits; a newer one replaces it.

    :param load: makes the detector; called in the thread
    :param submit: called with (detector, item); starts a frame, or drops the item
    :param publish: called with each finished frame
    :param fail: called once if anything raises in the thread after loading; the thread
        then waits for `stop`
    """

    def __init__(
        self,
        load: Callable[[], Detector],
        submit: Callable[[Detector, Any], None],
        publish: Callable[[Frame], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._submit, self._publish, self._fail = submit, publish, fail
        self._wake = threading.Condition()
        self._newest: Optional[Any] = None
        self._calls: Deque[Callable[[Detector], None]] = deque()
        self._stopping = False
        self._failed = False
        self._busy = False  # an item is in work, or a frame in flight
        self._loaded: Future = Future()
        self._thread = threading.Thread(
            target=self._main, args=(load,), name='frame_worker', daemon=True)
        self._thread.start()

    def wait_loaded(self, wanted: Callable[[], bool] = lambda: True) -> Detector:
        """
        Return the detector once it is loaded; raise what loading raised.

        :param wanted: asked meanwhile whether the process is to go on
        :raises UserError: if it is not.
        """
        while not wait([self._loaded], _ASK_SECONDS).done:
            if not wanted():
                raise UserError('the process was told to end while the model was loading')
        return self._loaded.result()

    def offer(self, item: Any) -> Optional[Any]:
        """Hand over the newest item; return the one that it replaces, if any."""
        with self._wake:
            replaced, self._newest = self._newest, item
            self._wake.notify_all()
            return replaced

    def call(self, function: Callable[[Detector], None]) -> None:
        """Have `function(detector)` called in the thread before the next frame."""
        with self._wake:
            self._calls.append(function)
            self._wake.notify_all()

    def drop_waiting(self) -> Optional[Any]:
        """Take back the item that waits, if any."""
        with self._wake:
            waiting, self._newest = self._newest, None
            return waiting

    @property
    def failed(self) -> bool:
        """Return whether the thread has given up; it then only waits for `stop`."""
        return self._failed

    def drain(self, seconds: float) -> bool:
        """Wait until no frame is in work; return False if `seconds` did not suffice."""
        with self._wake:
            return self._wake.wait_for(
                lambda: self._failed or not (self._busy or self._newest is not None), seconds)

    def stop(self) -> None:
        """
        Close the detector's backend and end the thread.

        A load that does not end is left to the end of the process: nothing can stop it.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if wait([self._loaded], _ABANDON_SECONDS).done:
            self._thread.join()
        else:  # it must not keep alive what it will never call, such as a node
            del self._submit, self._publish, self._fail

    def _main(self, load: Callable[[], Detector]) -> None:
        try:
            detector = load()
        except Exception as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(detector)
        try:
            self._serve(detector)
        finally:
            detector.backend.close()

    def _serve(self, detector: Detector) -> None:
        while True:
            with self._wake:
                self._busy = bool(detector.in_flight)
                self._wake.notify_all()
                # With a frame in flight there is work to do even without a new image.
                self._wake.wait_for(lambda: (
                    self._stopping or self._calls or self._newest is not None
                    or (detector.in_flight and not self._failed)))
                if self._stopping:
                    return
                calls, self._calls = self._calls, deque()
                item, self._newest = self._newest, None
                self._busy = self._busy or item is not None
            if not self._failed:
                self._step(detector, calls, item)

    def _step(
        self, detector: Detector, calls: Iterable[Callable[[Detector], None]],
        item: Optional[Any],
    ) -> None:
        try:
            for function in calls:
                function(detector)
            if item is not None:
                self._submit(detector, item)
            if detector.in_flight and (
                    item is None or detector.in_flight >= detector.backend.depth):
                for frame in detector.collect():
                    self._publish(frame)
        except Exception as error:  # whatever it is, the node must live and say it
            self._failed = True
            self._fail(error)
