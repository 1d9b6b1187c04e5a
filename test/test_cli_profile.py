"""`yolojet profile` as a user runs it: with the node over DDS, and where there is no ROS."""

import argparse
from html.parser import HTMLParser
import json
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from yolojet_ros.cli.main import main
from yolojet_ros.cli.profile_backends import agreement, measure as measure_backends
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.report.format import FORMAT
from yolojet_ros.operate.samplers.machine import Machine
from yolojet_ros.operate.samplers.recorder import Recorder

pytest.importorskip('onnxruntime')
ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / 'engines' / 'demo' / 'yolojet_demo.onnx'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Return (folder, report, what was printed) of one run with all parts."""
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    from ros_peers import environment
    folder = tmp_path_factory.mktemp('profile')
    done = subprocess.run(
        [sys.executable, '-m', 'yolojet_ros', 'profile', '--seconds', '2', '--size', '640x384',
         '--rate', '20', '--control-rate', '50', '--backends', 'onnxruntime,tensorrt',
         '--out', str(folder)], cwd=ROOT, timeout=120, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / 'profile.json').read_text()), done.stdout


def test_a_run_has_every_part_with_figures_that_fit_together(run):
    _, report, _ = run
    assert report['format'] == FORMAT and report['failed'] == []
    assert report['model']['file'] == 'yolojet_demo.onnx'
    assert report['model']['input_size'] == [320, 192]
    pipeline, node = report['pipeline'], report['node']
    assert {'letterbox', 'network', 'decode_nms', 'track'} <= set(pipeline['stages_ms'])
    assert {'queued', 'take', 'letterbox', 'network', 'decode_nms', 'track', 'message',
            'publish'} <= set(node['stages_ms'])
    for part in (pipeline, node):
        assert 0 < part['latency_ms']['p50'] <= part['latency_ms']['p99']
        for stage, times in part['stages_ms'].items():
            assert 0 <= times['p50'] <= times['p99'], stage
    # Medians of parts need not add up to the median of all; on a busy machine least of all.
    added = sum(times['p50'] for times in pipeline['stages_ms'].values())
    assert added == pytest.approx(pipeline['latency_ms']['p50'], rel=0.25)
    assert pipeline['images_per_second'] == pytest.approx(pipeline['images'] / 2, rel=0.3)
    way = sum(node['stages_ms'][stage]['p50']
              for stage in ('queued', 'take', 'pipeline', 'overhead'))
    transport = node['transport_ms']
    assert 0 <= transport['image'] and 0 < transport['result'] < node['latency_ms']['p50']
    assert way + transport['image'] + transport['result'] == pytest.approx(
        node['latency_ms']['p50'], rel=0.35)
    steps = node['stages_ms']
    assert steps['message']['p50'] + steps['publish']['p50'] <= steps['overhead']['p50'] * 1.5
    assert 0 < node['results'] <= node['sent'] + 1 <= 42


def test_a_run_tells_of_control_layers_and_backends(run):
    _, report, printed = run
    control = report['control']
    assert (control['period_ms'], control['of']) == (20.0, 'node')
    assert control['share']['p50'] == pytest.approx(
        report['node']['latency_ms']['p50'] / 20, abs=1e-3)
    layers = report['layers']
    assert len(layers['ms']) > 100
    assert layers['total_ms'] == pytest.approx(sum(layers['ms'].values()), rel=0.01)
    first, second = report['backends']
    assert first['backend'] == 'onnxruntime' and first['latency_ms']['p50'] > 0
    assert 'agreement' not in first and second['backend'] == 'tensorrt'
    for words in ('decode and NMS', 'control loop of 50 Hz', 'layers of yolojet_demo.onnx',
                  'transport: ', 'not measured:'):
        assert words in printed, words


def test_the_machine_is_sampled_all_along(run):
    pytest.importorskip('psutil')
    _, report, _ = run
    samples = report['samples']
    assert [name for name, _, _ in samples['phases']] == [
        'idle', 'pipeline', 'node', 'onnxruntime']
    assert len(samples['seconds']) == len(samples['rss_bytes']) > 10
    assert samples['seconds'] == sorted(samples['seconds'])
    pipeline, node = report['pipeline']['use'], report['node']['use']
    assert pipeline['process_cpu_percent']['mean'] > report['idle'].get(
        'process_cpu_percent', {'mean': 0})['mean']
    assert node['process_cpu_percent']['max'] > 5, 'the process of the node is watched'
    assert node['rss_bytes']['max'] > 50 * 2**20


class _Links(HTMLParser):
    """What a page asks for elsewhere, and its headings and pictures."""

    def __init__(self):
        super().__init__()
        self.elsewhere, self.pictures, self.scripts = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == 'script'
        for name, value in attributes:
            if name in ('src', 'href', 'srcset', 'data', 'action'):
                (self.pictures if value.startswith('data:image/svg+xml;base64,')
                 else self.elsewhere).append(value)


def test_the_page_needs_nothing_else(run):
    folder, report, _ = run
    text = (folder / 'profile.html').read_text()
    links = _Links()
    links.feed(text)
    assert links.elsewhere == [] and links.scripts == 0
    assert 'url(' not in text and '@import' not in text
    assert report['model']['description'] in text
    if _installed('matplotlib'):
        assert len(links.pictures) >= 4
    else:
        assert 'matplotlib is not installed' in text


def test_a_run_is_compared_with_itself(run, capsys):
    path = str(run[0] / 'profile.json')
    assert main(['profile', '--compare', path, path]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith('node latency_ms p50')]
    assert rows and rows[0][-1] == '1.00'
    assert 'not measured alike' not in said


def _installed(name):
    from importlib.util import find_spec
    return find_spec(name) is not None


# ---- without ROS, and parts of it

def test_without_the_node_the_rest_is_reported(tmp_path, capsys):
    path = tmp_path / 'deep' / 'report.json'
    assert main(['profile', '--seconds', '0.3', '--size', '320x192', '--no-node',
                 '--task', 'segment', '--json', str(path)]) == 0
    report = json.loads(path.read_text())
    assert 'node' not in report and 'not wanted' in report['skipped']['node']
    assert report['model']['task'] == 'segment' and report['pipeline']['images'] > 0
    assert '(--no-node)' in capsys.readouterr().out


@pytest.mark.parametrize('words, said', [
    (['--seconds', '0'], '--seconds is 0'), (['--rate', '0'], 'whole number from 1'),
    (['--size', '99999x1'], 'width and height'), (['--backends', 'tensorflow'], 'tensorflow'),
    (['--model', '/nowhere.onnx'], 'no model file'), (['--compare', 'a.json', 'b.json'], 'a.json'),
    (['--out', '/dev/null/x'], 'cannot write'), (['--json', '/dev/null'], 'is no file')])
def test_what_makes_no_sense_is_refused_before_anything_runs(capsys, words, said):
    try:
        code = main(['profile', *words])
    except SystemExit as error:
        code = error.code
    output = capsys.readouterr()
    assert code == 2 and said in output.err.strip().splitlines()[-1], output.err
    assert 'at rest' not in output.err


def test_the_model_is_not_overwritten(tmp_path, capsys):
    model = tmp_path / 'profile.json'
    model.write_bytes(b'a model')
    assert main(['profile', '--model', str(model), '--out', str(tmp_path)]) == 2
    assert 'would be lost' in capsys.readouterr().err and model.read_bytes() == b'a model'


def test_pytorch_sees_what_onnx_runtime_sees():
    torch = pytest.importorskip('torch')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait by asking, where others work as well
    arguments = argparse.Namespace(
        backends=('onnxruntime', 'torch'), size=(320, 192), seconds=0.01, device=0)
    try:
        with Recorder(Machine([])) as recorder:
            first, second = measure_backends(DEMO, arguments, recorder, images=2)
    finally:
        torch.set_num_threads(threads)
    same = second['agreement']
    assert second['description'].startswith('PyTorch') and same['with'] == 'onnxruntime'
    assert first['detections'] == same['expected'] == same['found'] == same['matched'] > 5
    assert same['iou_least'] > 0.999 and same['score_difference'] < 1e-3


def test_another_network_is_not_taken_for_the_model(tmp_path):
    pytest.importorskip('torch')
    from models import raw_output, write_model
    from yolojet_ros.model.torch_backend import TorchBackend
    model = write_model(tmp_path / 'other.onnx', raw_output(
        [[48, 32, 20, 20]], [[0.9, 0, 0]], (96, 64)), (96, 64))
    with pytest.raises(UserError, match='other.onnx is no'):
        TorchBackend(model)


def _seen(boxes, scores, classes):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                      np.array(classes, np.int32))


def test_agreement_counts_what_is_the_same():
    truth = _seen([[0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]], [0.9, 0.8, 0.7], [0, 1, 0])
    other = _seen([[0, 0, 10, 8], [20, 20, 40, 40], [60, 60, 70, 70]], [0.85, 0.8, 0.7], [0, 2, 0])
    found = agreement([truth, truth, _seen([], [], [])], [other, truth, truth])
    assert found == {'expected': 6, 'found': 9, 'matched': 5, 'iou_mean': pytest.approx(0.96),
                     'iou_least': pytest.approx(0.8), 'score_difference': pytest.approx(0.05)}
    twice = _seen([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 0])
    assert agreement([twice], [_seen([[0, 0, 10, 10]], [0.9], [0])])['matched'] == 1
    assert agreement([_seen([], [], [])], [truth])['iou_mean'] is None
