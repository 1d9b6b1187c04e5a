"""
The training objective: task-aligned assignment, overlap, distribution focal and class losses.

Assignment after TOOD (Feng et al., ICCV 2021), CIoU after Zheng et al. (AAAI 2020),
distribution focal loss after Li et al. (NeurIPS 2020). What masks and keypoints add is in
task_losses. Needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.nn import functional

from yolojet_ros.model import task_losses
from yolojet_ros.model.rotated import (
    inside_rotated, probabilistic_iou, sides_of_rotated)
from yolojet_ros.model.yolov8 import (
    anchor_points, angles, DISTANCE_BINS, rotated_boxes, YOLOv8)

_EPSILON = 1e-7


class Targets(NamedTuple):
    """
    True objects of a batch, padded to the same number.

    boxes float[b, n, 4] xyxy in input pixels, classes int64[b, n], and learn bool[b, n]:
    whether the object is to be found. Padding has an empty box; an object that is no
    padding and not to be learned (hardly visible) is neither right nor wrong to detect.
    What only some tasks need is None for the others: rotated float[b, n, 5] (cx, cy, w, h in
    input pixels, angle in radians, clockwise on the screen), keypoints float[b, n, K, 3]
    (x, y in input pixels; 0 not labelled, 1 hidden, 2 visible), and instances uint8[b, h, w]
    (1 + index of the object that is seen in a pixel, 0 for none).
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    learn: torch.Tensor
    rotated: Optional[torch.Tensor] = None
    keypoints: Optional[torch.Tensor] = None
    instances: Optional[torch.Tensor] = None

    def each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Targets:
        """Return the targets with `function` applied to every part there is."""
        return Targets(*(None if part is None else function(part) for part in self))


class Assignment(NamedTuple):
    """
    What each anchor point is to say.

    boxes [b, A, 4] xyxy (rotated: [b, A, 5] as in Targets), scores [b, A, classes], positive
    [b, A], and owner int64[b, A], the index of its object.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    positive: torch.Tensor
    owner: torch.Tensor


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts; the common YOLOv8 recipe by default."""

    box: float = 7.5
    classes: float = 0.5
    distances: float = 1.5
    masks: float = 5.0
    keypoints: float = 3.0
    keypoint_seen: float = 1.0


def complete_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """
    Compute CIoU of boxes that belong together.

    :param a, b: xyxy boxes [..., 4] of broadcastable shapes.
    :returns: [...], 1 for equal boxes, down to below -1 for distant ones.
    """
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah = ax2 - ax1, ay2 - ay1 + _EPSILON
    bw, bh = bx2 - bx1, by2 - by1 + _EPSILON
    overlap = ((torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(0)
               * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(0))
    iou = overlap / (aw * ah + bw * bh - overlap + _EPSILON)
    diagonal = ((torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)) ** 2
                + (torch.maximum(ay2, by2) - torch.minimum(ay1, by1)) ** 2 + _EPSILON)
    distance = ((ax1 + ax2 - bx1 - bx2) ** 2 + (ay1 + ay2 - by1 - by2) ** 2) / 4
    aspect = (4 / math.pi ** 2) * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
    with torch.no_grad():
        weight = aspect / (aspect - iou + 1 + _EPSILON)
    return iou - distance / diagonal - weight * aspect


@torch.no_grad()
def assign(
    scores: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, targets: Targets,
    top: int = 10, alpha: float = 0.5, beta: float = 6.0,
) -> Assignment:
    """
    Give each true object the `top` anchor points that classify and locate it best.

    The metric is score^alpha * CIoU^beta, over points inside the object's box. A point
    wanted by several objects goes to the one it overlaps most. Target scores are scaled
    so that the best point of each object aims at that object's best overlap.

    :param scores: predicted [b, A, classes] in 0..1.
    :param boxes: predicted [b, A, 4] xyxy in input pixels, or [b, A, 5] where the targets are
        rotated.
    :param points: anchor points [A, 2] in input pixels.
    """
    batch, count, classes = scores.shape
    objects = targets.boxes.shape[1]
    if objects == 0:
        return Assignment(
            torch.zeros_like(boxes), torch.zeros_like(scores),
            torch.zeros(batch, count, dtype=torch.bool, device=scores.device),
            torch.zeros(batch, count, dtype=torch.int64, device=scores.device))
    rotated = boxes.shape[-1] == 5
    true_boxes = targets.rotated if rotated else targets.boxes
    overlap = probabilistic_iou if rotated else complete_iou
    inside = _inside(points, true_boxes) & targets.learn[..., None]
    overlaps = overlap(true_boxes[:, :, None], boxes[:, None]).clamp(0)
    overlaps = torch.where(inside, overlaps, torch.zeros_like(overlaps))
    wanted = targets.classes[:, None].expand(batch, count, objects)
    metric = scores.gather(2, wanted).transpose(1, 2) ** alpha * overlaps ** beta

    best = metric.topk(min(top, count), -1).indices
    chosen = torch.zeros_like(inside).scatter_(-1, best, True) & inside
    # Each point serves the object it overlaps most among those that chose it.
    owner = torch.where(chosen, overlaps, overlaps.new_tensor(-1.0)).argmax(1)
    chosen &= functional.one_hot(owner, objects).transpose(1, 2).bool()
    positive = chosen.any(1)

    metric = metric * chosen
    peak_metric = metric.amax(-1, keepdim=True)
    peak_overlap = (overlaps * chosen).amax(-1, keepdim=True)
    quality = (metric * peak_overlap / (peak_metric + 1e-9)).amax(1)

    target_boxes = true_boxes.gather(1, owner[..., None].expand(-1, -1, boxes.shape[-1]))
    target_classes = targets.classes.gather(1, owner)
    target_scores = functional.one_hot(target_classes, classes) * quality[..., None]
    return Assignment(target_boxes, target_scores.to(scores.dtype), positive, owner)


def _inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return (inside_rotated if boxes.shape[-1] == 5 else points_inside)(points, boxes)


def points_inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Tell which points [A, 2] lie inside which boxes [b, n, 4] xyxy: bool[b, n, A]."""
    low = points - boxes[:, :, None, :2]
    high = boxes[:, :, None, 2:] - points
    return torch.minimum(low.amin(-1), high.amin(-1)) > 1e-9


def distribution_focal_loss(logits: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """
    Take the cross entropy against the two bins around each distance.

    :param logits: [..., 4, bins].
    :param distances: [..., 4] in cells, within 0 .. bins - 1.
    :returns: [...], mean over the four sides.
    """
    low = distances.long().clamp(max=DISTANCE_BINS - 2)
    weight = distances - low
    log = logits.log_softmax(-1)
    loss = -(log.gather(-1, low[..., None])[..., 0] * (1 - weight)
             + log.gather(-1, low[..., None] + 1)[..., 0] * weight)
    return loss.mean(-1)


def detection_loss(
    network: YOLOv8, maps: Sequence[torch.Tensor], targets: Targets,
    weights: LossWeights = LossWeights(),
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Compute the loss of one batch.

    :param maps: logits as YOLOv8.forward returns them, of any float type.
    :returns: the weighted mean loss (scalar, float32) and its parts without gradient, as
        part_names() calls them.
    """
    maps = [m.float() for m in maps]
    points, strides = anchor_points(maps)
    box_logits, class_logits, extra = network.split(maps)
    left_top, right_bottom = network.distances(box_logits).chunk(2, 1)
    rotated = network.task.name == 'obb'
    if rotated:
        angle = angles(extra)
        boxes = torch.cat((rotated_boxes(points, left_top, right_bottom, angle), angle), 1)
    else:
        boxes = torch.cat((points - left_top, points + right_bottom), 1)
    boxes = boxes.transpose(1, 2)
    logits = class_logits.transpose(1, 2)
    # Pixels of a cell; an angle has none.
    scale = strides.transpose(0, 1).expand(-1, 4)
    if rotated:
        scale = functional.pad(scale, (0, 1), value=1.0)
    pixel_points = (points * strides).transpose(0, 1)

    assigned = assign(logits.detach().sigmoid(), boxes.detach() * scale, pixel_points, targets)
    total = assigned.scores.sum().clamp(1)
    class_loss = functional.binary_cross_entropy_with_logits(
        logits, assigned.scores, reduction='none')
    learnable = _learnable(
        pixel_points, targets.rotated if rotated else targets.boxes, targets.learn, assigned)
    class_loss = (class_loss * learnable).sum() / total

    # Over all points, weighted by 0 where there is no object: picking the others out would
    # make the GPU wait for the CPU.
    quality = assigned.scores.sum(-1) * assigned.positive
    goal = assigned.boxes / scale
    at = points.transpose(0, 1)
    if rotated:
        overlap, sides = probabilistic_iou(boxes, goal), sides_of_rotated(at, goal)
    else:
        overlap = complete_iou(boxes, goal)
        sides = torch.cat((at - goal[..., :2], goal[..., 2:] - at), -1)
    box_loss = ((1 - overlap) * quality).sum() / total
    side_logits = box_logits.transpose(1, 2).unflatten(-1, (4, DISTANCE_BINS))
    side_loss = distribution_focal_loss(side_logits, sides.clamp(0, DISTANCE_BINS - 1.01))
    side_loss = (side_loss * quality).sum() / total

    parts = [box_loss, class_loss, side_loss]
    gains = [weights.box, weights.classes, weights.distances]
    if network.task.name == 'segment':
        parts.append(task_losses.mask_loss(
            extra, maps[-1], assigned.boxes, quality, assigned.owner, targets.instances))
        gains.append(weights.masks)
    elif network.task.name == 'pose':
        parts += task_losses.keypoint_losses(
            network.keypoint_logits(extra, points, strides), assigned.boxes, quality,
            assigned.owner, targets.keypoints)
        gains += [weights.keypoints, weights.keypoint_seen]
    stacked = torch.stack(parts)
    return (stacked * stacked.new_tensor(gains)).sum(), stacked.detach()


def part_names(task: str) -> Tuple[str, ...]:
    """Name the parts of the loss of a task."""
    more = {'segment': ('mask',), 'pose': ('kpt', 'seen')}
    return ('box', 'cls', 'dfl') + more.get(task, ())


def _learnable(
    points: torch.Tensor, boxes: torch.Tensor, learn: torch.Tensor, assigned: Assignment,
) -> torch.Tensor:
    """Leave out points inside objects that are not to be learned: float[b, A, 1]."""
    unclear = _inside(points, boxes) & ~learn[..., None]
    return (~unclear.any(1) | assigned.positive)[..., None].float()
