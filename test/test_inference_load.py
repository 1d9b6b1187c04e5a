"""Which file runs where an engine lies beside a model, and what of it is trusted."""

from dataclasses import replace
import shutil
import subprocess
import sys

import conv_model
import host_device
import numpy as np
import onnx
import pytest
import trt_standin
from yolojet_ros.cli.main import main
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.engine import plan, workflow
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.load import load_backend

_CUBIN = kernels.cubin  # the tests' device has none of its own


@pytest.fixture
def model(monkeypatch, library, tmp_path):
    """Return a model with an engine of the same name beside it, built from it."""
    host_device.install(monkeypatch, library)
    monkeypatch.setitem(sys.modules, 'tensorrt', trt_standin.make('8.6'))
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    import cv2
    for index in range(8):
        picture = np.random.default_rng(index).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f'{index}.png'), picture)
    path = tmp_path / 'float.onnx'
    conv_model.write(tmp_path)
    workflow.build_engine(
        plan.resolve(plan.Options(str(path), 'desktop', verify_images=str(pictures))),
        lambda line: None, lambda text: None)
    return path


@pytest.fixture
def load():
    """Return load_backend; what it loads is closed at the end."""
    loaded = []

    def function(*args, **options):
        loaded.append(load_backend(*args, **options))
        return loaded[-1]
    yield function
    for backend in loaded:
        backend.close()


def export_again(path):
    """Write the model anew, with scores that are half as high."""
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == 'answer':
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 4:] /= 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, 'answer'))
    onnx.save(model, str(path))


def best(backend):
    view = ImageView.from_bgr(np.zeros((64, 96, 3), np.uint8))
    found = backend.detect(view, FilterParams().resolve(backend.card.names), StageTimes())
    return found.scores[0]


def change_card(engine, **changes):
    replace(EngineCard.load(engine), **changes).save(engine)


def test_an_engine_beside_its_model_is_taken_without_a_word(model, load):
    for backend in ('auto', 'tensorrt'):
        loaded = load(model, backend)
        assert loaded.name == 'tensorrt' and loaded.warnings == []
    assert load(model, 'onnxruntime').name == 'onnxruntime'
    assert load(model.with_suffix('.engine')).warnings == []


def test_an_engine_of_an_older_export_gives_way_to_the_model_with_a_warning(model, load):
    before = best(load(model))
    export_again(model)
    loaded = load(model)
    assert loaded.name == 'onnxruntime' and best(loaded) < 0.7 * before
    text, = loaded.warnings
    engine = model.with_suffix('.engine')
    assert 'float.engine was not built from float.onnx as it is now' in text
    assert f'yolojet engine build --onnx {model}' in text and f'--out {engine}' in text


def test_the_command_of_the_warning_mends_it(model, load, capsys):
    export_again(model)
    words = load(model).warnings[0].partition('again with: yolojet ')[2].split()
    assert main(words) == 0
    loaded = load(model)
    assert loaded.name == 'tensorrt' and loaded.warnings == []


def test_an_engine_that_is_demanded_must_be_of_the_model(model, load):
    export_again(model)
    with pytest.raises(UserError, match='not built from float.onnx.*yolojet engine build'):
        load(model, 'tensorrt')


def test_an_engine_that_is_named_runs_and_says_that_its_model_has_changed(model, load):
    export_again(model)
    loaded = load(model.with_suffix('.engine'))
    assert loaded.name == 'tensorrt'
    assert 'not built from float.onnx as it is now' in loaded.warnings[0]


def test_an_engine_of_unknown_origin_is_told(model, load):
    EngineCard.path(model.with_suffix('.engine')).unlink()
    loaded = load(model)
    assert loaded.name == 'tensorrt' and 'is not known' in loaded.warnings[-1]


@pytest.mark.parametrize('changes, reason', [
    ({'tensorrt': '7.1.3'}, 'was built with TensorRT 7.1.3'),
    ({'compute_capability': '5.3'}, 'compute capability 5.3'),
    ({'engine_sha256': 'x'}, 'not the file that its .json describes')])
def test_an_engine_that_cannot_run_here_gives_way_only_where_it_was_not_named(
        model, load, changes, reason):
    engine = model.with_suffix('.engine')
    change_card(engine, **changes)
    loaded = load(model)
    assert loaded.name == 'onnxruntime' and reason in loaded.warnings[0]
    for named, backend in ((engine, 'auto'), (model, 'tensorrt')):
        with pytest.raises(UserError, match=reason):
            load(named, backend)


@pytest.mark.skipif(shutil.which('gcc') is None, reason='gcc is not installed')
def test_a_library_that_a_card_names_runs_only_if_the_user_names_it(model, load, tmp_path):
    mark, source, library = (tmp_path / name for name in ('mark', 'p.c', 'libplugin.so'))
    source.write_text(f'''#include <stdio.h>
__attribute__((constructor)) static void run(void) {{ fclose(fopen("{mark}", "w")); }}''')
    subprocess.run(['gcc', '-shared', '-fPIC', '-o', str(library), str(source)], check=True)
    engine = model.with_suffix('.engine')
    change_card(engine, plugins=[str(library)])
    with pytest.raises(UserError, match='libplugin.so; they run.*"plugins".*--plugin'):
        load(engine)
    assert 'libplugin.so' in load(model).warnings[0]  # the model runs instead
    assert main(['engine', 'inspect', str(engine)]) == 2
    assert not mark.exists()
    assert load(engine, plugins=[str(library)]).name == 'tensorrt' and mark.exists()
    assert main(['engine', 'inspect', str(engine), '--plugin', str(library)]) == 0


def test_kernels_beside_an_engine_are_not_loaded(model, load, tmp_path, monkeypatch):
    nvcc = tmp_path / 'cuda' / 'bin' / 'nvcc'
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf OURS > "$2"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(nvcc.parent.parent))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(kernels, 'cubin', _CUBIN)
    name = kernels.cache_name(host_device.HostDevice().capability)
    (model.parent / name).write_bytes(b'FOREIGN')
    assert load(model).device.binary == b'OURS'
    assert (tmp_path / 'cache' / 'yolojet' / name).read_bytes() == b'OURS'


@pytest.mark.parametrize('wish, name', [
    ({'threads': 2}, 'cpu_threads is 2'), ({'spinning': True}, 'cpu_spinning is True')])
def test_what_acts_on_the_cpu_only_is_refused_with_an_engine(model, load, wish, name):
    for path, backend in ((model, 'auto'), (model, 'tensorrt'),
                          (model.with_suffix('.engine'), 'auto')):
        with pytest.raises(UserError, match=name):
            load(path, backend, **wish)
    assert load(model, 'onnxruntime', **wish).name == 'onnxruntime'


def test_what_is_loaded_is_what_was_checked(model, load, monkeypatch):
    engine, check = model.with_suffix('.engine'), EngineCard.check

    def replace_behind(*args):
        check(*args)
        engine.write_bytes(b'of somebody else')
    monkeypatch.setattr(EngineCard, 'check', replace_behind)
    assert best(load(engine)) > 0


@pytest.mark.parametrize(
    'broken', [b'', b'no model', None], ids=['emptied', 'replaced', 'removed'])
def test_a_model_that_vanishes_while_it_is_loaded_is_named(model, load, monkeypatch, broken):
    import onnxruntime
    session = onnxruntime.InferenceSession

    def vanish(*args, **options):
        model.unlink()
        if broken is not None:
            model.write_bytes(broken)
        return session(*args, **options)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', vanish)
    with pytest.raises(UserError, match=model.name):
        load(model, 'onnxruntime')


def test_an_engine_that_vanishes_while_it_is_loaded_is_named(model, load, monkeypatch):
    engine, read, calls = model.with_suffix('.engine'), EngineCard.load, []

    def vanish(path):
        calls.append(path)
        if len(calls) == 2:  # once for its origin, once to load it
            engine.unlink()
        return read(path)
    monkeypatch.setattr(EngineCard, 'load', vanish)
    with pytest.raises(UserError, match='float.engine cannot be read'):
        load(engine)


def test_no_engine_is_installed_of_a_model_that_was_replaced_meanwhile(model, tmp_path):
    out, lines = tmp_path / 'new.engine', []

    def report(line):
        if not lines:
            export_again(model)
        lines.append(line)
    with pytest.raises(UserError, match='was replaced or removed while its engine was built'):
        workflow.build_engine(
            plan.resolve(plan.Options(str(model), 'desktop', out=str(out),
                                      verify_images=str(tmp_path / 'pictures'))),
            report, lambda text: None)
    assert not out.exists() and not EngineCard.path(out).exists()
