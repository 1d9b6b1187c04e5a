"""Records: which events there are, what a bag holds, and that the folder stays bounded."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import yaml

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.records.events import Event, EventFinder
from yolojet_ros.operate.records.params import CAUSES, RecordParams
from yolojet_ros.operate.records.ring import Entry, Ring

_ROOT = Path(__file__).resolve().parent.parent
_SIZE = (640, 480)
_LIMITS = np.full(3, 0.25, np.float32)
_STEP = 1 / 30
_PLACE = (100, 100, 200, 200)


def _seen(*objects):
    """Return the detections of one image: (id, score, box, class) each."""
    full = [(*item, *((0.9, _PLACE, 0)[len(item) - 1:])) for item in objects]
    return Detections(
        np.array([box for _, _, box, _ in full], np.float32).reshape(-1, 4),
        np.array([score for _, score, _, _ in full], np.float32),
        np.array([kind for _, _, _, kind in full], np.int32),
        np.array([track for track, _, _, _ in full], np.int64))


def _events(images, causes=CAUSES, band=0.1, step=_STEP):
    """Return (index of the image, event) of images, each a list of objects."""
    finder = EventFinder(causes, band)
    return [(index, event) for index, image in enumerate(images)
            for event in finder.look(10 + index * step, _seen(*image), _LIMITS, _SIZE)]


def test_a_known_track_that_gets_unsure_is_told_once():
    sure, unsure = [(1, 0.9)], [(1, 0.3)]
    [(index, event)] = _events([sure] * 6 + [unsure] * 5)
    assert (index, event.cause, event.track) == (6, 'low_score', 1)
    assert dict(event.values) == {'score': '0.3000'} and '0.300, below 0.350' in event.text
    assert [index for index, _ in _events([sure] * 6 + [unsure] * 2 + [sure] + [unsure])] == [6, 9]
    assert [index for index, _ in _events([unsure] * 9)] == [4], 'from the fifth image on'
    assert _events([sure] * 6 + [unsure] * 5, band=0.04) == []
    assert _events([sure] * 6 + [unsure] * 5, ('id_switch', 'error')) == []
    assert _events([[(-1, 0.3)]] * 20) == [], 'one without an id is no track'


def test_an_object_that_is_lost_within_the_image_is_told_after_half_a_second():
    [(index, event)] = _events([[(1,)]] * 6 + [[]] * 60)
    assert index == 5 + 15 and event.cause == 'low_score' and 'was lost' in event.text
    assert _events([[(1,)]] * 4 + [[]] * 60) == [], 'seen too short'
    assert _events([[(1,)]] * 6 + [[]] * 12 + [[(1,)]] * 6) == [], 'it came back'
    at_the_edge = (1, 0.9, (20, 100, 100, 200))
    assert _events([[at_the_edge]] * 6 + [[]] * 60) == [], 'it may have left'
    assert _events([[(1,)]] * 6 + [[]] * 6, step=0.6) == [], 'no images came'


def test_a_track_that_begins_where_another_ended_is_a_switch():
    moved = (120, 110, 220, 210)
    [(index, event)] = _events([[(1,)]] * 6 + [[]] * 3 + [[(2, 0.9, moved)]] * 60)
    assert (index, event.cause, event.track) == (9, 'id_switch', 2)
    assert dict(event.values) == {'former_track': '1'}
    for other in ([(2, 0.9, (400, 300, 500, 400))], [(2, 0.9, _PLACE, 1)], [(1,), (2,)]):
        found = _events([[(1,)]] * 6 + [other] * 3, ('id_switch',))
        assert found == [], other  # another place, another class, the first is still there
    late = _events([[(1,)]] * 6 + [[]] * 31 + [[(2,)]] * 9, ('id_switch',))
    assert late == []


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(
    st.integers(-1, 4), st.floats(0.25, 1, width=32),
    st.sampled_from([_PLACE, (120, 110, 220, 210), (0, 0, 30, 30), (5, 5, 5, 5)]),
    st.integers(0, 2)), max_size=5, unique_by=lambda item: item[0]), max_size=80),
    st.floats(0.01, 0.4))
def test_whatever_is_seen_events_are_few_and_of_what_was_seen(images, step):
    finder, known, ever = EventFinder(CAUSES, 0.1), 0, set()
    for index, image in enumerate(images):
        ever |= {item[0] for item in image}
        for event in finder.look(index * step, _seen(*image), _LIMITS, _SIZE):
            assert event.track in ever and event.track >= 0 and event.text.isprintable()
        known = max(known, len(finder._tracks))
    assert known <= 5


def _entry(at, size=100):
    return Entry(at, int(at * 1e9), int(at * 1e9) + 1, (int(at), 0), 'camera',
                 ('jpeg', bytes(size)), None)


def test_the_ring_holds_the_last_seconds_and_no_more_bytes_than_it_may():
    ring = Ring(2.0, most=5000)
    for index in range(100):
        ring.add(_entry(index * 0.5))
        assert ring.size == sum(entry.size for entry in ring) <= 5000
    assert [entry.at for entry in ring] == [47.5, 48.0, 48.5, 49.0, 49.5]
    ring.add(_entry(50.0, 4000))
    assert len(ring) < 5 and list(ring)[-1].at == 50.0
    ring.add(_entry(50.5, 6000))
    assert len(ring) == 0 and ring.size == 0


@pytest.mark.parametrize('value, causes', [
    ('off', ()), (False, ()), ([''], ()), ('error', ('error',)),
    (['error', 'low_score'], ('low_score', 'error'))])
def test_record_on_has_many_faces(value, causes):
    if causes:
        pytest.importorskip('rosbags')
    assert RecordParams(record_on=value).record_on == causes


@pytest.mark.parametrize('values, words', [
    (dict(record_on='on'), 'it must be off, or some of low_score, id_switch, error'),
    (dict(record_on=['off', 'error']), 'record_on holds "off"'), (dict(record_on=3), 'holds 3'),
    (dict(record_seconds=0.5), 'from 1.0 to 60.0'), (dict(record_limit_mb=0), 'from 1 to'),
    (dict(record_on='error', record_folder='~nobody_at_all/x'), 'no such home')])
def test_a_wrong_parameter_is_named(values, words):
    with pytest.raises(UserError, match=words):
        RecordParams(**values)


def test_without_rosbags_recording_is_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    monkeypatch.setitem(sys.modules, 'rosbags.rosbag2', None)
    with pytest.raises(UserError, match='pip install rosbags.*or set record_on to off'):
        RecordParams(record_on='error')
    assert RecordParams().record_on == ()


def test_the_folder_is_that_of_ros(monkeypatch, tmp_path):
    monkeypatch.setenv('ROS_HOME', str(tmp_path))
    assert RecordParams().folder() == tmp_path / 'yolojet_records'
    monkeypatch.setenv('ROS_HOME', '')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert RecordParams().folder() == tmp_path / '.ros' / 'yolojet_records'
    assert RecordParams(record_folder='~/here').folder() == tmp_path / 'here'


# ---- the recorder: real bags, read by rosbags

_TOPICS = ('/cam/image_raw/compressed', '/cam/detections', 'vision_msgs/msg/Detection2DArray',
           '/cam/record_event')


class _Feed:
    """A recorder and a camera whose time is made up."""

    def __init__(self, folder, **values):
        from yolojet_ros.operate.records.bag import Topics
        from yolojet_ros.operate.records.recorder import Camera, Recorder, Taken
        values = {'record_on': CAUSES, 'record_seconds': 1.0, 'record_pause': 0.0, **values}
        self.said, self.warned = [], []
        self.recorder = Recorder(
            RecordParams(record_folder=str(folder), **values), self.said.append,
            self.warned.append)
        self._taken = Taken
        self.cameras = {name: Camera(
            name, Topics(*(text.replace('cam', name) for text in _TOPICS)), _LIMITS,
            '/models/m.onnx')
            for name in ('front', 'rear')}
        self.now = int(time.monotonic()) + 1000.0  # no bag ends because time passes

    def send(self, *causes, camera='front', picture=b'\xff\xd8 a picture', after=0.125):
        """Send an image `after` the last one, with events."""
        self.now += after
        nanoseconds = int(self.now * 1e9)
        self.recorder.put(self._taken(
            self.cameras[camera], self.now, nanoseconds, nanoseconds + 1000,
            divmod(nanoseconds, 10**9), 'lens', (64, 48), lambda: ('jpeg', picture),
            _RESULT, _seen(), [Event(cause, f'{cause} came', 7) for cause in causes]))
        end = time.monotonic() + 10
        while self.recorder._items and time.monotonic() < end:
            time.sleep(0.001)

    def stop(self):
        self.recorder.stop()
        assert not self.recorder._thread.is_alive()


# An empty Detection2DArray with the stamp 1.000000002 and the frame lens.
_RESULT = (b'\x00\x01\x00\x00' + (1).to_bytes(4, 'little') + (2).to_bytes(4, 'little')
           + (5).to_bytes(4, 'little') + b'lens\0\0\0\0' + (0).to_bytes(4, 'little'))


def _bags(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith('.'))


def _read(bag):
    """Return [(topic, time, message)] of a bag, by the definitions in it."""
    from rosbags.highlevel import AnyReader
    with AnyReader([Path(bag)]) as reader:
        return [(topic.topic, at, reader.deserialize(data, topic.msgtype))
                for topic, at, data in reader.messages()]


@pytest.fixture
def feed(tmp_path):
    """Return a function that starts a recorder in tmp_path/records."""
    pytest.importorskip('rosbags')
    feeds = []

    def start(**values):
        feeds.append(_Feed(tmp_path / 'records', **values))
        return feeds[-1]
    yield start
    for item in feeds:
        item.stop()


def test_a_bag_holds_the_seconds_around_an_event_and_says_what_happened(feed, tmp_path):
    made = feed()
    for index in range(60):
        made.send(*['error'] * (index == 30), *['id_switch'] * (index == 34))
    made.stop()
    [name] = _bags(tmp_path / 'records')
    assert name.endswith('Z_front_error') and made.said == [
        f'recorded {tmp_path / "records" / name}'] and made.warned == []
    messages = _read(tmp_path / 'records' / name)
    images = [message for topic, _, message in messages if topic == '/front/image_raw/compressed']
    assert len(images) == 8 + 1 + 4 + 8  # a second before, the events, a second after
    assert images[0].format == 'jpeg' and images[0].data.tobytes() == b'\xff\xd8 a picture'
    assert images[0].header.frame_id == 'lens'
    stamps = [image.header.stamp.sec + image.header.stamp.nanosec * 1e-9 for image in images]
    assert np.allclose(np.diff(stamps), 0.125)
    results = [message for topic, _, message in messages if topic == '/front/detections']
    assert len(results) == 21 and results[0].header.stamp.nanosec == 2
    events = [message for topic, _, message in messages if topic == '/front/record_event']
    assert [event.name for event in events] == ['error', 'id_switch']
    assert events[0].message == 'error came' and events[0].hardware_id == '/models/m.onnx'
    assert {item.key: item.value for item in events[0].values} == {'camera': 'front', 'track': '7'}
    times = [at for _, at, _ in messages]
    assert times == sorted(times)


def test_the_metadata_is_what_rosbag2_of_humble_and_later_reads(feed, tmp_path):
    made = feed()
    made.send('error')
    made.stop()
    folder = tmp_path / 'records' / _bags(tmp_path / 'records')[0]
    assert sorted(path.name for path in folder.iterdir()) == [
        f'{folder.name}.db3', 'metadata.yaml']
    info = yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert info['version'] == 8 and info['storage_identifier'] == 'sqlite3'
    assert info['relative_file_paths'] == [f'{folder.name}.db3'] and info['message_count'] == 3
    assert info['compression_format'] == info['compression_mode'] == ''
    assert info['custom_data'] == {'camera': 'front', 'model': '/models/m.onnx'}
    for topic in info['topics_with_message_count']:
        # Humble reads the profiles as a text; a list, as since version 9, it refuses.
        assert isinstance(topic['topic_metadata']['offered_qos_profiles'], str)
        assert topic['topic_metadata']['serialization_format'] == 'cdr'
        assert topic['message_count'] == 1


def test_the_definitions_are_those_of_vision_msgs():
    pytest.importorskip('rosbags')
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    from yolojet_ros.operate.records.bag import _types
    from yolojet_ros.operate.records.definitions import DEFINITIONS
    theirs = get_typestore(Stores.ROS2_HUMBLE)
    for path in (_ROOT / 'interfaces' / 'vision_msgs' / 'msg').glob('*.msg'):
        theirs.register(get_types_from_msg(path.read_text(), f'vision_msgs/msg/{path.stem}'))
    for name in DEFINITIONS:
        assert _types().hash_rihs01(name) == theirs.hash_rihs01(name), name


def test_a_cause_that_lasts_does_not_write_for_ever(feed, tmp_path):
    made = feed(record_pause=10.0)
    for index in range(160):  # 20 s
        made.send('low_score')
    made.stop()
    bags = _bags(tmp_path / 'records')
    # 3 s and the second before it, then a pause of 10 s from its last event.
    assert len(bags) == 2
    counts = [sum(topic == '/front/record_event' for topic, _, _ in _read(
        tmp_path / 'records' / name)) for name in bags]
    assert counts[0] == 3 * 8 + 1
    values = made.recorder.values('front')
    assert int(values['record_events_passed_over']) == 160 - sum(counts)
    assert values['recording'] == 'low_score, id_switch, error' and values['records'] == '2'


def test_only_what_is_asked_for_is_recorded_and_each_camera_apart(feed, tmp_path):
    made = feed(record_on=('id_switch',))
    made.send('error', 'low_score')
    made.send('id_switch', camera='rear')
    made.send('id_switch')
    made.stop()
    assert [name.split('_', 1)[1] for name in _bags(tmp_path / 'records')] == [
        'rear_id_switch', 'front_id_switch']
    bag = tmp_path / 'records' / _bags(tmp_path / 'records')[0]
    topics = {topic for topic, _, _ in _read(bag)}
    assert topics == {'/rear/image_raw/compressed', '/rear/detections', '/rear/record_event'}


def test_the_folder_stays_below_its_limit_and_strangers_stay(feed, tmp_path):
    folder = tmp_path / 'records'
    folder.mkdir()
    (folder / 'my_notes').mkdir()
    (folder / 'my_notes' / 'big').write_bytes(bytes(3 << 20))
    made = feed(record_limit_mb=2)
    most, names = 0, []
    for index in range(20):
        made.send('error', picture=bytes(300_000), after=3.0)
        names += [name for name in _bags(folder) if name not in (*names, 'my_notes')]
        size = sum(path.stat().st_size for path in folder.rglob('*.db3*'))
        most = max(most, size)
    made.stop()
    left = [name for name in _bags(folder) if name != 'my_notes']
    assert 1.2e6 < most < 2.1e6 and 4 <= len(left) <= 6 and len(names) > 15
    assert left == sorted({*names, *left})[-len(left):], 'the oldest go first'
    assert (folder / 'my_notes' / 'big').stat().st_size == 3 << 20
    for name in left:
        assert len(_read(folder / name)) == 3


@pytest.mark.parametrize('event', [1, 19])
def test_a_bag_that_reaches_the_limit_alone_ends_there(feed, tmp_path, event):
    made = feed(record_limit_mb=1, record_seconds=10.0)
    for index in range(20):
        made.send(*['error'] * (index == event), picture=bytes(200_000))
    made.stop()
    [name] = _bags(tmp_path / 'records')
    files = (tmp_path / 'records' / name).iterdir()
    assert 0.9e6 < sum(path.stat().st_size for path in files) < 1.4e6


def test_a_thread_that_is_behind_skips_images_and_nobody_waits(feed, tmp_path):
    made = feed()

    def slow():
        time.sleep(0.2)
        return 'jpeg', b'x'
    begin = time.monotonic()
    for index in range(50):
        made.now += 0.01
        made.recorder.put(made._taken(
            made.cameras['front'], made.now, 1, 2, (index, 0), 'lens', (64, 48), slow,
            _RESULT, _seen(), [Event('error', 'x')] if index == 49 else []))
    assert time.monotonic() - begin < 0.15
    made.stop()
    skipped = int(made.recorder.values('front')['record_images_skipped'])
    [name] = _bags(tmp_path / 'records')
    kept = [message.header.stamp.sec for topic, _, message in _read(tmp_path / 'records' / name)
            if topic.endswith('compressed')]
    assert len(kept) + skipped == 50 and 2 <= len(kept) <= 4


_KILLED = '''
import itertools, sys
sys.path.insert(0, sys.argv[2])
from test_operate_records import _Feed
feed = _Feed(sys.argv[1], record_limit_mb=3)
for index in itertools.count():
    if index == 20:
        print('ready', flush=True)
    feed.send(*['error'] * (index % 4 == 0), picture=bytes(50_000), after=0.3)
'''


def test_killed_at_any_moment_it_leaves_whole_bags_and_the_next_start_clears_the_rest(tmp_path):
    pytest.importorskip('rosbags')
    from yolojet_ros.operate.records.store import BagStore
    folder, hidden = tmp_path / 'records', 0
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, '-c', _KILLED, str(folder), str(Path(__file__).parent)],
            stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(_ROOT)})
        try:
            assert process.stdout.readline() == b'ready\n'
            time.sleep(0.01 + 0.043 * attempt)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for name in _bags(folder):
            assert len(_read(folder / name)) >= 3, name
        hidden += any(path.name.startswith('.') for path in folder.iterdir())
    assert hidden, 'not once was a bag in work'
    BagStore(folder, 10**9)
    assert not [path for path in folder.iterdir() if path.name.startswith('.')]
    assert _bags(folder)


def test_a_bag_that_another_process_writes_is_left_alone(feed, tmp_path):
    from yolojet_ros.operate.records.store import BagStore
    made = feed()
    made.send('error')
    BagStore(tmp_path / 'records', 10**9)
    made.stop()
    assert len(_bags(tmp_path / 'records')) == 1 and made.warned == []


_FULL = '''
import sys
sys.path.insert(0, sys.argv[2])
from test_operate_records import _bags, _Feed
feed = _Feed(sys.argv[1])
for index in range(40):
    feed.send('error', picture=bytes(100_000), after=2.0)
feed.stop()
print(feed.warned, len(_bags(sys.argv[1])), feed.recorder.values('front')['recording'])
import os
print(os.listdir(sys.argv[1]), feed.recorder._thread.is_alive())
'''


def test_a_full_disk_stops_recording_with_one_warning_and_leaves_room(tmp_path):
    pytest.importorskip('rosbags')
    own_mounts = ('unshare', '--user', '--map-root-user', '--mount')
    script = 'mount -t tmpfs -o size=1m none "$1" || exit 99; exec "${@:2}"'
    result = subprocess.run(
        [*own_mounts, 'bash', '-c', script, 'bash', str(tmp_path), sys.executable, '-c', _FULL,
         str(tmp_path), str(Path(__file__).parent)], timeout=60,
        env={**os.environ, 'PYTHONPATH': str(_ROOT)}, capture_output=True, text=True)
    if result.returncode in (1, 99) and 'Traceback' not in result.stderr:
        pytest.skip('no namespaces of one\'s own here')
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.count('recording to') == 1 and 'disk is full' in first, first
    assert 'stopped: ' in first.rsplit(']', 1)[1]
    assert '.recording' not in second and second.endswith('False') and second.count('error') >= 4


def test_a_folder_that_cannot_be_made_is_one_warning(feed, tmp_path):
    (tmp_path / 'records').write_text('a file')
    made = feed()
    made.send('error')
    made.stop()
    assert len(made.warned) == 1 and str(tmp_path / 'records') in made.warned[0]
    assert made.recorder.values('front')['recording'].startswith('stopped: ')


def test_calibration_reads_a_record(feed, tmp_path):
    from yolojet_ros.model.calibration_images import _bag_images
    picture = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    made = feed()
    for causes in ((), ('error',)):
        made.send(*causes, picture=cv2.imencode('.png', picture)[1].tobytes())
    made.stop()
    bag = tmp_path / 'records' / _bags(tmp_path / 'records')[0]
    for image in _bag_images(bag, 2):
        assert np.array_equal(image, picture)
