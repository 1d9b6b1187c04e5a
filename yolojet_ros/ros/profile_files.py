"""Keep generated middleware profiles where only this user writes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
import stat
import tempfile

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path


def keep(content: bytes) -> Path:
    """
    Return a file that holds `content`; the same content is kept once.

    It lies in a folder of the temporary directory that belongs to this user alone.
    Nodes that start at the same time write the same bytes.

    :raises UserError: if it cannot be written.
    """
    try:
        folder = _folder()
    except OSError as error:
        raise UserError(
            f'no temporary folder can be written for a middleware profile ({error.strerror}); set '
            'TMPDIR to one that can, or YOLOJET_TRANSPORT_PROFILE to untouched') from error
    path = folder / f'fastdds-{hashlib.sha256(content).hexdigest()[:16]}.xml'
    if not path.exists() or path.read_bytes() != content:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return path


def _folder() -> Path:
    """Return our folder; a fresh one where somebody else has taken the name."""
    path = Path(tempfile.gettempdir(), f'yolojet-{os.getuid()}')
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError:
        return Path(tempfile.mkdtemp(prefix='yolojet-'))
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not private or found.st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix='yolojet-'))
    return path
