"""What a model file says of itself: input size, classes, stride and head layout."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from enum import Enum
from typing import Mapping, Sequence, Tuple

from yolojet_ros.core.errors import UserError

STRIDES = (8, 16, 32)


class HeadLayout(Enum):
    """Layout of the output tensor of one image."""

    RAW = 'raw'  # [4 + nc, A]
    TRANSPOSED = 'transposed'  # [A, 4 + nc]
    NMS = 'nms'  # [N, 6]


@dataclass(frozen=True)
class ModelCard:
    """
    Identity of a detection model.

    source: file name, for messages
    names: class names, by index
    input_size: (width, height) in pixels
    stride: largest stride of the head
    layout: of the output
    boxes: rows of the output: anchor points (RAW, TRANSPOSED) or detections (NMS)
    batch: images of one run; 0 where the batch dimension is dynamic
    half: whether the input is float16
    """

    source: str
    names: Tuple[str, ...]
    input_size: Tuple[int, int]
    stride: int
    layout: HeadLayout
    boxes: int
    batch: int = 1
    half: bool = False

    @classmethod
    def from_tensors(
        cls,
        source: str,
        metadata: Mapping[str, str],
        input_shape: Sequence,
        output_shape: Sequence,
        half: bool = False,
    ) -> ModelCard:
        """
        Read the card from a model's metadata and tensor shapes.

        :param source: file name, for messages
        :param metadata: string keys `names`, `stride`, `imgsz`, `task` as YOLOv8
            exports carry them; any may be missing
        :param input_shape: [batch, 3, H, W]; a dimension that is not a positive
            int is dynamic
        :param output_shape: [batch, 4 + nc, A], [batch, A, 4 + nc] or [batch, N, 6]
        :raises UserError: if this is not a YOLOv8 detection model.
        """
        task = metadata.get('task', 'detect')
        if task != 'detect':
            raise UserError(
                f'{source} is a "{task}" model; a YOLOv8 detection model (task "detect") '
                'is needed')
        batch, size = _input(source, metadata, input_shape)
        names = _names(source, metadata.get('names'))
        layout, boxes, count = _layout(source, output_shape, size, len(names))
        if names and layout is not HeadLayout.NMS and len(names) != count:
            raise UserError(
                f'{source} names {len(names)} classes in its metadata but its output has '
                f'{count}; export it again')
        if not names:
            # The output of a model that ends in NMS does not tell how many classes there are.
            names = tuple(f'class_{index}' for index in range(count or 1000))
        stride = int(float(metadata.get('stride', STRIDES[-1])))
        return cls(source, names, size, stride, layout, boxes, batch, half)


def anchor_count(size: Tuple[int, int]) -> int:
    """Return how many anchor points a YOLOv8 head has for a (width, height) input."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)


def _fixed(dimension) -> bool:
    return isinstance(dimension, int) and dimension > 0


def _input(source: str, metadata: Mapping[str, str], shape: Sequence):
    if len(shape) != 4 or (_fixed(shape[1]) and shape[1] != 3):
        raise UserError(
            f'{source} takes an input of shape {list(shape)}; [batch, 3, height, width] '
            'of a YOLOv8 detection model is needed')
    batch = shape[0] if _fixed(shape[0]) else 0
    if _fixed(shape[2]) and _fixed(shape[3]):
        return batch, (shape[3], shape[2])
    try:
        image_size = ast.literal_eval(metadata['imgsz'])
        height, width = image_size if isinstance(image_size, (list, tuple)) else (image_size,) * 2
        return batch, (int(width), int(height))
    except (KeyError, ValueError, SyntaxError, TypeError):
        raise UserError(
            f'{source} has a dynamic input size and no imgsz in its metadata; '
            'export it with a fixed input size') from None


def _names(source: str, text) -> Tuple[str, ...]:
    if not text:
        return ()
    try:
        names = ast.literal_eval(text)
        if isinstance(names, dict):
            names = [names[index] for index in range(len(names))]
        return tuple(str(name) for name in names)
    except (ValueError, SyntaxError, KeyError, TypeError):
        raise UserError(
            f'the class names in the metadata of {source} cannot be read ({text[:60]!r}); '
            'they must be a dict {0: "name", ...} or a list') from None


def _layout(source: str, shape: Sequence, size: Tuple[int, int], known: int):
    """Return (layout, rows, class count or 0 if the output does not tell)."""
    anchors = anchor_count(size)
    if len(shape) == 3:
        _, first, second = shape
        raw = second == anchors or (known and first == 4 + known)
        if raw and _fixed(first) and first > 4:
            return HeadLayout.RAW, anchors, first - 4
        transposed = first == anchors or (known and second == 4 + known and second != 6)
        if transposed and _fixed(second) and second > 4:
            return HeadLayout.TRANSPOSED, anchors, second - 4
        if second == 6:
            return HeadLayout.NMS, first if _fixed(first) else 0, 0
    raise UserError(
        f'{source} gives an output of shape {list(shape)}; a YOLOv8 detection head '
        f'[1, 4 + classes, {anchors}], its transpose, or [1, N, 6] after NMS is expected '
        f'for an input of {size[0]}x{size[1]}')
