"""Bundles that anybody may have made: refused in a sentence, and nothing is changed."""

import io
import json
import os
import tarfile

from hypothesis import given, settings, strategies as st
import pytest
from store_samples import add, Samples, snapshot

from yolojet_ros.core.engine_card import sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import keys
from yolojet_ros.operate.model_store.bundle import open_bundle, write_bundle
from yolojet_ros.operate.model_store.manifest import FileEntry, Manifest
from yolojet_ros.operate.model_store.signing import make_bundle


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp('samples'))


@pytest.fixture(scope='module')
def store(samples):
    return samples.store(samples.folder / 'store', (0,), ('1.0.0',))


@pytest.fixture(scope='module')
def parts(samples):
    """Return (members of the bundle 1.1.0, by name)."""
    with tarfile.open(samples.bundles[1]) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def _archive(path, members):
    """Write an archive of (name or TarInfo, content)."""
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _refused(store, path, *words, **options):
    before = snapshot(store.folder)
    outside = sorted(os.listdir(store.folder.parent))
    with pytest.raises(UserError) as found:
        add(store, path, **options)
    text = str(found.value)
    assert all(word in text for word in words) and len(text) < 700 and text.isprintable(), text
    assert snapshot(store.folder) == before
    assert sorted(os.listdir(store.folder.parent)) == outside


def test_paths_links_and_devices(store, parts, tmp_path):
    signed = [(name, parts[name]) for name in ('manifest.json', 'manifest.sig')]
    for name in ('../crates.onnx', '/etc/crates.onnx', '../../../../tmp/x', 'a/crates.onnx', '..',
                 'crates.onnx\n', 'manifest.json', '.crates.onnx'):
        path = _archive(tmp_path / 'x.tar', [*signed, (name, parts['crates.onnx'])])
        _refused(store, path, 'no whole bundle')
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
                 tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE,
                 tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo('crates.onnx')
        member.type, member.linkname = kind, '/etc/passwd'
        for before in (signed, []):
            path = _archive(tmp_path / 'x.tar', [*before, (member, b'')])
            _refused(store, path, 'is no plain file')
    # A folder with the right names, one of which leads elsewhere.
    for place in ('crates.onnx', 'manifest.json', 'manifest.sig'):
        folder = tmp_path / place
        folder.mkdir()
        for name, content in parts.items():
            (folder / name).write_bytes(content)
        elsewhere = tmp_path / f'{place}.elsewhere'
        (folder / place).rename(elsewhere)
        (folder / place).symlink_to(elsewhere)
        _refused(store, folder, 'no whole bundle', place)
        (folder / place).unlink()
        os.mkfifo(folder / place)
        _refused(store, folder, 'no whole bundle', place)
    (folder / place).unlink()
    elsewhere.rename(folder / place)
    (folder / 'more.card.yaml').write_text('head: yolox')
    _refused(store, folder, 'which its manifest does not list')


def test_a_folder_is_as_good_as_a_file(samples, parts, tmp_path):
    store = samples.store(tmp_path / 'store')
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    folder = tmp_path / 'bundle'
    folder.mkdir()
    for name in parts:
        (tmp_path / name).rename(folder / name)
    assert add(store, folder).new
    assert store.check('1.1.0').signed_by == 'fleet'


def test_every_byte_counts(store, samples, parts, tmp_path):
    """One bit of the manifest, the signature or a file is changed, at many places."""
    for name, words in (('manifest.json', 'manifest'), ('manifest.sig', 'sign'),
                        ('crates.onnx', 'SHA-256'), ('crates.card.yaml', 'SHA-256')):
        content = parts[name]
        for at in range(0, len(content), max(1, len(content) // 40)):
            changed = bytearray(content)
            changed[at] ^= 1
            members = [(key, bytes(changed) if key == name else value)
                       for key, value in parts.items()]
            _refused(store, _archive(tmp_path / 'x.tar', members), words)
            if name == 'manifest.json':  # nor is it the manifest that is believed without a key
                _refused(store, tmp_path / 'x.tar', words, allow_unsigned=True)


def test_cut_anywhere(store, samples, tmp_path):
    whole = samples.bundles[1].read_bytes()
    end = max(index for index, byte in enumerate(whole) if byte) + 1
    for size in [*range(0, end, 499), end - 1, end]:
        (tmp_path / 'x.tar').write_bytes(whole[:size])
        _refused(store, tmp_path / 'x.tar', 'x.tar')


def test_a_model_that_does_not_load(store, samples, tmp_path):
    path = tmp_path / 'crates.onnx'
    path.write_bytes(samples.model.read_bytes()[:-100])
    manifest = Manifest.make('crates', '2.0.0', 99, '', 'crates.onnx', 'detect', (), (
        FileEntry('crates.onnx', path.stat().st_size, sha256(path)),))
    bundle = tmp_path / 'x.tar'
    write_bundle(bundle, manifest.data(), keys.sign(manifest.data(), samples.key), [path])
    _refused(store, bundle, 'crates.onnx')
    with pytest.raises(UserError, match='crates.onnx'):
        make_bundle(path, '2.0.0', samples.key, bundle)


_GOOD = {
    'format': 'yolojet-model-1', 'name': 'crates', 'version': '1.1.0', 'sequence': 20,
    'created': '2026-01-01T00:00:00Z', 'model': 'a.onnx', 'task': 'detect', 'classes': ['crate'],
    'files': [{'name': 'a.onnx', 'size': 1, 'sha256': 'a' * 64}]}


def _canonical(value):
    return json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False).encode()


def test_a_manifest_is_read_strictly():
    assert Manifest.parse(_canonical(_GOOD), 'x').data() == _canonical(_GOOD)
    file = _GOOD['files'][0]
    for change in (
            {'format': 'yolojet-model-2'}, {'version': '..'}, {'version': 'a/b'}, {'version': ''},
            {'version': '-1'}, {'version': 'v' * 65}, {'version': '1\n'}, {'sequence': 0},
            {'sequence': -1}, {'sequence': 2**53}, {'sequence': 1.5}, {'sequence': True},
            {'sequence': 10**5000}, {'model': 'b.onnx'}, {'classes': ['a\x1b[2J']},
            {'classes': 'crate'}, {'name': 'a\nb'}, {'name': None}, {'more': 1}, {'files': []},
            {'files': [file, file]}, {'files': [file] * 1000},
            *({'files': [{**file, **part}]} for part in (
                {'name': '../a.onnx'}, {'name': 'a.engine'}, {'name': 'manifest.sig'},
                {'name': ''}, {'size': -1}, {'size': 2**40}, {'sha256': 'A' * 64},
                {'sha256': ''}, {'mode': 7})),
            {'model': 'a.txt', 'files': [{**file, 'name': 'a.txt'}]}):
        with pytest.raises(UserError) as found:
            try:
                data = _canonical({**_GOOD, **change})
            except ValueError:  # this Python writes no number of so many digits
                data = _canonical(_GOOD).replace(b':20,', b':' + b'9' * 5000 + b',')
            Manifest.parse(data, 'x')
        assert len(str(found.value)) < 500
    good = _canonical(_GOOD)
    for data in (good + b'\n', good.replace(b':20', b': 20'), b'\xef\xbb\xbf' + good,
                 good.replace(b'"classes"', b'"classes":["x"],"classes"'), b'[' * 100000,
                 good.replace(b':20,', b':NaN,'), b'{"a":' * 5000, good.replace(b'20', b'2e1')):
        with pytest.raises(UserError):
            Manifest.parse(data, 'x')


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8)


@settings(max_examples=150)
@given(st.data())
def test_no_manifest_raises_anything_else(data):
    value = dict(_GOOD)
    for key in data.draw(st.lists(st.sampled_from([*_GOOD, 'other']), min_size=1, max_size=3)):
        value[key] = data.draw(_JSON)
    if data.draw(st.booleans()):
        value['files'] = [{**_GOOD['files'][0], data.draw(
            st.sampled_from(['name', 'size', 'sha256'])): data.draw(_JSON)}]
    try:
        raw = _canonical(value)
    except UnicodeEncodeError:  # half a surrogate pair
        raw = json.dumps(value).encode()
    try:
        assert Manifest.parse(raw, 'x').data() == raw
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 500


@settings(max_examples=100)
@given(content=st.binary(max_size=2048), header=st.binary(max_size=80), at=st.integers(0, 511))
def test_no_archive_raises_anything_else(tmp_path_factory, content, header, at):
    """Random bytes, also under a right checksum and with parts of the header replaced."""
    member = tarfile.TarInfo('manifest.json')
    member.size = len(content)
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    part = header[:max(0, 512 - at)]
    block[at:at + len(part)] = part
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    path = tmp_path_factory.getbasetemp() / 'random.tar'
    for data in (content, bytes(block) + content):
        path.write_bytes(data)
        with pytest.raises(UserError) as found:
            with open_bundle(path) as bundle:
                bundle.extract(path.parent / 'never')
        assert str(found.value).isprintable() and len(str(found.value)) < 700


@settings(max_examples=60)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(
    'utf-8', 'surrogatepass')))
def test_no_key_and_no_signature_raises_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'key.pub'
    for content in (data, b'-----BEGIN PUBLIC KEY-----\n' + data + b'-----END PUBLIC KEY-----\n'):
        path.write_bytes(content)
        with pytest.raises(UserError):
            keys.read_public(path)
        with pytest.raises(UserError):
            keys.sign(b'', path)
    with pytest.raises(UserError):
        keys.check_signature(b'', data, {}, 'x')
