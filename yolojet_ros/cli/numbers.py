"""Numbers on the command line, within the range that makes sense."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Callable

_MOST = 1_000_000


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
