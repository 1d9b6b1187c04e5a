"""What `detect` prints of the images: JSON, or a line for every file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
import json
from pathlib import Path
import sys
from typing import Any, Dict, Optional, Sequence, Tuple, TypeVar

from tqdm import tqdm

from yolojet_ros.core.detection_records import records
from yolojet_ros.core.detections import best_classes, Detections
from yolojet_ros.core.text import one_line

_LONGEST = 10_000  # characters of a line
_Self = TypeVar('_Self', bound='Output')


def say(text: str) -> None:
    """Print a sentence to stderr, above a progress bar."""
    tqdm.write(f'yolojet: {one_line(text, _LONGEST)}', file=sys.stderr)


def _print(text: str) -> None:
    tqdm.write(text, file=sys.stdout, end='')
    sys.stdout.flush()


class Output(ABC):
    """
    Where the results go; to be entered before and left after them.

    :param names: class names of the model
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    @abstractmethod
    def add(
        self, path: Path, frame: Optional[int], size: Tuple[int, int], detections: Detections,
    ) -> None:
        """
        Take what was seen on one picture.

        :param frame: its number in a video, from 0 on; None for an image
        :param size: (width, height)
        """

    def end_file(self, path: Path, saved: Optional[Path]) -> None:
        """Take that all pictures of a file were added, and where its copy was saved."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Take the end, which `kind` of exception brought, None for none."""


class JsonOutput(Output):
    """An array that grows, an entry a line; it is whole wherever the work ends."""

    def __enter__(self) -> JsonOutput:
        self._separator = '\n'
        _print('[')
        return self

    def add(
        self, path: Path, frame: Optional[int], size: Tuple[int, int], detections: Detections,
    ) -> None:
        entry: Dict[str, Any] = {'image': str(path)}
        if frame is not None:
            entry['frame'] = frame
        entry.update(width=size[0], height=size[1], **records(detections, self.names))
        _print(self._separator + json.dumps(entry))
        self._separator = ',\n'

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None or not issubclass(kind, OSError):  # which nobody could read
            _print('\n]\n')


class TextOutput(Output):
    """A line for every file: its size, and how many of which class."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._forget()

    def add(
        self, path: Path, frame: Optional[int], size: Tuple[int, int], detections: Detections,
    ) -> None:
        self._pictures += 1
        self._size = size
        if detections.probabilities is None:
            self._counts.update(detections.classes.tolist())
            return
        best = best_classes(detections.probabilities)
        self._counts.update(best[:1].tolist())
        self._best = ', '.join(
            f'{self._name(index)} {detections.probabilities[index]:.2f}' for index in best)

    def end_file(self, path: Path, saved: Optional[Path]) -> None:
        pictures = '' if self._pictures == 1 else f'{self._pictures} pictures of '
        seen = self._best if self._pictures == 1 and self._best else ', '.join(
            f'{count} {self._name(index)}' for index, count in self._counts.most_common())
        where = '' if saved is None else f' -> {saved}'
        size = 'x'.join(map(str, self._size))
        _print(one_line(f'{path}: {pictures}{size}, {seen or "nothing"}{where}', _LONGEST) + '\n')
        self._forget()

    def _forget(self) -> None:
        self._pictures, self._size, self._best = 0, (0, 0), ''
        self._counts: Counter = Counter()

    def _name(self, index: int) -> str:
        return one_line(self.names[index], 60)
