"""Write files so that a reader never sees half of one; read texts of bounded size."""

from __future__ import annotations

from contextlib import contextmanager
import errno
import fcntl
import os
from pathlib import Path
import stat
import tempfile
from typing import Iterator, Union

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import shown


def real_path(path: Union[str, Path]) -> Path:
    """Return an absolute path without links; one with links in a circle is left to fail."""
    return Path(os.path.realpath(str(path)))


def refuse_same(source: Path, target: Path) -> None:
    """:raises UserError: if what is to be written is the file that it is made from."""
    if all(map(os.path.exists, (source, target))) and os.path.samefile(source, target):
        raise UserError(f'{target} is the input itself, which would be lost; name another output')


def read_text(path: Path, most: int) -> str:
    """
    Return a UTF-8 text file of at most `most` bytes.

    :raises ValueError: if it cannot be read, is no file, larger, or not UTF-8.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError('it is no file')
        with open(path, 'rb') as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > most:
        raise ValueError(f'more than {most} bytes')
    return data.decode('utf-8')


def home_path(path: Union[str, Path]) -> Path:
    """
    Return a path with `~` or `~USER` at its beginning replaced by that home.

    :raises UserError: if there is no such user, or no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f'{shown(str(path))} begins with ~, and no such home is known here; '
            'write the path in full') from None


def utf8_path(path: Union[str, Path]) -> str:
    """
    Return a path as text for libraries that crash on one that is not UTF-8, as OpenCV does.

    :raises UserError: if it is not.
    """
    try:
        str(path).encode('utf-8')
    except UnicodeEncodeError:
        raise UserError(f'the path {shown(str(path), 300)} is not UTF-8; rename it') from None
    return str(path)


@contextmanager
def held_folder(path: Path) -> Iterator[None]:
    """
    Hold a folder of results, so that no other run writes to it at the same time.

    :raises UserError: if another process holds it, or it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f'cannot use {path}: {error.strerror}; choose another folder') from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f'another run writes to {path} right now; wait for its end, or choose '
                        'another folder') from None
    except OSError:  # not every file system has locks
        pass
    try:
        yield
    finally:
        os.close(handle)


# Characters of a temporary name from the final one, which may be as long as names can be.
_PREFIX = 40
# Full disk, full quota, limit of the file size, broken disk.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def atomic_path(path: Union[str, Path], private: bool = False) -> Iterator[Path]:
    """
    Yield a temporary path beside `path` that is renamed to it on success.

    The temporary file keeps the suffix of `path`, because writers such as
    cv2.VideoWriter choose the format by it. On an exception it is removed and
    whatever was at `path` before stays untouched. A link stays one: the file that
    it leads to is replaced.

    :param private: let only this user read and write it
    :raises UserError: if the folder is missing, not writable or full, or `path` is a folder,
        a device or anything else that is no file.
    """
    suffix = Path(path).suffix
    path = real_path(path)
    try:
        if path.exists() and not path.is_file():
            # Renaming over /dev/null, as root, would take it from everybody.
            raise UserError(f'cannot write {path}: it is there and is no file; name a file')
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix='.' + path.stem[:_PREFIX] + '-', suffix=suffix)
        os.close(handle)
    except OSError as error:
        raise UserError(
            f'cannot write {path}: {error.strerror}; choose a folder that can be written'
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        if not private:
            # mkstemp makes the file private; give the result what open() would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise UserError(
            f'cannot write {path}: {error.strerror}; make room, or choose another folder'
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()
