"""`yolojet profile` of an engine, on the stand-ins for TensorRT and for the GPU."""

import json
from pathlib import Path
import sys

import conv_model
import host_device
import pytest
import trt_standin
from yolojet_ros.cli.main import main
from yolojet_ros.engine import plan, workflow


@pytest.fixture
def engine(monkeypatch, library, tmp_path):
    """Return an engine and its model beside it."""
    pytest.importorskip('onnxruntime')
    host_device.install(monkeypatch, library)
    monkeypatch.setitem(sys.modules, 'tensorrt', trt_standin.make('8.6'))
    onnx = conv_model.write(tmp_path)
    path = Path(onnx).with_suffix('.engine')
    workflow.build_engine(
        plan.resolve(plan.Options(onnx, 'desktop', str(path), verify_images='scene')),
        lambda line: None, lambda text: None)
    return path


@pytest.mark.parametrize('suffix', ['.engine', '.onnx'])
def test_an_engine_is_profiled_and_held_against_its_model(engine, tmp_path, capsys, suffix):
    out = tmp_path / 'report.json'
    code = main(['profile', '--model', str(engine.with_suffix(suffix)), '--no-node', '--seconds',
                 '0.1', '--size', '320x192', '--backends', 'tensorrt,onnxruntime', '--json',
                 str(out)])
    assert code == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report['model']['backend'] == 'tensorrt'
    pipeline = report['pipeline']
    assert {'copy_in', 'gpu', 'track'} <= set(pipeline['stages_ms'])
    assert {'letterbox', 'network', 'decode + NMS'} <= set(pipeline['gpu_stages_ms'])
    assert 'tells of no layer' in report['skipped']['layers'], "the stand-in's profiler is mute"
    first, second = report['backends']
    assert [first['backend'], second['backend']] == ['tensorrt', 'onnxruntime']
    assert second['agreement']['expected'] == second['agreement']['matched'] > 0
    printed = capsys.readouterr().out
    assert 'copy to the GPU' in printed and 'on the GPU, median: network' in printed


def test_an_engine_whose_model_is_gone_is_profiled_alone(engine, tmp_path, capsys):
    engine.with_suffix('.onnx').unlink()
    out = tmp_path / 'report.json'
    assert main(['profile', '--model', str(engine), '--no-node', '--seconds', '0.1', '--size',
                 '320x192', '--backends', 'onnxruntime,tensorrt,torch', '--json', str(out)]) == 0
    first, second, third = json.loads(out.read_text())['backends']
    assert 'not beside it' in first['skipped'] and 'skipped' in third
    assert second['latency_ms']['p50'] > 0 and 'agreement' not in second
