"""Probes of Python packages."""

from __future__ import annotations

import importlib
import sys

from yolojet_ros.operate.doctor.probes.tell import step, tell


def folders() -> None:
    """Tell where this Python looks for packages."""
    tell(folders=sys.path, prefix=sys.prefix)


def modules(*names: str) -> None:
    """Import modules; tell versions by module, and errors of those that cannot be imported."""
    versions, errors = {}, {}
    for name in names:
        step(f'import {name}')
        try:
            module = importlib.import_module(name)
            versions[name] = str(getattr(module, '__version__', ''))
        except BaseException as error:  # some end the process politely
            errors[name] = f'{type(error).__name__}: {error}'
        tell(versions=versions, errors=errors)


def onnxruntime() -> None:
    """Tell the version and the execution providers of ONNX Runtime."""
    step('import onnxruntime')
    try:
        import onnxruntime as ort
    except ImportError as error:
        tell(error=str(error), missing=getattr(error, 'name', None) == 'onnxruntime')
        return
    tell(version=str(getattr(ort, '__version__', '?')))
    get_providers = getattr(ort, 'get_available_providers', None)
    tell(providers=list(get_providers()) if get_providers else [])
