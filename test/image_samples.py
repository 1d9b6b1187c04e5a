"""Pictures as cameras send them, and as nobody should."""

from __future__ import annotations

import base64
import struct
import zlib

import cv2
import numpy as np

# A gray slope of 16x16 (value: 8 * (x + y)) in the four inks of a printer, as Pillow writes it.
CMYK = base64.b85decode(
    '|JeWT01iQ9Z(?NtWB>pF0095n07C!`2?`4e2n`Dg3l0tq4-+626A}^=CmbFZATB8}FfJ)AEHgSvJ~K8(H!LkcS3yQh'
    'PEu1+GCo>iT2Nq0QBqI;zyK5o01yBW1Va%3O%VWD5dcdO0RO}Q761VO0RR910000000000000I62mizX7!Uvg0{{R3'
    '0000000000000041tBs2+5ip&LjX+xSpZ7_06zdH9)?g(Jq)0ndKpHXCyzrYPacL)o;?hrDD*OlJq)6cLnwst=w%7x'
    '(8?3Xp_E7e*#')
EOI = b'\xff\xd9'
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def picture(width=61, height=45):
    """Return uint8 BGR [height, width, 3] with slopes and noise."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack((x * 3 % 256, y * 5 % 256, (x + y) % 256), -1).astype(np.uint8)
    noise = image[::5, 10:40]
    noise[:] = np.random.default_rng(0).integers(0, 256, noise.shape)
    return image


def jpeg(*options, image=None):
    """Return a picture as JPEG; `options` as for cv2.imencode."""
    return cv2.imencode('.jpg', picture() if image is None else image, options)[1].tobytes()


def without_tables(data):
    """Leave the Huffman tables out of a JPEG, as motion JPEG does."""
    start = data.index(b'\xff\xc4')
    while data[start:start + 2] == b'\xff\xc4':
        length = struct.unpack('>H', data[start + 2:start + 4])[0]
        data = data[:start] + data[start + 2 + length:]
    return data


def with_thumbnail(data):
    """Put a small JPEG into the header of a JPEG."""
    small = jpeg(image=picture(24, 16))
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(small) + 2) + small + data[2:]


def resized_header(data, frame, width, height):
    """Let the frame header of a JPEG promise another size."""
    at = data.index(bytes((0xff, frame))) + 5
    return data[:at] + struct.pack('>HH', height, width) + data[at + 4:]


def _chunk(kind, data):
    return (struct.pack('>I', len(data)) + kind + data
            + struct.pack('>I', zlib.crc32(kind + data)))


def _png(width, height, rows, depth, color, interlace=0):
    header = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlace)
    return (b'\x89PNG\r\n\x1a\n' + _chunk(b'IHDR', header) + _chunk(b'IDAT', rows)
            + _chunk(b'IEND', b''))


def animated(data, other):
    """Make an animation of two PNG pictures of one size; the first is the still one."""
    header, body = data[16:24], other[other.index(b'IDAT') - 4:-12]
    frame = [_chunk(b'fcTL', struct.pack('>I', number) + header + struct.pack(
        '>IIHHBB', 0, 0, 1, 10, 0, 0)) for number in (0, 1)]
    length = struct.unpack('>I', body[:4])[0]
    moved = _chunk(b'fdAT', struct.pack('>I', 2) + body[8:8 + length])
    return (data[:33] + _chunk(b'acTL', struct.pack('>II', 2, 0)) + frame[0] + data[33:-12]
            + frame[1] + moved + data[-12:])


def with_profile(data):
    """Give a PNG a colour profile that libpng complains of."""
    return data[:33] + _chunk(b'iCCP', b'x\0\0' + zlib.compress(bytes(200))) + data[33:]


def interlaced_png():
    """Return the picture as an Adam7 PNG, which OpenCV does not write."""
    image = picture()[..., ::-1]
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))
    rows = b''.join(b'\0' + row.tobytes() for top, left, down, right in passes
                    for row in image[top::down, left::right])
    return _png(61, 45, zlib.compress(rows), 8, 2, interlace=1)


def huge_png(side=30000):
    """Return a PNG of side x side black pixels, one bit each, in about 100 kB."""
    packer, row = zlib.compressobj(9), bytes(side // 8 + 1)
    rows = b''.join(packer.compress(row) for _ in range(side)) + packer.flush()
    return _png(side, side, rows, 1, 0)
