"""Draw detections on an image."""

from __future__ import annotations

import colorsys
from typing import Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.core.detections import Detections

_GOLDEN_RATIO = 0.618033988749895


def color_of(index: int) -> Tuple[int, int, int]:
    """Return a BGR colour for an id; consecutive ids differ clearly (golden-ratio hues)."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN_RATIO) % 1.0, 0.75, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def draw_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str],
) -> np.ndarray:
    """
    Draw boxes with class name, id and score; in place, and return the image.

    :param image: uint8 BGR [H, W, 3]
    """
    thickness = max(round(image.shape[0] / 360), 1)
    ids = detections.classes if detections.ids is None else detections.ids
    for box, score, class_id, track in zip(
            detections.boxes, detections.scores, detections.classes, ids):
        tracked = detections.ids is not None and track >= 0
        label = names[class_id] + (f' #{track}' if tracked else '') + f' {score:.2f}'
        draw_box(image, box, label, color_of(int(track)) if track >= 0 else (160, 160, 160),
                 thickness)
    return image


def draw_box(
    image: np.ndarray, box: Sequence[float], label: str, color: Tuple[int, int, int],
    thickness: int,
) -> None:
    """Draw one box (x1, y1, x2, y2 in pixels) with its label, kept within the image."""
    x1, y1, x2, y2 = (int(round(float(value))) for value in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), color, thickness, cv2.LINE_AA)
    scale = 0.4 * max(thickness, 1) ** 0.7
    (width, height), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    height += below + 2
    top = y1 - height if y1 >= height else y1
    left = max(min(x1, image.shape[1] - width - 2), 0)
    cv2.rectangle(image, (left, top), (left + width + 2, top + height), color, cv2.FILLED)
    cv2.putText(image, label, (left + 1, top + height - below), cv2.FONT_HERSHEY_SIMPLEX,
                scale, (0, 0, 0), 1, cv2.LINE_AA)
