"""The detector node as a process: images in, detections out, parameters live."""

import signal
import threading
import time

import cv2
import numpy as np
import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, set_stamp
from geometry_msgs.msg import PolygonStamped
from rcl_interfaces.msg import Parameter as ParameterMessage, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionInfo

from yolojet_ros.ros.warps import polygon_of_warp

_MODULE = 'yolojet_ros.nodes.detector_node'
_SIZE = (320, 192)
# A sure crate, a cone of 0.6 and a weak barrel, far apart; (cx, cy, w, h) in the network.
_BOXES = [[160, 96, 80, 60], [20, 20, 20, 20], [280, 150, 40, 40]]
_SCORES = [[0.95, 0, 0], [0, 0, 0.6], [0, 0.3, 0]]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    return write_model(path, raw_output(_BOXES, _SCORES, _SIZE))


@pytest.fixture(scope='module')
def running(model, tmp_path_factory):
    """Return (process, peer) of an active detector shared by the tests of this file."""
    process = NodeProcess(
        _MODULE, tmp_path_factory.mktemp('log') / 'detector.log',
        {'model': str(model), 'autostart': True})
    peer = Peer()
    peer.wait_for_subscriber()
    yield process, peer
    peer.close()
    assert process.stop() == 0, process.output


_DEFAULTS = dict(
    score_threshold=0.25, iou_threshold=0.5, class_thresholds=[], classes=[], agnostic_nms=False,
    max_detections=300, min_box_size=0.0, roi=[], tracking=True, debug_image=True,
    camera_motion='auto', camera_motion_wait=0.05, appearance=False)


@pytest.fixture
def peer(running):
    yield running[1]
    assert running[1].set_parameters(**_DEFAULTS) == ''


def _classes(result):
    return [item.results[0].hypothesis.class_id for item in result.detections]


def test_header_boxes_classes_scores_and_ids(peer):
    first = peer.send(frame_id='front_camera')
    peer.results.clear()
    for _ in range(4):
        time.sleep(0.03)
        result = peer.detect(frame_id='front_camera', stamp=time.time())
    assert result.header.frame_id == 'front_camera'
    assert result.header.stamp != first.header.stamp
    assert _classes(result) == ['crate', 'cone', 'barrel']
    crate = result.detections[0]
    assert crate.header == result.header
    assert (crate.bbox.center.position.x, crate.bbox.center.position.y) == (320, 192)
    assert (crate.bbox.size_x, crate.bbox.size_y) == (160, 120)
    assert crate.results[0].hypothesis.score == pytest.approx(0.95)
    assert crate.id.isdigit()
    assert result.detections[2].id == '', 'a weak detection starts no track'


def test_the_header_is_the_images_to_the_nanosecond(peer):
    message = peer.send(stamp=0)
    message.header.stamp.sec, message.header.stamp.nanosec = 1234567, 987654321
    peer.results.clear()
    peer.image_publisher.publish(message)
    peer.spin_until(lambda: any(r.header == message.header for r in peer.results))


def test_nothing_seen_is_published_as_an_empty_array(peer):
    assert peer.set_parameters(score_threshold=0.99) == ''
    message = peer.send()
    peer.spin_until(lambda: [r for r in peer.results if r.header == message.header])
    assert peer.results[-1].detections == []


@pytest.mark.parametrize('values,expected', [
    (dict(score_threshold=0.5), ['crate', 'cone']),
    (dict(classes=['cone', 'barrel']), ['cone', 'barrel']),
    (dict(class_thresholds=['barrel:0.4', 'cone:0.7']), ['crate']),
    (dict(max_detections=1), ['crate']),
    (dict(min_box_size=41.0), ['crate', 'barrel']),
    (dict(roi=[0.4, 0.4, 0.6, 0.4, 0.6, 0.6, 0.4, 0.6]), ['crate']),
    (dict(roi=[0, 0, 1, 0, 1, 1, 0, 1]), ['crate', 'cone', 'barrel']),  # integers
])
def test_a_parameter_acts_on_the_next_image(peer, values, expected):
    peer.set_parameters(tracking=False)
    assert peer.set_parameters(**values) == ''
    assert _classes(peer.detect()) == expected


def test_tracking_can_be_switched_off_and_on(peer):
    assert peer.set_parameters(tracking=False) == ''
    for _ in range(3):
        result = peer.detect()
    assert [item.id for item in result.detections] == ['', '', '']
    assert peer.set_parameters(tracking=True) == ''
    for _ in range(3):
        time.sleep(0.03)
        result = peer.detect()
    assert result.detections[0].id.isdigit()


@pytest.mark.parametrize('values,words', [
    (dict(classes=['dog']), '"dog"'),
    (dict(class_thresholds=['crate=0.5']), 'NAME:VALUE'),
    (dict(class_thresholds=['crate:1.5']), '1.5'),
    (dict(roi=[0.1, 0.2, 0.3]), 'pairs'),
    (dict(roi=['a', 'b']), 'numbers'),
    (dict(roi=[0.1, 0.1, 0.9, 0.9]), '2 corners'),
    (dict(score_threshold=1.5), 'score_threshold'),
    (dict(tracker__lost_seconds=-1.0), 'tracker.lost_seconds'),
    (dict(camera_motion='guess'), 'one of off, auto, flow, topic'),
    (dict(classes=5), 'classes holds 5; it must be a list of class names'),
    (dict(classes=True), 'list of class names'), (dict(roi=0.5), 'pairs'),
    (dict(roi=True), 'numbers'), (dict(class_thresholds=1), 'NAME:VALUE'),
    (dict(camera_motion=3), 'one of off'), (dict(score_threshold='high'), 'set a number from 0'),
    (dict(tracking=1), 'tracking is 1; set true or false'),
    (dict(iou_threshold=float('nan')), 'set a number from 0'),
    (dict(tracker__confirm_hits=1.0), 'set an integer from 1 to 100'),
    (dict(roi=None), 'roi cannot be deleted'), (dict(classes=None), 'cannot be deleted'),
    (dict(camera_motion=None), 'cannot be deleted'),
    (dict(score_threshold=None), 'cannot be deleted'),
    (dict(scroe_threshold=0.5), 'no parameter of this node; did you mean score_threshold?'),
    (dict(low_score=0.5), 'did you mean tracker.low_score?'),
    (dict(batch_wait=5.0), 'batch_wait is 5.0, but there is one camera only'),
    (dict(use_sim_time=1), 'use_sim_time'), (dict(device=1), 'device'),
    (dict(model='other.onnx'), ''), (dict(backend='tensorrt'), ''), (dict(transport='raw'), ''),
])
def test_an_invalid_value_is_refused_with_all_that_came_with_it(peer, values, words):
    reason = peer.set_parameters(max_detections=1, **values)
    assert reason and words in reason
    assert peer.get_parameter('max_detections').integer_value == 300
    peer.set_parameters(tracking=False)
    assert _classes(peer.detect()) == ['crate', 'cone', 'barrel']


def test_an_integer_is_good_for_a_number(peer):
    assert peer.set_parameters(score_threshold=1, min_box_size=0) == ''
    assert peer.get_parameter('score_threshold').double_value == 1.0
    assert _classes(peer.detect()) == []


def test_parameters_set_one_by_one_are_judged_one_by_one(peer):
    values = (('classes', 5), ('score_threshold', 0.5), ('roi', None), ('nothing', 1))
    refused = peer.set_each(*(
        Parameter(name, value=value).to_parameter_msg() for name, value in values))
    assert [bool(reason) for reason in refused] == [True, False, True, True]
    peer.set_parameters(tracking=False)
    assert _classes(peer.detect()) == ['crate', 'cone']


def test_a_request_that_rclpy_cannot_read_does_not_end_the_node(running, peer):
    process, _ = running
    foreign = ParameterMessage(name='roi', value=ParameterValue(type=77))
    with pytest.raises(AssertionError, match='does not answer'):
        peer.call(SetParameters, 'set_parameters',
                  SetParameters.Request(parameters=[foreign]), seconds=2)
    process.wait_for_output('a callback failed, the node goes on: ValueError')
    assert len(peer.detect().detections) == 3


def test_descriptors_tell_type_range_and_meaning(peer):
    threshold, tracker, roi, model = peer.describe(
        'score_threshold', 'tracker.confirm_hits', 'roi', 'model')
    assert 'score' in threshold.description
    assert threshold.floating_point_range[0].to_value == 1.0
    assert tracker.integer_range[0].from_value == 1
    assert 'polygon' in roi.description and roi.dynamic_typing
    # Setting it changes nothing, though rclpy takes an empty list for one of another type.
    for value in ([], [0.1, 0.1, 0.9, 0.1, 0.9, 0.9], []):
        assert peer.describe('roi')[0].type == ParameterType.PARAMETER_DOUBLE_ARRAY
        assert not peer.set_parameters(roi=value)
    assert model.read_only and 'clean up' in model.description


def test_a_clock_that_jumps_back_starts_new_tracks(peer):
    def crate_id(start):
        for index in range(4):
            result = peer.detect(stamp=start + index / 30)
        return result.detections[0].id
    first = crate_id(5000.0)
    assert first and crate_id(5000.2) == first
    assert crate_id(4990.0) != first


@pytest.mark.parametrize('mode', ['off', 'auto', 'flow', 'topic'])
def test_camera_motion_modes(peer, mode):
    assert peer.set_parameters(camera_motion=mode) == ''
    picture = np.random.default_rng(0).integers(0, 256, (384, 640, 3), np.uint8)
    for index in range(4):
        result = peer.detect(np.roll(picture, 3 * index, axis=1), stamp=7000 + index / 30)
    assert result.detections[0].id.isdigit()


def test_appearance_can_be_switched_on(peer):
    assert peer.set_parameters(appearance=True) == ''
    picture = np.random.default_rng(0).integers(0, 256, (384, 640, 3), np.uint8)
    for index in range(4):
        result = peer.detect(picture, stamp=7500 + index / 30)
    assert result.detections[0].id.isdigit()


@pytest.mark.parametrize('late', [False, True])
def test_a_camera_motion_topic_keeps_ids_through_a_fast_pan(peer, late):
    """The boxes stand still in the image while the camera is said to move: new objects."""
    assert peer.set_parameters(camera_motion='topic', camera_motion_wait=1.0) == ''
    publisher = peer.node.create_publisher(PolygonStamped, 'camera_motion', 10)
    peer.spin_until(publisher.get_subscription_count)

    def last_id(start, shift):
        for index in range(8):
            header = Header()
            set_stamp(header, start + index / 32)
            warp = np.array([[1, 0, shift if index == 4 else 0], [0, 1, 0]], float)
            motion = polygon_of_warp(header, warp, 640, 384)
            if late:  # as of an odometry that looks at the image first
                threading.Timer(0.1, publisher.publish, [motion]).start()
            else:
                publisher.publish(motion)
                time.sleep(0.02)
            result = peer.detect(stamp=start + index / 32)
            if index == 3:
                before = result.detections[0].id
        return before, result.detections[0].id
    start = 8200.0 if late else 8000.0
    before, after = last_id(start, 0.0)
    assert before and before == after
    before, after = last_id(start + 100.0, 400.0)
    assert before and before != after
    peer.node.destroy_publisher(publisher)


def test_a_camera_motion_message_of_two_points_is_called_so(running, peer):
    assert peer.set_parameters(camera_motion='topic') == ''
    publisher = peer.node.create_publisher(PolygonStamped, 'camera_motion', 10)
    peer.spin_until(publisher.get_subscription_count)
    message = polygon_of_warp(Header(), np.eye(2, 3), 640, 384)
    message.polygon.points.pop()
    publisher.publish(message)
    running[0].wait_for_output(
        'a message of /camera_motion has 2 points instead of three and is ignored')
    peer.node.destroy_publisher(publisher)


def _gray(**fields):
    return dict(image=np.zeros((48, 64, 3), np.uint8), **fields)


@pytest.mark.parametrize('cause,fields', [
    ('data', dict(height=47)), ('data', dict(data=[])), ('data', dict(height=49)),
    ('step', dict(step=10)), ('step', dict(step=0)), ('empty', dict(width=0)),
    ('empty', dict(height=0, data=[])), ('encoding', dict(encoding='fantasy8')),
    ('encoding', dict(encoding='')), ('size', dict(width=2**32 - 1, height=2**32 - 1)),
    ('size', dict(encoding='nv12', height=47)), ('frame_id', dict(frame_id='x' * 1025))])
def test_a_damaged_image_is_counted_and_harms_nothing(running, peer, cause, fields):
    process, _ = running
    before = peer.status()[1].get(f'dropped_{cause}', '0')
    peer.results.clear()
    peer.send(**_gray(**fields))
    _, values = peer.status(
        lambda values: int(values.get(f'dropped_{cause}', '0')) == int(before) + 1)
    assert peer.results == []
    assert len(peer.detect().detections) == 3
    assert process.output.count('dropped an image') <= 8, 'reported once per cause'


def test_an_impossible_stamp_is_counted_and_the_image_used(peer):
    before = int(peer.status()[1]['odd_stamps'])
    message = peer.send(stamp=0)
    message.header.stamp.nanosec = 2**32 - 1
    peer.results.clear()
    peer.image_publisher.publish(message)
    peer.spin_until(lambda: any(r.header == message.header for r in peer.results))
    assert int(peer.status()[1]['odd_stamps']) >= before + 1


@pytest.mark.parametrize('encoding,channels', [('rgb8', 3), ('bgra8', 4), ('mono8', 1)])
def test_encodings_with_padded_rows(peer, encoding, channels):
    data = np.zeros((48, 64 * channels + 7), np.uint8)
    message = peer.send(stamp=time.time(), height=48, width=64, step=data.shape[1],
                        encoding=encoding, data=data.tobytes())
    peer.spin_until(lambda: any(r.header == message.header for r in peer.results))


def test_class_names_are_latched_for_late_subscribers(peer):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL,
                         reliability=ReliabilityPolicy.RELIABLE)
    found = []
    subscriptions = [
        peer.node.create_subscription(LabelInfo, 'label_info', found.append, latched),
        peer.node.create_subscription(VisionInfo, 'vision_info', found.append, latched)]
    peer.spin_until(lambda: len(found) == 2)
    labels = next(item for item in found if isinstance(item, LabelInfo))
    info = next(item for item in found if isinstance(item, VisionInfo))
    assert [item.class_name for item in labels.class_map] == ['crate', 'barrel', 'cone']
    assert labels.threshold == pytest.approx(0.25)
    assert 'model.onnx' in info.method and info.database_location == 'label_info'
    peer.set_parameters(score_threshold=0.5)
    peer.detect()
    peer.spin_until(lambda: found[-1].threshold == pytest.approx(0.5))
    for subscription in subscriptions:
        peer.node.destroy_subscription(subscription)


def test_debug_image_is_drawn_only_while_wanted(peer):
    pictures = []
    subscription = peer.node.create_subscription(Image, 'debug_image', pictures.append, 1)
    peer.spin_until(lambda: peer.node.count_publishers('debug_image'))
    peer.spin_until(lambda: (peer.detect(), pictures)[1])
    picture = pictures[-1]
    assert (picture.width, picture.height, picture.encoding) == (640, 384, 'bgr8')
    pixels = np.frombuffer(picture.data, np.uint8).reshape(384, 640, 3)
    assert pixels[132, 300].any(), 'the upper edge of the crate is drawn'
    assert picture.header.frame_id == 'camera'
    peer.set_parameters(debug_image=False)
    peer.detect()
    pictures.clear()
    peer.detect()
    peer.executor.spin_once(timeout_sec=0.2)
    assert pictures == []
    peer.node.destroy_subscription(subscription)


def test_diagnostics_tell_rates_ages_stages_and_identity(peer):
    for _ in range(10):
        peer.detect()
    status, values = peer.status(lambda values: float(values['rate_in_hz']) > 0)
    assert status.level == b'\0' and status.message == 'detecting'
    assert 'ONNX Runtime' in status.hardware_id
    for key in ('letterbox_ms_p50', 'network_ms_p50', 'decode_nms_ms_p50', 'track_ms_p50',
                'pipeline_ms_p50', 'overhead_ms_p50', 'age_ms_p50', 'age_ms_p99', 'rate_out_hz'):
        assert float(values[key]) >= 0, key
    assert values['model'] == 'model.onnx' and values['input_size'] == '320x192'
    for stage in ('queued', 'take', 'network', 'message', 'publish', 'overhead', 'pipeline'):
        assert 0 <= float(values[f'{stage}_ms_p50']) <= float(values[f'{stage}_ms_p99']), stage
    assert float(values['overhead_ms_p50']) > float(values['message_ms_p50'])
    pytest.importorskip('psutil')
    _, machine = peer.status(about='machine')
    assert int(machine['rss_bytes']) < int(machine['memory_total_bytes'])


def test_silence_is_a_warning(peer):
    status, _ = peer.status()
    peer.spin_until(lambda: 'no image for' in peer.status()[0].message, 6)
    status, _ = peer.status()
    assert status.level == b'\1'


def test_three_hundred_frames_at_30_hz_arrive_and_leave(peer):
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    before = int(peer.status()[1]['received'])
    peer.results.clear()
    start = time.monotonic()
    for index in range(300):
        while time.monotonic() < start + index / 30:
            peer.executor.spin_once(timeout_sec=max(start + index / 30 - time.monotonic(), 0))
        peer.send(image)
    peer.spin_until(lambda: int(peer.status()[1]['received']) >= before + 300, 10)
    _, values = peer.status()
    assert int(values['received']) - before == 300, 'lost in transport'
    processed = len({(r.header.stamp.sec, r.header.stamp.nanosec) for r in peer.results})
    dropped = int(values.get('dropped_superseded', 0))
    assert processed + dropped >= 300 and processed >= 250


def test_a_flood_is_answered_with_the_newest_and_never_queued(peer):
    image = np.zeros((720, 1280, 3), np.uint8)
    before = peer.status()[1]
    peer.results.clear()
    sent = [peer.send(image, stamp=9000 + index * 0.01) for index in range(60)]
    peer.spin_until(lambda: any(r.header == sent[-1].header for r in peer.results))
    stamps = [r.header.stamp.sec + r.header.stamp.nanosec * 1e-9 for r in peer.results]
    assert stamps == sorted(stamps)
    assert int(peer.status()[1]['processed']) - int(before['processed']) <= 60


def test_compressed_images(model, tmp_path):
    process = NodeProcess(_MODULE, tmp_path / 'log', {
        'model': str(model), 'autostart': True, 'transport': 'compressed'},
        {'image_raw': '/front/image'})
    peer = Peer()
    publisher = peer.node.create_publisher(CompressedImage, '/front/image/compressed', 5)
    try:
        peer.spin_until(publisher.get_subscription_count)
        time.sleep(0.5)  # for the other side to learn of it, too
        for suffix in ('.jpg', '.png'):
            data = cv2.imencode(suffix, np.zeros((384, 640, 3), np.uint8))[1].tobytes()
            message = CompressedImage(format=suffix[1:], data=data)
            set_stamp(message.header, time.time())
            publisher.publish(message)
            peer.spin_until(lambda: any(r.header == message.header for r in peer.results))
            assert len(peer.results[-1].detections) == 3
        for count, data in enumerate((b'', b'\xff\xd8\xff\xe0 no picture', message.data[:99])):
            publisher.publish(CompressedImage(format='jpeg', data=data))
            peer.status(lambda values: values.get('dropped_decode') == str(count + 1))
    finally:
        peer.close()
        assert process.stop(signal.SIGTERM) == 0, process.output


def test_incompatible_qos_is_explained_and_can_be_overridden(model, tmp_path):
    process = NodeProcess(_MODULE, tmp_path / 'log', {
        'model': str(model), 'autostart': True,
        'qos_overrides./strict/image.subscription.reliability': 'reliable'},
        {'image_raw': '/strict/image'})
    peer = Peer(image_topic='/strict/image')
    try:
        process.wait_for_output('incompatible QoS')
        line = next(text for text in process.output.splitlines() if 'incompatible' in text)
        assert 'detector requests RELIABLE' in line and 'offers BEST_EFFORT' in line
        reliable = peer.node.create_publisher(Image, '/strict/image', 5)
        peer.wait_for_subscriber(reliable)
        assert len(peer.detect(publisher=reliable).detections) == 3
    finally:
        peer.close()
        assert process.stop() == 0
