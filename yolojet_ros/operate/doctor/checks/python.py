"""Python and its packages."""

from __future__ import annotations

import platform
import sys

from yolojet_ros.core.installing import install_command
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, warn
from yolojet_ros.operate.doctor.system import Probed, System

# By the package that pip and rosdep know.
_NEEDED = {'numpy': 'numpy', 'cv2': 'opencv-python-headless', 'yaml': 'PyYAML', 'scipy': 'scipy'}
_OLDEST = (3, 8)


def interpreter(system: System, options: Options) -> Finding:
    """Look at the interpreter."""
    found = f'Python {platform.python_version()}, {sys.executable}'
    if sys.version_info < _OLDEST:
        return fail(found, 'yolojet_ros needs Python 3.8 or newer')
    return ok(found)


def libraries(system: System, options: Options) -> Finding:
    """Import what every command needs."""
    probed = system.probe('modules', *_NEEDED)
    versions, errors = (probed.told.get(key, {}) for key in ('versions', 'errors'))
    if probed.crash:
        return fail(f'importing them ended the process: {probed.crash}',
                    'this library is broken, or built for another machine',
                    install_command(*_NEEDED.values()))
    if errors:
        name, error = next(iter(errors.items()))
        missing = [_NEEDED[name] for name in errors]
        if all('No module named' in text for text in errors.values()):
            return fail(f'{", ".join(missing)} missing',
                        'nothing but this doctor runs without them; ./yolojet prepares an '
                        'environment with its first other command', install_command(*missing))
        hint = ''
        if 'numpy' in error.lower():
            hint = '; it was built for another NumPy than the one that is installed'
        return fail(f'{name} cannot be imported ({error})', f'it is there, but broken{hint}',
                    install_command(*missing))
    return ok(', '.join(f'{name} {version}' for name, version in versions.items()))


def onnxruntime(system: System, options: Options) -> Finding:
    """Look at ONNX Runtime and what it can run on."""
    probed = system.probe('onnxruntime')
    told, command = probed.told, install_command('onnxruntime')
    if probed.crash:
        return _crashed(probed)
    if told.get('missing'):
        return warn('ONNX Runtime is not installed',
                    'ONNX models cannot run; TensorRT engines still can', command)
    if 'error' in told:
        return fail(f'ONNX Runtime cannot be imported ({told["error"]})',
                    'ONNX models cannot run', command)
    providers = told.get('providers', [])
    found = f'ONNX Runtime {told.get("version", "?")}: {", ".join(providers) or "no providers"}'
    if 'CPUExecutionProvider' not in providers:
        return fail(found, 'it is half installed, as where pip has removed one of two packages '
                    'that share a folder (onnxruntime, onnxruntime-gpu); models cannot run',
                    'python3 -m pip uninstall -y onnxruntime onnxruntime-gpu && ' + command)
    return ok(found)


def _crashed(probed: Probed) -> Finding:
    return fail(f'ONNX Runtime ended the process: {probed.crash}',
                'this build does not run on this processor or system',
                install_command('onnxruntime'))
