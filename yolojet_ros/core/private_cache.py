"""A cache of the user's own: what lies there may be run, so nobody else may write there."""

from __future__ import annotations

import os
from pathlib import Path
import stat
from typing import Optional

from yolojet_ros.core.files import atomic_path


def folder() -> Path:
    """Return where it is: yolojet in XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # The XDG specification has relative paths ignored.
    return Path(base if os.path.isabs(base) else os.path.expanduser('~/.cache')) / 'yolojet'


def read(name: str) -> Optional[bytes]:
    """Return the content of a file that only this user could have written, else None."""
    try:
        _own_folder()
        # A link may lead to a file that others can write.
        descriptor = os.open(folder() / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, 'rb') as file:
        found = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(found.st_mode) and _is_own(found) else None


def write(name: str, content: bytes) -> None:
    """
    Keep `content`, readable by this user only.

    :raises OSError: if there is no folder that is this user's alone.
    :raises UserError: if it cannot be written.
    """
    _own_folder()
    with atomic_path(folder() / name, private=True) as temporary:
        temporary.write_bytes(content)


def _own_folder() -> None:
    """Make the folder, and close it to others; files are judged one by one."""
    path = folder()
    if not path.is_absolute():
        raise FileNotFoundError('this user has no home folder; set XDG_CACHE_HOME')
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f'{path} is not a folder of this user')
    if not _is_own(found):
        path.chmod(0o700)


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
