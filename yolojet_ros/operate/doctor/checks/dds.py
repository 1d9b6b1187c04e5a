"""Settings of DDS that lose large images, and images sent between two processes to see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional
from xml.etree import ElementTree

from yolojet_ros.core.files import read_text
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.checks.ros import distribution, NOT_SOURCED
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System
from yolojet_ros.ros import middleware

_IMAGE = 1280 * 720 * 3  # bytes
_PROFILES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
_BUILTIN = 'FASTDDS_BUILTIN_TRANSPORTS'
_MOST_BYTES = 1 << 20  # of a profile
# What Fast DDS knows, and what becomes of best-effort images of 2.8 MB with it.
_TRANSPORTS = {
    'NONE': 'no transport is left, and nodes find nobody',
    'DEFAULT': 'images go through 512 KiB of shared memory, where they overrun each other',
    'DEFAULTv6': 'images go through 512 KiB of shared memory, where they overrun each other',
    'SHM': 'images go through 512 KiB of shared memory, where they overrun each other',
    'UDPv4': 'images wait in a socket of the default size, net.core.rmem_default, and overrun it',
    'UDPv6': 'images wait in a socket of the default size, net.core.rmem_default, and overrun it',
    'LARGE_DATA': '', 'LARGE_DATAv6': '', 'P2P': '',
}
_ENOUGH, _LATE_MS = 0.95, 50.0


def dds_settings(system: System, options: Options) -> Finding:
    """Look at what this shell tells the middleware."""
    if not distribution(system):
        return skipped(NOT_SOURCED)
    name = system.environ.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    if 'cyclonedds' in name:
        return _cyclone(system)
    if 'fastrtps' not in name:
        return ok(f'{name} has no settings that are known here')
    builtin = system.environ.get(_BUILTIN, '')
    if builtin:
        return _builtin(builtin)
    for variable in _PROFILES:
        if system.environ.get(variable):
            return _profile(system, variable, system.environ[variable])
    profile = system.environ.get(middleware.PROFILE_VARIABLE, '')
    if profile and profile not in middleware.TRANSPORT_PROFILES:
        return fail(f'{middleware.PROFILE_VARIABLE} is "{profile}"', 'our nodes do not start; it '
                    f'must be one of {", ".join(middleware.TRANSPORT_PROFILES)}',
                    f'unset {middleware.PROFILE_VARIABLE}')
    if profile == 'untouched':
        return warn(f'{middleware.PROFILE_VARIABLE} is untouched', 'Fast DDS as it comes loses '
                    'most best-effort images of 1280x720', f'unset {middleware.PROFILE_VARIABLE}')
    return ok('Fast DDS has no settings here; our nodes bring theirs')


def _builtin(value: str) -> Finding:
    found = f'{_BUILTIN} is {value}'
    name = value.partition('?')[0]
    known = {key.upper(): text for key, text in _TRANSPORTS.items()}
    loses = known.get(name.upper())
    if loses is None:
        return fail(found, f'Fast DDS knows {", ".join(_TRANSPORTS)}, and takes its default for '
                    'anything else', f'unset {_BUILTIN}')
    if loses:
        return warn(found, f'our own settings give way to it, and {loses}', f'unset {_BUILTIN}')
    return ok(found, 'our own settings give way to it')


def _profile(system: System, variable: str, path: str) -> Finding:
    found = f'{variable} is {path}'
    try:
        text = read_text(Path(path), _MOST_BYTES).encode()
    except ValueError as error:
        return fail(f'{found}, which cannot be read ({error})',
                    'Fast DDS goes on with its defaults, which lose large images',
                    f'unset {variable}')
    if text == middleware.PROFILES.read_bytes():
        return _known_by(system, variable, ok(found, 'these are our own settings'))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return fail(f'{found}, which is no XML ({error})',
                    'Fast DDS goes on with its defaults, which lose large images',
                    f'unset {variable}')
    small = _small(root)
    if small:
        return warn(found, f'our own settings give way to it, and {small}: it loses best-effort '
                    f'images of 1280x720 ({_IMAGE / 1e6:.1f} MB); raise that, or use ours',
                    f'export {variable}={middleware.PROFILES}')
    return _known_by(system, variable, ok(found, 'our own settings give way to it'))


def _known_by(system: System, variable: str, good: Finding) -> Finding:
    known = middleware.profiles_variable(system.environ)
    if variable == known or variable == 'FASTRTPS_DEFAULT_PROFILES_FILE':
        return good  # version 3 takes the old name, with a warning
    return fail(good.found, f'the Fast DDS of this ROS 2 does not know that variable, but {known}',
                f'export {known}=${variable}; unset {variable}')


def _small(root: ElementTree.Element) -> str:
    """Return which buffer of a profile is smaller than an image, '' if none is."""
    values = {'segment_size': 0, 'receiveBufferSize': 0}
    kinds: List[str] = []
    for element in root.iter():
        tag, text = element.tag.rpartition('}')[2], (element.text or '').strip()
        if tag in values and text.isdecimal():
            values[tag] = max(values[tag], int(text))
        elif tag == 'type':
            kinds.append(text)
        elif tag == 'useBuiltinTransports' and text == 'true':
            kinds.append('SHM')
    if not kinds:
        return 'it leaves 512 KiB of shared memory for all images'
    # The network alone is enough where it is received by; a segment then only serves to send.
    if 'UDPv4' in kinds and values['receiveBufferSize'] >= _IMAGE:
        return ''
    if 'SHM' in kinds and values['segment_size'] < _IMAGE:
        return f'its segment_size is {values["segment_size"] or "not set (512 KiB)"}'
    if 'SHM' not in kinds and 'UDPv4' in kinds:
        return f'its receiveBufferSize is {values["receiveBufferSize"] or "not set"}'
    return ''


def _cyclone(system: System) -> Finding:
    uri = system.environ.get('CYCLONEDDS_URI', '')
    if not uri:
        return ok('Cyclone DDS has no settings here', 'large images need net.core.rmem_max '
                  'raised; see socket_buffer')
    path = uri[len('file://'):] if uri.startswith('file://') else uri
    if not uri.lstrip().startswith('<') and not os.path.isfile(path):
        return fail(f'CYCLONEDDS_URI is {uri}, and there is no such file',
                    'ROS 2 does not start a node', 'unset CYCLONEDDS_URI')
    return ok(f'CYCLONEDDS_URI is {uri[:200]}')


def images(system: System, options: Options) -> Finding:
    """Send images of 1280x720 from a plain driver to a node of ours, and count."""
    if not distribution(system):
        return skipped(NOT_SOURCED)
    if not options.images:
        return skipped('this program has nothing to send images with')
    probed = system.told(options.images)
    rows, error = probed.told.get('rows', []), probed.told.get('error')
    if probed.crash:
        return fail(f'the test ended by {probed.crash}; {probed.done.output[-300:]}',
                    'nodes cannot talk to each other here')
    if error or not rows:
        return fail(f'the test cannot run: {error or "it told nothing"}',
                    'nodes cannot talk to each other here')
    said, worst = [], 1.0
    latest: Optional[float] = None
    for row in rows:
        text = f'{row["received"]} of {row["sent"]} {row["qos"].replace("_", "-")} images arrived'
        if row['received']:
            text += f', {row["p50"]:.1f} ms old (p99 {row["p99"]:.1f})'
            latest = max(latest or 0.0, row['p50'])
        worst = min(worst, row['received'] / row['sent'])
        said.append(text)
    found = f'1280x720, 30 Hz: {"; ".join(said)}'
    if not any(row['received'] for row in rows):
        return fail(found, 'no image gets from one process to another; look at dds_settings, '
                    'discovery and security above')
    if worst < _ENOUGH:
        return warn(found, 'images are lost on their way between two processes; look at '
                    'dds_settings and socket_buffer above')
    if latest is not None and latest > _LATE_MS:
        return warn(found, 'images arrive late: this machine is busy, or the transport slow',
                    'top -o %CPU')
    return ok(found)
