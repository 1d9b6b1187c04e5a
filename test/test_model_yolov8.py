"""The network: known parameter counts, shapes, and what its head means."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip('torch')
torch.set_num_threads(1)  # small networks: more threads only wait for each other

from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model.yolov8 import (  # noqa: E402
    anchor_points, Detector, flatten, parameter_count, Task, YOLOv8)


@pytest.mark.parametrize('variant, classes, count', [
    ('n', 80, 3_157_200), ('n', 7, 3_012_213), ('s', 80, 11_166_560), ('m', 80, 25_902_640)])
def test_parameter_counts_are_the_published_ones(variant, classes, count):
    assert parameter_count(YOLOv8(variant, classes)) == count


@pytest.mark.parametrize('task, classes, count', [
    (Task('segment'), 80, 3_409_968), (Task('segment'), 7, 3_264_981),
    (Task('pose', (17, 3)), 1, 3_295_470), (Task('obb'), 80, 3_228_867),
    (Task('obb'), 7, 3_083_880)])
def test_parameter_counts_of_the_tasks_are_the_published_ones(task, classes, count):
    assert parameter_count(YOLOv8('n', classes, task)) == count


@pytest.mark.parametrize('width, height', [(320, 192), (96, 64), (160, 224)])
def test_output_has_a_column_for_every_cell(width, height):
    network = YOLOv8('n', 5).eval()
    with torch.no_grad():
        output = Detector(network)(torch.rand(2, 3, height, width))
    cells = sum((width // s) * (height // s) for s in (8, 16, 32))
    assert output.shape == (2, 9, cells)
    assert (output[:, 4:] >= 0).all() and (output[:, 4:] <= 1).all()
    assert (output[:, 2:4] > 0).all()


def test_decode_places_a_box_by_its_distances():
    network = YOLOv8('n', 2)
    maps = [torch.full((1, 66, 64 // s, 96 // s), -20.0) for s in (8, 16, 32)]
    # In cell (x 3, y 1) of stride 16: left 1, top 0, right 2, bottom 4 cells; class 1.
    for side, distance in enumerate((1, 0, 2, 4)):
        maps[1][0, 16 * side + distance, 1, 3] = 20.0
    maps[1][0, 65, 1, 3] = 5.0
    output = network.decode(maps)[0]
    best = int(output[5].argmax())
    x1, y1, x2, y2 = 16 * 2.5, 16 * 1.5, 16 * 5.5, 16 * 5.5
    expected = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    assert torch.allclose(output[:4, best], expected, atol=1e-3)
    assert output[5, best] == pytest.approx(0.9933, abs=1e-3)


def test_anchor_points_follow_the_order_of_the_flattened_maps():
    maps = [torch.zeros(1, 65, 64 // s, 96 // s) for s in (8, 16, 32)]
    points, strides = anchor_points(maps)
    maps[0][0, 64, 2, 5] = 1.0
    place = int(flatten(maps)[0, 64].argmax())
    assert points[:, place].tolist() == [5.5, 2.5] and strides[0, place] == 8


def test_unknown_variant_is_refused():
    with pytest.raises(UserError, match='choose one of n, s, m'):
        YOLOv8('x', 80)
    with pytest.raises(UserError, match='1 to 10000 classes'):
        YOLOv8('n', 0)
    with pytest.raises(UserError, match='choose one of detect, segment, pose, obb'):
        YOLOv8('n', 80, Task('classify'))
    with pytest.raises(UserError, match=r'keypoint shape is \[0, 0\]'):
        YOLOv8('n', 80, Task('pose'))


def _logits(network, extra):
    """Return maps of nothing but one object in cell (x 3, y 1) of stride 16; sides 1 0 2 4."""
    rows = 64 + network.classes + network.task.extra
    maps = [torch.full((1, rows, 64 // s, 96 // s), -20.0) for s in (8, 16, 32)]
    for side, distance in enumerate((1, 0, 2, 4)):
        maps[1][0, 16 * side + distance, 1, 3] = 20.0
    maps[1][0, 65, 1, 3] = 5.0
    maps[1][0, 66:, 1, 3] = torch.tensor(extra)
    output = network.decode(maps)[0]
    return output[:, int(output[5].argmax())]


def test_decode_places_keypoints_from_the_corner_of_the_cell():
    network = YOLOv8('n', 2, Task('pose', (2, 3)))
    found = _logits(network, [0.0, 0.5, 2.0, -1.0, 0.25, -2.0])
    # Twice the value, in cells, from the corner of cell (3, 1).
    expected = [16 * 3.0, 16 * 2.0, 0.8808, 16 * 1.0, 16 * 1.5, 0.1192]
    assert found[6:].tolist() == pytest.approx(expected, abs=1e-3)


def test_decode_measures_the_sides_of_a_turned_box_along_its_axes():
    network = YOLOv8('n', 2, Task('obb'))
    found = _logits(network, [math.log(3.0)])
    # sigmoid(log 3) = 0.75: a quarter turn clockwise takes right to down and down to left.
    assert found[6] == pytest.approx(math.pi / 2, abs=1e-4)
    right, down = (2 - 1) / 2, (4 - 0) / 2
    expected = [16 * (3.5 - down), 16 * (1.5 + right), 16 * 3, 16 * 4]
    assert found[:4].tolist() == pytest.approx(expected, abs=1e-2)


def test_prototypes_have_a_cell_for_four_pixels():
    network = YOLOv8('n', 5, Task('segment')).eval()
    with torch.no_grad():
        rows, prototypes = Detector(network)(torch.rand(2, 3, 64, 96))
    assert rows.shape == (2, 4 + 5 + 32, 126) and prototypes.shape == (2, 32, 16, 24)
