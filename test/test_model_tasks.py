"""Segmentation, pose and rotated boxes: losses with known answers, learning, export."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')
torch.set_num_threads(1)  # small networks: more threads only wait for each other

from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model import checkpoint, onnx_file  # noqa: E402
from yolojet_ros.model.bank import ImageBank, Recipe  # noqa: E402
from yolojet_ros.model.export import export  # noqa: E402
from yolojet_ros.model.losses import detection_loss, part_names, Targets  # noqa: E402
from yolojet_ros.model.nms_graph import NmsSettings  # noqa: E402
from yolojet_ros.model.rotated import (  # noqa: E402
    inside_rotated, probabilistic_iou, sides_of_rotated)
from yolojet_ros.model.task_losses import keypoint_losses, mask_loss  # noqa: E402
from yolojet_ros.model.yolov8 import Detector, Task, YOLOv8  # noqa: E402

TASKS = [Task('segment'), Task('pose', (4, 3)), Task('obb')]
NAMES = ('crate', 'barrel', 'cone', 'ball', 'robot', 'sign', 'pallet')
_STILL = Recipe(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _model(task):
    torch.manual_seed(0)
    return checkpoint.TrainedModel(YOLOv8('n', 7, task).eval(), NAMES, (96, 64))


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_a_tiny_set_is_learned(task):
    bank = ImageBank.render(4, 1, (96, 64), torch.device('cpu'), 0, task.name)
    torch.manual_seed(0)
    network = YOLOv8('n', 7, task).train()
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], 2e-3)
    history = []
    for step in range(40):
        images, targets = bank.batch(torch.arange(4), _STILL, torch.Generator())
        loss, parts = detection_loss(network, network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(parts.tolist())
    first, last = np.array(history[:3]).mean(0), np.array(history[-3:]).mean(0)
    for name, before, after in zip(part_names(task.name), first, last):
        assert after < 0.75 * before, (name, before, after)
    assert len(part_names(task.name)) == len(first)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_an_image_without_objects_has_a_loss(task):
    network = YOLOv8('n', 3, task)
    count = (1, 0)
    empty = Targets(
        torch.zeros(*count, 4), torch.zeros(count, dtype=torch.long),
        torch.zeros(count, dtype=torch.bool), torch.zeros(*count, 5), torch.zeros(*count, 4, 3),
        torch.zeros(1, 64, 64, dtype=torch.uint8))
    loss, _ = detection_loss(network, network(torch.rand(1, 3, 64, 64)), empty)
    loss.backward()
    assert torch.isfinite(loss)


def test_masks_are_compared_where_the_object_is():
    instances = torch.zeros(1, 64, 96, dtype=torch.uint8)
    instances[0, 20:40, 16:48] = 2
    boxes = torch.tensor([[[16.0, 20, 48, 40]]])
    right = torch.full((1, 32, 16, 24), 0.0)
    right[0, 0] = -1.0
    right[0, 0, 5:10, 4:12] = 1.0
    coefficients = torch.zeros(1, 32, 1)
    coefficients[0, 0] = 10.0
    quality, owner = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.long)

    def loss(prototypes, of=owner):
        return float(mask_loss(coefficients, prototypes, boxes, quality, of, instances))

    moved = right.roll(2, 3)
    assert loss(right) < 0.4 * loss(moved) < 0.4 * loss(-right)
    # For another object the same pixels are background.
    assert loss(-right, owner * 0) < loss(right, owner * 0)


def test_keypoints_pull_from_any_distance_and_unlabelled_ones_do_not():
    boxes = torch.tensor([[[0.0, 0, 40, 40]]])
    truth = torch.tensor([[[[10.0, 10, 2], [30, 10, 1], [0, 0, 0]]]])
    ones, owner = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long)
    found = torch.zeros(1, 3, 3, 1)
    found[0, :, :2, 0] = torch.tensor([[10.0, 10], [500, 10], [77, 77]])
    found.requires_grad_()
    place, seen = keypoint_losses(found, boxes, ones, owner, truth)
    (place + seen).backward()
    pull = found.grad[0, :, :2, 0]
    assert pull[0].abs().sum() == 0 and pull[2].abs().sum() == 0
    assert pull[1, 0] > 1e-4 and pull[1, 1] == 0
    # Labelled keypoints should be confident, the other one not.
    assert (found.grad[0, :2, 2] < 0).all() and found.grad[0, 2, 2] > 0


def test_probabilistic_iou_of_known_pairs():
    box = torch.tensor([10.0, 10, 40, 10, 0.3])
    swapped = torch.tensor([10.0, 10, 10, 40, 0.3 - math.pi / 2])
    assert probabilistic_iou(box, box) == pytest.approx(1, abs=2e-3)
    assert probabilistic_iou(box, swapped) == pytest.approx(1, abs=2e-3)
    far = torch.tensor([500.0, 10, 40, 10, 0.3])
    assert probabilistic_iou(box, far) == pytest.approx(0, abs=1e-3)
    turned = [float(probabilistic_iou(box, box + torch.tensor([0, 0, 0, 0, angle])))
              for angle in (0.0, 0.2, 0.5, 1.2)]
    assert turned == sorted(turned, reverse=True) and turned[0] - turned[-1] > 0.3
    # Two unit variances one apart: the Hellinger distance of Gaussians in closed form.
    side = math.sqrt(12)
    a, b = torch.tensor([0, 0, side, side, 0.0]), torch.tensor([1.0, 0, side, side, 0.7])
    assert probabilistic_iou(a, b) == pytest.approx(
        1 - math.sqrt(1 - math.exp(-1 / 8)), abs=1e-3)


def test_points_and_sides_are_measured_along_the_axes_of_a_box():
    box = torch.tensor([[[50.0, 50, 40, 10, math.pi / 2]]])
    points = torch.tensor([[50.0, 65], [65, 50], [48, 40]])
    assert inside_rotated(points, box)[0, 0].tolist() == [True, False, True]
    # Turned clockwise by a right angle, its own right is down and its own down is left.
    sides = sides_of_rotated(points[:1], box)[0, 0].tolist()
    assert sides == pytest.approx([35, 5, 5, 5], abs=1e-4)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_export_says_its_task_and_equals_the_network(task, tmp_path):
    import onnxruntime

    model = _model(task)
    path = tmp_path / 'm.onnx'
    assert export(model, path, opset=13) < 1e-4
    metadata = onnx_file.metadata(onnx_file.load(path))
    assert metadata['task'] == task.name
    assert metadata.get('kpt_shape') == ('[4, 3]' if task.name == 'pose' else None)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    images = torch.rand(1, 3, 64, 96)
    found = session.run(None, {'images': images.numpy()})
    with torch.no_grad():
        expected = Detector(model.network)(images)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    assert [o.name for o in session.get_outputs()] == ['output0', 'output1'][:len(expected)]
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-3)
    with pytest.raises(UserError, match='NMS in the graph works for detection only'):
        export(model, path, nms=NmsSettings('layer', 0.25, 0.7))


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_weights_keep_their_task(task, tmp_path):
    model = _model(task)
    checkpoint.save(model, tmp_path / 'w.pt')
    loaded = checkpoint.load(tmp_path / 'w.pt').network
    assert loaded.task == task
    assert all(torch.equal(a, b) for a, b in zip(
        loaded.state_dict().values(), model.network.state_dict().values()))


def _bank(**truth):
    images = torch.full((1, 3, 64, 96), 114, dtype=torch.uint8)
    images[:, :, 20:40, 10:50] = 255
    return ImageBank(images, Targets(
        torch.tensor([[[10.0, 20, 50, 40]]]), torch.zeros(1, 1, dtype=torch.long),
        torch.ones(1, 1, dtype=torch.bool), **truth))


@pytest.mark.parametrize('seed', range(6))
def test_moved_truth_stays_on_the_object(seed):
    instances = torch.zeros(1, 64, 96, dtype=torch.uint8)
    instances[:, 20:40, 10:50] = 1
    bank = _bank(
        instances=instances, rotated=torch.tensor([[[30.0, 30, 40, 20, 0.25]]]),
        keypoints=torch.tensor([[[[30.0, 20, 2], [30, 40, 2], [10, 30, 2], [50, 30, 2]]]]))
    recipe = Recipe(flip=0.5, zoom=1.0, scale=0.2, shift=0.1, color=0.0, noise=0.0)
    images, targets = bank.batch(
        torch.tensor([0]), recipe, torch.Generator().manual_seed(seed))
    bright = images[0, 0] > 0.72
    assert ((targets.instances[0] == 1) != bright).sum() < 60
    x1, y1, x2, y2 = targets.boxes[0, 0].tolist()
    top, foot, left, right = targets.keypoints[0, 0, :, :2].tolist()
    assert top == pytest.approx([(x1 + x2) / 2, y1], abs=1e-3)
    assert foot == pytest.approx([(x1 + x2) / 2, y2], abs=1e-3)
    # Left stays left also in a mirror image, because the two are exchanged.
    assert left == pytest.approx([x1, (y1 + y2) / 2], abs=1e-3)
    assert right == pytest.approx([x2, (y1 + y2) / 2], abs=1e-3)
    cx, cy, w, h, angle = targets.rotated[0, 0].tolist()
    assert (cx, cy) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1e-3)
    assert (w, h) == pytest.approx((x2 - x1, y2 - y1), abs=1e-3) and abs(angle) == 0.25


def test_without_a_known_exchange_keypoints_are_not_mirrored():
    bank = _bank(keypoints=torch.tensor([[[[10.0, 30, 2]]]]))
    bank.keypoint_flip = None
    recipe = Recipe(flip=1.0, zoom=0.0, color=0.0, noise=0.0)
    _, targets = bank.batch(torch.tensor([0]), recipe, torch.Generator())
    assert targets.keypoints[0, 0, 0].tolist() == pytest.approx([10, 30, 2], abs=1e-3)


def test_a_keypoint_that_leaves_the_image_is_no_longer_labelled():
    bank = _bank(keypoints=torch.tensor([[[[1.0, 30, 2], [48, 30, 2], [95, 30, 1], [48, 9, 0]]]]))
    recipe = Recipe(flip=0.0, zoom=1.0, scale=0.0, shift=0.3, color=0.0, noise=0.0)
    for seed in range(5):
        _, targets = bank.batch(
            torch.tensor([0]), recipe, torch.Generator().manual_seed(seed))
        x, _, shown = targets.keypoints[0, 0].unbind(-1)
        outside = (x < 0) | (x >= 96)
        assert (shown[outside] == 0).all() and shown[3] == 0
        assert outside[0] or outside[2] or abs(float(x[0]) - 1) < 1


def test_work_of_the_prototypes_is_counted():
    from yolojet_ros.model.pruning import multiply_accumulates

    network = YOLOv8('n', 7, Task('segment'))
    whole = multiply_accumulates(network, 96, 64)
    network.prototypes.enlarge = torch.nn.Upsample(scale_factor=2)
    # 64 to 64 channels, 2x2 places for each of the 12x8 cells of stride 8.
    assert whole - multiply_accumulates(network, 96, 64) == 64 * 64 * 4 * 12 * 8
