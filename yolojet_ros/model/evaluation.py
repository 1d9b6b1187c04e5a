"""
Measure a detector: COCO mAP (pycocotools), speed and file size, side by side.

Classes are matched by name. An anchor point counts with its best class, as in the package's
own decoding, or with every class (multi-label), as the figures that are published for YOLO
models are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
import time
from typing import List, Optional, Sequence

import numpy as np
from tqdm import tqdm

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams, Selection
from yolojet_ros.core.decode import detect, one_label_each
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from yolojet_ros.model import onnx_file
from yolojet_ros.model.coco_scorer import Accuracy, CocoScorer, MOST_DETECTIONS
from yolojet_ros.model.data import LabelledImage, LabelledSet, some_names

_LEAST_SCORE = 0.001
# Of an image; published figures are made with as many.
_MAX_LABELS = 30_000


@dataclass(frozen=True)
class Measurement:
    """
    What was found out about a file.

    median_ms, p90_ms: of the network
    multi_label: whether an anchor point counted with every class
    task: what `accuracy` is of: boxes (detect), masks, keypoints or rotated boxes
    boxes: of the upright boxes, for the other tasks but obb; else None
    """

    path: Path
    accuracy: Accuracy
    median_ms: float
    p90_ms: float
    megabytes: float
    parameters: int
    multi_label: bool = False
    task: str = 'detect'
    boxes: Optional[Accuracy] = None


def low_threshold_selection(names: Sequence[str], wanted: Sequence[str] = ()) -> Selection:
    """Let through what COCO scores: everything above 0.001, NMS at IoU 0.7."""
    return FilterParams(
        score_threshold=_LEAST_SCORE, iou_threshold=0.7, classes=tuple(wanted)).resolve(names)


class Candidate:
    """
    One ONNX model under measurement.

    :param names: the classes to score, by the index that the truth uses.
    :param threads: of ONNX Runtime; 0 for all cores.
    :param multi_label: let an anchor point count with every class, not its best one.
    :raises UserError: if the file is no YOLOv8 detector, or does not know one of the classes.
    """

    def __init__(
        self, path: Path, names: Sequence[str], threads: int = 0, multi_label: bool = False,
    ) -> None:
        """Load the model."""
        self.path = Path(path)
        self._backend = OnnxRuntimeBackend(self.path, threads or None)
        card = self._backend.card
        unknown = [name for name in names if name not in card.names]
        if unknown:
            raise UserError(
                f'{self.path} does not know the class "{unknown[0]}" of the data; its classes '
                f'are {some_names(card.names)}; give data with these, or --classes with those '
                'to measure')
        if multi_label and (card.head.final or card.head.head.label is not None):
            raise UserError(
                f'{self.path} ends in NMS, so each of its boxes has one class already; use '
                '--labels single')
        if card.task == 'classify' or (multi_label and card.task != 'detect'):
            raise UserError(
                f'{self.path} is a {card.task} model; '
                + ('it finds no objects to score; give a detector' if card.task == 'classify'
                   else 'only boxes can be scored with every class; use --labels single'))
        self.task = card.task
        self._card = card
        self._multi_label = multi_label
        self._letterboxer = Letterboxer(card.input_size, card.input)
        self._selection = low_threshold_selection(card.names, names)
        self._index = np.array(
            [names.index(name) if name in names else -1 for name in card.names])
        self._scorer = CocoScorer(names, card.task)
        self._box_scorer = CocoScorer(names) if card.task in ('segment', 'pose') else None
        self._network_ms: List[float] = []

    def see(self, labelled: LabelledImage) -> None:
        """Run one image as the runtime would."""
        tensor, letterbox = self._letterboxer(
            ImageView.from_bgr(np.ascontiguousarray(labelled.image)))
        start = time.perf_counter()
        outputs = self._backend.run(tensor)[0]
        self._network_ms.append(1e3 * (time.perf_counter() - start))
        if self._multi_label:
            outputs = one_label_each(outputs, self._card.head, _LEAST_SCORE, _MAX_LABELS)
        found = detect(outputs, self._card.head, letterbox, self._selection)[:MOST_DETECTIONS]
        found = replace(found, classes=self._index[found.classes])
        truth = labelled.boxes, labelled.classes, labelled.clear, found
        self._scorer.add(*truth, self._shapes(labelled))
        if self._box_scorer:
            self._box_scorer.add(*truth)

    def _shapes(self, labelled: LabelledImage) -> Optional[np.ndarray]:
        """Return the truth of the task, which not all data has."""
        if self.task == 'detect':
            return None
        shapes = {'segment': labelled.instances, 'pose': labelled.keypoints,
                  'obb': labelled.rotated}[self.task]
        if shapes is None:
            raise UserError(
                f'{self.path} is a {self.task} model, and the data has no truth for it; use '
                'the scene or a data.yaml with such labels')
        if self.task == 'pose' and shapes.shape[1] != self._card.head.keypoints[0]:
            raise UserError(
                f'{self.path} finds {self._card.head.keypoints[0]} keypoints, and the data has '
                f'{shapes.shape[1]}; give data with the same')
        return shapes

    def result(self) -> Measurement:
        """Score everything seen."""
        accuracy = self._scorer.accuracy()
        median, p90 = np.percentile(self._network_ms, (50, 90))
        return Measurement(
            self.path, accuracy, float(median), float(p90), self.path.stat().st_size / 1e6,
            onnx_file.weight_count(onnx_file.load(self.path)), self._multi_label,
            self.task, self._box_scorer.accuracy() if self._box_scorer else None)


def measure(candidates: Sequence[Candidate], data: LabelledSet) -> List[Measurement]:
    """Measure models on the same images, in turns, so that load on the machine hits all alike."""
    for labelled in tqdm(data.images, 'evaluate', data.count or None, unit='image'):
        for candidate in candidates:
            candidate.see(labelled)
    measured = [candidate.result() for candidate in candidates]
    if not measured[0].accuracy.objects:
        raise UserError(
            f'{data.source} has {measured[0].accuracy.images} images, but no object is labelled in '
            'them, so that there is no accuracy to measure; give images with labels')
    return measured
