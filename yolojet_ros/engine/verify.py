"""Does an engine see what its model sees? Compare it with ONNX Runtime on images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np

from yolojet_ros.core.boxes import iou
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.text import one_line
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.decode import detect, of_image, Table
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.head import Reading
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.tensorrt_session import Session
from yolojet_ros.model.calibration_images import network_inputs

DEFAULT_IMAGES = 8
# Mean error of the scores, and of the boxes in pixels, that a precision may cost. TensorRT
# computes FP32 with TF32, which has FP16's mantissa, where the GPU has it.
_TOLERANCES = {'fp32': (0.005, 0.5), 'fp16': (0.005, 0.5), 'int8': (0.03, 3.0)}
# Share of the sure detections that must be found again.
_LEAST_MATCHED = {'fp32': 0.95, 'fp16': 0.95, 'int8': 0.8}
_SURE = 0.4
_SAME_IOU = 0.5
# Boxes of anchor points where neither side sees anything say nothing.
_RELEVANT_SCORE = 0.05


@dataclass(frozen=True)
class Reference:
    """
    What ONNX Runtime makes of some images.

    onnx_sha256: of the model
    inputs: [n, 3, H, W], float32 or uint8
    outputs: [n, ...] each, of its head, in the order of its card's reading
    """

    onnx_sha256: str
    inputs: np.ndarray
    outputs: List[np.ndarray]

    @classmethod
    def compute(cls, onnx: Union[str, Path], sha256: str, inputs: Sequence[np.ndarray]) \
            -> Reference:
        """
        Run ONNX Runtime.

        :raises UserError: if it is not installed.
        """
        from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
        backend = OnnxRuntimeBackend(onnx)
        try:
            kind = backend.card.input.dtype
            outputs = [backend.run(tensor.astype(kind))[0] for tensor in inputs]
        finally:
            backend.close()
        return cls(sha256, np.concatenate(inputs), [np.stack(part) for part in zip(*outputs)])

    @classmethod
    def load(cls, path: Union[str, Path]) -> Reference:
        """
        Read results that were computed elsewhere.

        :raises UserError: if the file cannot be read.
        """
        try:
            with np.load(str(path), allow_pickle=False) as data:
                inputs, scale = data['inputs'], float(data['scale'])
                outputs = [data[f'outputs{index}'] for index in range(int(data['count']))]
                if inputs.dtype not in (np.uint8, np.float32) or inputs.ndim != 4 or not all(
                        len(output) == len(inputs) for output in outputs) or not outputs:
                    raise ValueError('its arrays are not images and their results')
                if scale != 1:
                    inputs = inputs.astype(np.float32) * np.float32(scale)
                return cls(str(data['onnx_sha256']), inputs, outputs)
        except Exception as error:  # of zipfile, zlib and NumPy, with no common base
            raise UserError(
                f'{path} holds no reference results ({one_line(str(error), 200)}); write it with '
                '"yolojet engine reference" where ONNX Runtime is installed') from error

    def save(self, path: Union[str, Path]) -> None:
        """Write it; images that are bytes in 0..1 are stored as bytes."""
        inputs, scale = self.inputs, 1.0
        bytes_ = np.rint(inputs * 255)
        if inputs.dtype == np.float32 and np.allclose(bytes_ / 255, inputs, atol=1e-6) \
                and 0 <= bytes_.min() and bytes_.max() <= 255:
            inputs, scale = bytes_.astype(np.uint8), 1 / 255
        with atomic_path(path) as temporary:
            with open(temporary, 'wb') as file:
                np.savez_compressed(
                    file, onnx_sha256=self.onnx_sha256, inputs=inputs, scale=scale,
                    count=len(self.outputs),
                    **{f'outputs{index}': part for index, part in enumerate(self.outputs)})


@dataclass(frozen=True)
class Verdict:
    """
    An engine beside its reference.

    score_error, box_error_px: mean absolute, where either side sees something
    largest_score_error: of all
    sure: detections of the reference with score >= 0.4; matched: share of them found again
    passed: whether all is within what the precision may cost; cause: what is not
    """

    images: int
    score_error: float
    largest_score_error: float
    box_error_px: float
    sure: int
    matched: float
    passed: bool
    cause: str = ''

    def as_dict(self) -> Dict[str, Any]:
        """Return it for the engine card."""
        return asdict(self)

    def sentence(self) -> str:
        """Say it in one line."""
        return (
            f'{"agrees" if self.passed else "DISAGREES"} with ONNX Runtime on {self.images} '
            f'images: mean error of scores {self.score_error:.5f}, of boxes '
            f'{self.box_error_px:.3f} px, {100 * self.matched:.1f} % of {self.sure} sure '
            'detections found again' + (f' ({self.cause})' if self.cause else ''))


def reference_for(
    onnx: str, sha256: str, model: ModelCard, images: str, stored: Optional[str],
    count: int = DEFAULT_IMAGES,
) -> Reference:
    """
    Return the reference: stored, or computed on images of a folder, a bag or the scene.

    :raises UserError: if it cannot be had, or belongs to another model.
    """
    if stored is None:
        return Reference.compute(onnx, sha256, network_inputs(images, count, model))
    reference = Reference.load(stored)
    if reference.onnx_sha256 != sha256:
        raise UserError(
            f'{stored} holds the results of another model than {onnx}; write it again with '
            '"yolojet engine reference"')
    return reference


def verify(
    session: Session, reference: Reference, model: ModelCard, card: ModelCard, precision: str,
) -> Verdict:
    """
    Run an engine on the reference's images and compare.

    :param session: of the engine; its device current
    :param model: of the ONNX file that gave the reference
    :param card: of the engine, which may end in NMS where the model does not
    :param precision: sets the tolerances
    """
    outputs = session.run_all(card.input.typed(reference.inputs))
    count = len(reference.inputs)
    if not all(np.isfinite(output).all() for output in outputs):
        return Verdict(count, float('nan'), float('nan'), float('nan'), 0, 0.0, False,
                       'the output has values that are not finite')
    before = [of_image(reference.outputs, model.head, image) for image in range(count)]
    after = [of_image(outputs, card.head, image) for image in range(count)]
    same = model.head == card.head and card.head.head.label is None
    score_error, largest, box_error = (
        compare_raw(before, after, card.head) if same else (0.0, 0.0, 0.0))
    sure, matched = _match(before, after, model.head, card)
    cause = _cause(precision, score_error, box_error, matched)
    return Verdict(count, score_error, largest, box_error, sure, matched, not cause, cause)


def compare_raw(
    before: Sequence[Sequence[np.ndarray]], after: Sequence[Sequence[np.ndarray]],
    reading: Reading,
) -> Tuple[float, float, float]:
    """Return mean and largest score error, and mean box error in pixels, of heads with scores."""
    def parts(images: Sequence[Sequence[np.ndarray]]) -> Tuple[np.ndarray, np.ndarray]:
        tables = [Table(outputs, reading) for outputs in images]
        scores = np.concatenate([table.class_scores() for table in tables], axis=1)
        if reading.task == 'classify':
            return np.zeros((4, scores.shape[1]), np.float32), scores
        return np.concatenate([table.take(reading.head.box, 4) for table in tables], axis=1), scores

    (boxes, scores), (other_boxes, other_scores) = parts(before), parts(after)
    best = np.maximum(scores.max(axis=0), other_scores.max(axis=0))
    relevant = best >= _RELEVANT_SCORE
    if not relevant.any():
        # Nothing is seen anywhere: the surest rows still say whether the two agree.
        relevant = best >= np.sort(best)[-min(100, best.size)]
    score_errors = np.abs(scores - other_scores)[:, relevant]
    box_errors = np.abs(boxes - other_boxes)[:, relevant]
    return float(score_errors.mean()), float(score_errors.max()), float(box_errors.mean())


def _match(
    before: Sequence[Sequence[np.ndarray]], after: Sequence[Sequence[np.ndarray]],
    reading: Reading, card: ModelCard,
) -> Tuple[int, float]:
    """Return how many sure detections the reference has, and the share found again."""
    letterbox = Letterbox.fit(card.input_size, card.input_size)
    wanted = FilterParams(score_threshold=_SURE).resolve(card.names)
    offered = FilterParams(score_threshold=_SURE / 2).resolve(card.names)
    total = hits = 0
    for expected, found in zip(before, after):
        truth = detect(expected, reading, letterbox, wanted)
        seen = detect(found, card.head, letterbox, offered)
        total += len(truth)
        hits += _found_again(truth, seen)
    return total, hits / total if total else 1.0


def _found_again(truth: Detections, seen: Detections) -> int:
    if not len(truth) or not len(seen):
        return 0
    same = (iou(truth.boxes, seen.boxes) >= _SAME_IOU) \
        & (truth.classes[:, None] == seen.classes[None, :])
    return int(np.count_nonzero(same.any(axis=1)))


def _cause(precision: str, score_error: float, box_error: float, matched: float) -> str:
    most_score, most_box = _TOLERANCES[precision]
    causes: List[str] = []
    if score_error > most_score:
        causes.append(f'scores may differ by {most_score} in {precision}')
    if box_error > most_box:
        causes.append(f'boxes may differ by {most_box} px in {precision}')
    if matched < _LEAST_MATCHED[precision]:
        causes.append(f'{100 * _LEAST_MATCHED[precision]:.0f} % must be found again')
    return '; '.join(causes)
