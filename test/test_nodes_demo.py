"""The demo and the benchmark of the node: the whole chain as a user starts it."""

import json
import os
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from models import write_model
from ros_peers import DOMAIN, NodeProcess, Peer, ROOT


def _started(*arguments):
    environment = dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT))
    return subprocess.Popen(
        [sys.executable, '-m', 'yolojet_ros', *map(str, arguments)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ended(process, seconds=120):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _yolojet(*arguments):
    return _ended(_started(*arguments))


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """Return (finished process, folder) of a demo run in a folder with an awkward name."""
    out = tmp_path_factory.mktemp('demo') / "a friend's \"résults\""
    return _yolojet('demo', '--seconds', 4, '--out', out), out


def test_the_demo_sees_and_follows_objects_and_loses_no_image(demo):
    process, out = demo
    assert process.returncode == 0, process.stdout + process.stderr
    summary = json.loads((out / 'summary.json').read_text())
    frames = summary['frames']
    # How many the camera renders in 4 s is the machine's affair: 120, or 32 on a busy one.
    assert frames['published'] > 20 and frames['lost_in_transport'] == 0
    assert frames['processed'] == frames['results_received']
    assert frames['processed'] + frames['dropped'].get('superseded', 0) == frames['received']
    assert summary['detections'] > frames['processed'], 'more than one object a frame'
    assert 5 <= summary['distinct_ids'] < 60
    assert summary['backend'] == 'onnxruntime' and summary['model'] == 'yolojet_demo.onnx'
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p99']
    assert {'letterbox', 'network', 'decode_nms', 'track'} <= set(summary['stages_ms_p50'])


def test_the_type_is_that_of_every_ros_installation(demo):
    summary = json.loads((demo[1] / 'summary.json').read_text())
    assert summary['type_hash'] == (
        'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968')


def test_picture_and_video_show_the_whole_image(demo):
    picture = cv2.imread(str(demo[1] / 'annotated.png'))
    assert picture.shape == (720, 1280, 3)
    video = cv2.VideoCapture(str(demo[1] / 'annotated.mp4'))
    frames = json.loads((demo[1] / 'summary.json').read_text())['frames']
    assert abs(video.get(cv2.CAP_PROP_FRAME_COUNT) - frames['processed']) <= 3
    assert video.read()[1].shape == (540, 960, 3)


def test_a_segment_model_shows_its_masks(tmp_path):
    process = _yolojet('demo', '--task', 'segment', '--seconds', 3, '--out', tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['model'] == 'yolojet_demo_segment.onnx' and summary['distinct_ids']
    assert summary['stages_ms_p50']['instance_mask'] > 0
    assert summary['frames']['processed'] == summary['frames']['results_received']


def test_the_demo_says_what_it_found(demo):
    for word in ('lost in transport', 'distinct ids', 'latency', 'yolojet_demo.onnx 320x192'):
        assert word in demo[0].stdout
    assert not list(demo[1].glob('.*')), 'no temporary files stay'


@pytest.mark.parametrize('arguments,words', [
    (['--model', 'missing.onnx'], 'no model file'), (['--seconds', '0'], 'give more than 0'),
    (['--source', 'missing.mp4'], 'missing.mp4'), (['--model', 'README.md'], '.onnx or .engine')])
def test_wrong_input_is_one_sentence(tmp_path, arguments, words):
    process = _yolojet('demo', '--seconds', 1, '--out', tmp_path, *arguments)
    assert process.returncode == 2, process.stdout + process.stderr
    message = process.stderr.strip().splitlines()[-1]
    assert message.startswith('yolojet: ') and words in message


def test_a_classifier_is_refused_because_it_detects_nothing(tmp_path):
    model = write_model(tmp_path / 'classify.onnx', np.array([[0.2, 0.7, 0.1]]),
                        metadata={'task': 'classify'})
    process = _yolojet('demo', '--seconds', 1, '--out', tmp_path, '--model', model)
    assert process.returncode == 2, process.stdout + process.stderr
    assert 'the model is a classifier' in process.stderr.strip().splitlines()[-1]


def test_a_scene_without_known_objects_fails_the_demo(tmp_path):
    film = cv2.VideoWriter(
        str(tmp_path / 'gray.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 30, (320, 192))
    for _ in range(30):
        film.write(cv2.UMat(192, 320, cv2.CV_8UC3, (114, 114, 114)).get())
    film.release()
    process = _yolojet('demo', '--seconds', 1, '--out', tmp_path,
                       '--source', tmp_path / 'gray.avi')
    assert process.returncode == 1, process.stdout + process.stderr
    assert 'no detections with ids' in process.stdout


def test_two_demos_do_not_share_a_folder(tmp_path):
    first = _started('demo', '--seconds', 2, '--out', tmp_path)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / 'detector.log').exists():
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.05)
        second = _yolojet('demo', '--seconds', 1, '--out', tmp_path)
        assert second.returncode == 2 and 'another run writes to' in second.stderr
    finally:
        first = _ended(first)
    assert first.returncode == 0, first.stdout + first.stderr
    assert 1 < json.loads((tmp_path / 'summary.json').read_text())['frames']['published']


@pytest.mark.parametrize('source', ['annotated.png', 'annotated.mp4', '.'])
def test_a_demo_does_not_replace_what_it_films(tmp_path, source):
    picture = np.zeros((48, 64, 3), np.uint8)
    for name in ('annotated.png', 'annotated.mp4'):
        (tmp_path / name).write_bytes(cv2.imencode('.png', picture)[1].tobytes())
    process = _yolojet('demo', '--seconds', 1, '--out', tmp_path, '--source', tmp_path / source)
    assert process.returncode == 2 and 'is the input itself' in process.stderr
    assert {path.name for path in tmp_path.iterdir()} == {'annotated.png', 'annotated.mp4'}


def test_the_node_benchmark_prints_figures_beside_goals():
    process = _yolojet('bench', '--node', '--seconds', 2)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count('lost in transport 0') == 2
    for line in ('10.0 detections a frame', '50.0 detections a frame', "node's own overhead",
                 'in the queue and', 'to unpack the image;', '% of one core'):
        assert line in process.stdout


def test_the_observer_ends_when_the_camera_has_gone_without_a_last_word(tmp_path):
    monitor = NodeProcess('yolojet_ros.nodes.monitor_node', tmp_path / 'log', {
        'out': str(tmp_path), 'draw': False})
    peer = Peer('monitor')
    try:
        diagnostics = peer.node.create_publisher(DiagnosticArray, '/diagnostics', 5)
        # The peer itself listens, too.
        peer.spin_until(lambda: diagnostics.get_subscription_count() > 1, 30, 'no monitor')
        message = DiagnosticArray(status=[DiagnosticStatus(
            name='/camera: camera', values=[KeyValue(key='published', value='7'),
                                            KeyValue(key='finished', value='False')])])
        for _ in range(10):
            diagnostics.publish(message)
            time.sleep(0.1)
        assert monitor.alive()
        peer.node.destroy_publisher(peer.image_publisher)
        peer.spin_until(lambda: not monitor.alive(), 15, 'the monitor goes on')
    finally:
        peer.close()
        assert monitor.stop() == 0, monitor.output
    assert json.loads((tmp_path / 'summary.json').read_text())['frames']['published'] == 7
