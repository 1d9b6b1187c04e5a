"""
Sequences in the format of MOTChallenge: a folder with gt/gt.txt, det/det.txt and seqinfo.ini.

The format is that of Milan et al., "MOT16: A Benchmark for Multi-Object
Tracking", 2016; ground truth without a class column is MOT15's, all pedestrians.
"""

from __future__ import annotations

from configparser import ConfigParser, Error as ConfigError
from pathlib import Path
from typing import List, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking.evaluation import Sequence, TruthFrame

_PEDESTRIAN = 1
_DISTRACTORS = (2, 7, 8, 12)  # person on vehicle, static person, distractor, reflection


def find_sequences(folder: Path) -> List[Path]:
    """
    Return `folder` if it is a sequence, else the sequences right below it, sorted.

    :raises UserError: if there is none.
    """
    found = [path.parent.parent for path in sorted(folder.glob('gt/gt.txt'))]
    found += [path.parent.parent for path in sorted(folder.glob('*/gt/gt.txt'))]
    if not found:
        raise UserError(
            f'no MOT sequence in {folder}; give a folder with gt/gt.txt and det/det.txt, '
            'or one of such folders')
    return found


def read_sequence(folder: Path) -> Sequence:
    """
    Read truth and detections of one sequence.

    :raises UserError: if a file is missing or not in the format.
    """
    rate, length, size, images = _read_info(folder / 'seqinfo.ini')
    truth, detected = _read_rows(folder / 'gt/gt.txt'), _read_rows(folder / 'det/det.txt')
    scores = detected[:, 6]
    if len(scores) and not (0 <= scores.min() and scores.max() <= 1):
        raise UserError(
            f'{folder}/det/det.txt has scores from {scores.min():g} to {scores.max():g}; '
            'scale them to 0..1')
    frames = []
    for number in range(1, length + 1):
        there, seen = truth[truth[:, 0] == number], detected[detected[:, 0] == number]
        counted, ignored = _judge(there)
        image = folder / images / f'{number:06d}.jpg'
        frames.append(TruthFrame(
            stamp=(number - 1) / rate,
            boxes=_corners(seen), scores=seen[:, 6], classes=np.zeros(len(seen), np.int32),
            truth_boxes=_corners(there[counted]), truth_ids=there[counted, 1].astype(np.int64),
            truth_classes=np.zeros(int(counted.sum()), np.int32),
            ignored_boxes=_corners(there[ignored]),
            image=image if image.is_file() else None))
    return Sequence(folder.name, size, frames)


def _judge(rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return which truth rows count, and which make a matching detection not count."""
    if rows.shape[1] < 9:
        return rows[:, 6] != 0, np.zeros(len(rows), bool)
    counted = (rows[:, 6] != 0) & (rows[:, 7] == _PEDESTRIAN)
    return counted, np.isin(rows[:, 7], _DISTRACTORS)


def _read_info(path: Path) -> Tuple[float, int, Tuple[int, int], str]:
    """Return frame rate, number of frames, (width, height) and the image folder."""
    parser = ConfigParser()
    try:
        if not parser.read(path):
            raise UserError(f'{path} is missing; it must tell frameRate, seqLength, imWidth, '
                            'imHeight and imDir')
        info = parser['Sequence']
        rate, length = float(info['frameRate']), int(info['seqLength'])
        size = int(info['imWidth']), int(info['imHeight'])
    except (ConfigError, KeyError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}; compare it with MOTChallenge') from error
    if not rate > 0 or not length > 0:
        raise UserError(f'{path} tells frameRate {rate:g}, seqLength {length}; both must be > 0')
    return rate, length, size, info.get('imDir', 'img1')


def _read_rows(path: Path) -> np.ndarray:
    """Return the rows of a gt.txt or det.txt, float64[n, at least 7]."""
    try:
        rows = np.loadtxt(path, delimiter=',', ndmin=2)
    except OSError as error:
        raise UserError(f'{path} cannot be read; a MOT sequence has it') from error
    except ValueError as error:
        raise UserError(f'{path} is not rows of numbers between commas: {error}') from error
    if rows.size == 0:
        return np.zeros((0, 9))
    if rows.shape[1] < 7:
        raise UserError(f'{path} has {rows.shape[1]} columns; MOT files have at least 7')
    return rows


def _corners(rows: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 of the x, y, width, height in MOT rows."""
    return np.concatenate((rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]), axis=1)
