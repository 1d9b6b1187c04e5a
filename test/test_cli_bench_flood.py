"""The benchmarks of floods and of cameras, on the machine that runs the tests."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import raw_output, write_model  # noqa: E402
from ros_peers import environment, ROOT  # noqa: E402
from yolojet_ros.core.filters import FilterParams  # noqa: E402
from yolojet_ros.core.image_formats import ImageView  # noqa: E402
from yolojet_ros.core.stage_times import StageTimes  # noqa: E402


def _bench(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'yolojet_ros', 'bench', *arguments], cwd=ROOT, timeout=120,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_rate_has_a_row_of_true_figures():
    done = _bench('--flood', '10,200', '--seconds', '2', '--size', '640x480', '--json',
                  '--set', 'tracking=false')
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report['width'], report['height'], report['model']) == (640, 480, 'yolojet_demo.onnx')
    calm, flood = report['rows']
    assert calm['asked'] == 10 and 18 <= calm['sent'] <= 20
    assert 0.8 * calm['sent'] <= calm['results'] <= calm['sent'] + 1
    assert flood['sent'] > flood['results'] > calm['results']
    for row in report['rows']:
        assert 0 < row['age_ms_p50'] <= row['latency_ms_p50'] <= row['latency_ms_p99']
        assert row['node_cpu_ms'] > row['sender_cpu_ms'] > 0
        assert row['all_sent'] >= row['sent'] + row['asked']  # a warm-up of 1.5 s
        assert row['all_sent'] >= row['all_received'] + row['all_lost_in_middleware'] > row['sent']
        assert row['all_received'] >= row['all_processed'] + row['all_dropped_superseded']
        assert row['all_processed'] > row['results'] > 0
        # Nearly all that was sent came out: the node could have done more.
        assert (row['percent_of_best'] is None) == (row['results'] >= 0.9 * row['sent'])
    assert 0 < flood['percent_of_best'] <= 100


def test_a_network_that_takes_no_time_leaves_what_the_node_needs():
    done = _bench('--flood', '150,5', '--seconds', '4', '--size', '320x240', '--json',
                  '--without-network')
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report['model'] == 'yolojet_demo_without_network.onnx'
    quick, slow = report['rows']
    stages = quick['stages_ms_p50']
    assert 0 < stages['take'] and 0 < stages['network'] < stages['pipeline'] / 2
    assert 'age' not in stages
    assert slow['results'] >= 16 and slow['stages_ms_p50'] is None, 'too few to be of this rate'


def test_every_kind_of_model_can_be_left_out_or_is_refused(tmp_path):
    from yolojet_ros.cli.idle_network import write_idle_network
    from yolojet_ros.core.errors import UserError
    from yolojet_ros.inference.load import load_backend
    for name, arguments in (
            ('value', {}), ('batch', {'batch': 2}), ('open', {'dynamic': True})):
        output = raw_output([[48, 32, 20, 20]], [[0.9, 0, 0]], (96, 64))
        model = write_model(tmp_path / f'{name}.onnx', np.repeat(
            output, arguments.get('batch', 1), 0), (96, 64), **arguments)
        graph = onnx.load(str(model))
        if name == 'value':  # names that the new nodes could have taken
            _rename(graph, {'output0': 'ReduceMax', 'images': 'Slice'})
            # As exporters wrote it before IR version 4.
            graph.graph.input.extend(onnx.helper.make_tensor_value_info(
                item.name, item.data_type, item.dims) for item in graph.graph.initializer)
            onnx.save(graph, str(model))
        size = (96, 64) if name == 'open' else None
        write_idle_network(model, tmp_path / 'idle.onnx', size)
        view = ImageView.from_bgr(np.full((50, 70, 3), 99, np.uint8))
        found = []
        for path in (model, tmp_path / 'idle.onnx'):
            backend = load_backend(path, input_size=size)
            found.append(backend.detect(
                view, FilterParams().resolve(backend.card.names), StageTimes()))
            backend.close()
        np.testing.assert_array_equal(found[0].boxes, found[1].boxes)
        assert len(found[1]) == 1
    with pytest.raises(UserError, match='give the .onnx file'):
        write_idle_network(tmp_path / 'x.engine', tmp_path / 'idle.onnx')


def _rename(model, names):
    for node in model.graph.node:
        for fields in (node.input, node.output):
            fields[:] = [names.get(name, name) for name in fields]
    for item in (*model.graph.input, *model.graph.output):
        item.name = names.get(item.name, item.name)


def test_cameras_of_one_node_are_compared_with_a_node_each():
    done = _bench('--cameras', '2', '--seconds', '3', '--size', '320x240', '--json')
    assert done.returncode == 0, done.stderr
    one, shared, apart = json.loads(done.stdout)['rows']
    assert [row['what'] for row in (one, shared, apart)] == [
        'one camera', '2 cameras, one node', '2 cameras, a node each']
    for row, cameras in ((one, 1), (shared, 2), (apart, 2)):
        assert row['sent_hz'] == pytest.approx(5 * cameras, abs=0.5)
        assert 0.6 * row['sent_hz'] <= row['results_hz'] <= row['sent_hz'] + 1
        assert row['least_hz'] <= row['results_hz'] / cameras + 0.01
        assert row['all_sent'] >= row['all_received'] >= 15 * cameras and row['cpu_percent'] > 0
    # A second small camera costs less than what the system takes back from one run to the next.
    assert max(one['memory_mb'], shared['memory_mb']) < apart['memory_mb']


def test_a_change_of_the_model_is_watched_from_outside():
    done = _bench('--update', '--seconds', '7', '--size', '320x240', '--rate', '10', '--json',
                  '--set', 'verification_frames=3')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)['rows']
    assert [row['what'] for row in found['rows']] == [
        'before', 'while it changes', 'on trial', 'as the trial ends']
    assert found['change_seconds'] > 0.3, 'three images of ten in a second'
    results = sum(row['results'] for row in found['rows'])
    assert 0.8 * found['all_sent'] - 15 <= results <= found['all_sent']
    assert found['missing'] == sum(row['missing'] for row in found['rows'])


@pytest.mark.parametrize('arguments, words', [
    (('--flood', '0'), 'give a whole number from 1'), (('--flood', '30,x'), '"x" was given'),
    (('--flood', '30', '--size', '12'), 'such as 1280x720'), (('--json',), 'or name its benchmark, too'),
    (('--node', '--rate', '10'), '--rate is an option of --cameras, --update, not of --node'),
    (('--scene', '--set', 'a=1'), '--set is an option of --flood, --cameras, --update, not of --scene'),
    (('--tracker', '--seconds', '2'), '--seconds is'), (('--messages', '--model', 'm'), 'not of'),
    (('--cpu', '--size', '64x64'), 'not of --cpu'), (('--seconds', '2'), 'which is not given'),
    (('--scene', '--without-network'), '--without-network is an option of --flood, --cameras'),
    (('--flood', '30', '--without-network', '--model', 'README.md'), 'not a complete ONNX model'),
    (('--transport', '--backend', 'auto'), '--backend is'), (('--flood', '30', '--rate', '5'), '--rate'),
    (('--flood', '30', '--set', 'x'), 'write NAME=VALUE'),
    (('--cameras', '0'), 'give a whole number from 1'),
    (('--flood', '30', '--backend', 'tensorrt'), '')])
def test_a_wrong_word_is_named(arguments, words):
    done = _bench(*arguments)
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr
