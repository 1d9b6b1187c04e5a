"""Which bytes of an image the letterbox kernel reads, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from yolojet_ros.core import antialias
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import ImageInput
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.inference.cuda import kernels

# Bytes of a pixel, and where its R, G and B lie.
_PACKED = {
    'bgr8': (3, (2, 1, 0)), '8UC3': (3, (2, 1, 0)), 'rgb8': (3, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)), '8UC4': (4, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)),
    'mono8': (1, (0, 0, 0)), '8UC1': (1, (0, 0, 0))}
_MONO16 = ('mono16', '16UC1')
# Where Y, U and V lie in the four bytes of two pixels.
_YUV422 = {
    'yuv422': (1, 0, 2), 'uyvy': (1, 0, 2), 'yuv422_yuy2': (0, 1, 3), 'yuyv': (0, 1, 3)}
_LAYOUTS = {'packed': 0, 'yuv422': 1, 'nv12': 2}
# Fixed-point weights of cv2.resize for 8-bit images.
_WEIGHT_SCALE = np.float32(2048)

Key = Tuple[int, int, int, str, bool]


def key(view: ImageView) -> Key:
    """Return what two images must share to be sampled alike."""
    return view.width, view.height, view.step, view.encoding, view.big_endian


def for_kernel(view: ImageView) -> ImageView:
    """
    Return `view` if the kernel reads its encoding, else a copy converted to bgr8.

    :raises ImageError: if the image cannot be used.
    """
    if view.encoding in _PACKED or view.encoding in _YUV422 \
            or view.encoding in (*_MONO16, 'nv12'):
        view.check()
        return view
    return ImageView.from_bgr(view.bgr())


@dataclass(frozen=True)
class Sampling:
    """
    How one image geometry is brought into the network's input.

    letterbox: its geometry
    total_rows, step: of the image's bytes
    used_rows: int64[k], the rows that any output pixel touches, ascending; None for all.
        A reduction by 4 touches every other row: half of the bytes need not be copied.
    columns: kernels.COLUMN[resized width]
    rows: kernels.ROW[resized height], as indices into the used rows
    Of an antialiased image both are int32[1 + taps, resized side]: the first pixel, and the
        weights of it and of those behind it; all rows are used.
    layout, pixel_bytes, offset: as the kernel's struct Source has them
    """

    letterbox: Letterbox
    total_rows: int
    step: int
    used_rows: Optional[np.ndarray]
    columns: np.ndarray
    rows: np.ndarray
    layout: int
    pixel_bytes: int
    offset: Tuple[int, int, int]

    @classmethod
    def plan(
        cls, view: ImageView, network: Tuple[int, int], takes: ImageInput = ImageInput(),
    ) -> Sampling:
        """
        Return the sampling of a `view` for an input of (width, height) pixels.

        :param view: with an encoding that the kernel reads (`for_kernel`)
        :param takes: where the image lies in the input, and how it is resized
        """
        letterbox = Letterbox.fit((view.width, view.height), network, takes.fit)
        layout, pixel_bytes, offset = _layout(view)
        if takes.antialias and letterbox.resized != letterbox.source:
            columns, rows = (_all_taps(*sides) for sides in zip(
                letterbox.source, letterbox.resized))
            return cls(letterbox, len(view.samples()), view.step, None, columns, rows, layout,
                       pixel_bytes, offset)
        columns = np.zeros(letterbox.resized[0], kernels.COLUMN)
        rows = np.zeros(letterbox.resized[1], kernels.ROW)
        for table, size in ((columns, view.width), (rows, view.height)):
            (table['first'], table['second'],
             table['weight0'], table['weight1']) = taps(size, len(table))
        planes = [rows['first'], rows['second']]
        total = view.height
        if layout == _LAYOUTS['nv12']:
            rows['chroma0'] = view.height + rows['first'] // 2
            rows['chroma1'] = view.height + rows['second'] // 2
            planes += [rows['chroma0'], rows['chroma1']]
            total += view.height // 2
        used = np.unique(np.concatenate(planes))
        for name in ('first', 'second', 'chroma0', 'chroma1'):
            if layout == _LAYOUTS['nv12'] or not name.startswith('chroma'):
                rows[name] = np.searchsorted(used, rows[name])
        everything = len(used) == total
        return cls(letterbox, total, view.step, None if everything else used.astype(np.int64),
                   columns, rows, layout, pixel_bytes, offset)

    @property
    def staged_shape(self) -> Tuple[int, int]:
        """Return (rows, bytes of a row) of what is copied to the GPU."""
        rows = self.total_rows if self.used_rows is None else len(self.used_rows)
        return rows, self.step

    @property
    def staged_bytes(self) -> int:
        """Return the bytes of what is copied to the GPU."""
        return self.staged_shape[0] * self.step

    def stage(self, data: np.ndarray, target: np.ndarray) -> None:
        """
        Copy the used rows.

        :param data: uint8[k], the bytes of an image of this geometry
        :param target: uint8 of `staged_shape`
        """
        image = data[:self.total_rows * self.step].reshape(self.total_rows, self.step)
        if self.used_rows is None:
            np.copyto(target, image)
        else:
            # mode='clip' because 'raise' fills a temporary array first.
            np.take(image, self.used_rows, axis=0, out=target, mode='clip')

    def describe(self, data: int, columns: int, rows: int) -> np.ndarray:
        """Return the kernel's struct Source for these three device addresses."""
        source = np.zeros((), kernels.SOURCE)
        source['data'], source['columns'], source['rows'] = data, columns, rows
        source['step'], source['layout'] = self.step, self.layout
        source['pixel_bytes'], source['offset'] = self.pixel_bytes, self.offset
        source['left'], source['top'] = self.letterbox.offset
        source['width'], source['height'] = self.letterbox.resized
        source['chroma_top'] = self.letterbox.source[1]
        if self.columns.dtype != kernels.COLUMN:
            source['column_taps'], source['row_taps'] = len(self.columns) - 1, len(self.rows) - 1
        return source

    def geometry(self) -> np.ndarray:
        """Return the kernel's struct Geometry, rounded as core.letterbox does."""
        geometry = np.zeros((), kernels.GEOMETRY)
        letterbox = self.letterbox
        geometry['left'], geometry['top'] = letterbox.offset
        geometry['scale_x'], geometry['scale_y'] = letterbox.inverse_scale
        geometry['forward_x'], geometry['forward_y'] = letterbox.scale
        geometry['width'], geometry['height'] = letterbox.source
        return geometry


def taps(source: int, target: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the two source indices and weights (of 2048) of every target pixel along one axis.

    Bilinear with half-pixel centres and clamped borders, in the arithmetic of cv2.resize.
    """
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position)
    fraction = position - first
    first = first.astype(np.int64)
    outside = (first < 0) | (first >= source - 1)
    fraction[outside] = 0
    first = np.clip(first, 0, source - 1)
    second = np.where(fraction > 0, np.minimum(first + 1, source - 1), first)
    return (first, second, np.rint((np.float32(1) - fraction) * _WEIGHT_SCALE).astype(np.int64),
            np.rint(fraction * _WEIGHT_SCALE).astype(np.int64))


def _all_taps(source: int, target: int) -> np.ndarray:
    found = antialias.taps(source, target)
    return np.concatenate((found.first[None], found.weights))


def _layout(view: ImageView):
    if view.encoding in _YUV422:
        return _LAYOUTS['yuv422'], 2, _YUV422[view.encoding]
    if view.encoding == 'nv12':
        return _LAYOUTS['nv12'], 1, (0, 0, 1)
    if view.encoding in _MONO16:
        high = 0 if view.big_endian else 1
        return _LAYOUTS['packed'], 2, (high, high, high)
    pixel_bytes, offset = _PACKED[view.encoding]
    return _LAYOUTS['packed'], pixel_bytes, offset
