"""The camera node as a process: what it publishes, how steadily, and how it ends."""

import os
from pathlib import Path
import signal
import time

import cv2
import numpy as np
import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, ROOT, wait_until
from geometry_msgs.msg import PolygonStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from yolojet_ros.nodes.camera_node import ENCODERS
from yolojet_ros.ros.images import view_of_compressed, view_of_image
from yolojet_ros.ros.warps import warp_of_polygon
from yolojet_ros.sim.scene import CLASS_NAMES, Scene

_MODULE = 'yolojet_ros.nodes.camera_node'
_RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_SMALL = {'width': 320, 'height': 192}


class Listener:
    """Everything that arrives on some topics of one camera."""

    def __init__(self, **kinds):
        self.peer = Peer(node='camera')
        self.got = {topic: [] for topic in kinds}
        self.arrived = []
        for topic, kind in kinds.items():
            self.peer.node.create_subscription(
                kind, topic.replace('__', '/'), self._take(topic), _RELIABLE)

    def _take(self, topic):
        def take(message):
            self.arrived.append(time.time())
            self.got[topic].append(message)
        return take

    def wait(self, count, seconds=20):
        """Wait until every topic has brought `count` messages."""
        self.peer.spin_until(
            lambda: all(len(messages) >= count for messages in self.got.values()), seconds,
            {topic: len(messages) for topic, messages in self.got.items()})
        return self.got


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the camera, and a listener to some of its topics."""
    running = []

    def start_camera(kinds=None, remaps=None, **parameters):
        process = NodeProcess(_MODULE, tmp_path / f'{len(running)}.log', parameters, remaps)
        listener = Listener(**kinds) if kinds else None
        running.append((process, listener))
        return process, listener

    yield start_camera
    for process, listener in running:
        if process.alive():
            process.stop()
        if listener:
            listener.peer.close()


def _seconds(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def test_image_compressed_info_and_truth_belong_together(start):
    _, listener = start(
        {'image_raw': Image, 'image_raw__compressed': CompressedImage, 'camera_info': CameraInfo,
         'truth': Detection2DArray}, frame_id='front', seed=3, rate=15.0)
    got = listener.wait(6)
    by_stamp = [{(m.header.stamp.sec, m.header.stamp.nanosec): m for m in messages}
                for messages in got.values()]
    common = sorted(set.intersection(*map(set, by_stamp)))
    assert len(common) >= 3
    film = zip(range(200), Scene(640, 384, seed=3, rate=15.0))
    scene = {frame.image.tobytes(): frame for _, frame in film}
    for stamp in common[:3]:
        image, compressed, info, truth = (messages[stamp] for messages in by_stamp)
        assert {m.header.frame_id for m in (image, compressed, info, truth)} == {'front'}
        assert (info.width, info.height) == (image.width, image.height) == (640, 384)
        assert (image.encoding, image.step, image.is_bigendian) == ('bgr8', 3 * 640, 0)
        raw = view_of_image(image).bgr()
        decoded = view_of_compressed(compressed).bgr()
        assert cv2.PSNR(raw, decoded) > 30
        frame = scene[raw.tobytes()]
        assert len(truth.detections) == len(frame.boxes)
        for detection, box, label, key, visible in zip(
                truth.detections, frame.boxes, frame.classes, frame.ids, frame.visibility):
            centre, size_x = detection.bbox.center.position, detection.bbox.size_x
            assert centre.x - size_x / 2 == pytest.approx(box[0], abs=1e-3)
            assert detection.header == image.header
            assert detection.results[0].hypothesis.class_id == CLASS_NAMES[label]
            assert detection.results[0].hypothesis.score == pytest.approx(visible)
            assert detection.id == str(key)


def test_stamps_are_honest_and_the_rate_is_kept(start):
    process, listener = start({'image_raw': Image}, rate=20.0, **_SMALL)
    listener.wait(5)
    listener.got['image_raw'].clear()
    listener.arrived.clear()
    begin = time.time()
    messages = listener.wait(60)['image_raw']
    stamps = np.array([_seconds(message) for message in messages])
    ages = np.array(listener.arrived) - stamps
    assert np.all(np.diff(stamps) > 0) and stamps[0] > begin - 0.5
    # A loaded machine skips ticks, but never leaves the grid or stamps ahead.
    assert np.all(ages > 0) and np.median(ages) < 0.02
    assert np.median(np.diff(stamps)) == pytest.approx(0.05, abs=0.005)
    periods = (stamps[-1] - stamps[0]) * 20
    skipped = int(listener.peer.status()[1]['skipped'])
    assert periods == pytest.approx(59, abs=skipped + 1)


@pytest.mark.parametrize('encoding', sorted(ENCODERS))
def test_encodings_show_the_same_picture(encoding):
    """Judged by the decoder of the detector, and OpenCV's where it has one."""
    image = cv2.GaussianBlur(Scene(320, 192, seed=1).read().image, (0, 0), 2)
    from yolojet_ros.ros.images import fill_image
    message = Image()
    fill_image(message, ENCODERS[encoding](image), encoding)
    found = view_of_image(message).bgr()
    if encoding == 'mono8':
        assert np.array_equal(found[..., 0], cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    elif encoding.startswith('yuv422'):
        assert cv2.PSNR(image, found) > 35
    else:
        assert np.array_equal(image, found)


def test_encoding_parameter_reaches_the_message(start):
    _, listener = start({'image_raw': Image}, encoding='yuv422_yuy2', **_SMALL)
    message = listener.wait(1)['image_raw'][0]
    assert (message.encoding, message.step, len(message.data)) == (
        'yuv422_yuy2', 640, 640 * 192)


def _write_video(path, count=8, rate=20.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, (64, 48))
    for index in range(count):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_video_loops_at_its_own_rate(start, tmp_path):
    process, listener = start({'image_raw': Image}, source=str(_write_video(tmp_path / 'a.mp4')))
    messages = listener.wait(20)['image_raw']
    process.wait_for_output('at 20 Hz')
    levels = [round(np.frombuffer(m.data, np.uint8).mean() / 20) for m in messages]
    steps = {(after - before) % 8 for before, after in zip(levels, levels[1:])}
    assert steps == {1} and set(levels) == set(range(8))


def test_video_that_does_not_loop_ends_the_node(start, tmp_path):
    process, _ = start(source=str(_write_video(tmp_path / 'a.mp4')), loop=False)
    wait_until(lambda: not process.alive(), 20, lambda: process.output)
    assert process.stop() == 0
    assert 'has ended' in process.output and 'Traceback' not in process.output


def test_nothing_is_counted_while_nobody_listens(start):
    _, listener = start({'other': Image}, {'image_raw': 'unheard'}, rate=30.0, **_SMALL)
    _, values = listener.peer.status()
    _, later = listener.peer.status()
    assert values['published'] == later['published'] == '0'


def test_a_source_slower_than_the_rate_warns_and_counts(start, tmp_path):
    for index in range(2):
        cv2.imwrite(str(tmp_path / f'{index}.png'),
                    np.random.default_rng(index).integers(0, 256, (2000, 3000, 3), np.uint8))
    _, listener = start({'image_raw': Image}, source=str(tmp_path), rate=60.0)
    status, values = listener.peer.status(lambda values: int(values['skipped']) > 0, 20)
    assert status.level == type(status).WARN and 'slower than the 60' in status.message


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly_on_a_signal(start, number):
    process, listener = start({'image_raw': Image}, rate=60.0, **_SMALL)
    listener.wait(3)
    assert process.stop(number) == 0, process.output
    assert 'Traceback' not in process.output and 'Error' not in process.output
    assert 'published' in process.output


@pytest.mark.parametrize('parameters, words', [
    ({'source': '/no/such/place'}, "'/no/such/place' is neither a file nor a folder"),
    ({'source': 9999}, 'camera 9999 cannot be opened'),
    ({'width': 640}, 'both width and height'),
    ({'encoding': 'jpeg'}, 'encoding is "jpeg"; it must be one of bgr8'),
    ({'reliability': 'some'}, 'must be one of reliable, best_effort'),
])
def test_what_cannot_be_published_is_one_sentence(start, parameters, words):
    process, _ = start(**parameters)
    wait_until(lambda: not process.alive(), 20, lambda: process.output)
    assert process.stop() == 2
    assert words in process.output and 'Traceback' not in process.output


def test_parameters_are_described_and_fixed(start):
    _, listener = start({'image_raw': Image}, **_SMALL)
    names = ('source', 'rate', 'width', 'height', 'seed', 'objects', 'frame_id', 'loop',
             'encoding', 'reliability')
    for descriptor in listener.peer.describe(*names):
        assert descriptor.description and descriptor.read_only
    assert listener.peer.set_parameters(rate=10.0) != ''


def _kilted():
    """Return the Python of the environment for Kilted, and what must change around it."""
    folder = ROOT / '.venv'
    return str(folder / 'bin' / 'python'), {
        'AMENT_PREFIX_PATH': str(folder), 'ROS_DISTRO': 'kilted', 'LD_LIBRARY_PATH': '',
        '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '', 'FASTRTPS_DEFAULT_PROFILES_FILE': ''}


@pytest.mark.skipif(
    os.environ.get('ROS_DISTRO') != 'jazzy' or not Path(ROOT, '.venv', 'yolojet.json').exists(),
    reason='needs both distributions: ./yolojet test --ros jazzy')
def test_a_jazzy_camera_feeds_a_kilted_detector(tmp_path):
    model = write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192)))
    python, environment = _kilted()
    detector = NodeProcess(
        'yolojet_ros.nodes.detector_node', tmp_path / 'detector.log',
        {'model': str(model), 'autostart': True}, env=environment, python=python)
    camera = NodeProcess(_MODULE, tmp_path / 'camera.log', _SMALL)
    listener = Listener(image_raw=Image, detections=Detection2DArray)
    try:
        got = listener.wait(20)
        images = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in got['image_raw']}
        results = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in got['detections']}
        common = images & set(results)
        assert len(common) >= 10
        assert all(results[stamp].detections[0].results[0].hypothesis.score > 0.9
                   for stamp in common)
    finally:
        listener.peer.close()
        assert camera.stop() == 0, camera.output
        assert detector.stop() == 0, detector.output


def test_camera_motion_is_that_of_the_scene(start):
    _, listener = start({'image_raw': Image, 'camera_motion': PolygonStamped}, seed=5, rate=15.0,
                        **_SMALL)
    got = listener.wait(6)
    scene, warps = Scene(320, 192, seed=5, rate=15.0), []
    for _ in range(100):
        warps.append(scene.read().warp)
    found = [warp_of_polygon(message, 320, 192) for message in got['camera_motion'][:6]]
    starts = [index for index, warp in enumerate(warps[:-6])
              if np.allclose(warp, found[0], atol=1e-3)]
    assert any(np.allclose(warps[start:start + 6], found, atol=1e-3) for start in starts)
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in got['image_raw']}
    assert len(stamps & {(m.header.stamp.sec, m.header.stamp.nanosec)
                         for m in got['camera_motion']}) >= 5


def _names(listener):
    return {name for name, _ in listener.peer.node.get_topic_names_and_types()}


@pytest.mark.parametrize('remaps, topics', [
    ({'image_raw': '/cam/left/image'},
     {'/cam/left/image', '/cam/left/image/compressed', '/cam/left/camera_info'}),
    ({'__ns': '/front'},
     {'/front/image_raw', '/front/image_raw/compressed', '/front/camera_info'}),
    ({'image_raw': '/image', 'camera_info': '/calibration', 'image_raw/compressed': '/jpeg'},
     {'/image', '/jpeg', '/calibration'}),
    ({'image_raw': '/image', 'camera_info': '/calibration', 'image_raw/compressed': '/jpeg',
      '/image': '/one', '/calibration': '/two', '/jpeg': '/three'},
     {'/image', '/jpeg', '/calibration'})])
def test_camera_info_and_jpeg_go_with_the_image(start, remaps, topics):
    _, listener = start({'x': Image}, remaps, **_SMALL)
    listener.peer.spin_until(
        lambda: topics <= _names(listener), 20, lambda: str(_names(listener)))
    assert '/camera_info' not in _names(listener) - topics


@pytest.mark.parametrize('namespace, frame', [
    ('/', 'camera'), ('/front', 'front/camera'), ('/robot/front', 'robot/front/camera')])
def test_each_namespace_has_a_frame(start, namespace, frame):
    topic = f'{namespace}/image_raw'.lstrip('/').replace('/', '__')
    _, listener = start({topic: Image}, {'__ns': namespace}, **_SMALL)
    assert listener.wait(1)[topic][0].header.frame_id == frame
