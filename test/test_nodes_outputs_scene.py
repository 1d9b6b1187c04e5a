"""What the detector publishes of the synthetic scene, with trained models, against its truth."""

import time

import numpy as np
import pytest

from ros_peers import NodeProcess, Peer, ROOT
from sensor_msgs.msg import Image, PointCloud2

from yolojet_ros.core.boxes import iou
from yolojet_ros.core.rotated import pair_iou
from yolojet_ros.model.data import scene_stills, TEST_SEED

_MODELS = {
    'segment': ROOT / 'engines' / 'demo' / 'yolojet_demo_segment.onnx',
    'pose': ROOT / 'test' / 'assets' / 'pose_fp16.onnx',
    'obb': ROOT / 'test' / 'assets' / 'obb_fp16.onnx'}
_STILLS = 12
_SURE = 0.6  # score of the detections that are compared
_SAME = 0.6  # IoU of a box and that of the truth
_LONG = 1.5  # sides of a box whose turn is compared


@pytest.fixture
def ask(request, tmp_path):
    """Return a function that gives, for stills of the scene, the answers on some topics."""
    process = NodeProcess('yolojet_ros.nodes.detector_node', tmp_path / 'log', {
        'model': str(_MODELS[request.param]), 'autostart': True, 'tracking': False,
        'score_threshold': _SURE})
    peer = Peer()

    def answers(turned, **kinds):
        seen = {}
        for topic, kind in kinds.items():
            seen[topic] = []
            peer.node.create_subscription(kind, topic, seen[topic].append, 10)
        peer.wait_for_subscriber()
        for still in scene_stills(_STILLS, TEST_SEED, turned=turned):
            for _ in range(20):  # a subscriber is found late
                found = peer.detect(still.image)
                end = time.monotonic() + 0.5
                while time.monotonic() < end and not all(
                        any(item.header == found.header for item in items)
                        for items in seen.values()):
                    peer.executor.spin_once(timeout_sec=0.05)
                same = [next((item for item in items if item.header == found.header), None)
                        for items in seen.values()]
                if None not in same:
                    break
            yield (still, found.detections, *same)
    yield answers
    peer.close()
    assert process.stop() == 0, process.output


def _upright(item):
    center, half = item.bbox.center.position, np.array([item.bbox.size_x, item.bbox.size_y]) / 2
    return np.array([[*((center.x, center.y) - half), *((center.x, center.y) + half)]], np.float32)


def _match(item, still):
    """Return the object of the truth that a detection is, None if none is near."""
    overlap = iou(_upright(item), still.boxes)[0]
    return int(overlap.argmax()) if overlap.max(initial=0) >= _SAME else None


@pytest.mark.parametrize('ask', ['segment'], indirect=True)
def test_masks_are_the_objects(ask):
    overlaps = []
    for still, detections, message in ask(False, instance_mask=Image):
        labels = np.frombuffer(message.data, '<u2').reshape(message.height, message.width)
        assert labels.shape == still.image.shape[:2] and labels.max() <= len(detections)
        for index, item in enumerate(detections):
            number = _match(item, still)
            if number is not None:
                mine, true = labels == 1 + index, still.instances == 1 + number
                overlaps.append((mine & true).sum() / (mine | true).sum())
    assert len(overlaps) > _STILLS and np.median(overlaps) > 0.85


@pytest.mark.parametrize('ask', ['pose'], indirect=True)
def test_keypoints_are_on_the_objects(ask):
    errors = []
    for still, detections, cloud in ask(False, keypoints=PointCloud2):
        points = np.frombuffer(cloud.data, '<f4').reshape(cloud.height, cloud.width, 4)
        assert len(points) == len(detections) and (points[..., 2] == 0).all()
        for found, item in zip(points, detections):
            number = _match(item, still)
            if number is not None:
                true = still.keypoints[number]
                off = np.linalg.norm(found[:, :2] - true[:, :2], axis=1)[true[:, 2] > 0]
                errors.extend(off / np.hypot(item.bbox.size_x, item.bbox.size_y))
    assert len(errors) > _STILLS and np.median(errors) < 0.1


@pytest.mark.parametrize('ask', ['obb'], indirect=True)
def test_rotated_boxes_lie_on_the_objects_with_theta_counterclockwise(ask):
    overlaps, mirrored = [], []
    for still, detections in ask(True):
        for item in detections:
            box = item.bbox
            if max(box.size_x, box.size_y) < _LONG * min(box.size_x, box.size_y):
                continue  # a turn of a square is hardly seen
            for found, turn in ((overlaps, -box.center.theta), (mirrored, box.center.theta)):
                rotated = np.array([[box.center.position.x, box.center.position.y, box.size_x,
                                     box.size_y, turn]], np.float32)
                found.append(pair_iou(
                    rotated.repeat(len(still.rotated), 0), still.rotated).max(initial=0))
    assert len(overlaps) >= 8 and np.median(overlaps) > 0.7, np.median(overlaps)
    assert np.median(mirrored) < np.median(overlaps) - 0.15, np.median(mirrored)
