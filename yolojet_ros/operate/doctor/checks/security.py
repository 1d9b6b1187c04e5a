"""SROS 2: whether anybody may talk to the nodes."""

from __future__ import annotations

import os

from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, warn
from yolojet_ros.operate.doctor.system import System

_OPEN = 'every process on this network can send images and set parameters'


def security(system: System, options: Options) -> Finding:
    """Look whether SROS 2 is on, and whether it keeps anybody out."""
    enable = system.environ.get('ROS_SECURITY_ENABLE', '')
    strategy = system.environ.get('ROS_SECURITY_STRATEGY', '')
    keystore = system.environ.get('ROS_SECURITY_KEYSTORE', '')
    if enable != 'true':
        if enable and enable.lower() != 'false':
            return warn(f'ROS_SECURITY_ENABLE is "{enable}", so SROS 2 is off',
                        f'only "true" turns it on, in small letters; {_OPEN}',
                        'export ROS_SECURITY_ENABLE=true')
        return ok('SROS 2 is off', f'{_OPEN}, which is how ROS 2 comes')
    if not keystore or not os.path.isdir(os.path.join(keystore, 'enclaves')):
        found = f'there are no enclaves in {keystore}' if keystore else (
            'ROS_SECURITY_KEYSTORE is not set')
        return fail(f'SROS 2 is on, but {found}', 'with ROS_SECURITY_STRATEGY=Enforce no node '
                    'starts, without it all run unprotected',
                    f'ros2 security create_keystore {keystore or "KEYSTORE"}')
    if not _has_keys(os.path.join(keystore, 'enclaves')):
        return fail(f'SROS 2 is on, but there are no keys in {keystore}/enclaves',
                    'with ROS_SECURITY_STRATEGY=Enforce no node starts, without it all run '
                    'unprotected', f'ros2 security create_enclave {keystore} /yolojet/detector')
    if strategy != 'Enforce':
        said = f'"{strategy}"' if strategy else 'not set'
        return warn(f'SROS 2 is on with {keystore}, but ROS_SECURITY_STRATEGY is {said}',
                    'nodes without keys run unprotected, instead of not at all; only "Enforce", '
                    'written so, keeps others out', 'export ROS_SECURITY_STRATEGY=Enforce')
    return ok(f'SROS 2 is on and enforced, with {keystore}')


def _has_keys(enclaves: str) -> bool:
    """Return whether any enclave holds the certificate of an identity."""
    return any('cert.pem' in files for _, _, files in os.walk(enclaves))
