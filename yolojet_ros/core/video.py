"""Record a video file that is whole or not there."""

from __future__ import annotations

from contextlib import contextmanager, ExitStack
from pathlib import Path
from typing import Callable, Iterator, Optional

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path, utf8_path


@contextmanager
def video_file(path: Path, rate: float = 30.0) -> Iterator[Callable[[np.ndarray], None]]:
    """
    Yield a function that adds a picture, uint8 BGR [H, W, 3], all of one size.

    Without a picture there is no file.

    :raises UserError: if the path is not UTF-8, or the video is not whole afterwards, as on a full disk.
    """
    with ExitStack() as stack:
        utf8_path(path)
        writer: Optional[cv2.VideoWriter] = None
        temporary, count = path, 0

        def add(picture: np.ndarray) -> None:
            nonlocal writer, temporary, count
            if writer is None:
                temporary = stack.enter_context(atomic_path(path))
                writer = cv2.VideoWriter(
                    str(temporary), cv2.VideoWriter_fourcc(*'mp4v'), rate, picture.shape[1::-1])
            writer.write(picture)
            count += 1

        yield add
        if writer is None:
            return
        writer.release()
        # The writer itself reports nothing.
        if _frames(temporary) != count:
            raise UserError(f'cannot write {path}: the video broke off; make room on the disk, '
                            'or choose another folder')


def _frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
