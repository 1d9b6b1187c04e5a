"""Remove old versions, never one that is needed."""

from __future__ import annotations

from dataclasses import replace
import fcntl
import os
from pathlib import Path
from typing import List, NamedTuple

from yolojet_ros.operate.model_store.adding import working
from yolojet_ros.operate.model_store.disk import remove, sync_folder, writing
from yolojet_ros.operate.model_store.store import ModelStore


class Collected(NamedTuple):
    """Versions that were removed, and those that are old but used by a process."""

    removed: List[str]
    used: List[str]


def collect(store: ModelStore, keep: int) -> Collected:
    """
    Remove all versions but the active, the one before, the `keep` newest and those in use.

    Remains of commands that were killed, and downloads that were not finished, go, too.

    :raises UserError: if another command is at work, or the store cannot be written.
    """
    with working(store), writing(store.folder):
        for path in store.incoming.iterdir():  # first, as the disk may be full
            remove(path)
            if os.path.lexists(path):
                path.unlink()
        with store.states.locked():
            state = store.states.read()
            back = [past.version for past in state.ways_back()[:1]]
            old = store.names()
            old = [name for name in old[:max(0, len(old) - keep)]
                   if name not in (state.active, *back)]
            used = [name for name in old if _is_used(store.versions / name)]
            gone = [name for name in old if name not in used]
            highest = store.highest()
            if highest > store.highest(without=gone):
                store.states.write(replace(state, highest=highest))
            for name in gone:
                os.rename(store.versions / name, store.incoming / f'gone-{name}')
            sync_folder(store.versions)
        for name in gone:
            remove(store.incoming / f'gone-{name}')
        with store.states.locked():
            state = store.states.read()
            after = state.without(gone)
            if after != state:
                store.states.write(after)
            store.states.clean()
    return Collected(gone, used)


def _is_used(folder: Path) -> bool:
    """Return whether a process holds a version (stored_model)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # not every file system has locks
        pass
    finally:
        os.close(handle)
    return False
