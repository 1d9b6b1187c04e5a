"""Every command on a store, killed before each of its changes of a file: nothing is half done."""

import os
from pathlib import Path
import shutil
import tempfile

import pytest
from store_samples import add, killed, Samples

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import adding, building, keys, ModelStore
from yolojet_ros.operate.model_store.adding import working
from yolojet_ros.operate.model_store.checking import ModelFacts
from yolojet_ros.operate.model_store.collecting import collect


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp('samples'))


@pytest.fixture
def tmp_path():
    """Return a folder in memory, as a disk takes milliseconds for each of thousands of flushes."""
    memory = '/dev/shm'
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Do not let the models run each time, which changes no file."""
    monkeypatch.setattr(adding, 'load_model', lambda path: ModelFacts('detect', (), ''))


@pytest.fixture(scope='module')
def template(samples):
    """Return a store with 1.0.0 to 1.2.0, of which 1.0.0 and 1.1.0 ran well and 1.2.0 is new."""
    store = samples.store(samples.folder / 'template', (0, 1, 2), ('1.0.0', '1.1.0'))
    store.activate('1.2.0')
    return store.folder


def _check_whole(store):
    """Whatever was being done: a whole version is active, and all that are there are whole."""
    state = store.states.read()
    assert store.active().version == state.active
    assert (store.folder / 'active').resolve() == store.versions / state.active
    for version in store.names():
        store.check(version)
    for past in state.ways_back()[:1]:
        assert (store.versions / past.version).is_dir()


def _check_clean(store):
    """Nothing is left after gc but the state, and the one before for who reads it."""
    collect(store, 99)
    assert os.listdir(store.incoming) == []
    assert len(os.listdir(store.folder / 'state')) <= 3
    assert '.new' not in os.listdir(store.folder / 'state')


def _trial(store):
    while store.start_trial().version == '1.2.0':
        pass


def _publish(store):
    with working(store):
        folder = store.incoming / 'build-x'
        folder.mkdir()
        for suffix in ('.engine', '.engine.json'):
            (folder / f'crates{suffix}').write_text(f'new{suffix}')
        building._publish(
            folder / 'crates.engine', folder / 'crates.engine.json', store.versions / '1.1.0')
        shutil.rmtree(folder)


def _engine_fits(store):
    engine, card = (store.versions / '1.1.0' / f'crates{suffix}'
                    for suffix in ('.engine', '.engine.json'))
    if engine.exists():  # with its own card
        assert engine.read_text()[:3] == card.read_text()[:3]


# What is done, what may be active afterwards, what is in the end.
_ACTIONS = {
    'add': (lambda store, samples: add(store, samples.bundles[3]), ['1.2.0'], '1.2.0'),
    'activate': (lambda store, samples: store.activate('1.1.0', True), ['1.2.0', '1.1.0'],
                 '1.1.0'),
    'rollback': (lambda store, samples: store.rollback(), ['1.2.0', '1.1.0', '1.0.0'], None),
    'give_up': (lambda store, samples: store.states.read().active == '1.2.0' and
                store.give_up('1.2.0', 'slow'), ['1.2.0', '1.1.0'], '1.1.0'),
    'confirm': (lambda store, samples: store.confirm('1.2.0'), ['1.2.0'], '1.2.0'),
    'end_trial': (lambda store, samples: (store.start_trial(), store.end_trial('1.2.0')),
                  ['1.2.0'], '1.2.0'),
    'trials': (lambda store, samples: _trial(store), ['1.2.0', '1.1.0'], '1.1.0'),
    'gc': (lambda store, samples: collect(store, 0), ['1.2.0'], '1.2.0'),
    'trust': (lambda store, samples: store.trust(samples.folder / 'other.pub'), ['1.2.0'],
              '1.2.0'),
    'publish': (lambda store, samples: _publish(store), ['1.2.0'], '1.2.0'),
}


@pytest.mark.parametrize('name', _ACTIONS)
def test_killed_at_every_step(name, samples, template, tmp_path):
    action, between, end = _ACTIONS[name]
    if not (samples.folder / 'other.pub').exists():
        keys.generate(samples.folder / 'other')
    for change in range(200):
        folder = tmp_path / str(change)
        shutil.copytree(template, folder, symlinks=True)
        if name == 'publish':
            for suffix in ('.engine', '.engine.json'):
                (folder / 'versions' / '1.1.0' / f'crates{suffix}').write_text(f'old{suffix}')
        store = ModelStore(folder)
        if name == 'trials':  # the last try, then the way back
            store.start_trial(), store.start_trial()
        was_killed = killed(lambda: action(ModelStore(folder), samples), change)
        _check_whole(store)
        _engine_fits(store)
        assert store.states.read().active in between
        action(store, samples)
        _check_whole(store)
        _check_clean(store)
        assert end in (None, store.states.read().active)
        shutil.rmtree(folder)
        if not was_killed:
            break
    assert not was_killed and change >= 3


def test_mending_killed_at_every_step(samples, template, tmp_path):
    for change in range(100):
        store = ModelStore(shutil.copytree(template, tmp_path / str(change), symlinks=True))
        (store.versions / '1.2.0' / 'crates.onnx').write_bytes(b'damaged')
        was_killed = killed(lambda: add(store, samples.bundles[2]), change)
        assert store.start_trial().version in ('1.1.0', '1.2.0')
        add(store, samples.bundles[2])
        store.check('1.2.0')
        _check_whole(store)
        _check_clean(store)
        if not was_killed:
            break
    assert not was_killed and change >= 10


def test_creation_killed_at_every_step(samples, tmp_path):
    for change in range(100):
        folder = tmp_path / str(change)
        was_killed = killed(lambda: ModelStore.create(folder), change)
        try:
            store = ModelStore(folder)
        except UserError:
            store = ModelStore.create(folder)
        store.trust(samples.public)
        add(store, samples.bundles[0])
        store.activate('1.0.0')
        _check_whole(store)
        if not was_killed:
            break
    assert not was_killed and change >= 8


def test_what_is_published_was_flushed_before(samples, tmp_path, monkeypatch):
    store = samples.store(tmp_path / 'store')
    flushed, order = set(), []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def note(handle):
        fsync(handle)
        flushed.add(os.fstat(handle).st_ino)

    def checked(move):
        def moved(source, target):
            found = [source, *source.rglob('*')] if source.is_dir() else [source]
            if source.is_symlink():
                found = [*source.resolve().iterdir(), source.resolve()]
            order.extend(path for path in found if not path.is_symlink())
            assert all(path.stat().st_ino in flushed for path in found if not path.is_symlink())
            move(source, target)
            flushed.discard(target.parent.stat().st_ino)
        return moved

    monkeypatch.setattr(os, 'fsync', note)
    monkeypatch.setattr(os, 'rename', checked(rename))
    monkeypatch.setattr(os, 'replace', checked(replace))
    add(store, samples.bundles[0])
    assert store.versions.stat().st_ino in flushed
    store.activate('1.0.0')
    assert (store.folder / 'state').stat().st_ino in flushed
    assert len(order) >= 7  # the version: a folder, 4 files; the state: a folder, a file
