"""Images of cameras that know nothing of us: they arrive, or the reason is said."""

import os
from pathlib import Path
import subprocess
import time

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from models import raw_output, write_model
from ros_peers import DOMAIN, NodeProcess, Peer, ROOT, wait_until
import shared_memory

from yolojet_ros.cli import plain_camera
from yolojet_ros.ros import middleware
from yolojet_ros.ros.reception import many, missing_stamps

_DETECTOR = 'yolojet_ros.nodes.detector_node'
_SIZE = (320, 192)
_UBUNTU = 106_496  # bytes; the kernel doubles it to what net.core.rmem_max of 212,992 lets wait
_VARIABLES = ('FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE',
              'FASTRTPS_DEFAULT_PROFILES_FILE', 'YOLOJET_TRANSPORT_PROFILE')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE))


@pytest.fixture
def start(model, tmp_path):
    """Return a function that starts an active detector; all are stopped at the end."""
    running = []

    def function(name='detector', env=None, **parameters):
        environment = {variable: '' for variable in _VARIABLES}
        process = NodeProcess(
            _DETECTOR, tmp_path / f'{name}.log',
            {'model': str(model), 'autostart': True, 'tracking': False, **parameters},
            {'__node': name, 'detections': f'{name}/detections'},
            env=dict(environment, **(env or {})))
        running.append(process)
        process.wait_for_output('waiting for images', 40)
        return process

    yield function
    for process in running:
        assert process.stop() == 0, process.output


@pytest.fixture
def watch():
    """Return a function that gives a Peer for a detector's diagnostics."""
    peers = {}

    def function(name='detector'):
        if name not in peers:
            peers[name] = Peer(name, image_topic='nothing')
        return peers[name]

    yield function
    for peer in peers.values():
        peer.close()


class _Camera:
    """A driver with untouched defaults, in a process of its own."""

    def __init__(self, width, height, rate, count, qos, subscribers=1, env=None):
        environment = dict(plain_camera.plain_environment(), ROS_DOMAIN_ID=str(DOMAIN),
                           PYTHONPATH=str(ROOT), **(env or {}))
        self.process = subprocess.Popen(
            plain_camera.command(width, height, rate, count, qos, subscribers), cwd=ROOT,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(self):
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors

    def stop(self):
        shared_memory.kill(self.process.pid)
        self.process.communicate()


@pytest.fixture
def camera():
    """Return a function that starts a camera; all are stopped at the end."""
    running = []

    def function(*arguments, **options):
        running.append(_Camera(*arguments, **options))
        return running[-1]
    yield function
    for item in running:
        item.stop()


@pytest.fixture
def ubuntu(tmp_path):
    """Return the environment in which a socket holds what it does on an Ubuntu as it comes."""
    text = middleware.PROFILES.read_text()
    path = tmp_path / 'small.xml'
    path.write_text(text.replace(
        '<receiveBufferSize>67108864<', f'<receiveBufferSize>{_UBUNTU}<'))
    assert str(_UBUNTU) in path.read_text()
    return {middleware.profiles_variable(): str(path)}


def _now(peer):
    """Return the diagnostics' values as they are now, not those that wait in the queue."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        peer.executor.spin_once(timeout_sec=0.01)
    return peer.status()[1]


def _received(peer):
    return int(_now(peer)['received'])


@pytest.mark.parametrize('width, height, rate, count, qos', [
    (640, 480, 10, 20, 'best_effort'), (640, 480, 10, 20, 'transient_local'),
    (1280, 720, 30, 60, 'reliable'), (1920, 1080, 10, 20, 'best_effort')])
def test_images_of_an_ordinary_camera_arrive(start, watch, camera, width, height, rate, count,
                                             qos):
    if 2 * middleware.socket_buffer() < width * height * 3:
        pytest.skip('net.core.rmem_max of this machine is below such an image')
    start()
    peer = watch()
    peer.status()
    camera(width, height, rate, count, qos).wait()
    values = _now(peer)
    # On a busy machine an image may go; nearly all of them went before.
    assert int(values['received']) >= 0.9 * count
    assert int(values['received']) + int(values['lost_in_middleware']) <= count


def test_two_detectors_share_one_ordinary_camera(start, watch, camera):
    start('left'), start('right')
    left, right = watch('left'), watch('right')
    left.status(), right.status()
    camera(640, 480, 10, 30, 'best_effort', 2).wait()
    assert _received(left) >= 27 and _received(right) >= 27


def test_a_small_socket_buffer_is_made_up_for_by_reliability_and_said(
        start, watch, camera, ubuntu):
    process = start(env=ubuntu)
    peer = watch()
    peer.status()
    camera(1280, 720, 10, 40, 'reliable').wait()
    values = _now(peer)
    assert int(values['received']) >= 36
    assert values['reliability'] == 'reliable'
    line = next(text for text in process.output.splitlines() if 'sysctl' in text)
    assert 'sudo sysctl -w net.core.rmem_max=4194304' in line and '/etc/sysctl.d/' in line
    assert process.output.count('sudo sysctl') == 1
    assert 'net.core.rmem_max=4194304' in values['socket_buffer']


def test_images_that_cannot_arrive_are_explained(start, watch, camera, ubuntu):
    process = start(env=ubuntu)
    peer = watch()
    camera(1280, 720, 10, 100, 'best_effort')
    status = peer.spin_until(
        lambda: next((s for s in [peer.status()[0]] if 'rmem_max' in s.message), None), 15)
    assert status.level == b'\1' and 'image' in status.message
    process.wait_for_output('sudo sysctl -w net.core.rmem_max')


def test_requested_reliability_follows_the_publishers(start, watch, camera, ubuntu):
    process = start(env=ubuntu)
    peer = watch()

    def requested(wanted):
        peer.status(lambda values: values['reliability'] == wanted, 15)

    requested('best_effort')
    camera(640, 480, 10, 300, 'reliable')
    requested('reliable')
    before = _received(peer)
    other = camera(320, 240, 5, 30, 'best_effort')
    requested('best_effort')
    assert _received(peer) >= before, 'counters go on'
    other.wait()
    requested('reliable')
    before = _received(peer)
    assert _received(peer) > before
    assert 'incompatible' not in process.output


def test_images_come_only_once_while_changing_over(start, watch, camera, ubuntu):
    start(env=ubuntu)
    peer = watch()
    peer.status()
    camera(640, 480, 30, 90, 'reliable').wait()
    assert 60 <= _received(peer) <= 90


@pytest.mark.parametrize('stamp', [5.000000005, None])
def test_images_of_any_stamp_come_once_whatever_is_requested(start, watch, stamp):
    # The first small image of a reliable publisher has the reliability changed.
    process = start()
    peer = watch()
    publisher = peer.node.create_publisher(Image, 'image_raw', 5)
    peer.status(lambda values: values['reliability'] == 'reliable')
    for _ in range(50):
        peer.send(np.zeros((48, 64, 3), np.uint8), stamp, publisher=publisher)
        time.sleep(0.05)
    values = _now(peer)
    assert values['reliability'] == 'best_effort'
    assert 48 <= int(values['received']) <= 50
    assert 'no image arrives' not in process.output


def test_a_camera_that_skips_images_is_named_as_a_cause(start, watch):
    start()
    peer = watch()
    publisher = peer.node.create_publisher(Image, 'image_raw', 5)
    peer.status(lambda values: values['publishers'] == '1')
    for index in range(80):
        if index % 6:
            peer.send(np.zeros((48, 64, 3), np.uint8), 100 + index / 20, publisher=publisher)
        time.sleep(0.05)
    text = peer.spin_until(lambda: next(
        (s.message for s in [peer.status()[0]] if 'have holes' in s.message), ''), 3)
    assert 'the camera skips them, or this machine' in text
    assert 'RELIABLE' not in text, 'it is offered'


@pytest.mark.parametrize('value, requested', [
    ('reliable', 'reliable'), ('best_effort', 'best_effort')])
def test_a_reliability_that_is_given_stays(start, watch, camera, ubuntu, value, requested):
    start(env=ubuntu, **{'qos_overrides./image_raw.subscription.reliability': value})
    peer = watch()
    camera(640, 480, 10, 60, 'reliable')
    peer.status(lambda values: values['publishers'] == '1', 20)
    time.sleep(3)
    assert _now(peer)['reliability'] == requested


def test_no_publisher_is_told_from_a_silent_one(start, watch, camera):
    start()
    peer = watch()
    text = peer.spin_until(
        lambda: next((s.message for s in [peer.status()[0]] if 'no image for' in s.message), ''),
        15)
    assert '/image_raw has no publisher; check the topic name' in text
    camera(640, 480, 10, 10, 'reliable', subscribers=5)  # which never come
    peer.spin_until(lambda: '1 publisher(s) of /image_raw, but no image arrives: '
                    'the publisher sends nothing' in peer.status()[0].message, 20)


def test_a_publisher_that_has_gone_is_told_from_a_wrong_topic_name(start, watch, camera):
    process = start()
    peer = watch()
    camera(320, 240, 20, 30, 'reliable').wait()
    before = process.output.count('check the topic name')  # while the camera started
    text = peer.spin_until(lambda: next((
        s.message for s in [peer.status()[0]] if 'has had no publisher for' in s.message), ''), 15)
    seconds = int(text.split('/image_raw has had no publisher for ')[1].split(' s: the one')[0])
    assert 0 < seconds < 15
    assert process.output.count('check the topic name') == before


@pytest.mark.parametrize('topic, kind, words', [
    ('image_raw', String, '/image_raw carries std_msgs/msg/String, and no sensor_msgs/msg/Image'),
    ('image_raw/compressed', CompressedImage,
     '/image_raw has no publisher, but /image_raw/compressed has: clean the node up and set '
     'transport to compressed')])
def test_what_is_published_instead_is_named(start, watch, topic, kind, words):
    peer = watch()
    peer.node.create_publisher(kind, topic, 10)
    start()
    peer.spin_until(lambda: words in peer.status()[0].message, 15)


def test_no_image_is_never_told_without_a_reason(start, watch):
    peer = watch()
    start()
    begin = time.monotonic()
    for seconds in (1.0, 3.5):  # publishers that send nothing come and go meanwhile
        peer.spin_until(lambda: time.monotonic() > begin + seconds, 10)
        peer.node.create_publisher(Image, 'image_raw', 10)
    peer.spin_until(lambda: time.monotonic() > begin + 7, 10)
    told = [status.message for status in peer.statuses if 'no image for' in status.message]
    assert len(told) > 2 and all('; /image_raw' in text or 'publisher(s)' in text for text in told)


@pytest.mark.parametrize('environment, same', [
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, True),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, False),
    ({'ROS_LOCALHOST_ONLY': '1'}, True), ({'YOLOJET_TRANSPORT_PROFILE': 'udp'}, False),
    ({'YOLOJET_TRANSPORT_PROFILE': 'shared_memory'}, False),
    ({'YOLOJET_TRANSPORT_PROFILE': 'untouched'}, False)])
def test_every_mode_still_talks_to_untouched_nodes(start, watch, camera, environment, same):
    start(env=environment)
    camera(160, 120, 10, 20, 'reliable', env=environment if same else None).wait()
    assert _received(watch()) >= 18


def test_large_images_of_our_own_camera_arrive(start, watch, tmp_path):
    start()
    peer = watch()
    peer.status()
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), np.zeros((2160, 3840, 3), np.uint8))
    ours = NodeProcess('yolojet_ros.nodes.camera_node', tmp_path / 'camera.log', {
        'source': str(picture), 'rate': 2.0, 'duration': 8.0, 'wait_for_subscribers': 1})
    wait_until(lambda: not ours.alive(), 60)
    assert ours.stop() == 0
    published = int(ours.output.split('published ')[1].split()[0])
    assert published >= 8
    assert _received(peer) >= published - 2, 'one may go while the reliability is changed'


def test_little_shared_memory_is_said_and_done_without(start, watch, tmp_path):
    shell = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=20M tmpfs /dev/shm && "$@"', '-']
    if subprocess.run(shell + ['true'], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('a mount namespace is refused here')
    environment = dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT))
    for name in _VARIABLES:
        environment.pop(name, None)
    start()
    peer = watch()
    peer.status()
    log = tmp_path / 'camera.log'
    with log.open('w') as stream:
        subprocess.run(
            shell + [Path(os.sys.executable), '-m', 'yolojet_ros.nodes.camera_node', '--ros-args',
                     '-p', 'width:=1280', '-p', 'height:=720', '-p', 'rate:=10.0', '-p',
                     'duration:=3.0', '-p', 'wait_for_subscribers:=1'],
            cwd=ROOT, env=environment, stdout=stream, stderr=stream, timeout=60, check=True)
    text = log.read_text()
    assert '/dev/shm; 32 are needed to share memory' in text and 'SHM' not in text
    published = int(text.split('published ')[1].split()[0])
    assert published > 10 and _received(peer) >= published - 1


# ---- without ROS


def test_holes_are_seen_in_steady_stamps_only():
    steady = [index / 30 for index in range(30)]
    assert missing_stamps(steady) == 0
    assert missing_stamps([s for i, s in enumerate(steady) if i not in (7, 8, 20)]) == 3
    assert missing_stamps(steady[:4]) == 0
    # A publisher that sleeps, on a busy machine: now and then it is late, and loses nothing.
    late, stamps = {5: 0.17, 11: 0.31, 19: 0.22}, [0.0]
    for index in range(1, 30):
        stamps.append(stamps[-1] + 0.2 + 0.01 * (index % 3) + late.get(index, 0.0))
    assert missing_stamps(stamps) == 0
    assert missing_stamps([0.0] * 30) == 0
    paused = steady[:15] + [stamp + 27 for stamp in steady[15:]]
    assert missing_stamps(paused) == 0
    assert missing_stamps([i + (i * 7919 % 13) / 13 for i in range(30)]) == 0


def test_single_losses_are_no_matter():
    assert not many(1, 5) and not many(2, 100)
    assert many(2, 10) and many(30, 0)
