"""Keys, bundles and stores for the tests of the model store."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys
import traceback

import models
import pytest

pytest.importorskip('cryptography')

from yolojet_ros.operate.model_store import keys, ModelStore  # noqa: E402
from yolojet_ros.operate.model_store.adding import add_bundle, working  # noqa: E402
from yolojet_ros.operate.model_store.signing import make_bundle  # noqa: E402

# What changes files; each is told to audit hooks before it is done.
_CHANGES = ('os.rename', 'os.mkdir', 'os.symlink', 'os.remove', 'os.rmdir', 'os.chmod', 'os.chown',
            'os.truncate', 'os.link')


class Samples:
    """A key pair, and bundles 1.0.0 to 1.3.0 of a small model with sequence numbers 10 to 40."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.public = folder / 'fleet', folder / 'fleet.pub'
        keys.generate(self.key)
        self.model = folder / 'crates.onnx'
        models.write_model(self.model, models.raw_output(
            [[32, 32, 16, 16]], [[0.9, 0, 0]], (64, 64)), (64, 64))
        (folder / 'crates.card.yaml').write_text('names: [crate, barrel, cone]\n')
        self.bundles = [self.bundle(f'1.{number}.0', 10 * (number + 1)) for number in range(4)]

    def bundle(self, version, sequence, key=None, unsigned=False, **options):
        """Write and return a bundle."""
        out = options.pop('out', self.folder / f'crates-{version}.tar')
        return make_bundle(self.model, version, None if unsigned else key or self.key, out,
                           sequence=sequence, **options)

    def store(self, folder: Path, added=(), active=()):
        """
        Return a new store that trusts the key.

        :param added: numbers of the bundles in it
        :param active: versions that were activated and confirmed, one after the other
        """
        store = ModelStore.create(folder)
        store.trust(self.public)
        for number in added:
            add(store, self.bundles[number])
        for version in active:
            store.activate(version)
            store.confirm(version)
        return store


def add(store, path, **options):
    """Add a bundle as the command does."""
    with working(store):
        return add_bundle(store, path, print, **options)


def snapshot(folder: Path):
    """Return all that is in a folder: names, kinds, contents, modes."""
    return {str(path.relative_to(folder)): (
        os.readlink(path) if path.is_symlink() else
        path.read_bytes() if path.is_file() else None, path.lstat().st_mode)
        for path in sorted(folder.rglob('*'))}


def killed(action, change: int) -> bool:
    """
    Run `action` in a child that is killed before its `change`-th change of a file.

    Return whether it was; it was not if it ended before.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            left = change

            def hook(event, arguments):
                nonlocal left
                if event in _CHANGES or event == 'open' and isinstance(
                        arguments[2], int) and arguments[2] & (
                        os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1

            sys.addaudithook(hook)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
