"""Tables of what was measured: models side by side, per class and per size."""

from __future__ import annotations

import math
from pathlib import Path
import tempfile
from typing import Dict, List, Sequence, TYPE_CHECKING

from yolojet_ros.core.errors import UserError
from yolojet_ros.model import onnx_file
from yolojet_ros.model.coco_scorer import SIZES
from yolojet_ros.model.data import coco_set, scene_set, TEST_SEED
from yolojet_ros.model.evaluation import Candidate, measure, Measurement
from yolojet_ros.model.yolo_folder import YoloFolder

if TYPE_CHECKING:
    from yolojet_ros.model.checkpoint import TrainedModel


def measure_all(
    paths: Sequence[Path], data: Sequence[str], count: int, threads: int = 0,
    classes: Sequence[str] = (), multi_label: bool = False,
) -> List[Measurement]:
    """
    Measure several models on the same data; classes are matched by name.

    Each is measured by what its task finds: boxes, masks, keypoints or rotated boxes.

    :param data: ('scene',) for held-out stills, (DATA.yaml,) for the images under "val" of a
        data set in the YOLO folder format, or (COCO JSON, image folder), which has boxes only.
    :param count: how many stills of the scene.
    :param classes: names of those to measure; none for all that are labelled.
    :param multi_label: let an anchor point count with every class, not its best one.
    :raises UserError: if a model does not know one of the classes.
    """
    task = _task(paths)
    if list(data) == ['scene']:
        labelled = scene_set(count, TEST_SEED, turned=task == 'obb')
    elif len(data) == 1 and Path(data[0]).suffix in ('.yaml', '.yml'):
        labelled = YoloFolder.read(Path(data[0]), task).held_out()
    elif len(data) == 2:
        labelled = coco_set(Path(data[0]), Path(data[1]))
    else:
        raise UserError(
            f'--data has {len(data)} values; give "scene", a data.yaml, or a COCO file and an '
            'image folder')
    if classes:
        labelled = labelled.only(tuple(dict.fromkeys(classes)))
    return measure(
        [Candidate(path, labelled.names, threads, multi_label) for path in paths], labelled)


def _task(paths: Sequence[Path]) -> str:
    """Return the task that models share; among several, the one with most truth."""
    tasks = {onnx_file.card(onnx_file.load(path), path.name).task: path for path in paths}
    if len(set(tasks) - {'detect'}) > 1 or {'obb', 'detect'} <= set(tasks):
        raise UserError(
            'models of the tasks ' + ' and '.join(sorted(tasks)) + ' are measured on different '
            'truth; measure them one by one')
    return next(iter(set(tasks) - {'detect'}), 'detect')


def table(measured: Sequence[Measurement]) -> str:
    """Put models side by side."""
    rows = [('model', 'weights', 'MB', 'mAP50', 'mAP50-95', 'ms median', 'ms p90')]
    for m in measured:
        rows.append((
            m.path.name, f'{m.parameters:,}', f'{m.megabytes:.2f}',
            f'{100 * m.accuracy.map50:.2f}', f'{100 * m.accuracy.map:.2f}',
            f'{m.median_ms:.2f}', f'{m.p90_ms:.2f}'))
    first = measured[0].accuracy
    scoring = ('multi-label: an anchor point counts with every class, as in published figures'
               if measured[0].multi_label else
               "single-label: an anchor point counts with its best class, as in the node")
    return (f'{_align(rows)}\n{first.images} images, {first.objects} objects; {scoring}; '
            f'ms: the network on this CPU, batch 1{_kinds(measured)}')


def _kinds(measured: Sequence[Measurement]) -> str:
    """Say what mAP is of, where it is not of upright boxes."""
    what = {'segment': 'masks', 'pose': 'keypoints', 'obb': 'rotated boxes'}
    lines = []
    for m in measured:
        if m.task in what:
            lines.append(f'\n{m.path.name}: mAP of {what[m.task]}')
            if m.boxes:
                lines[-1] += (f'; of its boxes mAP50 {100 * m.boxes.map50:.2f}, '
                              f'mAP50-95 {100 * m.boxes.map:.2f}')
    return ''.join(lines)


def details(measured: Sequence[Measurement]) -> str:
    """List mAP50-95 (x100) per size and per class of each model."""
    rows = [('mAP50-95', *(m.path.name for m in measured))]
    for size in SIZES:
        rows.append((size, *(_percent(m.accuracy.per_size[size]) for m in measured)))
    for name in measured[0].accuracy.per_class:
        rows.append((name, *(
            _percent(m.accuracy.per_class.get(name, math.nan)) for m in measured)))
    return _align(rows)


def losses_within(
    reference: Measurement, others: Sequence[Measurement], limit: float,
) -> int:
    """Print what each model loses against `reference`; return 1 if one loses too much."""
    failed = 0
    for other in others:
        loss = 100 * (reference.accuracy.map - other.accuracy.map)
        too_much = not loss <= limit  # a NaN is too much as well
        failed |= int(too_much)
        print(f'{other.path.name} loses {loss:+.2f} points of mAP50-95 against '
              f'{reference.path.name}: {"more than" if too_much else "within"} {limit:g}')
    return failed


def compare_networks(models: Dict[str, TrainedModel], images: int) -> str:
    """
    Compare networks by parameters, work, and, with `images`, by speed and mAP on the CPU.

    :param models: by the name to show; they need PyTorch.
    """
    from yolojet_ros.model.pruning import multiply_accumulates
    from yolojet_ros.model.yolov8 import parameter_count

    results = _measure_networks(models, images) if images else [None] * len(models)
    rows = [('network', 'parameters', 'GFLOPs', 'ms median', 'mAP50', 'mAP50-95')]
    for (name, model), result in zip(models.items(), results):
        work = 2e-9 * multiply_accumulates(model.network, *model.input_size)
        rows.append((name, f'{parameter_count(model.network):,}', f'{work:.3f}') + (
            (f'{result.median_ms:.2f}', f'{100 * result.accuracy.map50:.2f}',
             f'{100 * result.accuracy.map:.2f}') if result else ('-', '-', '-')))
    return _align(rows)


def _measure_networks(models: Dict[str, TrainedModel], images: int) -> List[Measurement]:
    from yolojet_ros.model.export import export

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f'{index}.onnx') for index in range(len(models))]
        for file, model in zip(files, models.values()):
            export(model, file)
        return measure_all(files, ('scene',), images)


def _percent(value: float) -> str:
    return '-' if math.isnan(value) else f'{100 * value:.2f}'


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)
