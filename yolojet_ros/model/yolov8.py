"""
The YOLOv8 network (n, s, m) for every task, written from its published structure.

A CSP backbone of C2f blocks with SPPF, a PAN neck, and a decoupled anchor-free
head on strides 8, 16 and 32 whose boxes are distributions over distances
(Li et al., Generalized Focal Loss, NeurIPS 2020). Masks are sums of prototypes
(Bolya et al., YOLACT, ICCV 2019). Needs PyTorch.
"""

from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import nn
from torch.nn import functional

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import MAX_CLASSES

STRIDES = (8, 16, 32)
DISTANCE_BINS = 16
MASK_COEFFICIENTS = 32
# Prototypes have a cell for so many pixels of the input in each direction.
PROTOTYPE_STRIDE = 4
TASKS = ('detect', 'segment', 'pose', 'obb')

# Variant: depth factor, width factor, widest layer before the width factor.
VARIANTS: Dict[str, Tuple[float, float, int]] = {
    'n': (0.33, 0.25, 1024),
    's': (0.33, 0.50, 1024),
    'm': (0.67, 0.75, 768),
}


class Task(NamedTuple):
    """
    What the network finds besides boxes and classes.

    name: one of TASKS
    keypoints: for pose, how many (K) and values of each (D: x, y and with 3 a confidence)
    """

    name: str = 'detect'
    keypoints: Tuple[int, int] = (0, 0)

    @property
    def extra(self) -> int:
        """Values of an anchor point behind its class scores."""
        points, values = self.keypoints
        return {'segment': MASK_COEFFICIENTS, 'pose': points * values, 'obb': 1}.get(self.name, 0)

    def check(self) -> None:
        """
        Check what was asked for.

        :raises UserError: if there is no such task, or its keypoints are none.
        """
        if self.name not in TASKS:
            raise UserError(f'no task {self.name!r}: choose one of {", ".join(TASKS)}')
        points, values = self.keypoints
        if self.name == 'pose' and not (1 <= points <= 1000 and values in (2, 3)):
            raise UserError(
                f'the keypoint shape is [{points}, {values}]; a pose network needs 1 to 1000 '
                'keypoints of 2 (x, y) or 3 values (with a confidence)')


class ConvUnit(nn.Module):
    """Convolution, batch norm and SiLU; 'same' padding for odd kernels."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        """Create a unit that maps `inputs` to `outputs` channels."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, inputs, h, w] to [b, outputs, h / stride, w / stride]."""
        return functional.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3x3 units, with a residual connection in the backbone."""

    def __init__(self, channels: int, residual: bool) -> None:
        """Create a block that keeps `channels`."""
        super().__init__()
        self.first = ConvUnit(channels, channels, 3)
        self.second = ConvUnit(channels, channels, 3)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, c, h, w] to [b, c, h, w]."""
        y = self.second(self.first(x))
        return x + y if self.residual else y


class C2f(nn.Module):
    """Split the channels, run bottlenecks on one part, and merge every stage."""

    def __init__(self, inputs: int, outputs: int, depth: int, residual: bool) -> None:
        """Create a block of `depth` bottlenecks of half the output width."""
        super().__init__()
        hidden = outputs // 2
        self.enter = ConvUnit(inputs, 2 * hidden)
        self.merge = ConvUnit((2 + depth) * hidden, outputs)
        self.blocks = nn.ModuleList(Bottleneck(hidden, residual) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, inputs, h, w] to [b, outputs, h, w]."""
        # The widths are read off the layers, so that a pruned block needs nothing else.
        hidden = self.blocks[0].first.conv.in_channels
        bypass = self.enter.conv.out_channels - hidden
        parts = list(self.enter(x).split((bypass, hidden), 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Pool three times in a row and merge: receptive fields of 5, 9 and 13 cells."""

    def __init__(self, channels: int) -> None:
        """Create a block that keeps `channels`."""
        super().__init__()
        self.enter = ConvUnit(channels, channels // 2)
        self.merge = ConvUnit(channels * 2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, c, h, w] to [b, c, h, w]."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.merge(torch.cat(parts, 1))


class Head(nn.Module):
    """
    Box and class branches for one stride, and one for what the task adds.

    :param extra: values of the third branch; 0 for none.
    """

    def __init__(
        self, inputs: int, box_width: int, class_width: int, classes: int, extra_width: int = 0,
        extra: int = 0,
    ) -> None:
        """Create the branches; each ends in a bare 1x1 convolution."""
        super().__init__()
        self.box = nn.Sequential(
            ConvUnit(inputs, box_width, 3), ConvUnit(box_width, box_width, 3),
            nn.Conv2d(box_width, 4 * DISTANCE_BINS, 1))
        self.classes = nn.Sequential(
            ConvUnit(inputs, class_width, 3), ConvUnit(class_width, class_width, 3),
            nn.Conv2d(class_width, classes, 1))
        self.extra = nn.Sequential(
            ConvUnit(inputs, extra_width, 3), ConvUnit(extra_width, extra_width, 3),
            nn.Conv2d(extra_width, extra, 1)) if extra else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, inputs, h, w] to logits [b, 64 + classes + extra, h, w]."""
        parts = [self.box(x), self.classes(x)]
        if self.extra is not None:
            parts.append(self.extra(x))
        return torch.cat(parts, 1)


class Prototypes(nn.Module):
    """Pictures at a quarter of the input's size whose weighted sums are masks."""

    def __init__(self, channels: int) -> None:
        """Create the branch over the finest features, of `channels`."""
        super().__init__()
        self.enter = ConvUnit(channels, channels, 3)
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.refine = ConvUnit(channels, channels, 3)
        self.leave = ConvUnit(channels, MASK_COEFFICIENTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, channels, h, w] to [b, 32, 2 h, 2 w]."""
        return self.leave(self.refine(self.enlarge(self.enter(x))))


class YOLOv8(nn.Module):
    """
    The network up to its logits, and the decoding of these into boxes and scores.

    :param variant: 'n', 's' or 'm'.
    :param classes: number of classes, at least 1.
    :param task: what is found besides boxes.
    """

    def __init__(
        self, variant: str = 'n', classes: int = 80, task: Task = Task(),
    ) -> None:
        """Build the network with fresh weights."""
        super().__init__()
        if variant not in VARIANTS:
            raise UserError(
                f'no YOLOv8 variant {variant!r}: choose one of {", ".join(VARIANTS)}')
        if not 1 <= classes <= MAX_CLASSES:
            raise UserError(f'a detector has 1 to {MAX_CLASSES} classes, not {classes}')
        task.check()
        depth, width, widest = VARIANTS[variant]
        self.variant = variant
        self.classes = classes
        self.task = task
        c64, c128, c256, c512, c1024 = (
            math.ceil(min(c, widest) * width / 8) * 8 for c in (64, 128, 256, 512, 1024))
        d3, d6 = (max(round(d * depth), 1) for d in (3, 6))

        self.stage1 = ConvUnit(3, c64, 3, 2)
        self.stage2 = nn.Sequential(ConvUnit(c64, c128, 3, 2), C2f(c128, c128, d3, True))
        self.stage3 = nn.Sequential(ConvUnit(c128, c256, 3, 2), C2f(c256, c256, d6, True))
        self.stage4 = nn.Sequential(ConvUnit(c256, c512, 3, 2), C2f(c512, c512, d6, True))
        self.stage5 = nn.Sequential(
            ConvUnit(c512, c1024, 3, 2), C2f(c1024, c1024, d3, True), SPPF(c1024))
        self.up4 = C2f(c1024 + c512, c512, d3, False)
        self.up3 = C2f(c512 + c256, c256, d3, False)
        self.down4 = ConvUnit(c256, c256, 3, 2)
        self.pan4 = C2f(c256 + c512, c512, d3, False)
        self.down5 = ConvUnit(c512, c512, 3, 2)
        self.pan5 = C2f(c512 + c1024, c1024, d3, False)

        box_width = max(16, c256 // 4, 4 * DISTANCE_BINS)
        class_width = max(c256, min(classes, 100))
        extra_width = max(c256 // 4, task.extra)
        self.heads = nn.ModuleList(
            Head(c, box_width, class_width, classes, extra_width, task.extra)
            for c in (c256, c512, c1024))
        self.prototypes = Prototypes(c256) if task.name == 'segment' else None
        # The bin values: a fixed convolution kernel, counted among the parameters by custom.
        self.bins = nn.Parameter(
            torch.arange(DISTANCE_BINS, dtype=torch.float32).view(1, -1, 1, 1),
            requires_grad=False)
        self._set_head_bias()

    def _set_head_bias(self) -> None:
        """Start from rare objects (about 5 in a 640x640 image) and short distances."""
        for head, stride in zip(self.heads, STRIDES):
            nn.init.constant_(head.box[-1].bias, 1.0)
            nn.init.constant_(
                head.classes[-1].bias, math.log(5 / self.classes / (640 / stride) ** 2))

    def forward(self, images: torch.Tensor) -> List[torch.Tensor]:
        """
        Compute the logits of every stride.

        :param images: float[b, 3, h, w], RGB in 0..1, h and w multiples of 32.
        :returns: per stride s a tensor [b, 64 + classes + extra, h / s, w / s]; behind these
            the prototypes [b, 32, h / 4, w / 4] where the task is to segment.
        """
        p3 = self.stage3(self.stage2(self.stage1(images)))
        p4 = self.stage4(p3)
        p5 = self.stage5(p4)
        n4 = self.up4(torch.cat((_double(p5), p4), 1))
        n3 = self.up3(torch.cat((_double(n4), p3), 1))
        m4 = self.pan4(torch.cat((self.down4(n3), n4), 1))
        m5 = self.pan5(torch.cat((self.down5(m4), p5), 1))
        maps = [head(x) for head, x in zip(self.heads, (n3, m4, m5))]
        return maps if self.prototypes is None else maps + [self.prototypes(n3)]

    def distances(self, box_logits: torch.Tensor) -> torch.Tensor:
        """Take the expected left, top, right, bottom in cells: [b, 64, A] -> [b, 4, A]."""
        batch, _, count = box_logits.shape
        logits = box_logits.view(batch, 4, DISTANCE_BINS, count).transpose(1, 2)
        return functional.conv2d(logits.softmax(1), self.bins).view(batch, 4, count)

    def decode(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Turn logits into boxes and scores.

        :param maps: what forward() returned.
        :returns: [b, 4 + classes + extra, A], boxes cxcywh in input pixels, scores in 0..1,
            and what the task adds: coefficients of the prototypes; keypoints x, y in input
            pixels and their confidence; the angle in radians from which on the box is turned,
            clockwise on the screen.
        """
        points, strides = anchor_points(maps)
        box_logits, class_logits, extra = self.split(maps)
        left_top, right_bottom = self.distances(box_logits).chunk(2, 1)
        if self.task.name == 'obb':
            extra = angles(extra)
            boxes = rotated_boxes(points, left_top, right_bottom, extra)
        else:
            low, high = points - left_top, points + right_bottom
            boxes = torch.cat(((low + high) / 2, high - low), 1)
        if self.task.name == 'pose':
            places = self.keypoint_logits(extra, points, strides)
            extra = torch.cat((places[:, :, :2], places[:, :, 2:].sigmoid()), 2).flatten(1, 2)
        rows = (boxes * strides, class_logits.sigmoid())
        return torch.cat(rows if extra is None else (*rows, extra), 1)

    def split(
        self, maps: Sequence[torch.Tensor],
    ) -> Tuple[torch.Tensor, torch.Tensor, Optional[torch.Tensor]]:
        """Join the strides: logits of boxes [b, 64, A], of classes, and what the task adds."""
        if self.task.extra:
            return flatten(maps).split((4 * DISTANCE_BINS, self.classes, self.task.extra), 1)
        return (*flatten(maps).split((4 * DISTANCE_BINS, self.classes), 1), None)

    def keypoint_logits(
        self, values: torch.Tensor, points: torch.Tensor, strides: torch.Tensor,
    ) -> torch.Tensor:
        """
        Place keypoints.

        :param values: [b, K * D, A] of the network.
        :returns: [b, K, D, A], x and y in input pixels and, with D = 3, the logit of its
            confidence.
        """
        batch, _, count = values.shape
        values = values.view(batch, *self.task.keypoints, count)
        places = (values[:, :, :2] * 2 + (points - 0.5)) * strides
        return torch.cat((places, values[:, :, 2:]), 2)


class Detector(nn.Module):
    """The network with its decoding: what is exported."""

    def __init__(self, network: YOLOv8) -> None:
        """Wrap `network` without copying it."""
        super().__init__()
        self.network = network

    def forward(
        self, images: torch.Tensor,
    ) -> Union[torch.Tensor, Tuple[torch.Tensor, torch.Tensor]]:
        """Map images [b, 3, h, w] to what YOLOv8.decode returns, and prototypes if any."""
        maps = self.network(images)
        rows = self.network.decode(maps)
        return rows if self.network.prototypes is None else (rows, maps[-1])


def flatten(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join the strides: [b, 64 + classes + extra, A]."""
    return torch.cat([m.flatten(2) for m in maps[:len(STRIDES)]], 2)


def angles(logits: torch.Tensor) -> torch.Tensor:
    """Map any number to an angle from -45 to 135 degrees, in radians."""
    return (logits.sigmoid() - 0.25) * math.pi


def rotated_boxes(
    points: torch.Tensor, left_top: torch.Tensor, right_bottom: torch.Tensor,
    angle: torch.Tensor,
) -> torch.Tensor:
    """
    Span boxes from distances that are measured along their own axes.

    :param points: [2, A], left_top, right_bottom: [b, 2, A], angle: [b, 1, A].
    :returns: [b, 4, A], cx, cy, w, h.
    """
    x, y = ((right_bottom - left_top) / 2).chunk(2, 1)
    cosine, sine = angle.cos(), angle.sin()
    centres = torch.cat((x * cosine - y * sine, x * sine + y * cosine), 1) + points
    return torch.cat((centres, left_top + right_bottom), 1)


def anchor_points(maps: Sequence[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Place one point in the middle of every cell.

    :returns: points [2, A] (x, y in cells of their own stride) and strides [1, A] in pixels.
    """
    points, strides = [], []
    for level, stride in zip(maps, STRIDES):
        height, width = level.shape[2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=level.device, dtype=torch.float32) + 0.5,
            torch.arange(width, device=level.device, dtype=torch.float32) + 0.5, indexing='ij')
        points.append(torch.stack((x.flatten(), y.flatten())))
        strides.append(torch.full((1, height * width), float(stride), device=level.device))
    return torch.cat(points, 1), torch.cat(strides, 1)


def parameter_count(network: nn.Module) -> int:
    """Count all parameters, the fixed distance bins included."""
    return sum(p.numel() for p in network.parameters())


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode='nearest')
