"""NVIDIA's driver, the CUDA that programs were made for, and what compiles our kernels."""

from __future__ import annotations

import glob
import os
import re
from typing import Dict, List, Optional, Tuple

from yolojet_ros.core.installing import install_command
from yolojet_ros.operate.doctor import hardware
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.hardware import cuda_text
from yolojet_ros.operate.doctor.system import System

CONTAINER = ('this container was started without the GPU: docker run --gpus all ... '
             '(Jetson: --runtime nvidia)')
# Driver that a major version of CUDA needs at least, on a PC.
NEEDED_DRIVER = {11: '450.80', 12: '525.60', 13: '580.65'}
_RESTART = 'the driver was updated since the last start, or comes apart from its kernel module'
# CUresult: what it means, and what mends it.
_STATUS = {
    2: ('CUDA_ERROR_OUT_OF_MEMORY: no memory is left, on a Jetson that of the system', 'free -h'),
    34: ('CUDA_ERROR_STUB_LIBRARY: the stub libcuda of the CUDA toolkit is loaded in the place '
         'of the driver\'s; take .../stubs out of LD_LIBRARY_PATH', 'echo $LD_LIBRARY_PATH'),
    46: ('CUDA_ERROR_DEVICE_UNAVAILABLE: another process has the GPU for itself',
         'sudo nvidia-smi -c DEFAULT'),
    100: ('CUDA_ERROR_NO_DEVICE: the driver is loaded and sees no GPU; CUDA_VISIBLE_DEVICES may '
          'hide it, or the container', 'unset CUDA_VISIBLE_DEVICES; nvidia-smi -L'),
    101: ('CUDA_ERROR_INVALID_DEVICE: CUDA_VISIBLE_DEVICES names a GPU that there is not',
          'unset CUDA_VISIBLE_DEVICES'),
    802: ('CUDA_ERROR_SYSTEM_NOT_READY: the fabric manager of this server does not run',
          'sudo systemctl start nvidia-fabricmanager'),
    803: (f'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: {_RESTART}', 'sudo reboot'),
    804: ('CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: the compatibility package of CUDA does not '
          'work on this GPU; take /usr/local/cuda/compat out of LD_LIBRARY_PATH',
          'echo $LD_LIBRARY_PATH'),
    999: ('CUDA_ERROR_UNKNOWN: nvidia_uvm is not loaded, or the GPU was lost in suspend',
          'sudo modprobe -r nvidia_uvm; sudo modprobe nvidia_uvm'),
}
# By what the name of a missing file begins with: what it is, the package of pip with %d for the
# major version of CUDA, and that of JetPack.
LIBRARIES = (
    ('libcudnn', 'cuDNN', 'nvidia-cudnn-cu%d', 'nvidia-cudnn'),
    ('libcublas', 'cuBLAS', 'nvidia-cublas-cu%d', 'nvidia-cuda'),
    ('libcurand', 'cuRAND', 'nvidia-curand-cu%d', 'nvidia-cuda'),
    ('libcudart', 'the CUDA runtime', 'nvidia-cuda-runtime-cu%d', 'nvidia-cuda'),
    ('libnvrtc', 'NVRTC', 'nvidia-cuda-nvrtc-cu%d', 'nvidia-cuda'),
    ('libnvinfer', 'TensorRT', 'tensorrt-cu%d', 'nvidia-tensorrt'),
    ('libnvonnxparser', 'TensorRT', 'tensorrt-cu%d', 'nvidia-tensorrt'),
    ('libnvdla', 'the DLA of the Jetson', '', 'nvidia-l4t-dla-compiler'),
    ('libcuda.', 'the driver', '', 'nvidia-l4t-cuda'),
)
_RUNTIMES = tuple(f'libcudart.so.{version}' for version in ('10.2', '11.0', '12', '13'))
_NVRTC = tuple(f'libnvrtc.so.{version}' for version in ('10.2', '11.2', '12', '13'))
_USUAL = ('/usr/local/cuda/lib64', '/usr/local/cuda/targets/*/lib', '/usr/lib/*-linux-gnu',
          '/usr/lib/*-linux-gnu/nvidia', '/usr/lib/*-linux-gnu/tegra')


def cuda_driver(system: System, options: Options) -> Finding:
    """Start the driver in a child and look what it says."""
    release = hardware.driver_release(system)
    if not hardware.has_gpu(system):
        return skipped(f'{hardware.NO_GPU}; models run on the CPU with ONNX Runtime')
    container = hardware.in_container(system)
    if hardware.nvidia_card(system) and not release and not system.exists('/dev/nvidiactl'):
        return fail('an NVIDIA GPU is there, and no driver of NVIDIA is loaded',
                    CONTAINER if container else 'nouveau or no driver has it; CUDA cannot run',
                    '' if container else 'sudo ubuntu-drivers install && sudo reboot')
    probed = hardware.cuda(system)
    told = probed.told
    if probed.crash:
        return fail(f'the driver ended the process: {probed.crash}',
                    'it is broken, or of another release than its kernel module', 'sudo reboot')
    if 'error' in told:
        return fail(f'libcuda cannot be loaded ({told["error"]})',
                    CONTAINER if container else 'the driver\'s libraries are missing; CUDA cannot '
                    'run', '' if container else _install_driver(system))
    kernel = f'driver {release}, ' if release else ''
    found = f'{kernel}CUDA {cuda_text(told.get("driver", 0))}'
    status = told.get('init')
    if status:
        meaning, command = _STATUS.get(
            status, (f'cuInit failed with error {status}', 'nvidia-smi'))
        if status == 100 and container:
            meaning, command = f'{meaning}; {CONTAINER}', ''
        return fail(f'{found}: cuInit gives error {status}', meaning, command)
    gpus = ', '.join(f'{gpu["name"]} (compute capability {".".join(map(str, gpu["capability"]))})'
                     for gpu in told.get('gpus', []))
    return ok(f'{found}: {gpus}')


def _install_driver(system: System) -> str:
    return ('sudo apt install --reinstall nvidia-l4t-cuda' if hardware.jetson(system) else
            'sudo ubuntu-drivers install && sudo reboot')


def cuda_runtime(system: System, options: Options) -> Finding:
    """Compare the CUDA of the driver with those that programs bring or load."""
    if not hardware.has_gpu(system):
        return skipped(hardware.NO_GPU)
    driver = hardware.cuda(system).told.get('driver')
    if not driver:
        return skipped('the driver does not tell its CUDA; see cuda_driver')
    loaded = system.probe('libraries', *_RUNTIMES).told.get('loaded', {})
    runtimes = {f'{name} ({cuda_text(version)})': version // 1000
                for name, version in loaded.items() if version}
    needs = {**runtimes, **{
        f'{name} {version}': major
        for name, version, major in hardware.tensorrt_packages(system) if major}}
    found = f'the driver has CUDA {cuda_text(driver)}; ' + (
        f'here are {", ".join(needs)}' if needs else 'no runtime of CUDA was found')
    newer = {name: major for name, major in needs.items() if major > driver // 1000}
    if newer:
        # A runtime that lies about is no fault as long as nothing of ours is made for it.
        judge = warn if set(newer) <= set(runtimes) else fail
        return judge(found, f'{", ".join(newer)} need{"s" * (len(newer) == 1)} CUDA '
                     f'{max(newer.values())}, which this driver is too old for: programs made for '
                     'it get CUDA error 35', too_old(system, max(newer.values()), driver))
    return ok(found)


def too_old(system: System, wanted: int, driver: int) -> str:
    """
    Return the command that mends a driver older than what needs it.

    :param wanted: major version of CUDA; driver: version of its CUDA as a number, e.g. 12040
    """
    lower = install_command(f'tensorrt-cu{driver // 1000}')
    if hardware.jetson(system):
        return 'sudo apt install --reinstall nvidia-jetpack  # its own CUDA and TensorRT'
    least = NEEDED_DRIVER.get(wanted)
    newer = f'a driver of {least} or newer' if least else 'a newer driver'
    return f'{lower}  # or {newer}: sudo ubuntu-drivers install && sudo reboot'


def pycuda(system: System, options: Options) -> Finding:
    """Import PyCUDA and use a context, in a child."""
    gpu = hardware.has_gpu(system)
    probed = system.probe('pycuda') if gpu else None
    if probed is None:
        return skipped(hardware.NO_GPU)
    told, command = probed.told, install_command('pycuda')
    if probed.crash:
        return fail(f'PyCUDA ended the process: {probed.crash}',
                    'it was built for another CUDA, or the driver is broken; build it again here',
                    command + ' --no-binary pycuda --force-reinstall')
    if told.get('missing'):
        return warn('PyCUDA is not installed', 'TensorRT engines cannot run, ONNX models on the '
                    'CPU can; building it needs the CUDA toolkit (nvcc in PATH)', command)
    if 'error' in told:
        what, mend = missing_library(system, told['error'])
        if 'undefined symbol: cu' in told['error']:
            what = ('libcuda is missing, or older than the CUDA that PyCUDA was built for; see '
                    'cuda_driver')
        return fail(f'PyCUDA cannot be imported ({told["error"]})', what or 'TensorRT engines '
                    'cannot run', mend or command + ' --no-binary pycuda --force-reinstall')
    built = '.'.join(map(str, told.get('built_for', [])))
    found = f'PyCUDA {told.get("version", "?")} for CUDA {built}'
    if 'context' in told:
        return fail(f'{found}: {told["context"]}', 'no context can be made on the GPU, so engines '
                    'cannot run; cuda_driver and gpu_memory tell more', 'nvidia-smi')
    free, total = told.get('memory', (0, 0))
    return ok(f'{found}; a context works, {free >> 20} of {total >> 20} MiB free')


def kernel_compiler(system: System, options: Options) -> Finding:
    """Look for nvcc, or NVRTC in its place."""
    if not hardware.has_gpu(system):
        return skipped(hardware.NO_GPU)
    homes = [system.environ[name] for name in ('CUDA_HOME', 'CUDA_PATH')
             if system.environ.get(name)]
    nvcc = system.which('nvcc', *(f'{home}/bin' for home in homes), '/usr/local/cuda/bin')
    if nvcc:
        done = system.run([nvcc, '--version'])
        release = re.search(r'release ([\d.]+)', done.output if done else '')
        if release:
            return ok(f'{nvcc}, CUDA {release.group(1)}')
    loaded = system.probe('libraries', *_NVRTC).told.get('loaded', {})
    if loaded:
        return ok(f'{", ".join(loaded)}; no nvcc is needed')
    found = f'{nvcc} does not work, and there is no NVRTC' if nvcc else 'neither nvcc nor NVRTC'
    jetson = hardware.jetson(system)
    return fail(found, 'the GPU kernels are compiled at the first start of an engine, which '
                'cannot be done here', 'sudo apt install cuda-nvcc-*' if jetson else
                install_command(_wheel(system, 'nvidia-cuda-nvrtc-cu%d')))


def cuda_libraries(system: System, options: Options) -> Finding:
    """Load cuDNN and cuBLAS, which TensorRT 8 needs and 10 does not."""
    packages = hardware.tensorrt_packages(system)
    if not hardware.has_gpu(system) or not packages:
        return skipped('there is no TensorRT that could need cuDNN or cuBLAS')
    version = int(max(packages, key=lambda item: int(item[1].split('.')[0]))[1].split('.')[0])
    if version >= 10:
        return skipped(f'TensorRT {version} needs neither cuDNN nor cuBLAS')
    major = _major(system)
    wanted = (f'libcudnn.so.{8 if version == 8 else 7}', f'libcublas.so.{min(major, 12)}')
    probed = system.probe('libraries', *wanted)
    if probed.crash:
        return fail(f'loading them ended the process: {probed.crash}', 'one of them is broken')
    errors = probed.told.get('errors', {})
    if not errors:
        return ok(', '.join(wanted))
    name, error = next(iter(errors.items()))
    what, mend = missing_library(system, error if name in error else f'{name}: {error}')
    return fail(f'{name} cannot be loaded ({error})', f'TensorRT {version} needs it: {what}', mend)


def missing_library(system: System, error: str) -> Tuple[str, str]:
    """
    Return (what is missing, the command that mends it) of an error of the loader, or ('', '').

    >>> # libcudnn.so.8: cannot open shared object file: No such file or directory
    """
    missing = re.search(r'(lib[\w+-]+\.so[\d.]*): cannot open shared object', error)
    if not missing:
        return '', ''
    name = missing.group(1)
    for begin, what, wheel, debian in LIBRARIES:
        if name.startswith(begin):
            folder = _folder_of(system, name)
            if folder:
                return (f'{what} is in {folder}, where the loader does not look',
                        f'export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH')
            if hardware.jetson(system) or not wheel:
                release = hardware.l4t(system)
                old = what == 'cuDNN' and release is not None and release.release < (36,)
                return f'{what} is not installed', f'sudo apt install {debian}{"8" * old}'
            version = re.search(r'\.so\.(\d+)', name)
            pin = f'=={version.group(1)}.*' if version and what in ('cuDNN', 'TensorRT') else ''
            package = _wheel(system, wheel)
            if what == 'TensorRT' and pin.startswith('==8'):
                package = 'tensorrt'  # the names with CUDA came with version 10
            return f'{what} is not installed', install_command(package + pin)
    return f'{name} is not installed', ''


def _wheel(system: System, name: str) -> str:
    """Return the name of a wheel; from CUDA 13 on those of CUDA itself have none of it."""
    major = _major(system)
    if major >= 13 and 'cudnn' not in name and 'tensorrt' not in name:
        return name.replace('-cu%d', '')
    return name % major


def _folder_of(system: System, name: str) -> Optional[str]:
    """Return the usual folder that a library lies in, None if it is in none of them."""
    found: List[str] = [os.path.dirname(path) for pattern in _USUAL
                        for path in system.glob(f'{pattern}/{name}')]
    for folder in hardware.package_folders(system):
        pattern = os.path.join(glob.escape(folder), 'nvidia', '*', 'lib', name)
        found += map(os.path.dirname, sorted(glob.glob(pattern)))
    return found[0] if found else None


def _major(system: System) -> int:
    """Return the major version of CUDA that TensorRT is for, else that of the driver."""
    majors: Dict[str, int] = {
        name: major for name, _, major in hardware.tensorrt_packages(system) if major}
    driver = hardware.cuda(system).told.get('driver', 12000) // 1000
    return max(majors.values(), default=driver)
