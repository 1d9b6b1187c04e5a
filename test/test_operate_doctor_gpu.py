"""The doctor on GPUs: what drivers, libraries, TensorRT and PyCUDA say where they fail."""

import time

from doctor_machines import (
    absent, ABSENT, BARE, check, CONTAINER, gpu_machine, library, Machine, NANO, ORIN, PC,
    tensorrt, XAVIER)
import pytest

_FACTORY = 'raise TypeError("pybind11::init(): factory function returned nullptr")'
_ERROR_35 = ('logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35. '
             'Please check your CUDA installation:  http://docs.nvidia.com/cuda/index.html")\n'
             f'    {_FACTORY}')
_PYCUDA = {'pycuda/__init__.py': 'VERSION_TEXT = "2025.1"', 'pycuda/driver.py': '''
class Error(Exception): pass
class LogicError(Error): pass
get_version = lambda: (12, 4, 0)
mem_get_info = lambda: (1 << 30, 2 << 30)
def init(): {init}
class Context:
    pop = staticmethod(lambda: None)
    push = detach = lambda self: None
class Device:
    def __init__(self, index): pass
    def retain_primary_context(self): {context}
'''}


def _wheel(cuda, version='8.6.1'):
    return {f'tensorrt_cu{cuda}-{version}.dist-info/METADATA': ''}


def test_a_driver_that_is_well(tmp_path):
    finding = check(gpu_machine(tmp_path), 'cuda_driver')
    assert finding.status == 'ok'
    assert finding.found == 'driver 535.183.01, CUDA 12.4: Orin (compute capability 8.7)'


@pytest.mark.parametrize('status, words, command', [
    (46, 'has the GPU for itself', 'sudo'), (34, '/stubs out of', 'echo $LD_LIBRARY_PATH'),
    (100, 'CUDA_ERROR_NO_DEVICE', 'unset CUDA_VISIBLE_DEVICES'),
    (802, 'fabric manager', 'sudo systemctl start nvidia-fabricmanager'),
    (803, 'the driver was updated', 'sudo reboot'), (804, 'cuda/compat', 'echo'),
    (999, 'nvidia_uvm', 'sudo modprobe'), (719, 'cuInit failed with error 719', 'nvidia-smi')])
def test_a_driver_that_does_not_start(tmp_path, status, words, command):
    finding = check(gpu_machine(tmp_path, init=status), 'cuda_driver')
    assert finding.status == 'fail' and finding.found.endswith(f'cuInit gives error {status}')
    assert words in finding.meaning and finding.command.startswith(command)


def test_a_driver_that_crashes_or_hangs(tmp_path):
    system = gpu_machine(tmp_path, CRASH=1)
    _runtimes(tmp_path, 12040)
    assert 'SIGSEGV at "cuInit"' in check(system, 'cuda_driver').found
    assert check(system, 'cuda_runtime').status == 'ok', 'it has told its CUDA before'
    library(tmp_path, 'libcuda.so.1', DRIVER=12040, INIT=0, HANG=1)
    system._probed.clear()
    assert check(system, 'cuda_driver', 1).found == '"cuInit" gave no answer within 1 s'
    begin = time.monotonic()
    assert 'gave no answer' in check(system, 'cuda_runtime', 30).found
    assert time.monotonic() - begin < 5, 'what has hung once is not waited for again'


def test_no_driver_at_all(tmp_path):
    files = {path: text for path, text in PC.items()
             if path not in ('/dev/nvidiactl', '/proc/driver/nvidia/version')}
    finding = check(Machine(tmp_path, files), 'cuda_driver')
    assert finding.status == 'fail' and 'no driver of NVIDIA is loaded' in finding.found
    assert finding.command == 'sudo ubuntu-drivers install && sudo reboot'


def test_libcuda_that_is_missing_in_a_container(tmp_path):
    finding = check(Machine(tmp_path, CONTAINER), 'cuda_driver')
    assert finding.status == 'fail' and '--gpus all' in finding.meaning
    assert 'libcuda.so.1: cannot open shared object file' in finding.found


def test_no_gpu_is_no_failure(tmp_path):
    system = Machine(tmp_path, BARE, packages=ABSENT)
    for name in ('cuda_driver', 'cuda_runtime', 'cuda_libraries', 'kernel_compiler', 'pycuda',
                 'tensorrt', 'gpu_memory'):
        assert check(system, name).status == 'skipped', name


def test_a_driver_older_than_the_runtime(tmp_path):
    system = gpu_machine(tmp_path, packages=_wheel(13, '10.14.1'))
    _runtimes(tmp_path, 12060)
    finding = check(system, 'cuda_runtime')
    assert finding.status == 'fail'
    assert finding.found == ('the driver has CUDA 12.4; here are libcudart.so.12 (12.6), '
                             'tensorrt_cu13 10.14.1')
    assert 'tensorrt_cu13 10.14.1 needs CUDA 13' in finding.meaning
    assert 'tensorrt-cu12' in finding.command and 'driver of 580.65 or newer' in finding.command


def test_a_newer_minor_version_of_the_runtime_is_no_fault(tmp_path):
    system = gpu_machine(tmp_path, packages=_wheel(12))
    _runtimes(tmp_path, 12060)
    assert check(system, 'cuda_runtime').status == 'ok'


def test_a_newer_runtime_that_nothing_of_ours_needs_is_a_warning(tmp_path):
    system = gpu_machine(tmp_path, packages=_wheel(12))
    _runtimes(tmp_path, 12060, 13000)
    finding = check(system, 'cuda_runtime')
    assert finding.status == 'warn' and 'libcudart.so.13 (13.0) needs CUDA 13' in finding.meaning


def _runtimes(tmp_path, twelve, thirteen=0):
    """Let no runtime of the machine that the tests run on be found."""
    for number, version in ((12, twelve), (13, thirteen)):
        library(tmp_path, f'libcudart.so.{number}', RUNTIME=version)


def test_cuda_error_35_names_both_versions_and_what_to_do(tmp_path):
    system = gpu_machine(tmp_path, packages={
        **tensorrt(_ERROR_35, '10.14.1'), **_wheel(13, '10.14.1')})
    finding = check(system, 'tensorrt')
    assert finding.status == 'fail'
    assert finding.found == ('TensorRT 10.14.1 for CUDA 13: CUDA initialization failure with '
                             'error 35')
    assert 'this driver has CUDA 12.4' in finding.meaning
    assert 'built for CUDA 13: the driver is older than the runtime' in finding.meaning
    assert 'tensorrt-cu12' in finding.command


@pytest.mark.parametrize('builder, words', [
    (f'import sys; print("Cuda initialization failure with error 2. Please check", '
     f'file=sys.stderr)\n    {_FACTORY}', 'no memory is left'),
    (_ERROR_35.replace(': 35', ': 46'), 'has the GPU for itself'),
    (_ERROR_35.replace(': 35', ': 36'), 'the driver is older than the runtime'),
    (_ERROR_35.replace(_FACTORY, 'import os; os.kill(os.getpid(), 11)'), 'older than the runtime'),
    ('import os; os.kill(os.getpid(), 11)', 'cannot be used with this driver'),
    (_FACTORY, 'engines cannot be built')])
def test_tensorrt_that_makes_no_builder(tmp_path, builder, words):
    finding = check(gpu_machine(tmp_path, packages=tensorrt(builder)), 'tensorrt')
    assert finding.status == 'fail' and words in finding.meaning, finding
    assert finding.command


def test_a_crash_of_a_tensorrt_for_a_newer_cuda_is_error_35(tmp_path):
    system = gpu_machine(tmp_path, packages={
        'tensorrt.py': 'import os; os.abort()', **_wheel(13, '10.14.1')})
    assert 'built for CUDA 13' in check(system, 'tensorrt').meaning


@pytest.mark.parametrize('name, words, command', [
    ('libcudnn.so.8', 'cuDNN is not installed', 'nvidia-cudnn-cu12==8.*'),
    ('libcublas.so.12', 'cuBLAS is not installed', 'nvidia-cublas-cu12'),
    ('libcublasLt.so.12', 'cuBLAS is not installed', 'nvidia-cublas-cu12'),
    ('libnvinfer.so.8', 'TensorRT is not installed', "'tensorrt==8.*'"),
    ('libnvinfer.so.10', 'TensorRT is not installed', "'tensorrt-cu12==10.*'"),
    ('libodd.so.1', 'libodd.so.1 is not installed', 'tensorrt-cu12')])
def test_a_library_that_tensorrt_misses(tmp_path, name, words, command):
    error = f'{name}: cannot open shared object file: No such file or directory'
    system = gpu_machine(tmp_path, packages={'tensorrt.py': f'raise ImportError({error!r})'})
    finding = check(system, 'tensorrt')
    assert finding.status == 'fail' and name in finding.found and words in finding.meaning
    assert command in finding.command


def test_wheels_of_cuda_13_have_other_names(tmp_path):
    error = 'libcublas.so.13: cannot open shared object file: No such file or directory'
    system = gpu_machine(tmp_path, driver=13000, packages={
        'tensorrt.py': f'raise ImportError({error!r})'})
    assert ' nvidia-cublas ' in check(system, 'tensorrt').command + ' '


def test_a_library_that_lies_in_a_wheel(tmp_path):
    error = 'libcudnn.so.8: cannot open shared object file: No such file or directory'
    system = gpu_machine(tmp_path, packages={
        'tensorrt.py': f'raise ImportError({error!r})', 'nvidia/cudnn/lib/libcudnn.so.8': ''})
    assert check(system, 'tensorrt').command.startswith(
        f'export LD_LIBRARY_PATH={system.packages}/nvidia/cudnn/lib:')


def test_a_library_that_is_there_and_not_found(tmp_path):
    error = 'libcudnn.so.8: cannot open shared object file: No such file or directory'
    system = gpu_machine(
        tmp_path, {**PC, '/usr/local/cuda/lib64/libcudnn.so.8': ''},
        {'tensorrt.py': f'raise ImportError({error!r})'})
    assert check(system, 'tensorrt').command == (
        'export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH')


@pytest.mark.parametrize('files, package', [(XAVIER, 'nvidia-cudnn8'), (ORIN, 'nvidia-cudnn')])
def test_a_jetson_gets_its_libraries_from_jetpack(tmp_path, files, package):
    error = 'libcudnn.so.8: cannot open shared object file: No such file or directory'
    system = gpu_machine(tmp_path, files, {'tensorrt.py': f'raise ImportError({error!r})'})
    assert check(system, 'tensorrt').command == f'sudo apt install {package}'


def test_tensorrt_that_loads_another_cudnn(tmp_path):
    builder = ('logger.log(ILogger.Severity.WARNING, "TensorRT was linked against cuDNN 8.9.2 but '
               'loaded cuDNN 8.9.0"); return object()')
    finding = check(gpu_machine(tmp_path, packages=tensorrt(builder)), 'tensorrt')
    assert finding.status == 'warn'
    assert finding.found == 'TensorRT 8.6.1 was linked against cuDNN 8.9.2 and loads 8.9.0'


@pytest.mark.parametrize('files, version, status', [
    (XAVIER, '8.5.2', 'ok'), (XAVIER, '10.3.0', 'warn'), (ORIN, '10.3.0', 'ok')])
def test_tensorrt_of_another_jetpack(tmp_path, files, version, status):
    finding = check(gpu_machine(tmp_path, files, tensorrt(version=version)), 'tensorrt')
    assert finding.status == status


def test_tensorrt_without_python(tmp_path):
    status = ('Package: libnvinfer8\nStatus: install ok installed\nArchitecture: arm64\n'
              'Version: 8.2.1-1+cuda10.2\nDepends: libcudnn8\n\n'
              'Package: libnvinfer-dev\nStatus: install ok installed\nVersion: 8.2.1-1+cuda10.2\n')
    system = gpu_machine(tmp_path, {**NANO, '/var/lib/dpkg/status': status}, driver=10020)
    finding = check(system, 'tensorrt')
    assert finding.status == 'fail' and finding.found.startswith('libnvinfer8 8.2.1 is there')
    assert finding.command == 'sudo apt install python3-libnvinfer'
    assert 'libnvinfer8 8.2.1' in check(system, 'cuda_runtime').found


def test_cudnn_and_cublas_of_tensorrt_8(tmp_path):
    system = gpu_machine(tmp_path, packages=_wheel(12))
    finding = check(system, 'cuda_libraries')
    assert finding.status == 'fail' and finding.meaning.startswith('TensorRT 8 needs it: cuDNN')
    library(tmp_path, 'libcudnn.so.8')
    library(tmp_path, 'libcublas.so.12')
    system._probed.clear()
    assert check(system, 'cuda_libraries').found == 'libcudnn.so.8, libcublas.so.12'


def test_tensorrt_10_needs_neither(tmp_path):
    system = gpu_machine(tmp_path, packages=_wheel(12, '10.3.0'))
    assert check(system, 'cuda_libraries').status == 'skipped'


@pytest.mark.parametrize('packages, status, words', [
    ({}, 'warn', 'PyCUDA is not installed'),
    ({**_PYCUDA, 'pycuda/driver.py':
      'raise ImportError("libcurand.so.10: cannot open shared object file: No such file")'},
     'fail', 'libcurand.so.10'),
    ({**_PYCUDA, 'pycuda/driver.py':
      'raise ImportError("_driver.cpython-310.so: undefined symbol: cuArrayCreate_v2")'},
     'fail', 'libcuda is missing, or older'),
    ({**_PYCUDA, 'pycuda/driver.py': _PYCUDA['pycuda/driver.py'].format(
        init='raise LogicError("cuInit failed: system has unsupported display driver / cuda '
             'driver combination")', context='pass')}, 'fail', 'unsupported display driver'),
    ({**_PYCUDA, 'pycuda/driver.py': _PYCUDA['pycuda/driver.py'].format(
        init='pass', context='raise LogicError("cuDevicePrimaryCtxRetain failed: out of memory")'
    )}, 'fail', 'out of memory'),
    ({**_PYCUDA, 'pycuda/driver.py': 'import os; os.kill(os.getpid(), 11)'}, 'fail',
     'SIGSEGV at "import pycuda.driver"'),
    ({**_PYCUDA, 'pycuda/driver.py': _PYCUDA['pycuda/driver.py'].format(
        init='pass', context='return Context()')}, 'ok', '1024 of 2048 MiB free')])
def test_pycuda(tmp_path, packages, status, words):
    system = Machine(tmp_path, PC, packages=dict(packages) or ABSENT)
    finding = check(system, 'pycuda')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'
    assert finding.status == 'ok' or finding.command


def test_what_compiles_the_kernels(tmp_path):
    system = gpu_machine(tmp_path)
    finding = check(system, 'kernel_compiler')
    if finding.status == 'ok':
        pytest.skip('this machine has an NVRTC of its own')
    assert finding.status == 'fail' and finding.found == 'neither nvcc nor NVRTC'
    library(tmp_path, 'libnvrtc.so.12')
    system._probed.clear()
    assert check(system, 'kernel_compiler').found == 'libnvrtc.so.12; no nvcc is needed'


def test_nvcc_is_found_where_it_usually_lies(tmp_path):
    system = Machine(tmp_path, PC)
    folder = tmp_path / 'root/usr/local/cuda/bin'
    folder.mkdir(parents=True)
    (folder / 'nvcc').write_text(
        '#!/bin/sh\necho "Cuda compilation tools, release 12.2, V12.2.140"\n')
    (folder / 'nvcc').chmod(0o755)
    assert check(system, 'kernel_compiler').found == '/usr/local/cuda/bin/nvcc, CUDA 12.2'


@pytest.mark.parametrize('code, status, words', [
    (absent('onnxruntime'), 'warn', 'not installed'),
    ('raise ImportError("libonnxruntime.so: undefined symbol")', 'fail', 'undefined symbol'),
    ('__version__ = "1.2"', 'fail', 'no providers'),
    ('__version__ = "1.2"\nget_available_providers = lambda: ["AzureExecutionProvider"]', 'fail',
     'half installed'),
    ('import os; os.kill(os.getpid(), 4)', 'fail', 'SIGILL')])
def test_onnx_runtime(tmp_path, code, status, words):
    finding = check(Machine(tmp_path, packages={'onnxruntime.py': code}), 'onnxruntime')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'
    assert 'install' in finding.command
