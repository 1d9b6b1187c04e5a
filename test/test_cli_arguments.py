"""Arguments that make no sense: one sentence and exit code 2, and no file is lost."""

from pathlib import Path
import shutil

import pytest

from yolojet_ros.cli.main import main

_DEMO = Path(__file__).resolve().parents[1] / 'engines' / 'demo' / 'yolojet_demo.onnx'


def _refused(capsys, *words):
    """Return the sentence with which a command line is refused."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:  # argparse's
        code = error.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and said[-1].startswith('yolojet'), said
    return said[-1]


@pytest.mark.parametrize('command', ['demo', 'bench'])
def test_links_in_a_circle_are_no_model(tmp_path, capsys, command):
    pytest.importorskip('rclpy')
    (tmp_path / 'a.onnx').symlink_to('b.onnx')
    (tmp_path / 'b.onnx').symlink_to('a.onnx')
    words = ['--out', tmp_path / 'out'] if command == 'demo' else []
    assert 'no model file' in _refused(capsys, command, '--model', tmp_path / 'a.onnx', *words)


@pytest.mark.parametrize('words, said', [
    (['--seconds', 'inf'], '--seconds is inf'), (['--seconds', 'nan'], '--seconds is nan'),
    (['--seconds', '1e-9'], 'no frame'), (['--scenes', '9' * 20], '--scenes is'),
    (['--plot', '/'], 'names no file'), (['--plot', ''], 'names no file')])
def test_an_evaluation_of_nothing_or_without_end(capsys, words, said):
    pytest.importorskip('trackeval')
    assert said in _refused(capsys, 'track', 'evaluate', *words)


@pytest.mark.parametrize('words', [
    ['evaluate', _DEMO, '--threads', '99999999999'], ['evaluate', _DEMO, '--threads', '-1'],
    ['evaluate', _DEMO, '--images', '9' * 20], ['evaluate', _DEMO, '--images', '9' * 9000],
    ['quantize', _DEMO, 'q.onnx', '--images', '9' * 20], ['evaluate', _DEMO, '--images', '1.5']])
def test_a_number_beyond_sense(capsys, words):
    assert 'give a whole number from' in _refused(capsys, 'model', *words)


@pytest.mark.parametrize('command', ['fp16', 'quantize', 'quantize --dynamic', 'export',
                                     'prune --ratio 0.5'])
@pytest.mark.parametrize('linked', [False, True])
def test_the_input_is_no_output(tmp_path, capsys, command, linked):
    if command[0] in 'ep':
        pytest.importorskip('torch')
    source, target = tmp_path / 'm.onnx', tmp_path / ('link.onnx' if linked else 'm.onnx')
    shutil.copy(_DEMO, source)
    if linked:
        target.symlink_to(source)
    name, *options = command.split()
    assert 'the input itself' in _refused(capsys, 'model', name, source, target, *options)
    assert source.read_bytes() == _DEMO.read_bytes()


def test_training_does_not_replace_the_weights_that_it_starts_from(tmp_path, capsys):
    pytest.importorskip('torch')
    from model_samples import trained_model
    from yolojet_ros.model import checkpoint
    weights = tmp_path / 'w.pt'
    checkpoint.save(trained_model(), weights)
    before = weights.read_bytes()
    assert 'the input itself' in _refused(
        capsys, 'model', 'train', weights, '--weights', weights, '--steps', 1, '--stills', 2,
        '--batch', 1, '--validation-stills', 1, '--workers', 0, '--device', 'cpu')
    assert weights.read_bytes() == before


@pytest.mark.parametrize('words', [
    ['reference', '--onnx', 'm.onnx', '--out', 'm.onnx'],
    ['profile', 'm.engine', '--json', 'm.engine'],
    ['profile', 'm.engine', '--chart', 'm.engine'],
    ['export-report', 'm.engine', '--out', 'm.engine']])
def test_what_an_engine_command_reads_is_no_output(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    for name in ('m.onnx', 'm.engine'):
        shutil.copy(_DEMO, name)
    assert 'the input itself' in _refused(capsys, 'engine', *words)
    assert all(path.read_bytes() == _DEMO.read_bytes() for path in tmp_path.iterdir())
