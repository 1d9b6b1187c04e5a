"""Is there memory enough to build? Running out of it after minutes helps nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.cuda.device import Device, MIB

_MEMINFO = Path('/proc/meminfo')
# The builder holds the model, its converted weights and the engine at the same time; CUDA and
# TensorRT themselves take the rest.
_COPIES = 4
_LIBRARIES_MIB = 400


def check(device: Device, workspace_bytes: int, model_bytes: int) -> None:
    """
    Compare the free memory with what a build takes; needs `device` to be current.

    :raises UserError: if it cannot be enough.
    """
    needed = workspace_bytes + _COPIES * model_bytes
    free = device.memory()[0]
    if free < needed:
        _refuse('GPU', free, needed)
    if device.integrated:
        free = available_bytes()
        if free is not None and free < needed + _LIBRARIES_MIB * MIB:
            _refuse('system', free, needed + _LIBRARIES_MIB * MIB)


def available_bytes(meminfo: Path = _MEMINFO) -> Optional[int]:
    """Return the system memory that can be had without swapping, None if it is unknown."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _refuse(kind: str, free: int, needed: int) -> None:
    raise UserError(
        f'{free // MIB} MiB of {kind} memory are free, and building takes about '
        f'{needed // MIB} MiB; close other programs (on Jetson also the desktop), add swap, or '
        'lower --workspace')
