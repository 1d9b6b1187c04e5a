"""Where the values of a head lie in GPU memory, as the kernels read it."""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np

from yolojet_ros.core.head import Place
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.tensorrt_network import Tensor


def describe(card: ModelCard, tensors: Sequence[Tensor], pointers: Sequence[int]) -> np.ndarray:
    """
    Return the kernels' struct Head.

    :param tensors: the outputs of the head, in the order of `card.head.outputs`
    :param pointers: their addresses
    """
    reading, head = card.head, card.head.head

    def values(place: Optional[Place], transposed: bool = head.columns_first) -> np.ndarray:
        found = np.zeros((), kernels.VALUES)
        if place is None:
            return found
        tensor = tensors[place.output]
        sizes = tuple(tensor.shape[1:])
        found['image'] = int(np.prod(sizes))
        steps = (1, 0) if len(sizes) == 1 else (sizes[-1], 1)
        found['row'], found['column'] = reversed(steps) if transposed else steps
        found['type'] = kernels.VALUE_TYPES[tensor.dtype.name]
        found['data'] = pointers[place.output] + (
            place.column * int(found['column']) * tensor.dtype.itemsize)
        return found

    struct = np.zeros((), kernels.HEAD)
    struct['box'] = values(head.box)
    struct['score'] = values(head.class_score if head.label is None else head.score)
    struct['label'] = values(head.label)
    struct['objectness'] = values(head.objectness)
    struct['count'] = values(None if head.count is None else Place(head.count))
    if reading.extras:
        struct['extra'], struct['extras'] = values(reading.extra), reading.extras
    if reading.masks:
        # Rows are those of all prototypes below each other.
        _, masks, height, width = tensors[-1].shape
        struct['prototypes'] = values(Place(len(tensors) - 1), False)
        struct['prototypes']['image'] = masks * height * width
        struct['mask_height'], struct['mask_width'] = height, width
    struct['rows'] = reading.rows
    struct['classes'] = len(card.names)
    struct['corners'], struct['rotated'] = reading.corners, card.task == 'obb'
    struct['normalized'], struct['grid'] = head.normalized, head.grid
    struct['logits'] = head.logits
    struct['width'], struct['height'] = card.input_size
    return struct


def takes(card: ModelCard) -> np.ndarray:
    """Return the kernels' struct Takes: what becomes of the bytes of an image."""
    struct = np.zeros((), kernels.TAKES)
    struct['factor'], struct['offset'] = card.input.affine
    struct['channel'] = (0, 1, 2) if card.input.order == 'rgb' else (2, 1, 0)
    struct['pad'] = card.input.pad
    struct['step'] = card.input.step
    return struct
