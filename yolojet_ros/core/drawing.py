"""Draw what was seen on an image."""

from __future__ import annotations

import colorsys
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.core.detections import best_classes, Detections
from yolojet_ros.core.rotated import corners
from yolojet_ros.core.text import one_line

_GOLDEN_RATIO = 0.618033988749895
NO_TRACK = (160, 160, 160)  # the colour of what no track follows
_SURE_POINT = 0.5  # confidence from which on a keypoint is drawn
_LONGEST_NAME = 40  # characters
# The limbs of a person, between the 17 keypoints of COCO.
_PERSON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6))
_PERSON_POINTS = 17

Color = Tuple[int, int, int]


def color_of(index: int) -> Color:
    """Return a BGR colour for an id; consecutive ids differ clearly (golden-ratio hues)."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN_RATIO) % 1.0, 0.75, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def draw_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str],
    labels: Optional[np.ndarray] = None,
) -> np.ndarray:
    """
    Draw masks, boxes with class name, id and score, and keypoints; in place, return the image.

    A classifier's best classes are written into the corner.

    :param image: uint8 BGR [H, W, 3]
    :param labels: uint16[H, W], `detections.masks.labels()` if that is known already
    """
    thickness = max(round(image.shape[0] / 360), 1)
    tracks = detections.classes if detections.ids is None else detections.ids
    colors = [color_of(int(track)) if track >= 0 else NO_TRACK for track in tracks]
    if detections.masks is not None and len(detections):
        draw_masks(image, detections.masks.labels() if labels is None else labels, colors)
    outlines = _upright_corners(detections.boxes) if detections.rotated is None else corners(
        detections.rotated)
    for outline, color in zip(outlines, colors):
        draw_outline(image, outline, color, thickness)
    labels_ = Labels(image, thickness)
    for index, (outline, score, class_id, color) in enumerate(zip(
            outlines, detections.scores, detections.classes, colors)):
        tracked = detections.ids is not None and detections.ids[index] >= 0
        label = _short(names[class_id]) + (f' #{tracks[index]}' if tracked else '') + f' {score:.2f}'
        labels_.write(label, outline, color)
    if detections.keypoints is not None:
        for points, color in zip(detections.keypoints, colors):
            draw_keypoints(image, points, color, thickness)
    if detections.probabilities is not None:
        _draw_classes(image, detections.probabilities, names, thickness)
    return image


def draw_masks(image: np.ndarray, labels: np.ndarray, colors: Sequence[Color]) -> None:
    """
    Tint the pixels of each detection.

    :param labels: uint16[H, W], 1 + index of the pixel's detection, 0 for none
    :param colors: of the detections; those after the 254th are gray
    """
    palette = np.full((1, 256, 3), NO_TRACK, np.uint8)
    known = np.array(colors[:254], np.uint8).reshape(-1, 3)
    palette[0, 1:1 + len(known)] = known
    codes = np.minimum(labels, 255).astype(np.uint8)
    # A table of bytes is many times as quick as one that NumPy indexes, and leaves Python free.
    tints = cv2.LUT(cv2.cvtColor(codes, cv2.COLOR_GRAY2BGR), palette)
    cv2.copyTo(cv2.addWeighted(image, 0.5, tints, 0.5, 0), codes, image)


def draw_outline(image: np.ndarray, outline: np.ndarray, color: Color, thickness: int) -> None:
    """Draw a polygon [k, 2]."""
    cv2.polylines(image, [np.rint(outline).astype(np.int32)], True, color, thickness, cv2.LINE_AA)


class Labels:
    """Writes labels beside outlines, none over another as long as there is room."""

    def __init__(self, image: np.ndarray, thickness: int) -> None:
        self._image = image
        self._thickness = thickness
        self._taken = np.zeros((0, 4), int)  # left, top, right, bottom of the labels written

    def write(self, label: str, outline: np.ndarray, color: Color) -> None:
        """Write a label above the outline's top left, or where else it covers no other one."""
        (left, top), (right, bottom) = np.rint(
            [outline.min(axis=0), outline.max(axis=0)]).astype(int).tolist()
        width, height = _label_size(label, self._thickness)
        above = top - height if top >= height else top
        places = [_within(self._image, place, (width, height)) for place in (
            (left, above), (left, bottom), (right - width, above), (right - width, bottom),
            (left, top), (left, bottom - height), (right, top), (left - width, top))]
        free = [place for place in places if not self._covers(place, (width, height))]
        place = (free or places)[0]
        _write(self._image, label, place, color, self._thickness)
        self._taken = np.concatenate((self._taken, [
            (*place, place[0] + width, place[1] + height)]))

    def _covers(self, place: Tuple[int, int], size: Tuple[int, int]) -> bool:
        first, last = self._taken[:, :2], self._taken[:, 2:]
        return bool(((first < np.add(place, size)) & (last > place)).all(axis=1).any())


def draw_keypoints(
    image: np.ndarray, points: np.ndarray, color: Color, thickness: int,
) -> None:
    """Draw the sure ones of keypoints [K, 3] (x, y, confidence), and a person's limbs."""
    sure = (points[:, 2] >= _SURE_POINT) & np.isfinite(points).all(axis=1)
    places = np.rint(np.where(sure[:, None], points[:, :2], 0)).astype(int).tolist()
    for first, second in _PERSON if len(points) == _PERSON_POINTS else ():
        if sure[first] and sure[second]:
            cv2.line(image, places[first], places[second], color, thickness, cv2.LINE_AA)
    for index in np.flatnonzero(sure):
        cv2.circle(image, places[index], thickness + 1, color, cv2.FILLED, cv2.LINE_AA)


def _upright_corners(boxes: np.ndarray) -> np.ndarray:
    """Return [n, 4, 2], the corners of boxes x1, y1, x2, y2."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def _draw_classes(
    image: np.ndarray, probabilities: np.ndarray, names: Sequence[str], thickness: int,
) -> None:
    for line, index in enumerate(best_classes(probabilities)):
        label = f'{_short(names[index])} {probabilities[index]:.2f}'
        place = _within(image, (0, line * _line_height(thickness)), _label_size(label, thickness))
        _write(image, label, place, color_of(int(index)), thickness)


def _within(
    image: np.ndarray, place: Tuple[int, int], size: Tuple[int, int],
) -> Tuple[int, int]:
    """Return (left, top), moved into the image where something of `size` would leave it."""
    left, top = (max(min(start, limit - side), 0) for start, side, limit in zip(
        place, size, image.shape[1::-1]))
    return left, top


def _write(
    image: np.ndarray, label: str, place: Tuple[int, int], color: Color, thickness: int,
) -> None:
    """Write a label on its colour."""
    (left, top), (width, height) = place, _label_size(label, thickness)
    scale = _font_scale(thickness)
    _, below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(image, (left, top), (left + width, top + height), color, cv2.FILLED)
    cv2.putText(image, label, (left + 1, top + height - below), cv2.FONT_HERSHEY_SIMPLEX,
                scale, (0, 0, 0), 1, cv2.LINE_AA)


def _label_size(label: str, thickness: int) -> Tuple[int, int]:
    """Return (width, height) of a label."""
    (width, _), _ = cv2.getTextSize(
        label, cv2.FONT_HERSHEY_SIMPLEX, _font_scale(thickness), 1)
    return width + 2, _line_height(thickness)


def _line_height(thickness: int) -> int:
    (_, height), below = cv2.getTextSize(
        'X', cv2.FONT_HERSHEY_SIMPLEX, _font_scale(thickness), 1)
    return height + below + 2


def _font_scale(thickness: int) -> float:
    return 0.4 * max(thickness, 1) ** 0.7


def _short(name: str) -> str:
    """Return a class name that a picture has room for; OpenCV crashes on half a surrogate pair."""
    return one_line(name, _LONGEST_NAME)
