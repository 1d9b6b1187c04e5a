"""Whether a detector can go on, or only a new process mends it."""

from __future__ import annotations

import time
from typing import Callable, Optional

from yolojet_ros.nodes.diagnostics import Reporter
from yolojet_ros.nodes.frame_worker import FrameWorker
from yolojet_ros.pipeline.detector import Detector

_PATIENCE = 5.0  # s that an image may take at least
_USUAL = 10.0  # times what one usually takes
_FIRST = 60.0  # s until the first result of a model: TensorRT and cuDNN get ready with it


class DetectorHealth:
    """
    Judge by what came of the images that the worker took.

    Where no image comes, or the node is not active, nothing is wrong with the detector.

    :param worker: asked for the worker that the node has now
    """

    def __init__(
        self, node: Reporter, worker: Callable[[], Optional[FrameWorker]],
    ) -> None:
        self._node, self._worker = node, worker
        self._detector: Optional[Detector] = None
        self._processed = 0  # before this detector
        self._finished = 0
        self._since = time.monotonic()  # the last that was finished, or that nothing was in work

    def fault(self) -> str:
        """Return why a new process is needed, or ''; ask it again and again."""
        worker, node = self._worker(), self._node
        if worker is None:
            return ''
        if worker.failed or worker.ended:
            return f'the network has failed ({node.failure or "its thread has ended"})'
        counts = [camera.statistics for camera in node.cameras]
        taken = sum(each.taken for each in counts)
        finished, now = sum(each.finished for each in counts), time.monotonic()
        processed = sum(each.processed for each in counts)
        if node.detector is not self._detector:
            self._detector, self._processed = node.detector, processed
        if finished != self._finished or taken <= finished:
            self._finished, self._since = finished, now
        usual = max((each.usual('pipeline') for each in counts), default=0.0) * 1e-3
        patience = max(_PATIENCE, _USUAL * usual)
        if processed == self._processed:
            patience = max(patience, _FIRST)
        seconds = max(worker.busy_for, now - self._since)
        return '' if seconds <= patience else (
            f'an image has been in work for {seconds:.0f} s, usual are {usual:.3f} s')
