"""Weights with all that is needed to rebuild their network, pruned or not. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
import pickle
from typing import Any, Dict, Mapping, Tuple

import torch
from torch import nn

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.model.yolov8 import C2f, ConvUnit, YOLOv8

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
        'weights': model.network.state_dict(), 'state': model.state}
    with atomic_path(path) as temporary:
        torch.save(content, str(temporary))


def load(path: Path, device: str = 'cpu') -> TrainedModel:
    """
    Read a file that save() wrote, or raise what is wrong with it.

    :raises UserError: if the file is missing, damaged or of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no weights at {path}; give a .pt file of "yolojet model train"')
    try:
        # weights_only: a weight file must not be able to run code.
        content = torch.load(str(path), map_location=device, weights_only=True)
    except (RuntimeError, EOFError, KeyError, ValueError, OSError,
            pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f'{path} ({path.stat().st_size} bytes) is not a weight file of "yolojet model '
            f'train" ({reason[:120]}); for a .pt of ultralytics use "yolojet model export"'
        ) from error
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise UserError(
            f'{path} holds weights of another architecture or program; give a .pt file of '
            '"yolojet model train"')
    names = tuple(content['names'])
    network = YOLOv8(content['variant'], len(names))
    try:
        _shrink_to(network, content['weights'])
        network.load_state_dict(content['weights'])
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f'{path} says YOLOv8{content["variant"]} with {len(names)} classes, but its '
            'weights do not fit that network; train or copy it again') from error
    return TrainedModel(
        network.to(device), names, tuple(content['input_size']), dict(content['recipe']),
        content['state'])


def _shrink_to(network: YOLOv8, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the layers of the C2f blocks, which pruning makes narrower, their width."""
    blocks = [name for name, module in network.named_modules() if isinstance(module, C2f)]
    for name, unit in network.named_modules():
        if isinstance(unit, ConvUnit) and any(name.startswith(f'{b}.') for b in blocks):
            outputs, inputs = weights[f'{name}.conv.weight'].shape[:2]
            old, norm = unit.conv, unit.norm
            unit.conv = nn.Conv2d(
                inputs, outputs, old.kernel_size, old.stride, old.padding, bias=False)
            unit.norm = nn.BatchNorm2d(outputs, norm.eps, norm.momentum)
