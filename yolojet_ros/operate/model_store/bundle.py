"""
A model version on its way: one file, or a folder, with a manifest, a signature and the files.

The file is a ustar archive of plain files in a fixed order, manifest first, so that nothing
is written before its signature was looked at.
"""

from __future__ import annotations

from contextlib import contextmanager
import io
import os
from pathlib import Path
import tarfile
from typing import BinaryIO, Callable, Iterator, Optional, Sequence, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.text import shown
from yolojet_ros.operate.model_store.disk import copy_file, open_file
from yolojet_ros.operate.model_store.manifest import Manifest, MANIFEST, MAX_BYTES, SIGNATURE

_MAX_SIGNATURE = 1024
Opener = Callable[[str, int], BinaryIO]


class Bundle:
    """
    A bundle that is open to be read.

    data: the bytes of the manifest, which the signature is over
    signature: content of the signature file, None without one
    """

    def __init__(self, source: str, data: bytes, signature: Optional[bytes],
                 opener: Opener) -> None:
        self.source = source
        self.manifest = Manifest.parse(data, source)
        self.data = data
        self.signature = signature
        self._open = opener

    def extract(self, folder: Path) -> None:
        """
        Write all files into an empty folder.

        :raises UserError: if one is not what the manifest says.
        """
        for entry in self.manifest.files:
            file = self._open(entry.name, entry.size)
            try:
                digest = copy_file(file, entry.size, folder / entry.name)
            except EOFError:
                raise _Damaged(self.source, f'{entry.name} ends too early') from None
            if digest != entry.sha256:
                raise UserError(f'{entry.name} of {self.source} is not the file that the manifest '
                                'lists (its SHA-256 differs); fetch the bundle again')


class _Damaged(UserError):
    def __init__(self, source: str, what: str) -> None:
        super().__init__(f'{source} is no whole bundle ({what}); make it with "yolojet '
                         'model-store sign", or fetch it again')


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """
    Open a bundle, a file or a folder, that anybody may have made.

    :raises UserError: if it is none.
    """
    source = path.name
    if path.is_dir():
        yield _open_folder(path, source)
        return
    try:
        file = open_file(path)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}); give a bundle that "yolojet '
                        'model-store sign" made') from None
    with file:
        yield _open_archive(file, source)


def _open_folder(path: Path, source: str) -> Bundle:
    def opener(name: str, size: int) -> BinaryIO:
        try:
            file = open_file(path / name)
        except OSError as error:
            raise _Damaged(source, f'{name}: {error.strerror}') from None
        found = os.fstat(file.fileno()).st_size
        if found != size:
            file.close()
            raise _Damaged(source, f'{name} has {found} bytes, not {size}')
        return file

    def small(name: str, most: int) -> bytes:
        try:
            with open_file(path / name) as file:
                return file.read(most)
        except OSError as error:
            raise _Damaged(source, f'{name}: {error.strerror}') from None

    data = small(MANIFEST, MAX_BYTES)
    signed = os.path.lexists(path / SIGNATURE)
    bundle = Bundle(source, data, small(SIGNATURE, _MAX_SIGNATURE) if signed else None, opener)
    known = {MANIFEST, SIGNATURE, *(entry.name for entry in bundle.manifest.files)}
    odd = sorted(set(os.listdir(path)) - known)
    if odd:
        raise _Damaged(source, f'it holds {shown(odd[0])}, which its manifest does not list')
    return bundle


def _open_archive(file: BinaryIO, source: str) -> Bundle:
    end = os.fstat(file.fileno()).st_size
    name, size = _header(file, end, source)
    if name != MANIFEST or size > MAX_BYTES:
        raise _Damaged(source, f'it begins with {shown(name)}, not with a {MANIFEST}')
    data, signature = _content(file, size), None
    ahead = _header(file, end, source)
    if ahead[0] == SIGNATURE and ahead[1] <= _MAX_SIGNATURE:
        signature = _content(file, ahead[1])
        ahead = _header(file, end, source)
    at = file.tell()

    def opener(name: str, size: int) -> BinaryIO:
        nonlocal ahead, at
        file.seek(at)
        if ahead != (name, size):
            raise _Damaged(source, f'it holds {shown(ahead[0])} of {ahead[1]} bytes where the '
                                   f'manifest has {name} of {size}')
        start, at = at, at + _padded(size)
        file.seek(at)
        ahead = _header(file, end, source, last=True)
        at = file.tell()
        file.seek(start)
        return file

    return Bundle(source, data, signature, opener)


def _header(file: BinaryIO, end: int, source: str, last: bool = False) -> Tuple[str, int]:
    """Return (name, size) of the next plain file of an archive, ('', 0) at its end."""
    block = file.read(tarfile.BLOCKSIZE)
    if last and block == bytes(tarfile.BLOCKSIZE):
        return '', 0
    try:
        # Not by TarFile, which follows extended headers of any size into memory.
        member = tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
    except (tarfile.TarError, ValueError, OverflowError):
        raise _Damaged(source, 'it is no archive, or was cut') from None
    if member.type != tarfile.REGTYPE:
        raise _Damaged(source, f'{shown(member.name)} is no plain file')
    if not 0 <= member.size <= end - file.tell():
        raise _Damaged(source, f'{shown(member.name)} goes on behind its end')
    return member.name, member.size


def _content(file: BinaryIO, size: int) -> bytes:
    data = file.read(_padded(size))
    return data[:size]


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def write_bundle(out: Path, data: bytes, signature: Optional[bytes],
                 files: Sequence[Path]) -> None:
    """
    Write a bundle; the same input gives the same bytes.

    :param files: those of the manifest, in its order
    :raises UserError: if it cannot be written.
    """

    parts = [(MANIFEST, data)] + [(SIGNATURE, signature)] * (signature is not None)
    with atomic_path(out) as temporary, open(temporary, 'wb') as target, \
            tarfile.open(fileobj=target, mode='w', format=tarfile.USTAR_FORMAT) as archive:
        for name, content in parts:
            archive.addfile(_member(name, len(content)), io.BytesIO(content))
        for path in files:
            with open(path, 'rb') as file:
                archive.addfile(_member(path.name, os.fstat(file.fileno()).st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
