"""Memory of the system and of the GPU, and swap."""

from __future__ import annotations

import re
from typing import Dict

from yolojet_ros.operate.doctor import hardware
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System

_MIB = 1 << 20
# A node with an engine of 640x640 takes 400 MB, and 660 MB on the GPU (README).
_FEW, _TOO_FEW = 1024 * _MIB, 400 * _MIB
_FEW_GPU, _TOO_FEW_GPU = 1024 * _MIB, 350 * _MIB
_SMALL = 9 << 30  # bytes of a Jetson whose builds of engines need swap


def memory(system: System, options: Options) -> Finding:
    """Look how much memory a node could still take."""
    values = _meminfo(system)
    if 'MemTotal' not in values:
        return skipped('/proc/meminfo cannot be read')
    total = values['MemTotal']
    free = values.get('MemAvailable', values.get('MemFree', 0))
    found = f'{free // _MIB} of {total // _MIB} MiB are free'
    limit = _limit(system)
    if limit and limit['total'] < total:
        free = min(free, limit['total'] - limit['used'])
        found = (f'{max(free, 0) // _MIB} MiB are free: the container is limited to '
                 f'{limit["total"] // _MIB} MiB')
    shared = ', which the GPU shares' if hardware.jetson(system) else ''
    if free < _FEW:
        judge = fail if free < _TOO_FEW else warn
        return judge(found + shared, 'a detector with an engine of 640x640 takes 400 MB and more, '
                     'and what finds none is killed', 'ps aux --sort=-rss | head')
    return ok(found + shared)


def swap(system: System, options: Options) -> Finding:
    """Look whether there is swap where it matters."""
    values = _meminfo(system)
    if 'SwapTotal' not in values:
        return skipped('/proc/meminfo cannot be read')
    found = f'{values["SwapTotal"] // _MIB} MiB of swap' if values['SwapTotal'] else 'no swap'
    if hardware.jetson(system) and values['SwapTotal'] < _FEW and values['MemTotal'] < _SMALL:
        return warn(
            f'{found}, with {values["MemTotal"] // _MIB} MiB of memory for CPU and GPU',
            'building an engine takes more for a moment, and is killed without swap',
            'sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile '
            "&& sudo swapon /swapfile && echo '/swapfile none swap sw 0 0' | sudo tee -a "
            '/etc/fstab')
    return ok(found)


def gpu_memory(system: System, options: Options) -> Finding:
    """Look how much memory of the GPU is free."""
    if hardware.jetson(system):
        return skipped('a Jetson\'s GPU shares the memory of the system')
    if not hardware.has_gpu(system):
        return skipped(hardware.NO_GPU)
    done = system.run([
        'nvidia-smi', '--query-gpu=index,name,memory.free,memory.total',
        '--format=csv,noheader,nounits'])
    if done is None:
        return skipped('there is no nvidia-smi to ask')
    # The name may hold commas.
    gpus = re.findall(r'^(\d+), (.*), (\d+), (\d+)$', done.output, re.MULTILINE)
    if done.code or not gpus:
        return skipped(f'nvidia-smi does not tell it: {done.output[:200]}')
    found = '; '.join(f'GPU {index}, {name}: {free} of {total} MiB are free'
                      for index, name, free, total in gpus)
    least = min(int(free) for _, _, free, _ in gpus) * _MIB
    if least < _FEW_GPU:
        judge = fail if least < _TOO_FEW_GPU else warn
        return judge(found, 'a node takes 300 to 700 MB there and more with larger models; '
                     'other processes have the rest', 'nvidia-smi')
    return ok(found)


def _meminfo(system: System) -> Dict[str, int]:
    return {name: int(value) * 1024 for name, value in re.findall(
        r'^(\w+):\s+(\d+) kB', system.read('/proc/meminfo') or '', re.MULTILINE)}


def _limit(system: System) -> Dict[str, int]:
    """Return limit and use of the memory of this container, of control groups 2 or 1."""
    for total, used in (('memory.max', 'memory.current'),
                        ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes')):
        number = system.number(f'/sys/fs/cgroup/{total}')
        if number:
            return {'total': number, 'used': system.number(f'/sys/fs/cgroup/{used}') or 0}
    return {}
