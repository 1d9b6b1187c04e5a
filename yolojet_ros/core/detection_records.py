"""What a network saw on one image as plain values, for JSON."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

from yolojet_ros.core import rotated as rotated_
from yolojet_ros.core.detections import best_classes, Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command

_PIXEL_DIGITS, _SCORE_DIGITS = 3, 6


def records(detections: Detections, names: Sequence[str]) -> Dict[str, List[Dict[str, Any]]]:
    """
    Return what was seen, in pixels of the image.

    `detections` has one entry each, the best first: box [x1, y1, x2, y2], score, class_id,
    class, and what the task adds: angle (radians, the x axis towards the y axis) and polygon
    (the corners [x, y] in order) of a rotated box, whose `box` is the upright one around it;
    keypoints [x, y, confidence]; mask_rle, the mask as COCO's compressed RLE. A classifier has
    `classification` besides, the best classes with score, class_id and class.

    :raises UserError: if there are masks and pycocotools is missing.
    """
    found: List[Dict[str, Any]] = [
        {'box': _rounded(box, _PIXEL_DIGITS), **_class(index, score, names)}
        for box, score, index in zip(detections.boxes, detections.scores, detections.classes)]
    if detections.rotated is not None:
        for entry, box, polygon in zip(
                found, detections.rotated, rotated_.corners(detections.rotated)):
            entry['angle'] = round(float(box[4]), _SCORE_DIGITS)
            entry['polygon'] = _rounded(polygon, _PIXEL_DIGITS)
    if detections.keypoints is not None:
        for entry, points in zip(found, detections.keypoints):
            entry['keypoints'] = [
                [*_rounded(point[:2], _PIXEL_DIGITS), round(float(point[2]), _SCORE_DIGITS)]
                for point in points]
    if detections.masks is not None and found:
        encode = rle_encoder()
        for entry, mask in zip(found, detections.masks.each()):
            entry['mask_rle'] = encode(mask)
    result = {'detections': found}
    if detections.probabilities is not None:
        result['classification'] = [
            _class(index, detections.probabilities[index], names)
            for index in best_classes(detections.probabilities)]
    return result


def rle_encoder():
    """
    Return a function from a mask, bool[h, w], to its COCO RLE {size: [h, w], counts: str}.

    :raises UserError: if pycocotools is missing.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise UserError('masks as COCO RLE need pycocotools; run "'
                        f'{install_command("pycocotools")}"') from error

    def encode(mask: np.ndarray) -> Dict[str, Any]:
        encoded = coco.encode(np.asfortranarray(mask, np.uint8))
        return {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}
    return encode


def _class(index: int, score: float, names: Sequence[str]) -> Dict[str, Any]:
    return {'score': round(float(score), _SCORE_DIGITS), 'class_id': int(index),
            'class': names[index]}


def _rounded(values: np.ndarray, digits: int) -> List[Any]:
    # As float64: a float32 has no short decimal form.
    return np.round(np.asarray(values, np.float64), digits).tolist()
