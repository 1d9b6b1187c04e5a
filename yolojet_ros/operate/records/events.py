"""
What on a camera is worth a record, seen in its results alone.

An id switch is what CLEAR MOT (Bernardin and Stiefelhagen, 2008) counts as a mismatch: an object
goes on under another id. Without the truth it can only be suspected: where the id of a track is
seen no more, one of the same class begins soon after.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core.detections import Detections
from yolojet_ros.operate.records.params import OF_TRACKS

_KNOWN = 5  # images on which a track was seen, from which on it counts
_LOST_SECONDS = 0.5  # without a detection
_SWITCH_SECONDS = 1.0  # between the end of a track and the begin of another
_SAME_PLACE = 0.3  # IoU
_MARGIN = 0.05  # of width and height; an object there may have left the image
_GAP_SECONDS = 0.5  # between two images, after which nothing is said of tracks before


@dataclass(frozen=True)
class Event:
    """
    Something that happened.

    cause: one of params.CAUSES; text: what, in a sentence; track: whose id, -1 for none
    values: more, as pairs of texts
    """

    cause: str
    text: str
    track: int = -1
    values: Tuple[Tuple[str, str], ...] = ()


@dataclass
class _Track:
    class_id: int
    box: np.ndarray
    score: float
    seen: float
    images: int = 0
    unsure: bool = False
    lost: bool = False


class EventFinder:
    """
    Find events of the tracks of one camera.

    low_score: an object that was seen on five images falls into the band above its threshold, or
    is seen no more for half a second though its last box stood away from the image's edges.
    id_switch: within a second after a track of five images was last seen, and while it is not
    seen, a track of the same class begins where its last box overlaps it by an IoU of 0.3.

    :param causes: that are looked for
    :param band: scores less than this above the threshold are unsure; raising it finds more
    """

    def __init__(self, causes: Sequence[str], band: float) -> None:
        self._causes, self._band = causes, band
        self._wanted = any(cause in OF_TRACKS for cause in causes)
        self._tracks: Dict[int, _Track] = {}
        self._last = -math.inf

    def look(
        self, now: float, detections: Detections, thresholds: np.ndarray, size: Tuple[int, int],
    ) -> List[Event]:
        """
        Return what happened by this image.

        :param now: seconds, growing from image to image
        :param detections: those that are published
        :param thresholds: float32[classes], least published scores
        :param size: width and height of the image, px
        """
        if now - self._last > _GAP_SECONDS:
            self._tracks.clear()
        self._last = now
        if detections.ids is None or not self._wanted:
            self._tracks.clear()
            return []
        events = []
        ids = detections.ids.tolist()
        for index, track_id in enumerate(ids):
            if track_id >= 0:
                events += self._seen(track_id, ids, index, now, detections, thresholds)
        for track_id in [key for key, track in self._tracks.items() if track.seen < now]:
            events += self._unseen(track_id, now, size)
        return [event for event in events if event.cause in self._causes]

    def _seen(
        self, track_id: int, ids: Sequence[int], index: int, now: float, detections: Detections,
        thresholds: np.ndarray,
    ) -> List[Event]:
        class_id, score = int(detections.classes[index]), float(detections.scores[index])
        box, events = detections.boxes[index], []
        track = self._tracks.get(track_id)
        if track is None:
            before = self._predecessor(box, class_id, ids, now)
            if before is not None:
                after = now - self._tracks.pop(before).seen
                events.append(Event(
                    'id_switch', f'track {before} ended and {track_id} began at its place '
                    f'{after:.2f} s later', track_id, (('former_track', str(before)),)))
            track = self._tracks[track_id] = _Track(class_id, box, score, now)
        track.class_id, track.box, track.score, track.seen = class_id, box, score, now
        track.images += 1
        track.lost = False
        limit = float(thresholds[class_id]) + self._band
        unsure = score < limit and track.images >= _KNOWN
        if unsure and not track.unsure:
            events.append(Event(
                'low_score', f'track {track_id} has a score of {score:.3f}, below {limit:.3f}',
                track_id, (('score', f'{score:.4f}'),)))
        track.unsure = unsure
        return events

    def _predecessor(
        self, box: np.ndarray, class_id: int, ids: Sequence[int], now: float,
    ) -> Optional[int]:
        """Return the track of this class that was seen last where a new one begins, if any."""
        ended = [(track.seen, key) for key, track in self._tracks.items()
                 if key not in ids and track.class_id == class_id and track.images >= _KNOWN
                 and now - track.seen <= _SWITCH_SECONDS
                 and boxes_.iou(track.box[None], box[None])[0, 0] >= _SAME_PLACE]
        return max(ended)[1] if ended else None

    def _unseen(self, track_id: int, now: float, size: Tuple[int, int]) -> List[Event]:
        track, events = self._tracks[track_id], []
        away = now - track.seen
        if away >= _LOST_SECONDS and not track.lost:
            track.lost = True
            if track.images >= _KNOWN and _inside(track.box, size):
                events.append(Event(
                    'low_score', f'track {track_id} was lost in the image {away:.2f} s ago, with '
                    f'a score of {track.score:.3f}', track_id,
                    (('score', f'{track.score:.4f}'),)))
        if away > max(_SWITCH_SECONDS, _LOST_SECONDS):
            del self._tracks[track_id]
        return events


def _inside(box: np.ndarray, size: Tuple[int, int]) -> bool:
    margin = np.array(size) * _MARGIN
    return bool((box[:2] > margin).all() and (box[2:] < np.array(size) - margin).all())
