"""The few functions of libcuda that PyCUDA does not offer."""

from __future__ import annotations

import ctypes
from typing import Optional

_loaded: Optional[ctypes.CDLL] = None


def driver() -> ctypes.CDLL:
    """Return libcuda."""
    global _loaded
    if _loaded is None:
        _loaded = ctypes.CDLL('libcuda.so.1')
        _loaded.cuGraphDestroy.argtypes = [ctypes.c_void_p]
        _loaded.cuGraphExecDestroy.argtypes = [ctypes.c_void_p]
        _loaded.cuGraphLaunch.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return _loaded


def function(*names: str):
    """Return the first function that this libcuda has: names got suffixes over the years."""
    for name in names[:-1]:
        if hasattr(driver(), name):
            return getattr(driver(), name)
    return getattr(driver(), names[-1])


def error_name(status: int) -> str:
    """Return the name of a CUresult."""
    text = ctypes.c_char_p()
    driver().cuGetErrorName(status, ctypes.byref(text))
    return (text.value or b'unknown').decode()
