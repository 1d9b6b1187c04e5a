"""A running detector is brought to other versions of its model, and back, losing no image."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from models import raw_output, write_model, write_task_model
from ros_peers import NodeProcess, Peer, ROOT, set_stamp, wait_until
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from yolojet_ros.operate.model_store import ModelStore
from yolojet_ros.operate.model_store.adding import add_bundle, working
from yolojet_ros.operate.model_store.signing import make_bundle
from yolojet_ros.ros.images import fill_image

_SIZE = (320, 192)
_LARGE = (640, 384)
_BLACK, _WHITE = (np.full((192, 320, 3), value, np.uint8) for value in (0, 255))
_ONE = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE)
_TWO = raw_output([[60, 40, 40, 40], [260, 150, 50, 50]], [[0, 0.9, 0], [0, 0, 0.9]], _SIZE)
_NONE = raw_output([], [], _SIZE)


class Store:
    """A model store with a version for every fate."""

    def __init__(self, folder):
        self.folder = folder / 'store'
        self.store = ModelStore.create(self.folder)
        for version, output, more in (
                ('one', _ONE, {}), ('two', _TWO, {}), ('fragile', _TWO, {'fragile': True}),
                ('poisoned', _TWO, {'poisoned': True}), ('slow', _TWO, {'slow': 3}),
                ('lazy', _TWO, {'slow_on_white': 4}), ('blind', _NONE, {}),
                ('hanging', _TWO, {'hanging': True}),
                ('renamed', _TWO, {'names': ('a', 'b', 'c')})):
            self._add(write_model(folder / f'{version}.onnx', output, _SIZE, **more))
        self._add(write_model(folder / 'large.onnx', raw_output([], [], _LARGE), _LARGE))
        self._add(write_task_model(folder / 'segment.onnx', 'segment', [[160, 96, 80, 60]],
                                   [[0.95, 0, 0]], [[1, 1]]))
        self.activate('one')
        self.store.confirm('one')

    def _add(self, model):
        bundle = make_bundle(model, model.stem, None, model.with_suffix('.tar'))
        with working(self.store):
            add_bundle(self.store, bundle, print, allow_unsigned=True, allow_downgrade=True)

    def activate(self, version):
        """Make a version active that no node has run yet."""
        self.store.activate(version, allow_downgrade=True)

    @property
    def state(self):
        return self.store.states.read()


class Camera(threading.Thread):
    """Sends an image every 40 ms until it is told to stop, and knows the stamps."""

    def __init__(self, peer):
        super().__init__(daemon=True)
        self.publisher = peer.node.create_publisher(Image, 'image_raw', 500)
        self._stopped = threading.Event()
        self.image, self.sent = _BLACK, []

    def run(self):
        message = Image()
        while not self._stopped.wait(0.04):
            fill_image(message, self.image, 'bgr8')
            set_stamp(message.header, time.time())
            self.publisher.publish(message)
            self.sent.append(_stamp(message))

    def stop(self):
        self._stopped.set()
        self.join()


def _stamp(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp('store'))


@pytest.fixture(scope='module')
def running(store, tmp_path_factory):
    process = NodeProcess(
        'yolojet_ros.nodes.detector_node', tmp_path_factory.mktemp('log') / 'log',
        {'model_store': str(store.folder), 'autostart': True, 'verification_frames': 12,
         'trial_seconds': 1.0, 'input_size': '320x192',
         'qos_overrides./image_raw.subscription.depth': 500,
         'qos_overrides./image_raw.subscription.reliability': 'reliable'})
    peer = Peer(image_topic='unused')
    camera = Camera(peer)
    try:
        peer.wait_for_subscriber(camera.publisher)
        camera.start()
        yield process, peer, camera
        camera.stop()
    finally:
        peer.close()
        assert process.stop() == 0, process.output


@pytest.fixture
def peer(running, store):
    """Return the peer of a node that runs version one, which has proved itself."""
    process, peer, camera = running
    camera.image = _BLACK
    peer.status(lambda values: 'model_update' not in values, 20)
    store.activate('one')
    store.store.confirm('one')
    answer = _ask(peer)
    assert answer.success, answer.message
    if 'already' not in answer.message:
        peer.status(lambda values: 'model_update' not in values, 20)
    peer.results.clear()
    return peer


def _ask(peer):
    return peer.call(Trigger, 'load_model', Trigger.Request(), 60)


def _update(peer, store, version):
    """Return whether it runs, and what was said."""
    store.activate(version)
    answer = _ask(peer)
    return answer.success, answer.message


def _classes(peer):
    count = len(peer.results)
    peer.spin_until(lambda: len(peer.results) > count, 5)
    return [item.results[0].hypothesis.class_id for item in peer.results[-1].detections]


def test_another_version_takes_over_without_a_lost_image(running, peer, store):
    process, _, camera = running
    assert _update(peer, store, 'two') == (True, 'version two runs now, on trial for 1 s')
    status, values = peer.status(lambda values: values['model_version'] == 'two')
    assert 'on trial' in values['model_update']
    assert 'version' not in status.message
    peer.spin_until(lambda: store.state.confirmed, 10)
    _assert_no_image_is_missing(peer, camera)
    counts = [len(result.detections) for result in peer.results]
    assert counts == sorted(counts) and set(counts) == {1, 2}, 'one change, and none back'
    assert _ask(peer).message == 'version two runs already'
    assert 'version two has run well and is kept' in process.output


def _assert_no_image_is_missing(peer, camera):
    last = camera.sent[-1]
    peer.spin_until(lambda: _stamp(peer.results[-1]) >= last, 10)
    stamps = [_stamp(result) for result in peer.results]
    assert stamps == [stamp for stamp in camera.sent if stamps[0] <= stamp <= stamps[-1]]


@pytest.mark.parametrize('version,reason', [
    ('slow', 'an image takes'),
    ('blind', 'it sees nothing on 12 live images, on which the model that runs sees 12 objects'),
    ('segment', 'it is a model to segment and has other topics than the one that runs'),
    ('large', 'large.onnx takes images of 640x384 only'),
])
def test_what_fails_its_verification_never_runs(running, peer, store, version, reason):
    runs, text = _update(peer, store, version)
    assert not runs and f'version {version} is refused: ' in text and reason in text
    assert text.endswith('; the store has version one active again')
    assert store.state.active == 'one' and reason in store.state.failed[version]
    _classes(peer)
    assert {len(result.detections) for result in peer.results} == {1}
    status, values = peer.status(lambda values: values['model_version'] == 'one')
    assert status.level == b'\1' and reason in status.message


@pytest.mark.parametrize('version,reason', [
    ('fragile', 'BackendError: '), ('poisoned', 'it gives rows that no detection can be')])
def test_what_fails_in_its_first_minute_gives_way_without_a_lost_image(
        running, peer, store, version, reason):
    process, _, camera = running
    assert _update(peer, store, version)[0]
    _classes(peer)
    camera.image = _WHITE
    status, values = peer.status(lambda values: values['model_version'] == 'one', 20)
    assert status.level == b'\1' and reason in status.message
    assert f'went back from version {version}' in status.message
    assert store.state.active == 'one'
    _assert_no_image_is_missing(peer, camera)
    assert _classes(peer) == ['crate']
    assert 'clean up and configure' not in process.output


def test_what_is_slow_in_its_first_minute_is_compared_and_gives_way(running, peer, store):
    _, _, camera = running
    assert peer.set_parameters(trial_seconds=20.0) == ''
    try:
        assert _update(peer, store, 'lazy')[0]
        camera.image = _WHITE
        status, _ = peer.status(lambda values: (
            values['model_version'] == 'one' and 'model_update' not in values), 20)
        assert 'went back from version lazy: an image takes' in status.message
        assert store.state.active == 'one'
    finally:
        assert peer.set_parameters(trial_seconds=1.0) == ''


def test_tracks_stay_while_the_classes_do(peer, store):
    peer.spin_until(lambda: peer.results and peer.results[-1].detections[0].id)
    before = peer.results[-1].detections[0].id
    assert before and _update(peer, store, 'renamed')[0]
    assert _classes(peer) == ['b', 'c']


def test_a_filter_must_fit_the_version_that_may_be_gone_back_to(peer, store):
    assert peer.set_parameters(trial_seconds=60.0) == ''
    try:
        assert _update(peer, store, 'renamed')[0]
        assert 'classes names "b", which this model does not know; its classes are crate' in (
            peer.set_parameters(classes=['b']))
        assert peer.set_parameters(score_threshold=0.3) == ''
    finally:
        assert peer.set_parameters(trial_seconds=1.0, score_threshold=0.25) == ''
        store.activate('one')
        store.store.confirm('one')
        assert _ask(peer).success


def test_a_filter_of_a_class_that_the_new_version_has_not_is_told(peer, store):
    assert peer.set_parameters(classes=['crate']) == ''
    try:
        runs, text = _update(peer, store, 'renamed')
        assert not runs and 'classes names "crate", which this model does not know' in text
    finally:
        assert peer.set_parameters(classes=[]) == ''


def test_the_store_may_decide_otherwise_while_a_version_is_on_trial(running, peer, store):
    process, _, camera = running
    assert peer.set_parameters(trial_seconds=60.0) == ''
    try:
        assert _update(peer, store, 'two')[0]
        store.store.rollback('it sees ghosts')
        answer = _ask(peer)
        assert answer.success and 'version one runs now' in answer.message
        assert _classes(peer) == ['crate']
        assert store.state.active == 'one' and 'ghosts' in store.state.failed['two']
        assert _update(peer, store, 'renamed')[0], 'while that one is on trial, too'
        _assert_no_image_is_missing(peer, camera)
    finally:
        assert peer.set_parameters(trial_seconds=1.0) == ''
        store.activate('one')
        store.store.confirm('one')
        assert _ask(peer).success


def test_setting_the_store_acts_as_the_service_or_is_refused(running, peer, store, tmp_path):
    process, _, _ = running
    store.activate('two')
    assert 'is no model store' in peer.set_parameters(model_store=str(tmp_path))
    assert 'clean up the node' in peer.set_parameters(model_store='')
    said = process.output.count('version two runs now')
    assert peer.set_parameters(model_store=str(store.folder)) == ''
    wait_until(lambda: process.output.count('version two runs now') > said)


@pytest.fixture
def starting(store, tmp_path):
    """Return a function that starts a node of its own on an active version."""
    started = []

    def start(version, tries=0):
        store.activate('one')
        store.store.confirm('one')
        store.activate(version)
        for _ in range(tries):
            store.store.start_trial()
        started.append(NodeProcess(
            'yolojet_ros.nodes.detector_node', tmp_path / 'log',
            {'model_store': str(store.folder), 'autostart': True, 'trial_seconds': 60.0,
             'input_size': '320x192'},
            {'image_raw': 'image_own', 'detections': 'detections_own', '__node': 'other'}))
        return started[-1]
    yield start
    for process in started:
        assert process.stop() == 0, process.output


def test_a_version_that_cannot_be_loaded_at_the_start_gives_way(starting, store):
    process = starting('large')
    process.wait_for_output('active: waiting')
    assert 'went back from version large to one: it cannot be loaded' in process.output
    assert 'loaded one.onnx' in process.output
    assert store.state.active == 'one'


def test_a_version_whose_process_ended_three_times_is_gone_back_from_aloud(starting, store):
    process = starting('blind', tries=3)  # which no other node has on trial
    process.wait_for_output('active: waiting')
    assert 'went back from version blind to one: ' in process.output
    assert 'loaded one.onnx (version one)' in process.output


def test_a_version_that_fails_after_the_start_gives_way(starting, store):
    process = starting('fragile')
    process.wait_for_output('active: waiting')
    peer = Peer('other', 'image_own')
    try:
        peer.spin_until(lambda: peer.image_publisher.get_subscription_count(), 10)
        for _ in range(20):  # the two sides of a connection learn of each other at their time
            if 'went back from version fragile: BackendError' in process.output:
                break
            peer.send(_WHITE)
            time.sleep(0.2)
        _, values = peer.status(lambda values: values.get('model_version') == 'one', 20)
        assert store.state.active == 'one' and process.output.count('active: waiting') == 2
    finally:
        peer.close()


def test_the_only_version_that_fails_stops_the_node_once(tmp_path):
    folder = tmp_path / 'store'
    store = ModelStore.create(folder)
    model = write_model(tmp_path / 'fragile.onnx', _TWO, _SIZE, fragile=True)
    with working(store):
        add_bundle(store, make_bundle(model, '1', None, tmp_path / '1.tar'), print,
                   allow_unsigned=True)
    store.activate('1')
    process = NodeProcess('yolojet_ros.nodes.detector_node', tmp_path / 'log',
                          {'model_store': str(folder), 'autostart': True},
                          {'image_raw': 'image_only', '__node': 'only'})
    peer = Peer('only', 'image_only')
    try:
        peer.spin_until(lambda: peer.image_publisher.get_subscription_count(), 10)

        def stopped():
            peer.send(_WHITE)
            return 'the store does not go back' in process.output
        peer.spin_until(stopped, 20)
        status, _ = peer.status(lambda values: True)
        assert status.level == b'\2' and 'BackendError' in status.message
        assert process.output.count('active: waiting') == 1 and store.states.read().tries == 1
    finally:
        peer.close()
        assert process.stop() == 0, process.output


def test_a_version_that_hangs_while_it_is_verified_is_given_up(store, tmp_path):
    store.activate('one')
    store.store.confirm('one')
    process = NodeProcess(
        'broken_detector', tmp_path / 'log',
        {'model_store': str(store.folder), 'autostart': True, 'input_size': '320x192'},
        {'image_raw': 'image_hang', 'detections': 'detections_hang', '__node': 'impatient'},
        env={'BROKEN': 'impatient',
             'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'test')])})
    peer = Peer('impatient', 'image_hang')
    try:
        peer.spin_until(lambda: peer.image_publisher.get_subscription_count(), 20)
        store.activate('hanging')
        client = peer.node.create_client(Trigger, '/impatient/load_model')
        peer.spin_until(client.service_is_ready, 20)
        future = client.call_async(Trigger.Request())

        def answered():
            peer.send(_WHITE)
            return future.done()
        peer.spin_until(answered, 20)
        text = future.result().message
        assert 'version hanging is refused: it has given no result for 1 s while verifying' in text
        assert store.state.active == 'one' and 'no result' in store.state.failed['hanging']
        status, values = peer.status(lambda values: values['model_version'] == 'one')
        assert 'version hanging is refused' in status.message and 'model_update' not in values
    finally:
        peer.close()
        process.stop(signal.SIGKILL)  # it computes for ever
