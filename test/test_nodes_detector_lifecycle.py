"""Transitions of the detector, bad models, simulated time, and how it ends."""

import signal
import time

import numpy as np
import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, wait_until
from rosgraph_msgs.msg import Clock
from yolojet_ros.core.head import anchor_count

_MODULE = 'yolojet_ros.nodes.detector_node'
_SIZE = (320, 192)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / 'model.onnx', raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]],
                                                           _SIZE))


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a detector and returns (process, peer)."""
    started = []

    def function(*ros_args, **parameters):
        process = NodeProcess(_MODULE, tmp_path / 'log', parameters, ros_args=ros_args)
        peer = Peer()
        started.append((process, peer))
        return process, peer
    yield function
    for process, peer in started:
        peer.close()
        assert process.stop() == 0, process.output


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """Return (process, peer) of a detector that tests share, unconfigured between them."""
    process = NodeProcess(_MODULE, tmp_path_factory.mktemp('shared') / 'log',
                          remaps={'__node': 'shared'})
    peer = Peer('shared')
    yield process, peer
    peer.close()
    assert process.stop() == 0, process.output


class _Configured:
    """The shared detector, as one test sees it."""

    def __init__(self, process, peer):
        self.process, self.peer = process, peer
        self._before = len(process.output)

    def __call__(self, model, **parameters):
        """Let it configure itself; return whether it could, and what it said."""
        assert self.peer.set_parameters(model=str(model), **parameters) == ''
        done = self.peer.change_state('configure')
        if not done:
            wait_until(lambda: 'cannot configure' in self.said(), 20, self.said)
        return done, self.said()

    def said(self):
        return self.process.output[self._before:]


@pytest.fixture
def configure(shared):
    """Return a function that configures the shared detector; in the end it is as before."""
    process, peer = shared
    assert peer.state() == 'unconfigured'
    peer.results.clear()
    yield _Configured(process, peer)
    for state, transition in (('active', 'deactivate'), ('inactive', 'cleanup')):
        assert peer.state() != state or peer.change_state(transition)
    assert peer.set_parameters(classes=[], pipeline_depth=1, device=0) == ''


def test_every_transition(start, model):
    process, peer = start(model=str(model))
    assert peer.state() == 'unconfigured'
    assert peer.change_state('configure') and peer.state() == 'inactive'
    assert peer.change_state('activate') and peer.state() == 'active'
    peer.wait_for_subscriber()
    assert len(peer.detect().detections) == 1
    assert peer.change_state('deactivate') and peer.state() == 'inactive'
    peer.results.clear()
    peer.send()
    peer.executor.spin_once(timeout_sec=0.3)
    assert peer.results == []
    assert peer.change_state('cleanup') and peer.state() == 'unconfigured'
    assert peer.change_state('configure')
    assert peer.change_state('inactive_shutdown') and peer.state() == 'finalized'
    assert process.alive()


def test_fixed_parameters_are_free_again_after_cleanup(start, model, tmp_path):
    process, peer = start(model=str(tmp_path / 'missing.onnx'))
    assert not peer.change_state('configure') and peer.state() == 'unconfigured'
    process.wait_for_output('no model file')
    peer.spin_until(lambda: 'missing.onnx' in peer.status()[0].message)
    assert peer.status()[0].level == b'\2'
    assert not peer.describe('model')[0].read_only
    assert peer.set_parameters(model=str(model)) == ''
    assert peer.change_state('configure')
    assert peer.describe('model')[0].read_only
    assert peer.set_parameters(model='other.onnx') == (
        'model is fixed now; first ros2 lifecycle set /detector deactivate, if it is active, and '
        'ros2 lifecycle set /detector cleanup')
    assert peer.set_parameters(autostart=True) == (
        'autostart is fixed now; start the node again with -p autostart:=VALUE')
    qos = 'qos_overrides./image_raw.subscription.depth'
    assert peer.set_parameters(**{qos: 3}) == (
        f'"{qos}" is read from the start only; start the node again with -p {qos}:=VALUE')
    assert peer.change_state('cleanup')
    assert not peer.describe('model')[0].read_only
    assert peer.set_parameters(backend='cpu') == (
        'backend is "cpu"; it must be one of auto, tensorrt, onnxruntime')


def test_a_second_detector_of_the_same_name_is_told(start, model, tmp_path):
    _, peer = start(model=str(model))
    second = NodeProcess(_MODULE, tmp_path / 'second', {'model': str(model)})
    try:
        words = '1 more node(s) called /detector, which publish on the same topics'
        second.wait_for_output(words)
        peer.spin_until(lambda: words in peer.status()[0].message)
        assert peer.status()[0].level == b'\1'
    finally:
        assert second.stop() == 0
    peer.spin_until(lambda: words not in peer.status()[0].message)


def test_without_a_model_the_demo_model_is_taken(configure):
    done, said = configure('')
    assert done and 'no model is set: taking the demo model' in said
    assert configure.peer.status()[1]['model'] == 'yolojet_demo.onnx'


@pytest.mark.parametrize('damage,words', [
    (lambda path: path.write_bytes(b'GIF89a'), 'is not an ONNX file'),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), 'is not an ONNX file'),
    (lambda path: write_model(path, np.zeros((1, 10), np.float32)),
     'gives output0 float32 [1, 10]; with the 3 classes that are named'),
    (lambda path: write_model(path, raw_output([], [], _SIZE), names=['a']),
     'gives output0 float32 [1, 7, 1260]; with the 1 classes that are named'),
])
def test_a_bad_model_fails_to_configure_and_a_good_one_then_works(
        configure, model, damage, words):
    good = model.read_bytes()
    damage(model)
    done, said = configure(model)
    assert not done
    line = next(text for text in said.splitlines() if 'cannot configure' in text)
    assert words in line
    model.write_bytes(good)
    peer = configure.peer
    assert peer.change_state('configure') and peer.change_state('activate')
    peer.wait_for_subscriber()
    assert len(peer.detect().detections) == 1


def test_unknown_classes_fail_to_configure(configure, model):
    done, said = configure(model, classes=['dog'])
    assert not done and 'classes names "dog"' in said


def test_a_network_that_fails_takes_the_node_to_inactive_with_the_cause(start, tmp_path):
    output = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
    model = write_model(tmp_path / 'fragile.onnx', output, fragile=True)
    process, peer = start(model=str(model), autostart=True)
    peer.wait_for_subscriber()
    assert len(peer.detect().detections) == 1
    peer.send(np.full((384, 640, 3), 255, np.uint8))
    peer.spin_until(lambda: 'ONNX Runtime failed' in peer.status()[0].message)
    assert peer.status()[0].level == b'\2'
    assert peer.state() == 'inactive' and process.alive()
    assert not peer.change_state('activate')
    for transition in ('cleanup', 'configure', 'activate'):
        assert peer.change_state(transition)
    peer.wait_for_subscriber()
    assert len(peer.detect().detections) == 1
    assert peer.status()[0].level != b'\2'


def test_rows_that_are_no_detection_are_dropped_counted_and_said_once(start, tmp_path):
    output = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
    model = write_model(tmp_path / 'poisoned.onnx', output, poisoned=True)
    process, peer = start(model=str(model), autostart=True)
    peer.wait_for_subscriber()
    assert len(peer.detect().detections) == 1
    assert peer.status()[1]['broken_rows'] == '0'
    for _ in range(2):
        assert not peer.detect(np.full((384, 640, 3), 255, np.uint8)).detections
    status, _ = peer.status(lambda values: values['broken_rows'] == str(2 * anchor_count(_SIZE)))
    assert status.level == b'\1' and 'no detection can be' in status.message
    assert len(peer.detect().detections) == 1
    assert process.output.count('no detection can be') == 1


@pytest.mark.parametrize('options,words', [
    ({'metadata': {'imgsz': '[31, 33]'}, 'dynamic': True}, 'takes images of 33x31'),
    ({'metadata': {'imgsz': '[100000, 100000]'}, 'dynamic': True}, 'at most 16 Mi pixels')])
def test_a_model_that_cannot_run_fails_to_configure(configure, tmp_path, options, words):
    output = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
    done, said = configure(write_model(tmp_path / 'm.onnx', output, **options))
    assert not done and words in said


def test_class_logits_fail_to_configure(configure, tmp_path):
    logits = raw_output([[160, 96, 80, 60]], [[4.5, -3, -7]], _SIZE)
    done, said = configure(write_model(tmp_path / 'logits.onnx', logits))
    assert not done and 'class scores from -7 to 4.5' in said
    assert configure.peer.state() == 'unconfigured' and configure.process.alive()


def test_an_unknown_qos_is_named_and_shown_in_diagnostics(start, model):
    name = 'qos_overrides./image_raw.subscription.reliability'
    process, peer = start(model=str(model), autostart=True, **{name: 'realible'})
    process.wait_for_output('cannot activate')
    sentence = f'cannot activate: {name} is "realible"; it must be one of auto, reliable,'
    assert sentence in process.output
    peer.spin_until(lambda: sentence in peer.status()[0].message)
    assert peer.status()[0].level == b'\2'
    assert peer.state() == 'inactive' and process.alive()
    assert not peer.change_state('activate')
    assert peer.change_state('cleanup')
    assert peer.status(lambda values: 'model' not in values)[0].level != b'\2'


@pytest.mark.parametrize('name,value', [('pipeline_depth', 2), ('device', 1)])
def test_what_onnx_runtime_would_ignore_is_refused(configure, model, name, value):
    done, said = configure(model, **{name: value})
    assert not done
    assert f'cannot configure: {name} is {value}, but model.onnx runs on ONNX Runtime' in said
    assert configure(model, **{name: value - 1})[0]


def _uncounted(values):
    """Return how many received images diagnostics know neither as processed nor as dropped."""
    dropped = sum(int(value) for key, value in values.items() if key.startswith('dropped_'))
    return int(values['received']) - int(values['processed']) - dropped


def test_deactivation_publishes_the_image_in_work_and_counts_the_rest(start, tmp_path):
    output = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
    model = write_model(tmp_path / 'slow.onnx', output, slow=90)
    _, peer = start(model=str(model), autostart=True)
    peer.wait_for_subscriber()
    _, before = peer.status(lambda values: _uncounted(values) == 0)
    peer.results.clear()
    sent = [peer.send(frame_id=str(index)) for index in range(3) if not time.sleep(0.05)]
    assert peer.change_state('deactivate')
    peer.spin_until(lambda: peer.results, 5, 'the image in work')
    _, after = peer.status(lambda values: int(values['received']) >= int(before['received']) + 3)
    assert _uncounted(after) == 0
    assert int(after['dropped_deactivated']) == 1, 'the one that waited'
    assert [result.header for result in peer.results] == [sent[0].header]


def test_images_that_a_failing_network_leaves_are_counted(start, tmp_path):
    output = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
    model = write_model(tmp_path / 'fragile.onnx', output, fragile=True)
    _, peer = start(model=str(model), autostart=True)
    peer.wait_for_subscriber()
    peer.send(np.full((384, 640, 3), 255, np.uint8))
    _, values = peer.status(lambda values: 'dropped_failed' in values)
    assert _uncounted(values) == 0


def test_debug_shows_transitions_qos_geometry_and_a_summary(start, model):
    process, peer = start('--log-level', 'detector:=debug', model=str(model), autostart=True)
    peer.wait_for_subscriber()
    peer.detect(np.zeros((48, 64, 3), np.uint8), frame_id='front')
    assert peer.set_parameters(score_threshold=0.5) == ''
    for words in (
            'configure begins, from unconfigured', 'configure ends in SUCCESS',
            'activate ends in SUCCESS', 'subscribes /image_raw: ',
            'images are 64x48 "bgr8", step 192, frame_id "front"',
            'score_threshold is set to 0.5', 'in the last second: rate_in_hz'):
        process.wait_for_output(words)


def test_names_in_messages_forge_no_lines_of_the_log(start, model):
    process, peer = start(model=str(model), autostart=True)
    peer.wait_for_subscriber()
    peer.send(encoding='x\n[ERROR] [1.0] [forged]: all is lost\n\x1b[31m' + 100000 * 'y')
    process.wait_for_output('dropped an image')
    lines = process.output.splitlines()
    assert not [line for line in lines if line.startswith('[ERROR]') or '\x1b' in line]
    assert max(map(len, lines)) < 1000


def test_fifty_rounds_leave_no_memory_and_no_thread(start, model):
    process, peer = start(model=str(model))

    def rounds(count):
        for _ in range(count):
            for transition in ('configure', 'activate', 'deactivate', 'cleanup'):
                assert peer.change_state(transition)
        return process.memory(), process.threads()
    peer.status()  # what reads the machine is imported with the first one
    memory, threads = rounds(10)  # libraries and pools fill up first
    after, threads_after = rounds(50)
    assert threads_after == threads
    assert after - memory < 3, f'{memory:.1f} -> {after:.1f} MiB'


def test_simulated_time_is_the_clock_of_ages(start, model):
    process, peer = start(model=str(model), autostart=True, use_sim_time=True)
    clock = peer.node.create_publisher(Clock, '/clock', 1)
    peer.wait_for_subscriber()
    peer.spin_until(lambda: clock.get_subscription_count())

    now = Clock()
    now.clock.sec, now.clock.nanosec = 100, 500_000_000
    for _ in range(5):
        clock.publish(now)
        time.sleep(0.05)
        peer.detect(stamp=100.25)
    _, values = peer.status(lambda values: 'age_ms_p99' in values)
    assert float(values['age_ms_p50']) == pytest.approx(250, abs=1)


def test_a_simulated_clock_that_tells_no_time_is_named_until_it_does(start, model):
    _, peer = start(model=str(model), autostart=True, use_sim_time=True)
    now = Clock()
    now.clock.sec = 5

    def wait_for(words, clock=None, stamp=None):
        def found():
            if clock:
                clock.publish(now)
            peer.send(stamp=stamp)
            return [status for status in peer.statuses
                    if status.name.startswith('/detector: ') and words in status.message]
        peer.statuses.clear()
        peer.spin_until(found, 15, words)

    peer.wait_for_subscriber()
    wait_for('use_sim_time is set, but /clock has no publisher')
    clock = peer.node.create_publisher(Clock, '/clock', 1)
    wait_for('use_sim_time is set, but /clock sends nothing', stamp=5)
    wait_for('detecting', clock, stamp=5)
    assert float(peer.status()[1]['age_ms_p50']) == 0, 'ages from before are none'
    wait_for('images are stamped with system time', clock)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_in_the_middle_of_work(model, tmp_path, number):
    process = NodeProcess(_MODULE, tmp_path / 'log', {'model': str(model), 'autostart': True})
    peer = Peer()
    try:
        peer.wait_for_subscriber()
        peer.detect()
        for _ in range(20):
            peer.send(np.zeros((720, 1280, 3), np.uint8))
        assert process.stop(number) == 0, process.output
        assert 'Traceback' not in process.output
    finally:
        peer.close()
