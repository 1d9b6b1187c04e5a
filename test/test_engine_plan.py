"""Profiles, plans, cards and the small parts around a build."""

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import conv_model
import numpy as np
import pytest
from yolojet_ros.cli.main import main
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import raw_reading
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.engine import layers, memory, profiles, verify
from yolojet_ros.engine.plan import Options, resolve
from yolojet_ros.engine.progress import Progress

NAMES = ('jetson_nano_2gb', 'jetson_nano', 'jetson_tx2', 'jetson_xavier_nx', 'jetson_agx_xavier',
         'jetson_orin_nano', 'jetson_orin_nx', 'jetson_agx_orin', 'jetson_thor', 'desktop')


@pytest.fixture(autouse=True)
def folder_with_a_model(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp('here'))
    Path(conv_model.write(Path('.'))).rename('m.onnx')


def dry_run(capsys, *arguments):
    code = main(['engine', 'build', '--onnx', 'm.onnx', '--dry-run', '--json', *arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else captured.err


@pytest.mark.parametrize('name', NAMES)
def test_every_profile_gives_a_plan(capsys, name):
    code, plan = dry_run(capsys, '--profile', name)
    assert code == 0 and plan['profile'] == name
    assert plan['workspace_bytes'] > 0 and plan['batch'] == 1
    assert plan['network_flags'] == ['EXPLICIT_BATCH']
    assert plan['builder_flags'] == (['FP16', 'INT8'] if plan['precision'] == 'int8' else ['FP16'])


def test_the_plan_of_a_jetson_nano(capsys):
    _, plan = dry_run(capsys, '--profile', 'jetson_nano')
    assert plan['workspace_bytes'] == 134217728
    assert plan['precision'] == 'fp16' and plan['expected_tensorrt'] == '8.2.1'
    assert dry_run(capsys, '--profile', 'jetson_agx_orin')[1]['workspace_bytes'] == 2 << 30
    assert dry_run(capsys, '--profile', 'desktop')[1]['workspace_bytes'] == 1 << 30


@pytest.mark.parametrize('arguments, text', [
    (('--profile', 'jetson_nano', '--precision', 'int8'), 'slow or absent'),
    (('--profile', 'jetson_tx2', '--precision', 'int8'), 'use --precision fp16'),
    (('--profile', 'toaster'), 'choose auto, desktop'),
    (('--profile', 'jetson_orin_nano', '--dla', '0'), '0 DLA cores; leave --dla out'),
    (('--profile', 'jetson_agx_orin', '--dla', '2'), '2 DLA cores, counted from 0'),
    (('--profile', 'jetson_agx_orin', '--dla', '0', '--precision', 'fp32'), 'has no FP32'),
    (('--profile', 'desktop', '--workspace', '0'), '--workspace is 0'),
    (('--profile', 'desktop', '--batch', '-1'), '--batch is -1'),
    (('--profile', 'desktop', '--optimization-level', '9'), '0 to 5'),
    (('--profile', 'desktop', '--tactic-source', 'abc'), 'source "abc"; choose of CUBLAS'),
    (('--profile', 'desktop', '--out', 'm.onnx'), 'm.onnx is the input itself'),
    (('--profile', 'desktop', '--timing-cache', 'm.onnx'), 'm.onnx is the input itself')])
def test_contradictions_are_told_in_one_sentence(capsys, arguments, text):
    code, message = dry_run(capsys, *arguments)
    assert code == 2 and text in message and message.count('\n') == 1


@pytest.mark.parametrize('arguments, text', [
    (('--onnx', 'n.onnx'), 'nothing is at n.onnx, which --onnx names'),
    (('--onnx', '.'), 'is not a file'),
    (('--calib', 'images'), 'nothing is at images, which --calib names'),
    (('--verify-images', 'images'), 'which --verify-images names'),
    (('--reference', 'r.npz'), 'which --reference names'),
    (('--plugin', './p.so'), 'which --plugin names')])
@pytest.mark.parametrize('dry', [('--dry-run',), ()])
def test_nothing_is_planned_for_files_that_do_not_exist(capsys, arguments, text, dry):
    code = main(['engine', 'build', '--onnx', 'm.onnx', '--profile', 'desktop', *arguments, *dry])
    message = capsys.readouterr().err
    assert code == 2 and text in message and message.count('\n') == 1
    assert [path.name for path in Path('.').iterdir()] == ['m.onnx']


def test_best_is_int8_only_where_it_is_fast(capsys):
    assert dry_run(capsys, '--profile', 'jetson_nano', '--precision', 'best')[1][
        'precision'] == 'fp16'
    plan = dry_run(capsys, '--profile', 'jetson_orin_nx', '--precision', 'best')[1]
    assert plan['precision'] == 'int8' and plan['fallback_to_fp16']


def test_options_override_the_profile(capsys):
    _, plan = dry_run(
        capsys, '--profile', 'jetson_agx_xavier', '--precision', 'int8', '--workspace', '64',
        '--dla', '1', '--strict', '--optimization-level', '3', '--tactic-source', 'CUBLAS')
    assert plan['workspace_bytes'] == 64 << 20 and plan['dla_core'] == 1
    assert plan['builder_flags'] == [
        'FP16', 'INT8', 'OBEY_PRECISION_CONSTRAINTS', 'GPU_FALLBACK']
    assert plan['tactic_sources'] == ['CUBLAS'] and plan['optimization_level'] == 3


def test_users_add_profiles_of_their_own(tmp_path, monkeypatch):
    folder = tmp_path / 'yolojet' / 'profiles'
    folder.mkdir(parents=True)
    text = (profiles.available()['desktop']).read_text()
    (folder / 'mine.yaml').write_text(text.replace('workspace_mib: 1024', 'workspace_mib: 77'))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
    assert resolve(Options('m.onnx', 'mine')).workspace_bytes == 77 << 20
    for old, new in (('precision: fp16', 'precision: fp8'), ('batch: 1', 'batch: 0'),
                     ('batch: 1', 'badge: 1'), ('precision: fp16', '- x')):
        path = tmp_path / 'wrong.yaml'
        path.write_text(text.replace('\n' + old, '\n' + new))
        with pytest.raises(UserError, match='is not a build profile'):
            profiles.load(str(path))


@pytest.mark.parametrize('model, name', [
    ('NVIDIA Jetson Nano Developer Kit', 'jetson_nano'),
    ('NVIDIA Jetson Nano 2GB Developer Kit', 'jetson_nano_2gb'),
    ('Jetson-AGX', 'jetson_agx_xavier'),
    ('NVIDIA Jetson Xavier NX Developer Kit', 'jetson_xavier_nx'),
    ('NVIDIA Jetson Orin Nano Developer Kit', 'jetson_orin_nano'),
    ('NVIDIA Orin NX Developer Kit', 'jetson_orin_nx'),
    ('NVIDIA Jetson AGX Orin Developer Kit', 'jetson_agx_orin'),
    ('NVIDIA Jetson AGX Thor Developer Kit', 'jetson_thor'),
    ('Raspberry Pi 4', 'desktop')])
def test_auto_reads_the_device_tree(tmp_path, model, name):
    path = tmp_path / 'model'
    path.write_text(model + '\0')
    assert profiles.detect(path) == name
    assert profiles.detect(tmp_path / 'missing') == 'desktop'


def test_the_rebuild_command_says_the_same(capsys):
    options = Options(
        'a model.onnx', 'jetson_agx_orin', 'e.engine', 'int8', 64, calibration='folder',
        num_calib=20, dla=0, tactic_sources=('CUBLAS', 'CUDNN'), strict=True, nms='plugin')
    command = options.command()
    shutil.copy('m.onnx', 'a model.onnx')
    Path('folder').mkdir()
    assert main([*command, '--dry-run', '--json']) == 0
    found = json.loads(capsys.readouterr().out)['options']
    assert found == json.loads(json.dumps({**options.__dict__}))


def card(**changes):
    values = {
        'engine_sha256': 'e', 'onnx': 'm.onnx', 'onnx_sha256': 'o', 'metadata': {},
        'tensors': [], 'tensorrt': '8.5.2.2', 'gpu': 'Orin', 'compute_capability': '8.7',
        'driver': '1', 'l4t': None, 'precision': 'fp16', 'profile': 'jetson_orin_nx',
        'workspace_bytes': 1, 'batch': 1,
        'command': ['engine', 'build', '--onnx', 'my model.onnx']}
    return EngineCard(**{**values, **changes})


@pytest.mark.parametrize('tensorrt, capability, sha, text', [
    ('8.6.1', (8, 7), 'e', 'TensorRT 8.5.2.2, but this is TensorRT 8.6.1'),
    ('8.5.2.2', (7, 2), 'e', r'Orin \(compute capability 8.7\), but this is Xavier \(7.2\)'),
    ('8.5.2.2', (8, 7), 'x', 'half copied')])
def test_the_card_says_what_differs_and_how_to_rebuild(tensorrt, capability, sha, text):
    with pytest.raises(UserError, match=text) as error:
        card().check('e.engine', tensorrt, 'Xavier', capability, sha)
    assert "yolojet engine build --onnx 'my model.onnx'" in str(error.value)
    card().check('e.engine', '8.5.2.1', 'Orin', (8, 7), 'e')  # a build number does not matter


def test_the_card_survives_a_round_trip(tmp_path):
    card().save(tmp_path / 'e.engine')
    assert EngineCard.load(tmp_path / 'e.engine') == card()
    assert EngineCard.load(tmp_path / 'other.engine') is None


def test_progress_tells_phases_and_goes_on_telling():
    lines = []
    with Progress(lines.append, interval=0.02) as progress:
        progress.phase('timing kernels')
        progress.detail('Building: 3 of 9')
        time.sleep(0.15)
    assert 'timing kernels' in lines[0]
    assert any('Building: 3 of 9' in line for line in lines[1:])
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) == count


def test_an_interrupted_build_ends_at_once_and_leaves_nothing(tmp_path):
    script = """
import sys, time
import conv_model, cuda_on_host, host_device, trt_standin
from pathlib import Path
from unittest import mock
from yolojet_ros.cli.main import main

class Patch:
    def setattr(self, target, name, value=None):
        if isinstance(target, str):
            mock.patch(target, name).start()
        else:
            setattr(target, name, value)

folder = Path(sys.argv[1])
host_device.install(Patch(), None)
sys.modules['tensorrt'] = trt_standin.make('8.6')

def hang(self, network, config):
    print('building', flush=True)
    # As in a library: no Python code runs that could raise KeyboardInterrupt.
    import ctypes
    ctypes.PyDLL(None).sleep(30)

trt_standin._Builder.build_serialized_network = hang
main(['engine', 'build', '--onnx', conv_model.write(folder), '--profile', 'desktop',
      '--out', str(folder / 'out' / 'e.engine')])
"""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), str(root / 'test'), os.environ.get('PYTHONPATH', '')])
    process = subprocess.Popen(
        [sys.executable, '-c', script, str(tmp_path)], env={**os.environ, 'PYTHONPATH': path},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b'building\n'
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    process.stdout.close()
    assert time.monotonic() - start < 10
    assert not (tmp_path / 'out').exists()


def test_too_little_memory_is_told_before_building(tmp_path):
    class Device:
        integrated = True

        def memory(self):
            return 300 << 20, 4096 << 20
    meminfo = tmp_path / 'meminfo'
    meminfo.write_text('MemTotal: 4000000 kB\nMemAvailable:  204800 kB\n')
    assert memory.available_bytes(meminfo) == 200 << 20
    assert memory.available_bytes(tmp_path / 'none') is None
    with pytest.raises(UserError, match='300 MiB of GPU memory are free.*lower --workspace'):
        memory.check(Device(), 1 << 30, 12 << 20)


def reference_case():
    rng = np.random.default_rng(0)
    output = np.zeros((4, 7, 126), np.float32)
    output[:, :2] = rng.uniform(10, 60, (4, 2, 126))
    output[:, 2:4] = rng.uniform(8, 20, (4, 2, 126))
    output[:, 4:] = rng.uniform(0, 0.9, (4, 3, 126)) ** 3
    model = ModelCard('m', ('a', 'b', 'c'), (96, 64), 32, raw_reading(126, 3))
    return verify.Reference('o', np.zeros((4, 3, 64, 96), np.float32), [output]), model


class FixedSession:
    def __init__(self, output):
        self.output = output

    def run_all(self, images):
        return [self.output]


@pytest.mark.parametrize('damage, passed', [
    ('none', True), ('little', True), ('scores', False), ('boxes', False), ('nan', False),
    ('dead', False)])
def test_a_wrong_engine_does_not_pass(damage, passed):
    reference, model = reference_case()
    output = reference.outputs[0].copy()
    if damage == 'little':
        output[:, 4:] += 0.001
    elif damage == 'scores':
        output[:, 4:] += 0.02
    elif damage == 'boxes':
        output[:, :4] += 2
    elif damage == 'nan':
        output[0, 0, 0] = np.nan
    elif damage == 'dead':
        output[:, 4:] = 0
    verdict = verify.verify(FixedSession(output), reference, model, model, 'fp16')
    assert verdict.passed == passed
    assert ('DISAGREES' in verdict.sentence()) != passed


def test_int8_may_differ_more_than_fp16():
    reference, model = reference_case()
    output = reference.outputs[0] + np.float32(0.02)
    assert not verify.verify(FixedSession(output), reference, model, model, 'fp16').passed
    assert verify.verify(FixedSession(output), reference, model, model, 'int8').passed


def test_references_travel_as_a_file(tmp_path):
    reference, _ = reference_case()
    reference.save(tmp_path / 'r.npz')
    again = verify.Reference.load(tmp_path / 'r.npz')
    assert again.onnx_sha256 == 'o' and np.array_equal(again.outputs[0], reference.outputs[0])
    (tmp_path / 'broken.npz').write_bytes(b'x')
    with pytest.raises(UserError, match='holds no reference results'):
        verify.Reference.load(tmp_path / 'broken.npz')


INSPECTED = json.dumps({'Layers': [
    {'Name': 'conv1', 'LayerType': 'CaskConvolution', 'TacticName': 'sm80',
     'Inputs': [{'Format/Datatype': 'Channel major FP16 format where channel % 8 == 0'}],
     'Outputs': [{'Format/Datatype': 'Channel major FP16 format where channel % 8 == 0'}]},
    {'Name': 'conv2 + relu', 'LayerType': 'CaskConvolution', 'TacticName': 'sm80',
     'Inputs': [{'Format/Datatype': 'Row major linear FP32'}],
     'Outputs': [{'Format/Datatype': 'Row major Int8 format'}]},
    {'Name': 'copy', 'LayerType': 'Reformat',
     'Inputs': [{'Format/Datatype': 'Row major linear FP32'}], 'Outputs': []},
    'only a name']})


def test_layers_are_read_with_their_precisions():
    found = layers.parse(INSPECTED)
    assert [layer.precision for layer in found] == ['fp16', 'fp32', 'fp32', '']
    assert found[1].output_precision == 'int8'
    assert layers.other_precision(found, 'fp16') == ['conv2 + relu (fp32)']
    assert layers.summary(found) == {'fp16': 1, 'fp32': 2, 'unknown': 1}
    assert 'conv2 + relu' in layers.table(found)
    with pytest.raises(UserError, match='no known form'):
        layers.parse('{}')


def test_layer_times_become_a_table_and_a_chart():
    times = {'slow': 0.3, 'quick': 0.1, 'a ' + 'long ' * 40: 0.6}
    table = layers.times_table(times, 2).splitlines()
    assert '60.0%' in table[1] and 'slow' in table[2] and 'all 3 layers' in table[-1]
    chart = layers.times_chart(times, 'e.engine')
    assert chart.dtype == np.uint8 and (chart != 255).any()


def test_inspecting_without_a_gpu_is_told(tmp_path, capsys):
    for action in ('inspect', 'profile', 'verify'):
        assert main(['engine', action, str(tmp_path / 'no.engine')]) == 2
        assert 'no engine at' in capsys.readouterr().err
