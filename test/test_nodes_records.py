"""The detector's records over DDS: an event makes a bag of what was sent and published."""

import os
from pathlib import Path
import re
import sys
import time

import cv2
import numpy as np
import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, set_stamp, wait_until
from rclpy.serialization import deserialize_message
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
from vision_msgs.msg import Detection2DArray

rosbags = pytest.importorskip('rosbags')
from rosbags.highlevel import AnyReader  # noqa: E402

_MODULE = 'yolojet_ros.nodes.detector_node'
_SIZE = (320, 192)
_BOXES = [[160, 96, 80, 60], [20, 20, 20, 20]]
_SCORES = [[0.95, 0, 0], [0, 0, 0.62]]
_PAUSE = 0.03


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    return write_model(path, raw_output(_BOXES, _SCORES, _SIZE), fragile=True)


@pytest.fixture
def start(model, tmp_path):
    """Return a function that starts a detector which records to tmp_path/records."""
    made = []

    def begin(python=None, **parameters):
        process = NodeProcess(_MODULE, tmp_path / 'detector.log', {
            'model': str(model), 'autostart': True, 'record_folder': str(tmp_path / 'records'),
            'record_seconds': 1.0, 'record_pause': 0.0, **parameters}, python=python)
        peer = Peer()
        made.append((process, peer))
        peer.wait_for_subscriber()
        return process, peer
    yield begin
    for process, peer in made:
        peer.close()
        assert process.stop() in (0, -9), process.output


def _bags(folder):
    return sorted(path for path in folder.glob('2*') if (path / 'metadata.yaml').is_file())


def _wait_for_bags(folder, count, seconds=15):
    return wait_until(
        lambda: len(_bags(folder)) >= count and _bags(folder), seconds,
        lambda: f'{count} bags in {list(folder.glob("*"))}')


def _read(bag):
    """Return the messages of a bag by topic; results as those of ROS, to be compared."""
    found = {}
    with AnyReader([bag]) as reader:
        for topic, _, data in reader.messages():
            result = topic.msgtype == 'vision_msgs/msg/Detection2DArray'
            found.setdefault(topic.topic, []).append(
                deserialize_message(bytes(data), Detection2DArray) if result
                else reader.deserialize(data, topic.msgtype))
    return found


def _stamp(header):
    return header.stamp.sec, header.stamp.nanosec


def _picture(index):
    """Return a picture that only its index has."""
    image = np.full((384, 640, 3), 40, np.uint8)
    cv2.rectangle(image, (10 * index, 50), (10 * index + 60, 200), (0, 90, 180), -1)
    return image


def _send(peer, count, first=0):
    """Send pictures; return them by stamp."""
    sent = {}
    for index in range(first, first + count):
        message = peer.send(_picture(index % 50), frame_id='lens')
        sent[_stamp(message.header)] = _picture(index % 50)
        end = time.monotonic() + _PAUSE
        while time.monotonic() < end:
            peer.executor.spin_once(timeout_sec=max(end - time.monotonic(), 0))
    return sent


def test_an_event_makes_one_bag_of_the_images_and_what_was_published(start, tmp_path):
    process, peer = start(record_on='low_score', record_low_score=0.05)
    assert peer.status(lambda values: values.get('recording') == 'low_score')
    sent = _send(peer, 40)  # longer than what is kept of the time before
    assert peer.set_parameters(score_threshold=0.6) == ''  # the cone of 0.62 is unsure now
    sent.update(_send(peer, 60, 40))
    [bag] = _wait_for_bags(tmp_path / 'records', 1)
    assert bag.name.endswith('Z_camera_low_score')
    found = _read(bag)
    assert set(found) == {'/image_raw/compressed', '/detections', '/record_event'}
    published = {_stamp(result.header): result for result in peer.results}
    images, results = found['/image_raw/compressed'], found['/detections']
    assert len(images) == len(results) >= 20
    for image, result in zip(images, results):
        assert _stamp(image.header) == _stamp(result.header)
        assert image.header.frame_id == result.header.frame_id == 'lens'
        assert result == published[_stamp(image.header)], 'what was published, to the bit'
        decoded = cv2.imdecode(image.data, cv2.IMREAD_COLOR).astype(int)
        assert np.abs(decoded - sent[_stamp(image.header)]).mean() < 3
    [event] = found['/record_event']
    values = {item.key: item.value for item in event.values}
    cone = [item.id for item in results[-1].detections if item.results[0].hypothesis.score < 0.9]
    assert event.name == 'low_score' and [values['track']] == cone
    assert values['score'] == '0.6200'
    assert 'model.onnx' in event.hardware_id and str(tmp_path.parent) in event.hardware_id
    assert f'recorded {bag}' in process.output
    peer.status(lambda values: values.get('records') == '1')
    _refused_and_off(process, peer, tmp_path)


def _refused_and_off(process, peer, tmp_path):
    """Check wrong values, and that nothing is left of it when it is off."""
    for values, words in (
            (dict(record_on='always'), 'off, or some of low_score'),
            (dict(record_seconds=0.1), 'record_seconds is 0.1'),
            (dict(tracking=False), 'low_score, which is of tracks, and tracking is false')):
        assert words in peer.set_parameters(**values)
    with_it = process.threads()
    assert peer.set_parameters(record_on='off') == ''
    _, values = peer.status(lambda values: 'recording' not in values)
    assert not [name for name in values if name.startswith('record')]
    wait_until(lambda: _recorders(process) == 0 and process.threads() == with_it - 1)
    assert peer.set_parameters(record_on=['error', 'id_switch']) == ''
    peer.status(lambda values: values.get('recording') == 'id_switch, error')
    assert _recorders(process) == 1


def _recorders(process):
    """Return how many threads have a lower priority, as only a recorder's has."""
    niceness = [int(path.read_text().rpartition(')')[2].split()[16])
                for path in Path(f'/proc/{process.process.pid}/task').glob('*/stat')]
    return sum(value > min(niceness) for value in niceness)


def test_unusable_images_and_a_failed_network_are_recorded_with_the_image(start, tmp_path):
    process, peer = start(record_on='error')
    _send(peer, 5)
    peer.send(step=3)  # no row of 640 pixels
    time.sleep(_PAUSE)
    _send(peer, 5)
    white = peer.send(np.full((384, 640, 3), 255, np.uint8), frame_id='lens')  # it fails by that
    process.wait_for_output('clean up and configure the node again')
    [bag] = _wait_for_bags(tmp_path / 'records', 1)
    found = _read(bag)
    said = [event.message for event in found['/record_event']]
    assert 'dropped an image: step is 3' in said[0] and 'BackendError' in said[1], said
    assert len(said) == 2
    images = found['/image_raw/compressed']
    assert _stamp(images[-1].header) == _stamp(white.header) and images[-1].data.size
    assert len(images) == len(found['/detections']) + 1
    for line in process.output.splitlines():  # what a journal gets: one line a message, no colours
        assert re.match(r'\[(INFO|WARN|ERROR)\] \[[0-9.]+\] \[detector\]: ', line), line
        assert line.isprintable()


def test_compressed_images_are_kept_as_they_came_and_each_camera_has_its_bags(
        model, tmp_path):
    process = NodeProcess(_MODULE, tmp_path / 'detector.log', {
        'model': str(model), 'autostart': True, 'record_folder': str(tmp_path / 'records'),
        'record_on': 'error', 'record_seconds': 1.0, 'transport': 'compressed',
        'cameras': ['front', 'rear']})
    peer = Peer()
    publisher = peer.node.create_publisher(
        CompressedImage, 'front/image_raw/compressed', qos_profile_sensor_data)
    results = []
    peer.node.create_subscription(Detection2DArray, 'front/detections', results.append, 50)
    try:
        data = cv2.imencode('.png', _picture(3))[1].tobytes()
        peer.spin_until(publisher.get_subscription_count, 20)

        def send(data):
            message = CompressedImage(format='png', data=data)
            set_stamp(message.header, time.time())
            publisher.publish(message)
            peer.executor.spin_once(timeout_sec=0.05)
            return len(results) > 5
        peer.spin_until(lambda: send(data), 20)
        send(data[:-20])
        [bag] = _wait_for_bags(tmp_path / 'records', 1)
        found = _read(bag)
        assert bag.name.endswith('Z_front_error')
        assert set(found) == {f'/front/{name}' for name in (
            'image_raw/compressed', 'detections', 'record_event')}
        for image in found['/front/image_raw/compressed']:
            assert image.data.tobytes() == data and image.format == 'png'
        assert 'cannot be decoded' in found['/front/record_event'][0].message
    finally:
        peer.close()
        assert process.stop() == 0, process.output


def test_on_a_full_disk_the_detector_goes_on(start, tmp_path):
    wrapper = tmp_path / 'python'
    (tmp_path / 'records').mkdir()
    wrapper.write_text(
        '#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c '
        f'\'mount -t tmpfs -o size=300k none {tmp_path}/records && exec {sys.executable} '
        '"$@"\' sh "$@"\n')
    wrapper.chmod(0o755)
    if os.system('unshare --user --map-root-user --mount mount -t tmpfs none /mnt 2>/dev/null'):
        pytest.skip('no namespaces of one\'s own here')
    process, peer = start(python=str(wrapper), record_on='error')
    noise = np.random.default_rng(1).integers(0, 200, (384, 640, 3), np.uint8)
    for index in range(8):
        peer.send(noise)
        time.sleep(_PAUSE)
    peer.send(step=3)
    _, values = peer.status(lambda values: values.get('recording', '').startswith('stopped: '))
    assert 'full' in values['recording']
    assert len(peer.detect(noise).detections) == 2
    peer.send(step=3)
    assert len(peer.detect(noise).detections) == 2
    assert process.output.count('recording to') == 1
