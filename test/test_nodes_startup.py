"""How nodes start: whatever the parameters are, they run or end with one sentence."""

import json
import os
from pathlib import Path
import random
import re
import subprocess
import sys

import pytest
import yaml

from ros_peers import DOMAIN, ROOT

_NODES = {
    'detector_node': {
        'model': 'm.onnx', 'backend': 'auto', 'device': 0, 'transport': 'raw',
        'pipeline_depth': 1, 'autostart': True, 'score_threshold': 0.5,
        'class_thresholds': ['a:1'], 'classes': ['a'], 'agnostic_nms': True,
        'max_detections': 5, 'roi': [0.0, 0.0], 'camera_motion': 'auto',
        'camera_motion_wait': 0.1, 'tracker.low_score': 0.1, 'tracker.confirm_hits': 2,
        'use_sim_time': False, 'qos_overrides./image_raw.subscription.depth': 5},
    'camera_node': {
        'source': 'synthetic', 'rate': 5.0, 'width': 320, 'height': 192, 'seed': 1, 'objects': 3,
        'frame_id': 'c', 'loop': True, 'encoding': 'bgr8', 'reliability': 'reliable',
        'duration': 1.0, 'wait_for_subscribers': 1, 'reopen': 'lost', 'use_sim_time': False},
    'engine_builder_node': {
        'onnx': 'm.onnx', 'profile': 'desktop', 'out': 'o.engine', 'precision': 'fp16',
        'workspace': 64, 'batch': 1, 'calib': '', 'num_calib': 5, 'timing_cache': '', 'dla': -1,
        'optimization_level': 1, 'nms': 'none', 'verify_images': 'scene', 'device': 0},
    'monitor_node': {'out': 'm', 'seconds': 1.0, 'draw': False},
    'echo_node': {'out': 'e.json', 'qos_overrides./image_raw.subscription.reliability': 'reliable',
                  'qos_overrides./image_raw.subscription.history': 'keep_last'},
}


def _run(tmp_path, cases):
    """Run [node, arguments] pairs; return [exit code, output] of each."""
    cases = [[f'yolojet_ros.nodes.{node}', ['--ros-args', *arguments]]
             for node, arguments in cases]
    environment = dict(
        os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT), ROS_LOG_DIR=str(tmp_path),
        RCUTILS_LOGGING_BUFFERED_STREAM='0')
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('fork_nodes.py'))], cwd=tmp_path,
        input=json.dumps(cases), stdout=subprocess.PIPE, env=environment, text=True, timeout=550)
    assert done.returncode == 0
    return json.loads(done.stdout)


def _is_one_sentence(node, code, output):
    lines = [line for line in output.splitlines() if not line.startswith('[WARN]')]
    return code == 2 and len(lines) == 1 and lines[0].startswith(f'{node}: ')


_BAD_FILE = 'detector:\n  ros__parameters:\n    roi: [\n'
_EMPTY_VALUE = 'detector:\n  ros__parameters:\n    roi:\n'
_REFUSED = [
    ('detector_node', ['--log-level', 'loud'], "'--log-level loud'"),
    ('detector_node', ['--log-level', 'loud'], 'debug, info, warn, error or fatal'),
    ('detector_node', ['--params-file', 'missing.yaml'], 'missing.yaml'),
    ('detector_node', ['--params-file', 'bad.yaml'], 'bad.yaml'),
    ('detector_node', ['--params-file', 'empty.yaml'], 'line 3'),
    ('detector_node', ['-p', 'score_threshold:=1.5'],
     'score_threshold is 1.5; set a number from 0.0 to 1.0'),
    ('detector_node', ['-p', 'score_threshold:=.nan'], 'set a number from 0.0 to 1.0'),
    ('detector_node', ['-p', 'pipeline_depth:=3'],
     'pipeline_depth is 3; set an integer from 1 to 2'),
    ('detector_node', ['-p', 'pipeline_depth:=1.0'], 'set an integer from 1 to 2'),
    ('detector_node', ['-p', 'tracking:=1'], 'tracking is 1; set true or false'),
    ('detector_node', ['-p', 'model:=8'], 'model is 8; set a text, in quotes'),
    ('detector_node', ['-p', 'backend:=gpu'], 'must be one of auto, tensorrt, onnxruntime'),
    ('detector_node', ['-p', 'classes:=5'], 'classes holds 5'),
    ('detector_node', ['-p', 'roi:=0.5'], 'roi has 1 numbers'),
    ('detector_node', ['-p', 'use_sim_time:=3'], 'use_sim_time'),
    ('detector_node', ['-r', '__node:=a-b'], '__node:=a-b'),
    ('detector_node', ['--no-such'], '--no-such'),
    *(('detector_node', ['-p', f'cameras:={names}'], words) for names, words in (
        (['front', 'front'], 'cameras names "front" twice'), (['1st'], 'cameras names "1st"'),
        (['a/b'], 'cameras names "a/b"'), (['a__b'], 'single underscores'),
        (['tracker'], 'cameras names "tracker", which is a param'),
        (['model'], 'which is a parameter'), ([f'c{i}' for i in range(65)], 'at most 64'))),
    ('camera_node', ['-p', 'rate:=fast'], 'rate is "fast"; set a number from 0.0 to 1000.0'),
    ('camera_node', ['-p', 'encoding:=jpeg'], 'must be one of bgr8'),
    ('camera_node', ['-p', 'source:=/missing'], "source '/missing' is neither"),
    ('engine_builder_node', ['-p', 'workspace:=much'], 'workspace is "much"; set an integer'),
    ('monitor_node', ['-p', 'seconds:=long'], 'seconds is "long"; set a number'),
    ('echo_node', ['-p', 'qos_overrides./image_raw.subscription.reliability:=realible'],
     'qos_overrides./image_raw.subscription.reliability is "realible"; it must be one of '
     'auto, reliable, best_effort'),
    ('echo_node', ['-p', 'qos_overrides./image_raw.subscription.depth:=0'],
     'subscription.depth is 0; set an integer from 1'),
]


def test_wrong_input_is_one_sentence_with_exit_code_2(tmp_path):
    (tmp_path / 'bad.yaml').write_text(_BAD_FILE)
    (tmp_path / 'empty.yaml').write_text(_EMPTY_VALUE)
    found = _run(tmp_path, [(node, arguments) for node, arguments, _ in _REFUSED])
    for (node, arguments, words), (code, output) in zip(_REFUSED, found):
        assert _is_one_sentence(node, code, output), (arguments, code, output)
        assert words in output, arguments


def test_integers_are_good_for_numbers_and_unknown_names_are_named(tmp_path):
    (tmp_path / 'good.yaml').write_text(yaml.safe_dump({'detector': {'ros__parameters': {
        'score_threshold': 1, 'scroe_threshold': 0.3, 'low_score': 0.2, 'tracker': {'hits': 1},
        'qos_overrides': {'/image_rwa': {'subscription': {'depth': 3}}}}}}))
    (code, output), (camera_code, camera_output) = _run(tmp_path, [
        ('detector_node', ['--params-file', 'good.yaml']),
        ('camera_node', ['-p', 'rate:=10', '-p', 'framerate:=10'])])
    assert code == 0 and camera_code == 0, output + camera_output
    for words in (
            '"scroe_threshold" is no parameter of this node and has no effect; did you mean '
            'score_threshold?',
            '"low_score" is no parameter of this node and has no effect; did you mean '
            'tracker.low_score?',
            '"tracker.hits" is no parameter of this node', 'did you mean tracker.confirm_hits?',
            'did you mean qos_overrides./image_raw.subscription.depth?'):
        assert words in output
    assert '"framerate" is no parameter' in camera_output
    assert output.count('is no parameter') == 4 and camera_output.count('is no parameter') == 1


_HOSTILE = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63 - 1, -2**63, 10**30, 0.5, -0.5, 1.5, 1e308,
    float('nan'), float('inf'), '', ' ', 'a', 'true', '1', '1.5', 'off', 'a:b', 'a:nan', '\n',
    'a\nb', '\x1b[31m', 'é\u202e', 'x' * 5000, '/', '/dev/null/x', '../..', '%s%n', '{}',
    [], [''], ['a', 'b'], [1, 2], [0.1, 0.2, 0.3], [0.1] * 6, [1e308] * 6, [True], ['a:0.5'],
    [1, 'a'], [1, 0.5], [None], [[1]], {'a': 1}, {'a': {'b': []}}, ['x' * 3000] * 30]
_SETS = int(os.environ.get('YOLOJET_TEST_SETS', 24))  # of each node


def _mutated(generator, tmp_path, node, index):
    """Return arguments with one to three parameters changed, in a file or on the line."""
    good = _NODES[node]
    values = {name: good[name] for name in generator.sample(sorted(good), min(3, len(good)))}
    for name in generator.sample(sorted(values), generator.randint(1, len(values))):
        values[name] = generator.choice(_HOSTILE)
    if generator.random() < 0.2:
        values[generator.choice(['', 'a..b', '.', 'é', 'x' * 300, 'no_such'])] = 1
    if generator.random() < 0.5:
        path = tmp_path / f'{node}{index}.yaml'
        text = yaml.safe_dump({'/**': {'ros__parameters': values}})
        if generator.random() < 0.2:
            cut = generator.randrange(len(text))
            text = text[:cut] + generator.choice(['', '\t', '[', '}', '"', ': ', '&a *a', '\0'])
        path.write_text(text)
        return ['--params-file', path.name]
    return [part for name, value in values.items()
            for part in ('-p', f'{name}:={_inline(value)}'.replace('\0', ''))]


def _inline(value):
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return re.sub(r'\n\.\.\.$', '', text)


@pytest.mark.parametrize('node', sorted(_NODES))
def test_no_parameter_set_ends_in_a_traceback(tmp_path, node):
    generator = random.Random(f'start {node}')
    cases = [(node, _mutated(generator, tmp_path, node, index)) for index in range(_SETS)]
    found = _run(tmp_path, cases)
    refused = 0
    for (_, arguments), (code, output) in zip(cases, found):
        assert 'Traceback' not in output, (arguments, output)
        if _is_one_sentence(node, code, output):
            refused += 1
        else:  # it has started, or tried to build
            builds = node == 'engine_builder_node'
            assert code == 0 or builds and code in (2, 130), (arguments, code, output)
    assert refused > _SETS / 4


@pytest.mark.parametrize('shell, environment, words', [
    ('exec "$@"', {'ROS_DOMAIN_ID': '99999'}, 'ROS_DOMAIN_ID is "99999"; it must be 0 to 232'),
    ('mount -t tmpfs -o ro tmpfs /tmp && mount -t tmpfs -o ro tmpfs /var/tmp && cd /proc && '
     'exec "$@"', {
         'YOLOJET_TRANSPORT_PROFILE': 'udp', 'TMPDIR': '', 'FASTDDS_DEFAULT_PROFILES_FILE': '',
         'FASTRTPS_DEFAULT_PROFILES_FILE': ''}, 'set TMPDIR to one')])
def test_a_process_that_cannot_take_part_is_told_why(shell, environment, words):
    command = ['sh', '-c', shell, '-']
    if 'mount' in shell:
        command = ['unshare', '-m', *command]
        if subprocess.run([*command, 'true'], stderr=subprocess.DEVNULL).returncode:
            pytest.skip('a mount namespace is refused here')
    done = subprocess.run(
        [*command, sys.executable, '-m', 'yolojet_ros.nodes.echo_node'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN), 'PYTHONPATH': str(ROOT), **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count('\n') == 1 and words in done.stderr


@pytest.mark.parametrize('words', [
    ['scripts/camera_node'], ['scripts/detector_node'], ['scripts/build_engine'],
    ['-m', 'yolojet_ros', 'demo', '--out', 'OUT']])
def test_a_middleware_that_is_not_installed_is_named(tmp_path, words):
    words = [str(tmp_path) if word == 'OUT' else word for word in words]
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=dict(os.environ, RMW_IMPLEMENTATION='rmw_nope', PYTHONPATH=str(ROOT)), text=True,
        timeout=60)
    assert process.returncode == 2, process.stderr
    sentence, = process.stderr.splitlines()
    assert 'RMW_IMPLEMENTATION is "rmw_nope"' in sentence and 'choose rmw_' in sentence
