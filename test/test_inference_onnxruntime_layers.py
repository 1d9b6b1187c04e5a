"""ONNX Runtime's own times of the layers."""

from pathlib import Path

import pytest

from yolojet_ros.inference.onnxruntime_layers import layer_times, parse

DEMO = Path(__file__).resolve().parents[1] / 'engines' / 'demo' / 'yolojet_demo.onnx'


def test_the_demo_model_has_its_layers_timed(tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    times = layer_times(DEMO, 3)
    assert len(times) > 100 and all(value >= 0 for value in times.values())
    assert sum(times.values()) > 1
    assert any('stage1' in name for name in times)
    assert list(tmp_path.iterdir()) == [], 'its own file is removed'


def test_a_layer_has_the_median_of_its_runs():
    def event(name, microseconds, cat='Node'):
        return {'cat': cat, 'name': name, 'dur': microseconds}
    found = parse([
        event('model_kernel_time', 9000, 'Session'), event('a_kernel_time', 5000),
        event('b_kernel_time', 10), event('a_kernel_time', 1000), event('a_fence_before', 77),
        event('a_kernel_time', 2000), {'ph': 'M'}])
    assert found == {'a': 2.0, 'b': 0.01} and list(found) == ['a', 'b']
