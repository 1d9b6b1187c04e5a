"""What masks and keypoints add to the training objective. Needs PyTorch."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch.nn import functional

from yolojet_ros.model.coco_scorer import spreads

# Anchor points an image whose masks are compared, the best first, and places inside each.
_MASKS = 64
_GRID = 16
# Masks are learned a little beyond the box, because a predicted box may be that much larger.
_REACH = 1.1


def mask_loss(
    coefficients: torch.Tensor, prototypes: torch.Tensor, boxes: torch.Tensor,
    quality: torch.Tensor, owner: torch.Tensor, instances: torch.Tensor,
) -> torch.Tensor:
    """
    Compare masks with the truth on a grid of places inside each object's box.

    The masks are interpolated there as the runtime enlarges them, so edges are learned finer
    than the prototypes' cells, and small objects count as much as large ones.

    :param coefficients: [b, 32, A].
    :param prototypes: [b, 32, h / 4, w / 4].
    :param boxes: assigned [b, A, 4] xyxy in input pixels.
    :param quality: [b, A], weight of each anchor point, 0 where there is no object.
    :param owner: int64[b, A], index of the object.
    :param instances: uint8[b, h, w], 1 + index of the object that is seen in a pixel.
    :returns: mean binary cross entropy, scalar.
    """
    height, width = instances.shape[1:]
    weight, best = quality.topk(min(_MASKS, quality.shape[1]), 1)
    batch, count = best.shape
    chosen = coefficients.transpose(1, 2).gather(
        1, best[..., None].expand(-1, -1, coefficients.shape[1]))
    logits = torch.bmm(chosen, prototypes.flatten(2))
    boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    places = _grid(boxes, (width, height)).view(batch * count, _GRID, _GRID, 2)
    logits = functional.grid_sample(
        logits.view(batch * count, 1, *prototypes.shape[2:]), places, align_corners=False,
        padding_mode='border').view(batch, count, -1)
    seen = functional.grid_sample(
        instances[:, None].float(), places.view(batch, count * _GRID, _GRID, 2), mode='nearest',
        align_corners=False).view(batch, count, -1)
    truth = (seen == 1 + owner.gather(1, best)[..., None]).float()
    loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(-1)
    return (loss * weight).sum() / weight.sum().clamp(1e-3)


def _grid(boxes: torch.Tensor, size: Tuple[int, int]) -> torch.Tensor:
    """Spread places evenly over boxes [b, k, 4]: [b, k, grid, grid, 2] in -1..1 of the image."""
    steps = (torch.arange(_GRID, device=boxes.device) + 0.5) / _GRID - 0.5
    y, x = torch.meshgrid(steps, steps, indexing='ij')
    share = torch.stack((x, y), -1) * _REACH
    middle = (boxes[..., :2] + boxes[..., 2:])[:, :, None, None] / 2
    sides = (boxes[..., 2:] - boxes[..., :2])[:, :, None, None]
    return (middle + share * sides) / boxes.new_tensor(size) * 2 - 1


def keypoint_losses(
    keypoints: torch.Tensor, boxes: torch.Tensor, quality: torch.Tensor, owner: torch.Tensor,
    truth: torch.Tensor,
) -> List[torch.Tensor]:
    """
    Compare keypoints with the truth, distances in units of object keypoint similarity.

    The logarithm of the squared distance pulls on points however far they are off; the
    similarity itself, exp(-distance), does not.

    :param keypoints: predicted [b, K, D, A], x and y in input pixels and a logit.
    :param boxes, quality, owner: as for mask_loss().
    :param truth: [b, n, K, 3], x, y, and 0 where a keypoint is not labelled.
    :returns: of places, and of confidences (0 without any), each a scalar.
    """
    if not truth.shape[1]:
        return [keypoints.sum() * 0] * 2
    found = keypoints.permute(0, 3, 1, 2)
    count = found.shape[2]
    wanted = truth.flatten(2).gather(
        1, owner[..., None].expand(-1, -1, 3 * count)).unflatten(2, (count, 3))
    labelled = (wanted[..., 2] > 0).float()
    area = ((boxes[..., 2:] - boxes[..., :2]).clamp(1).prod(-1))[..., None]
    squared = ((found[..., :2] - wanted[..., :2]) ** 2).sum(-1)
    spread = found.new_tensor(spreads(count))
    distance = squared / (2 * (2 * spread) ** 2 * area)
    weight = quality[..., None] * labelled
    place_loss = (torch.log1p(distance) * weight).sum() / weight.sum().clamp(1e-3)
    if found.shape[-1] < 3:
        return [place_loss, place_loss.detach() * 0]
    seen_loss = functional.binary_cross_entropy_with_logits(
        found[..., 2], labelled, reduction='none')
    every = quality[..., None].expand_as(labelled)
    return [place_loss, (seen_loss * every).sum() / every.sum().clamp(1e-3)]
