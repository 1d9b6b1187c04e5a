"""One rosbag2 bag of images, results and events; whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
import errno
import fcntl
from functools import lru_cache
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import numpy as np

from yolojet_ros.operate.records.definitions import DEFINITIONS
from yolojet_ros.operate.records.events import Event
from yolojet_ros.operate.records.ring import Entry

# A bag that is being written lies in such a folder, which its writer holds locked.
UNFINISHED = '.recording-'
# Of rosbag2's metadata: the newest whose QoS profiles Humble reads (a text; from 9 on a list).
_VERSION = 8
_IMAGE = 'sensor_msgs/msg/CompressedImage'
_EVENT = 'diagnostic_msgs/msg/DiagnosticStatus'
_WARN = 1
_OVERHEAD = 32 << 10  # of an empty database


@dataclass(frozen=True)
class Topics:
    """Full names of the topics in a bag, and the type of the results."""

    image: str
    result: str
    result_type: str
    event: str


class Bag:
    """
    A bag that grows in a hidden folder and gets its name when it is whole.

    Storage is SQLite: `ros2 bag` reads it on every distribution without further packages.

    :param name: of its folder in `folder`
    :param model: whose results they are
    :raises OSError: or sqlite3.Error, from here and all methods, if the disk is full or broken.
    """

    def __init__(
        self, folder: Path, name: str, topics: Topics, camera: str, model: str,
    ) -> None:
        self._final, self._camera, self._model = folder / name, camera, model
        self._beside = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        self._lock = os.open(self._beside, os.O_RDONLY)
        self._writer = None
        self.size = _OVERHEAD
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            store = _types()
            writer = self._writer = _writer(self._beside / name)
            writer.set_custom_data('camera', camera)
            writer.set_custom_data('model', model)
            writer.open()
            self._image, self._result, self._event = (
                writer.add_connection(topic, kind, typestore=store) for topic, kind in (
                    (topics.image, _IMAGE), (topics.result, topics.result_type),
                    (topics.event, _EVENT)))
        except BaseException:
            self.abort()
            raise

    def write(self, entry: Entry) -> None:
        """Append an image and its result."""
        message = _make(
            _IMAGE, header=_header(entry), format=entry.image[0],
            data=np.frombuffer(entry.image[1], np.uint8))
        self._append(self._image, entry.received, _types().serialize_cdr(message, _IMAGE))
        if entry.result is not None:
            self._append(self._result, entry.finished, entry.result)

    def write_event(self, event: Event, nanoseconds: int) -> None:
        """Append an event that was found at a time since 1970."""
        track = str(event.track) if event.track >= 0 else ''
        values = (('camera', self._camera), ('track', track), *event.values)
        message = _make(
            _EVENT, level=_WARN, name=event.cause, message=event.text, hardware_id=self._model,
            values=[_make('diagnostic_msgs/msg/KeyValue', key=key, value=value)
                    for key, value in values])
        self._append(self._event, nanoseconds, _types().serialize_cdr(message, _EVENT))

    def _append(self, topic: Any, nanoseconds: int, data: Any) -> None:
        self._writer.write(topic, nanoseconds, bytes(data))
        self.size += len(data) + 40

    def finish(self) -> Path:
        """Write what is left to the disk, and give the bag its name; return its folder."""
        try:
            self._writer.close()
            for path in (self._writer.path / 'metadata.yaml', self._writer.path):
                _sync(path)
            self._rename(self._writer.path)
            _sync(self._final.parent)
            self._writer = None
        finally:
            self.abort()
        return self._final

    def _rename(self, path: Path) -> None:
        """Give it its name, or the next one where another process had the same moment."""
        for number in range(2, 100):
            try:
                os.rename(path, self._final)
                return
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            self._final = self._final.with_name(f'{self._final.name}_{number}')
        raise OSError(errno.EEXIST, 'too many bags of one moment', str(self._final))

    def abort(self) -> None:
        """Leave nothing of it, unless it is finished."""
        writer, self._writer = self._writer, None
        if hasattr(writer, 'abort'):
            try:
                writer.abort()
            except Exception:  # whatever a full disk makes of it; all of it goes now
                pass
        shutil.rmtree(self._beside, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


@lru_cache(maxsize=None)
def _types() -> Any:
    """Return the types of all messages in a bag."""
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


def _writer(path: Path) -> Any:
    """Return rosbags' writer of SQLite."""
    from rosbags.rosbag2 import Writer
    try:
        return Writer(path, version=_VERSION)
    except TypeError:  # rosbags 0.9, the last for Python 3.8, knows no other version
        return Writer(path)


def _make(kind: str, /, **values: Any) -> Any:
    return _types().types[kind](**values)


def _header(entry: Entry) -> Any:
    return _make('std_msgs/msg/Header', frame_id=entry.frame_id, stamp=_make(
        'builtin_interfaces/msg/Time', sec=entry.stamp[0], nanosec=entry.stamp[1]))


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk: power may go at any time."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
