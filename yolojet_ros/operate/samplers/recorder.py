"""Samples of a machine all along, by a thread of their own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from yolojet_ros.operate.samplers.machine import Machine
from yolojet_ros.operate.samplers.process import ProcessReader
from yolojet_ros.operate.samplers.sample import Sample

_WORDS = ('power_of', 'throttling')


class Recorder:
    """
    What the machine told every so many seconds, and in which phase of the work.

    :param seconds: between two samples
    """

    def __init__(self, machine: Machine, seconds: float = 0.2) -> None:
        self._machine, self._seconds = machine, seconds
        self._start = time.monotonic()
        self._samples: List[Tuple[float, Sample]] = []
        self._phases: List[Tuple[str, float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name='recorder', daemon=True)

    def __enter__(self) -> Recorder:
        self._machine.read()  # loads are counted from here on
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()
        self._machine.close()

    def watch(self, pid: Optional[int]) -> None:
        """Look at another process from now on."""
        for reader in self._machine.readers:
            if isinstance(reader, ProcessReader):
                reader.watch(pid)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what is done meanwhile."""
        start = self._now()
        try:
            yield
        finally:
            self._phases.append((name, start, self._now()))

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _follow(self) -> None:
        while not self._ended.wait(self._seconds):
            now = self._now()
            self._samples.append((now, self._machine.read()))

    def series(self) -> Dict[str, Any]:
        """
        Return all samples for JSON: `seconds`, and a list of each value that was ever told.

        `phases` are [name, start, end] in the same seconds.
        """
        samples = list(self._samples)
        rows: Dict[str, Any] = {'seconds': [round(now, 3) for now, _ in samples]}
        for item in fields(Sample):
            values = [getattr(sample, item.name) for _, sample in samples]
            if any(value is not None for value in values) and item.name not in _WORDS:
                rows[item.name] = [_rounded(value) for value in values]
        rows['phases'] = [[name, round(start, 3), round(end, 3)]
                          for name, start, end in self._phases]
        return rows

    def use(self, phase: str) -> Dict[str, Any]:
        """
        Return what a phase took: of each value that was told its mean and maximum.

        `throttling` are all reasons of that time, `power_of` is what drew the power.
        """
        spans = [(start, end) for name, start, end in self._phases if name == phase]
        samples = [sample for now, sample in list(self._samples)
                   if any(start <= now <= end for start, end in spans)]
        found: Dict[str, Any] = {}
        for item in fields(Sample):
            values = _told(samples, item.name)
            if values and item.name not in _WORDS:
                found[item.name] = {'mean': _rounded(sum(values) / len(values)),
                                    'max': _rounded(max(values))}
        for word in _told(samples, 'power_of')[:1]:
            found['power_of'] = word
        told = _told(samples, 'throttling')
        if told:
            found['throttling'] = list(dict.fromkeys(
                reason for reasons in told for reason in reasons))
        return found


def _told(samples: Sequence[Sample], name: str) -> List[Any]:
    values = [getattr(sample, name) for sample in samples]
    return [value for value in values if value is not None]


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
