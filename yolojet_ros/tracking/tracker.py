"""
Multi-object tracking: ids that hold, from boxes and time alone.

The order of associations is that of ByteTrack (Zhang et al., ECCV 2022): first
the confident boxes, then the doubtful ones for tracks still without a box. Added
are real time, camera motion (given, or read off the boxes' common shift),
recovery at the place where a track was last seen (Cao et al., OC-SORT, CVPR 2023)
and, where descriptors are given, recovery by appearance.
"""

from __future__ import annotations

from dataclasses import fields
import math
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking import kalman
from yolojet_ros.tracking.appearance_memory import AppearanceMemory
from yolojet_ros.tracking.association import (
    assign, common_shift, overlapping_pairs, pair_overlap)
from yolojet_ros.tracking.geometry import crowding, grow, move, to_centres, to_corners
from yolojet_ros.tracking.params import TrackerParams
from yolojet_ros.tracking.track import Track, TrackState

# Rows of the table of tracks, float64[_ROWS, tracks]; column = track. It is held without
# spare columns, so that operations on several rows run over memory in one piece.
_FILTER = slice(0, kalman.BLOCK)
_PLACE = slice(20, 24)  # box where the track was last detected, moved along with the camera
_UNSEEN, _AGE, _SCORE, _HITS, _ID, _CLASS, _VOTE, _STATE = range(24, 32)
_ROWS = 32
# Plain numbers, as comparing arrays with an IntEnum is slow.
_TENTATIVE, _CONFIRMED, _LOST = (int(state) for state in TrackState)

_FARTHEST = 1e6  # px; boxes with coordinates beyond are taken for garbage
_VOTE_LIMIT = 10.0  # evidence a class can gather, so that a true change wins in a few frames
_PLACE_GROWTH = 0.05  # of a box on each side, when looking where a track was last seen
_USUAL_INTERVAL = 1 / 30  # s, until two stamps have told
_SHIFT_SECONDS = 0.1  # tracks unseen for longer do not tell how the camera moved
_SHIFT_ROUNDS = 2  # the first may bring the boxes only near enough to see the whole shift
_CROWDED = 0.3  # IoU with another detection above which a look is not learned
_LOOK_REACH = 3.0  # standard deviations of the predicted place
_LOOK_RATIO = 1.5  # of sizes


class _Detections(NamedTuple):
    """Detections of a frame; boxes float64[4, n]."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    looks: Optional[np.ndarray]

    def take(self, kept: np.ndarray) -> _Detections:
        """Return the detections of the indices `kept`."""
        return _Detections(
            self.boxes.take(kept, axis=1), self.scores[kept], self.classes[kept],
            None if self.looks is None else self.looks[kept])


class _Pairs(NamedTuple):
    """Tracks and detections that touch, as arrays of equal length."""

    track: np.ndarray
    det: np.ndarray
    iou: np.ndarray
    agreement: np.ndarray  # IoU x height overlap
    score: np.ndarray
    state: np.ndarray


class Tracker:
    """
    Give the detections of consecutive frames ids that stay with the objects.

    One tracker serves one image stream. Ids start at 1 and are never reused, not
    even after `reset`. Equal input gives equal output. Memory is bounded
    by `TrackerParams.max_tracks` whatever comes in.

    >>> tracker = create_tracker(lost_seconds=2.0)
    >>> ids = tracker.update(boxes, scores, classes, stamp)
    """

    def __init__(self, params: Optional[TrackerParams] = None) -> None:
        self._params: TrackerParams = params or TrackerParams()
        self._table: np.ndarray = np.empty((_ROWS, 0))
        self._looks: Optional[AppearanceMemory] = None
        self._next_id: int = 1
        self._stamp: Optional[float] = None
        self._interval: float = _USUAL_INTERVAL
        self._ahead: Optional[float] = None  # stamp that the tracks were brought to beforehand
        self._owed: Optional[Tuple[np.ndarray, _Detections]] = None  # matches to correct by

    @property
    def params(self) -> TrackerParams:
        """Return the parameters in use."""
        return self._params

    def set_params(self, params: TrackerParams) -> None:
        """Use `params` from the next update on; tracks and ids stay."""
        self._settle()
        if params.max_tracks != self._params.max_tracks:
            self._table = self._table[:, :params.max_tracks].copy()
            self._looks = self._looks and self._looks.resized(params.max_tracks)
        self._params = params

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._table = np.empty((_ROWS, 0))
        self._stamp = self._ahead = self._owed = None
        self._interval = _USUAL_INTERVAL

    @property
    def tracks(self) -> List[Track]:
        """Return a copy of all tracks held, coasting and tentative ones included."""
        self._settle()
        boxes = to_corners(self._table[kalman.MEAN])
        return [Track(
            id=int(t[_ID]), state=TrackState(int(t[_STATE])), box=tuple(box.tolist()),
            velocity=(float(t[4]), float(t[5])), class_id=int(t[_CLASS]),
            score=float(t[_SCORE]), age=float(t[_AGE]), unseen=float(t[_UNSEEN]),
        ) for t, box in zip(self._table.T, boxes.T)]

    def expect(self, stamp: float, warp: Optional[np.ndarray] = None) -> None:
        """
        Do what the next `update` need not do then: all that waits for no detections.

        :param stamp, warp: those of the next `update`; it looks at another stamp anew.
        """
        self._advance(stamp, _usable_warp(warp))
        self._ahead = stamp

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
        `lost_seconds` either way drops all tracks. A warp that is not finite or
        scales by more than ten is ignored.

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
        boxes, scores, classes, embeddings = _checked(boxes, scores, classes, embeddings)
        if self._ahead is None or (self._ahead is not stamp and self._ahead != stamp):
            self._advance(stamp, _usable_warp(warp))
        self._ahead = None
        kept = self._usable(boxes, scores)
        looks = None if embeddings is None else self._usable_looks(embeddings)
        dets = _Detections(boxes, np.minimum(scores, 1.0), classes, looks)
        if len(kept) == len(scores):
            return self._track(dets)
        ids = np.full(len(scores), -1)
        ids[kept] = self._track(dets.take(kept))
        return ids

    def published_classes(self, ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """
        Return the classes to publish with the ids that `update` returned just now.

        :param ids: int64[n].
        :param classes: int[n], as given to `update`.
        :return: `classes`, or with `TrackerParams.class_vote` a copy in which each detection
            with an id has the class that its track's detections voted for.
        """
        if not self._params.class_vote:
            return classes
        self._settle()
        table = self._table
        if table.size == 0:
            return classes
        order = np.argsort(table[_ID])
        place = np.searchsorted(table[_ID, order], ids)
        place = order[np.minimum(place, len(order) - 1)]
        known = (ids >= 0) & (table[_ID, place] == ids)
        return np.where(known, table[_CLASS, place], classes).astype(classes.dtype)

    def _advance(self, stamp: float, warp: Optional[np.ndarray]) -> None:
        """Bring all tracks to the time and the camera position of the new frame."""
        self._settle()
        p, dt = self._params, self._elapsed(float(stamp))
        if abs(dt) > p.lost_seconds:
            self._table = np.empty((_ROWS, 0))
        elif dt > 0:
            self._interval = dt
        else:
            dt = self._interval
        table = self._table
        if table.size:
            kalman.predict(table[_FILTER], dt, p.position_noise, p.velocity_noise)
            table[_UNSEEN:_AGE + 1] += dt
            if warp is not None:
                kalman.warp(table[_FILTER], warp)
                table[_PLACE] = move(table[_PLACE], warp)

    def _elapsed(self, stamp: float) -> float:
        """Return the seconds since the last update; 0 where that cannot be said."""
        if not math.isfinite(stamp):
            return 0.0
        last, self._stamp = self._stamp, stamp
        return 0.0 if last is None else stamp - last

    @np.errstate(invalid='ignore')  # NaN is not usable; NumPy before 1.23 warns of it
    def _usable(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the indices of the detections worth looking at, at most max_tracks of them."""
        near = np.abs(boxes) < _FARTHEST
        near[2:] &= boxes[2:] > boxes[:2]
        good = scores >= self._params.low_score
        if np.count_nonzero(near) < near.size:
            good &= near.all(0)
        kept = good.nonzero()[0]
        if len(kept) > self._params.max_tracks:
            order = np.argsort(-scores[kept], kind='stable')[:self._params.max_tracks]
            kept = np.sort(kept[order])
        return kept

    def _usable_looks(self, embeddings: np.ndarray) -> np.ndarray:
        """Return finite descriptors float32[n, d]; make room for their memory."""
        length = embeddings.shape[1]
        if self._looks is None or self._looks.length != length:
            self._looks = AppearanceMemory(self._params.max_tracks, length)
        return np.nan_to_num(embeddings.astype(np.float32), posinf=0.0, neginf=0.0)

    def _track(self, dets: _Detections) -> np.ndarray:
        """Match the tracks to the usable detections, update them and return the ids."""
        return self._finish(self._associate(dets), dets)

    def _associate(self, dets: _Detections) -> np.ndarray:
        """Return the detection of each track, int64[tracks], -1 where there is none."""
        if self._table.size == 0 or len(dets.scores) == 0:
            return np.full(self._table.shape[1], -1)
        pairs, match, used = self._first_matches(dets)
        for _ in range(_SHIFT_ROUNDS):
            if not self._follow_camera(match, dets):
                break
            pairs, match, used = self._first_matches(dets)
        if np.count_nonzero(used) == min(len(used), len(match)):
            return match
        pairs = _left(match, used, pairs)
        if len(pairs.track):
            self._second_matches(match, used, pairs)
        self._recover(match, used, dets)
        return match

    def _first_matches(self, dets: _Detections) -> Tuple[_Pairs, np.ndarray, np.ndarray]:
        """Match known tracks to confident boxes; return pairs, matches and boxes in use."""
        p, pairs = self._params, self._pairs(dets)
        match, used = np.full(self._table.shape[1], -1), np.zeros(len(dets.scores), bool)
        gain = pairs.agreement * np.sqrt(pairs.score)
        gain[pairs.state == _LOST] *= p.lost_penalty
        sure = (pairs.score >= p.high_score) & (pairs.state != _TENTATIVE)
        _take(match, used, pairs, sure & (gain > p.match_gate), gain)
        return pairs, match, used

    def _second_matches(self, match: np.ndarray, used: np.ndarray, pairs: _Pairs) -> None:
        """Match tracks in sight to doubtful boxes, then new tracks to confident ones."""
        p = self._params
        low = pairs.score < p.high_score
        if np.count_nonzero(low):
            enough = np.where(pairs.state == _CONFIRMED, p.low_gate, 1.0)
            lost = pairs.state == _LOST
            lost &= self._table[_UNSEEN][pairs.track] < p.lost_low_seconds
            enough[lost] = p.lost_low_gate
            _take(match, used, pairs, low & (pairs.agreement > enough), pairs.agreement)
        new = pairs.state == _TENTATIVE
        if np.count_nonzero(new):
            gain = pairs.iou * pairs.score
            _take(match, used, pairs, new & ~low & (gain > p.tentative_gate), gain)

    def _pairs(self, dets: _Detections) -> _Pairs:
        """Return all pairs of a track and a detection that touch."""
        table = self._table
        predicted = to_corners(table[kalman.MEAN])
        track, det = overlapping_pairs(predicted, dets.boxes)
        iou, height = pair_overlap(predicted.take(track, axis=1), dets.boxes.take(det, axis=1))
        iou[table[_CLASS][track] != dets.classes[det]] *= self._params.class_penalty
        return _Pairs(track, det, iou, iou * height, dets.scores[det], table[_STATE][track])

    def _follow_camera(self, match: np.ndarray, dets: _Detections) -> bool:
        """
        Move all tracks by the shift that their matches have in common; say if there is one.

        A camera that turns moves all boxes alike. What no warp told shows in the
        median of the innovations, if it stands out from their spread.
        """
        table = self._table
        track = ((match >= 0) & (table[_UNSEEN] < _SHIFT_SECONDS + self._interval)).nonzero()[0]
        seen, mean = dets.boxes.take(match[track], axis=1), table[0:4].take(track, axis=1)
        shift = common_shift((seen[:2] + seen[2:]) * 0.5 - mean[:2], mean[2:])
        if shift is None:
            return False
        table[0:2] += shift
        table[20:22] += shift
        table[22:24] += shift
        return True

    def _recover(self, match: np.ndarray, used: np.ndarray, dets: _Detections) -> None:
        """Match what is left to confident boxes by the place last seen, then by the look."""
        p, table = self._params, self._table
        free = (~used & (dets.scores >= p.high_score)).nonzero()[0]
        if len(free) == 0:
            return
        left = ((match < 0) & (table[_STATE] != _TENTATIVE)
                & (table[_UNSEEN] < p.recover_seconds)).nonzero()[0]
        if len(left):
            places = grow(table[_PLACE].take(left, axis=1), _PLACE_GROWTH)
            boxes = grow(dets.boxes.take(free, axis=1), _PLACE_GROWTH)
            track, det = overlapping_pairs(places, boxes)
            iou, _ = pair_overlap(places.take(track, axis=1), boxes.take(det, axis=1))
            track, det = left[track], free[det]
            iou[table[_CLASS][track] != dets.classes[det]] *= p.class_penalty
            pairs = _Pairs(track, det, iou, iou, dets.scores[det], table[_STATE][track])
            _take(match, used, pairs, iou > p.recover_iou, iou)
        if dets.looks is not None:
            self._recover_by_look(match, used, dets)

    def _recover_by_look(
            self, match: np.ndarray, used: np.ndarray, dets: _Detections) -> None:
        """Match lost tracks to confident boxes that look alike and are within reach."""
        p, table = self._params, self._table
        lost = ((match < 0) & (table[_STATE] == _LOST)).nonzero()[0]
        free = (~used & (dets.scores >= p.high_score)).nonzero()[0]
        if len(lost) == 0 or len(free) == 0:
            return
        track, det = np.repeat(lost, len(free)), np.tile(free, len(lost))
        state, box = table.take(track, axis=1), to_centres(dets.boxes.take(det, axis=1))
        reach = _LOOK_REACH * np.sqrt(state[8:10]) + 0.5 * state[2:4]
        ratio = box[2:] / state[2:4]
        near = ((np.abs(box[:2] - state[0:2]) < reach) & (ratio < _LOOK_RATIO)
                & (ratio > 1 / _LOOK_RATIO)).all(0) & (state[_CLASS] == dets.classes[det])
        track, det = track[near], det[near]
        alike = self._looks.similarity(track, dets.looks[det])
        pairs = _Pairs(track, det, alike, alike, dets.scores[det], table[_STATE][track])
        _take(match, used, pairs, alike > p.appearance_gate, alike)

    def _finish(self, match: np.ndarray, dets: _Detections) -> np.ndarray:
        """
        Return the id of each detection; start tracks.

        Where ids do not depend on it, tracks are corrected and retired after the result is out.
        """
        ids = np.full(len(dets.scores), -1)
        tracks = (match >= 0).nonzero()[0]
        matched = match[tracks]
        unused = dets.scores >= self._params.birth_score
        unused[matched] = False
        born = unused.nonzero()[0]
        known = self._table[_ID].take(tracks)
        self._owed = match, dets
        if len(born) or np.count_nonzero(known < 0):
            known = self._settle()
        ids[matched] = known
        if len(born):
            born = self._distinct(born, matched, dets)
            self._start(born[:self._params.max_tracks - self._table.shape[1]], dets, ids)
        return ids

    def _settle(self) -> Optional[np.ndarray]:
        """Correct and retire tracks by the last matches, if that is owed; return their ids."""
        if self._owed is None:
            return None
        (match, dets), self._owed = self._owed, None
        tracks = (match >= 0).nonzero()[0]
        ids = self._correct(tracks, match[tracks], dets)
        if len(tracks) < len(match):
            self._retire(match < 0)
        return ids

    def _correct(
            self, tracks: np.ndarray, matched: np.ndarray, dets: _Detections) -> np.ndarray:
        """Correct the tracks by their detections; return their ids."""
        p, found = self._params, self._table.take(tracks, axis=1)
        if len(tracks) == 0:
            return found[_ID]
        boxes, scores = dets.boxes.take(matched, axis=1), dets.scores[matched]
        classes = dets.classes[matched]
        # A detection is the less precise the lower its score (Du et al., GIAOTracker, 2021).
        kalman.correct(found[_FILTER], to_centres(boxes), p.measurement_noise * (1.5 - scores))
        found[_PLACE] = boxes
        found[_UNSEEN] = 0.0
        found[_SCORE] = scores
        found[_HITS] += 1
        # Weighted majority vote (Boyer and Moore, 1981): one class and its evidence.
        agrees = found[_CLASS] == classes
        if np.count_nonzero(agrees) == len(agrees):
            found[_VOTE] += scores
        else:
            found[_VOTE] += np.where(agrees, scores, -scores)
            found[_CLASS] = np.where(found[_VOTE] < 0, classes, found[_CLASS])
            np.abs(found[_VOTE], out=found[_VOTE])
        np.minimum(found[_VOTE], _VOTE_LIMIT, out=found[_VOTE])
        new = found[_STATE] == _TENTATIVE
        found[_STATE] = _CONFIRMED
        if np.count_nonzero(new):
            new &= (found[_HITS] < p.confirm_hits) & (scores < p.instant_score)
            found[_STATE][new] = _TENTATIVE
            self._name(found)
        self._table[:, tracks] = found
        if dets.looks is not None:
            clear = (crowding(dets.boxes)[matched] < _CROWDED).nonzero()[0]
            self._looks.learn(tracks[clear], dets.looks[matched[clear]], scores[clear])
        return found[_ID]

    def _name(self, table: np.ndarray) -> None:
        """Give the next ids to confirmed tracks that have none."""
        new = ((table[_ID] < 0) & (table[_STATE] == _CONFIRMED)).nonzero()[0]
        if len(new):
            table[_ID, new] = np.arange(self._next_id, self._next_id + len(new))
            self._next_id += len(new)

    def _retire(self, missed: np.ndarray) -> None:
        """Mark tracks without a detection as lost; drop the old and the tentative ones."""
        table = self._table
        dropped = missed & ((table[_STATE] == _TENTATIVE)
                            | (table[_UNSEEN] > self._params.lost_seconds))
        table[_STATE][missed] = _LOST
        np.copyto(table[6:8], 0.0, where=missed)  # a hidden object does not go on growing
        if np.count_nonzero(dropped):
            kept = ~dropped
            self._table = table.compress(kept, axis=1)
            if self._looks is not None:
                self._looks.keep(kept)

    def _distinct(
            self, born: np.ndarray, matched: np.ndarray, dets: _Detections) -> np.ndarray:
        """Return those of `born` that do not repeat a matched or a better new detection."""
        born = born[np.argsort(-dets.scores[born], kind='stable')]
        others = np.concatenate((matched, born))
        new, other = overlapping_pairs(dets.boxes[:, born], dets.boxes[:, others])
        iou, _ = pair_overlap(dets.boxes[:, born[new]], dets.boxes[:, others[other]])
        twice = (iou > self._params.duplicate_iou) & (other < new + len(matched))
        keep = np.ones(len(born), bool)
        keep[new[twice]] = False
        return born[keep]

    def _start(self, born: np.ndarray, dets: _Detections, ids: np.ndarray) -> None:
        """Start a track at each detection of `born`; enter the ids of those confirmed at once."""
        p = self._params
        table = np.empty((_ROWS, len(born)))
        boxes, scores = dets.boxes.take(born, axis=1), dets.scores[born]
        kalman.start(table[_FILTER], to_centres(boxes), p.measurement_noise)
        table[_PLACE] = boxes
        table[_UNSEEN:_AGE + 1] = 0.0
        table[_SCORE] = table[_VOTE] = scores
        table[_HITS] = 1
        table[_ID] = -1
        table[_CLASS] = dets.classes[born]
        table[_STATE] = np.where(
            (scores >= p.instant_score) | (p.confirm_hits == 1), _CONFIRMED, _TENTATIVE)
        self._name(table)
        ids[born] = table[_ID]
        if self._looks is not None:
            self._looks.set(
                self._table.shape[1], len(born), 0 if dets.looks is None else dets.looks[born])
        self._table = np.concatenate((self._table, table), axis=1)


def create_tracker(**params: Any) -> Tracker:
    """
    Return a tracker with the given fields of `TrackerParams` set.

    :raises UserError: if a parameter does not exist or is out of its range.
    """
    known = [item.name for item in fields(TrackerParams)]
    for name in params:
        if name not in known:
            raise UserError(f'the tracker has no parameter {name!r}; it has {", ".join(known)}')
    return Tracker(TrackerParams(**params))


def _take(
        match: np.ndarray, used: np.ndarray, pairs: _Pairs, candidates: np.ndarray,
        gain: np.ndarray) -> None:
    """Enter the best assignment among the pairs of bool[k] `candidates` in match and used."""
    chosen = candidates.nonzero()[0]
    if len(chosen):
        track, det = pairs.track[chosen], pairs.det[chosen]
        best = assign(track, det, gain[chosen])
        track, det = track[best], det[best]
        match[track] = det
        used[det] = True


def _left(match: np.ndarray, used: np.ndarray, pairs: _Pairs) -> _Pairs:
    """Return the pairs whose track and detection are both unmatched."""
    left = ((match[pairs.track] < 0) & ~used[pairs.det]).nonzero()[0]
    return _Pairs(*[values[left] for values in pairs])


def _checked(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray,
    embeddings: Optional[np.ndarray],
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, Optional[np.ndarray]]:
    boxes, scores, classes = np.asarray(boxes), np.asarray(scores), np.asarray(classes)
    n = scores.shape[0] if scores.ndim == 1 else -1
    if n < 0 or classes.shape != (n,) or (boxes.shape != (n, 4) and (n or boxes.size)):
        raise ValueError(
            f'boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape} do not '
            'belong together; give boxes [n, 4], scores [n] and classes [n]')
    if embeddings is not None:
        embeddings = np.asarray(embeddings)
        if embeddings.ndim != 2 or len(embeddings) != n:
            raise ValueError(f'embeddings {embeddings.shape} do not fit {n} boxes; give [n, d]')
    # Copies, because the tracks are corrected by them after the caller has them back.
    boxes = np.array(boxes.reshape(n, 4).T, np.float64, order='C')
    return boxes, scores.astype(np.float64, copy=False), classes.copy(), embeddings


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
