"""The synthetic scene as its users see it: pictures, truth, determinism."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.sim import scene as scene_module
from yolojet_ros.sim.scene import CLASS_NAMES, sample, Scene, SceneFrame

_DIGEST = '''
import hashlib
from yolojet_ros.sim.scene import sample, Scene
digest = hashlib.sha256()
def add(frame):
    for name in ('image', 'boxes', 'classes', 'ids', 'visibility', 'warp'):
        digest.update(getattr(frame, name).tobytes())
scene = Scene(320, 192, seed=5, occluders=1)
for _ in range(20):
    add(scene.read())
for seed in (3, 1, 2):
    add(sample(seed, 320, 192))
'''


def digest_here():
    space = {}
    exec(_DIGEST, space)
    return space['digest'].hexdigest()


def check(frame, width, height):
    """Fail unless the frame keeps every promise of SceneFrame."""
    count = len(frame.ids)
    assert frame.image.shape == (height, width, 3) and frame.image.dtype == np.uint8
    assert frame.boxes.shape == (count, 4) and frame.boxes.dtype == np.float32
    assert frame.classes.shape == (count,) and frame.classes.dtype == np.int32
    assert frame.ids.shape == (count,) and frame.ids.dtype == np.int64
    assert frame.visibility.shape == (count,) and frame.visibility.dtype == np.float32
    assert frame.warp.shape == (2, 3) and frame.warp.dtype == np.float64
    assert len(set(frame.ids.tolist())) == count
    assert ((frame.classes >= 0) & (frame.classes < len(CLASS_NAMES))).all()
    assert ((frame.visibility > 0) & (frame.visibility <= 1)).all()
    assert (frame.boxes[:, :2] >= 0).all()
    assert (frame.boxes[:, 2:] <= (width, height)).all()
    assert (frame.boxes[:, 2:] > frame.boxes[:, :2]).all()


def test_same_seed_same_bytes_in_another_process():
    command = [sys.executable, '-c', _DIGEST + 'print(digest.hexdigest())']
    other = subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True)
    assert other.stdout.strip() == digest_here()


def test_stills_do_not_depend_on_those_before():
    first = sample(77, 320, 192).image
    for seed in range(5):
        sample(seed, 320, 192)
    np.testing.assert_array_equal(sample(77, 320, 192).image, first)


def test_other_seeds_give_other_scenes():
    frames = [Scene(320, 192, seed=seed).read() for seed in range(3)]
    hashes = {hashlib.sha256(frame.image.tobytes()).hexdigest() for frame in frames}
    assert len(hashes) == 3


@pytest.mark.parametrize('width,height', [(320, 192), (640, 384), (641, 385), (1280, 720),
                                          (1920, 1080)])
def test_sizes(width, height):
    scene = Scene(width, height, seed=2)
    for index, frame in zip(range(3), scene):
        check(frame, width, height)
        assert frame.stamp == pytest.approx(index / 30)
    check(sample(4, width, height), width, height)


def test_a_frame_is_not_overwritten_by_the_next():
    scene = Scene(320, 192, seed=1)
    first = scene.read()
    copy = first.image.copy()
    scene.read()
    np.testing.assert_array_equal(first.image, copy)


def test_objects_leave_and_return_with_the_same_identity_and_class():
    scene = Scene(320, 192, seed=4, rate=5, object_count=14)
    present, labels = [], {}
    for _ in range(400):
        frame = scene.read()
        check(frame, 320, 192)
        present.append(set(frame.ids.tolist()))
        for identity, label in zip(frame.ids.tolist(), frame.classes.tolist()):
            assert labels.setdefault(identity, label) == label
    assert set(labels) == set(range(14))
    assert set(labels.values()) == set(range(7))
    returned = 0
    for identity in labels:
        seen = np.array([identity in ids for ids in present])
        changes = np.diff(seen.astype(int))
        returned += int((changes == 1)[np.argmax(changes == -1):].any() and (changes == -1).any())
    assert returned >= 4


def test_objects_move_turn_and_scale():
    scene = Scene(320, 192, seed=6, rate=10, camera_motion=False)
    heights = {}
    for _ in range(150):
        frame = scene.read()
        whole = frame.visibility > 0.99
        sizes = frame.boxes[:, 3] - frame.boxes[:, 1]
        for identity, size in zip(frame.ids[whole].tolist(), sizes[whole].tolist()):
            heights.setdefault(identity, []).append(size)
    ratios = [max(sizes) / min(sizes) for sizes in heights.values() if len(sizes) > 20]
    assert max(ratios) > 1.8


def test_a_still_camera_has_an_identity_warp():
    scene = Scene(320, 192, seed=3, camera_motion=False)
    for _ in range(5):
        np.testing.assert_array_equal(scene.read().warp, np.eye(2, 3))


def test_the_first_warp_is_the_identity():
    np.testing.assert_allclose(Scene(320, 192, seed=3).read().warp, np.eye(2, 3), atol=1e-12)


def chained(warps):
    total = np.eye(3)
    for warp in warps:
        total = np.concatenate([warp, [[0, 0, 1]]]) @ total
    return total[:2]


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_warps_agree_with_what_the_pictures_show(seed):
    """Measure the camera's motion in the pictures of an empty world, by optical flow."""
    scene = Scene(640, 384, seed=seed, object_count=0)
    frames = [scene.read() for _ in range(40)]
    first, last = (cv2.cvtColor(frames[i].image, cv2.COLOR_BGR2GRAY) for i in (25, 30))
    points = cv2.goodFeaturesToTrack(first, 400, 0.01, 8)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(first, last, points, None, winSize=(31, 31))
    kept = found[:, 0] == 1
    measured, inliers = cv2.estimateAffine2D(points[kept], moved[kept], ransacReprojThreshold=0.7)
    assert inliers.sum() > 60
    truth = chained([frame.warp for frame in frames[26:31]])
    corners = np.array([[0, 0, 1], [639, 0, 1], [0, 383, 1], [639, 383, 1], [320, 192, 1]], float)
    assert np.abs(truth @ corners.T - measured @ corners.T).max() < 0.7
    assert np.abs(truth - np.eye(2, 3)).max() > 0.02


def test_boxes_fit_the_painted_masks(monkeypatch):
    painted = []
    compose = scene_module.compose
    monkeypatch.setattr(scene_module, 'compose', lambda image, front, shade: (
        painted.append(front), compose(image, front, shade)))
    scene = Scene(640, 384, seed=8, rate=3)
    for _ in range(40):
        frame = scene.read()
        extents = []
        for layer in painted[-1]:
            if layer.region is not None and layer.mask.any():
                x, y = layer.region[:2]
                rows, columns = np.nonzero(layer.mask)
                extents.append([x + columns.min(), y + rows.min(), x + columns.max() + 1,
                                y + rows.max() + 1])
        for box in frame.boxes:
            assert np.abs(np.array(extents) - box).max(1).min() <= 1.6


def test_pillars_hide_objects_and_carry_no_truth():
    def visibilities(pillars):
        scene = Scene(320, 192, seed=9, rate=5, camera_motion=False, occluders=pillars)
        frames = [scene.read() for _ in range(120)]
        assert max(frame.ids.max() for frame in frames) < 12
        return np.concatenate([frame.visibility for frame in frames])

    assert (visibilities(3) < 0.5).mean() > (visibilities(0) < 0.5).mean() + 0.02


def test_the_place_changes_and_objects_stay():
    scene = Scene(320, 192, seed=2, rate=4, camera_motion=False, object_count=0,
                  place_seconds=3.0)
    frames = [scene.read().image.astype(int) for _ in range(16)]
    within = np.abs(frames[1] - frames[4]).mean()
    across = np.abs(frames[1] - frames[13]).mean()
    assert across > 2 * within


def test_stills_are_varied_and_hold_no_hopeless_objects():
    counts, labels, heights = [], set(), []
    for seed in range(60):
        frame = sample(seed, 320, 192)
        check(frame, 320, 192)
        assert (frame.visibility >= 0.4).all()
        counts.append(len(frame.ids))
        labels.update(frame.classes.tolist())
        heights += (frame.boxes[:, 3] - frame.boxes[:, 1]).tolist()
        assert frame.image.std() > 5
    assert labels == set(range(7))
    assert min(counts) == 0 and max(counts) >= 10
    assert min(heights) < 16 and max(heights) > 80


def test_a_scene_can_be_empty():
    frame = Scene(320, 192, object_count=0).read()
    check(frame, 320, 192)
    assert isinstance(frame, SceneFrame) and len(frame.boxes) == 0


@pytest.mark.parametrize('arguments', [
    {'width': 319}, {'height': 1081}, {'rate': 0}, {'rate': float('nan')}, {'seed': -1},
    {'object_count': -1}, {'occluders': 21}, {'place_seconds': 0.5}])
def test_bad_arguments_are_refused_in_a_sentence(arguments):
    with pytest.raises(UserError, match='was asked for|were asked for'):
        Scene(**arguments)


@pytest.mark.parametrize('seed,width,height', [(-1, 320, 192), (0, 16, 192), (0, 320, 5000)])
def test_bad_stills_are_refused_in_a_sentence(seed, width, height):
    with pytest.raises(UserError, match='was asked for'):
        sample(seed, width, height)
