"""
Average precision as COCO defines it (pycocotools), for boxes and for every other task.

Masks match by the overlap of their pixels, keypoints by object keypoint similarity, rotated
boxes by their exact overlap.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
import io
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command

SIZES = ('small', 'medium', 'large')
_BOUNDS = ((0, 1e10), (0, 32 ** 2), (32 ** 2, 96 ** 2), (96 ** 2, 1e10))
# COCO scores as many of an image; more would only cost time.
MOST_DETECTIONS = 100
_KINDS = {'detect': 'bbox', 'segment': 'segm', 'pose': 'keypoints', 'obb': 'bbox'}
# Of the 17 keypoints of COCO's people, in its order; for other keypoints one for all.
_COCO_SPREADS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107,
                 .087, .087, .089, .089)
_SPREAD = 0.05


@dataclass(frozen=True)
class Accuracy:
    """
    COCO average precision, each 0..1, NaN where there is no such object.

    map: mean over IoU 0.50, 0.55 .. 0.95 and classes
    map50: at IoU 0.50
    per_class: name -> map of the class
    per_size: 'small' (area < 32^2 pixels), 'medium' (< 96^2), 'large' -> map
    images, objects: how many were measured
    """

    map: float
    map50: float
    per_class: Dict[str, float]
    per_size: Dict[str, float]
    images: int
    objects: int


def spreads(count: int) -> Tuple[float, ...]:
    """
    Return how far `count` keypoints may be off, as shares of the root of the object's area.

    Half the standard deviations of object keypoint similarity, as COCO lists them: its own for
    17 keypoints, else 0.05 each. The area is that of the box.
    """
    return _COCO_SPREADS if count == len(_COCO_SPREADS) else (_SPREAD,) * count


class CocoScorer:
    """
    Collect truth and detections of image after image, then score them as COCO does.

    :param names: class names by index.
    :param task: what is compared: boxes (detect), masks (segment), keypoints (pose) or
        rotated boxes (obb).
    """

    def __init__(self, names: Sequence[str], task: str = 'detect') -> None:
        """Start with no image."""
        self.names = tuple(names)
        self._task = task
        self._images: List[Dict[str, int]] = []
        self._truth: List[Dict[str, Any]] = []
        self._results: List[Dict[str, Any]] = []

    def add(
        self, boxes: np.ndarray, classes: np.ndarray, clear: np.ndarray, detections: Detections,
        shapes: Optional[np.ndarray] = None,
    ) -> None:
        """
        Take one image.

        :param boxes: true boxes [n, 4] xyxy in the pixels of the detections.
        :param classes: int[n].
        :param clear: bool[n], False where finding the object is neither right nor wrong.
        :param shapes: what the task compares: for segment the pixels of the image, uint8[H, W]
            with 1 + index of the object; for pose keypoints [n, K, 3]; for obb boxes [n, 5].
        """
        image = len(self._images) + 1
        size = shapes.shape if self._task == 'segment' else (0, 0)
        self._images.append({'id': image, 'height': size[0], 'width': size[1]})
        objects = zip(boxes, classes, clear, self._true_shapes(shapes, len(boxes)))
        for box, category, wanted, shape in objects:
            self._truth.append({
                'id': len(self._truth) + 1, 'image_id': image, 'category_id': int(category),
                **_extent(box),
                # COCO's way to say that finding it is neither right nor wrong.
                'iscrowd': int(not wanted), **shape})
        # They come best first.
        found = zip(detections.boxes[:MOST_DETECTIONS], detections.scores, detections.classes,
                    self._found_shapes(detections))
        for box, score, category, shape in found:
            shape = shape or {'bbox': _extent(box)['bbox']}
            self._results.append({
                'image_id': image, 'category_id': int(category), 'score': float(score), **shape})

    def _true_shapes(self, shapes: Optional[np.ndarray], count: int) -> Iterable[Dict]:
        if self._task == 'segment':
            return [_mask(shapes == index + 1) for index in range(count)]
        if self._task == 'pose':
            return [{'keypoints': points.ravel().tolist(),
                     'num_keypoints': int((points[:, 2] > 0).sum())} for points in shapes]
        if self._task == 'obb':
            return [_turned(box) for box in shapes]
        return [{}] * count

    def _found_shapes(self, detections: Detections) -> Iterable[Dict]:
        if self._task == 'segment':
            return ({'segmentation': _mask(mask)['segmentation']}
                    for mask in detections.masks.each())
        if self._task == 'pose':
            return [{'keypoints': points.ravel().tolist()} for points in detections.keypoints]
        if self._task == 'obb':
            return [_turned(box, ('bbox', 'rotated')) for box in detections.rotated]
        return [{}] * len(detections)

    def accuracy(self) -> Accuracy:
        """
        Score everything added so far.

        :raises UserError: if pycocotools is missing or nothing was added.
        """
        if not self._images:
            raise UserError('there is no image to evaluate on; give data with images')
        precision = self._precision()
        objects = sum(not t['iscrowd'] for t in self._truth)
        return Accuracy(
            map=_mean(precision[..., 0]), map50=_mean(precision[0, ..., 0]),
            per_class={n: _mean(precision[:, :, k, 0]) for k, n in enumerate(self.names)},
            per_size={s: _mean(precision[..., i + 1]) for i, s in enumerate(SIZES)},
            images=len(self._images), objects=objects)

    def _precision(self) -> np.ndarray:
        """Return precision [IoU thresholds, recalls, classes, areas]; -1 where undefined."""
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError as error:
            raise UserError('measuring mAP needs pycocotools; run "'
                            f'{install_command("pycocotools")}"') from error
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                'info': {}, 'images': self._images,
                'annotations': [dict(entry) for entry in self._truth],
                'categories': [{'id': i, 'name': n} for i, n in enumerate(self.names)]}
            truth.createIndex()
            # loadRes changes what it is given, and cannot take an empty list.
            results = [dict(entry) for entry in self._results]
            found = truth.loadRes(results) if results else COCO()
            evaluation = COCOeval(truth, found, _KINDS[self._task])
            if self._task == 'obb':
                evaluation.computeIoU = lambda image, category: _rotated_overlaps(
                    evaluation._gts[image, category], evaluation._dts[image, category])
            if self._task == 'pose':
                count = len(self._truth[0]['keypoints']) // 3 if self._truth else 1
                evaluation.params.kpt_oks_sigmas = np.array(spreads(count))
            evaluation.params.areaRng = [list(bounds) for bounds in _BOUNDS]
            evaluation.params.areaRngLbl = ['all', *SIZES]
            evaluation.params.maxDets = [MOST_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval['precision'][..., -1]


def _extent(box: np.ndarray) -> Dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return {'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1)}


def _mask(mask: np.ndarray) -> Dict[str, Any]:
    """Encode bool[H, W] as COCO keeps masks."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'segmentation': encoded, 'area': float(mask.sum())}


def _turned(box: np.ndarray, keys: Sequence[str] = ('bbox', 'rotated', 'area')) -> Dict[str, Any]:
    """Describe a rotated box; its bbox has its size, for the area, and not its place."""
    cx, cy, width, height, _ = values = [float(value) for value in box]
    whole = {'bbox': [cx, cy, width, height], 'rotated': values, 'area': width * height}
    return {key: whole[key] for key in keys}


def _rotated_overlaps(truth: List[Dict], found: List[Dict]) -> Any:
    """Return IoU [found, truth], the found in the order that COCOeval expects: best first."""
    from yolojet_ros.core import rotated

    if not truth or not found:
        return []
    order = np.argsort([-entry['score'] for entry in found], kind='mergesort')
    boxes = np.float32([found[index]['rotated'] for index in order[:MOST_DETECTIONS]])
    others = np.float32([entry['rotated'] for entry in truth])
    a = np.repeat(boxes, len(others), 0)
    b = np.tile(others, (len(boxes), 1))
    iou = rotated.pair_iou(a, b)
    # Of what need not be found, COCO asks how much of the detection lies in it.
    inside = rotated.overlap(a, b) / np.maximum(a[:, 2] * a[:, 3], 1e-6)
    crowd = np.tile([bool(entry['iscrowd']) for entry in truth], len(boxes))
    return np.where(crowd, inside, iou).reshape(len(boxes), len(others)).astype(np.float64)


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else float('nan')
