"""Parameters as dataclass fields that know their range and what they do."""

from __future__ import annotations

from dataclasses import field, fields
import math
from typing import Any, Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import shown


def knob(
    default: Any, description: str, minimum: Optional[float] = None,
    maximum: Optional[float] = None,
) -> Any:
    """
    Return a dataclass field with `description`, `minimum` and `maximum` in its metadata.

    The type of `default` is the type of the parameter; a number has a range.
    """
    return field(default=default, metadata={
        'description': description, 'minimum': minimum, 'maximum': maximum})


def check_knobs(params: Any) -> None:
    """
    Check type and range of every bool or number field of a (frozen) dataclass instance.

    An int where a float belongs becomes a float.

    :raises UserError: naming the parameter, the value and the range.
    """
    for item in fields(params):
        value, wanted = getattr(params, item.name), type(item.default)
        if wanted is float and type(value) is int:
            value = float(value)
            object.__setattr__(params, item.name, value)
        if wanted is bool and type(value) is not bool:
            raise UserError(f'{item.name} is {shown(value)}; set true or false')
        if wanted in (int, float):
            low, high = item.metadata['minimum'], item.metadata['maximum']
            if type(value) is not wanted or not math.isfinite(value) or not low <= value <= high:
                kind = 'a whole number' if wanted is int else 'a number'
                raise UserError(f'{item.name} is {shown(value)}; set {kind} from {low} to {high}')
