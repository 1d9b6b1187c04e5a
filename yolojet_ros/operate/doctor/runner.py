"""Run checks one after the other; whatever one of them does, the others run."""

from __future__ import annotations

from dataclasses import dataclass
import queue
import threading
import time
from typing import Iterator, Optional, Sequence

from yolojet_ros.core.text import one_line
from yolojet_ros.operate.doctor.check import Check, Options
from yolojet_ros.operate.doctor.finding import fail, Finding
from yolojet_ros.operate.doctor.system import NoAnswer, System

_GRACE = 5.0  # s; what waits for a child notices its limit first, and can name it


@dataclass(frozen=True)
class Result:
    """A check with what it found, and the seconds that it took."""

    check: Check
    finding: Finding
    seconds: float


def run(
    checks: Sequence[Check], system: System, options: Options, timeout: Optional[float] = None,
) -> Iterator[Result]:
    """
    Yield the result of each check as soon as it is known.

    :param timeout: seconds for every check in the place of its own limit
    """
    for check in checks:
        limit = check.seconds if timeout is None else timeout
        begin = time.monotonic()
        finding = _run(check, system, options, limit)
        yield Result(check, finding, round(time.monotonic() - begin, 3))


def _run(check: Check, system: System, options: Options, limit: float) -> Finding:
    system.limit = limit
    answers: 'queue.Queue[Finding]' = queue.Queue()
    # A thread that hangs, in a read from a broken disk for one, cannot be ended: it is left
    # behind, and ends with the process.
    threading.Thread(
        target=lambda: answers.put(_finding(check, system, options)), daemon=True).start()
    try:
        return answers.get(timeout=limit + _GRACE)
    except queue.Empty:
        return _late('it', limit)


def _finding(check: Check, system: System, options: Options) -> Finding:
    try:
        return check.function(system, options)
    except NoAnswer as error:
        return _late(str(error), system.limit)
    except Exception as error:  # a fault of the check must not hide what the others find
        return fail(
            f'the check itself failed: {type(error).__name__}: {one_line(str(error), 200)}',
            'this is a fault of yolojet doctor: please report it with this line')


def _late(what: str, limit: float) -> Finding:
    return fail(f'{what} gave no answer within {limit:g} s',
                'it hangs, or this machine is very slow; give it longer with --timeout')
