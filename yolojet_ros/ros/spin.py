"""Run nodes until the process is told to end, and end without a trace."""

from __future__ import annotations

from contextlib import contextmanager
import sys
from typing import Callable, Iterator, List, Optional

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
import rclpy

from yolojet_ros.ros import middleware

_SWITCH_SECONDS = 2e-4


@contextmanager
def until_shutdown() -> Iterator[None]:
    """
    Swallow errors that only mean that the context is gone.

    A SIGTERM can surface as an RCLError ("context is not valid") wherever
    rclpy is called.
    """
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise


def run_node(
    make: Callable[[], Node], args: Optional[List[str]] = None,
    start: Optional[Callable[[Node], None]] = None,
) -> None:
    """
    Make a node, spin it until SIGINT, SIGTERM or shutdown, and clean up.

    :param make: makes the node; a method `close` of it is called at the end
        instead of `destroy_node`
    :param args: command line, with --ros-args
    :param start: called with the node before spinning
    """
    prepared = middleware.prepare()
    # A thread that got an image must not wait 5 ms for the executor's thread to yield.
    sys.setswitchinterval(_SWITCH_SECONDS)
    rclpy.init(args=args)
    node: Optional[Node] = None
    try:
        with until_shutdown():
            node = make()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            node.get_logger().info(prepared)
            if start:
                start(node)
            executor.spin()
    finally:
        with until_shutdown():
            if node:
                getattr(node, 'close', node.destroy_node)()
        rclpy.try_shutdown()
