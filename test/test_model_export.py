"""Weights in, ONNX out: parity, metadata, NMS at the end, and files that are refused."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip('torch')

from model_samples import exported, NAMES, SIZE, trained_model  # noqa: E402
from yolojet_ros.cli.main import main  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.core.filters import FilterParams  # noqa: E402
from yolojet_ros.core.decode import detect  # noqa: E402
from yolojet_ros.core.head import raw_reading  # noqa: E402
from yolojet_ros.core.letterbox import Letterbox  # noqa: E402
from yolojet_ros.core.model_card import ModelCard  # noqa: E402
from yolojet_ros.engine import model_facts  # noqa: E402
from yolojet_ros.model import checkpoint, onnx_file, onnx_graph  # noqa: E402
from yolojet_ros.model.export import export, is_ultralytics  # noqa: E402
from yolojet_ros.model.nms_graph import append_nms, NmsSettings  # noqa: E402
from yolojet_ros.model.yolov8 import Detector  # noqa: E402


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': images})[0]


@pytest.mark.parametrize('opset', [13, 17, 19])
def test_exported_file_computes_what_pytorch_computes(opset):
    model = onnx.load_model_from_string(exported(opset))
    images = np.random.default_rng(1).random((1, 3, SIZE[1], SIZE[0]), np.float32)
    with torch.no_grad():
        expected = Detector(trained_model().network)(torch.from_numpy(images)).numpy()
    assert np.abs(_run(model, images) - expected).max() <= 1e-4 * SIZE[0]
    assert np.abs(_run(model, images)[:, 4:] - expected[:, 4:]).max() <= 1e-4
    assert onnx_file.opset(model) == opset


def test_dynamic_batch_takes_several_images(tmp_path):
    export(trained_model(), tmp_path / 'd.onnx', dynamic_batch=True)
    model = onnx_file.load(tmp_path / 'd.onnx')
    images = np.random.default_rng(1).random((3, 3, SIZE[1], SIZE[0]), np.float32)
    together = _run(model, images)
    assert together.shape[0] == 3
    assert np.allclose(together[1:2], _run(model, images[1:2]), atol=1e-3)
    assert onnx_file.card(model, 'd').batch == 0


def test_metadata_has_the_keys_and_form_of_exports_in_the_field():
    model = onnx.load_model_from_string(exported())
    values = onnx_file.metadata(model)
    assert values['names'].startswith("{0: 'crate', 1: 'barrel'")
    assert (values['stride'], values['imgsz'], values['task']) == ('32', '[64, 96]', 'detect')
    assert values['training'] == 'none'
    card = onnx_file.card(model, 'm')
    assert (card.names, card.input_size, card.stride, card.batch) == (NAMES, SIZE, 32, 1)
    assert card.head == raw_reading(126, len(NAMES)) and not card.half


def test_bare_convolutions_are_the_heads_last_and_the_distances():
    names = onnx_file.bare_convolutions(onnx.load_model_from_string(exported()))
    assert len(names) == 7


def _fixed_head(opset: int) -> onnx.ModelProto:
    """Return a model whose raw head is the same crowd of boxes whatever the image."""
    rng = np.random.default_rng(3)
    # All inside the input: the runtime clips before it suppresses, the graph does not.
    center, side = rng.uniform(20, 44, (2, 126)), rng.uniform(10, 40, (2, 126))
    head = np.concatenate((center, side, rng.random((7, 126)) ** 4)).astype(np.float32)[None]
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node('Identity', ['head'], ['output0'])], 'head',
        [helper.make_tensor_value_info('images', 1, [1, 3, SIZE[1], SIZE[0]])],
        [helper.make_tensor_value_info('output0', 1, [1, 11, 126])],
        [onnx.numpy_helper.from_array(head, 'head')])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', opset)],
        ir_version=onnx_file.ir_version(opset))


@pytest.mark.parametrize('opset', [13, 17, 19])
@pytest.mark.parametrize('boxes', [25, 100])
def test_nms_layer_finds_what_the_packages_own_decoding_finds(opset, boxes, tmp_path):
    images = np.zeros((1, 3, SIZE[1], SIZE[0]), np.float32)
    model = _fixed_head(opset)
    raw = _run(model, images)[0]
    append_nms(model, NmsSettings('layer', score=0.3, iou=0.5, boxes=boxes))
    onnx_file.save(model, tmp_path / 'nms.onnx')
    rows = _run(onnx_file.load(tmp_path / 'nms.onnx'), images)[0]
    assert rows.shape == (boxes, 6)
    assert (np.diff(rows[:, 4]) <= 0).all()
    selection = FilterParams(0.3, 0.5, max_detections=boxes).resolve(NAMES)
    same = Letterbox.fit(SIZE, SIZE)
    expected = detect([raw], raw_reading(126, len(NAMES)), same, selection)
    found = detect([rows], raw_reading(300, len(NAMES), key='end2end'), same, selection)
    assert len(expected) >= 25
    assert np.array_equal(found.classes, expected.classes)
    assert np.allclose(found.scores, expected.scores, atol=1e-6)
    assert np.allclose(found.boxes, expected.boxes, atol=1e-3)


def test_nms_plugin_carries_the_settings_and_gives_the_same_shape():
    model = onnx.load_model_from_string(exported())
    append_nms(model, NmsSettings('plugin', score=0.3, iou=0.5, boxes=40))
    node = next(n for n in model.graph.node if n.op_type == 'EfficientNMS_TRT')
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert values['score_threshold'] == pytest.approx(0.3)
    assert values['max_output_boxes'] == 40 and values['box_coding'] == 0
    assert onnx_file.shape(model.graph.output[0]) == [1, 40, 6]
    with pytest.raises(UserError, match='raw head of batch 1'):
        append_nms(model, NmsSettings('layer'))


@pytest.mark.parametrize('opset', [12, 20])
def test_other_opsets_are_refused(opset, tmp_path):
    with pytest.raises(UserError, match=f'opset {opset} is not supported'):
        export(trained_model(), tmp_path / 'm.onnx', opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_keeps_everything(tmp_path):
    model = trained_model()
    checkpoint.save(model, tmp_path / 'w.pt')
    again = checkpoint.load(tmp_path / 'w.pt')
    assert (again.names, again.input_size, again.recipe) == (NAMES, SIZE, model.recipe)
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)


def test_wrong_weight_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / 'text.pt').write_text('hello')
    torch.save({'weights': {}}, str(tmp_path / 'other.pt'))
    checkpoint.save(trained_model(), tmp_path / 'w.pt')
    whole = (tmp_path / 'w.pt').read_bytes()
    (tmp_path / 'half.pt').write_bytes(whole[:len(whole) // 2])
    content = torch.load(str(tmp_path / 'w.pt'), weights_only=True)
    torch.save({**content, 'variant': 's'}, str(tmp_path / 'variant.pt'))
    for name, reason in (('text.pt', 'not a weight file'), ('other.pt', 'another architecture'),
                         ('half.pt', 'not a weight file'), ('none.pt', 'no weights at'),
                         ('variant.pt', 'does not fit')):
        with pytest.raises(UserError, match=reason) as error:
            checkpoint.load(tmp_path / name)
        assert '\n' not in str(error.value)


def test_wrong_onnx_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / 'half.onnx').write_bytes(exported()[:100_000])
    (tmp_path / 'empty.onnx').write_bytes(b'')
    for name, reason in (('half.onnx', 'not a complete ONNX'), ('none.onnx', 'no model at'),
                         ('empty.onnx', 'not a complete ONNX')):
        with pytest.raises(UserError, match=reason) as error:
            onnx_file.load(tmp_path / name)
        assert '\n' not in str(error.value)
    model = onnx.load_model_from_string(exported())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = 'height'
    with pytest.raises(UserError, match='dynamic size'):
        onnx_file.fixed_card(model, 'm')


def test_awkward_paths_work_and_leave_nothing_behind(tmp_path):
    folder = tmp_path / 'mit Leerzeichen und ümläut'
    export(trained_model(), folder / 'modèle 1.onnx')
    assert [p.name for p in folder.iterdir()] == ['modèle 1.onnx']
    assert onnx_file.card(onnx_file.load(folder / 'modèle 1.onnx'), 'm').names == NAMES


def _foreign(path):
    """Write weights that say they are of ultralytics, and that run code when unpickled."""
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / 'harm'),)

    torch.save({'ultralytics': Harm()}, str(path))
    return path


def test_weights_of_ultralytics_are_recognized_without_running_them(tmp_path):
    assert is_ultralytics(_foreign(tmp_path / 'u.pt'))
    checkpoint.save(trained_model(), tmp_path / 'w.pt')
    assert not is_ultralytics(tmp_path / 'w.pt')
    with pytest.raises(UserError, match='not a weight file'):
        is_ultralytics(Path(__file__))
    assert not (tmp_path / 'harm').exists()


# What the real package does with a file: unpickle it, and write an ONNX file beside it.
_STANDIN = """
from pathlib import Path
import shutil
import torch

class YOLO:
    def __init__(self, weights):
        torch.load(weights, weights_only=False)
        self.path = Path(weights).with_suffix('.onnx')

    def export(self, **options):
        shutil.copy(SOURCE, self.path)
        return str(self.path)
"""


@pytest.fixture
def ultralytics(tmp_path, monkeypatch):
    (tmp_path / 'raw').write_bytes(exported())
    package = tmp_path / 'site' / 'ultralytics'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(f'SOURCE = {str(tmp_path / "raw")!r}\n' + _STANDIN)
    monkeypatch.syspath_prepend(str(package.parent))
    yield
    sys.modules.pop('ultralytics', None)


def test_pickled_code_runs_only_for_those_who_trust_it(ultralytics, tmp_path, capsys):
    path, out = _foreign(tmp_path / 'u.pt'), tmp_path / 'u.onnx'
    assert main(['model', 'export', str(path), str(out)]) == 2
    message = capsys.readouterr().err
    assert '--trust' in message and message.count('\n') == 1
    assert not (tmp_path / 'harm').exists() and not out.exists()
    assert main(['model', 'export', str(path), str(out), '--trust']) == 0
    assert (tmp_path / 'harm').exists() and onnx_file.card(onnx_file.load(out), 'u').names == NAMES


def test_nms_is_appended_to_exports_of_ultralytics_too(ultralytics, tmp_path, capsys):
    path, out = _foreign(tmp_path / 'u.pt'), tmp_path / 'u.onnx'
    assert main(['model', 'export', str(path), str(out), '--trust', '--nms', 'layer']) == 0
    assert 'with NMS (layer)' in capsys.readouterr().out
    model = onnx_file.load(out)
    assert onnx_file.card(model, 'u').head.final
    assert _run(model, np.zeros((1, 3, SIZE[1], SIZE[0]), np.float32)).shape == (1, 300, 6)


@pytest.mark.parametrize('mark', [b'ultralytics', b'ours'])
def test_weights_that_would_unpack_to_more_than_they_are_are_refused(mark, tmp_path):
    path = tmp_path / 'bomb.pt'
    with zipfile.ZipFile(str(path), 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('u/data.pkl', mark + b'\0' * (300 << 20))
    assert path.stat().st_size < 1 << 20
    script = (
        'import resource, sys\n'
        'from yolojet_ros.cli.main import main\n'
        'import torch, yolojet_ros.model.export\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'code = main(["model", *sys.argv[1:]])\n'
        'print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n')
    for words in (('export', str(path), str(tmp_path / 'o.onnx'), '--trust'), ('info', str(path))):
        done = subprocess.run(
            [sys.executable, '-c', script, *words], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True, check=True)
        code, grown_kib = done.stdout.split()
        assert code == '2' and int(grown_kib) < 50 << 10
        assert 'would unpack to 3145728' in done.stderr


def test_weights_that_are_views_of_nothing_do_not_make_a_large_network(tmp_path):
    checkpoint.save(trained_model(), tmp_path / 'w.pt')
    content = torch.load(str(tmp_path / 'w.pt'), weights_only=True)
    name = next(n for n in content['weights'] if n.startswith('stage2.1') and 'conv.weight' in n)
    # A stride of 0 lets one number be 10^10.
    content['weights'][name] = torch.zeros(1).expand(100_000, 100_000, 1, 1)
    torch.save(content, str(tmp_path / 'wide.pt'))
    with pytest.raises(UserError, match='does not fit that network'):
        checkpoint.load(tmp_path / 'wide.pt')


def test_nodes_that_are_not_in_order_are_put_in_order(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    model = onnx.load_model_from_string(exported())
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    np.random.default_rng(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    path = tmp_path / 'shuffled.onnx'
    path.write_bytes(model.SerializeToString())
    assert main(['model', 'info', str(path)]) == 0
    for words in (('fp16',), ('quantize', '--images', '2'), ('quantize', '--dynamic')):
        out = tmp_path / f'{len(words)}{words[-1]}.onnx'
        assert main(['model', words[0], str(path), str(out), *words[1:]]) == 0
        images = np.random.default_rng(1).random((1, 3, SIZE[1], SIZE[0]), np.float32)
        assert np.abs(_run(onnx_file.load(out), images)
                      - _run(onnx.load_model_from_string(exported()), images))[:, 4:].mean() < 0.1
    assert model_facts.read(path).card.names == NAMES
    # A file that is in order stays as it is.
    onnx_file.save(onnx_file.load(path), tmp_path / 'a.onnx')
    onnx_file.save(onnx_file.load(tmp_path / 'a.onnx'), tmp_path / 'b.onnx')
    assert (tmp_path / 'a.onnx').read_bytes() == (tmp_path / 'b.onnx').read_bytes()


def test_nodes_in_a_circle_are_told():
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node('Add', ['images', 'b'], ['a'], 'one'),
         helper.make_node('Add', ['images', 'a'], ['b'], 'two')], 'circle',
        [helper.make_tensor_value_info('images', 1, [1])],
        [helper.make_tensor_value_info('b', 1, [1])])
    onnx_graph.sort_nodes(graph)
    assert [node.name for node in graph.node] == ['one', 'two']


@pytest.mark.parametrize('option', [
    ('--fp16',), ('--sensitivity',), ('--float-layers', '2'), ('--keep-float', 'x')])
def test_options_that_do_nothing_with_dynamic_are_refused(option, tmp_path, capsys):
    words = ['model', 'quantize', 'm.onnx', str(tmp_path / 'o.onnx'), '--dynamic', *option]
    assert main(words) == 2
    assert f'{option[0]} does nothing with --dynamic' in capsys.readouterr().err
