"""One frame through all the steps, from image to tracked detections, with the time of each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Deque, Optional

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import FilterParams, Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.backend import Backend
from yolojet_ros.tracking import Tracker
from yolojet_ros.tracking.appearance import describe
from yolojet_ros.tracking.camera_motion import CameraMotion

# Boxes that surely hold an object: the background's motion is not looked for in there.
_SURE_SCORE = 0.3


@dataclass(frozen=True)
class Frame:
    """
    A processed image.

    context: what the caller submitted with it (the message header, say)
    detections: those that reach the user's thresholds; with ids when tracking
    times: milliseconds of each step
    """

    context: Any
    detections: Detections
    times: StageTimes


@dataclass
class _Pending:
    view: ImageView
    context: Any
    stamp: float
    warp: Optional[np.ndarray]
    selection: Selection
    times: StageTimes


class Pipeline:
    """
    Image -> letterbox -> network -> decode and NMS -> tracks -> filter.

    :param backend: a loaded backend; the caller closes it
    :param filters: the user's thresholds
    :param tracker: gives ids; None to publish detections without; a classifier uses none
    :param camera_motion: estimates how the camera moved where `submit` is not told;
        None takes the camera for still
    :param appearance: let the tracker know lost objects again by their look

    All but the backend may be assigned between frames.
    """

    def __init__(
        self, backend: Backend, filters: FilterParams = FilterParams(),
        tracker: Optional[Tracker] = None, camera_motion: Optional[CameraMotion] = None,
        appearance: bool = False,
    ) -> None:
        self.backend = backend
        self.tracker = tracker
        self.camera_motion = camera_motion
        self.appearance = appearance
        self._pending: Deque[_Pending] = deque()
        self.filters = filters

    @property
    def filters(self) -> FilterParams:
        """Return the user's thresholds; a classifier takes no heed of `score_threshold`."""
        return self._filters

    @filters.setter
    def filters(self, filters: FilterParams) -> None:
        """:raises UserError: if a class is not one of the model's; nothing changes then."""
        used = filters
        if self.backend.card.task == 'classify':  # its best classes may all be unlikely
            used = replace(filters, score_threshold=0.0)
        selection = used.resolve(self.backend.card.names)
        self._filters, self._selection = filters, selection
        self._tracking_floor: Optional[float] = None  # of _selection_for_tracking

    @property
    def in_flight(self) -> int:
        """Return how many submitted frames have not been collected."""
        return len(self._pending)

    def submit(
        self, view: ImageView, stamp: float, context: Any = None,
        warp: Optional[np.ndarray] = None,
    ) -> None:
        """
        Start one frame.

        :param view: the image; its bytes are read again by `collect` for camera
            motion and appearance
        :param stamp: seconds, when the image was taken; the tracker's clock
        :param context: comes back with the result
        :param warp: float64[2, 3], affine from the previous image to this one
        :raises ImageError: if the image cannot be used; nothing was submitted then.
        """
        selection, times = self._selection, StageTimes()
        used = self._for_tracker(self.tracker) if self._tracks else selection
        self.backend.submit(view, used, times)
        self._pending.append(_Pending(view, context, stamp, warp, selection, times))

    def collect(self) -> Frame:
        """Finish the oldest submitted frame."""
        pending = self._pending.popleft()
        detections = self.backend.collect()
        times = pending.times
        if detections.broken:
            self.backend.warn(
                f'{self.backend.card.source} gave rows that no detection can be (a score above 1, '
                'an infinite or NaN value, an unknown class); they are dropped and counted as '
                'broken_rows: export it in FP32, or build its engine again')
        if self._tracks:
            times.lap('wait')
            warp, looks = self._look(pending, detections)
            times.lap('look')
            ids = self.tracker.update(
                detections.boxes, detections.scores, detections.classes, pending.stamp,
                warp=warp, embeddings=looks)
            classes = self.tracker.published_classes(ids, detections.classes)
            detections = replace(detections, ids=ids, classes=classes)
            times.lap('track')
        return Frame(pending.context, pending.selection.publishable(detections), times)

    def process(
        self, view: ImageView, stamp: float, context: Any = None,
        warp: Optional[np.ndarray] = None,
    ) -> Frame:
        """Run one frame from image to result; arguments as for `submit`."""
        self.submit(view, stamp, context, warp)
        return self.collect()

    def reset(self) -> None:
        """Forget the tracks and the camera's last image; ids go on counting."""
        if self.tracker:
            self.tracker.reset()
        if self.camera_motion:
            self.camera_motion.reset()

    @property
    def _tracks(self) -> bool:
        return self.tracker is not None and self.backend.card.task != 'classify'

    def _for_tracker(self, tracker: Tracker) -> Selection:
        """Return the selection that lets through what the tracker looks at."""
        # Kept, because a backend on a GPU uploads a selection that it does not know.
        if self._tracking_floor != tracker.params.low_score:
            self._tracking_floor = tracker.params.low_score
            self._selection_for_tracking = self._selection.for_tracking(self._tracking_floor)
        return self._selection_for_tracking

    def _look(self, pending: _Pending, detections: Detections):
        """Return what the image itself tells the tracker: (warp, descriptors), None if not."""
        warp = pending.warp
        estimate = warp is None and self.camera_motion is not None
        if not (estimate or self.appearance):
            return warp, None
        image = pending.view.bgr()
        if estimate:
            sure = detections.boxes[detections.scores >= _SURE_SCORE]
            warp = self.camera_motion.estimate(image, sure)
        return warp, describe(image, detections.boxes) if self.appearance else None
