"""TensorRT: whether it can be imported and makes a builder, and for which CUDA it is."""

from __future__ import annotations

import re
from typing import List, Tuple

from yolojet_ros.core.installing import install_command
from yolojet_ros.core.text import one_line
from yolojet_ros.operate.doctor import hardware
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.checks.cuda import missing_library, too_old
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import Probed, System

# In the wording of TensorRT 5 to 10: "Cuda initialization failure with error 35" and
# "CUDA initialization failure with error: 35".
_INITIALIZATION = re.compile(r'cuda initialization failure with error:? (\d+)', re.IGNORECASE)
_LINKED = re.compile(r'was linked against (cu\w+[\w/ ]*?) ([\d.]+) but loaded \D*?([\d.]+)')
_OLD = (35, 36)  # cudaErrorInsufficientDriver, cudaErrorCallRequiresNewerDriver
_MEANING = {
    2: 'no memory is left on the GPU, on a Jetson in the system',
    46: 'another process has the GPU for itself',
    100: 'no GPU is seen; CUDA_VISIBLE_DEVICES may hide it, or the container',
    222: 'it holds kernels that this driver is too old for',
    803: 'the driver was updated since the last start: restart the machine',
    999: 'nvidia_uvm is not loaded, or the GPU was lost in suspend',
}


def tensorrt(system: System, options: Options) -> Finding:
    """Import TensorRT and make a builder, in a child."""
    packages = hardware.tensorrt_packages(system)
    if not hardware.has_gpu(system) and not packages:
        return skipped(hardware.NO_GPU)
    probed = system.probe('tensorrt')
    told = probed.told
    if told.get('missing'):
        return _missing(system, packages)
    version, built = _version(told.get('version', ''), packages)
    name = f'TensorRT {version}' + (f' for CUDA {built}' if built else '')
    number = _INITIALIZATION.search('\n'.join([*told.get('log', []), probed.done.output]))
    driver = hardware.cuda(system).told.get('driver', 0)
    if number and (probed.crash or told.get('builder')):
        return _no_cuda(system, name, int(number.group(1)), built, driver)
    if probed.crash:
        if built and driver and built > driver // 1000:
            return _no_cuda(system, name, 35, built, driver)
        return fail(f'{name} ended the process: {probed.crash}',
                    'this TensorRT cannot be used with this driver; without one it ends the '
                    'process, too; cuda_driver tells more', _again(system, driver))
    if 'error' in told:
        what, mend = missing_library(system, told['error'])
        return fail(f'TensorRT cannot be imported ({one_line(told["error"], 300)})',
                    f'engines cannot run: {what}' if what else 'engines cannot run',
                    mend or _again(system, driver))
    if told.get('builder'):
        return fail(f'{name} makes no builder ({told["builder"]})',
                    one_line('; '.join(told.get('log', [])) or probed.done.output, 300)
                    or 'engines cannot be built', _again(system, driver))
    return _loaded(system, name, version, probed)


def _loaded(system: System, name: str, version: str, probed: Probed) -> Finding:
    """Return what is to be said of a TensorRT that works."""
    linked = _LINKED.search('\n'.join([*probed.told.get('log', []), probed.done.output]))
    if linked:
        what, wanted, loaded = linked.groups()
        return warn(f'{name} was linked against {what} {wanted} and loads {loaded}',
                    'engines may be slower, wrong or crash; install the version that it was '
                    'linked against, or take it to the front of LD_LIBRARY_PATH',
                    'echo $LD_LIBRARY_PATH; ldconfig -p | grep -e cudnn -e cublas')
    release = hardware.l4t(system)
    # From JetPack 6 on CUDA and TensorRT can be newer than the system.
    if release and release.tensorrt and release.release < (36,) \
            and version.split('.')[0] != release.tensorrt.split('.')[0]:
        return warn(f'{name}, on {release}, which brings {release.tensorrt}',
                    'a TensorRT of another JetPack may not support this GPU\'s driver',
                    'sudo apt install --reinstall nvidia-jetpack')
    return ok(f'{name}; it makes a builder')


def _missing(system: System, packages: List[Tuple[str, str, int]]) -> Finding:
    if packages:  # of C++, without Python
        found = ', '.join(f'{name} {version}' for name, version, _ in packages)
        return fail(f'{found} is there, and Python cannot import tensorrt',
                    'engines cannot run; a virtual environment needs --system-site-packages to '
                    'see that of the system', 'sudo apt install python3-libnvinfer')
    driver = hardware.cuda(system).told.get('driver', 0)
    return warn('TensorRT is not installed', 'engines cannot run; ONNX models run on the CPU',
                'sudo apt install nvidia-tensorrt' if hardware.jetson(system) else
                _again(system, driver))


def _version(told: str, packages: List[Tuple[str, str, int]]) -> Tuple[str, int]:
    """Return the version and the major version of CUDA that it is for, 0 if unknown."""
    version = told or next((version for _, version, _ in packages), '?')
    fitting = [major for _, other, major in packages
               if major and other.split('.')[:2] == version.split('.')[:2]]
    return version, max(fitting or [major for _, _, major in packages], default=0)


def _no_cuda(system: System, name: str, number: int, built: int, driver: int) -> Finding:
    """Return what a CUDA error while a builder was made means."""
    found = f'{name}: CUDA initialization failure with error {number}'
    if number not in _OLD:
        return fail(found, _MEANING.get(number, 'see cuda_driver'), 'nvidia-smi')
    if not driver:
        return fail(found, 'no driver of NVIDIA was found; see cuda_driver', 'nvidia-smi')
    here = f'this driver has CUDA {hardware.cuda_text(driver)}'
    if built and built > driver // 1000:
        return fail(found, f'{here}, and this TensorRT was built for CUDA {built}: the driver is '
                    'older than the runtime', too_old(system, built, driver))
    wants = f'was built for CUDA {built}' if built else 'is for a newer CUDA'
    return fail(found, f'the driver is older than the runtime: {here}, and this TensorRT {wants}',
                _again(system, driver))


def _again(system: System, driver: int) -> str:
    """Return the command that installs a TensorRT for this driver."""
    if hardware.jetson(system):
        return 'sudo apt install --reinstall nvidia-jetpack  # its own CUDA and TensorRT'
    return install_command(f'tensorrt-cu{driver // 1000}' if driver else 'tensorrt')
