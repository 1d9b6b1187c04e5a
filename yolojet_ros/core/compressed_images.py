"""JPEG and PNG: what the header promises is checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple, Union

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.image_formats import check_size, ImageError, MAX_PIXELS

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_SOI, _EOI, _SOS, _TEM = 0xd8, 0xd9, 0xda, 0x01
_FRAMES = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}  # SOFn
_SEQUENTIAL = (0xc0, 0xc1)
# Which bytes after 0xff make a marker: not stuffing, restarts and fill, which belong to a scan.
_IS_MARKER = np.ones(256, bool)
_IS_MARKER[[0x00, 0xff, *range(0xd0, 0xd8)]] = False
# libjpeg's usual progressive script takes ten passes over the picture.
_SCANS = 10
_END = bytes((0xff, _EOI))
# A tail that shows in the pixels wherever some are missing, also behind any restart marker.
_NOISE = bytes(128 + index * 53 % 122 for index in range(1, 257))
_FILLER = _NOISE + b''.join(bytes((0xff, code)) + _NOISE for code in range(0xd0, 0xd8))


def decode(data: np.ndarray, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """
    Decode a JPEG or PNG picture; one that is refused costs next to nothing.

    A JPEG may be followed by padding or garbage, and may lack its Huffman tables (as
    frames of motion JPEG do) or its end marker, as long as every pixel is there.

    :param data: uint8[k]
    :param max_pixels: width times height that is accepted
    :returns: uint8 BGR [H, W, 3]
    :raises ImageError: 'decode' if the bytes are not a complete picture, 'size' if it has
        too many pixels.
    """
    head = data[:32].tobytes()
    if head.startswith(_JPEG):
        return _decode_jpeg(data, max_pixels)
    if head.startswith(_PNG):
        # Truncation in PNG is an error of the decoder itself: its data has a checksum.
        if len(head) < 24 or head[12:16] != b'IHDR':
            raise _incomplete(data, 'PNG')
        check_size(*(int.from_bytes(head[at:at + 4], 'big') for at in (16, 20)), max_pixels)
        return _decoded(data, 'PNG')
    raise ImageError('decode', (
        f'{data.size} bytes that begin with {head[:4].hex() or "nothing"} are neither; '
        'a complete JPEG or PNG is expected'))


def read_image(path: Union[str, Path]) -> np.ndarray:
    """
    Read an image file as uint8 BGR [H, W, 3].

    :raises UserError: if it is missing, no image, or not a complete one.
    """
    path = Path(path)
    try:
        # Not imread: it cannot open non-ASCII paths everywhere.
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f'cannot read the image {path}: {error.strerror}') from error
    try:
        checked = data[:8].tobytes().startswith((_JPEG, _PNG))
        return decode(data) if checked else _decoded(data, 'an image')
    except ImageError as error:
        raise UserError(
            f'{path} is not an image that can be used ({error}); remove or replace it'
        ) from error


def write_image(path: Union[str, Path], image: np.ndarray) -> None:
    """
    Write a picture in the format of the path's suffix.

    :raises UserError: if the suffix is of no known format, or the file cannot be written.
    """
    path = Path(path)
    try:
        # Not imwrite: it does not say where the disk is full.
        data = cv2.imencode(path.suffix, image)[1].tobytes()
    except cv2.error as error:
        raise UserError(
            f'cannot write {path}: "{path.suffix}" is no picture format; use .png') from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@dataclass(frozen=True)
class _Jpeg:
    """
    What the markers of a JPEG tell (ITU-T T.81, annex B).

    size: (width, height) in pixels
    frame: the marker of the frame, 0xc0 for baseline
    scans: passes over the picture
    ended: whether the end marker was seen
    """

    size: Tuple[int, int]
    frame: int
    scans: int
    ended: bool


def _decode_jpeg(data: np.ndarray, max_pixels: int) -> np.ndarray:
    jpeg = _read_markers(data)
    if jpeg is None:
        raise _incomplete(data, 'JPEG')
    check_size(*jpeg.size, max_pixels)
    if jpeg.size[0] * jpeg.size[1] * jpeg.scans > _SCANS * max_pixels:
        raise ImageError('size', (
            f'the JPEG of {jpeg.size[0]}x{jpeg.size[1]} has {jpeg.scans} scans; for so many '
            f'pixels at most {_SCANS * max_pixels // (jpeg.size[0] * jpeg.size[1])} are accepted'))
    if jpeg.ended:
        return _decoded(data, 'JPEG')
    if jpeg.frame not in _SEQUENTIAL or jpeg.scans != 1:
        raise _incomplete(data, 'JPEG')
    # OpenCV 4 takes half a picture for a whole one. Where only the end marker is missing,
    # it does not matter what follows; where pixels are missing, it becomes pixels.
    begin = data.tobytes().rstrip(b'\xff')  # which would make a marker of what follows
    whole, other = (_decoded(np.frombuffer(begin + tail, np.uint8), 'JPEG')
                    for tail in (_END, _FILLER + _END))
    if not np.array_equal(whole, other):
        raise _incomplete(data, 'JPEG')
    return whole


def _read_markers(data: np.ndarray) -> Optional[_Jpeg]:
    """Follow the markers as a decoder does; None if they break off, or a picture in another."""
    marks = np.flatnonzero(data[:-1] == 0xff)
    raw = memoryview(data)
    size, frame, scans, ended, position = (0, 0), 0, 0, False, 2
    for at in marks[_IS_MARKER[data[marks + 1]]].tolist():
        if at < position:  # within a segment
            continue
        code, body = raw[at + 1], raw[at + 2:at + 11]
        ended = code == _EOI
        if ended:
            break
        if code == _SOI or len(body) < (9 if code in _FRAMES else 2):
            return None
        if code in _FRAMES and not frame:
            frame = code
            size = int.from_bytes(body[5:7], 'big'), int.from_bytes(body[3:5], 'big')
        scans += code == _SOS
        position = at + 2 + (0 if code == _TEM else int.from_bytes(body[:2], 'big'))
    return _Jpeg(size, frame, scans, ended) if frame and scans else None


def _decoded(data: np.ndarray, kind: str) -> np.ndarray:
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # raised where the header promises an absurd size
        image = None
    if image is None:
        raise _incomplete(data, kind)
    return image


def _incomplete(data: np.ndarray, kind: str) -> ImageError:
    return ImageError('decode', (
        f'{data.size} bytes of {kind} are cut off or damaged and cannot be decoded; '
        'a complete picture is expected'))
