"""
How good the ids are: HOTA, IDF1, MOTA and id switches, and identity through gaps.

The measures are computed by TrackEval: HOTA (Luiten et al., IJCV 2021), Identity
(Ristani et al., 2016) and CLEAR MOT (Bernardin and Stiefelhagen, 2008). Only the
ids are the tracker's; the boxes are the detector's, as in a Detection2DArray.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass, field
import io
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from scipy.optimize import linear_sum_assignment

from yolojet_ros.core.boxes import iou
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.files import atomic_path
from yolojet_ros.tracking.tracker import Tracker

MATCH_IOU = 0.5
_GAP_SECONDS = (0.15, 1.0)  # shorter holes test nothing, longer ones ask for prophecy
_GAP_FRAMES = 10  # frames before and after a gap that are looked at
_SURE_SCORE, _SURE_FRAMES = 0.6, 3  # a gap counts if the object was well seen before and after


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4))


@dataclass(frozen=True)
class TruthFrame:
    """Detections and truth of one frame; boxes float[n, 4] as x1, y1, x2, y2 in px."""

    stamp: float  # s
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    truth_boxes: np.ndarray
    truth_ids: np.ndarray
    truth_classes: np.ndarray
    ignored_boxes: np.ndarray = field(default_factory=_no_boxes)  # a match counts for nothing
    warp: Optional[np.ndarray] = None
    embeddings: Optional[np.ndarray] = None
    image: Optional[Path] = None


@dataclass(frozen=True)
class Sequence:
    """Frames of one camera in order of time; size is (width, height) in px."""

    name: str
    size: Tuple[int, int]
    frames: List[TruthFrame]


@dataclass(frozen=True)
class Scores:
    """Measures in percent, and counts."""

    name: str
    hota: float
    idf1: float
    mota: float
    switches: int
    gaps_kept: int
    gaps: int


def track(sequence: Sequence, tracker: Tracker) -> List[np.ndarray]:
    """Return the ids of the detections of each frame."""
    return [
        tracker.update(f.boxes, f.scores, f.classes, f.stamp, f.warp, f.embeddings)
        for f in sequence.frames]


class Evaluator:
    """
    Score sequences one by one and all together.

    :raises UserError: if TrackEval is not installed.
    """

    def __init__(self) -> None:
        try:
            from trackeval import metrics
        except ImportError as error:
            raise UserError(
                'TrackEval is not installed; run: '
                + install_command('trackeval==1.3.0')) from error
        with redirect_stdout(io.StringIO()):  # the constructors print their settings
            self._metrics: Dict[str, Any] = {
                'hota': metrics.HOTA(), 'identity': metrics.Identity(),
                'clear': metrics.CLEAR()}
        self._results: Dict[str, Dict[str, Any]] = {name: {} for name in self._metrics}
        self._gaps: List[Tuple[int, int]] = []

    def score(self, sequence: Sequence, ids: List[np.ndarray]) -> Scores:
        """Return the scores of `ids` int64[n] per frame, as `track` returns them."""
        data = _trackeval_data(sequence, ids)
        for name, metric in self._metrics.items():
            self._results[name][sequence.name] = metric.eval_sequence(data)
        self._gaps.append(gaps(sequence, ids))
        return _scores(sequence.name, self._last(), self._gaps[-1])

    def total(self) -> Scores:
        """Return the scores of all sequences taken together."""
        combined = {
            name: metric.combine_sequences(self._results[name])
            for name, metric in self._metrics.items()}
        return _scores('all', combined, tuple(np.sum(self._gaps, axis=0)))

    def _last(self) -> Dict[str, Any]:
        return {name: list(results.values())[-1] for name, results in self._results.items()}


def _scores(name: str, results: Dict[str, Any], gap: Tuple[int, int]) -> Scores:
    return Scores(
        name, 100 * float(np.mean(results['hota']['HOTA'])),
        100 * float(results['identity']['IDF1']), 100 * float(results['clear']['MOTA']),
        int(results['clear']['IDSW']), int(gap[0]), int(gap[1]))


def matches(frame: TruthFrame) -> Tuple[np.ndarray, np.ndarray]:
    """Return the indices (truth, detection) of the best matches of one class at IoU >= 0.5."""
    overlap = _similarity(frame, np.arange(len(frame.boxes)))
    overlap[overlap < MATCH_IOU] = 0
    truth, detection = linear_sum_assignment(overlap, maximize=True)
    good = overlap[truth, detection] > 0
    return truth[good], detection[good]


def gaps(sequence: Sequence, ids: List[np.ndarray]) -> Tuple[int, int]:
    """
    Return how many gaps in the detection of an object kept its id, and how many there were.

    A gap lasts 0.15 to 1 s and has confident detections on both sides. It is kept
    if the first id published within ten frames after is the last one before.
    """
    history: Dict[int, List[Tuple[float, int, float]]] = {}
    for frame, frame_ids in zip(sequence.frames, ids):
        for truth, detection in zip(*matches(frame)):
            history.setdefault(int(frame.truth_ids[truth]), []).append(
                (frame.stamp, int(frame_ids[detection]), float(frame.scores[detection])))
    kept = count = 0
    for seen in history.values():
        for k in range(1, len(seen)):
            if not _GAP_SECONDS[0] <= seen[k][0] - seen[k - 1][0] <= _GAP_SECONDS[1]:
                continue
            before, after = seen[max(0, k - _GAP_FRAMES):k], seen[k:k + _GAP_FRAMES]
            if (sum(score >= _SURE_SCORE for _, _, score in before) < _SURE_FRAMES
                    or all(score < _SURE_SCORE for _, _, score in after)):
                continue
            last = [i for _, i, _ in before if i >= 0][-1:]
            first = [i for _, i, _ in after if i >= 0][:1]
            count += 1
            kept += bool(last) and last == first
    return kept, count


def table(rows: List[Scores]) -> str:
    """Return the scores as lines of text, one per sequence."""
    lines = [f'{"sequence":24s} {"HOTA":>6s} {"IDF1":>6s} {"MOTA":>6s} {"IDSW":>5s}  gaps kept']
    for row in rows:
        share = f'{100 * row.gaps_kept / row.gaps:.0f} %' if row.gaps else '-'
        lines.append(
            f'{row.name:24.24s} {row.hota:6.2f} {row.idf1:6.2f} {row.mota:6.2f} '
            f'{row.switches:5d}  {row.gaps_kept}/{row.gaps} {share}')
    return '\n'.join(lines)


def plot_ids(
        sequence: Sequence, ids: List[np.ndarray], path: Union[str, Path]) -> None:
    """
    Draw one line per true object, coloured by the id it carries over time, as PNG.

    Gray is a detection without an id; a black stroke is a change of id.

    :raises UserError: if matplotlib is not installed or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            f'matplotlib is not installed; run: {install_command("matplotlib")}') from error
    points: Dict[int, List[Tuple[float, int]]] = {}
    for frame, frame_ids in zip(sequence.frames, ids):
        for truth, detection in zip(*matches(frame)):
            points.setdefault(int(frame.truth_ids[truth]), []).append(
                (frame.stamp, int(frame_ids[detection])))
    figure = Figure(figsize=(12, 1.5 + 0.22 * len(points)), dpi=100)
    axes = figure.add_subplot()
    for row, key in enumerate(sorted(points)):
        time, worn = np.array(points[key]).T
        named = worn >= 0
        axes.scatter(time[~named], np.full((~named).sum(), row), c='0.8', s=4, marker='s')
        # Steps of the golden ratio spread the hues of neighbouring ids.
        axes.scatter(
            time[named], np.full(named.sum(), row), c=worn[named] * 0.618 % 1, cmap='hsv',
            vmin=0, vmax=1, s=8, marker='s')
        time, worn = time[named], worn[named]
        change = np.flatnonzero(np.diff(worn))
        axes.vlines(time[change + 1], row - 0.4, row + 0.4, color='black')
        for k in ([0] if len(worn) else []) + (change + 1).tolist():
            axes.annotate(str(int(worn[k])), (time[k], row), (0, 5), fontsize=6,
                          textcoords='offset points')
    axes.set_yticks(range(len(points)), [str(key) for key in sorted(points)], fontsize=6)
    axes.set_xlabel('time, s')
    axes.set_ylabel('true object')
    axes.set_title(f'{sequence.name}: id of each object over time')
    figure.tight_layout()
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _similarity(frame: TruthFrame, chosen: np.ndarray) -> np.ndarray:
    """Return the IoU of truth and the chosen detections, 0 between classes."""
    overlap = iou(frame.truth_boxes.astype(np.float64), frame.boxes[chosen].astype(np.float64))
    return overlap * (frame.truth_classes[:, None] == frame.classes[chosen][None])


def _counted(frame: TruthFrame, ids: np.ndarray) -> np.ndarray:
    """Return the published detections but those that match an ignored box better."""
    chosen = np.flatnonzero(ids >= 0)
    if len(chosen) == 0 or len(frame.ignored_boxes) == 0:
        return chosen
    overlap = np.concatenate((
        _similarity(frame, chosen),
        iou(frame.ignored_boxes.astype(np.float64), frame.boxes[chosen].astype(np.float64))))
    overlap[overlap < MATCH_IOU] = 0
    truth, detection = linear_sum_assignment(overlap, maximize=True)
    ignored = (truth >= len(frame.truth_boxes)) & (overlap[truth, detection] > 0)
    return np.delete(chosen, detection[ignored])


def _trackeval_data(sequence: Sequence, ids: List[np.ndarray]) -> Dict[str, Any]:
    """Return what TrackEval's metrics take: ids numbered from 0 and similarities per frame."""
    truth_ids, track_ids, similarity = [], [], []
    for frame, frame_ids in zip(sequence.frames, ids):
        chosen = _counted(frame, frame_ids)
        truth_ids.append(frame.truth_ids)
        track_ids.append(frame_ids[chosen])
        similarity.append(_similarity(frame, chosen))
    truths, truth_ids = _renumber(truth_ids)
    tracks, track_ids = _renumber(track_ids)
    return {
        'gt_ids': truth_ids, 'tracker_ids': track_ids, 'similarity_scores': similarity,
        'num_timesteps': len(similarity), 'num_gt_ids': truths, 'num_tracker_ids': tracks,
        'num_gt_dets': sum(map(len, truth_ids)), 'num_tracker_dets': sum(map(len, track_ids))}


def _renumber(ids: List[np.ndarray]) -> Tuple[int, List[np.ndarray]]:
    distinct = np.unique(np.concatenate(ids)) if ids else np.zeros(0)
    return len(distinct), [np.searchsorted(distinct, frame) for frame in ids]
