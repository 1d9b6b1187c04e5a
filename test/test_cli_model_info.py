"""`yolojet model info`: what a file is, and what to write beside one that does not say."""

from pathlib import Path

from models import NAMES, raw_output, write_model
import numpy as np
import pytest

from yolojet_ros.cli.main import main
from yolojet_ros.core.engine_card import EngineCard, sha256, TensorFacts
from yolojet_ros.core.head import anchor_count, HEADS

_SIZE = (320, 192)
_A = anchor_count(_SIZE)


def _info(capfd, *words, code=0):
    """Return (lines printed, lines on stderr)."""
    assert main(['model', 'info', *map(str, words)]) == code
    out, said = capfd.readouterr()
    assert 'Traceback' not in said
    return out.splitlines(), said.splitlines()


def _has(lines, text):
    return any(text in line for line in lines)


def test_what_was_recognised_and_why(tmp_path, capfd):
    model = write_model(tmp_path / 'm.onnx', raw_output([], [], _SIZE))
    lines, said = _info(capfd, model)
    assert said == []
    for text in ('read as: YOLOv8', 'known: by its shapes, with the classes', 'NMS: follows',
                 'image: 320x192, letterbox, centred, padded with 114, RGB', 'crate, barrel, cone',
                 'gives: output0 float32 [1, 7, 1260]', 'checked: ONNX Runtime runs it'):
        assert _has(lines, text), (text, lines)


@pytest.mark.parametrize('name, data', [('still.png', b'\x89PNG'), ('model', b''), ('a.txt', b'PK')])
def test_a_file_of_another_kind_is_no_model(tmp_path, capfd, name, data):
    (tmp_path / name).write_bytes(data)
    lines, said = _info(capfd, tmp_path / name, code=2)
    assert lines == [] and len(said) == 1 and f'{name} is no model; give an .onnx file' in said[0]


def test_the_lines_of_the_card_file_are_ready_to_be_saved(tmp_path, capfd):
    rows = np.zeros((1, _A, 5 + len(NAMES)), np.float32)
    rows[..., 2:4], rows[..., 4] = 20, 0.5
    model = write_model(tmp_path / 'm.onnx', rows)
    lines, said = _info(capfd, model, code=2)
    assert len(said) == 1 and '"head: yolox"' in said[0]
    assert _has(lines, f'gives: output0 float32 [1, {_A}, 8]') and _has(lines, 'm.card.yaml')
    offered = [line.strip() for line in lines if line.strip().startswith('head: ')]
    assert len(offered) >= 2
    for line in offered:  # each is one that the file can be read by, as it stands
        (tmp_path / 'm.card.yaml').write_text(line + '\n')
        lines, said = _info(capfd, model, code=2 if 'yolov6' in line else 0)
        assert _has(lines, f'known: m.card.yaml says {line.split(" #")[0]}')
        assert 'yolov6' not in line or 'a column that is always 1' in said[0]


def test_a_head_that_nobody_knows_brings_the_list_of_those_that_are(tmp_path, capfd):
    model = write_model(tmp_path / 'm.onnx', np.zeros((1, 3, 5, 7, 9)))
    lines, said = _info(capfd, model, code=2)
    assert len(said) == 1 and 'a head' in said[0]
    assert all(_has(lines, f'    {head.key}: {head.title}') for head in HEADS)


def test_a_head_that_gives_something_else_is_refused_after_all(tmp_path, capfd):
    rows = raw_output([[0.5, 0.5, 0.2, 0.2]], [[0.9, 0, 0]], _SIZE)
    lines, said = _info(capfd, write_model(tmp_path / 'm.onnx', rows), code=2)
    assert _has(lines, 'read as: YOLOv8') and not _has(lines, 'checked')
    assert len(said) == 1 and 'boxes in 0..1' in said[0]


def test_an_open_input_needs_a_size(tmp_path, capfd):
    model = write_model(tmp_path / 'm.onnx', raw_output([], [], _SIZE), dynamic=True,
                        metadata={'imgsz': None})
    assert 'input_size' in _info(capfd, model, code=2)[1][0]
    assert _has(_info(capfd, model, '--input-size', '320x192')[0], 'image: 320x192')


def test_metadata_of_strangers_stays_in_its_line(tmp_path, capfd):
    model = write_model(tmp_path / 'm.onnx', raw_output([], [], _SIZE),
                        metadata={'author': 'a\nb\x1b[31m' + 'c' * 9999})
    lines, _ = _info(capfd, model)
    assert not _has(lines, '\x1b') and max(map(len, lines)) < 2100
    assert len(lines) == len([line for line in lines if ': ' in line])


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / 'm.engine'
    path.write_bytes(b'an engine')
    EngineCard(
        sha256(path), 'm.onnx', 'o', {'names': str(list(NAMES))},
        [TensorFacts('images', True, 'float32', [-1, 3, 192, 320]),
         TensorFacts('output0', False, 'float32', [-1, 7, _A])],
        '8.6.0', 'Orin', '8.7', '1', None, 'fp16', 'jetson_orin_nx', 1, 4,
        ['engine', 'build', '--onnx', 'm.onnx']).save(path)
    return path


def test_an_engine_is_told_without_a_gpu(engine, capfd):
    lines, said = _info(capfd, engine)
    assert said == []
    for text in ('fp16 engine', 'TensorRT 8.6.0 on Orin', 'profile jetson_orin_nx', 'batch 4',
                 'read as: YOLOv8', 'classes: 3: crate, barrel, cone',
                 'yolojet engine build --onnx m.onnx'):
        assert _has(lines, text), (text, lines)
    Path(f'{engine}').with_name('m.card.yaml').write_text('names: [cat, dog, cow]')
    assert _has(_info(capfd, engine)[0], 'cat, dog, cow')


def test_engines_that_cannot_be_used(engine, capfd):
    engine.write_bytes(b'half')
    lines, said = _info(capfd, engine, code=2)
    assert _has(lines, 'TensorRT 8.6.0') and 'half copied' in said[0]
    engine.with_name('m.engine.json').write_text('{}')
    assert 'is not an engine card' in _info(capfd, engine, code=2)[1][0]
    engine.with_name('m.engine.json').unlink()
    assert 'yolojet engine inspect' in _info(capfd, engine, code=2)[1][0]
    engine.unlink()
    assert 'no engine at' in _info(capfd, engine, code=2)[1][0]


def test_what_matters_comes_before_the_metadata_which_is_short(tmp_path, capfd):
    names = {index: f'kind {index}' for index in range(3)}
    model = write_model(tmp_path / 'm.onnx', raw_output([], [], _SIZE),
                        metadata={'names': str(names), 'licence': 'do ' * 500})
    lines, _ = _info(capfd, model)
    places = [next(index for index, line in enumerate(lines) if text in line)
              for text in ('read as:', 'checked:', 'licence:')]
    assert places == sorted(places) and len(lines[places[-1]]) < 150
