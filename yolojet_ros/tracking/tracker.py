"""
Multi-object tracking: ids that hold, from boxes and time alone.

The order of associations is that of ByteTrack (Zhang et al., ECCV 2022): first
the confident boxes, then the doubtful ones for tracks still without a box. Added
are real time, camera motion, and recovery at the place where a track was last
seen (Cao et al., OC-SORT, CVPR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
import math
from typing import Any, List, Optional, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking import kalman
from yolojet_ros.tracking.association import assign, overlapping_pairs, pair_overlap
from yolojet_ros.tracking.params import TrackerParams

# Rows of the table of tracks, float64[_ROWS, max_tracks]; column = track.
_FILTER = slice(0, kalman.BLOCK)
_SEEN_AT = slice(20, 24)  # box where the track was last detected, moved along with the camera
_UNSEEN, _AGE, _SCORE, _HITS, _ID, _CLASS, _VOTE, _STATE = range(24, 32)
_ROWS = 32
_FARTHEST = 1e6  # px; boxes with coordinates beyond are taken for garbage
_VOTE_LIMIT = 10.0  # evidence a class can gather, so that a true change wins in a few frames
_RECOVER_GROWTH = 1.1
_USUAL_INTERVAL = 1 / 30  # s, until two stamps have told


class TrackState(IntEnum):
    """Where a track is in its life; removed tracks are not kept."""

    TENTATIVE = 0
    CONFIRMED = 1
    LOST = 2


@dataclass(frozen=True)
class Track:
    """What is known of one track; a copy that later updates do not change."""

    id: int  # -1 until confirmed
    state: TrackState
    box: Tuple[float, float, float, float]  # filtered x1, y1, x2, y2, px
    velocity: Tuple[float, float]  # of the centre, px/s
    class_id: int  # vote weighted by score
    score: float  # of the last detection
    age: float  # s since the first detection
    unseen: float  # s since the last detection


class Tracker:
    """
    Give the detections of consecutive frames ids that stay with the objects.

    One tracker serves one image stream. Ids start at 1 and are never reused, not
    even after `reset`. Equal input gives equal output. Memory is fixed by
    `TrackerParams.max_tracks` whatever comes in.

    Example::

        tracker = create_tracker(lost_seconds=2.0)
        ids = tracker.update(boxes, scores, classes, stamp)
    """

    def __init__(self, params: Optional[TrackerParams] = None) -> None:
        self._params: TrackerParams = params or TrackerParams()
        self._table: np.ndarray = np.zeros((_ROWS, self._params.max_tracks))
        self._count: int = 0
        self._next_id: int = 1
        self._stamp: Optional[float] = None
        self._interval: float = _USUAL_INTERVAL

    @property
    def params(self) -> TrackerParams:
        """Return the parameters in use."""
        return self._params

    def set_params(self, params: TrackerParams) -> None:
        """Use `params` from the next update on; tracks and ids stay."""
        if params.max_tracks != self._params.max_tracks:
            self._count = min(self._count, params.max_tracks)
            table = np.zeros((_ROWS, params.max_tracks))
            table[:, :self._count] = self._table[:, :self._count]
            self._table = table
        self._params = params

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._count = 0
        self._stamp = None
        self._interval = _USUAL_INTERVAL

    @property
    def tracks(self) -> List[Track]:
        """Return a copy of all tracks held, coasting and tentative ones included."""
        table = self._table[:, :self._count]
        boxes = _corners(table[:4])
        return [Track(
            id=int(t[_ID]), state=TrackState(int(t[_STATE])), box=tuple(box.tolist()),
            velocity=(float(t[4]), float(t[5])), class_id=int(t[_CLASS]),
            score=float(t[_SCORE]), age=float(t[_AGE]), unseen=float(t[_UNSEEN]),
        ) for t, box in zip(table.T, boxes.T)]

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
        stamp: float,
        warp: Optional[np.ndarray] = None,
        embeddings: Optional[np.ndarray] = None,
    ) -> np.ndarray:
        """
        Take the detections of one frame and return their track ids.

        Call it for empty frames too. Boxes that are not finite, have no area, or
        lie farther than 1e6 px are ignored, as are scores that are not numbers;
        scores above 1 count as 1. A stamp that repeats, is not finite, or goes
        back a little counts as one frame interval later; one that jumps by more than
        `lost_seconds` either way drops all tracks.

        :param boxes: float[n, 4], x1, y1, x2, y2 in px.
        :param scores: float[n], 0..1, down to `low_score`: doubtful boxes keep tracks alive.
        :param classes: int[n].
        :param stamp: time of the frame, s.
        :param warp: float[2, 3], affine from the previous frame given to this one, px, or
            None if the camera stood still or its motion is unknown.
        :param embeddings: float[n, d], L2-normalised appearance of each box, or None.
        :return: int64[n], ids; -1 for a detection that is not (yet) part of a confirmed track.
        :raises ValueError: if the arrays do not have the shapes above.
        """
        boxes, scores, classes = _checked(boxes, scores, classes)
        ids = np.full(len(scores), -1, np.int64)
        self._advance(stamp, _usable_warp(warp))
        kept = self._usable(boxes, scores)
        if len(kept) == 0:
            self._retire(np.full(self._count, -1))
            return ids
        boxes = np.ascontiguousarray(boxes[kept].T)
        scores = np.minimum(scores[kept], 1.0)
        classes = classes[kept]
        match = self._associate(boxes, scores, classes)
        found = np.flatnonzero(match >= 0)
        if len(found):
            self._correct(found, match[found], boxes, scores, classes)
        ids[kept] = self._finish(match, found, boxes, scores, classes)
        return ids

    def _advance(self, stamp: float, warp: Optional[np.ndarray]) -> None:
        """Bring all tracks to the time and the camera position of the new frame."""
        p, dt = self._params, self._elapsed(float(stamp))
        if abs(dt) > p.lost_seconds:
            self._count = 0
        elif dt > 0:
            self._interval = dt
        else:
            dt = self._interval
        table = self._table[:, :self._count]
        if self._count:
            kalman.predict(table[_FILTER], dt, p.position_noise, p.velocity_noise)
            table[_UNSEEN:_AGE + 1] += dt
            if warp is not None:
                kalman.warp(table[_FILTER], warp)
                table[_SEEN_AT] = _warped(table[_SEEN_AT], warp)

    def _elapsed(self, stamp: float) -> float:
        """Return the seconds since the last update; 0 where that cannot be said."""
        if not math.isfinite(stamp):
            return 0.0
        last, self._stamp = self._stamp, stamp
        return 0.0 if last is None else stamp - last

    def _usable(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the indices of the detections worth looking at, at most max_tracks of them."""
        with np.errstate(invalid='ignore', over='ignore'):
            ok = ((boxes[:, 2:] > boxes[:, :2]) & (np.abs(boxes[:, 2:]) < _FARTHEST)
                  & (np.abs(boxes[:, :2]) < _FARTHEST))
        kept = np.flatnonzero(ok[:, 0] & ok[:, 1] & (scores >= self._params.low_score))
        if len(kept) > self._params.max_tracks:
            order = np.argsort(-scores[kept], kind='stable')[:self._params.max_tracks]
            kept = np.sort(kept[order])
        return kept

    def _associate(
            self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the detection of each track, int64[tracks], -1 where there is none."""
        p, table = self._params, self._table[:, :self._count]
        match = np.full(self._count, -1)
        if self._count == 0:
            return match
        predicted = _corners(table[:4])
        track, det = overlapping_pairs(predicted, boxes)
        iou, height = pair_overlap(predicted[:, track], boxes[:, det])
        same = np.where(table[_CLASS, track] == classes[det], 1.0, p.class_penalty)
        pair_score, state = scores[det], table[_STATE, track]
        high, sure = pair_score >= p.high_score, state != TrackState.TENTATIVE
        used = np.zeros(len(scores), bool)

        def take(candidates: np.ndarray, gain: np.ndarray) -> None:
            chosen = np.flatnonzero(candidates)
            if len(chosen):
                chosen = chosen[assign(track[chosen], det[chosen], gain[chosen])]
                match[track[chosen]] = det[chosen]
                used[det[chosen]] = True

        iou *= same
        gain = iou * height * pair_score
        take(high & sure & (gain > p.match_gate), gain)
        free = (match[track] < 0) & ~used[det]
        take(free & ~high & (state == TrackState.CONFIRMED) & (iou > p.low_iou), iou)
        free = (match[track] < 0) & ~used[det]
        gain = iou * pair_score
        take(free & high & ~sure & (gain > p.tentative_iou), gain)
        self._recover(match, used, boxes, scores, classes)
        return match

    def _recover(
            self, match: np.ndarray, used: np.ndarray, boxes: np.ndarray,
            scores: np.ndarray, classes: np.ndarray) -> None:
        """Match remaining tracks to confident boxes at the place where they were last seen."""
        p, table = self._params, self._table[:, :self._count]
        tracks = np.flatnonzero((match < 0) & (table[_STATE] != TrackState.TENTATIVE))
        dets = np.flatnonzero(~used & (scores >= p.high_score))
        if len(tracks) == 0 or len(dets) == 0:
            return
        places, candidates = _grown(table[_SEEN_AT][:, tracks]), _grown(boxes[:, dets])
        track, det = overlapping_pairs(places, candidates)
        iou, _ = pair_overlap(places[:, track], candidates[:, det])
        iou *= np.where(
            table[_CLASS, tracks[track]] == classes[dets[det]], 1.0, p.class_penalty)
        near = np.flatnonzero(iou > p.recover_iou)
        if len(near):
            near = near[assign(track[near], det[near], iou[near])]
            match[tracks[track[near]]] = dets[det[near]]
            used[dets[det[near]]] = True

    def _correct(
            self, tracks: np.ndarray, dets: np.ndarray, boxes: np.ndarray,
            scores: np.ndarray, classes: np.ndarray) -> None:
        """Correct the matched tracks by their detections."""
        p = self._params
        found = self._table[:, tracks]
        boxes, scores, classes = boxes[:, dets], scores[dets], classes[dets]
        kalman.correct(
            found[_FILTER], _centres(boxes), np.full(len(dets), p.measurement_noise))
        found[_SEEN_AT] = boxes
        found[_UNSEEN] = 0.0
        found[_SCORE] = scores
        found[_HITS] += 1
        # Weighted majority vote (Boyer and Moore, 1981): one class and its evidence.
        found[_VOTE] += np.where(found[_CLASS] == classes, scores, -scores)
        found[_CLASS] = np.where(found[_VOTE] < 0, classes, found[_CLASS])
        found[_VOTE] = np.minimum(np.abs(found[_VOTE]), _VOTE_LIMIT)
        found[_STATE] = np.where(
            (found[_STATE] != TrackState.TENTATIVE) | (found[_HITS] >= p.confirm_hits)
            | (scores >= p.instant_score), TrackState.CONFIRMED, TrackState.TENTATIVE)
        self._table[:, tracks] = found

    def _finish(
            self, match: np.ndarray, found: np.ndarray, boxes: np.ndarray,
            scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Start, name and retire tracks; return the id of each detection."""
        ids = np.full(len(scores), -1, np.int64)
        table = self._table[:, :self._count]
        self._name(table)
        dets = match[found]
        ids[dets] = table[_ID, found]
        born = scores >= self._params.birth_score
        born[dets] = False
        self._retire(match)
        born = np.flatnonzero(born)
        if len(born):
            born = self._distinct(born, dets, boxes, scores)
            self._start(born, boxes, scores, classes, ids)
        return ids

    def _name(self, table: np.ndarray) -> None:
        """Give the next ids to confirmed tracks that have none."""
        new = np.flatnonzero((table[_STATE] == TrackState.CONFIRMED) & (table[_ID] < 0))
        table[_ID, new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)

    def _retire(self, match: np.ndarray) -> None:
        """Mark tracks without a detection as lost; drop the old and the tentative ones."""
        missed = match < 0
        if not missed.any():
            return
        table = self._table[:, :self._count]
        keep = ~missed | ((table[_STATE] != TrackState.TENTATIVE)
                          & (table[_UNSEEN] <= self._params.lost_seconds))
        table[_STATE, missed] = TrackState.LOST
        if not keep.all():
            self._count = int(np.count_nonzero(keep))
            self._table[:, :self._count] = table[:, keep]

    def _distinct(
            self, born: np.ndarray, matched: np.ndarray, boxes: np.ndarray,
            scores: np.ndarray) -> np.ndarray:
        """Return those of `born` that do not repeat a matched or a better new detection."""
        born = born[np.argsort(-scores[born], kind='stable')]
        others = np.concatenate((matched, born))
        new, other = overlapping_pairs(boxes[:, born], boxes[:, others])
        iou, _ = pair_overlap(boxes[:, born[new]], boxes[:, others[other]])
        twice = (iou > self._params.duplicate_iou) & (other < new + len(matched))
        keep = np.ones(len(born), bool)
        keep[new[twice]] = False
        return born[keep]

    def _start(
            self, born: np.ndarray, boxes: np.ndarray, scores: np.ndarray,
            classes: np.ndarray, ids: np.ndarray) -> None:
        """Start a track at each detection of `born`, as far as there is room."""
        p = self._params
        born = born[:p.max_tracks - self._count]
        table = self._table[:, self._count:self._count + len(born)]
        boxes, scores = boxes[:, born], scores[born]
        kalman.start(table[_FILTER], _centres(boxes), p.measurement_noise)
        table[_SEEN_AT] = boxes
        table[_UNSEEN:_AGE + 1] = 0.0
        table[_SCORE] = table[_VOTE] = scores
        table[_HITS] = 1
        table[_ID] = -1
        table[_CLASS] = classes[born]
        table[_STATE] = np.where(
            (scores >= p.instant_score) | (p.confirm_hits == 1),
            TrackState.CONFIRMED, TrackState.TENTATIVE)
        self._name(table)
        ids[born] = table[_ID]
        self._count += len(born)


def create_tracker(**params: Any) -> Tracker:
    """
    Return a tracker with the given fields of `TrackerParams` set.

    :raises UserError: if a parameter does not exist or is out of its range.
    """
    known = [f.name for f in fields(TrackerParams)]
    for name in params:
        if name not in known:
            raise UserError(
                f'the tracker has no parameter {name!r}; it has {", ".join(known)}')
    return Tracker(replace(TrackerParams(), **params))


def _checked(
        boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, scores, classes = np.asarray(boxes), np.asarray(scores), np.asarray(classes)
    n = scores.shape[0] if scores.ndim == 1 else -1
    if n < 0 or classes.shape != (n,) or (boxes.shape != (n, 4) and (n or boxes.size)):
        raise ValueError(
            f'boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape} do not '
            'belong together; give boxes [n, 4], scores [n] and classes [n]')
    return boxes.reshape(n, 4).astype(np.float64, copy=False), scores, classes


def _usable_warp(warp: Optional[np.ndarray]) -> Optional[np.ndarray]:
    """Return `warp` as float64[2, 3], or None if it is none, not finite or degenerate."""
    if warp is None:
        return None
    warp = np.asarray(warp, np.float64)
    if warp.shape != (2, 3):
        raise ValueError(f'warp has shape {warp.shape}; give an affine of shape (2, 3)')
    if not np.abs(warp).max() < _FARTHEST or not 0.1 < kalman.affine_scale(warp) < 10.0:
        return None
    return warp


def _corners(centres: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 [4, n] of cx, cy, w, h [4, n]."""
    half = centres[2:] * 0.5
    return np.concatenate((centres[:2] - half, centres[:2] + half))


def _centres(corners: np.ndarray) -> np.ndarray:
    """Return cx, cy, w, h [4, n] of x1, y1, x2, y2 [4, n]."""
    return np.concatenate(((corners[:2] + corners[2:]) * 0.5, corners[2:] - corners[:2]))


def _grown(corners: np.ndarray) -> np.ndarray:
    """Return boxes [4, n] grown about their centres."""
    margin = (corners[2:] - corners[:2]) * ((_RECOVER_GROWTH - 1) / 2)
    return np.concatenate((corners[:2] - margin, corners[2:] + margin))


def _warped(corners: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return boxes [4, n] moved by an affine; they stay upright."""
    centres = _centres(corners)
    centres[:2] = matrix[:, :2] @ centres[:2] + matrix[:, 2:]
    centres[2:] *= kalman.affine_scale(matrix)
    return _corners(centres)
