"""Machines for the doctor: what their files and programs say, as folder trees."""

from functools import lru_cache
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

import pytest

from yolojet_ros.operate.doctor import runner
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.system import System
from yolojet_ros.operate.doctor.table import CHECKS

MIB = 1 << 20
_MEMORY = ('MemTotal: {total} kB\nMemFree: 100000 kB\nMemAvailable: {free} kB\n'
           'SwapTotal: {swap} kB\nSwapFree: {swap} kB\n')


def _jetson(model, chip, release, modes, mode, gpu, total=8_000_000, **more):
    """Return the files of a Jetson that is well."""
    files = {
        '/proc/device-tree/model': model + '\0',
        '/proc/device-tree/compatible': f'nvidia,p3737-0000+p3701-0000\0nvidia,{chip}\0',
        '/etc/nv_tegra_release':
            f'# R{release[0]} (release), REVISION: {release[1]}, GCID: 36191598, BOARD: generic, '
            'EABI: aarch64, DATE: Mon May  6 17:34:21 UTC 2024\n# KERNEL_VARIANT: oot\n',
        '/etc/nvpmodel.conf': '< PARAM TYPE=FILE NAME=CPU_ONLINE >\n' + ''.join(
            f'< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_1 1\n'
            for number, name in enumerate(modes)) + '< PM_CONFIG DEFAULT=0 >\n',
        '/var/lib/nvpmodel/status': f'pmode:{mode:04}\n',
        '/proc/meminfo': _MEMORY.format(total=total, free=total // 2, swap=4_000_000),
        '/proc/sys/net/core/rmem_max': '8388608\n',
        '/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq': '1510400\n',
        '/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq': '1510400\n',
        f'/sys/class/devfreq/{gpu}/min_freq': '624750000\n',
        f'/sys/class/devfreq/{gpu}/max_freq': '624750000\n',
        '/sys/class/thermal/thermal_zone0/type': 'cpu-thermal\n',
        '/sys/class/thermal/thermal_zone0/temp': '51250\n',
        '/sys/class/thermal/thermal_zone0/trip_point_0_type': 'critical\n',
        '/sys/class/thermal/thermal_zone0/trip_point_0_temp': '104500\n',
        '/sys/class/thermal/thermal_zone0/trip_point_1_type': 'passive\n',
        '/sys/class/thermal/thermal_zone0/trip_point_1_temp': '99000\n',
        '/sys/class/thermal/cooling_device0/type': 'pwm-fan\n',
        '/sys/class/thermal/cooling_device0/cur_state': '2\n',
        '/sys/class/thermal/cooling_device1/type': 'cpu-throttle-alert\n',
        '/sys/class/thermal/cooling_device1/cur_state': '0\n',
        '/sys/class/hwmon/hwmon3/name': 'soctherm_oc\n',
        '/sys/class/hwmon/hwmon3/oc1_event_cnt': '0\n',
        '/dev/shm/': '',
    }
    files.update(more)
    return files


NANO = _jetson('NVIDIA Jetson Nano Developer Kit', 'tegra210', (32, '7.1'), ('MAXN', '5W'), 0,
               '57000000.gpu', 4_059_264)
XAVIER = _jetson(
    'NVIDIA Jetson Xavier NX Developer Kit', 'tegra194', (35, '4.1'),
    ('MODE_15W_2CORE', 'MODE_15W_4CORE', 'MODE_15W_6CORE', 'MODE_10W_2CORE', 'MODE_10W_4CORE',
     'MODE_10W_DESKTOP', 'MODE_20W_2CORE', 'MODE_20W_4CORE', 'MODE_20W_6CORE'), 8,
    '17000000.gv11b')
ORIN = _jetson('NVIDIA Jetson Orin Nano Developer Kit', 'tegra234', (36, '3.0'), ('15W', '7W'), 0,
               '17000000.gpu')
THOR = _jetson('NVIDIA Jetson AGX Thor Developer Kit', 'tegra264', (38, '2.2'),
               ('MAXN', '120W', '90W', '70W'), 0, 'gpu-gpc-0', 128_000_000)
PC = {
    '/sys/bus/pci/devices/0000:01:00.0/vendor': '0x10de\n',
    '/sys/bus/pci/devices/0000:01:00.0/class': '0x030000\n',
    '/proc/driver/nvidia/version':
        'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024'
        '\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n',
    '/dev/nvidiactl': '',
    '/proc/meminfo': _MEMORY.format(total=32_000_000, free=20_000_000, swap=0),
    '/proc/sys/net/core/rmem_max': '212992\n',
    '/dev/shm/': '',
}
CONTAINER = {**PC, '/.dockerenv': '', '/sys/fs/cgroup/memory.max': f'{2048 * MIB}\n',
             '/sys/fs/cgroup/memory.current': f'{200 * MIB}\n'}
BARE = {'/proc/meminfo': PC['/proc/meminfo'], '/dev/shm/': ''}


class Machine(System):
    """A recorded machine: `files` by path, `programs` as shell scripts, `packages` of Python."""

    def __init__(self, folder, files=BARE, programs=(), packages=(), disks=(), **environ):
        root, modules = Path(folder, 'root'), Path(folder, 'packages')
        modules.mkdir()
        for path, text in files.items():
            if text is not None:
                target = root / path.lstrip('/')
                if path.endswith('/'):
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text)
        for name, script in dict(programs).items():
            target = root / 'usr/bin' / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]}\n{script}\n')
            target.chmod(0o755)
        for name, code in dict(packages).items():
            target = modules / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(code)
        self.packages = modules
        self.disks = {'/dev/shm': (8192 * MIB, 8192 * MIB), **dict(disks)}
        super().__init__(str(root), {
            'PATH': '/usr/bin', 'PYTHONPATH': str(modules), **environ},
            # Not that of a virtual environment, which has packages, and may start twice.
            os.path.realpath(sys.executable))

    def disk(self, path):
        """Return what is recorded: no test can fill a real disk."""
        return self.disks.get(path)


def check(system, name, timeout=None, **options):
    """Run one check as the command does and return its finding."""
    one = [item for item in CHECKS if item.name == name]
    (result,) = runner.run(one, system, Options(**options), timeout)
    return result.finding


def library(folder, name, **macros):
    """Put the stand-in of one of NVIDIA's libraries into a folder; return that."""
    folder = Path(folder, 'lib')
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(_compiled(tuple(sorted(macros.items()))))
    return str(folder)


@lru_cache(maxsize=None)
def _compiled(macros):
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        pytest.skip('there is no C compiler')
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, 'library.so')
        subprocess.run(
            [compiler, '-shared', '-fPIC', *(f'-D{key}={value}' for key, value in macros),
             '-o', str(result), str(Path(__file__).with_name('nvidia_standin.c'))], check=True)
        return result.read_bytes()


# As NVIDIA's bindings are, in so far as the doctor uses them.
_TENSORRT = '''
import enum
__version__ = {version!r}
class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)
def Builder(logger):
    logger.log(ILogger.Severity.INFO, 'Init CUDA: CPU +0, GPU +0, now: CPU 23, GPU 0 (MiB)')
    {builder}
'''


def absent(name):
    """Return the code of a package that is not installed."""
    return f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})'


ABSENT = {'tensorrt.py': absent('tensorrt'), 'pycuda.py': absent('pycuda')}


def tensorrt(builder='return object()', version='8.6.1'):
    """Return a TensorRT whose builder runs that code, as a package."""
    return {'tensorrt.py': _TENSORRT.format(version=version, builder=builder)}


def gpu_machine(tmp_path, files=PC, packages=(), init=0, driver=12040, programs=(), **macros):
    """Return a machine with a driver that answers; add its other libraries by `library`."""
    folder = library(tmp_path, 'libcuda.so.1', DRIVER=driver, INIT=init, **macros)
    return Machine(tmp_path, files, programs, {**ABSENT, **dict(packages)},
                   LD_LIBRARY_PATH=folder)
