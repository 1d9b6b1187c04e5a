"""The model store: what is taken in, what a node is given, and the way back."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from store_samples import add, Samples, snapshot

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import keys, ModelStore
from yolojet_ros.operate.model_store.adding import working
from yolojet_ros.operate.model_store.collecting import collect

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp('samples'))


@pytest.fixture(scope='module')
def template(samples):
    """Return a store with 1.0.0 to 1.2.0, of which 1.0.0 and 1.1.0 ran well and 1.2.0 is new."""
    store = samples.store(samples.folder / 'template', (0, 1, 2), ('1.0.0', '1.1.0'))
    store.activate('1.2.0')
    return store.folder


@pytest.fixture
def store(template, tmp_path):
    shutil.copytree(template, tmp_path / 'store', symlinks=True)
    return ModelStore(tmp_path / 'store')


def _refused(store, words, action):
    """Check that an action is refused in one sentence with these words, and changes nothing."""
    before = snapshot(store.folder)
    with pytest.raises(UserError) as found:
        action()
    assert words in str(found.value) and '\n' not in str(found.value)
    assert snapshot(store.folder) == before


def test_what_a_node_is_given(store, samples):
    model = store.active()
    assert (model.version, model.sequence, model.confirmed) == ('1.2.0', 30, False)
    assert model.model == store.versions / '1.2.0' / 'crates.onnx'
    assert model.model.read_bytes() == samples.model.read_bytes()
    assert (model.names, model.task) == (('crate', 'barrel', 'cone'), 'detect')
    assert (model.signed_by, model.engine, model.went_back) == ('fleet', None, '')
    assert sorted(os.listdir(model.folder)) == [
        'crates.card.yaml', 'crates.onnx', 'manifest.json', 'manifest.sig']
    assert (store.folder / 'active' / 'crates.onnx').samefile(model.model)


def test_a_version_that_ran_well_is_tried_as_often_as_one_likes(store):
    assert store.start_trial().tries == 1
    store.confirm('1.2.0')
    before = snapshot(store.folder)
    for _ in range(5):
        model = store.start_trial()
        assert (model.version, model.confirmed) == ('1.2.0', True)
    assert snapshot(store.folder) == before


def test_three_tries_without_a_good_minute_go_back_by_themselves(store):
    assert [store.start_trial().version for _ in range(3)] == ['1.2.0'] * 3
    model = store.start_trial()
    assert (model.version, model.confirmed) == ('1.1.0', True)
    assert '1.2.0 was given up: the process ended 3 times' in model.went_back
    assert 'ended 3 times' in store.states.read().failed['1.2.0']
    assert store.start_trial().version == '1.1.0'
    # Tried again by hand it has three more, and once it runs well nothing is held against it.
    store.activate('1.2.0')
    assert store.start_trial().tries == 1
    store.confirm('1.2.0')
    assert store.states.read().failed == {}


def test_a_node_that_was_told_to_end_has_not_tried(store):
    for _ in range(5):
        assert store.start_trial().tries == 1
        store.end_trial('1.2.0')
    before = snapshot(store.folder)
    store.end_trial('1.2.0')
    store.end_trial('1.1.0')
    assert snapshot(store.folder) == before


def test_without_a_way_back_it_is_tried_for_ever(samples, tmp_path):
    store = samples.store(tmp_path / 'store', (0,))
    store.activate('1.0.0')
    assert [store.start_trial().tries for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match='no whole version before 1.0.0'):
        store.give_up('1.0.0', 'slow')
    assert store.states.read().failed == {'1.0.0': 'slow'}


def test_giving_up_goes_to_the_last_that_ran_well(store, samples):
    add(store, samples.bundles[3])
    store.activate('1.3.0')  # 1.2.0 never ran
    model = store.give_up('1.3.0', 'the latency\nis 3x')
    assert (model.version, model.confirmed) == ('1.1.0', True)
    assert model.went_back == '1.3.0 was given up: the latency is 3x'
    with pytest.raises(UserError, match='1.3.0 is not the active version, 1.1.0 is'):
        store.give_up('1.3.0', 'again')
    with pytest.raises(UserError, match='not the active version'):
        store.confirm('1.3.0')
    assert store.rollback().version == '1.0.0'
    _refused(store, 'no whole version before 1.0.0', store.rollback)


def test_a_damaged_version_is_given_up_for_a_whole_one(store):
    for version in ('1.2.0', '1.1.0'):
        with open(store.versions / version / 'crates.onnx', 'r+b') as file:
            file.seek(100)
            file.write(b'\0\1')
    model = store.start_trial()
    assert model.version == '1.0.0'
    assert 'crates.onnx of version 1.2.0 is damaged' in model.went_back
    with open(store.versions / '1.0.0' / 'crates.onnx', 'ab') as file:
        file.write(b'x')
    _refused(store, 'damaged', store.start_trial)
    _refused(store, 'damaged', store.active)


def test_an_old_version_that_was_damaged_is_mended_by_its_own_bundle(store, samples):
    with open(store.versions / '1.0.0' / 'crates.onnx', 'ab') as file:
        file.write(b'x')
    assert add(store, samples.bundles[0]).new, 'no downgrade: it was here'
    assert store.check('1.0.0').manifest.version == '1.0.0'
    other = samples.bundle('1.0.0', 11, out=samples.folder / 'other.tar')
    with open(store.versions / '1.0.0' / 'crates.onnx', 'ab') as file:
        file.write(b'x')
    with pytest.raises(UserError, match='old version'):
        add(store, other)


def test_what_was_added_to_a_version_is_seen(store):
    (store.versions / '1.2.0' / 'manifest.json').write_bytes(
        (store.versions / '1.1.0' / 'manifest.json').read_bytes())
    _refused(store, '1.2.0 holds version 1.1.0', store.active)
    shutil.rmtree(store.versions / '1.2.0')
    shutil.copytree(store.versions / '1.0.0', store.versions / '1.2.0')
    _refused(store, 'holds version 1.0.0', store.active)
    (store.versions / '1.0.0' / 'other.card.yaml').write_text('head: yolox')
    _refused(store, 'which its manifest does not list', lambda: store.check('1.0.0'))
    (store.versions / '1.1.0' / 'crates.engine').write_text('built here')
    assert store.check('1.1.0').signed_by == 'fleet'


def test_signatures(store, samples, tmp_path):
    unsigned = samples.bundle('1.4.0', 50, unsigned=True, out=tmp_path / 'unsigned.tar')
    _refused(store, 'is not signed', lambda: add(store, unsigned))
    assert add(store, unsigned, allow_unsigned=True).signed_by == ''
    store.activate('1.4.0')
    assert store.active().signed_by == ''
    other = tmp_path / 'other'
    keys.generate(other)
    foreign = samples.bundle('1.5.0', 60, other, out=tmp_path / 'foreign.tar')
    for options in ({}, {'allow_unsigned': True}):
        _refused(store, 'is signed by a key', lambda: add(store, foreign, **options))
    store.trust(tmp_path / 'other.pub')
    assert add(store, foreign).signed_by == 'other'
    store.activate('1.5.0')
    store.distrust('other')
    _refused(store, 'that is not trusted here', store.active)
    # A signature of another version, by the right key.
    shutil.copy(store.versions / '1.0.0' / 'manifest.sig', store.versions / '1.1.0')
    _refused(store, 'does not fit its manifest', lambda: store.check('1.1.0'))


def test_old_versions_sent_again_are_refused(store, samples):
    assert not add(store, samples.bundles[1]).new  # the same one: nothing to do
    collect(store, 0)
    assert store.names() == ['1.1.0', '1.2.0']
    _refused(store, 'is an old version', lambda: add(store, samples.bundles[0]))
    store.rollback()
    collect(store, 0)
    assert store.names() == ['1.1.0']
    _refused(store, 'and 30 was here already', lambda: add(store, samples.bundles[0]))
    assert add(store, samples.bundles[0], allow_downgrade=True).new
    assert add(store, samples.bundles[2]).new  # the newest itself is not an old one
    store.activate('1.2.0')
    _refused(store, 'is older than the active 1.2.0', lambda: store.activate('1.1.0'))
    store.activate('1.1.0', allow_downgrade=True)
    other = samples.bundle('1.1.0', 99, out=samples.folder / 'other.tar')
    _refused(store, 'another 1.1.0 is in the store already', lambda: add(store, other))
    _refused(store, 'there is no version 7.0', lambda: store.activate('7.0'))
    elsewhere = store.folder.parent / '1.2.0'
    shutil.copytree(store.versions / '1.2.0', elsewhere)
    for path in ('../../1.2.0', '../versions/1.2.0', str(elsewhere), ''):
        _refused(store, 'version is', lambda: store.activate(path))


def test_gc_keeps_what_is_needed(store, samples):
    assert collect(store, 5) == ([], []) and len(store.names()) == 3
    add(store, samples.bundles[3])
    held = ModelStore(store.folder)
    store.give_up('1.2.0', 'x')
    store.activate('1.3.0')
    store.confirm('1.3.0')
    model = held.activate('1.2.0', allow_downgrade=True)
    store.activate('1.3.0')
    # 1.1.0 is where a rollback leads, as 1.2.0 never ran well; a node runs 1.2.0 all the same.
    assert collect(store, 2) == (['1.0.0'], [])
    assert collect(store, 0) == ([], ['1.2.0'])
    assert store.names() == ['1.1.0', '1.2.0', '1.3.0']
    model.release()
    assert collect(store, 1) == (['1.2.0'], [])
    add(store, samples.bundle('1.4.0', 50))
    assert collect(store, 0) == (['1.4.0'], [])
    assert store.states.read().highest == 50 and store.rollback().version == '1.1.0'


def test_one_command_at_a_time_but_a_node_any_time(store, samples):
    other = ModelStore(store.folder)
    with working(store):
        for action in (lambda: add(other, samples.bundles[3]), lambda: collect(other, 1)):
            with pytest.raises(UserError, match='right now'):
                action()
        assert other.start_trial().version == '1.2.0'
        other.confirm('1.2.0')
        assert other.rollback().version == '1.1.0'


def test_many_at_once_leave_one_whole_state_and_lose_nothing(store, samples, tmp_path):
    """Processes try, confirm and activate as fast as they can; one only looks."""
    script = '''
import sys
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import ModelStore
for _ in range(25):
    store = ModelStore(sys.argv[1])
    try:
        if sys.argv[2] == 'look':
            assert store.active().version in ('1.0.0', '1.1.0', '1.2.0')
        elif sys.argv[2] == 'node':
            store.confirm(store.start_trial().version)
        elif sys.argv[2] == 'try':
            store.start_trial()
        else:
            store.activate(sys.argv[2], True)
    except UserError as error:
        assert 'not the active version' in str(error), error
'''

    def run(folder, *what):
        children = [subprocess.Popen(
            [sys.executable, '-c', script, str(folder), word], cwd=_ROOT, stderr=subprocess.PIPE)
            for word in what]
        for child in children:
            assert child.communicate(timeout=60)[1] == b'' and child.returncode == 0
        assert len(os.listdir(folder / 'state')) <= 3

    run(store.folder, 'look', 'node', '1.0.0', '1.1.0')
    state = store.states.read()
    assert store.active().version == state.active
    assert len({past.version for past in state.past}) == len(state.past)
    counted = samples.store(tmp_path / 'counted', (0,))
    counted.activate('1.0.0')
    run(counted.folder, 'try', 'try', 'try')
    assert counted.states.read().tries == 75  # not one is lost


@pytest.fixture
def public():
    """Return a folder that others can reach, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
def test_another_user_may_confirm_and_go_back_in_its_group_and_nothing_else(samples, public):
    script = '''
import os, pathlib, sys
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import ModelStore
ModelStore(sys.argv[1]).active()  # imports all, which another user may not be able to read
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[4])); os.umask(0o077)
store = ModelStore(sys.argv[1])
for action in (lambda: store.confirm('1.2.0'), lambda: store.give_up('1.2.0', 'slow').version,
               lambda: store.start_trial().version, lambda: store.trust(pathlib.Path(sys.argv[3])),
               lambda: os.rename(store.versions / '1.0.0', store.versions / '2.0.0')):
    try:
        print(action())
    except (UserError, OSError) as error:
        print(error)
'''
    umask = os.umask(0o077)
    store = samples.store(public / 'store', (0, 1, 2), ('1.0.0', '1.1.0'))
    store.activate('1.2.0')
    os.umask(umask)
    def run(group, user=4242):
        result = subprocess.run(
            [sys.executable, '-c', script, str(store.folder), str(group),
             str(other.with_name('other.pub')), str(user)],
            cwd=_ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    other = public / 'other'
    keys.generate(other)
    before = snapshot(store.folder)
    said = run(4243)
    for line in said[:3]:
        assert 'cannot write to' in line and 'as user 4242' in line and '--group' in line
    assert snapshot(store.folder) == before
    os.chown(store.folder / 'state', 0, 4243)
    (store.folder / 'state').chmod(0o2775)
    said = run(4243)
    assert said[:3] == ['None', '1.1.0', '1.1.0']
    assert 'Permission denied' in said[3] and 'Permission denied' in said[4]
    # Root comes after it, and so does another user of the group, who clears up, too.
    store.activate('1.2.0')
    assert run(4243)[:2] == ['None', '1.1.0']
    store.activate('1.2.0')
    assert run(4243, 4244)[:2] == ['None', '1.1.0']
    assert len(os.listdir(store.folder / 'state')) <= 3


def test_a_store_is_made_once(tmp_path, samples):
    with pytest.raises(UserError, match='is no model store'):
        ModelStore(tmp_path)
    store = ModelStore.create(tmp_path / 'a' / 'store')
    _refused(store, 'is a model store already', lambda: ModelStore.create(store.folder))
    _refused(store, 'no version is active', store.start_trial)
    _refused(store, 'no version is active', store.rollback)
    _refused(store, 'is no public key', lambda: store.trust(samples.key))
    _refused(store, 'no key called x', lambda: store.distrust('x'))
    (tmp_path / 'home').mkdir(mode=0o700)
    (tmp_path / 'home' / 'letter').write_text('mine')
    with pytest.raises(UserError, match='holds other things'):
        ModelStore.create(tmp_path / 'home')
    assert (tmp_path / 'home').stat().st_mode & 0o777 == 0o700
    with pytest.raises(UserError, match='there is no group'):
        ModelStore.create(tmp_path / 'b', 'no-such-group')
    (store.folder / 'store.json').write_text('{"format": "yolojet-model-store-2"}')
    with pytest.raises(UserError, match='of another kind'):
        ModelStore(store.folder)


def test_a_node_without_cryptography_says_so_and_keeps_what_is_active(store, samples, tmp_path):
    script = '''
import sys
sys.modules['cryptography'] = None
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import ModelStore
assert not {'numpy', 'onnxruntime', 'onnx'} & set(sys.modules)
try:
    print(ModelStore(sys.argv[1]).start_trial().version)
except UserError as error:
    print(error)
'''

    def run(folder):
        return subprocess.run([sys.executable, '-c', script, str(folder)], cwd=_ROOT, check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    before = snapshot(store.folder)
    said = run(store.folder)
    assert 'signatures need the Python package cryptography' in said
    assert 'pip install cryptography' in said and snapshot(store.folder) == before
    plain = ModelStore.create(tmp_path / 'plain')
    add(plain, samples.bundle('0.9.0', 5, unsigned=True, out=tmp_path / 'u.tar'),
        allow_unsigned=True)
    plain.activate('0.9.0')
    assert run(plain.folder) == '0.9.0\n'
    # It is no reason to go back from a signed version to one that needs no check.
    plain.trust(samples.public)
    add(plain, samples.bundles[0])
    plain.activate('1.0.0')
    assert 'cryptography' in run(plain.folder) and plain.states.read().active == '1.0.0'


def test_without_cryptography_no_signed_version_is_replaced(store, samples, tmp_path, monkeypatch):
    unsigned = samples.bundle('1.2.0', 30, unsigned=True, out=tmp_path / 'u.tar')
    monkeypatch.setitem(sys.modules, 'cryptography.hazmat.primitives', None)
    _refused(store, 'cryptography', lambda: add(store, unsigned, allow_unsigned=True))


def test_keys_are_those_of_openssl(samples, tmp_path):
    if shutil.which('openssl') is None:
        pytest.skip('openssl is not installed')
    assert samples.key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match='is there'):
        keys.generate(samples.key)
    made = tmp_path / 'made'
    subprocess.run(['openssl', 'genpkey', '-algorithm', 'ed25519', '-out', made], check=True)
    subprocess.run(['openssl', 'pkey', '-in', made, '-pubout', '-out', tmp_path / 'made.pub'],
                   check=True)
    key = keys.read_public(tmp_path / 'made.pub')
    signed = keys.sign(b'data', made)
    assert keys.check_signature(b'data', signed, {key.fingerprint: key}, 'x') == 'made'
    with pytest.raises(UserError, match='does not fit'):
        keys.check_signature(b'date', signed, {key.fingerprint: key}, 'x')
    rsa = tmp_path / 'rsa'
    subprocess.run(['openssl', 'genpkey', '-algorithm', 'rsa', '-out', rsa], check=True,
                   stderr=subprocess.DEVNULL)
    with pytest.raises(UserError, match='cannot be used to sign'):
        keys.sign(b'data', rsa)


def test_a_state_that_nobody_can_read_is_a_sentence(store):
    for text in ('', '[' * 100000, '{"active": 1}', json.dumps({'tries': 10**400})):
        (store.folder / 'state' / 'current' / 'state.json').write_text(text)
        _refused(store, 'state.json cannot be read', store.start_trial)
    (store.folder / 'state' / 'current').unlink()
    store.activate('1.2.0')
    assert store.start_trial().version == '1.2.0'
