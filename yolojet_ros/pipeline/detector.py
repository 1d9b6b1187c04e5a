"""What all cameras share: one model that runs their images in batches."""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, List, Optional, Sequence

import cv2
import numpy as np

from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.backend import Backend, BackendError
from yolojet_ros.pipeline.stream import Frame, Shot, Stream


class Detector:
    """
    Image -> letterbox -> network -> decode and NMS, then each image's own stream.

    From then on OpenCV works in the thread that calls it, in the whole process.

    :param backend: a loaded backend; the caller closes it
    """

    def __init__(self, backend: Backend) -> None:
        # What is asked of it here takes less time than its threads wait by asking: on 16 cores
        # they took 9 of the 13 ms of CPU of a result, and made it later.
        cv2.setNumThreads(1)
        self.backend = backend
        self._runs: Deque[List[Shot]] = deque()
        self._left: List[Shot] = []  # by a run that failed to start

    @property
    def in_flight(self) -> int:
        """Return how many submitted runs have not been collected."""
        return len(self._runs)

    def submit(self, shots: Sequence[Shot]) -> None:
        """
        Start one run.

        :param shots: 1 to `backend.max_batch` images, of one or several streams
        :raises ImageError: if one cannot be used; nothing was submitted then.
        :raises BackendError: if the device failed, or there are too many.
        """
        for shot in shots:
            shot.times = StageTimes()
            if self.backend.blocks:
                shot.stream.start(shot)
        try:
            self.backend.submit(
                [shot.view for shot in shots], [shot.used for shot in shots],
                [shot.times for shot in shots])
        except BackendError:
            self._left.extend(shots)
            raise
        self._runs.append(list(shots))
        # Where this thread is free while the network runs, it looks itself, and others help it
        # with further cameras; beside a single one they would only take the interpreter from it.
        for shot in shots[1:]:
            if not self.backend.blocks and shot.stream is not shots[0].stream:
                shot.stream.start(shot)
        for shot in shots:
            shot.stream.watch(shot)

    def collect(self) -> List[Frame]:
        """Finish the oldest run; return its frames in the order of its shots."""
        found = self.backend.collect()
        shots = self._runs.popleft()
        if any(detections.broken for detections in found):
            self.backend.warn(
                f'{self.backend.card.source} gave rows that no detection can be (a score above 1, '
                'an infinite or NaN value, an unknown class); they are dropped and counted as '
                'broken_rows: export it in FP32, or build its engine again')
        return [shot.stream.finish(shot, detections) for shot, detections in zip(shots, found)]

    def hand_over(self) -> List[Shot]:
        """Return the images that were not collected, for another detector: this one failed."""
        shots = [shot for run in self._runs for shot in run] + self._left
        self._runs.clear()
        self._left.clear()
        return shots

    def process(
        self, stream: Stream, view: ImageView, stamp: float, context: Any = None,
        warp: Optional[np.ndarray] = None,
    ) -> Frame:
        """Run one image from its bytes to its result; arguments as for `Stream.shot`."""
        self.submit([stream.shot(view, stamp, context, warp)])
        return self.collect()[0]
