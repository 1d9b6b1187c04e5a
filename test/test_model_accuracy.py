"""What each form of the demo model costs: the rows of the accuracy table, on few stills."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('pycocotools')

from yolojet_ros.cli.main import main  # noqa: E402
from yolojet_ros.model.report import measure_all  # noqa: E402

_DEMO = Path(__file__).parents[1] / 'engines' / 'demo' / 'yolojet_demo.onnx'
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
