"""
Prepare a process for large images over DDS, before rclpy starts.

Fast DDS's default shared-memory segment (512 KiB) is smaller than a camera
image, and best-effort images then vanish; and glibc gives large buffers back to
the system after every message, so each one pays for its page faults again.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import List

PROFILES = Path(__file__).with_name('fastdds.xml')
_TRANSPORT_VARIABLES = (
    'FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE')
# mallopt(3): parameter, value, and the variable by which a user sets the same.
_MALLOC = (
    (-3, 1000000000, 'MALLOC_MMAP_THRESHOLD_'),
    (-1, 1000000000, 'MALLOC_TRIM_THRESHOLD_'),
    (-2, 67108864, 'MALLOC_TOP_PAD_'),
)


def prepare() -> str:
    """
    Set the DDS transport and malloc's thresholds, unless the user has set their own.

    Call it before rclpy.init. Return one line that says what was done.
    """
    return f'images over DDS: {prepare_transport()}; memory: {_prepare_malloc()}'


def prepare_transport() -> str:
    """
    Let Fast DDS share large images (fastdds.xml), unless the user has configured it.

    Other middlewares are left alone. Return what was done; processes started
    from this one inherit it.
    """
    middleware = os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    if 'fastrtps' not in middleware:
        return f'{middleware} is left as it is'
    for name in _TRANSPORT_VARIABLES:
        if os.environ.get(name):
            return f'{name}={os.environ[name]} is kept'
    name = _profiles_variable()
    os.environ[name] = str(PROFILES)
    return f'64 MiB of shared memory, by {name}={PROFILES}'


def _profiles_variable() -> str:
    """Return the name that the installed Fast DDS knows; version 3 warns about the old one."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    if any(Path(prefix, 'share', 'fastrtps').is_dir() for prefix in prefixes if prefix):
        return 'FASTRTPS_DEFAULT_PROFILES_FILE'
    return 'FASTDDS_DEFAULT_PROFILES_FILE'


def _prepare_malloc() -> str:
    kept: List[str] = [name for _, _, name in _MALLOC if os.environ.get(name)]
    if kept:
        return f'{", ".join(kept)} is kept'
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others have none
        return 'this C library has no mallopt'
    for parameter, value, _ in _MALLOC:
        mallopt(parameter, value)
    return 'malloc keeps large buffers'
