"""JPEG and PNG: what the header promises is checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Optional, Tuple, Union
import zlib

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.image_formats import check_size, ImageError, MAX_PIXELS

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_SOI, _EOI, _SOS, _DRI, _TEM = 0xd8, 0xd9, 0xda, 0xdd, 0x01
_RST0, _RSTS = 0xd0, 8
_FRAMES = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}  # SOFn
_SEQUENTIAL = (0xc0, 0xc1)
# Which bytes after 0xff make a marker: not stuffing, restarts and fill, which belong to a scan.
_IS_MARKER = np.ones(256, bool)
_IS_MARKER[[0x00, 0xff, *range(0xd0, 0xd8)]] = False
_BLANK = 128  # what libjpeg puts, in each channel, where pixels are missing
_MOST_CHUNKS = 1 << 16
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
    frames of motion JPEG do) or its end marker, as long as every pixel is there. One whose
    middle is lost is refused where pixels are missing at its end or restart markers in
    between; wrong bits that keep their number cannot be known. Of a PNG with animation, the
    still picture is decoded.

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
        if len(head) < 24 or head[12:16] != b'IHDR':
            raise _incomplete(data, 'PNG')
        check_size(*(int.from_bytes(head[at:at + 4], 'big') for at in (16, 20)), max_pixels)
        return _decoded(_critical_chunks(data), 'PNG')
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


def _critical_chunks(data: np.ndarray) -> np.ndarray:
    """
    Return a PNG without its chunks that no pixel depends on (ISO/IEC 15948, clause 5).

    libpng writes what it thinks of a broken picture, and of harmless chunks, to stderr.

    :raises ImageError: if a chunk is cut off or differs from its checksum.
    """
    raw, at, kept = memoryview(data), len(_PNG), [_PNG]
    for _ in range(_MOST_CHUNKS):
        length, kind = int.from_bytes(raw[at:at + 4], 'big'), bytes(raw[at + 4:at + 8])
        end = at + 12 + length
        if end > len(raw) or zlib.crc32(raw[at + 4:end - 4]) != int.from_bytes(
                raw[end - 4:end], 'big'):
            break
        if kind[:1].isupper():
            kept.append(raw[at:end])
        if kind == b'IEND':
            return np.frombuffer(b''.join(kept), np.uint8)
        at = end
    raise _incomplete(data, 'PNG')


@dataclass
class _Jpeg:
    """
    What the markers of a JPEG tell (ITU-T T.81, annex B).

    size: (width, height) in pixels
    frame: the marker of the frame, 0xc0 for baseline
    sampling: sampling factors of each component, horizontal << 4 | vertical
    scans: passes over the picture
    interval: units of a picture between two restart markers, 0 for no such markers
    data: offset of the last scan's data
    end: offset of the end marker, None if there is none
    """

    size: Tuple[int, int] = (0, 0)
    frame: int = 0
    sampling: bytes = b''
    scans: int = 0
    interval: int = 0
    data: int = 0
    end: Optional[int] = None

    @property
    def restarts(self) -> int:
        """Return how many restart markers a single scan has."""
        factors = [(8 * (pair >> 4), 8 * (pair & 15)) for pair in self.sampling]
        unit = (8, 8) if len(factors) == 1 else map(max, zip(*factors))
        units = math.prod(-(-side // max(step, 1)) for side, step in zip(self.size, unit))
        return max(-(-units // self.interval) - 1, 0) if self.interval else 0


def _decode_jpeg(data: np.ndarray, max_pixels: int) -> np.ndarray:
    jpeg = _read_markers(data)
    if jpeg is None:
        raise _incomplete(data, 'JPEG')
    check_size(*jpeg.size, max_pixels)
    if jpeg.size[0] * jpeg.size[1] * jpeg.scans > _SCANS * max_pixels:
        raise ImageError('size', (
            f'the JPEG of {jpeg.size[0]}x{jpeg.size[1]} has {jpeg.scans} scans; for so many '
            f'pixels at most {_SCANS * max_pixels // (jpeg.size[0] * jpeg.size[1])} are accepted'))
    if jpeg.frame not in _SEQUENTIAL or jpeg.scans != 1:
        if jpeg.end is None:
            raise _incomplete(data, 'JPEG')
        return _decoded(data, 'JPEG')
    if not _restarts_are_in_order(data, jpeg):
        raise _incomplete(data, 'JPEG')
    # The last bytes of 0xff would make a marker of what follows.
    begin = data[:jpeg.end].tobytes().rstrip(b'\xff')
    whole = _decoded(np.frombuffer(begin + _END, np.uint8), 'JPEG')
    # libjpeg takes half a picture for a whole one. Where nothing or only the end marker is
    # missing, it does not matter what follows; where pixels are missing, it becomes pixels.
    if jpeg.end is None or len(jpeg.sampling) == 4 or _has_a_blank_corner(whole):
        other = _decoded(np.frombuffer(begin + _FILLER + _END, np.uint8), 'JPEG')
        if not np.array_equal(whole, other):
            raise _incomplete(data, 'JPEG')
    return whole


def _has_a_blank_corner(image: np.ndarray) -> bool:
    """Tell whether the last pixel may be missing; it is in any corner of a turned picture."""
    return bool((image[[0, 0, -1, -1], [0, -1, 0, -1]] == _BLANK).all(axis=1).any())


def _restarts_are_in_order(data: np.ndarray, jpeg: _Jpeg) -> bool:
    """Tell whether no restart marker of a single scan is missing."""
    scan = data[jpeg.data:jpeg.end]
    codes = scan[np.flatnonzero(scan[:-1] == 0xff) + 1].astype(int) - _RST0
    codes = codes[(0 <= codes) & (codes < _RSTS)][:jpeg.restarts]
    return len(codes) == jpeg.restarts and bool((codes == np.arange(len(codes)) % _RSTS).all())


def _read_markers(data: np.ndarray) -> Optional[_Jpeg]:
    """Follow the markers as a decoder does; None if they break off, or a picture in another."""
    marks = np.flatnonzero(data[:-1] == 0xff)
    raw = memoryview(data)
    found, position = _Jpeg(), 2
    for at in marks[_IS_MARKER[data[marks + 1]]].tolist():
        if at < position:  # within a segment
            continue
        code, body = raw[at + 1], raw[at + 2:at + 28]
        if code == _EOI:
            found.end = at
            break
        if code == _SOI or len(body) < (9 if code in _FRAMES else 2):
            return None
        position = at + 2 + (0 if code == _TEM else int.from_bytes(body[:2], 'big'))
        if code in _FRAMES and not found.frame:
            found.frame, found.sampling = code, bytes(body[9:8 + 3 * min(body[7], 4):3])
            found.size = int.from_bytes(body[5:7], 'big'), int.from_bytes(body[3:5], 'big')
        elif code == _SOS:
            found.scans, found.data = found.scans + 1, position
        elif code == _DRI:
            found.interval = int.from_bytes(body[2:4], 'big')
    return found if found.frame and found.scans else None


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
