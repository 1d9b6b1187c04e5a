"""
Weights to begin a training with, from whatever file holds them. Needs PyTorch.

Taken over is every tensor whose name and shape fit: a network with other classes or another
task begins with all but the last layers. Nothing that is read can run code.
"""

from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Dict, Mapping, Tuple

import numpy as np
import torch
from torch import nn

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.model.checkpoint import check_finite, check_size
from yolojet_ros.model.yolov8 import ConvUnit, YOLOv8

Weights = Dict[str, torch.Tensor]

_MAX_HEADER = 1 << 24
_SAFE_TYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': '<u2', 'I64': '<i8'}
# Modules of the published network by the index that state_dicts in the field number them with.
_NUMBERED = {
    0: 'stage1', 1: 'stage2.0', 2: 'stage2.1', 3: 'stage3.0', 4: 'stage3.1', 5: 'stage4.0',
    6: 'stage4.1', 7: 'stage5.0', 8: 'stage5.1', 9: 'stage5.2', 12: 'up4', 15: 'up3',
    16: 'down4', 18: 'pan4', 19: 'down5', 21: 'pan5'}
_HEAD = {'cv2': 'box', 'cv3': 'classes', 'cv4': 'extra'}
_PROTOTYPES = {'cv1': 'enter', 'upsample': 'enlarge', 'cv2': 'refine', 'cv3': 'leave'}


def read_weights(path: Path) -> Weights:
    """
    Read a .pt of "yolojet model train", a weights-only .pt, a .safetensors or an .onnx export.

    :returns: tensors by the names of YOLOv8.state_dict().
    :raises UserError: if the file is none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no weights at {path}; give a .pt, .safetensors or .onnx file')
    readers = {'.onnx': _from_onnx, '.safetensors': _from_safetensors}
    weights = readers.get(path.suffix.lower(), _from_pickle)(path)
    return {_own_name(name): value for name, value in weights.items()}


def take_over(network: YOLOv8, weights: Mapping[str, torch.Tensor], source: Path) -> int:
    """
    Load what fits into `network`.

    :returns: how many tensors were taken; the others keep their random start.
    :raises UserError: if less than half of the network fits, so the file is of another one,
        or a number that would be taken is not finite.
    """
    own = network.state_dict()
    fitting = {name: value.to(own[name].dtype) for name, value in weights.items()
               if name in own and value.shape == own[name].shape}
    counted = [name for name in own if not name.endswith('num_batches_tracked')]
    taken = sum(name in fitting for name in counted)
    if taken < len(counted) / 2:
        raise UserError(
            f'{source} fits {taken} of the {len(counted)} tensors of a YOLOv8{network.variant}; '
            'give weights of the same variant (--variant)')
    check_finite(fitting, source)
    network.load_state_dict({**own, **fitting})
    return taken


@torch.no_grad()
def settle(network: nn.Module, images: torch.Tensor) -> None:
    """
    Give batch norms the statistics of `images` without changing what the network computes.

    An ONNX export has them folded into the convolutions; training on needs them again.

    :param images: float[b, 3, h, w] in 0..1.
    """
    def measure(norm: nn.BatchNorm2d, inputs: Tuple[torch.Tensor]) -> None:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - norm.running_mean * scale
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(offset + mean * scale)

    hooks = [module.register_forward_pre_hook(measure) for module in network.modules()
             if isinstance(module, nn.BatchNorm2d)]
    training = network.training
    network.eval()(images)
    network.train(training)
    for hook in hooks:
        hook.remove()


def _own_name(name: str) -> str:
    """Translate a name like model.22.cv2.0.1.conv.weight; own names stay as they are."""
    match = re.match(r'(?:model\.)*(\d+)\.(.+)$', name)
    if not match:
        return name
    index, rest = int(match[1]), match[2]
    rest = re.sub(r'(^|\.)bn\.', r'\1norm.', rest)
    if index == 22:
        if rest == 'dfl.conv.weight':
            return 'bins'
        proto = re.match(r'proto\.(\w+)\.(.+)$', rest)
        if proto:
            return f'prototypes.{_PROTOTYPES.get(proto[1], proto[1])}.{proto[2]}'
        branch = re.match(r'(cv\d)\.(\d)\.(.+)$', rest)
        return f'heads.{branch[2]}.{_HEAD.get(branch[1])}.{branch[3]}' if branch else name
    rest = re.sub(r'^m\.(\d+)\.cv1\.', r'blocks.\1.first.', rest)
    rest = re.sub(r'^m\.(\d+)\.cv2\.', r'blocks.\1.second.', rest)
    rest = re.sub(r'^cv1\.', 'enter.', re.sub(r'^cv2\.', 'merge.', rest))
    return f'{_NUMBERED.get(index)}.{rest}'


def _from_pickle(path: Path) -> Weights:
    check_size(path)
    try:
        content = torch.load(str(path), map_location='cpu', weights_only=True)
    except Exception as error:  # whatever a damaged or foreign pickle makes of the reader
        raise UserError(
            f'{path} is no weights-only file ({one_line(str(error), 100)}); save '
            'model.state_dict() with torch.save, or as .safetensors') from error
    for key in ('weights', 'state_dict', 'model'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in content.items()):
        raise UserError(f'{path} holds no state_dict; save model.state_dict() with torch.save')
    for name, value in content.items():
        if not _is_plain(value):
            raise UserError(f'{path}: {one_line(name, 60)} is no plain tensor of real numbers but '
                            'sparse, quantized, complex or empty (meta); save it as float32')
    return content


def _is_plain(value: torch.Tensor) -> bool:
    return (value.layout is torch.strided and value.device.type == 'cpu'
            and not (value.is_quantized or value.is_complex() or value.is_nested))


def _from_safetensors(path: Path) -> Weights:
    """Read the format of https://github.com/huggingface/safetensors: a header and bytes."""
    data = path.read_bytes()
    try:
        length = int.from_bytes(data[:8], 'little')
        if not 2 <= length <= min(_MAX_HEADER, len(data) - 8):
            raise ValueError('the header is longer than the file')
        header = json.loads(data[8:8 + length].decode('utf-8'))
        return {str(name): _safe_tensor(entry, memoryview(data)[8 + length:])
                for name, entry in header.items() if name != '__metadata__'}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError) as error:
        raise UserError(f'{path} is no complete .safetensors file '
                        f'({one_line(str(error), 80)}); copy or save it again') from error


def _safe_tensor(entry: Mapping, data: memoryview) -> torch.Tensor:
    begin, end = entry['data_offsets']
    if not 0 <= begin <= end <= len(data):
        raise ValueError('a tensor lies outside the file')
    values = np.frombuffer(data[begin:end], _SAFE_TYPES[entry['dtype']]).reshape(entry['shape'])
    if entry['dtype'] == 'BF16':
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(values.copy())


def _from_onnx(path: Path) -> Weights:
    """Read an FP32 export of this package; its nodes are named after the network's modules."""
    from onnx import numpy_helper

    from yolojet_ros.model import onnx_file

    model = onnx_file.load(path)
    constants = onnx_file.initializers(model)
    epsilon = ConvUnit(1, 1).norm.eps
    weights: Weights = {}
    for node in model.graph.node:
        name = _module(node.name)
        if node.op_type not in ('Conv', 'ConvTranspose') or not name:
            continue
        if any(tensor not in constants for tensor in node.input[1:]):
            raise UserError(f'{path} keeps its weights quantized; give the FP32 export of it')
        values = [torch.from_numpy(numpy_helper.to_array(constants[tensor]).copy()).float()
                  for tensor in node.input[1:]]
        weights[f'{name}.weight'] = values[0]
        if len(values) == 2 and name.endswith('.conv'):
            unit, count = name[:-len('.conv')], len(values[1])
            # Batch norm is folded in: one that adds the bias and changes nothing else.
            weights[f'{unit}.norm.weight'] = torch.full((count,), (1 + epsilon) ** 0.5)
            weights[f'{unit}.norm.bias'] = values[1]
            weights[f'{unit}.norm.running_mean'] = torch.zeros(count)
            weights[f'{unit}.norm.running_var'] = torch.ones(count)
        elif len(values) == 2:
            weights[f'{name}.bias'] = values[1]
    if not weights:
        raise UserError(f'{path} is no export of "yolojet model export", so its layers cannot '
                        'be told apart; give its .pt or .safetensors')
    return weights


def _module(node: str) -> str:
    """Name the module of a node: /network/stage2/stage2.0/conv/Conv is stage2.0.conv."""
    parts = node.strip('/').split('/')
    if parts[0] != 'network':
        return ''
    path = []
    for part in parts[1:-1]:
        if path and part.startswith(f'{path[-1]}.'):
            path.pop()
        path.append(part)
    return '.'.join(path)
