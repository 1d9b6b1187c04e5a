"""What belongs to one camera: the user's thresholds for it, its tracks, motion and looks."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
import os
from typing import Any, Optional

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams, Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.tracking import Tracker
from yolojet_ros.tracking.appearance import describe
from yolojet_ros.tracking.camera_motion import CameraMotion

# Boxes that surely hold an object: the background's motion is not looked for in there.
_SURE_SCORE = 0.3
_CORES = os.cpu_count() or 1


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
class Shot:
    """
    One image of one camera on its way; made by `Stream.shot`.

    used: what the network's detections must reach; published: what those that are seen must
    times: start when the image is submitted
    looking: becomes `warp`, where another thread looks for the motion
    """

    stream: Stream
    view: ImageView
    stamp: float
    context: Any
    warp: Optional[np.ndarray]
    used: Selection
    published: Selection
    times: StageTimes = field(default_factory=StageTimes)
    looking: Optional[Future] = None


class Stream:
    """
    One camera: detections -> tracks -> filter.

    :param card: of the model that sees its images
    :param filters: the user's thresholds
    :param tracker: gives ids; None to publish detections without; a classifier uses none
    :param camera_motion: estimates how the camera moved where `shot` is not told;
        None takes the camera for still
    :param appearance: let the tracker know lost objects again by their look

    All but the card may be assigned between frames.
    """

    def __init__(
        self, card: ModelCard, filters: FilterParams = FilterParams(),
        tracker: Optional[Tracker] = None, camera_motion: Optional[CameraMotion] = None,
        appearance: bool = False,
    ) -> None:
        self.card = card
        self.tracker = tracker
        self.camera_motion = camera_motion
        self.appearance = appearance
        self.filters = filters
        self._watched: Optional[Shot] = None  # the last one, until it is finished
        self._helper: Optional[ThreadPoolExecutor] = None

    @property
    def filters(self) -> FilterParams:
        """Return the user's thresholds; a classifier takes no heed of `score_threshold`."""
        return self._filters

    @filters.setter
    def filters(self, filters: FilterParams) -> None:
        """:raises UserError: if a class is not one of the model's; nothing changes then."""
        used = filters
        if self.card.task == 'classify':  # its best classes may all be unlikely
            used = replace(filters, score_threshold=0.0)
        selection = used.resolve(self.card.names)
        self._filters, self._selection = filters, selection
        self._tracking_floor: Optional[float] = None  # of _selection_for_tracking

    def shot(
        self, view: ImageView, stamp: float, context: Any = None,
        warp: Optional[np.ndarray] = None,
    ) -> Shot:
        """
        Return an image ready to be submitted; a stream's go in the order of time.

        :param view: its bytes are read again by `finish`, for the appearance
        :param stamp: seconds, when the image was taken; the tracker's clock
        :param context: comes back with the result
        :param warp: float64[2, 3], affine from the previous image to this one
        :raises ImageError: if the image cannot be used, so that it spoils no batch.
        """
        view.check()
        used = self._for_tracker(self.tracker) if self._tracks else self._selection
        return Shot(self, view, stamp, context, warp, used, self._selection)

    def adopt(self, card: ModelCard) -> None:
        """
        Go on with another model, between two images; tracks stay while the classes do.

        :raises UserError: if the user's filters name a class that it lacks; nothing changes then.
        """
        before, self.card = self.card, card
        try:
            self.filters = self.filters
        except UserError:
            self.card = before
            raise
        if card.names != before.names and self.tracker:
            self.tracker.reset()

    def renew(self, shot: Shot) -> None:
        """Ready an image that no model finished for the one that was adopted since."""
        fresh = self.shot(shot.view, shot.stamp)
        shot.used, shot.published = fresh.used, fresh.published

    def start(self, shot: Shot) -> None:
        """
        Begin to look for the camera's motion, in a thread of its own; `watch` waits for it.

        Called before the image is copied and computed: even a network on all cores leaves gaps.
        """
        if self._wants_motion(shot) and not self.camera_motion.resting and _CORES > 1:
            if self._helper is None:
                self._helper = ThreadPoolExecutor(1, 'camera_motion')
            shot.looking = self._helper.submit(self.camera_motion.look, shot.view)

    def watch(self, shot: Shot) -> None:
        """Do what needs no boxes; called once for each shot, while the network runs."""
        if not self._tracks:
            return
        shot.times.lap('wait')  # for the other images of the run
        if shot.looking is not None:
            shot.warp = shot.looking.result()
        elif self._wants_motion(shot):
            shot.warp = self.camera_motion.look(shot.view)
        shot.times.lap('motion')
        if self._watched is None:  # the tracker knows all images before this one
            self.tracker.expect(shot.stamp, shot.warp)
            shot.times.lap('track')
        self._watched = shot

    def finish(self, shot: Shot, detections: Detections) -> Frame:
        """Return the result of an image, in the order of the shots."""
        times = shot.times
        if shot is self._watched:
            self._watched = None
        if self._tracks:
            times.lap('wait')
            looks = None
            if self.appearance:
                looks = describe(shot.view.bgr(), detections.boxes)
                times.lap('look')
            ids = self.tracker.update(
                detections.boxes, detections.scores, detections.classes, shot.stamp,
                warp=shot.warp, embeddings=looks)
            classes = self.tracker.published_classes(ids, detections.classes)
            if self.camera_motion:
                self.camera_motion.mask(detections.boxes[detections.scores >= _SURE_SCORE])
            detections = replace(detections, ids=ids, classes=classes)
            times.lap('track')
        return Frame(shot.context, shot.published.publishable(detections), times)

    def reset(self) -> None:
        """Forget the tracks and the camera's last image; ids go on counting."""
        if self.tracker:
            self.tracker.reset()
        if self.camera_motion and self._helper:  # it may be looking yet
            self._helper.submit(self.camera_motion.reset).result()
        elif self.camera_motion:
            self.camera_motion.reset()

    def _wants_motion(self, shot: Shot) -> bool:
        return self._tracks and self.camera_motion is not None and shot.warp is None

    @property
    def _tracks(self) -> bool:
        return self.tracker is not None and self.card.task != 'classify'

    def _for_tracker(self, tracker: Tracker) -> Selection:
        """Return the selection that lets through what the tracker looks at."""
        # Kept, because a backend on a GPU uploads a selection that it does not know.
        if self._tracking_floor != tracker.params.low_score:
            self._tracking_floor = tracker.params.low_score
            self._selection_for_tracking = self._selection.for_tracking(self._tracking_floor)
        return self._selection_for_tracking
