"""The knobs of the tracker, each with its range and what raising it does."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
import math
from typing import Any

from yolojet_ros.core.errors import UserError


def _knob(default: Any, minimum: float, maximum: float, description: str) -> Any:
    return field(default=default, metadata={
        'minimum': minimum, 'maximum': maximum, 'description': description})


@dataclass(frozen=True)
class TrackerParams:
    """
    Parameters of `Tracker`; every field has a range and a description in its metadata.

    The type of a field's default is the type of the parameter. Lengths are
    fractions of the box size and times are seconds, so that one set of values
    serves every resolution and frame rate.

    :raises UserError: if a value has the wrong type or is out of its range.
    """

    high_score: float = _knob(
        0.5, 0.0, 1.0,
        'Score from which a detection takes part in the first association and may start a '
        'track. Raising it leaves more boxes to the stricter second association.')
    low_score: float = _knob(
        0.1, 0.0, 1.0,
        'Score below which a detection is ignored. Raising it loses more partly hidden objects.')
    birth_score: float = _knob(
        0.6, 0.0, 1.0,
        'Score from which an unmatched detection starts a track. Raising it gives fewer '
        'false tracks and later true ones.')
    instant_score: float = _knob(
        0.9, 0.0, 1.0,
        'Score from which a new track is confirmed by its first detection. Raising it makes '
        'more tracks wait for confirm_hits.')
    confirm_hits: int = _knob(
        2, 1, 100,
        'Detections in a row that confirm a new track. Raising it gives fewer false tracks, '
        'published later.')
    lost_seconds: float = _knob(
        1.5, 0.0, 60.0,
        'Seconds for which a track without detections is kept to be found again. Raising it '
        'keeps ids through longer gaps and risks giving an old id to a newcomer.')
    match_gate: float = _knob(
        0.2, 0.0, 1.0,
        'Least IoU x height overlap x score of the first association. Raising it makes '
        'matches stricter: fewer swaps, more breaks.')
    low_iou: float = _knob(
        0.5, 0.0, 1.0,
        'Least IoU of the second association (low scores). Raising it makes it stricter.')
    tentative_iou: float = _knob(
        0.3, 0.0, 1.0,
        'Least IoU x score that continues a track not confirmed yet. Raising it gives fewer '
        'and safer new tracks.')
    recover_iou: float = _knob(
        0.35, 0.0, 1.0,
        'Least IoU between a detection and the place where a track was last seen, to bring it '
        'back. Raising it recovers fewer objects that stopped or turned.')
    duplicate_iou: float = _knob(
        0.7, 0.0, 1.0,
        'IoU with a matched box above which a detection starts no track. Raising it allows '
        'closer neighbours and more duplicates.')
    class_penalty: float = _knob(
        0.5, 0.0, 1.0,
        'Factor on the similarity of a track and a detection of another class. Raising it '
        'makes class changes cheaper; 0 forbids them.')
    position_noise: float = _knob(
        0.27, 0.0, 10.0,
        'Random walk of position and size, in box sizes per square root of a second. Raising '
        'it follows detections more closely and trusts the prediction less.')
    velocity_noise: float = _knob(
        1.0, 0.0, 100.0,
        'Random walk of the velocity, in box sizes per second per square root of a second. '
        'Raising it follows turns faster and coasts less straight.')
    measurement_noise: float = _knob(
        0.05, 0.001, 1.0,
        'Standard deviation of a detected position or size, in box sizes. Raising it gives '
        'smoother and slower tracks.')
    max_tracks: int = _knob(
        1000, 1, 10000,
        'Most tracks held and detections looked at per frame (best scores first). Raising it '
        'costs memory and time in crowds.')

    def __post_init__(self) -> None:
        for knob in fields(self):
            value, wanted = getattr(self, knob.name), type(knob.default)
            low, high = knob.metadata['minimum'], knob.metadata['maximum']
            if wanted is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, knob.name, float(value))
                value = float(value)
            if type(value) is not wanted or not math.isfinite(value) or not low <= value <= high:
                raise UserError(
                    f'tracker parameter {knob.name} is {value!r}; '
                    f'set a {wanted.__name__} between {low} and {high}')
