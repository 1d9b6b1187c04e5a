"""The probe of ROS 2's Python: what is imported, and whether a context starts."""

from __future__ import annotations

import os

from yolojet_ros.operate.doctor.probes.python import modules
from yolojet_ros.operate.doctor.probes.tell import step, tell


def rclpy(*names: str) -> None:
    """Import rclpy and packages of messages, and start and end a context."""
    modules('rclpy', *names)
    step('start a context')
    try:
        import rclpy as library
        library.init()
        step('look which middleware it is')
        tell(middleware=library.get_rmw_implementation_identifier())
        step('start a node')  # where security is on, this is what fails without it
        library.create_node(f'yolojet_doctor_{os.getpid()}').destroy_node()
        library.shutdown()
    except ImportError:
        pass  # told above
    except Exception as error:
        tell(context=f'{type(error).__name__}: {error}')
