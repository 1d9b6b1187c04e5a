"""Inputs and outputs of a model file, whatever runtime reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple, Union

from yolojet_ros.core.text import one_line


def is_fixed(size) -> bool:
    """Return whether a dimension is a number that the file fixes."""
    return isinstance(size, int) and size > 0


@dataclass(frozen=True)
class TensorSpec:
    """
    A tensor of a model.

    dtype: NumPy's name of it: 'float32', 'float16', 'uint8', 'int32', 'int64', ...
    shape: a str, or a number that is not positive, for a dimension that is dynamic
    """

    name: str
    dtype: str
    shape: Tuple[Union[int, str], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'shape', tuple(
            one_line(size, 30) if isinstance(size, str) else size for size in self.shape))

    @property
    def is_float(self) -> bool:
        """Return whether it holds float32 or float16."""
        return self.dtype in ('float32', 'float16')

    def __str__(self) -> str:
        return f'{one_line(self.name, 60)} {self.dtype} {list(self.shape)}'
