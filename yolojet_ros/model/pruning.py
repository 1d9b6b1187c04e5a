"""
Structured pruning of the C2f blocks: whole channels go, so any runtime gets faster.

Every bottleneck loses the same share of the channels between its two convolutions; to
meet a parameter count exactly, single channels of the bypasses go too. Both kinds are
read by one convolution only, so nothing else in the network changes. Needs PyTorch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Dict, List, Optional

import torch
from torch import nn

from yolojet_ros.core.errors import UserError
from yolojet_ros.model.yolov8 import C2f, ConvUnit, parameter_count, YOLOv8

CRITERIA = ('l1', 'bn')
# No layer loses more than this share: beyond it accuracy does not come back.
_MOST = 0.8


@dataclass(frozen=True)
class Layer:
    """
    A convolution unit whose output channels can go.

    reader: the one unit that reads them
    channels: how many of its first output channels may go
    cost: parameters that go with one of them
    hidden: whether it is the inside of a bottleneck; else it is a bypass
    """

    name: str
    unit: ConvUnit
    reader: ConvUnit
    channels: int
    cost: int
    hidden: bool

    def weakest(self, criterion: str) -> List[int]:
        """Order the channels by importance, weakest first."""
        if criterion == 'l1':
            importance = self.unit.conv.weight.detach().abs().sum((1, 2, 3))
        else:
            importance = self.unit.norm.weight.detach().abs()
        return importance[:self.channels].argsort(stable=True).tolist()


def prunable_layers(network: YOLOv8) -> List[Layer]:
    """List the insides of all bottlenecks, then the bypasses of all C2f blocks."""
    hidden, bypasses = [], []
    for name, block in network.named_modules():
        if not isinstance(block, C2f):
            continue
        for index, bottleneck in enumerate(block.blocks):
            first, second = bottleneck.first.conv, bottleneck.second.conv
            # A channel takes a kernel and a batch norm of the first, and a slice of the second.
            cost = (first.in_channels + second.out_channels) * 9 + 2
            hidden.append(Layer(f'{name}.blocks.{index}.first', bottleneck.first,
                                bottleneck.second, first.out_channels, cost, True))
        enter, merge = block.enter.conv, block.merge.conv
        bypasses.append(Layer(
            f'{name}.enter', block.enter, block.merge,
            enter.out_channels - block.blocks[0].first.conv.in_channels,
            enter.in_channels + 2 + merge.out_channels, False))
    return hidden + bypasses


def prune(
    network: YOLOv8, ratio: Optional[float] = None, parameters: Optional[int] = None,
    criterion: str = 'bn',
) -> YOLOv8:
    """
    Return a smaller copy of `network`; it needs fine-tuning to be as accurate again.

    :param ratio: share of the channels inside every bottleneck that goes, 0..0.8.
    :param parameters: parameters that remain instead, met exactly where channels allow it,
        else undercut by as few as possible.
    :param criterion: 'l1', weight of a channel's kernels, or 'bn', its batch-norm scale.
    :raises UserError: if not exactly one goal is given or it cannot be reached.
    """
    if (ratio is None) == (parameters is None):
        raise UserError('give either a ratio of channels or a number of parameters to prune to')
    if criterion not in CRITERIA:
        raise UserError(f'no criterion {criterion!r}; choose one of {", ".join(CRITERIA)}')
    pruned = copy.deepcopy(network).eval()
    layers = prunable_layers(pruned)
    if ratio is not None:
        if not 0 < ratio <= _MOST:
            raise UserError(f'the ratio is {ratio:g}; it must be above 0 and at most {_MOST:g}')
        counts = {layer.name: round(layer.channels * ratio) for layer in layers if layer.hidden}
    else:
        counts = _counts_for(layers, parameter_count(network) - parameters)
    _remove(layers, counts, criterion)
    return pruned


def _counts_for(layers: List[Layer], surplus: int) -> Dict[str, int]:
    """Choose how many channels of each layer go, so that `surplus` parameters do."""
    most = sum(int(layer.channels * _MOST) * layer.cost for layer in layers if layer.hidden)
    if not 0 < surplus <= most:
        raise UserError(
            f'pruning can take 1 to {most:,} parameters from this network, not {surplus:,}')
    # One by one from wherever the smallest share is gone so far.
    order = sorted(
        ((taken + 1) / layer.channels, layer.cost, layer.name)
        for layer in layers if layer.hidden for taken in range(int(layer.channels * _MOST)))
    prefix = [0]
    for _, cost, _ in order:
        prefix.append(prefix[-1] + cost)
    whole = next((i for i, total in enumerate(prefix) if total > surplus), len(prefix)) - 1
    bypasses = [layer for layer in layers if not layer.hidden]
    # A few channels fewer inside may leave a rest that bypass channels fit exactly.
    for kept in range(whole, max(whole - 8, -1), -1):
        rest = _exact_change(bypasses, surplus - prefix[kept])
        if rest is not None:
            return _tally(order[:kept], rest)
    return _tally(order[:min(whole + 1, len(order))], {})


def _tally(order: list, rest: Dict[str, int]) -> Dict[str, int]:
    counts = dict(rest)
    for _, _, name in order:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _exact_change(bypasses: List[Layer], amount: int) -> Optional[Dict[str, int]]:
    """Find the fewest bypass channels that cost `amount` together; None if there are none."""
    best: Dict[int, Dict[str, int]] = {0: {}}
    for layer in bypasses:
        for total, counts in list(best.items()):
            for taken in range(1, layer.channels // 4 + 1):
                reached = total + taken * layer.cost
                if reached > amount:
                    break
                candidate = {**counts, layer.name: taken}
                if reached not in best or sum(candidate.values()) < sum(best[reached].values()):
                    best[reached] = candidate
    return best.get(amount)


def _remove(
    layers: List[Layer], counts: Dict[str, int], criterion: str,
) -> None:
    """Take the weakest channels out of each layer and out of the one layer that reads them."""
    for layer in layers:
        count = counts.get(layer.name, 0)
        if count:
            gone = layer.weakest(criterion)[:count]
            unit, reader = layer.unit, layer.reader
            kept = _others(unit.conv.out_channels, gone)
            unit.conv = _select(unit.conv, outputs=kept)
            unit.norm = _select_norm(unit.norm, kept)
            # The bypass comes first in what the merging unit reads, so places are the same.
            reader.conv = _select(
                reader.conv, inputs=_others(reader.conv.in_channels, gone))


def _others(count: int, gone: List[int]) -> torch.Tensor:
    kept = torch.ones(count, dtype=torch.bool)
    kept[gone] = False
    return kept.nonzero()[:, 0]


def _select(
    conv: nn.Conv2d, outputs: Optional[torch.Tensor] = None,
    inputs: Optional[torch.Tensor] = None,
) -> nn.Conv2d:
    weight = conv.weight.detach()
    for dimension, kept in enumerate((outputs, inputs)):
        if kept is not None:
            weight = weight.index_select(dimension, kept.to(weight.device))
    smaller = nn.Conv2d(weight.shape[1], weight.shape[0], conv.kernel_size, conv.stride,
                        conv.padding, bias=False)
    smaller.weight = nn.Parameter(weight.clone())
    return smaller


def _select_norm(norm: nn.BatchNorm2d, kept: torch.Tensor) -> nn.BatchNorm2d:
    smaller = nn.BatchNorm2d(len(kept), norm.eps, norm.momentum).to(norm.weight.device)
    smaller.load_state_dict({
        name: value.index_select(0, kept.to(value.device)) if value.ndim else value
        for name, value in norm.state_dict().items()})
    return smaller.train(norm.training)


def multiply_accumulates(network: nn.Module, width: int, height: int) -> int:
    """Count multiply-accumulates of the convolutions for one image (FLOPs are twice that)."""
    total = 0

    def count(module: nn.Module, inputs, output: torch.Tensor) -> None:
        nonlocal total
        # A transposed convolution spreads every input, another one gathers every output.
        spreads = isinstance(module, nn.ConvTranspose2d)
        total += module.weight[0].numel() * (inputs[0] if spreads else output).numel()

    hooks = [m.register_forward_hook(count) for m in network.modules()
             if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    device = next(network.parameters()).device
    with torch.no_grad():
        network(torch.zeros((1, 3, height, width), device=device))
    for hook in hooks:
        hook.remove()
    return total
