"""The thread that compresses images, looks for events and writes bags."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
import math
import os
import threading
import time
from typing import Callable, Deque, Dict, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.text import one_line
from yolojet_ros.operate.records.bag import Bag, Topics
from yolojet_ros.operate.records.events import Event, EventFinder
from yolojet_ros.operate.records.params import RecordParams
from yolojet_ros.operate.records.ring import Entry, Ring
from yolojet_ros.operate.records.store import bag_name, BagStore

_MOST_IMAGES = 2  # of a camera, that wait to be compressed: they are large
_MOST_ITEMS = 1000
_LONGEST = 3  # windows after its first event, that events which follow make a bag
_NICE = 10  # detecting comes first where cores are rare
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Camera:
    """
    Where images come from.

    name: in the name of a bag; topics: in the bag
    thresholds: float32[classes], least published scores
    model: whose results they are
    """

    name: str
    topics: Topics
    thresholds: np.ndarray
    model: str


@dataclass
class Taken:
    """
    An image that was worked on.

    at, received, finished, stamp, frame_id: as of an Entry
    size: width and height, px
    image: makes format and bytes, or None; called by the recorder's thread, or not at all
    result: the message in CDR
    detections: those that were published; None where there is no result
    events: that are known already
    """

    camera: Camera
    at: float
    received: int
    finished: int
    stamp: Tuple[int, int] = (0, 0)
    frame_id: str = ''
    size: Tuple[int, int] = (0, 0)
    image: Optional[Callable[[], Optional[Tuple[str, bytes]]]] = None
    result: Optional[bytes] = None
    detections: Optional[Detections] = None
    events: Sequence[Event] = ()


@dataclass
class _Watched:
    """
    What is known of one camera.

    waiting: images to be compressed yet
    began, until: of its bag, on time.monotonic
    """

    ring: Ring
    finder: EventFinder
    waiting: int = 0
    bag: Optional[Bag] = None
    began: float = 0.0
    until: float = math.inf
    last: Dict[str, float] = field(default_factory=dict)  # event of a bag, by cause
    bags: int = 0
    events: int = 0
    passed_over: int = 0
    skipped: int = 0


class Recorder:
    """
    Keep what happens around events; made when recording begins, and stopped when it ends.

    `put` never waits. What goes wrong stops the recording, with one warning, and nothing else.

    :param inform, warn: called with a sentence, by the recorder's thread
    """

    def __init__(
        self, params: RecordParams, inform: Callable[[str], None], warn: Callable[[str], None],
    ) -> None:
        self.problem = ''
        self._params, self._inform, self._warn = params, inform, warn
        self._store: Optional[BagStore] = None
        self._changed = threading.Condition()
        self._items: Deque[Taken] = deque()
        self._ending = False
        self._watched: Dict[str, _Watched] = {}
        self._thread = threading.Thread(target=self._main, name='recorder', daemon=True)
        self._thread.start()

    def put(self, taken: Taken) -> None:
        """Take an image; where the thread is behind, the image itself is skipped."""
        with self._changed:
            if self.problem or self._ending:
                return
            if len(self._items) >= _MOST_ITEMS:
                return
            seen = self._of(taken.camera)
            # Of an image without a result, which made the network fail, there is only one.
            if taken.image and taken.detections is not None and seen.waiting >= _MOST_IMAGES:
                taken.image = None
                seen.skipped += 1
            seen.waiting += taken.image is not None
            self._items.append(taken)
            self._changed.notify()

    def values(self, name: str) -> Dict[str, str]:
        """Return what is to be known of a camera's records, as texts by name."""
        with self._changed:
            seen = self._watched.get(name)
            values = {'recording': self.problem or ', '.join(self._params.record_on)}
        if seen:
            values.update(
                records=str(seen.bags), record_events=str(seen.events),
                record_events_passed_over=str(seen.passed_over),
                record_images_skipped=str(seen.skipped))
        return values

    def stop(self, wait: bool = True) -> None:
        """Finish the bags with what there is, and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if wait:
            self._thread.join(_STOP_SECONDS)

    # ---- the recorder's thread

    def _main(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        except OSError:  # not everywhere has a thread a priority
            pass
        try:
            params = self._params
            self._store = BagStore(params.folder(), params.record_limit_mb * 10**6)
            while self._step():
                pass
        except Exception as error:  # a full disk, a folder that went away; the detector goes on
            self._halt(error)

    def _step(self) -> bool:
        """Do one thing; return False when all is done and the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ending, self._patience())
            item = self._items.popleft() if self._items else None
            done = item is None and self._ending
            if item is not None:
                seen = self._of(item.camera)
                seen.waiting -= item.image is not None
        if item is not None:
            self._take(item, seen)
        else:
            self._finish_due(math.inf if done else time.monotonic())
        return not done

    def _patience(self) -> Optional[float]:
        """Return for how many seconds nothing may come until a bag is to be finished."""
        ends = [seen.until for seen in self._watched.values() if seen.bag]
        return max(min(ends) - time.monotonic(), 0.0) if ends else None

    def _of(self, camera: Camera) -> _Watched:
        found = self._watched.get(camera.name)
        if found is None:
            params = self._params
            finder = EventFinder(params.record_on, params.record_low_score)
            found = self._watched[camera.name] = _Watched(Ring(params.record_seconds), finder)
        return found

    def _take(self, item: Taken, seen: _Watched) -> None:
        if seen.bag and item.at > seen.until:
            self._finish(seen)
        try:
            image = item.image() if item.image is not None else None
        except Exception:  # of one image, which the library cannot compress; the next one counts
            image, seen.skipped = None, seen.skipped + 1
        if image is not None:
            entry = Entry(
                item.at, item.received, item.finished, item.stamp, item.frame_id, image,
                item.result)
            seen.ring.add(entry)
            if seen.bag:
                seen.bag.write(entry)
                self._bound(seen)
        events = [event for event in item.events if event.cause in self._params.record_on]
        if item.detections is not None:
            events += seen.finder.look(
                item.at, item.detections, item.camera.thresholds, item.size)
        for event in events:
            self._happened(seen, item, event)

    def _happened(self, seen: _Watched, item: Taken, event: Event) -> None:
        """Begin a bag with an event, or have it in the one that is being written."""
        params = self._params
        seen.events += 1
        if seen.bag:
            seen.bag.write_event(event, item.finished)
        elif item.at - seen.last.get(event.cause, -math.inf) >= params.record_pause:
            self._begin(seen, item, event)
        else:
            seen.passed_over += 1
            return
        seen.last[event.cause] = item.at
        seen.until = params.record_seconds + min(
            item.at, seen.began + (_LONGEST - 1) * params.record_seconds)

    def _begin(self, seen: _Watched, item: Taken, event: Event) -> None:
        """Begin a bag with an event, and all that is known of the seconds before it."""
        camera = item.camera
        seen.began, seen.until = item.at, math.inf
        seen.bag = Bag(
            self._store.folder, bag_name(item.finished, camera.name, event.cause),
            camera.topics, camera.name, camera.model)
        seen.bag.write_event(event, item.finished)
        for entry in seen.ring:
            seen.bag.write(entry)
            self._bound(seen)
            if not seen.bag:  # as large as all bags may be
                return

    def _bound(self, seen: _Watched) -> None:
        """Remove older bags where this one grows beyond the limit; end it if none is left."""
        writing = [other.bag.size for other in self._watched.values() if other.bag]
        if not self._store.make_room(sum(writing), len(writing)):
            self._finish(seen)

    def _finish_due(self, now: float) -> None:
        for seen in self._watched.values():
            if seen.bag and seen.until <= now:
                self._finish(seen)

    def _finish(self, seen: _Watched) -> None:
        bag, seen.bag = seen.bag, None
        path = bag.finish()
        seen.bags += 1
        self._store.add(path.name)
        self._inform(f'recorded {path}')

    def _halt(self, error: Exception) -> None:
        with self._changed:
            self.problem = f'stopped: {one_line(str(error) or type(error).__name__, 200)}'
            self._items.clear()
            watched = list(self._watched.values())
        for seen in watched:
            if seen.bag:
                seen.bag.abort()
            seen.bag, seen.ring = None, Ring(0.0)
        self._warn(
            f'recording to {self._params.folder()} {self.problem}; make room or name another '
            'record_folder, then set record_on again')
