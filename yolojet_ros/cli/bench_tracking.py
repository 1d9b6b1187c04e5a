"""`bench`: what tracking and the camera's motion add to the boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import time
from typing import Callable, Dict, List, Optional, Tuple, TYPE_CHECKING

if TYPE_CHECKING:
    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.inference.backend import Backend

_FILM_FRAMES = 30
_WARM_UP = 40  # frames, until a camera that stands still is known to
BARE, BOXES = 'bare network', 'image to boxes'
STILL, MOVING = 'image to tracked boxes, still', 'image to tracked boxes, moving'


@dataclass
class Timing:
    """
    One way through the pipeline, in milliseconds.

    times: of each image, from its bytes to its boxes
    stages: of each image, by name
    detections: of each image, their number
    """

    times: List[float] = field(default_factory=list)
    stages: Dict[str, List[float]] = field(default_factory=dict)
    detections: List[int] = field(default_factory=list)


def measure(
    backend: Backend, frames: int, size: Tuple[int, int],
    bare: Optional[Callable[[], object]] = None,
) -> Dict[str, Timing]:
    """
    Return the times of images to boxes, and to tracked boxes with the default parameters.

    The three go in turns, each through images that no cache holds.

    :param size: (width, height) of the images
    :param bare: measured beside them, in the same turns
    """
    from yolojet_ros.pipeline.detector import Detector
    from yolojet_ros.pipeline.stream import Stream
    from yolojet_ros.tracking import create_tracker
    from yolojet_ros.tracking.camera_motion import CameraMotion

    detector, moving, still = Detector(backend), film(size, True), film(size, False)
    ways = {BOXES: (Stream(backend.card), moving, _FILM_FRAMES // 2)}
    for name, views in ((STILL, still), (MOVING, moving)):
        stream = Stream(backend.card, tracker=create_tracker(), camera_motion=CameraMotion())
        ways[name] = (stream, views, 0)
    found = {name: Timing() for name in ([BARE] if bare else []) + list(ways)}
    for index in range(-_WARM_UP, frames):
        if bare is not None:
            start = time.perf_counter()
            bare()
            if index >= 0:
                found[BARE].times.append((time.perf_counter() - start) * 1e3)
        for name, (stream, views, ahead) in ways.items():
            view = replace(views[(index + ahead) % len(views)])  # nothing is kept of the last time
            start = time.perf_counter()
            frame = detector.process(stream, view, index / 30)
            taken = (time.perf_counter() - start) * 1e3
            if index >= 0:
                timing = found[name]
                timing.times.append(taken)
                timing.detections.append(len(frame.detections))
                for stage, lap in frame.times.laps.items():
                    timing.stages.setdefault(stage, []).append(lap)
    return found


def film(size: Tuple[int, int], moving: bool) -> List[ImageView]:
    """Return images of the scene, forth and back, so that they can be repeated."""
    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.sim.scene import Scene
    scene = Scene(*size, seed=1, camera_motion=moving)
    views = [ImageView.from_bgr(scene.read().image.copy()) for _ in range(_FILM_FRAMES)]
    return views + views[-2:0:-1]
