"""Hold the CUDA kernels beside their NumPy twins, on random input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.boxes import from_center
from yolojet_ros.core.decode import detect
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.head import anchor_count, BY_KEY, Place, raw_reading
from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.core.letterbox import Letterbox, Letterboxer
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.cuda import kernels, sampling
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.cuda.frame import Frame, Image, Kernels
from yolojet_ros.inference.cuda.places import Sampler
from yolojet_ros.inference.cuda.sampling import Sampling
from yolojet_ros.inference.tensorrt_network import Tensor

SINGLE, HALF = np.dtype(np.float32), np.dtype(np.float16)


@dataclass(frozen=True)
class Deviation:
    """
    The largest difference between a kernel and its twin.

    pixels: letterbox, in steps of 1/255; equal: share of equal pixels
    box_px, score: of detections
    same_sets: whether every image kept the same boxes
    keypoint_px, rotated: of keypoints and rotated boxes
    mask: share of pixels with the same label
    """

    cases: int
    pixels: float = 0.0
    equal: float = 1.0
    box_px: float = 0.0
    score: float = 0.0
    same_sets: bool = True
    keypoint_px: float = 0.0
    rotated: float = 0.0
    mask: float = 1.0


def random_view(rng: np.random.Generator, encoding: str, most: int = 900) -> ImageView:
    """Return an image of random size, padded rows and content in `encoding`."""
    kind = FORMATS[encoding]
    width, height = (int(value) for value in rng.integers(1, most, 2))
    width += (width % 2) * kind.even_width
    height += (height % 2) * kind.even_height
    step = width * kind.channels * kind.dtype.itemsize + int(rng.integers(0, 9))
    rows = height * kind.rows[0] // kind.rows[1]
    data = rng.integers(0, 256, rows * step, dtype=np.uint8)
    return ImageView(data, width, height, step, encoding, bool(rng.integers(2)))


def random_selection(rng: np.random.Generator, classes: int) -> Selection:
    """Return thresholds, class masks, sizes and regions of any kind."""
    thresholds = rng.uniform(0.0, 0.6, classes).astype(np.float32)
    thresholds[rng.random(classes) < 0.2] = np.inf
    corners = int(rng.choice([0, 0, 3, 4, 9]))
    return Selection(
        thresholds, np.float32(rng.choice([0.0, 0.3, 0.5, 0.7, 1.0])), bool(rng.integers(2)),
        int(rng.choice([1, 20, 300])), np.float32(rng.choice([0, 0, 12])),
        rng.random((corners, 2)).astype(np.float32), thresholds)


def check_card(
    key: str, classes: int, rows: int, task: str = 'detect', size: Tuple[int, int] = (640, 384),
) -> ModelCard:
    """Return a card whose outputs are those of a head of HEADS, with `rows` rows if it may."""
    rows = anchor_count(size) if BY_KEY[key].grid else rows
    reading = raw_reading(rows, classes, task, masks=8 if task == 'segment' else 0,
                          keypoints=(5, 3) if task == 'pose' else (0, 0), key=key)
    names = tuple(f'c{index}' for index in range(classes))
    return ModelCard('check', names, size, 32, reading, reading.head.input)


def random_outputs(
    rng: np.random.Generator, card: ModelCard, busy: float = 0.1,
) -> List[np.ndarray]:
    """
    Return outputs of one image as the card's head gives them, with clusters, ties, stray values.

    Boxes lie beyond the borders, too; some scores and sides are NaN, infinite or above 1.

    :param busy: share of rows with a score worth a look
    """
    reading, head = card.head, card.head.head
    count, classes = reading.rows, len(card.names)
    boxes, scores = _random_rows(rng, card, busy)
    labels = rng.integers(-1, classes + 1, count)
    tables: Dict[int, Dict[int, np.ndarray]] = {}

    def put(place: Optional[Place], columns: np.ndarray) -> None:
        for index, column in enumerate(columns):
            if place is not None:
                tables.setdefault(place.output, {})[place.column + index] = column

    put(head.box, boxes.T)
    if head.label is None:
        put(head.score, [np.zeros(count)] * head.first_class + list(scores.T))
    else:
        put(head.score, [scores.max(axis=1)])
        put(head.label, [labels])
    put(head.objectness, [rng.uniform(0.5, 1, count)])
    put(head.ones, [np.ones(count)])
    put(head.batch, [np.zeros(count)])
    if reading.extras:
        spread = (-1.5, 1.5) if card.task == 'obb' else (-1, 1) if reading.masks else (0, 300)
        put(reading.extra, rng.uniform(*spread, (reading.extras, count)))
    if head.count is not None:
        tables[head.count] = {0: np.array([max(count - 3, 0)])}
    found = []
    for number in range(len(head.outputs)):
        columns = tables.get(number, {0: np.zeros(count)})
        table = np.stack([columns[index] for index in range(len(columns))], axis=1)
        flat = head.outputs[number] == 'B N'
        found.append(table[:, 0] if flat else table.T if head.columns_first else table)
    if reading.masks:
        width, height = card.input_size
        found.append(rng.normal(0, 1, (reading.masks, height // 4, width // 4)))
    if head.count is not None:
        found[head.count] = found[head.count].reshape(1)
    return [np.ascontiguousarray(part, np.float32) for part in found]


def _random_rows(
    rng: np.random.Generator, card: ModelCard, busy: float,
) -> Tuple[np.ndarray, np.ndarray]:
    """Return boxes [rows, 4] and scores [rows, classes] in the form of the card's head."""
    head, count, classes = card.head.head, card.head.rows, len(card.names)
    width, height = card.input_size
    groups = max(int(count * busy / 6), 1)
    center = rng.uniform(-0.1, 1.1, (groups, 2))[rng.integers(0, groups, count)]
    boxes = np.empty((count, 4))
    boxes[:, :2] = (center + rng.normal(0, 0.01, (count, 2))) * (width, height)
    boxes[:, 2:] = rng.uniform(4, 0.4 * width, (count, 2))
    scores = rng.uniform(0, 0.05, (count, classes))
    picked = np.flatnonzero(rng.random(count) < busy)
    # Few distinct values make ties; a tie goes to the first row and class.
    scores[picked, rng.integers(0, classes, len(picked))] = np.round(rng.random(len(picked)), 2)
    if head.logits:
        scores = np.log(scores + 1e-6) - np.log(1 - np.minimum(scores, 0.999))
    if head.grid:
        boxes = np.concatenate((rng.uniform(-1, 1, (count, 2)), rng.uniform(0, 3, (count, 2))), 1)
    if card.head.corners:
        boxes = from_center(boxes)
    if head.normalized:
        boxes = boxes / (width, height, width, height)
    for kind, value in enumerate((np.nan, np.inf, -np.inf, 1.25, 1.005)):
        stray = picked[kind::17 * 5]
        scores[stray, rng.integers(0, classes, len(stray))] = value
        stray = picked[kind::23 * 5]
        boxes[stray, rng.integers(0, 4, len(stray))] = -1 if 1 < value < 2 else value
    return boxes, scores


def random_letterbox(rng: np.random.Generator, card: ModelCard, most: int = 2000) -> Letterbox:
    """Return the letterbox of an image of random size."""
    width, height = (int(value) for value in rng.integers(16, most, 2))
    return Letterbox.fit((width, height), card.input_size, card.input.fit)


def compare_tensors(found: np.ndarray, expected: np.ndarray) -> Tuple[float, float]:
    """
    Return the largest difference, and the share of equal values.

    In steps of 1/255, or in those of int8.
    """
    steps = [tensor.astype(np.float32) * (1 if tensor.dtype == np.int8 else 255)
             for tensor in (found, expected)]
    if found.dtype == HALF:
        # FP16 rounds by up to an eighth of a step; what is compared is the step.
        steps = [np.rint(values) for values in steps]
    difference = np.abs(steps[0] - steps[1])
    return float(difference.max()), float(np.mean(difference == 0))


def compare_detections(found: Detections, expected: Detections) -> Tuple[bool, float, float]:
    """Return whether the sets are the same, and the largest box and score differences."""
    if found.broken != expected.broken or not np.array_equal(found.classes, expected.classes):
        return False, float('inf'), float('inf')
    if not len(found):
        return True, 0.0, 0.0
    return (True, float(np.abs(found.boxes - expected.boxes).max()),
            float(np.abs(found.scores - expected.scores).max()))


class _NoNetwork:
    """What a Frame needs of a network, where only its kernels run."""

    dynamic = False

    def __init__(self, card: ModelCard, outputs: Sequence[np.ndarray]) -> None:
        width, height = card.input_size
        self.inputs = [
            Tensor('images', 0, True, np.dtype(card.input.dtype), (1, 3, height, width))]
        self.outputs = [
            Tensor(f'output{index}', 1 + index, False, part.dtype, (1, *part.shape))
            for index, part in enumerate(outputs)]
        self.tensors = self.inputs + self.outputs

    def create_execution(self, stream: int, scratch, slots) -> _NoNetwork:
        return self

    def set_batch(self, batch: int) -> None:
        """Leave it at one image."""

    def nbytes(self, tensor: Tensor) -> int:
        return int(np.prod(tensor.shape)) * tensor.dtype.itemsize

    def bind(self, tensor: Tensor, pointer: int) -> None:
        """Ignore the address."""

    def close(self) -> None:
        """Free nothing."""


def check_letterbox(
    device: Device, rng: np.random.Generator, rounds: int = 4, mapped: bool = False,
) -> Dict[str, Deviation]:
    """Return, for every encoding, how the kernel deviates from core.letterbox."""
    binary = kernels.cubin(device.capability)
    found = {}
    for encoding in sorted(FORMATS):
        pixels, equal = 0.0, []
        for index in range(rounds):
            network = ((320, 192), (96, 160), (640, 640))[index % 3]
            card = check_card('yolov8', 1, 10, size=network)
            dtype = ('float32', 'float16', 'int8')[index % 3]
            card = replace(card, input=replace(
                card.input, dtype=dtype, step=1 / 127 if dtype == 'int8' else 1.0,
                antialias=index // 3 % 2 > 0))
            stand_in = _NoNetwork(card, [np.zeros((5, 10), np.float32)])
            frame = Frame(device, stand_in, stand_in.outputs, card, (1, 1),
                          Kernels(device, binary, card), mapped)
            view = random_view(rng, encoding)
            expected, _ = Letterboxer(network, card.input)(view)
            result = np.empty_like(expected)
            ready = sampling.for_kernel(view)
            sampler = Sampler(device, Sampling.plan(ready, network, card.input))
            frame.bring([Image(ready, sampler, random_selection(rng, 1))], False)
            frame.enqueue_letterbox(1)
            frame.stream.synchronize()
            device.copy_out(result, frame.input)
            largest, same = compare_tensors(result, expected)
            pixels = max(pixels, largest)
            equal.append(same)
            frame.close()
            sampler.close()
        found[encoding] = Deviation(rounds, pixels=pixels, equal=float(np.mean(equal)))
    return found


def check_decode(
    device: Device, rng: np.random.Generator, rounds: int = 12,
) -> Dict[str, Deviation]:
    """Return, for every head and type, how decode, NMS and extras deviate from core.decode."""
    binary = kernels.cubin(device.capability)
    found = {}
    for key, task, dtype in _heads():
        worst = Deviation(0)
        for _ in range(rounds):
            classes = int(rng.choice([1, 7, 80]))
            card = check_card(key, classes, int(rng.integers(1, 9000)), task)
            outputs = [part.astype(dtype) for part in random_outputs(
                rng, card, float(rng.choice([0.01, 0.1, 0.9])))]
            letterbox = random_letterbox(rng, card)
            selection = random_selection(rng, classes)
            seen = run_decode(device, binary, card, outputs, letterbox, selection)
            worst = worse(worst, seen, detect(outputs, card.head, letterbox, selection))
        found[f'{key} {task} {dtype.name}'] = worst
    return found


def run_decode(
    device: Device, binary: bytes, card: ModelCard, outputs: Sequence[np.ndarray],
    letterbox: Letterbox, selection: Selection,
) -> Detections:
    """Return what the kernels find in the outputs of one image."""
    network = _NoNetwork(card, outputs)
    frame = Frame(device, network, network.outputs, card, (1, 1), Kernels(device, binary, card))
    view = ImageView(np.zeros(letterbox.source[0] * letterbox.source[1], np.uint8),
                     *letterbox.source, letterbox.source[0], 'mono8')
    sampler = Sampler(device, Sampling.plan(view, card.input_size, card.input))
    try:
        frame.bring([Image(view, sampler, selection)], True)
        for buffer, part in zip(frame.outputs, outputs):
            device.copy_in(buffer, part)
        for _ in range(2):  # what a frame leaves must not reach the next
            frame.enqueue_decode(1)
        frame.enqueue_gather(1)
        frame.enqueue_paint()
        return frame.finish()[0]
    finally:
        frame.close()
        sampler.close()


def worse(worst: Deviation, found: Detections, expected: Detections) -> Deviation:
    """Return the larger deviations of `worst` and of one more case."""
    same, box, score = compare_detections(found, expected)
    if not same:
        return replace(worst, cases=worst.cases + 1, same_sets=False)
    keypoint, angle, mask = compare_extras(found, expected)
    return Deviation(
        worst.cases + 1, box_px=max(worst.box_px, box), score=max(worst.score, score),
        same_sets=worst.same_sets, keypoint_px=max(worst.keypoint_px, keypoint),
        rotated=max(worst.rotated, angle), mask=min(worst.mask, mask))


def compare_extras(found: Detections, expected: Detections) -> Tuple[float, float, float]:
    """Return largest differences of keypoints and rotated boxes, and the share of equal pixels."""
    def largest(a: Optional[np.ndarray], b: Optional[np.ndarray]) -> float:
        return 0.0 if a is None or not a.size else float(np.abs(a - b).max())

    same = 1.0
    if expected.masks is not None and len(expected):
        same = float(np.mean(found.masks.labels() == expected.masks.labels()))
    return (largest(found.keypoints, expected.keypoints),
            largest(found.rotated, expected.rotated), same)


def _heads() -> Iterator[Tuple[str, str, np.dtype]]:
    """Yield what kernels are held to their twins on: heads that differ in more than columns."""
    for key, tasks in (
            ('yolov8', ('detect', 'segment', 'pose', 'obb')), ('yolov8_transposed', ('detect',)),
            ('end2end', ('detect', 'segment', 'pose', 'obb')), ('yolov5', ('detect', 'segment')),
            ('yolov6', ('detect',)), ('efficient_nms', ('detect',)), ('yolox_grid', ('detect',)),
            ('rtdetr_ultralytics', ('detect',)), ('rfdetr', ('detect',)),
            ('deepstream', ('detect',))):
        for task in tasks:
            yield from ((key, task, kind) for kind in (SINGLE, HALF))
