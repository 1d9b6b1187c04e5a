"""How an image goes into a network: where it lies, and what becomes of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
import math
from typing import Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import shown

Triple = Tuple[float, float, float]
# The gray that YOLO models are trained with around their images.
PAD_VALUE = 114
_MAX_FACTOR = 1e6


class Fit(Enum):
    """Where the image lies in the network's input."""

    LETTERBOX = 'letterbox'  # one scale for both axes, centred
    TOP_LEFT = 'top_left'  # one scale for both axes, in the corner
    STRETCH = 'stretch'  # fills the input, each axis with its own scale
    CROP = 'crop'  # one scale for both axes, fills the input; what is too much is cut off


@dataclass(frozen=True)
class ImageInput:
    """
    What a network takes: value = (byte * scale - mean) / std for each channel.

    fit: where the image lies
    pad: byte that fills the rest, 0..255
    order: 'rgb' or 'bgr', of the three channels
    scale: mostly 1/255
    mean, std: by channel, in that order
    dtype: 'float32', 'float16', 'uint8' (the bytes as they are) or 'int8' (values in whole steps)
    step: value that becomes 1 in 'int8'
    antialias: where the image shrinks, every pixel of it counts (core.antialias), not only the
        nearest four

    :raises UserError: if a value is out of its range.
    """

    fit: Fit = Fit.LETTERBOX
    pad: int = PAD_VALUE
    order: str = 'rgb'
    scale: float = 1 / 255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    dtype: str = 'float32'
    step: float = 1.0
    antialias: bool = False

    def __post_init__(self) -> None:
        _check('pad', self.pad, type(self.pad) is int and 0 <= self.pad <= 255, '0 to 255')
        _check('antialias', self.antialias, type(self.antialias) is bool, 'true or false')
        _check('order', self.order, self.order in ('rgb', 'bgr'), 'rgb or bgr')
        _check('scale', self.scale, _is_factor(self.scale), 'a number above 0')
        _check('step', self.step, _is_factor(self.step), 'a number above 0')
        for name, values, least in (('mean', self.mean, -_MAX_FACTOR), ('std', self.std, 0.0)):
            good = isinstance(values, tuple) and len(values) == 3 and all(
                _is_number(value) and least <= value <= _MAX_FACTOR for value in values)
            _check(name, values, good and (name == 'mean' or min(values) > 0),
                   'three numbers' + (' above 0' if name == 'std' else ''))

    @property
    def affine(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return float32[3] (factors, offsets): value = byte * factor + offset."""
        if self.dtype == 'uint8':
            return np.ones(3, np.float32), np.zeros(3, np.float32)
        std = np.array(self.std)
        return ((self.scale / std).astype(np.float32),
                (-np.array(self.mean) / std + 0.0).astype(np.float32))

    @property
    def blank(self) -> np.ndarray:
        """Return what a pixel of the padding becomes, `dtype`[3]."""
        factors, offsets = self.affine
        return self.typed(np.float32(self.pad) * factors + offsets)

    def typed(self, values: np.ndarray) -> np.ndarray:
        """Return float32 values as `dtype`; int8 as ONNX's QuantizeLinear does it."""
        if self.dtype != 'int8':
            return values.astype(self.dtype)
        return np.clip(np.rint(values / np.float32(self.step)), -128, 127).astype(np.int8)


def _is_number(value) -> bool:
    # An int of any size has no float.
    return type(value) is float and math.isfinite(value) or (
        type(value) is int and abs(value) <= _MAX_FACTOR)


def _is_factor(value) -> bool:
    return _is_number(value) and 0 < value <= _MAX_FACTOR


def _check(name: str, value, good: bool, expected: str) -> None:
    if not good:
        raise UserError(f'{name} of the input is {shown(value)}; {expected} is expected')
