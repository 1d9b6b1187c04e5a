"""Build the TensorRT engine of a version on the robot, beside all else that runs there."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from typing import List, Optional

from yolojet_ros.core.errors import RunFailed, UserError
from yolojet_ros.operate.model_store.disk import remove, scratch, sync_folder, writing
from yolojet_ros.operate.model_store.store import ModelStore

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOP_SECONDS = 20


def build_engine(store: ModelStore, version: str, profile: Optional[str] = None) -> Path:
    """
    Build the engine of a version in a process of low priority; the caller holds the store.

    It appears beside the model in one rename. What is active stays so.

    :param profile: as --profile of "yolojet engine build"
    :raises UserError: if TensorRT is not installed, or the version is not whole.
    :raises RunFailed: if it cannot be built.
    """
    manifest = store.check(version).manifest
    if find_spec('tensorrt') is None:
        raise UserError('TensorRT is not installed here, so no engine can be built; activate '
                        f'{version} without --build, and ONNX Runtime runs it')
    with writing(store.folder):
        folder = scratch(store.incoming, 'build')
    try:
        model = store.versions / version / manifest.model
        engine, card = (folder / name for name in manifest.engine_names)
        code = _run(command(model, engine, profile))
        if code or not (engine.is_file() and card.is_file()):
            raise RunFailed(f'the engine of {version} could not be built (exit code {code}), for '
                            'the reason above; what was active stays active')
        with writing(store.folder):
            return _publish(engine, card, model.parent)
    finally:
        remove(folder)


def command(model: Path, engine: Path, profile: Optional[str]) -> List[str]:
    """Return the command line that builds an engine at the lowest priority."""
    words = ['nice', '-n', '19']
    if shutil.which('ionice'):
        words += ['ionice', '-c', '3']
    words += [sys.executable, '-m', 'yolojet_ros', 'engine', 'build', '--onnx', str(model),
              '--out', str(engine)]
    return words + (['--profile', profile] if profile is not None else [])


def _run(words: List[str]) -> int:
    """Run a command to its end; if this process is interrupted or ends, so does that one."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    # In a session of its own: what the terminal sends reaches this process alone.
    process = subprocess.Popen(
        words, stdout=2, start_new_session=True, preexec_fn=follow)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _publish(engine: Path, card: Path, folder: Path) -> Path:
    target = folder / engine.name
    for path in (engine, card):
        path.chmod(0o644)
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    # An engine without its card would be taken unchecked, so the card is there before it, and
    # an older engine, which the new card does not fit, goes first.
    if target.exists():
        target.unlink()
    os.rename(card, folder / card.name)
    os.rename(engine, target)
    sync_folder(folder)
    return target
