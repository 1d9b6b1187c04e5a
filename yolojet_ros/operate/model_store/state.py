"""Which version is active, and what came before it: one value, replaced by one rename."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
import errno
import fcntl
import json
import os
from pathlib import Path
import stat
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.records import read_record
from yolojet_ros.core.text import one_line
from yolojet_ros.operate.model_store.disk import (
    remove, scratch, sync_folder, write_file, writing)

_CURRENT, _NEW, _FILE, _MODEL = 'current', '.new', 'state.json', 'model'
_KIND = 'state'
_MAX_BYTES = 1 << 20
_MOST_PAST = 8
_MAX_REASON = 500
_LOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Past:
    """A version that was active: whether it ran well."""

    version: str
    confirmed: bool


@dataclass(frozen=True)
class State:
    """
    All that changes when a version is activated, tried, confirmed or given up.

    tries: how often a node has begun with the active version before it was confirmed
    past: what was active before, oldest first
    failed: why versions were given up
    went_back: why the active version is active again
    highest: the largest sequence number that ever was in the store
    """

    active: Optional[str] = None
    confirmed: bool = False
    tries: int = 0
    past: Tuple[Past, ...] = ()
    failed: Dict[str, str] = field(default_factory=dict)
    went_back: str = ''
    highest: int = 0

    def activated(self, version: str) -> State:
        """Return the state with another active version, to be confirmed."""
        past = [item for item in self.past if item.version not in (version, self.active)]
        if self.active is not None:
            past.append(Past(self.active, self.confirmed))
        return replace(self, active=version, confirmed=False, tries=0, went_back='',
                       past=tuple(past[-_MOST_PAST:]), failed=_less(self.failed, [version]))

    def ways_back(self) -> List[Past]:
        """Return where to go back to, best first: the last that ran well, then the last."""
        newest = [item for item in reversed(self.past) if item.version != self.active]
        return sorted(newest, key=lambda item: not item.confirmed)

    def gone_back(self, to: Past, reason: str) -> State:
        """Return the state with the version before active again."""
        past = self.past[:self.past.index(to)]
        reason = one_line(reason, _MAX_REASON)
        return replace(
            self.failing(self.active or '', reason), active=to.version, confirmed=to.confirmed,
            tries=0, past=past, went_back=f'{self.active} was given up: {reason}')

    def failing(self, version: str, reason: str) -> State:
        """Return the state with the reason why a version was given up."""
        return replace(self, failed={**self.failed, version: one_line(reason, _MAX_REASON)})

    def confirming(self) -> State:
        """Return the state with the active version confirmed."""
        return replace(self, confirmed=True, tries=0,
                       failed=_less(self.failed, [self.active]))

    def without(self, versions: List[str]) -> State:
        """Return the state without versions that are to be removed."""
        return replace(
            self, past=tuple(item for item in self.past if item.version not in versions),
            failed=_less(self.failed, versions))


def _less(failed: Dict[str, str], versions: Sequence[Optional[str]]) -> Dict[str, str]:
    return {version: text for version, text in failed.items() if version not in versions}


class StateFolder:
    """
    The folder that holds the state: `current`, a link to the one that counts.

    Each state is a folder of its own, with state.json and a link `model` to the active version,
    so that both change by the same rename. A node needs to write here, and nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> State:
        """
        Return the state.

        :raises UserError: if it cannot be read.
        """
        path = self._folder / _CURRENT / _FILE
        for _ in range(10):
            if not os.path.lexists(self._folder / _CURRENT):
                return State()
            try:
                return read_record(State, json.loads(read_text(path, _MAX_BYTES)))
            except (ValueError, RecursionError) as error:
                fault = error
            time.sleep(0.001)  # another process may have replaced it in between
        raise UserError(
            f'{path} cannot be read ({one_line(str(fault), 200)}); remove {self._folder}/'
            f'{_CURRENT} and activate a version anew, or run it as a user who may read it')

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Keep other processes from changing the state; it is a matter of milliseconds.

        :raises UserError: if another one keeps it for too long.
        """
        try:
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UserError(f'cannot use {self._folder}: {error.strerror}; run it as a user who '
                            'may read it') from error
        try:
            end = time.monotonic() + _LOCK_SECONDS
            while not _lock(handle):
                if time.monotonic() > end:
                    raise UserError(f'another process has held {self._folder} for '
                                    f'{_LOCK_SECONDS:.0f} s; end it, and try again')
                time.sleep(0.002)
            yield
        finally:
            os.close(handle)

    def write(self, state: State) -> None:
        """
        Replace the state; the caller holds the lock.

        :raises UserError: if it cannot be written; the old one stays.
        """
        current, new = self._folder / _CURRENT, self._folder / _NEW
        before = os.readlink(current) if os.path.lexists(current) else ''
        made: Optional[Path] = None
        try:
            with writing(self._folder):
                made = scratch(self._folder, _KIND)
                self._fill(made, state)
                if os.path.lexists(new):
                    new.unlink()
                os.symlink(made.name, new)
                os.replace(new, current)
        except UserError:
            if made is not None:
                remove(made)
            raise
        with writing(self._folder):
            sync_folder(self._folder)
            self.clean(before)

    def _fill(self, folder: Path, state: State) -> None:
        """Write a state into a new folder, by its descriptor: others may write around it."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # Whoever may write here may remove it again, whatever the umask.
            os.fchmod(handle, stat.S_IMODE(os.stat(self._folder).st_mode))
            write_file(_FILE, json.dumps(asdict(state), indent=1).encode(), handle)
            if state.active is not None:
                os.symlink(f'../../versions/{state.active}', _MODEL, dir_fd=handle)
            os.fsync(handle)
        finally:
            os.close(handle)

    def clean(self, before: str = '') -> None:
        """Remove what is not the state, but the one before, which may be being read."""
        current = self._folder / _CURRENT
        keep = (os.readlink(current) if os.path.lexists(current) else '', before)
        if os.path.lexists(self._folder / _NEW):
            (self._folder / _NEW).unlink()
        for path in self._folder.glob(_KIND + '-*'):
            if path.name not in keep:
                remove(path)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # not every file system has locks
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF):
            raise
    return True
