"""The folder of the bags: bounded in bytes and number, and free of halves."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
import re
import shutil
import time
from typing import Dict, List

from yolojet_ros.operate.records.bag import UNFINISHED
from yolojet_ros.operate.records.params import CAUSES

MOST_BAGS = 1000
_REMOVED = '.removed-'
_NAME = re.compile(
    r'\d{8}T\d{6}\.\d{3}Z_\w+_(%s)(_\d+)?' % '|'.join(CAUSES), re.ASCII)


class BagStore:
    """
    The bags in a folder, of this process and others; whatever else lies there stays.

    :param limit: bytes of all bags
    :raises OSError: if the folder cannot be made or read.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._sizes: Dict[str, int] = {}
        self._own: List[str] = []  # made since, in their order
        self.look()

    def bags(self) -> List[str]:
        """Return the names of the bags, the oldest first."""
        return sorted(entry.name for entry in os.scandir(self.folder)
                      if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False))

    def look(self) -> None:
        """Learn which bags there are now."""
        self._sizes = {
            name: self._sizes.get(name) or _size(self.folder / name) for name in self.bags()}

    def add(self, name: str) -> None:
        """Take a bag that this process has made."""
        self._own.append(name)
        self.look()

    def make_room(self, size: int, unfinished: int) -> bool:
        """
        Remove the oldest bags until so much more fits; return whether it does.

        :param size, unfinished: bytes and number of the bags that are being written
        """
        while self._sizes and (sum(self._sizes.values()) + size > self._limit
                               or len(self._sizes) + unfinished > MOST_BAGS):
            # Those of this process last: its clock may have been set back.
            others = [name for name in self._sizes if name not in self._own]
            self._remove(min(others) if others else next(iter(
                name for name in self._own if name in self._sizes)))
        return size <= self._limit

    def _remove(self, name: str) -> None:
        # First its name, so that a bag is whole as long as it has one.
        hidden = self.folder / (_REMOVED + name)
        try:
            os.rename(self.folder / name, hidden)
        except FileNotFoundError:  # another process was quicker
            pass
        shutil.rmtree(hidden, ignore_errors=True)
        del self._sizes[name]

    def _sweep(self) -> None:
        """Remove what a process left that was killed."""
        for entry in list(os.scandir(self.folder)):
            if entry.name.startswith(_REMOVED) or (
                    entry.name.startswith(UNFINISHED) and _is_abandoned(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_abandoned(path: str) -> bool:
    """Return whether nobody writes to it: its writer holds it locked."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except FileNotFoundError:
        return 0


def bag_name(nanoseconds: int, camera: str, cause: str) -> str:
    """Return the name of a bag that begins with an event: time (since 1970), camera, cause."""
    seconds, rest = divmod(nanoseconds, 10**9)
    when = time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))
    return f'{when}.{rest // 10**6:03}Z_{camera}_{cause}'
