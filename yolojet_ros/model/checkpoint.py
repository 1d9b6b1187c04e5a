"""Weights with all that is needed to rebuild their network, pruned or not. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
import io
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple
import zipfile

import torch
from torch import nn

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.model_card import MAX_CLASSES
from yolojet_ros.model.yolov8 import C2f, ConvUnit, Task, YOLOv8

_FORMAT = 'yolojet-yolov8-1'


@dataclass
class TrainedModel:
    """
    A network and what it was trained for.

    network: the weights to use (of the moving average, after training)
    names: class names by index
    input_size: (width, height) in pixels
    recipe: how it was made, text values by name; goes into the ONNX metadata
    state: of an unfinished training run; empty otherwise
    """

    network: YOLOv8
    names: Tuple[str, ...]
    input_size: Tuple[int, int]
    recipe: Dict[str, str] = field(default_factory=dict)
    state: Dict[str, Any] = field(default_factory=dict)


def save(model: TrainedModel, path: Path) -> None:
    """Write `model` to `path`; half precision is not used, so that training can go on."""
    content = {
        'format': _FORMAT, 'variant': model.network.variant, 'names': list(model.names),
        'input_size': list(model.input_size), 'recipe': dict(model.recipe),
        'weights': model.network.state_dict(), 'state': model.state,
        'task': model.network.task.name, 'keypoints': list(model.network.task.keypoints)}
    # Through memory: PyTorch's own writer does not say that the disk is full.
    data = io.BytesIO()
    torch.save(content, data)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def load(path: Path, device: str = 'cpu') -> TrainedModel:
    """
    Read a file that save() wrote, or raise what is wrong with it.

    :raises UserError: if the file is missing, damaged, of another architecture or not finite.
    """
    path = Path(path)
    check_size(path)
    try:
        # weights_only: a weight file must not be able to run code.
        content = torch.load(str(path), map_location=device, weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes of the reader
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'{path} ({path.stat().st_size} bytes) is not a weight file of "yolojet model '
            f'train" ({reason[:120]}); for a .pt of ultralytics use "yolojet model export"'
        ) from error
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise UserError(
            f'{path} holds weights of another architecture or program; give a .pt file of '
            '"yolojet model train"')
    try:
        model = _rebuild(content, device)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError,
            UserError) as error:
        raise UserError(
            f'{path} says YOLOv8{str(content.get("variant"))[:9]}, but what it holds does not '
            'fit that network; train or copy it again') from error
    check_finite(model.network.state_dict(), path)
    return model


def check_size(path: Path) -> None:
    """
    Check that a weight file holds no more than its own size.

    PyTorch stores without compression; what unpacks to more was made to fill the memory.

    :raises UserError: if it does not, is missing, or is no archive at all.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no weights at {path}; give a .pt file of "yolojet model train"')
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(str(path)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f'{path} ({size} bytes) is not a weight file: it is no archive of PyTorch, or half '
            'copied; copy or train it again') from error
    if unpacked > size:
        raise UserError(
            f'{path} ({size} bytes) would unpack to {unpacked} bytes, but PyTorch writes weights '
            'without compression; save it again with torch.save, if you trust it')


def check_finite(weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """:raises UserError: if a number of the weights is NaN or infinite."""
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise UserError(f'{source}: {name} has numbers that are not finite, so its training '
                            'went wrong; give other weights')


def _rebuild(content: Mapping[str, Any], device: str) -> TrainedModel:
    names = tuple(content['names'])
    width, height = content['input_size']
    if len(names) > MAX_CLASSES or not all(isinstance(name, str) for name in names):
        raise ValueError('names')
    if not all(isinstance(side, int) and side > 0 and side % 32 == 0 for side in (width, height)):
        raise ValueError('input_size')
    recipe = {str(key): str(value) for key, value in content['recipe'].items()}
    if not isinstance(content['state'], dict):
        raise ValueError('state')
    # Older files know detection only.
    points, values = content.get('keypoints', (0, 0))
    task = Task(content.get('task', 'detect'), (int(points), int(values)))
    network = YOLOv8(content['variant'], len(names), task)
    _shrink_to(network, content['weights'])
    network.load_state_dict(content['weights'])
    return TrainedModel(network.to(device), names, (width, height), recipe, content['state'])


def _shrink_to(network: YOLOv8, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the layers of the C2f blocks, which pruning makes narrower, their width."""
    blocks = [name for name, module in network.named_modules() if isinstance(module, C2f)]
    for name, unit in network.named_modules():
        if isinstance(unit, ConvUnit) and any(name.startswith(f'{b}.') for b in blocks):
            outputs, inputs = weights[f'{name}.conv.weight'].shape[:2]
            old, norm = unit.conv, unit.norm
            if not (0 < outputs <= old.out_channels and 0 < inputs <= old.in_channels):
                raise ValueError(f'{name} is wider than in an unpruned network')
            unit.conv = nn.Conv2d(
                inputs, outputs, old.kernel_size, old.stride, old.padding, bias=False)
            unit.norm = nn.BatchNorm2d(outputs, norm.eps, norm.momentum)
