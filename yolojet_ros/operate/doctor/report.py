"""The findings as a table for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from typing import Any, Dict, List, Sequence

from yolojet_ros.core.text import one_line
from yolojet_ros.operate.doctor.finding import exit_code, FAIL, OK, SKIPPED, WARN
from yolojet_ros.operate.doctor.runner import Result

_WORDS = {OK: 'ok', WARN: 'WARN', FAIL: 'FAIL', SKIPPED: '-'}
_COLOURS = {OK: '32', WARN: '33', FAIL: '31', SKIPPED: '2'}
_COUNTED = {OK: 'ok', WARN: 'warning', FAIL: 'failure', SKIPPED: 'skipped'}
_INDENT = 7  # of the name of a check
_LONGEST = 2000  # characters of a text


class Table:
    """
    Lines for a terminal, one check at a time.

    :param names: of all checks, for the width of their column
    :param width: of the terminal, in characters
    """

    def __init__(self, names: Sequence[str], width: int = 80, colour: bool = False) -> None:
        self._name = max(map(len, names), default=0) + 2
        self._width = max(width, _INDENT + self._name + 20)
        self._colour = colour
        self._area = ''

    def lines(self, result: Result) -> List[str]:
        """Return the lines of a check, with the heading of its area before the first of it."""
        check, finding = result.check, result.finding
        lines = [] if check.area == self._area else [*[''] * bool(self._area), check.area]
        self._area = check.area
        word = _WORDS[finding.status].ljust(_INDENT - 2)
        if self._colour:
            word = f'\033[{_COLOURS[finding.status]}m{word}\033[0m'
        found = self._wrapped(finding.found, '')
        lines.append(f'  {word}{check.name.ljust(self._name)}{found[0].lstrip()}')
        lines += found[1:]
        if finding.meaning:
            lines += self._wrapped(finding.meaning, '-> ')
        if finding.command:  # in one piece, to be copied
            lines.append(' ' * (_INDENT + self._name) + '$  ' + one_line(
                finding.command, _LONGEST))
        return lines

    def _wrapped(self, text: str, begin: str) -> List[str]:
        margin = ' ' * (_INDENT + self._name)
        return textwrap.wrap(
            one_line(text, _LONGEST), self._width, initial_indent=margin + begin,
            subsequent_indent=margin + ' ' * len(begin), break_long_words=False,
            break_on_hyphens=False) or [margin]


def summary(results: Sequence[Result]) -> str:
    """Return one line: how many checks came to what."""
    counts = {status: sum(result.finding.status == status for result in results)
              for status in _WORDS}
    return f'{len(results)} check{"s" * (len(results) != 1)}: ' + ', '.join(
        f'{count} {_COUNTED[status]}{"s" * (status in (WARN, FAIL) and count > 1)}'
        for status, count in counts.items() if count)


def as_record(results: Sequence[Result]) -> Dict[str, Any]:
    """Return what JSON is made of; `exit_code` is that of the command."""
    return {
        'exit_code': exit_code(result.finding for result in results),
        'checks': [{
            'name': result.check.name, 'area': result.check.area,
            'status': result.finding.status, 'found': result.finding.found,
            'meaning': result.finding.meaning, 'command': result.finding.command,
            'seconds': result.seconds} for result in results]}
