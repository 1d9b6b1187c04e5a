"""Hold the CUDA kernels beside their NumPy twins, on random input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, Tuple

import numpy as np

from yolojet_ros.core.boxes import from_center
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.head import detect
from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.core.letterbox import Letterbox, Letterboxer
from yolojet_ros.core.model_card import HeadLayout, ModelCard
from yolojet_ros.inference.cuda import kernels, sampling
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.cuda.frame import Frame, Kernels, Recording
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
    """

    cases: int
    pixels: float = 0.0
    equal: float = 1.0
    box_px: float = 0.0
    score: float = 0.0
    same_sets: bool = True


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
        rng.random((corners, 2)).astype(np.float32))


def random_head(rng: np.random.Generator, card: ModelCard, busy: float = 0.1) -> np.ndarray:
    """
    Return an output of the card's layout, float32, with clusters, ties and stray values.

    Boxes lie beyond the borders, too; some scores and sides are NaN, infinite or above 1.

    :param busy: share of rows with a score worth a look
    """
    count, classes = card.boxes, len(card.names)
    width, height = card.input_size
    groups = max(int(count * busy / 6), 1)
    center = rng.uniform(-0.1, 1.1, (groups, 2))[rng.integers(0, groups, count)]
    boxes = np.empty((count, 4))
    boxes[:, :2] = (center + rng.normal(0, 0.01, (count, 2))) * (width, height)
    boxes[:, 2:] = rng.uniform(4, 0.4 * width, (count, 2))
    scores = rng.uniform(0, 0.05, (count, classes))
    picked = np.flatnonzero(rng.random(count) < busy)
    # Few distinct values make ties; a tie goes to the first anchor point and class.
    scores[picked, rng.integers(0, classes, len(picked))] = np.round(rng.random(len(picked)), 2)
    for kind, value in enumerate((np.nan, np.inf, -np.inf, 1.25, 1.005)):
        stray = picked[kind::17 * 5]
        scores[stray, rng.integers(0, classes, len(stray))] = value
        stray = picked[kind::23 * 5]
        boxes[stray, rng.integers(0, 4, len(stray))] = -1 if 1 < value < 2 else value
    if card.layout is HeadLayout.NMS:
        corners = from_center(boxes)
        labels = rng.integers(-1, classes + 1, (count, 1))
        return np.concatenate(
            (corners, scores.max(axis=1, keepdims=True), labels), axis=1).astype(np.float32)
    table = np.concatenate((boxes, scores), axis=1).astype(np.float32)
    return np.ascontiguousarray(table.T) if card.layout is HeadLayout.RAW else table


def random_letterbox(rng: np.random.Generator, card: ModelCard) -> Letterbox:
    """Return the letterbox of an image of random size."""
    width, height = (int(value) for value in rng.integers(16, 2000, 2))
    return Letterbox.fit((width, height), card.input_size)


def compare_tensors(found: np.ndarray, expected: np.ndarray) -> Tuple[float, float]:
    """Return the largest difference in steps of 1/255, and the share of equal values."""
    steps = [tensor.astype(np.float32) * 255 for tensor in (found, expected)]
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

    def __init__(self, card: ModelCard, image: np.dtype, head: np.dtype) -> None:
        width, height = card.input_size
        rows = {HeadLayout.RAW: (4 + len(card.names), card.boxes),
                HeadLayout.TRANSPOSED: (card.boxes, 4 + len(card.names)),
                HeadLayout.NMS: (card.boxes, 6)}[card.layout]
        self.inputs = [Tensor('images', 0, True, np.dtype(image), (1, 3, height, width))]
        self.outputs = [Tensor('output0', 1, False, np.dtype(head), (1, *rows))]
        self.tensors = self.inputs + self.outputs

    def create_execution(self, stream: int) -> _NoNetwork:
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
    device: Device, rng: np.random.Generator, rounds: int = 2, mapped: bool = False,
) -> Dict[str, Deviation]:
    """Return, for every encoding, how the kernel deviates from core.letterbox."""
    binary = kernels.cubin(device.capability)
    found = {}
    for encoding in sorted(FORMATS):
        pixels, equal = 0.0, []
        for index in range(rounds):
            dtype = (SINGLE, HALF)[index % 2]
            network = ((320, 192), (96, 160), (640, 640))[index % 3]
            card = ModelCard('check', ('a',), network, 32, HeadLayout.RAW, 10)
            stand_in = _NoNetwork(card, dtype, SINGLE)
            frame = Frame(device, stand_in, stand_in.outputs[0], card, 1,
                          Kernels(device, binary, dtype, SINGLE))
            view = random_view(rng, encoding)
            expected, _ = Letterboxer(network, dtype.type)(view)
            result = np.empty_like(expected)
            ready = sampling.for_kernel(view)
            recording = Recording(device, [Sampling.plan(ready, network)], mapped)
            recording.bring([ready], frame.stream)
            recording.enqueue_copy(frame.stream)
            frame.enqueue_letterbox(recording)
            frame.stream.synchronize()
            device.copy_out(result, frame.input)
            largest, same = compare_tensors(result, expected)
            pixels = max(pixels, largest)
            equal.append(same)
            recording.close()
            frame.close()
        found[encoding] = Deviation(rounds, pixels=pixels, equal=float(np.mean(equal)))
    return found


def check_decode(
    device: Device, rng: np.random.Generator, rounds: int = 12,
) -> Dict[str, Deviation]:
    """Return, for every head layout and type, how decode and NMS deviate from core.head."""
    binary = kernels.cubin(device.capability)
    found = {}
    for layout, dtype in _layouts():
        box, score, same_sets = 0.0, 0.0, True
        for index in range(rounds):
            classes = int(rng.choice([1, 7, 80]))
            card = ModelCard('check', tuple(f'c{i}' for i in range(classes)), (640, 384), 32,
                             layout, int(rng.integers(1, 9000)))
            network = _NoNetwork(card, SINGLE, dtype)
            frame = Frame(device, network, network.outputs[0], card, 1,
                          Kernels(device, binary, SINGLE, dtype))
            head = random_head(rng, card, float(rng.choice([0.01, 0.1, 0.9]))).astype(dtype)
            letterbox = random_letterbox(rng, card)
            selection = random_selection(rng, classes)
            view = ImageView(np.zeros(letterbox.source[0] * letterbox.source[1], np.uint8),
                             *letterbox.source, letterbox.source[0], 'mono8')
            recording = Recording(device, [Sampling.plan(view, card.input_size)], False)
            frame.select(selection)
            device.copy_in(frame.output, head)
            frame.enqueue_decode(recording)
            same, box_error, score_error = compare_detections(
                frame.finish(1)[0],
                detect(head.astype(np.float32), layout, letterbox, selection))
            same_sets &= same
            box, score = max(box, box_error), max(score, score_error)
            recording.close()
            frame.close()
        found[f'{layout.value} {dtype.name}'] = Deviation(
            rounds, box_px=box, score=score, same_sets=same_sets)
    return found


def _layouts() -> Iterator[Tuple[HeadLayout, np.dtype]]:
    return ((layout, kind) for layout in HeadLayout for kind in (SINGLE, HALF))
