"""What each form of the demo models costs: the rows of the accuracy table, on few stills."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('pycocotools')

from yolojet_ros.cli.main import main  # noqa: E402
from yolojet_ros.model.report import measure_all  # noqa: E402

_DEMO = Path(__file__).parents[1] / 'engines' / 'demo' / 'yolojet_demo.onnx'
_ASSETS = Path(__file__).parent / 'assets'
# As engines/demo/README.md makes them, but with fewer calibration images.
_COMMANDS = {
    'fp16': ('fp16',),
    'int8': ('quantize', '--images', '24'),
    'int8_fp16': ('quantize', '--fp16', '--images', '24'),
    'fp16_of_int8': ('fp16',),
    'dynamic': ('quantize', '--dynamic')}


@pytest.fixture(scope='module')
def accuracies(tmp_path_factory):
    folder = tmp_path_factory.mktemp('accuracy')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder / 'cache'))
        files = {name: folder / f'{name}.onnx' for name in _COMMANDS}
        for name, (command, *options) in _COMMANDS.items():
            source = files['int8'] if name == 'fp16_of_int8' else _DEMO
            assert main(['model', command, str(source), str(files[name]), *options]) == 0
    measured = measure_all([_DEMO, *files.values()], ('scene',), 60)
    return dict(zip(('fp32', *files), (100 * m.accuracy.map for m in measured)))


def test_fp32_has_the_accuracy_of_these_stills(accuracies):
    assert accuracies['fp32'] == pytest.approx(82.5, abs=0.5)


@pytest.mark.parametrize('name, limit', [
    ('fp16', 0.5), ('int8', 1.5), ('int8_fp16', 1.5), ('fp16_of_int8', 1.5), ('dynamic', 3.0)])
def test_every_form_keeps_the_accuracy(accuracies, name, limit):
    assert accuracies['fp32'] - accuracies[name] < limit


@pytest.mark.parametrize('file, map50, map_', [
    (_DEMO.with_name('yolojet_demo_segment.onnx'), 93.9, 71.8),
    (_ASSETS / 'pose_fp16.onnx', 79.0, 52.0), (_ASSETS / 'obb_fp16.onnx', 85.0, 52.0)],
    ids=['segment', 'pose', 'obb'])
def test_the_models_of_the_other_tasks_find_what_they_were_trained_for(file, map50, map_):
    result, = measure_all([file], ('scene',), 60)
    assert 100 * result.accuracy.map50 > map50 - 1.5 and 100 * result.accuracy.map > map_ - 1.5


def test_a_quantized_segmentation_model_keeps_its_masks(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    source = _DEMO.with_name('yolojet_demo_segment.onnx')
    files = [tmp_path / f'{name}.onnx' for name in ('fp16', 'int8')]
    assert main(['model', 'fp16', str(source), str(files[0])]) == 0
    assert main(['model', 'quantize', str(source), str(files[1]), '--images', '24']) == 0
    exact, half, int8 = (100 * m.accuracy.map for m in measure_all(
        [source, *files], ('scene',), 40))
    assert exact - half < 0.5 and exact - int8 < 1.5


def test_models_of_different_truth_are_not_measured_side_by_side(capsys):
    words = [str(_ASSETS / f'{task}_fp16.onnx') for task in ('pose', 'obb')]
    assert main(['model', 'evaluate', *words, '--images', '1']) == 2
    assert 'measured on different truth' in capsys.readouterr().err
