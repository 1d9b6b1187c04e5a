"""
Prepare a process for large images over DDS, before rclpy starts.

Fast DDS's default shared-memory segment (512 KiB) is smaller than a camera
image, and best-effort images then vanish; and glibc gives large buffers back to
the system after every message, so each one pays for its page faults again.
"""

from __future__ import annotations

import ctypes
import os
from typing import List

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
    return f'images over DDS: {_prepare_transport()}; memory: {_prepare_malloc()}'


def _prepare_transport() -> str:
    middleware = os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    if 'fastrtps' not in middleware:
        return f'{middleware} is left as it is'
    for name in _TRANSPORT_VARIABLES:
        if name in os.environ:
            return f'{name}={os.environ[name]} is kept'
    os.environ['FASTDDS_BUILTIN_TRANSPORTS'] = 'LARGE_DATA'
    return 'FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA is set'


def _prepare_malloc() -> str:
    kept: List[str] = [name for _, _, name in _MALLOC if name in os.environ]
    if kept:
        return f'{", ".join(kept)} is kept'
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others have none
        return 'this C library has no mallopt'
    for parameter, value, _ in _MALLOC:
        mallopt(parameter, value)
    return 'malloc keeps large buffers'
