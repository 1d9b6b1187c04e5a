"""What a check found, what it means, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

OK, WARN, FAIL, SKIPPED = 'ok', 'warn', 'fail', 'skipped'


@dataclass(frozen=True)
class Finding:
    """
    The result of one check.

    status: ok, warn, fail or skipped
    found: what is there, in one sentence
    meaning: what follows from it; '' where nothing does
    command: the shell command that mends it, '' if none is needed or known
    """

    status: str
    found: str
    meaning: str = ''
    command: str = ''


def ok(found: str, meaning: str = '', command: str = '') -> Finding:
    """Return that all is well."""
    return Finding(OK, found, meaning, command)


def warn(found: str, meaning: str, command: str = '') -> Finding:
    """Return what works, but not as well as it could, or not everywhere."""
    return Finding(WARN, found, meaning, command)


def fail(found: str, meaning: str, command: str = '') -> Finding:
    """Return what will not work."""
    return Finding(FAIL, found, meaning, command)


def skipped(found: str) -> Finding:
    """Return why a check has nothing to look at here."""
    return Finding(SKIPPED, found)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if all is well or skipped, 1 for warnings, 2 for failures."""
    statuses = {finding.status for finding in findings}
    return 2 if FAIL in statuses else 1 if WARN in statuses else 0
