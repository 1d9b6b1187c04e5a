"""One thread that owns the network, and takes an image when it is free for one."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
import threading
import time
from typing import Any, Callable, Deque, Optional, Protocol

from yolojet_ros.core.errors import UserError
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame

_ASK_SECONDS = 0.1  # between two questions whether to go on waiting
_ABANDON_SECONDS = 1.0  # that a load which nobody waits for may still take


class Source(Protocol):
    """Where images come from; `take` and `wait` are called by the worker's thread."""

    def take(self, most: int) -> Optional[Any]:
        """Return at most so many images to be worked on together, None if there are none."""

    def wait(self, failed: bool) -> None:
        """Return when there may be something, or after `wake`; if `failed`, after `wake` only."""

    def wake(self) -> None:
        """End `wait`; called by other threads."""


class FrameWorker:
    """
    Run a detector in a thread of its own.

    A CUDA context belongs to one thread, so loading, running and closing all
    happen in this one.

    :param load: makes the detector; called in the thread
    :param source: where images come from
    :param submit: called with (detector, what the source gave); starts a run, or drops it
    :param publish: called with each finished frame
    :param rescue: called if anything raises in the thread after loading; returns another
        detector to go on with, None if there is none
    :param fail: called once if there is none; the thread then waits for `stop`
    """

    def __init__(
        self,
        load: Callable[[], Detector],
        source: Source,
        submit: Callable[[Detector, Any], None],
        publish: Callable[[Frame], None],
        rescue: Callable[[Exception], Optional[Detector]],
        fail: Callable[[Exception], None],
    ) -> None:
        self._source = source
        self._submit, self._publish = submit, publish
        self._rescue, self._fail = rescue, fail
        self._detector: Optional[Detector] = None
        self._changed = threading.Condition()
        self._calls: Deque[Callable[[Detector], None]] = deque()
        self._stopping = False
        self._failed = False
        self._busy = False  # an image is looked for or in work, or a run in flight
        self._begun: Optional[float] = None  # the step at hand, on time.monotonic
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

    def call(self, function: Callable[[Detector], None]) -> None:
        """Have `function(detector)` called in the thread before the next frame."""
        self._calls.append(function)
        self._source.wake()

    @property
    def failed(self) -> bool:
        """Return whether the thread has given up; it then only waits for `stop`."""
        return self._failed

    @property
    def ended(self) -> bool:
        """Return whether the thread does not even wait any more, though nobody called `stop`."""
        return not self._thread.is_alive()

    @property
    def busy_for(self) -> float:
        """Return for how many seconds the step at hand has been going on, 0 if there is none."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    def drain(self, seconds: float) -> bool:
        """
        Wait until no image is in work; return False if `seconds` did not suffice.

        What the source gave before this call is finished then.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._failed or not self._busy, seconds)

    def stop(self) -> None:
        """
        Close the detector's backend and end the thread.

        A load that does not end is left to the end of the process: nothing can stop it.
        """
        self._stopping = True
        self._source.wake()
        if wait([self._loaded], _ABANDON_SECONDS).done:
            self._thread.join()
        else:  # it must not keep alive what it will never call, such as a node
            del self._source, self._submit, self._publish, self._rescue, self._fail

    def _main(self, load: Callable[[], Detector]) -> None:
        try:
            self._detector = load()
        except Exception as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(self._detector)
        try:
            self._serve()
        finally:
            self._detector.backend.close()

    def _serve(self) -> None:
        while not self._stopping:
            self._set_busy(True)
            if self._failed or not self._step():
                self._set_busy(False)
                self._source.wait(self._failed)

    def _set_busy(self, busy: bool) -> None:
        with self._changed:
            self._busy = busy
            self._begun = time.monotonic() if busy else None
            self._changed.notify_all()

    def finish(self) -> None:
        """Finish what is in flight; called in the thread."""
        while self._detector.in_flight:
            self._collect()

    def replace(self, detector: Detector) -> None:
        """Go on with another detector; called in the thread, with nothing in flight."""
        self._detector = detector

    def _collect(self) -> None:
        for frame in self._detector.collect():
            self._publish(frame)

    def _step(self) -> bool:
        """Go one step on; return False if there is nothing to do until the source says so."""
        try:
            while self._calls:
                self._calls.popleft()(self._detector)
            detector = self._detector
            item = self._source.take(detector.backend.max_batch)
            if item is not None:
                self._submit(detector, item)
            # With a run in flight there is work to do even without a new image.
            if detector.in_flight and (
                    item is None or detector.in_flight >= detector.backend.depth):
                self._collect()
                return True
            return item is not None
        except Exception as error:  # whatever it is, the node must live and say it
            return self._rescued(error)

    def _rescued(self, error: Exception) -> bool:
        """Have another detector finish what this one did not; return False if there is none."""
        failed = self._detector
        try:
            other = self._rescue(error)
            if other is not None:
                self._detector = other
                for shot in failed.hand_over():
                    shot.stream.renew(shot)
                    self._submit(other, [shot])
                    self.finish()
                return True
        except Exception as another:
            error = another
        self._failed = True
        self._fail(error)
        return False
