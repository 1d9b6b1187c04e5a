"""Where pictures come from: the synthetic scene, video files, folders, cameras, streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
import math
import os
from pathlib import Path
import re
from typing import Any, List, Optional, Tuple

import cv2
import numpy as np

from yolojet_ros.core.compressed_images import IMAGE_SUFFIXES, read_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import home_path, utf8_path
from yolojet_ros.sim.scene import Scene, SceneFrame

DEFAULT_RATE = 30.0
DEFAULT_SIZE = (640, 384)
_DEVICE_SECONDS = 10  # without a picture, after which a stream is lost; V4L2's in OpenCV, too
_FFMPEG_LOG, _SILENT = 'OPENCV_FFMPEG_LOGLEVEL', '-8'
_ERRORS_ONLY = 2  # of OpenCV's log levels


@dataclass(frozen=True)
class SourceOptions:
    """
    How to read a source.

    rate: pictures per second, 0 for the source's own
    size: (width, height) in pixels, (0, 0) for the source's own
    loop: start again at the end of a file or folder
    seed, objects: of the synthetic scene
    """

    rate: float = 0.0
    size: Tuple[int, int] = (0, 0)
    loop: bool = True
    seed: int = 0
    objects: int = 12


class Source(ABC):
    """
    A supplier of pictures.

    rate: pictures per second that it should be read at
    live: True where `read` waits for the device and so sets the pace itself
    description: what it is, for a log
    truth: the frame with the ground truth of the picture read last, or None
    """

    def __init__(self, description: str, rate: float, live: bool = False) -> None:
        self.description = description
        self.rate = rate
        self.live = live
        self.truth: Optional[SceneFrame] = None

    @abstractmethod
    def read(self) -> Optional[np.ndarray]:
        """
        Return the next picture, uint8[H, W, 3] BGR, or None at the end.

        :raises UserError: if the source cannot be read any more.
        """

    def close(self) -> None:
        """Give devices and files back."""


class SceneSource(Source):
    """The synthetic scene, with its ground truth."""

    def __init__(self, options: SourceOptions) -> None:
        rate = options.rate or DEFAULT_RATE
        width, height = options.size if any(options.size) else DEFAULT_SIZE
        super().__init__(f'the synthetic scene, seed {options.seed}', rate)
        self._scene = Scene(
            width, height, seed=options.seed, rate=rate, object_count=options.objects)

    def read(self) -> Optional[np.ndarray]:
        """Return the next picture; the scene never ends."""
        self.truth = self._scene.read()
        return self.truth.image


class FolderSource(Source):
    """The images of a folder in natural order (2 before 10), or one image again and again."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._files = [path] if path.is_file() else images_in(path)
        super().__init__(f'{path} ({len(self._files)} images)', options.rate or DEFAULT_RATE)
        self._options = options
        self._index = 0

    def read(self) -> Optional[np.ndarray]:
        """Return the next image."""
        if self._index == len(self._files):
            if not self._options.loop:
                return None
            self._index = 0
        path = self._files[self._index]
        self._index += 1
        return _resized(read_image(path), self._options.size)


class VideoSource(Source):
    """A video file in any format that OpenCV reads."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._path = path
        self._options = options
        self._capture = self._open()
        own_rate = self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(own_rate) and 0 < own_rate <= 1000):
            own_rate = DEFAULT_RATE
        super().__init__(str(path), options.rate or own_rate)

    def read(self) -> Optional[np.ndarray]:
        """Return the next picture of the video."""
        read, image = self._capture.read()
        if not read and self._options.loop:
            # Seeking to the start is not exact in every format, opening anew is.
            self._capture.release()
            self._capture = self._open()
            read, image = self._capture.read()
        return _resized(image, self._options.size) if read else None

    @property
    def count(self) -> int:
        """Return how many pictures the file says that it has, 0 if it does not say."""
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 0 < count < 1e9 else 0

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(utf8_path(self._path))
        if not (capture.isOpened() and capture.grab()):
            raise UserError(f'{self._path} cannot be read as a video or image; expected one that '
                            f'OpenCV {cv2.__version__} reads, such as H.264 in .mp4')
        # The grab above proved that there is a picture; play from the first one.
        capture.release()
        return cv2.VideoCapture(str(self._path))


class DeviceSource(Source):
    """
    A V4L2 camera by its index, device file or a link to that, or a network stream by its URL.

    `read` does not wait for ever: a device that gives no picture for 10 s is lost.
    """

    def __init__(self, device: str, options: SourceOptions) -> None:
        self._device, self._size = device, options.size
        stream = '://' in device
        self._capture = _open_stream(device) if stream else _open_camera(device)
        if not self._capture.isOpened():
            present = ', '.join(sorted(map(str, Path('/dev').glob('video*')))) or 'no /dev/video*'
            raise UserError(
                f'stream {device} cannot be opened; check the URL and the network'
                if stream else f'camera {device} cannot be opened; there is {present}')
        for prop, value in ((cv2.CAP_PROP_FRAME_WIDTH, options.size[0]),
                            (cv2.CAP_PROP_FRAME_HEIGHT, options.size[1]),
                            (cv2.CAP_PROP_FPS, options.rate), (cv2.CAP_PROP_BUFFERSIZE, 1)):
            if value:
                self._capture.set(prop, value)
        super().__init__(f'camera {device}', options.rate, live=True)

    def read(self) -> Optional[np.ndarray]:
        """Wait for the next picture of the device and return it."""
        read, image = self._capture.read()
        if not read:
            raise UserError(f'{self._device} delivers no more pictures; check its connection')
        return _resized(image, self._size)  # a stream, and many a camera, has its own

    def close(self) -> None:
        """Close the device."""
        self._capture.release()


def _open_camera(device: str) -> cv2.VideoCapture:
    """Open a V4L2 camera; a link, such as udev makes, may lead to another one each time."""
    path = f'/dev/video{device}' if device.isdecimal() else os.path.realpath(device)
    number = re.fullmatch(r'/dev/video(\d+)', path)
    if not number or not os.path.exists(path):
        return cv2.VideoCapture()  # OpenCV would only tell the terminal
    return cv2.VideoCapture(int(number.group(1)), cv2.CAP_V4L2)


def _open_stream(url: str) -> cv2.VideoCapture:
    """Open a stream that gives up after a while without a word; OpenCV's own 30 s are long."""
    # That one is lost is said here, once; FFmpeg and OpenCV would say it at every attempt.
    os.environ.setdefault(_FFMPEG_LOG, _SILENT)
    if 'OPENCV_LOG_LEVEL' not in os.environ and hasattr(cv2, 'setLogLevel'):
        cv2.setLogLevel(_ERRORS_ONLY)
    limits = [value for name in ('OPEN', 'READ') for value in (
        getattr(cv2, f'CAP_PROP_{name}_TIMEOUT_MSEC', None), int(_DEVICE_SECONDS * 1e3))]
    if None in limits:  # OpenCV before 4.5.2
        return cv2.VideoCapture(utf8_path(url))
    return cv2.VideoCapture(utf8_path(url), cv2.CAP_ANY, limits)


class Schedule:
    """
    A steady grid of moments that does not drift.

    A moment that has passed by less than half a period is still served, at once,
    and the next one stays on the grid; one that has passed by more is skipped and
    counted, so that lateness never ends in a burst.

    :param rate: moments per second
    """

    def __init__(self, rate: float) -> None:
        self._period = 1.0 / rate
        self._due: Optional[float] = None
        self.skipped = 0

    def next(self, now: float) -> float:
        """Return the next moment, in seconds on the clock of `now`; it may have passed."""
        self._due = now if self._due is None else self._due + self._period
        missed = math.floor((now - self._due) / self._period + 0.5)
        if missed > 0:
            self.skipped += missed
            self._due += missed * self._period
        return self._due

    def reached(self, now: float) -> bool:
        """
        Return whether to serve what has arrived now, where something else sets the pace.

        A quarter of a period early is in time: devices are not that exact.
        """
        if self._due is not None and now < self._due - self._period / 4:
            return False
        self._due = now + self._period if self._due is None else max(
            self._due + self._period, now)
        return True


def open_source(name: Any, options: SourceOptions = SourceOptions()) -> Source:
    """
    Open a source of pictures.

    :param name: 'synthetic'; the path of a video, an image or a folder of images; a camera's
        index, device file or a link to it below /dev; the URL of a stream
    :raises UserError: if there is no such source or it cannot be read.
    """
    name = str(name)
    if any(options.size) and not all(side > 0 for side in options.size):
        raise UserError(f'a picture of {options.size[0]}x{options.size[1]} was asked for; give '
                        'both width and height, or 0 for both to keep those of the source')
    if name == 'synthetic':
        return SceneSource(options)
    if is_live(name):
        return DeviceSource(name, options)
    path = home_path(name)
    if path.is_dir() or is_image(path) and path.is_file():
        return FolderSource(path, options)
    if path.is_file():
        return VideoSource(path, options)
    raise UserError(
        f'source {name!r} is neither a file nor a folder; expected synthetic, a video, an image, '
        'a folder of images, a camera index such as 0, /dev/videoN, or the URL of a stream')


def is_live(name: Any) -> bool:
    """Return whether a source is a camera or a stream, which may be there or not."""
    name = str(name)
    return name.isdecimal() or '://' in name or bool(re.match('/dev/(?!shm(/|$))', name))


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name; another one may be a video."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def images_in(folder: Path) -> List[Path]:
    """
    Return the images of a folder in natural order (2 before 10).

    :raises UserError: if there is none, or the folder cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if is_image(path) and path.is_file()]
    except OSError as error:
        raise UserError(f'the folder {folder} cannot be read: {error.strerror}') from error
    if not files:
        raise UserError(f'{folder} holds no images; expected files named '
                        + ', '.join('*' + suffix for suffix in IMAGE_SUFFIXES))
    # Every second part is a number; others, such as a superscript 2, may count as digits, too.
    return sorted(files, key=lambda path: [
        int(part) if index % 2 else part
        for index, part in enumerate(re.split(r'(\d+)', path.name))])


def _resized(image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    if not any(size) or image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
