"""Text of strangers in a log: bounded, in one line, and nothing that a terminal obeys."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Iterable, Sequence

_LIMIT = 60  # characters


def shown(value: Any, limit: int = _LIMIT) -> str:
    """
    Return a value as a log may show it: text quoted and escaped, cut after `limit` characters.

    >>> shown('a\\nb')
    '"a\\\\nb"'
    """
    # Cut before repr, which may make ten characters of one.
    cut = value[:limit] if isinstance(value, (str, bytes, list, tuple)) else value
    text = repr(cut)
    if isinstance(value, str):
        text = f'"{text[1:-1]}"'
    if len(text) > 2 * limit:
        text = text[:2 * limit] + '...'
    if cut is not value and len(cut) < len(value):
        text += f'... ({len(value)} in all)'
    return text


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return the first `most` names with commas, each bounded, and how many there are."""
    text = ', '.join(one_line(name, _LIMIT) for name in names[:most])
    return text if len(names) <= most else f'{text}, ... ({len(names)} in all)'


def one_line(text: str, limit: int = 1000) -> str:
    """Return text as one line without control characters, cut after `limit` characters."""
    line = ' '.join(text[:2 * limit].split())
    line = ''.join(char if char.isprintable() else '?' for char in line)
    return line if len(line) <= limit else line[:limit] + '...'


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the question after the known name that was meant, or nothing."""
    known = list(known)
    # Also `low_score` for `tracker.low_score`.
    found = [other for other in known if other.rpartition('.')[2] == name]
    found = found or get_close_matches(name, known, 1)
    return f'; did you mean {found[0]}?' if found else ''


def aligned(lines: Sequence[Sequence[str]], left: int = 0) -> str:
    """
    Return cells as text in columns, one row a line.

    :param left: so many of the first columns begin at the left, the others end at the right
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join('  '.join(
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)
