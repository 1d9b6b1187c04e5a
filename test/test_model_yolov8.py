"""The network: known parameter counts, shapes, and what its head means."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')
torch.set_num_threads(1)  # small networks: more threads only wait for each other

from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model.yolov8 import (  # noqa: E402
    anchor_points, Detector, flatten, parameter_count, YOLOv8)


@pytest.mark.parametrize('variant, classes, count', [
    ('n', 80, 3_157_200), ('n', 7, 3_012_213), ('s', 80, 11_166_560), ('m', 80, 25_902_640)])
def test_parameter_counts_are_the_published_ones(variant, classes, count):
    assert parameter_count(YOLOv8(variant, classes)) == count


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
    place = int(flatten(maps)[1][0, 0].argmax())
    assert points[:, place].tolist() == [5.5, 2.5] and strides[0, place] == 8


def test_unknown_variant_is_refused():
    with pytest.raises(UserError, match='choose one of n, s, m'):
        YOLOv8('x', 80)
    with pytest.raises(UserError, match='1 to 10000 classes'):
        YOLOv8('n', 0)
