"""What the detector publishes for each task: pixels, points, angles and classes over DDS."""

import math
import struct
import time

import numpy as np
import pytest

from models import NAMES, raw_output, write_model, write_task_model
from ros_peers import NodeProcess, Peer, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2, PointField
from vision_msgs.msg import Classification, Detection2DArray, LabelInfo, VisionInfo

_MODULE = 'yolojet_ros.nodes.detector_node'
# Seen on images of 640x384, in the network half as large: (cx, cy, w, h).
_BOXES = [[160, 96, 80, 60], [20, 20, 20, 20], [280, 150, 40, 40]]
_SCORES = [[0.95, 0, 0], [0, 0, 0.6], [0, 0.3, 0]]
# The crate fills the left half of its box, the others fill theirs.
_COEFFICIENTS = [[0, 1], [1, 0], [1, 0]]
_CRATE, _CONE, _BARREL = (
    (slice(132, 252), slice(240, 320)), (slice(20, 60), slice(20, 60)),
    (slice(260, 340), slice(520, 600)))
_TOPICS = {
    'detect': {'detections', 'debug_image'}, 'obb': {'detections', 'debug_image'},
    'segment': {'detections', 'debug_image', 'instance_mask', 'class_mask'},
    'pose': {'detections', 'debug_image', 'keypoints'},
    'classify': {'classification', 'debug_image'}}
_ALL = set().union(*_TOPICS.values())
_PAUSE = 0.03
_DEFAULTS = dict(input_size='', score_threshold=0.25, class_thresholds=[], classes=[], roi=[],
                 debug_image=True, top_k=5)


@pytest.fixture
def models(tmp_path):
    """Return a model file a task."""
    points = [[10, 20, 0.9, 100, 50, 0.4, 160, 96, 0], [20, 20, 1, 30, 30, 1, 0, 0, 0.1]]
    paths = {
        'detect': (_BOXES, _SCORES, ()),
        'segment': (_BOXES, _SCORES, _COEFFICIENTS),
        'pose': (_BOXES[:2], _SCORES[:2], points),
        'obb': ([[160, 96, 100, 40]], [[0.9, 0, 0]], [[math.pi / 6]])}
    found = {task: write_task_model(tmp_path / f'{task}.onnx', task, *head)
             for task, head in paths.items()}
    found['classify'] = write_model(
        tmp_path / 'classify.onnx', np.array([[0.2, 0.7, 0.1]]), metadata={'task': 'classify'})
    return found


@pytest.fixture(scope='module')
def process(tmp_path_factory):
    """Return a detector that the tests share, each with a model of its own."""
    process = NodeProcess(_MODULE, tmp_path_factory.mktemp('shared') / 'log',
                          remaps={'__node': 'shared'})
    yield process
    assert process.stop() == 0, process.output


@pytest.fixture
def start(process):
    """Return a function that lets the detector load a model; (process, peer) once it is active."""
    yield from _loading(process, 'shared')


@pytest.fixture
def start_new(tmp_path):
    """Return the same for a detector that has seen no image yet."""
    process = NodeProcess(_MODULE, tmp_path / 'log')
    yield from _loading(process, 'detector')
    assert process.stop() == 0, process.output


def _loading(process, name):
    peer = Peer(name)

    def function(model, **parameters):
        assert peer.set_parameters(model=str(model), **{**_DEFAULTS, **parameters}) == ''
        assert peer.change_state('configure') and peer.change_state('activate')
        peer.spin_until(peer.image_publisher.get_subscription_count, 20, process.output)
        return process, peer
    yield function
    for state, transition in (('active', 'deactivate'), ('inactive', 'cleanup')):
        assert peer.state() != state or peer.change_state(transition)
    peer.close()


class _Listener:
    """A subscription and what came of it."""

    def __init__(self, peer, kind, topic, profile=10):
        self.messages = []
        self._peer = peer
        self._subscription = peer.node.create_subscription(
            kind, topic, self.messages.append, profile)

    def close(self):
        self._peer.node.destroy_subscription(self._subscription)


def _listen(peer, **kinds):
    return [_Listener(peer, kind, topic) for topic, kind in kinds.items()]


def _see(peer, *listeners, **fields):
    """Send images until all listeners have the answer to one of them; return these answers."""
    def answers():
        return [next((item for item in listener.messages if item.header == message.header), None)
                for listener in listeners]

    end = time.monotonic() + 20
    while time.monotonic() < end:
        message = peer.send(frame_id='front', **fields)
        soon = time.monotonic() + 0.5
        while time.monotonic() < soon:
            peer.executor.spin_once(timeout_sec=0.05)
            if all(answer is not None for answer in answers()):
                time.sleep(_PAUSE)
                return answers()
    raise AssertionError('no image is answered by all')


def _pixels(message):
    kind = {'mono16': '<u2', 'mono8': 'u1', 'bgr8': 'u1'}[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows.view(np.dtype(kind))
    assert not message.is_bigendian
    return pixels.reshape(message.height, message.width, -1).squeeze()


def _expected(*parts):
    image = np.zeros((384, 640), int)
    for place, value in parts:
        image[place] = value
    return image


def _names(result):
    return [item.results[0].hypothesis.class_id for item in result.detections]


def test_masks_tell_detection_and_class_of_each_pixel(models, start):
    _, peer = start(models['segment'])
    listeners = _listen(
        peer, detections=Detection2DArray, instance_mask=Image, class_mask=Image)
    found, instances, classes = _see(peer, *listeners)
    assert _names(found) == ['crate', 'cone', 'barrel']
    assert (instances.encoding, classes.encoding) == ('mono16', 'mono8')
    for message in (instances, classes):
        assert (message.width, message.height) == (640, 384)
        assert message.header == found.header and message.header.frame_id == 'front'
    np.testing.assert_array_equal(
        _pixels(instances), _expected((_CRATE, 1), (_CONE, 2), (_BARREL, 3)))
    np.testing.assert_array_equal(
        _pixels(classes), _expected((_CRATE, 1), (_CONE, 3), (_BARREL, 2)))


def test_an_index_in_the_mask_is_that_of_the_filtered_and_tracked_detections(models, start):
    _, peer = start(models['segment'])
    defaults = dict(class_thresholds=[], classes=[], roi=[], score_threshold=0.25)
    listeners = _listen(
        peer, detections=Detection2DArray, instance_mask=Image, class_mask=Image)
    for wishes, seen in (
            (dict(class_thresholds=['crate:0.99']), [(_CONE, 3), (_BARREL, 2)]),
            (dict(classes=['barrel', 'crate']), [(_CRATE, 1), (_BARREL, 2)]),
            (dict(roi=[0.0, 0.0, 0.2, 0.0, 0.2, 0.2, 0.0, 0.2]), [(_CONE, 3)]),
            (dict(score_threshold=0.99), [])):
        assert peer.set_parameters(**{**defaults, **wishes}) == ''
        for _ in range(4):  # until there are ids
            found, instances, classes = _see(peer, *listeners)
        np.testing.assert_array_equal(_pixels(instances), _expected(
            *((place, 1 + index) for index, (place, _) in enumerate(seen))))
        np.testing.assert_array_equal(_pixels(classes), _expected(*seen))
        assert [1 + NAMES.index(name) for name in _names(found)] == [kind for _, kind in seen]
        assert all(item.id.isdigit() for item in found.detections[:1])


def test_nothing_is_computed_that_nobody_listens_to(models, start_new):
    _, peer = start_new(models['segment'])
    peer.wait_for_subscriber()

    def computed(answer):
        def told(values):
            peer.detect()
            return values['masks_or_keypoints'] == answer
        return peer.status(told)[1]
    values = computed('not wanted by anybody')
    assert values['task'] == 'segment'
    assert not {'instance_mask_ms_p50', 'class_mask_ms_p50', 'debug_image_ms_p50'} & set(values)
    for topic in ('instance_mask', 'debug_image', 'class_mask', 'instance_mask'):
        listener, = _listen(peer, **{topic: Image})
        _see(peer, listener)
        values = computed('computed')
        assert float(values[f'{topic}_ms_p50']) > 0
        listener.close()
        computed('not wanted by anybody')
    listener, = _listen(peer, debug_image=Image)
    assert peer.set_parameters(debug_image=False) == ''
    computed('not wanted by anybody')
    listener.close()


def test_keypoints_are_an_organised_cloud_in_image_pixels(models, start):
    _, peer = start(models['pose'])
    found, cloud = _see(peer, *_listen(peer, detections=Detection2DArray, keypoints=PointCloud2))
    assert _names(found) == ['crate', 'cone'] and cloud.header == found.header
    assert (cloud.height, cloud.width) == (2, 3)
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'confidence']
    assert all(field.datatype == PointField.FLOAT32 and field.count == 1
               for field in cloud.fields)
    assert cloud.is_dense and len(cloud.data) == cloud.height * cloud.row_step
    data, order = bytes(cloud.data), '>' if cloud.is_bigendian else '<'
    points = [[[struct.unpack_from(order + 'f', data, row * cloud.row_step
                                   + column * cloud.point_step + field.offset)[0]
                for field in cloud.fields] for column in range(3)] for row in range(2)]
    np.testing.assert_allclose(points, [
        [[20, 40, 0, 0.9], [200, 100, 0, 0.4], [320, 192, 0, 0]],
        [[40, 40, 0, 1], [60, 60, 0, 1], [0, 0, 0, 0.1]]], rtol=1e-5)
    assert peer.set_parameters(classes=['cone']) == ''
    cloud, = _see(peer, *_listen(peer, keypoints=PointCloud2))
    assert (cloud.height, cloud.width) == (1, 3)
    assert struct.unpack_from(order + '2f', bytes(cloud.data)) == (40, 40)
    assert peer.set_parameters(classes=['barrel']) == ''
    cloud, = _see(peer, *_listen(peer, keypoints=PointCloud2))
    assert (cloud.height, cloud.width, len(cloud.data)) == (0, 3, 0)


def test_theta_is_counterclockwise_as_the_image_shows_it(models, start):
    """The head's box is turned by 30 degrees from x towards y: its right end points down."""
    _, peer = start(models['obb'])
    listeners = _listen(peer, detections=Detection2DArray, debug_image=Image)
    for _ in range(4):
        found, picture = _see(peer, *listeners)
    item, = found.detections
    box = item.bbox
    assert item.id.isdigit()
    assert (box.center.position.x, box.center.position.y) == (320, 192)
    assert (box.size_x, box.size_y) == (pytest.approx(200), pytest.approx(80))
    assert box.center.theta == pytest.approx(-math.pi / 6)
    # Where y points up, (cos, sin) of a counterclockwise angle; so in pixels -sin.
    right = np.array([math.cos(box.center.theta), -math.sin(box.center.theta)])
    down = np.array([-right[1], right[0]])
    assert right[1] > 0
    drawn = _pixels(picture).any(axis=2)
    center = np.array([320, 192])
    for end in (center + 100 * right, center - 100 * right, center + 40 * down):
        x, y = np.rint(end).astype(int)
        assert drawn[y - 1:y + 2, x - 1:x + 2].any(), 'a side of the rotated box goes through'
    x, y = np.rint(center + 100 * right * (1, -1)).astype(int)
    assert not drawn[y - 2:y + 3, x - 2:x + 3].any(), 'and not the other way round'


def test_debug_image_shows_masks(models, start):
    _, peer = start(models['segment'])
    listener, = _listen(peer, debug_image=Image)
    # The first may be of an image that came before somebody listened.
    _see(peer, listener)
    pixels = _pixels(_see(peer, listener)[0])
    assert pixels[192, 280].any(), 'the masked left half of the crate is tinted'
    assert not pixels[200, 360].any(), 'its right half is not'


def test_debug_image_shows_keypoints(models, start):
    _, peer = start(models['pose'])
    listener, = _listen(peer, debug_image=Image)
    _see(peer, listener)
    pixels = _pixels(_see(peer, listener)[0])
    assert pixels[40, 20].any(), 'a sure keypoint is drawn'
    assert not pixels[100, 200].any(), 'an unsure one is not'


def test_a_classifier_publishes_its_best_classes(models, start_new):
    process, peer = start_new(models['classify'])
    listener, = _listen(peer, classification=Classification)

    def seen(**wishes):
        assert peer.set_parameters(**wishes) == ''
        message, = _see(peer, listener)
        assert message.header.frame_id == 'front'
        return [(item.class_id, pytest.approx(item.score)) for item in message.results]
    everything = [('barrel', 0.7), ('crate', 0.2), ('cone', 0.1)]
    assert peer.get_parameter('top_k').integer_value == 5
    assert seen() == everything
    assert seen(top_k=2) == everything[:2]
    assert seen(top_k=1) == everything[:1]
    assert seen(top_k=5, score_threshold=0.9) == everything
    assert seen(class_thresholds=['crate:0.3']) == [everything[0], everything[2]]
    assert seen(class_thresholds=[], classes=['cone']) == [everything[2]]
    assert 'set an integer from 1' in peer.set_parameters(top_k=0)
    assert peer.results == [] and peer.node.count_publishers('detections') == 0
    _, values = peer.status()
    assert values['task'] == 'classify' and values['tracks'] == '0'
    assert not {'track_ms_p50', 'look_ms_p50'} & set(values)


def test_debug_image_shows_the_classes(models, start):
    _, peer = start(models['classify'])
    pixels = _pixels(_see(peer, *_listen(peer, debug_image=Image))[0])
    assert pixels[:40, :80].any()


def test_topics_are_those_of_the_models_task_and_go_with_it(models, start):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL,
                         reliability=ReliabilityPolicy.RELIABLE)
    _, peer = start(models['detect'])
    labels, info = (_Listener(peer, kind, topic, latched) for kind, topic in (
        (LabelInfo, 'label_info'), (VisionInfo, 'vision_info')))

    def topics():
        return {name for name in _ALL if peer.node.count_publishers(name)}
    for task, expected in _TOPICS.items():
        assert peer.change_state('deactivate') and peer.change_state('cleanup')
        wait_until(lambda: not topics(), describe=topics)
        labels.messages.clear()
        info.messages.clear()
        assert peer.set_parameters(model=str(models[task])) == ''
        assert peer.change_state('configure') and peer.change_state('activate')
        wait_until(lambda: topics() == expected, describe=topics)
        peer.spin_until(lambda: labels.messages and info.messages)
        assert tuple(item.class_name for item in labels.messages[-1].class_map) == NAMES
        assert labels.messages[-1].threshold == (0 if task == 'classify' else 0.25)
        assert f'({task}), {task}.onnx' in info.messages[-1].method


def test_a_model_of_more_classes_than_a_byte_has_no_class_mask(tmp_path, start):
    names = [f'thing {index}' for index in range(256)]
    scores = np.zeros((1, 256))
    scores[0, 255] = 0.9
    output = raw_output([[160, 96, 80, 60]], scores, (320, 192), 256, [[1, 0]])
    model = write_model(
        tmp_path / 'many.onnx', output, names=names, metadata={'task': 'segment'},
        more=[np.ones((1, 2, 48, 80), np.float32)])
    process, peer = start(model)
    process.wait_for_output('many.onnx has 256 classes, and a pixel of class_mask can tell 255')
    found, labels = _see(peer, *_listen(peer, detections=Detection2DArray, instance_mask=Image))
    assert _names(found) == ['thing 255'] and _pixels(labels).max() == 1
    assert peer.node.count_publishers('class_mask') == 0


def test_input_size_is_for_models_that_leave_it_open(tmp_path, start):
    output = raw_output(_BOXES, _SCORES, (320, 192))
    model = write_model(tmp_path / 'open.onnx', output, dynamic=True, metadata={'imgsz': None})
    process, peer = start(model, input_size='320x192')
    assert len(_see(peer, *_listen(peer, detections=Detection2DArray))[0].detections) == 3
    assert peer.status()[1]['input_size'] == '320x192'
    assert 'input_size is fixed now' in peer.set_parameters(input_size='64x64')
    assert peer.change_state('deactivate') and peer.change_state('cleanup')
    assert peer.set_parameters(input_size='320') == (
        'input_size is "320"; set width and height in pixels, such as 640x384, or leave it empty')
    assert peer.set_parameters(input_size='') == ''
    assert not peer.change_state('configure')
    process.wait_for_output('set input_size (640x640, say)')
    fixed = write_model(tmp_path / 'fixed.onnx', output)
    assert peer.set_parameters(input_size='640x640', model=str(fixed)) == ''
    assert not peer.change_state('configure')
    process.wait_for_output('takes images of 320x192 only; input_size asks for 640x640')
