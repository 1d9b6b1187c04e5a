"""A camera or stream that is opened again and again where it was lost."""

from __future__ import annotations

import time
from typing import Callable, Optional

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.sources import Source

_FIRST_PAUSE = 0.5  # s between two attempts, twice as long after each
_LONGEST_PAUSE = 10.0  # and the time that it must hold to be taken for whole again


class ReopenedSource(Source):
    """
    A live source whose `read` goes on after a loss.

    :param open_: opens it; raises UserError where it is not there
    :param wait: lets so many seconds pass, and returns whether the reading is to end
    :param log: called with a line when the source is lost and when it is back
    :param source: as it was opened already, if it was

    reopened: how many times it came back
    """

    def __init__(
        self, description: str, rate: float, open_: Callable[[], Source],
        wait: Callable[[float], bool], log: Callable[[str], None],
        source: Optional[Source] = None,
    ) -> None:
        super().__init__(description, rate, live=True)
        self.reopened = 0
        self.waiting = False
        self._open, self._wait, self._log = open_, wait, log
        self._source = source
        self._pause = _FIRST_PAUSE
        self._found = 0.0  # last time that it came back
        self._lost: Optional[float] = None  # since when, on time.monotonic
        self._reason = ''

    @property
    def lost(self) -> str:
        """Return why there is no picture and since when, in one sentence, or ''."""
        lost = self._lost
        return '' if lost is None else (
            f'no picture for {time.monotonic() - lost:.0f} s: {self._reason}; it is tried again '
            f'every {self._pause:g} s')

    def read(self) -> Optional[np.ndarray]:
        """Return the next picture, however long it takes; None where the reading is to end."""
        while True:
            try:
                self._source = self._source or self._open()
                image = self._source.read()
            except UserError as error:
                self._lose(str(error))
            else:
                if self._lost is not None:
                    self._find()
                return image
            if self._wait(self._pause):
                return None
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """Give the device back."""
        source, self._source = self._source, None
        if source:
            source.close()

    def _lose(self, reason: str) -> None:
        # While it is held, a camera that is plugged in again gets another number.
        self.close()
        self._reason = reason
        if self._lost is None:
            self._lost = time.monotonic()
            if self._lost - self._found > _LONGEST_PAUSE:
                self._pause = _FIRST_PAUSE
            self._log(f'{reason}; it is tried again until it is back')

    def _find(self) -> None:
        self._found = time.monotonic()
        seconds, self._lost = self._found - self._lost, None
        self.reopened += 1
        self._log(f'{self.description} is there again after {seconds:.1f} s')
