"""The objective: overlaps, assignment, and that descending it learns."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')
torch.set_num_threads(1)  # small networks: more threads only wait for each other

from yolojet_ros.model.losses import (  # noqa: E402
    assign, complete_iou, detection_loss, distribution_focal_loss, Targets)
from yolojet_ros.model.yolov8 import YOLOv8  # noqa: E402


def _targets(boxes, classes, learn=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)[None]
    learn = [True] * boxes.shape[1] if learn is None else learn
    return Targets(boxes, torch.tensor(classes)[None], torch.tensor(learn)[None])


def test_complete_iou_of_known_pairs():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    assert complete_iou(box, box) == pytest.approx(1.0, abs=1e-5)
    # Same shape, half overlapping: IoU 1/3, centres 2 apart, enclosing diagonal^2 6^2 + 4^2.
    moved = torch.tensor([2.0, 0.0, 6.0, 4.0])
    assert complete_iou(box, moved) == pytest.approx(1 / 3 - 4 / 52, abs=1e-5)
    far = torch.tensor([100.0, 0.0, 104.0, 4.0])
    assert complete_iou(box, far) < -0.8


def test_distribution_loss_is_least_at_the_true_distance():
    distances = torch.tensor([[2.25, 0.0, 7.5, 3.0]])
    losses = []
    for offset in (-1.0, 0.0, 1.0):
        bins = torch.arange(16.0)
        logits = torch.log((1 - (bins - (distances + offset)[..., None]).abs()).clamp(1e-6))
        losses.append(float(distribution_focal_loss(logits, distances)))
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_assignment_takes_only_points_inside_and_prefers_the_better_overlap():
    points = torch.tensor([[5.0, 5.0], [15.0, 5.0], [50.0, 50.0]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0.0, 0, 20, 10], [0.0, 0, 10, 10]]])
    scores = torch.full((1, 3, 2), 0.5)
    result = assign(scores, boxes, points, _targets([[0, 0, 10, 10], [0, 0, 20, 10]], [0, 1]))
    assert result.positive.tolist() == [[True, True, False]]
    # Both objects want the first point; its predicted box is the first object's.
    assert result.boxes[0, 0].tolist() == [0, 0, 10, 10]
    assert result.boxes[0, 1].tolist() == [0, 0, 20, 10]
    assert result.scores[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-3)
    assert result.scores[0, 1].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
    assert result.scores[0, 2].sum() == 0


def test_images_without_objects_have_a_loss():
    network = YOLOv8('n', 3)
    maps = network(torch.rand(2, 3, 64, 64))
    empty = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long),
                    torch.zeros(2, 0, dtype=torch.bool))
    loss, parts = detection_loss(network, maps, empty)
    loss.backward()
    assert torch.isfinite(loss) and parts[0] == 0 and parts[2] == 0


def test_hardly_visible_objects_are_neither_right_nor_wrong():
    network = YOLOv8('n', 1)
    maps = [torch.zeros(1, 65, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)]
    loss, _ = detection_loss(network, maps, _targets([[0, 0, 32, 32]], [0], [False]))
    loss.backward()
    scores = maps[0].grad[0, 64]
    assert (scores[:4, :4] == 0).all()
    assert (scores[4:] > 0).all() and (scores[:, 4:] > 0).all()


def test_gradient_steps_reduce_the_loss():
    torch.manual_seed(0)
    network = YOLOv8('n', 2).train()
    images = torch.rand(2, 3, 64, 96)
    targets = _targets([[10, 10, 50, 40], [60, 20, 90, 60]], [0, 1])
    targets = targets.each(lambda part: part.expand(2, *part.shape[1:]))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss, _ = detection_loss(network, network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.7 * losses[0]
