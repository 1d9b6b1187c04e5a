"""What the synthetic world hands out: a picture and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

CLASS_NAMES = ('crate', 'barrel', 'cone', 'ball', 'robot', 'sign', 'pallet')
# Of every object: the highest point of its axis, its middle on the ground, and the points of
# its foot that are farthest left and right in the picture of an upright camera.
KEYPOINT_NAMES = ('top', 'foot', 'left', 'right')
# A mirror image exchanges left and right.
KEYPOINT_FLIP = (0, 1, 3, 2)


@dataclass(frozen=True)
class SceneFrame:
    """
    One picture with its ground truth.

    Coordinates are continuous pixels: the pixel in column i covers [i, i + 1), so a box that
    holds exactly this pixel has x1 = i and x2 = i + 1.

    :param image: uint8[H, W, 3], BGR.
    :param stamp: seconds since the first frame.
    :param boxes: float32[n, 4], x1 y1 x2 y2 in pixels: the extent of the part of the object's
        silhouette that is inside the image, what other things hide included.
    :param classes: int32[n], indices into CLASS_NAMES.
    :param ids: int64[n], one per object, kept when it leaves and returns.
    :param visibility: float32[n] in 0..1: painted pixels that nothing hides, over the full
        silhouette (hiding by other things and by the border of the image both count).
    :param warp: float64[2, 3], maps a point fixed in the background from its pixel
        coordinates in the previous frame to those in this frame.
    :param instances: uint8[H, W], 1 + index in `boxes` of the object that is seen in a pixel,
        0 where there is none; the border of an object is where it covers half of a pixel.
    :param rotated: float32[n, 5], cx, cy, w, h in pixels and an angle in radians: the extent of
        the whole silhouette along the object's own up and right as the picture shows them; the
        angle turns the x axis towards the y axis (clockwise on the screen), in -pi..pi, and
        is 0 for a ball, which has no direction.
    :param keypoints: float32[n, 4, 3], x, y in pixels of KEYPOINT_NAMES and 2 where the point
        is seen, 1 where something in front hides it, 0 where it is outside the image.
    """

    image: np.ndarray
    stamp: float
    boxes: np.ndarray
    classes: np.ndarray
    ids: np.ndarray
    visibility: np.ndarray
    warp: np.ndarray
    instances: np.ndarray
    rotated: np.ndarray
    keypoints: np.ndarray


def frame_of(image: np.ndarray, stamp: float, boxes: Sequence[np.ndarray],
             classes: Sequence[int], ids: Sequence[int], visibility: np.ndarray,
             warp: np.ndarray, instances: np.ndarray, rotated: Sequence[np.ndarray],
             keypoints: Sequence[np.ndarray]) -> SceneFrame:
    """Return a frame whose arrays have the promised types."""
    return SceneFrame(
        image, stamp, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int32),
        np.array(ids, np.int64), np.asarray(visibility, np.float32), warp,
        instances, np.array(rotated, np.float32).reshape(-1, 5),
        np.array(keypoints, np.float32).reshape(-1, len(KEYPOINT_NAMES), 3))
