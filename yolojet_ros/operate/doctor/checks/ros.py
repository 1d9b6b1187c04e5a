"""ROS 2: its distribution, its middleware, who finds whom, and the hashes of messages."""

from __future__ import annotations

import json
import os
import re
from typing import Dict, List, Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System
from yolojet_ros.ros import middleware

DISTROS = ('humble', 'iron', 'jazzy', 'kilted', 'rolling')  # whose APIs are used
MESSAGES = ('sensor_msgs.msg', 'vision_msgs.msg', 'diagnostic_msgs.msg', 'std_msgs.msg')
NOT_SOURCED = 'no ROS 2 is sourced'
# Of vision_msgs 4 as distributed; another hash is another type to DDS.
TYPE_HASHES = {
    'Classification': 'RIHS01_f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143',
    'Detection2DArray': 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'LabelInfo': 'RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'VisionInfo': 'RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284',
}
_MOST_DOMAIN = 232
# Above, the ports of DDS are among those that Linux hands out to anybody.
_SAFE_DOMAINS = (*range(102), *range(215, 233))
_RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')


def distribution(system: System) -> str:
    """Return the name of the sourced ROS 2, '' if there is none."""
    return system.environ.get('ROS_DISTRO', '') if prefixes(system) else ''


def prefixes(system: System) -> List[str]:
    """Return the folders that ROS packages are installed in."""
    return [path for path in system.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if path]


def rclpy(system: System, options: Options) -> Finding:
    """Look which ROS 2 is sourced, and whether its Python works."""
    distro = distribution(system)
    if not distro:
        return _not_sourced(system)
    # rcl ends the process where the middleware is missing; that is the next check's to tell.
    probed = system.probe('rclpy', *MESSAGES)
    versions, errors = (probed.told.get(key, {}) for key in ('versions', 'errors'))
    if probed.crash:
        return fail(f'ROS 2 {distro}: {probed.crash}; {probed.done.output[-300:]}'.rstrip('; '),
                    'no node can start', 'printenv | grep -e ^RMW -e ^ROS -e ^CYCLONE -e ^FAST')
    if 'rclpy' in errors:
        return fail(f'ROS 2 {distro} is sourced, but {errors["rclpy"]}',
                    _other_python(system) or 'no node can start',
                    _install(system, 'rclpy'))
    if errors:
        packages = sorted(name.partition('.')[0].replace('_', '-') for name in errors)
        return fail(f'ROS 2 {distro} lacks {", ".join(packages)} '
                    f'({next(iter(errors.values()))})', 'the nodes cannot start',
                    _install(system, *packages))
    if 'context' in probed.told:
        return fail(f'ROS 2 {distro} does not start: {probed.told["context"][:300]}',
                    'no node can start')
    found = f'ROS 2 {distro}, with {probed.told.get("middleware", "?")}'
    if distro not in DISTROS:
        return warn(found, f'yolojet_ros is made for {", ".join(DISTROS)}')
    return ok(found if 'rclpy' in versions else found + ', rclpy unknown')


def _not_sourced(system: System) -> Finding:
    there = system.glob('/opt/ros/*/setup.bash')
    if there:
        return warn(NOT_SOURCED, f'{os.path.dirname(there[-1])} is installed, but this shell does '
                    'not know it', f'source {there[-1]}')
    return skipped(f'{NOT_SOURCED} and none is in /opt/ros; "yolojet detect" needs none, and '
                   './yolojet prepares one from wheels for "demo"')


def _install(system: System, *names: str) -> str:
    """Return the command that installs packages of ROS: by apt, or anew where it is of wheels."""
    distro = distribution(system)
    if any(os.path.isfile(os.path.join(prefix, 'pyvenv.cfg')) for prefix in prefixes(system)):
        return './yolojet demo  # completes its environment first'
    return 'sudo apt install ' + ' '.join(f'ros-{distro}-{name}' for name in names)


def _other_python(system: System) -> str:
    """Return for which Python the sourced rclpy was built, if that is not this one."""
    for prefix in prefixes(system):
        for folder, _, names in os.walk(prefix):
            if os.path.basename(folder) == 'rclpy':
                built = re.search(r'_rclpy\S*\.cpython-3(\d+)', ' '.join(names))
                if built:
                    return (f'its rclpy is for Python 3.{built.group(1)}; start with that Python, '
                            'and without conda or a virtual environment of another')
    return ''


def rmw(system: System, options: Options) -> Finding:
    """Look whether the chosen middleware is installed."""
    if not distribution(system):
        return skipped(NOT_SOURCED)
    name = system.environ.get('RMW_IMPLEMENTATION', '')
    try:
        middleware.check_installed(system.environ)
    except UserError as error:
        return fail(str(error), 'ROS 2 ends every process that starts a node',
                    'unset RMW_IMPLEMENTATION  # or: '
                    + _install(system, name.replace('_', '-')))
    return ok(f'RMW_IMPLEMENTATION is {name}' if name else
              'RMW_IMPLEMENTATION is not set: that of the distribution is used')


def discovery(system: System, options: Options) -> Finding:
    """Look which other nodes these variables let ours find."""
    domain = system.environ.get('ROS_DOMAIN_ID', '').strip()
    if domain and (not domain.isdecimal() or int(domain[:9]) > _MOST_DOMAIN):
        return fail(f'ROS_DOMAIN_ID is "{domain[:40]}"', f'it must be 0 to {_MOST_DOMAIN}; nodes '
                    'do not start', 'export ROS_DOMAIN_ID=0')
    reach = system.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    local = system.environ.get('ROS_LOCALHOST_ONLY', '') == '1'
    peers = system.environ.get('ROS_STATIC_PEERS', '')
    server = system.environ.get('ROS_DISCOVERY_SERVER', '')
    said = [f'ROS_DOMAIN_ID is {domain or "0"}'] + [
        f'{name} is {value}' for name, value in (
            ('ROS_AUTOMATIC_DISCOVERY_RANGE', reach), ('ROS_LOCALHOST_ONLY', '1' if local else ''),
            ('ROS_STATIC_PEERS', peers), ('ROS_DISCOVERY_SERVER', server)) if value]
    found = ', '.join(said)
    if reach and reach.upper() not in _RANGES:
        return fail(found, f'there is no such range: {", ".join(_RANGES)}',
                    'export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET')
    if reach.upper() == 'OFF' and not peers:
        return fail(found, 'nodes find nobody, not even on this machine',
                    'export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET')
    if local or reach.upper() == 'LOCALHOST':
        return warn(found, 'cameras and consumers on other machines are not found',
                    'unset ROS_LOCALHOST_ONLY ROS_AUTOMATIC_DISCOVERY_RANGE')
    if domain and int(domain) not in _SAFE_DOMAINS:
        return warn(found, 'its ports are among those that Linux gives to any program, so a node '
                    'may not start for no visible reason; take 0 to 101',
                    'export ROS_DOMAIN_ID=42')
    if server:
        return ok(found, 'nodes are found as long as that server runs')
    return ok(found)


def vision_msgs(system: System, options: Options) -> Finding:
    """Compare the messages that are installed, and those in the graph, with the released ones."""
    distro = distribution(system)
    if not distro:
        return skipped(NOT_SOURCED)
    there = _installed_hashes(system)
    if there is None:
        return fail('vision_msgs is not installed', 'detections cannot be published',
                    _install(system, 'vision-msgs'))
    if not there:
        return skipped(f'ROS 2 {distro} has no type hashes; they exist from Iron on')
    wrong = sorted(name for name, value in there.items() if TYPE_HASHES[name] != value)
    if wrong:
        return fail(f'{", ".join(wrong)} of vision_msgs here is not the released one '
                    f'({there[wrong[0]][:20]}...)', 'nodes with the released one get none of our '
                    'messages, and say nothing about it; a workspace with an own vision_msgs '
                    'hides the distribution\'s', _install(system, 'vision-msgs')
                    + ', and take the other vision_msgs out of the workspace')
    return ok(f'{len(there)} type hashes of vision_msgs are the released ones')


def _installed_hashes(system: System) -> Optional[Dict[str, str]]:
    """Return the hash of each message, {} where ROS has none, None without vision_msgs."""
    for prefix in prefixes(system):
        folder = os.path.join(prefix, 'share', 'vision_msgs')
        if os.path.isdir(folder):
            hashes = {}
            for name in TYPE_HASHES:
                try:
                    with open(os.path.join(folder, 'msg', name + '.json'), 'rb') as file:
                        items = json.load(file)['type_hashes']
                    hashes.update({name: item['hash_string'] for item in items
                                   if item['type_name'] == f'vision_msgs/msg/{name}'})
                except (OSError, ValueError, KeyError, TypeError):
                    pass
            return hashes
    return None
