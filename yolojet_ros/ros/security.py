"""SROS 2: say in a sentence why a node is not let in, which ROS's libraries hardly do."""

from __future__ import annotations

from contextlib import contextmanager
import os
from typing import Iterator

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line

_OFF = 'or unset ROS_SECURITY_ENABLE; docs/security.md tells how'


def refusal(text: str) -> str:
    """
    Return why SROS 2 refuses a node, and what to do; '' if the cause is another.

    :param text: what rclpy raised, as one line
    """
    if os.environ.get('ROS_SECURITY_ENABLE') != 'true':
        return ''
    keystore = os.environ.get('ROS_SECURITY_KEYSTORE')
    if text == 'error not set' and not keystore:  # all that rcl says of it
        return ('security is enforced, and ROS_SECURITY_KEYSTORE is not set; set it to a folder '
                f'that `ros2 security create_keystore` made, {_OFF}')
    if 'SECURITY ERROR' in text:
        return (f'{text.rstrip(".")}; make it with `ros2 security create_enclave {keystore} '
                f'NAME`, start the node with --ros-args --enclave NAME, {_OFF}')
    if 'security libraries' in text:
        return ('ROS_SECURITY_ENABLE is true, and this Fast DDS was built without security; take '
                f'the packages of a ROS 2 installation, {_OFF}')
    return ''


@contextmanager
def explained() -> Iterator[None]:
    """
    Start a context or a node of a command.

    :raises UserError: if ROS refuses, which it tells by exceptions of private types.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.split('.')[0] != 'rclpy' and not isinstance(error, RuntimeError):
            raise
        text = one_line(str(error))
        raise UserError('ROS 2 does not start: ' + (refusal(text.replace(
            'failed to initialize rcl: ', '')) or text)) from error
