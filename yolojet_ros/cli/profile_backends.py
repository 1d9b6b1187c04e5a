"""`profile --backends`: the same images by several backends, and what they make of them."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from yolojet_ros.cli.profile_pipeline import percentiles
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.samplers.recorder import Recorder

_WARM_UP = 5
_IMAGES = 30
_MODULES = {'onnxruntime': 'onnxruntime', 'tensorrt': 'tensorrt', 'torch': 'torch'}
_SAME_IOU = 0.5


def measure(
    model: Path, arguments: argparse.Namespace, recorder: Recorder, images: int = _IMAGES,
) -> List[Dict[str, Any]]:
    """
    Return `backends` of the report: one row each, in the order asked for.

    A backend that cannot run here has `skipped` with the reason instead of figures. All but the
    first that runs have `agreement` with it.

    :param images: that each sees once at least, however slow it is
    """
    from yolojet_ros.cli.bench_tracking import film
    views = film(arguments.size, True)[:images]
    rows: List[Dict[str, Any]] = []
    first: Optional[Tuple[str, list]] = None
    for name in arguments.backends:
        try:
            row, found = _run(name, model, arguments, recorder, views)
        except (UserError, ImportError) as error:
            rows.append({'backend': name, 'skipped': str(error)})
            continue
        if first is None:
            first = name, found
        else:
            row['agreement'] = {'with': first[0], **agreement(first[1], found)}
        rows.append(row)
    return rows


def _run(
    name: str, model: Path, arguments: argparse.Namespace, recorder: Recorder, views: list,
) -> Tuple[Dict[str, Any], list]:
    from yolojet_ros.core.filters import FilterParams
    from yolojet_ros.core.stage_times import StageTimes
    backend = _load(name, model, arguments.device)
    try:
        selection = FilterParams().resolve(backend.card.names)
        for view in views[:_WARM_UP]:
            backend.detect(view, selection, StageTimes())
        times: List[float] = []
        stages: Dict[str, List[float]] = {}
        found: list = []
        with recorder.phase(name):
            begin = time.perf_counter()
            while len(found) < len(views) or time.perf_counter() - begin < arguments.seconds:
                laps = StageTimes()
                start = time.perf_counter()
                seen = backend.detect(views[len(times) % len(views)], selection, laps)
                times.append((time.perf_counter() - start) * 1e3)
                if len(found) < len(views):
                    found.append(seen)
                for stage, lap in laps.laps.items():
                    stages.setdefault(stage, []).append(lap)
        return {
            'backend': name, 'description': backend.description, 'images': len(times),
            'latency_ms': percentiles(times), 'detections': sum(map(len, found)),
            'stages_ms': {stage: percentiles(laps) for stage, laps in stages.items()},
            'use': recorder.use(name)}, found
    finally:
        backend.close()


def _load(name: str, model: Path, device: int):
    if find_spec(_MODULES[name]) is None:
        raise UserError(f'{_MODULES[name]} is not installed')
    if name == 'tensorrt':
        from yolojet_ros.inference.load import load_backend
        return load_backend(model, 'tensorrt', device)
    onnx = _onnx_of(model)
    if name == 'torch':
        from yolojet_ros.model.torch_backend import TorchBackend
        return TorchBackend(onnx)
    from yolojet_ros.inference.load import load_backend
    return load_backend(onnx, 'onnxruntime')


def _onnx_of(model: Path) -> Path:
    """
    Return the ONNX file of a model.

    :raises UserError: if that of an engine is not beside it.
    """
    if model.suffix == '.onnx':
        return model
    card = EngineCard.load(model)
    path = model.parent / Path(card.onnx).name if card else model.with_suffix('.onnx')
    if not path.is_file():
        raise UserError(f'the .onnx file that {model.name} was built from is not beside it')
    return path


def agreement(expected: Sequence, found: Sequence) -> Dict[str, Any]:
    """
    Return how far what was seen is the same, of Detections image by image.

    `expected` and `found` count detections, `matched` those of one class whose boxes overlap by
    half or more, each taken once; of these the mean and least IoU and the largest difference of
    scores, None where there is none.
    """
    import numpy as np

    from yolojet_ros.core.boxes import iou
    overlaps: List[float] = []
    scores: List[float] = []
    for truth, seen in zip(expected, found):
        table = iou(truth.boxes, seen.boxes)
        table[truth.classes[:, None] != seen.classes[None, :]] = 0
        while table.size:
            row, column = np.unravel_index(table.argmax(), table.shape)
            if table[row, column] < _SAME_IOU:
                break
            overlaps.append(float(table[row, column]))
            scores.append(abs(float(truth.scores[row]) - float(seen.scores[column])))
            table[row], table[:, column] = 0, 0
    return {
        'expected': sum(map(len, expected)), 'found': sum(map(len, found)),
        'matched': len(overlaps),
        'iou_mean': round(float(np.mean(overlaps)), 6) if overlaps else None,
        'iou_least': round(min(overlaps), 6) if overlaps else None,
        'score_difference': round(max(scores), 6) if scores else None}
