"""A version of the store as a node loads it."""

from __future__ import annotations

from dataclasses import dataclass, field
import fcntl
import os
from pathlib import Path
from typing import Optional, Tuple

from yolojet_ros.operate.model_store.manifest import Manifest


class _Hold:
    """Keeps a folder from being removed by gc, until it is released or its process ends."""

    def __init__(self, folder: Path) -> None:
        self._handle: Optional[int] = None
        try:
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # gone since, or a file system without locks
            pass

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()


@dataclass(frozen=True)
class StoredModel:
    """
    A verified version. As long as this object lives, gc does not remove the version.

    folder: where its files lie
    signed_by: name of the trusted key, '' if nobody signed it
    confirmed: whether it ran well for its first minute, here
    tries: how often a node has begun with it, this time included, before it was confirmed
    went_back: why a later version was given up in favour of this one, '' if none was
    """

    manifest: Manifest
    folder: Path
    signed_by: str
    confirmed: bool
    tries: int = 0
    went_back: str = ''
    _hold: Optional[_Hold] = field(default=None, repr=False, compare=False)

    @classmethod
    def held(cls, manifest: Manifest, folder: Path, signed_by: str, confirmed: bool,
             tries: int, went_back: str) -> StoredModel:
        """Return a version that gc leaves alone."""
        return cls(manifest, folder, signed_by, confirmed, tries, went_back, _Hold(folder))

    @property
    def version(self) -> str:
        """Return what it is called."""
        return self.manifest.version

    @property
    def sequence(self) -> int:
        """Return its place in the order of all versions."""
        return self.manifest.sequence

    @property
    def names(self) -> Tuple[str, ...]:
        """Return the names of its classes."""
        return self.manifest.classes

    @property
    def task(self) -> str:
        """Return 'detect', 'segment', 'pose', 'obb' or 'classify'."""
        return self.manifest.task

    @property
    def model(self) -> Path:
        """Return the .onnx; `load_backend` takes the engine beside it where that can run."""
        return self.folder / self.manifest.model

    @property
    def engine(self) -> Optional[Path]:
        """Return the engine that was built of it here, None without one."""
        path = self.folder / self.manifest.engine_names[0]
        return path if path.is_file() else None

    def release(self) -> None:
        """Let gc remove it; done by itself when the last reference goes."""
        if self._hold is not None:
            self._hold.release()
