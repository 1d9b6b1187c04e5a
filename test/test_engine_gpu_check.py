"""The check of a GPU itself: every step runs, and a missed figure is told."""

from pathlib import Path
import sys
import types

import conv_model
import cuda_on_host
import host_device
import pytest
import trt_standin
from yolojet_ros.core.errors import UserError
from yolojet_ros.engine import gpu_check
from yolojet_ros.engine.gpu_check import CheckOptions, Findings

SEGMENT = str(Path(__file__).parents[1] / 'engines/demo/yolojet_demo_segment.onnx')


@pytest.fixture
def host(monkeypatch, tmp_path):
    if cuda_on_host.COMPILER is None:
        pytest.skip('g++ is not installed')
    pytest.importorskip('pycocotools')
    host_device.install(monkeypatch, cuda_on_host.build(tmp_path))
    monkeypatch.setitem(sys.modules, 'tensorrt', trt_standin.make('8.6'))
    monkeypatch.setitem(sys.modules, 'pycuda', types.SimpleNamespace(VERSION_TEXT='host'))
    monkeypatch.setattr(gpu_check, 'workers', lambda: 0)
    monkeypatch.setattr(gpu_check, 'SOURCE_SIZE', (160, 96))


def test_every_step_runs_and_is_judged(host, tmp_path):
    model = conv_model.write(tmp_path, 'float')
    findings = gpu_check.check(CheckOptions(
        model, quantized=conv_model.write(tmp_path, 'qdq'), large=model,
        tasks=(SEGMENT,), engines=str(tmp_path / 'engines'), frames=12, leak_frames=20, images=3,
        calibration_images=3, kernel_rounds=1), lambda line: None)
    names = [figure.name for figure in findings.figures]
    assert not [figure for figure in findings.figures if 'failed' in figure.value]
    for part in ('vs twin, kept set', 'fp32: verified', 'int8-calibrated: verified',
                 'whole pipeline / floor', 'depth 2 / engine only', 'GPU memory growth',
                 'mAP50-95 lost by fp16', 'out of memory', 'masks at image size / engine',
                 'masks vs twin', 'runs of 4 images / of one', 'batch 4 / 1'):
        assert any(part in name for name in names), part
    changed = next(figure for figure in findings.figures
                   if 'change with the other images' in figure.name)
    assert changed.passed and changed.value == '0.00 %'
    assert findings.details['environment']['GPU'] == 'Host GPU'
    gpu_check.save(findings, str(tmp_path / 'f.json'))
    assert 'figures' in (tmp_path / 'f.json').read_text()


def test_precisions_are_compared_at_each_number_of_images(host, tmp_path):
    model, said = conv_model.write(tmp_path, 'float'), []
    findings = gpu_check.check(CheckOptions(
        model, quantized=conv_model.write(tmp_path, 'qdq'), large=model,
        precisions=('fp16', 'int8'), batches=(1, 3), engines=str(tmp_path / 'engines'),
        frames=12), said.append)
    assert not [figure for figure in findings.figures if 'failed' in figure.value]
    table = next(text for text in said if text.startswith('| batch |'))
    rows = table.splitlines()[2:]
    assert [row.split(' | ')[:2] for row in rows] == [
        ['| 1', 'FP16'], ['| 1', 'INT8'], ['| 3', 'FP16'], ['| 3', 'INT8']]
    assert set(rows) <= set(said), 'a row is told as soon as it is known'
    limits = {figure.name: figure.limit for figure in findings.figures if 'INT8 /' in figure.name}
    assert limits['batch 1: time of INT8 / FP16'] == '<= 0.92x'
    assert len(limits) == 4
    assert len(list((tmp_path / 'engines').glob('*.engine'))) == 4
    for row in findings.details['precisions']:
        assert row['images_per_second'] > 0 and row['layers'] > 0
    with pytest.raises(UserError, match='--large'):
        gpu_check.check(CheckOptions(model, precisions=('fp16',)), said.append)


def test_a_missed_figure_fails_the_check():
    findings = Findings()
    findings.add('fast enough', 1.2, 1.25)
    assert findings.passed
    findings.add('too slow', 1.5, 1.25)
    findings.add('too few', 80, 90, least=True)
    findings.add('not a number', float('nan'), 1)
    assert not findings.passed
    assert findings.table().count('**missed**') == 3
