"""
Prepare a process for large images over DDS, before rclpy starts.

A publisher with Fast DDS's defaults sends to a subscriber on its machine through
512 KiB of shared memory, where best-effort images overrun each other; to one that
offers the network only it sends all of them, if the socket's buffer holds an image.
And glibc gives large buffers back to the system after every message, so each one pays
for its page faults again.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import re
import shutil
import socket
from typing import List, Mapping, Tuple
from xml.etree import ElementTree

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.text import shown
from yolojet_ros.ros import profile_files

PROFILE_VARIABLE = 'YOLOJET_TRANSPORT_PROFILE'
SEGMENT_VARIABLE = 'YOLOJET_SHARED_MEMORY_MB'
# auto: send by whatever the other side offers, receive by the network. udp: send by the network,
# too. shared_memory: receive through it, too. untouched: as Fast DDS comes.
TRANSPORT_PROFILES = ('auto', 'udp', 'shared_memory', 'untouched')
PROFILES = Path(__file__).with_name('fastdds.xml')
SHARED_MEMORY = Path('/dev/shm')
_MAX_DOMAIN = 232
_MIDDLEWARES = 'share/ament_index/resource_index/rmw_typesupport_cpp/*'  # below a prefix
_NO_MIDDLEWARE = 'rmw_implementation'  # chooses among them
_MOST_BYTES = 1 << 20  # of a profile
_SEGMENT_MB = 16  # MiB; 2.5 images of 1920x1080
_TRANSPORT_VARIABLES = (
    'FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE')
_NAMESPACE = 'http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles'
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

    :raises UserError: if the profile, the size of the shared memory or the domain is no valid
        one.
    """
    _check_domain()
    return f'images over DDS: {prepare_transport()}; memory: {_prepare_malloc()}'


def check_installed(environment: Mapping[str, str] = os.environ) -> None:
    """
    Look for the middleware that RMW_IMPLEMENTATION names; rcl ends a process that lacks it.

    Call it before rclpy is imported.

    :param environment: of the process that is to start
    :raises UserError: if it is not installed, with those that are.
    """
    name = environment.get('RMW_IMPLEMENTATION')
    prefixes = _folders('AMENT_PREFIX_PATH', environment)
    installed = {path.name for prefix in prefixes for path in prefix.glob(_MIDDLEWARES)}
    folders = _folders('LD_LIBRARY_PATH', environment) + [prefix / 'lib' for prefix in prefixes]
    libraries = [folder / f'lib{name}.so' for folder in folders]
    if name and installed and name not in installed and not any(map(os.path.exists, libraries)):
        raise UserError(
            f'RMW_IMPLEMENTATION is {shown(name)}, a middleware that is not installed here; '
            f'install it, or choose {" or ".join(sorted(installed - {_NO_MIDDLEWARE}))}')


def prepare_transport() -> str:
    """
    Give Fast DDS the transports of the profile, unless the user has configured it.

    The profile is named by YOLOJET_TRANSPORT_PROFILE. Other middlewares are left
    alone. Return what was done; processes started from this one inherit it.

    :raises UserError: if the profile or the size of the shared memory is no valid one.
    """
    profile = os.environ.get(PROFILE_VARIABLE) or 'auto'
    if profile not in TRANSPORT_PROFILES:
        raise UserError(f'the transport profile is {shown(profile)}; '
                        f'choose one of {", ".join(TRANSPORT_PROFILES)}')
    if not is_fast_dds():
        return f'{_middleware()} is left as it is'
    for name in _TRANSPORT_VARIABLES:
        if os.environ.get(name):
            return f'{name}={os.environ[name]} is kept'
    if profile == 'untouched':
        return 'Fast DDS is left as it is'
    megabytes, remark = (0, '') if profile == 'udp' else _segment()
    name = profiles_variable()
    os.environ[name] = str(_profile_file(profile, megabytes))
    way = 'UDP' if not megabytes else (
        f'{megabytes} MiB of shared memory' if profile == 'shared_memory' else
        f'UDP in, UDP and {megabytes} MiB of shared memory out')
    return f'{way}{remark}, by {name}={os.environ[name]}'


def is_fast_dds() -> bool:
    """Return whether the middleware of this process is Fast DDS."""
    return 'fastrtps' in _middleware()


def profiles_variable(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name that the installed Fast DDS knows; version 3 warns about the old one."""
    prefixes = _folders('AMENT_PREFIX_PATH', environment)
    if any((prefix / 'share/fastrtps').is_dir() for prefix in prefixes):
        return 'FASTRTPS_DEFAULT_PROFILES_FILE'
    return 'FASTDDS_DEFAULT_PROFILES_FILE'


def receives_by_network() -> bool:
    """Return whether this process has Fast DDS receive by UDP only, as our profiles have it."""
    text = _profile_in_use()
    return 'UDPv4' in text and ('<type>SHM<' not in text or 'defaultUnicastLocatorList' in text)


def socket_buffer() -> int:
    """
    Return how many bytes the kernel lets wait in a socket that asks for what the profile says.

    Linux grants twice what is asked for, up to twice net.core.rmem_max, and counts its own
    bookkeeping against it.
    """
    wanted = re.search(r'<receiveBufferSize>(\d+)<', _profile_in_use())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if wanted:
            size = min(int(wanted.group(1)), 2**31 - 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _folders(variable: str, environment: Mapping[str, str] = os.environ) -> List[Path]:
    return [Path(folder) for folder in environment.get(variable, '').split(os.pathsep) if folder]


def _check_domain() -> None:
    """Refuse a domain that DDS has no ports for; Fast DDS would end the process."""
    text = os.environ.get('ROS_DOMAIN_ID', '').strip()
    if text.isdecimal() and int(text[:9]) > _MAX_DOMAIN:
        raise UserError(f'ROS_DOMAIN_ID is {shown(text)}; it must be 0 to {_MAX_DOMAIN}')


def _profile_in_use() -> str:
    """Return the XML that Fast DDS reads in this process, '' if it reads none."""
    name = os.environ.get(profiles_variable())
    try:
        return read_text(Path(name), _MOST_BYTES) if name else ''
    except ValueError:
        return ''


def _middleware() -> str:
    return os.environ.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'


def _segment() -> Tuple[int, str]:
    """Return MiB of shared memory to take, 0 where there is too little of it, and a remark."""
    text = os.environ.get(SEGMENT_VARIABLE) or str(_SEGMENT_MB)
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UserError(f'{SEGMENT_VARIABLE} is {shown(text)}; it must be 1 to 4096 MiB, '
                        '2.5 times the largest image')
    wanted = int(text)
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free // 2**20
    except OSError:
        return 0, f' (no {SHARED_MEMORY})'
    # Every process takes as much, and one that gets none fails to share at all.
    if free < 2 * wanted:
        return 0, f' ({free} MiB free in {SHARED_MEMORY}; {2 * wanted} are needed to share memory)'
    return wanted, ''


def _profile_file(profile: str, megabytes: int) -> Path:
    """Return the shipped profile, or one derived from it where something differs."""
    local_only = os.environ.get('ROS_LOCALHOST_ONLY') == '1'
    if profile == 'auto' and megabytes == _SEGMENT_MB and not local_only:
        return PROFILES
    ElementTree.register_namespace('', _NAMESPACE)
    tree = ElementTree.parse(str(PROFILES))
    names = {'': _NAMESPACE}
    descriptors = tree.find('transport_descriptors', names)
    rtps = tree.find('participant/rtps', names)
    transports = rtps.find('userTransports', names)
    if megabytes:
        descriptors[0].find('segment_size', names).text = str(megabytes * 2**20)
    else:
        descriptors.remove(descriptors[0])
        transports.remove(transports[0])
    if profile == 'shared_memory' and megabytes:
        rtps.remove(rtps.find('defaultUnicastLocatorList', names))
    if local_only:  # Fast DDS of Humble adds a network of its own; ours must not lead out of it
        addresses = ElementTree.SubElement(descriptors[-1], f'{{{_NAMESPACE}}}interfaceWhiteList')
        ElementTree.SubElement(addresses, f'{{{_NAMESPACE}}}address').text = '127.0.0.1'
    return profile_files.keep(ElementTree.tostring(tree.getroot()))


def _prepare_malloc() -> str:
    kept: List[str] = [name for _, _, name in _MALLOC if os.environ.get(name)]
    if kept:
        return f'{", ".join(kept)} is kept'
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others have none
        return 'this C library has no mallopt'
    for parameter, value, _ in _MALLOC:
        mallopt(parameter, value)
    return 'malloc keeps large buffers'
