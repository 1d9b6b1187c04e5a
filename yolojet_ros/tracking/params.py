"""The knobs of the tracker, each with its range and what raising it does."""

from __future__ import annotations

from dataclasses import dataclass

from yolojet_ros.core.knobs import check_knobs, knob


@dataclass(frozen=True)
class TrackerParams:
    """
    Parameters of `Tracker`; every field has a range and a description in its metadata.

    Lengths are fractions of the box size and times are seconds, so that one set
    of values serves every resolution and frame rate. The defaults are the middle of
    the settings that did best on most sequences, not the best on any.

    :raises UserError: if a value has the wrong type or is out of its range.
    """

    high_score: float = knob(
        0.5, 'Score from which a detection takes part in the first association. Raising it '
        'leaves more boxes to the stricter second association.', 0.0, 1.0)
    low_score: float = knob(
        0.1, 'Score below which a detection is ignored. Raising it loses more partly hidden '
        'objects.', 0.0, 1.0)
    birth_score: float = knob(
        0.6, 'Score from which an unmatched detection starts a track. Raising it gives fewer '
        'false tracks and later true ones.', 0.0, 1.0)
    instant_score: float = knob(
        0.9, 'Score from which a new track is confirmed by its first detection. Raising it '
        'makes more tracks wait for confirm_hits.', 0.0, 1.0)
    confirm_hits: int = knob(
        2, 'Detections in a row that confirm a new track. Raising it gives fewer false tracks, '
        'published later.', 1, 100)
    lost_seconds: float = knob(
        1.5, 'Seconds for which a track without detections is kept to be found again. Raising '
        'it keeps ids through longer gaps and risks giving an old id to a newcomer.', 0.0, 60.0)
    match_gate: float = knob(
        0.23, 'Least IoU x height overlap x square root of the score of the first association. '
        'Raising it makes matches stricter: fewer swaps, more breaks.', 0.0, 1.0)
    lost_penalty: float = knob(
        0.9, 'Factor on the similarity of a lost track. Raising it lets lost tracks compete '
        'more for boxes with tracks in sight.', 0.0, 1.0)
    low_gate: float = knob(
        0.49, 'Least IoU x height overlap of the second association (low scores). Raising it '
        'makes it stricter.', 0.0, 1.0)
    lost_low_gate: float = knob(
        0.6, 'The same for tracks lost a moment ago. Raising it brings fewer of them back by '
        'a doubtful box.', 0.0, 1.0)
    lost_low_seconds: float = knob(
        0.15, 'Seconds after which a lost track takes no doubtful box any more. Raising it '
        'keeps partly hidden objects longer and risks boxes of others.', 0.0, 60.0)
    tentative_gate: float = knob(
        0.3, 'Least IoU x score that continues a track not confirmed yet. Raising it gives '
        'fewer and safer new tracks.', 0.0, 1.0)
    recover_iou: float = knob(
        0.42, 'Least IoU between a detection and the place where a track was last seen, to '
        'bring it back. Raising it recovers fewer objects that stopped or turned.', 0.0, 1.0)
    recover_seconds: float = knob(
        1.0, 'Seconds for which the place where a track was last seen is worth a look. Raising '
        'it recovers more standing objects and more of the wrong ones.', 0.0, 60.0)
    appearance_gate: float = knob(
        0.5, 'Least similarity of looks that brings back a lost track, where descriptors are '
        'given. Raising it recovers fewer and safer.', -1.0, 1.0)
    duplicate_iou: float = knob(
        0.62, 'IoU with a matched box above which a detection starts no track. Raising it '
        'allows closer neighbours and more duplicates.', 0.0, 1.0)
    class_penalty: float = knob(
        0.5, 'Factor on the similarity of a track and a detection of another class. Raising it '
        'makes class changes cheaper; 0 forbids them.', 0.0, 1.0)
    class_vote: bool = knob(
        False, 'Publish the class that the detections of a track voted for, weighted by score. '
        'Raising it to true stops labels from flickering and shows a true change later.')
    position_noise: float = knob(
        0.26, 'Random walk of position and size, in box sizes per square root of a second. '
        'Raising it follows detections more closely and trusts the prediction less.', 0.0, 10.0)
    velocity_noise: float = knob(
        0.5, 'Random walk of the velocity, in box sizes per second per square root of a '
        'second. Raising it follows turns faster and coasts less straight.', 0.0, 100.0)
    measurement_noise: float = knob(
        0.066, 'Standard deviation of a detected position or size at score 0.5, in box sizes; '
        'half of it at 1. Raising it gives smoother and slower tracks.', 0.001, 1.0)
    max_tracks: int = knob(
        1000, 'Most tracks held and detections looked at per frame (best scores first). '
        'Raising it costs memory and time in crowds.', 1, 10000)

    def __post_init__(self) -> None:
        check_knobs(self)
