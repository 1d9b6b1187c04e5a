"""The doctor on engines: against their cards, the models that they were built from, and GPUs."""

import hashlib

from doctor_machines import ABSENT, BARE, check, gpu_machine, Machine, ORIN, tensorrt
import pytest

from yolojet_ros.core.engine_card import EngineCard


def _engine(tmp_path, **changes):
    """Write an engine with its card and the model that it was built from."""
    engine, onnx = tmp_path / 'yolo.engine', tmp_path / 'yolo.onnx'
    engine.write_bytes(b'plan')
    onnx.write_bytes(b'model')
    facts = {
        'engine_sha256': hashlib.sha256(b'plan').hexdigest(), 'onnx': 'models/yolo.onnx',
        'onnx_sha256': hashlib.sha256(b'model').hexdigest(), 'metadata': {}, 'tensors': [],
        'tensorrt': '8.6.1', 'gpu': 'Orin', 'compute_capability': '8.7', 'driver': '12020',
        'l4t': None, 'precision': 'fp16', 'profile': 'orin', 'workspace_bytes': 1, 'batch': 1,
        'command': ['engine', 'build', '--onnx', 'models/yolo.onnx']}
    EngineCard(**{**facts, **changes}).save(engine)
    return engine


@pytest.mark.parametrize('changes, status, words', [
    ({}, 'ok', 'fp16, by TensorRT 8.6.1 on Orin (8.7)'),
    ({'tensorrt': '8.5.2'}, 'fail', 'TensorRT 8.5.2, but this is TensorRT 8.6.1'),
    ({'compute_capability': '7.2', 'gpu': 'Xavier'}, 'fail', 'but this is Orin (8.7)'),
    ({'engine_sha256': 'x'}, 'fail', 'is not the file that its .json describes'),
    ({'onnx_sha256': 'x'}, 'warn', 'was not built from yolo.onnx as it is now'),
    ({'plugins': ['/nowhere/plugin.so']}, 'warn', '/nowhere/plugin.so, which is not there'),
    ({'compute_capability': 'new'}, 'fail', 'compute capability')])
def test_an_engine_against_card_model_and_gpu(tmp_path, changes, status, words):
    engine = _engine(tmp_path, **changes)
    finding = check(gpu_machine(tmp_path, ORIN, tensorrt()), 'engine', model=str(engine))
    assert finding.status == status and words in finding.found, finding
    assert (status == 'ok' or 'plugins' in changes) or finding.command.startswith(
        'yolojet engine build --onnx ')
    assert 'build it again' not in finding.found


def test_an_engine_without_gpu_card_or_file(tmp_path):
    engine = _engine(tmp_path)
    system = Machine(tmp_path, BARE, packages=ABSENT)
    finding = check(system, 'engine', model=str(engine))
    assert finding.status == 'ok' and 'there is no GPU to compare with' in finding.meaning
    assert 'yolo.engine: fp16' in check(system, 'engine', model=str(tmp_path / 'yolo.onnx')).found
    EngineCard.path(engine).write_text('{}')
    assert 'is not an engine card' in check(system, 'engine', model=str(engine)).found
    EngineCard.path(engine).unlink()
    assert check(system, 'engine', model=str(engine)).status == 'warn'
    engine.unlink()
    assert check(system, 'engine', model=str(engine)).status == 'fail'
    assert check(system, 'engine', model=str(tmp_path / 'yolo.pt')).status == 'fail'
    assert check(system, 'engine').status == 'skipped'


def test_an_engine_that_a_parameter_file_names(tmp_path):
    pytest.importorskip('yaml')
    engine, path = _engine(tmp_path), tmp_path / 'params.yaml'
    system = Machine(tmp_path, BARE, packages=ABSENT)
    path.write_text(f'/**:\n  ros__parameters:\n    model: {engine}\n')
    assert 'yolo.engine: fp16' in check(system, 'engine', params_file=str(path)).found
    store = tmp_path / 'store'
    (store / 'active').mkdir(parents=True)
    path.write_text(f'/**:\n  ros__parameters:\n    model_store: {store}\n')
    found = check(system, 'engine', params_file=str(path))
    assert found.status == 'fail' and f'there is no {store}/active/MODEL.onnx' in found.found
    (store / 'active' / 'yolo.onnx').write_bytes(b'model')
    found = check(system, 'engine', params_file=str(path))
    assert found.status == 'ok' and f'{store}/active/yolo.onnx' in found.found
    path.write_text('/front:\n  detector:\n    ros__parameters: {model: /no.engine}\n')
    assert '/front/detector in' in check(system, 'engine', params_file=str(path)).found
    path.write_text('model: x\n')
    assert 'has no "ros__parameters"' in check(system, 'engine', params_file=str(path)).found
    assert check(system, 'engine', params_file='/no.yaml').status == 'fail'
