"""What the kernel gives to images on their way: socket buffers and shared memory."""

from __future__ import annotations

from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System

RMEM_MAX = '/proc/sys/net/core/rmem_max'
SHM = '/dev/shm'
_MIB = 1 << 20
_IMAGE = 1280 * 720 * 3
_WANTED = 8 << 20  # bytes: twice this, as the kernel grants, holds 2.5 images of 1920x1080
_SEGMENT = 16 * _MIB  # of each process, as ros/fastdds.xml has it


def socket_buffer(system: System, options: Options) -> Finding:
    """Look how much may wait in a socket."""
    limit = system.number(RMEM_MAX)
    if limit is None:
        return skipped(f'{RMEM_MAX} cannot be read here, as in some containers; look at '
                       'net.core.rmem_max on the host')
    found = f'net.core.rmem_max is {limit}: a socket holds {2 * limit / 1e6:.1f} MB'
    if 2 * limit >= _IMAGE:
        return ok(found)
    setting = f'net.core.rmem_max={_WANTED}'
    return warn(
        found, f'a best-effort image of 1280x720 ({_IMAGE / 1e6:.1f} MB) does not fit and is lost '
        'on its way; on the host of a container, and then start the nodes again',
        f"sudo sysctl -w {setting} && echo '{setting}' | sudo tee /etc/sysctl.d/60-images.conf")


def shared_memory(system: System, options: Options) -> Finding:
    """Look whether DDS can share memory."""
    disk = system.disk(SHM) if system.exists(SHM) else None
    if disk is None:
        return fail(f'there is no {SHM}', 'DDS cannot share memory, and some versions of it do '
                    'not start', f'sudo mount -t tmpfs tmpfs {SHM}')
    total, free = disk
    left = len(system.glob(f'{SHM}/fastrtps_*')) + len(system.glob(f'{SHM}/sem.fastrtps_*'))
    found = f'{free // _MIB} of {total // _MIB} MiB of {SHM} are free'
    found += f', with {left} files of Fast DDS' if left else ''
    if not system.writable(SHM):
        return fail(found + '; this user cannot write to it', 'DDS cannot share memory',
                    f'sudo chmod 1777 {SHM}')
    if free >= 2 * _SEGMENT:
        return ok(found)
    meaning = (f'each process that sends images takes {_SEGMENT // _MIB} MiB of it; '
               'without, images go by the network only')
    if total < 4 * _SEGMENT + _MIB:
        return warn(found, meaning, 'docker run --shm-size=512m ... (--ipc=host for nodes in '
                    'several containers), or sudo mount -o remount,size=512m ' + SHM)
    return warn(found, meaning + '; processes that were killed leave their files behind',
                'fastdds shm clean' if left else f'ls -lS {SHM} | head')
