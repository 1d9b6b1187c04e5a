"""The whole way of a model through the command line: train to evaluate."""

from __future__ import annotations

import argparse
import re

import pytest

pytest.importorskip('torch')
pytest.importorskip('pycocotools')

from yolojet_ros.cli import model as command  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402


def _yolojet(*words) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(['model', *(str(word) for word in words)])
    return args.run(args)


def test_train_export_prune_quantize_evaluate(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    folder = tmp_path / 'a b ü'
    assert _yolojet('train', folder / 'n.pt', '--steps', 20, '--stills', 16, '--batch', 4,
                    '--size', '160x96', '--validation-stills', 4, '--workers', 0,
                    '--device', 'cpu') == 0
    assert _yolojet('prune', folder / 'n.pt', folder / 'p.pt', '--parameters', 2870413,
                    '--images', 0) == 0
    assert '2,870,413' in capsys.readouterr().out
    for name in 'np':
        assert _yolojet('export', folder / f'{name}.pt', folder / f'{name}.onnx',
                        '--opset', 13) == 0
    assert _yolojet('quantize', folder / 'p.onnx', folder / 'q.onnx', '--images', 4) == 0
    assert _yolojet('quantize', folder / 'n.onnx', folder / 'q16.onnx', '--images', 4,
                    '--float-layers', 2, '--fp16') == 0
    # Of 65; what is computed again goes with the layer that it is part of.
    assert re.search('6[1-3] convolutions in INT8', capsys.readouterr().out)
    assert _yolojet('fp16', folder / 'n.onnx', folder / 'h.onnx') == 0
    assert _yolojet('info', folder / 'q.onnx') == 0
    assert 'quantization: INT8 Q/DQ, percentile' in capsys.readouterr().out
    assert _yolojet('evaluate', folder / 'q.onnx', folder / 'h.onnx', '--against',
                    folder / 'n.onnx', '--images', 4, '--limit', 100) == 0
    shown = capsys.readouterr().out
    assert 'q.onnx loses' in shown and 'mAP50-95' in shown and 'pallet' in shown
    assert _yolojet('evaluate', folder / 'h.onnx', '--against', folder / 'n.onnx',
                    '--images', 4, '--limit', -101) == 1
    assert sorted(p.name for p in folder.iterdir()) == [
        'h.onnx', 'n.onnx', 'n.pt', 'n_best.pt', 'n_results.csv', 'n_results.png', 'p.onnx',
        'p.pt', 'q.onnx', 'q16.onnx']


def test_info_counts_the_published_parameters(capsys):
    assert _yolojet('info', '--variant', 'n', '--classes', 80) == 0
    assert '3,157,200 parameters' in capsys.readouterr().out


@pytest.mark.parametrize('words, reason', [
    (('train', 'x.pt', '--size', '100x64'), 'multiples of 32'),
    (('train', 'x.pt', '--size', 'big'), 'such as 640x384'),
    (('train', 'x.pt', '--resume'), 'no weights at'),
    (('export', 'none.pt', 'x.onnx'), 'no weights at'),
    (('quantize', 'none.onnx', 'x.onnx'), 'no model at'),
    (('fp16', 'none.onnx', 'x.onnx'), 'no model at'),
    (('evaluate', 'none.onnx'), 'no model'),
    (('info', '--variant', 'x'), 'choose one of')])
def test_wrong_input_is_one_sentence(words, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=reason) as error:
        _yolojet(*words)
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == []
