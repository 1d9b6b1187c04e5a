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
from yolojet_ros.core.files import read_text
from yolojet_ros.core.text import one_line
from yolojet_ros.tracking.evaluation import Sequence, TruthFrame

_MOST_BYTES = 256 << 20
_MOST_INFO_BYTES = 64 << 10
_MOST_FRAMES = 1_000_000
_MOST_SIDE = 65536  # px
_RATES = (0.01, 10_000.0)  # Hz
_MOST_ID = 2**31 - 1
_MOST_PIXELS = 1e6
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
    truth = _rows_of_frames(_read_truth(folder / 'gt/gt.txt', length), length)
    detected = _rows_of_frames(_read_detections(folder / 'det/det.txt', length), length)
    frames = []
    for index, (there, seen) in enumerate(zip(truth, detected)):
        counted, ignored = _judge(there)
        image = folder / images / f'{index + 1:06d}.jpg'
        frames.append(TruthFrame(
            stamp=index / rate,
            boxes=_corners(seen), scores=seen[:, 6], classes=np.zeros(len(seen), np.int32),
            truth_boxes=_corners(there[counted]), truth_ids=there[counted, 1].astype(np.int64),
            truth_classes=np.zeros(int(counted.sum()), np.int32),
            ignored_boxes=_corners(there[ignored]),
            image=image if image.is_file() else None))
    return Sequence(folder.name, size, frames)


def _rows_of_frames(rows: np.ndarray, length: int) -> List[np.ndarray]:
    """Return the rows of the frames 1 to `length`, each in the order of the file."""
    rows = rows[np.argsort(rows[:, 0], kind='stable')]
    begins = np.searchsorted(rows[:, 0], np.arange(1, length + 2))
    return [rows[begin:end] for begin, end in zip(begins, begins[1:])]


def _judge(rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return which truth rows count, and which make a matching detection not count."""
    if rows.shape[1] < 9:
        return rows[:, 6] != 0, np.zeros(len(rows), bool)
    counted = (rows[:, 6] != 0) & (rows[:, 7] == _PEDESTRIAN)
    return counted, np.isin(rows[:, 7], _DISTRACTORS)


def _read_info(path: Path) -> Tuple[float, int, Tuple[int, int], str]:
    """Return frame rate, number of frames, (width, height) and the image folder."""
    if not path.is_file():
        raise UserError(f'{path} is missing; it must tell frameRate, seqLength, imWidth, '
                        'imHeight and imDir')
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path, _MOST_INFO_BYTES))
        info = parser['Sequence']
        rate = float(info['frameRate'])
        length, width, height = (
            int(info[name]) for name in ('seqLength', 'imWidth', 'imHeight'))
    except (ConfigError, KeyError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {one_line(str(error), 200)}; compare it with '
                        'MOTChallenge') from error
    for name, value, least, most in (
            ('frameRate', rate, *_RATES), ('seqLength', length, 1, _MOST_FRAMES),
            ('imWidth', width, 1, _MOST_SIDE), ('imHeight', height, 1, _MOST_SIDE)):
        if not least <= value <= most:
            raise UserError(f'{path} tells {name} {value}; it must be from {least} to {most}')
    return rate, length, (width, height), info.get('imDir', 'img1')


def _read_truth(path: Path, length: int) -> np.ndarray:
    """Return the rows of a gt.txt of `length` frames, float64[n, at least 7]."""
    rows, lines = _read_rows(path, length)
    _refuse(path, lines, (rows[:, 1] < 0) | (rows[:, 1] > _MOST_ID) | (rows[:, 1] % 1 != 0),
            f'an id that is no whole number from 0 to {_MOST_ID}')
    _, first = np.unique(rows[:, :2], axis=0, return_index=True)
    again = np.ones(len(rows), bool)
    again[first] = False
    _refuse(path, lines, again, 'an id that its frame has already')
    return rows


def _read_detections(path: Path, length: int) -> np.ndarray:
    """Return the rows of a det.txt of `length` frames, float64[n, at least 7]."""
    rows, lines = _read_rows(path, length)
    scores = rows[:, 6]
    if len(scores) and not (0 <= scores.min() and scores.max() <= 1):
        raise UserError(f'{path} has scores from {scores.min():g} to {scores.max():g}; '
                        'scale them to 0..1')
    return rows


def _read_rows(path: Path, length: int) -> Tuple[np.ndarray, List[int]]:
    """Return the rows of a gt.txt or det.txt, float64[n, at least 7], and their lines, from 1."""
    try:
        text = read_text(path, _MOST_BYTES).splitlines()
    except ValueError as error:
        raise UserError(f'{path} cannot be read: {error}; a MOT sequence has it as text of '
                        f'less than {_MOST_BYTES >> 20} MiB') from error
    lines = [number for number, line in enumerate(text, 1) if line.strip()]
    if not lines:
        return np.zeros((0, 9)), []
    try:
        rows = np.loadtxt([text[number - 1] for number in lines], delimiter=',', ndmin=2,
                          comments=None)
    except ValueError as error:
        raise UserError(f'{path}{_odd_line(text, lines)} is not rows of numbers between commas, '
                        'all of one length; correct it') from error
    if rows.shape[1] < 7:
        raise UserError(f'{path} has {rows.shape[1]} columns; MOT files have at least 7')
    _refuse(path, lines, ~np.isfinite(rows).all(axis=1), 'a number that is not finite')
    _refuse(path, lines, (rows[:, 0] < 1) | (rows[:, 0] % 1 != 0),
            'a frame that is no whole number from 1')
    _refuse(path, lines, rows[:, 0] > length,
            f'a frame beyond the {length} that seqLength of seqinfo.ini tells')
    _refuse(path, lines, (np.abs(rows[:, 2:6]) > _MOST_PIXELS).any(axis=1),
            f'a box beyond {_MOST_PIXELS:g} px')
    _refuse(path, lines, ~(rows[:, 4:6] > 0).all(axis=1),
            'a box whose width or height is not above 0')
    return rows, lines


def _odd_line(text: List[str], lines: List[int]) -> str:
    """Return where the first line stands that is no numbers or not as long as the first."""
    for number in lines:
        try:
            values = [float(item) for item in text[number - 1].split(',')]
        except ValueError:
            values = []
        if len(values) != text[lines[0] - 1].count(',') + 1:
            return f', line {number},'
    return ''


def _refuse(path: Path, lines: List[int], wrong: np.ndarray, what: str) -> None:
    """:raises UserError: if a row is wrong, with the line of the first."""
    if wrong.any():
        raise UserError(f'{path}, line {lines[int(np.argmax(wrong))]}, has {what}; correct or '
                        'remove it')


def _corners(rows: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 of the x, y, width, height in MOT rows."""
    return np.concatenate((rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]), axis=1)
