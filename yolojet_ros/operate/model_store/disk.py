"""Files that are whole after a power cut: written, flushed, then published by one rename."""

from __future__ import annotations

from contextlib import contextmanager
import errno
import getpass
import hashlib
import os
from pathlib import Path
import shutil
import stat
import tempfile
from typing import BinaryIO, Iterator, Optional, Union

from yolojet_ros.core.errors import UserError

BLOCK = 1 << 20
_SPARE_BYTES = 4 << 20  # what a file system needs beside the files themselves
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """:raises UserError: where the system refuses to write below `folder`, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _DENIED:
            raise UserError(
                f'cannot write to {folder} as user {_user()} ({error.strerror}); run it as its '
                'owner, or make the store with --group of a group that this user is in'
            ) from error
        raise UserError(
            f'cannot write to {folder}: {error.strerror or error}; make room, or correct that, '
            'and run it again') from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in a container
        return str(os.geteuid())


def sync_folder(folder: Path) -> None:
    """Let what was renamed, made and removed in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Union[str, Path], data: bytes, folder: Optional[int] = None) -> None:
    """
    Write a new file that everybody may read.

    :param folder: descriptor of the folder that `path` is in, if it is a name only
    """
    with _new_file(path, folder) as file:
        file.write(data)


def copy_file(source: BinaryIO, size: int, path: Path) -> str:
    """
    Write `size` bytes into a new file and return their SHA-256.

    :raises EOFError: if the source ends before.
    """
    digest, left = hashlib.sha256(), size
    with _new_file(path) as file:
        while left:
            block = source.read(min(left, BLOCK))
            if not block:
                raise EOFError
            digest.update(block)
            file.write(block)
            left -= len(block)
    return digest.hexdigest()


@contextmanager
def _new_file(path: Union[str, Path], folder: Optional[int] = None) -> Iterator[BinaryIO]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, dir_fd=folder), 'wb') as file:
        yield file
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # whatever the umask: the node is another user
        os.fsync(file.fileno())


def open_file(path: Path) -> BinaryIO:
    """
    Open a regular file to read; a link, a device or a pipe is none.

    :raises OSError: if it is none, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, 'it is no regular file', str(path))
    return open(handle, 'rb')


def need_room(folder: Path, size: int) -> None:
    """:raises UserError: if `size` bytes more do not fit."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size + _SPARE_BYTES:
        raise UserError(
            f'{folder} has {megabytes(free)} free, and {megabytes(size + _SPARE_BYTES)} are '
            'needed; make room, for example with "yolojet model-store gc"')


def megabytes(size: int) -> str:
    """Return a size in bytes as a person reads it."""
    return f'{size / 1e6:.1f} MB'


def scratch(parent: Path, kind: str) -> Path:
    """Make a folder that the next command removes, should this one be killed."""
    return Path(tempfile.mkdtemp(prefix=kind + '-', dir=parent))


def remove(folder: Path) -> None:
    """Remove a folder; what cannot be removed is left for the next time."""
    shutil.rmtree(folder, ignore_errors=True)
