"""The work of `detect`: files in, what is seen on them out, annotated copies beside."""

from __future__ import annotations

from contextlib import ExitStack
import os
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from yolojet_ros.cli.detect_output import Output, say
from yolojet_ros.core.compressed_images import read_image, write_image
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.drawing import draw_detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import home_path
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.text import one_line
from yolojet_ros.core.video import video_file
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Stream
from yolojet_ros.sources import images_in, is_image, SourceOptions, VideoSource

# A video has about as many pictures as it says: that is reckoned from its length, mostly.
_WHOLE = 0.9


def input_files(names: Sequence[str]) -> Tuple[List[Path], List[str]]:
    """
    Return the files that are named and the images of the folders, and why others are not there.

    :raises UserError: if there is no file at all.
    """
    files: List[Path] = []
    refused: List[str] = []
    for name in names:
        try:
            files += _files_of(home_path(name))
        except UserError as error:
            refused.append(str(error))
    if not files:
        raise UserError('; '.join(refused))
    return files, refused


def _files_of(path: Path) -> List[Path]:
    if path.is_dir():
        return images_in(path)
    if not path.is_file():
        raise UserError(f'{path} is neither a file nor a folder; give images, folders of images, '
                        'or videos')
    return [path]


def output_files(inputs: Sequence[Path], folder: Optional[Path]) -> List[Optional[Path]]:
    """
    Return where the annotated copy of each input goes: of the same name, numbered where taken.

    :param folder: None for no copies
    :raises UserError: if one would replace an input.
    """
    if folder is None:
        return [None] * len(inputs)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--save {folder} is no folder; name another one')
    used = {_identity(path) for path in inputs}
    outputs: List[Optional[Path]] = []
    taken = set()
    for path in inputs:
        suffix = path.suffix if is_image(path) else '.mp4'
        name, number = path.stem + suffix, 1
        while name.casefold() in taken:
            number += 1
            name = f'{path.stem}_{number}{suffix}'
        taken.add(name.casefold())
        output = folder / name
        if output.exists() and _identity(output) in used:
            raise UserError(f'{output} is one of the inputs, which would be lost; name another '
                            'folder with --save')
        outputs.append(output)
    return outputs


def _identity(path: Path) -> Tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def detect_files(
    detector: Detector, stream: Stream, files: Sequence[Tuple[Path, Optional[Path]]],
    output: Output,
) -> int:
    """
    Run the detector on all files; one that cannot be used is named on stderr.

    :param files: (path, where its annotated copy goes or None)
    :returns: how many could not be used.
    :raises UserError: if a copy cannot be written.
    """
    refused, told = 0, _warn(detector, 0)
    # On a terminal only.
    with tqdm(total=len(files), unit='image', disable=None) as bar:
        for path, copy in files:
            try:
                _detect_file(detector, stream, path, copy, output, bar)
                output.end_file(path, copy)
            except _Unusable as error:
                say(str(error))
                refused += 1
            told = _warn(detector, told)
    return refused


def _warn(detector: Detector, told: int) -> int:
    """Say the backend's warnings but the first `told`; return how many there are."""
    warnings = detector.backend.warnings
    for text in warnings[told:]:
        say(text)
    return len(warnings)


class _Unusable(UserError):
    """An input that cannot be used; the others may be."""


def _detect_file(
    detector: Detector, stream: Stream, path: Path, copy: Optional[Path], output: Output,
    bar: tqdm,
) -> None:
    video = None if is_image(path) else _open_video(path)
    with ExitStack() as stack:
        write: Optional[Callable[[np.ndarray], None]] = None
        if video is not None:
            stack.callback(video.close)
            bar.total += max(video.count, 1) - 1
            if copy is not None:
                write = stack.enter_context(video_file(copy, video.rate))
        elif copy is not None:
            write = lambda picture: write_image(copy, picture)  # noqa: E731
        number = 0
        for picture, detections in _detected(detector, stream, path, video):
            output.add(path, None if video is None else number, picture.shape[1::-1], detections)
            number += 1
            if write is not None:
                write(draw_detections(picture, detections, stream.card.names))
            bar.update()
        if video is not None and number < _WHOLE * video.count:
            say(f'{path} ends after {number} pictures, though it promises {video.count}: it may '
                'be cut off')


def _open_video(path: Path) -> VideoSource:
    try:
        return VideoSource(path, SourceOptions(loop=False))
    except UserError as error:
        raise _Unusable(str(error)) from error


def _pictures(video: VideoSource) -> Iterator[np.ndarray]:
    picture = video.read()
    while picture is not None:
        yield picture
        picture = video.read()


def _detected(
    detector: Detector, stream: Stream, path: Path, video: Optional[VideoSource],
) -> Iterator[Tuple[np.ndarray, Detections]]:
    """
    Yield every picture, uint8 BGR [H, W, 3], with what is seen in it.

    :raises _Unusable: if the file cannot be read, or the network fails on it.
    """
    try:
        for picture in [read_image(path)] if video is None else _pictures(video):
            frame = detector.process(stream, ImageView.from_bgr(picture), 0.0)
            yield picture, frame.detections
    except UserError as error:
        raise _Unusable(str(error)) from error
    except (ImageError, BackendError) as error:
        raise _Unusable(f'{stream.card.source} cannot run on {path} '
                        f'({one_line(str(error), 300)})') from error
