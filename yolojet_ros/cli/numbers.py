"""Numbers on the command line, within the range that makes sense."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Callable, Tuple

from yolojet_ros.core.errors import UserError

_MOST = 1_000_000
_MOST_PIXELS = 8192  # along an edge


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """Return a type for argparse: a whole number from `least` to `most`."""
    def read(text: str) -> int:
        # Python refuses to read numbers of thousands of digits, and takes long for them.
        value = int(text) if len(text) <= 20 and text.lstrip('+-').isdecimal() else None
        if value is None or not least <= value <= most:
            raise ArgumentTypeError(
                f'"{text[:40]}" was given; give a whole number from {least} to {most}')
        return value
    return read


def image_size(text: str) -> Tuple[int, int]:
    """Return (width, height) of WxH for argparse."""
    from yolojet_ros.core.knob_values import parse_size
    try:
        size = parse_size('the size', text)
    except UserError:
        size = None
    if not size or max(size) > _MOST_PIXELS:
        raise ArgumentTypeError(
            f'"{text[:40]}" was given; give width and height of at most {_MOST_PIXELS} pixels, '
            'such as 1280x720')
    return size
