"""Camera image encodings: one table that says how each is laid out and converted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import threading
from typing import Callable, Dict, Optional

import cv2
import numpy as np

from yolojet_ros.core.text import shown

MAX_PIXELS = 8192 * 8192
_CONVERTING = threading.Lock()


class ImageError(ValueError):
    """
    An image that cannot be used; `cause` groups errors for counters and logs.

    cause: 'empty', 'size', 'step', 'data', 'encoding', 'frame_id' or 'decode'
    message: of one line; what a stranger sent is quoted and bounded in it
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """:raises ImageError: if there are no pixels, or more than `max_pixels`."""
    if width <= 0 or height <= 0:
        raise ImageError('empty', (
            f'the image is {width}x{height}; both sides must be positive'))
    if width * height > max_pixels:
        raise ImageError('size', (
            f'the image is {width}x{height}, {width * height / 1e6:.3g} million pixels; at most '
            f'{max_pixels / 1e6:.3g} million are accepted'))


@dataclass(frozen=True)
class ImageFormat:
    """
    Layout of one encoding (sensor_msgs/image_encodings).

    channels: samples per pixel within a row
    to_bgr: conversion of the [rows, width, channels] array to uint8 BGR [H, W, 3];
        None where it is BGR already
    dtype: type of one sample
    to_gray: conversion of any rows of it to uint8 brightness [rows, width]; None where it is
        that already
    rows: rows of `step` bytes per image row, as a fraction: (3, 2) for nv12
    even_width, even_height: chroma subsampling needs even sizes
    mosaic: the mean of 2x2 samples is the brightness, and none alone
    bright: the sample of a pixel that says most about its brightness
    """

    channels: int
    to_bgr: Optional[Callable[[np.ndarray], np.ndarray]]
    to_gray: Optional[Callable[[np.ndarray], np.ndarray]] = None
    dtype: np.dtype = np.dtype(np.uint8)
    rows: tuple = (1, 1)
    even_width: bool = False
    even_height: bool = False
    mosaic: bool = False
    bright: int = 0


def _color(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.cvtColor(image, code)


def _upper_byte(image: np.ndarray) -> np.ndarray:
    # The scaling of cv_bridge, independent of the content.
    return (image >> 8).astype(np.uint8)


def _mono16(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(_upper_byte(image), cv2.COLOR_GRAY2BGR)


def _packed(channels: int, bgr: Optional[int], gray: int, **layout: int) -> ImageFormat:
    to_bgr = None if bgr is None else _color(bgr)
    return ImageFormat(channels, to_bgr, _color(gray), **layout)


_MONO = ImageFormat(1, _color(cv2.COLOR_GRAY2BGR))
_MONO16 = ImageFormat(1, _mono16, _upper_byte, np.dtype(np.uint16))
_BGR = _packed(3, None, cv2.COLOR_BGR2GRAY, bright=1)
_BGRA = _packed(4, cv2.COLOR_BGRA2BGR, cv2.COLOR_BGRA2GRAY, bright=1)
_UYVY = _packed(2, cv2.COLOR_YUV2BGR_UYVY, cv2.COLOR_YUV2GRAY_UYVY, even_width=True, bright=1)
_YUYV = _packed(2, cv2.COLOR_YUV2BGR_YUY2, cv2.COLOR_YUV2GRAY_YUY2, even_width=True)

# ROS names a Bayer pattern by its first two rows, OpenCV by the second row, shifted by one.
FORMATS: Dict[str, ImageFormat] = {
    'bgr8': _BGR,
    '8UC3': _BGR,
    'rgb8': _packed(3, cv2.COLOR_RGB2BGR, cv2.COLOR_RGB2GRAY, bright=1),
    'bgra8': _BGRA,
    '8UC4': _BGRA,
    'rgba8': _packed(4, cv2.COLOR_RGBA2BGR, cv2.COLOR_RGBA2GRAY, bright=1),
    'mono8': _MONO,
    '8UC1': _MONO,
    'mono16': _MONO16,
    '16UC1': _MONO16,
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': ImageFormat(1, _color(cv2.COLOR_YUV2BGR_NV12), rows=(3, 2),
                        even_width=True, even_height=True),
    'bayer_rggb8': ImageFormat(1, _color(cv2.COLOR_BayerBG2BGR), mosaic=True),
    'bayer_bggr8': ImageFormat(1, _color(cv2.COLOR_BayerRG2BGR), mosaic=True),
    'bayer_gbrg8': ImageFormat(1, _color(cv2.COLOR_BayerGR2BGR), mosaic=True),
    'bayer_grbg8': ImageFormat(1, _color(cv2.COLOR_BayerGB2BGR), mosaic=True),
}


@dataclass(frozen=True)
class ImageView:
    """
    An image as it lies in a message; nothing is copied.

    data: uint8[k], the bytes, k >= rows * step
    width, height: pixels
    step: bytes from one row to the next
    encoding: a name of sensor_msgs/image_encodings
    big_endian: byte order of samples wider than one byte
    """

    data: np.ndarray
    width: int
    height: int
    step: int
    encoding: str
    big_endian: bool = False

    @classmethod
    def from_bgr(cls, image: np.ndarray) -> ImageView:
        """Return the view of a C-contiguous uint8 BGR array [H, W, 3]."""
        height, width = image.shape[:2]
        return cls(image.reshape(-1), width, height, 3 * width, 'bgr8')

    def check(self) -> None:
        """:raises ImageError: where size, step, length or encoding do not fit together."""
        kind = FORMATS.get(self.encoding)
        if kind is None:
            raise ImageError('encoding', (
                f'cannot decode encoding {shown(self.encoding)}; supported are '
                + ', '.join(sorted(FORMATS))))
        check_size(self.width, self.height)
        if (kind.even_width and self.width % 2) or (kind.even_height and self.height % 2):
            raise ImageError('size', (
                f'a {self.encoding} image of {self.width}x{self.height} has an odd side; '
                'its chroma is subsampled, so the side must be even'))
        row_bytes = self.width * kind.channels * kind.dtype.itemsize
        if self.step < row_bytes:
            raise ImageError('step', (
                f'step is {self.step} bytes; a row of {self.width} {self.encoding} pixels '
                f'takes {row_bytes}'))
        rows = self.height * kind.rows[0] // kind.rows[1]
        if self.data.size != rows * self.step:
            raise ImageError('data', (
                f'data has {self.data.size} bytes; {rows} rows of step {self.step} '
                f'take {rows * self.step}'))

    def samples(self) -> np.ndarray:
        """
        Return the samples [rows, width, channels], still without a copy.

        :raises ImageError: as `check`.
        """
        self.check()
        kind = FORMATS[self.encoding]
        rows = self.height * kind.rows[0] // kind.rows[1]
        row_bytes = self.width * kind.channels * kind.dtype.itemsize
        raw = self.data.reshape(rows, self.step)[:, :row_bytes]
        if kind.dtype.itemsize > 1:
            order = kind.dtype.newbyteorder('>' if self.big_endian else '<')
            # NumPy before 1.23 gives another type to contiguous arrays only.
            raw = np.ascontiguousarray(raw).view(order)
        if kind.channels == 1:
            return raw
        return raw.reshape(rows, self.width, kind.channels)

    def bgr(self) -> np.ndarray:
        """
        Return uint8 BGR [H, W, 3]; for bgr8 a view of `data`, else converted once and kept.

        It is read-only then, as everybody who asks shares it.

        :raises ImageError: as `check`.
        """
        with _CONVERTING:  # of two threads that ask, one waits; Python from 3.12 on would not
            return self._bgr

    @cached_property
    def _bgr(self) -> np.ndarray:
        samples = self.samples()
        convert = FORMATS[self.encoding].to_bgr
        if convert is None:
            return samples
        image = convert(samples)
        image.flags.writeable = False
        return image

    def places(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """
        Return where in `data` the byte lies that says how bright a pixel is.

        Of colours it is the green one, of a mosaic that which the pixel has.

        :param x, y: int64, of any shapes that go together, within the image
        """
        kind = FORMATS[self.encoding]
        size = kind.dtype.itemsize
        byte = kind.bright * size + (0 if self.big_endian else size - 1)
        return y * self.step + x * (kind.channels * size) + byte

    def gray(self, reduction: int = 1) -> np.ndarray:
        """
        Return the brightness as a new array, uint8 [H // reduction, W // reduction].

        A pixel is the mean of some of its block of reduction x reduction, so that most of a
        large image is neither read nor converted.

        :param reduction: 1 or an even number, at most the shorter side
        :raises ImageError: as `check`.
        """
        kind, samples = FORMATS.get(self.encoding), self.samples()[:self.height]
        if reduction == 1:
            if kind.mosaic:
                return cv2.cvtColor(self.bgr(), cv2.COLOR_BGR2GRAY)
            return samples.copy() if kind.to_gray is None else kind.to_gray(samples)
        height, width, half = self.height // reduction, self.width // reduction, reduction // 2
        if kind.mosaic:  # only two rows next to each other have all colours
            blocks = samples[:height * reduction].reshape(height, reduction, self.width)
            rows = blocks[:, half - 1:half + 1].reshape(2 * height, self.width)
        else:
            rows = samples[half // 2::half][:2 * height]
        rows = rows[:, :width * reduction]
        if kind.channels == 3 and half > 1:
            return _mixed(rows.reshape(2 * height, -1), width)
        if kind.to_gray is not None:
            rows = kind.to_gray(rows)
        # The means of 2x2 are quick; of these the middle one or two count.
        means = cv2.resize(rows, (width * half, height), interpolation=cv2.INTER_AREA)
        return means if half == 1 else cv2.resize(
            means, (width, height), interpolation=cv2.INTER_LINEAR)


def _mixed(rows: np.ndarray, width: int) -> np.ndarray:
    """
    Return means of colours, uint8 [rows / 2, width], without a conversion.

    Neighbouring bytes are neighbouring colours: means over a few of them are as good a
    brightness as any, and many times quicker than weights.

    :param rows: uint8 [2 * height, bytes], of at least 12 bytes for each pixel of the result
    """
    height, size = len(rows) // 2, rows.shape[1] // 2
    means = cv2.resize(rows, (size, height), interpolation=cv2.INTER_AREA)
    if size // width != 6:  # else the two in the middle are green, red, blue and green
        means = cv2.resize(means, (2 * width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
