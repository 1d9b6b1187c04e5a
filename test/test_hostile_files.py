"""Mutated engine cards and profiles: used, or refused in one sentence."""

import json
from pathlib import Path
import time

import conv_model
from mutations import count, mutate_bytes, mutate_tree, refused
import numpy as np
import pytest

from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.tensors import TensorSpec
from yolojet_ros.engine import profiles, report
from yolojet_ros.engine.plan import Options, resolve
from yolojet_ros.engine.verify import Reference
from yolojet_ros.model.calibration import calibrate

_CARD = {
    'engine_sha256': 'ab' * 32, 'onnx': 'models/m.onnx', 'onnx_sha256': 'cd' * 32,
    'metadata': {'names': "{0: 'crate', 1: 'cone'}", 'stride': '32', 'imgsz': '[192, 320]',
                 'task': 'detect', 'description': 'two\nlines'},
    'tensors': [
        {'name': 'images', 'input': True, 'dtype': 'float32', 'shape': [1, 3, 192, 320]},
        {'name': 'output0', 'input': False, 'dtype': 'float32', 'shape': [1, 6, 1260]}],
    'tensorrt': '8.6.0', 'gpu': 'Orin', 'compute_capability': '8.7', 'driver': '12020',
    'l4t': 'R35 (release), REVISION: 4.1', 'precision': 'fp16', 'profile': 'jetson_orin_nx',
    'workspace_bytes': 1 << 30, 'batch': 1,
    'command': ['engine', 'build', '--onnx', 'models/m.onnx', '--precision', 'fp16'],
    'plugins': [], 'calibration_sha256': None, 'build_seconds': 321.5,
    'built_at': '2024-05-01T12:00:00+00:00',
    'verification': {'images': 8, 'score_error': 0.0004, 'box_error_px': 0.12, 'matched': 1.0,
                     'sure': 34, 'passed': True, 'cause': ''},
    'latency_ms': {'median': 1.5, 'p99': 1.7}, 'device_memory_bytes': 1 << 22,
    'other_precision': ['/model.22/Conv \x01 + PWN(Sigmoid) (FP32)']}


def _use_card(engine):
    """Do all that is done with the card of an engine that somebody gave us."""
    card = EngineCard.load(engine)
    ModelCard.read(
        engine.name, card.metadata, [TensorSpec('images', 'float32', (1, 3, 192, 320))],
        [TensorSpec('a', 'float32', (1, 6, 1260)), TensorSpec('b', 'float32', (1, 16, 24, 40))])
    '\n'.join(report._card_lines(card))
    f'{card.latency_ms.get("median", 0.0):.3f} {engine.parent / Path(card.onnx).name}'
    if 'skipped' not in card.verification and card.verification:
        f'{card.verification["score_error"]:.5f} {100 * card.verification["matched"]:.1f}'
    card.check(engine.name, '8.6.0', 'Orin', (8, 7), 'ab' * 32)
    card.check_model(engine, card.onnx, 'cd' * 32)


@pytest.mark.parametrize('seed', range(2))
def test_a_mutated_card_is_used_or_refused_in_one_sentence(tmp_path, seed):
    engine, rng = tmp_path / 'm.engine', np.random.default_rng(seed)
    path, good = EngineCard.path(engine), json.dumps(_CARD, indent=1)
    path.write_text(good)
    _use_card(engine)
    total, bad = count(1000), 0
    for _ in range(total):
        if rng.random() < 0.5:
            path.write_bytes(mutate_bytes(rng, good.encode()))
        else:
            path.write_text(json.dumps(mutate_tree(rng, _CARD)))
        bad += refused(_use_card, engine)
    assert total / 3 < bad < total


@pytest.mark.parametrize('text', [
    '[' * 100_000, '{"a":' * 100_000, '9' * 5000, 'null', '[]', '"x"', '', '\ufeff{}'])
def test_json_of_another_kind_is_no_card(tmp_path, text):
    EngineCard.path(tmp_path / 'm.engine').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match='is not an engine card'):
        EngineCard.load(tmp_path / 'm.engine')


def test_a_card_of_gigabytes_is_not_read(tmp_path):
    with open(EngineCard.path(tmp_path / 'm.engine'), 'wb') as file:
        file.truncate(4 << 30)
    with pytest.raises(UserError, match='more than'):
        EngineCard.load(tmp_path / 'm.engine')


def test_a_card_of_a_later_version_is_read(tmp_path):
    EngineCard.path(tmp_path / 'm.engine').write_text(json.dumps({**_CARD, 'colour': [1]}))
    _use_card(tmp_path / 'm.engine')


def _use_profile(path):
    plan = resolve(Options('m.onnx', profile=str(path)))
    json.dumps(plan.as_dict())
    assert plan.workspace_bytes > 0 and plan.batch > 0


@pytest.mark.parametrize('name', ['jetson_nano', 'desktop'])
def test_a_mutated_profile_is_used_or_refused_in_one_sentence(tmp_path, name):
    rng, path = np.random.default_rng(3), tmp_path / 'mine.yaml'
    import yaml
    good = profiles.available()[name].read_bytes()
    tree, total, bad = yaml.safe_load(good), count(500), 0
    for _ in range(total):
        if rng.random() < 0.5:
            path.write_bytes(mutate_bytes(rng, good))
        else:
            path.write_text(yaml.safe_dump(mutate_tree(rng, tree), allow_unicode=True),
                            encoding='utf-8', errors='replace')
        bad += refused(_use_profile, path)
    assert total / 5 < bad < total


@pytest.mark.parametrize('text, words', [
    ('a: &a [*a]', ''), ('[' * 5000, 'no YAML'), ('? {a: b}\n: c', ''), ('2020-13-40', 'no YAML'),
    ('!!bool maybe', 'no YAML'), ('!!int ""', 'no YAML'), ('!!timestamp x', 'no YAML'), ('', ''),
    ('device_model: "("', ''), ('just text', 'not keys with values')])
def test_yaml_of_another_kind_is_no_profile(tmp_path, text, words):
    (tmp_path / 'mine.yaml').write_text(text)
    with pytest.raises(UserError, match='is not a build profile') as error:
        profiles.load(str(tmp_path / 'mine.yaml'))
    assert words in str(error.value)


_MERGES = 'm0: &m0 {k: 1}\n' + ''.join(
    f'm{level}: &m{level} {{<<: [{", ".join([f"*m{level - 1}"] * 10)}]}}\n'
    for level in range(1, 9))


@pytest.mark.parametrize('text, words', [
    (_MERGES, 'refers to parts of itself'), ('x: ' + '1:' * 200_000 + '1\n', 'more than'),
    ('x: ' + '1:' * 7000 + '1\n', ''), ('x: ' + '9' * 15_000, ''), ('{a: ' * 3500, 'no YAML')])
def test_a_small_yaml_that_costs_hours_is_refused_at_once(tmp_path, text, words):
    path = tmp_path / 'mine.yaml'
    path.write_text(profiles.available()['desktop'].read_text() + text)
    start = time.process_time()
    with pytest.raises(UserError, match='is not a build profile') as error:
        profiles.load(str(path))
    assert time.process_time() - start < 2 and words in str(error.value)


@pytest.mark.parametrize('line, words', [
    ('workspace_mib: 1.5', 'workspace_mib is 1.5, not an integer'),
    ('workspace_mib: 0', 'not in 1..'), ('workspace_mib: true', 'not an integer'),
    ('batch: "2"', 'batch'), ('dla_cores: .inf', 'dla_cores'), ('precisions: fp16', 'not a list'),
    ('precisions: [fp16, 8]', r'precisions\[1\] is 8'), ('tensorrt: 8.6', 'tensorrt is 8.6'),
    ('device_model: "("', 'unterminated'), ('weakly_typed: 1', 'true or false'),
    ('optimization_level: 9', '0..5'), ('tactic_sources: [1]', 'tactic_sources'),
    ('tactic_sources: [CUDNN, cublas]', 'no tactic source "cublas"'),
    ('wrkspace: 3', 'unknown key')])
def test_a_wrong_value_of_a_profile_is_named(tmp_path, line, words):
    path = tmp_path / 'mine.yaml'
    key = line.split(':')[0]
    lines = [text for text in profiles.available()['desktop'].read_text().splitlines()
             if not text.startswith(f'{key}:')]
    path.write_text('\n'.join([*lines, line]))
    with pytest.raises(UserError, match=words):
        profiles.load(str(path))


@pytest.mark.parametrize('name', ['', '.', '..', '/', 'a/b', 'x' * 5000, 'x' * 5000 + '.yaml',
                                  'a\0b.yaml', '/usr/.yaml/.yaml', '\udcff.yaml'])
def test_a_profile_that_is_none_is_named(name):
    with pytest.raises(UserError, match='no profile'):
        profiles.load(name)


def test_mutated_reference_results_are_used_or_refused_in_one_sentence(tmp_path):
    rng, path = np.random.default_rng(4), tmp_path / 'r.npz'
    Reference('ab' * 32, np.ones((2, 3, 8, 8), np.float32),
              [np.ones((2, 6, 9), np.float32)]).save(path)
    good, total = path.read_bytes(), count(2000)
    bad = 0
    for _ in range(total):
        path.write_bytes(mutate_bytes(rng, good))
        bad += refused(Reference.load, path)
    assert total / 2 < bad < total


@pytest.mark.parametrize('text', ['', '{', '[]', '{"x": 1}', '{"images": 1, "a": "y"}', '[' * 10**5])
def test_a_broken_calibration_cache_is_made_anew(tmp_path, text):
    model = conv_model.build()
    images = [np.random.default_rng(0).random((1, 3, *conv_model.SIZE[::-1]), np.float32)]
    first = calibrate(model, ['images', 'a'], images, 'minmax', tmp_path)
    cached, = tmp_path.iterdir()
    cached.write_text(text)
    assert calibrate(model, ['images', 'a'], images, 'minmax', tmp_path) == first
    assert json.loads(cached.read_text()) == first
