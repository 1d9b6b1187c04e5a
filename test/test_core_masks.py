"""Masks from prototypes: what is interpolated, and where a mask ends."""

import cv2
import numpy as np
import pytest

from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.masks import PrototypeMasks


def _masks(prototypes, letterbox):
    width, height = letterbox.network
    whole = np.array([[0, 0, width, height]], np.float32)
    return PrototypeMasks(np.ones((1, len(prototypes)), np.float32), prototypes, whole, letterbox)


@pytest.mark.parametrize('source, network', [
    ((1280, 720), (640, 640)), ((640, 480), (320, 192)), ((333, 222), (320, 192)),
    ((100, 100), (320, 192)), ((64, 64), (64, 64))])
def test_a_mask_is_the_resized_picture_of_the_prototypes_inside(source, network):
    rng = np.random.default_rng(1)
    letterbox = Letterbox.fit(source, network)
    cells = rng.normal(0, 1, (1, network[1] // 4, network[0] // 4)).astype(np.float32)
    (left, top), (width, height) = letterbox.offset, letterbox.resized
    inside = cells[0, top // 4:(top + height) // 4, left // 4:(left + width) // 4]
    expected = cv2.resize(inside, source, interpolation=cv2.INTER_LINEAR) > 0
    found = next(iter(_masks(cells, letterbox).each()))
    assert np.mean(found == expected) > 0.9999


@pytest.mark.parametrize('source', [(1280, 720), (500, 1000), (2000, 30)])
def test_the_padding_does_not_eat_into_a_mask_at_the_border(source):
    letterbox = Letterbox.fit(source, (320, 320))
    cells = np.full((1, 80, 80), -100, np.float32)
    (left, top), (width, height) = letterbox.offset, letterbox.resized
    cells[0, top // 4:-(-(top + height) // 4), left // 4:-(-(left + width) // 4)] = 1
    assert next(iter(_masks(cells, letterbox).each())).all()
