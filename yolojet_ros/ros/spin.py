"""Run nodes until the process is told to end, and end without a trace."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
import re
import sys
import traceback
from typing import Callable, Iterator, List, Optional

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.node import Node
from rclpy.utilities import get_default_context, try_shutdown
import rclpy

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.ros import middleware, security
from yolojet_ros.ros.ending import Ending

WRONG_INPUT = 2  # exit code
_SWITCH_SECONDS = 2e-4
_ENDED_SECONDS = 0.1  # between two questions whether the node has done its work
_LOG_SECONDS = 10.0  # between two messages about callbacks that fail


@contextmanager
def until_shutdown() -> Iterator[None]:
    """
    Swallow errors that only mean that the context is gone.

    A SIGTERM can surface as an RCLError ("context is not valid") wherever
    rclpy is called.
    """
    try:
        yield
    except ExternalShutdownException:
        pass
    except UserError:
        raise
    except Exception:
        if rclpy.ok():
            raise


def run_node(
    make: Callable[[], Node], args: Optional[List[str]] = None,
    start: Optional[Callable[[Node], None]] = None,
    ended: Optional[Callable[[Node], bool]] = None,
) -> int:
    """
    Make a node, spin it until SIGINT, SIGTERM or shutdown, and clean up.

    :param make: makes the node; a method `close` of it is called at the end
        instead of `destroy_node`
    :param args: command line, with --ros-args
    :param start: called with the node before spinning
    :param ended: asked again and again whether the node has done its work
    :return: exit code: 0, or 2 where the user's input was wrong, which one sentence
        on stderr then names
    """
    # A thread that got an image must not wait 5 ms for the executor's thread to yield.
    sys.setswitchinterval(_SWITCH_SECONDS)
    ending = Ending(get_default_context())
    try:
        prepared = middleware.prepare()
        _init(args)
        if not ending.told:
            _live(make, prepared, start, ended, ending)
        return 0
    except UserError as error:
        print(f'{Path(sys.argv[0]).stem}: {one_line(str(error))}', file=sys.stderr)
        return WRONG_INPUT
    finally:
        ending.finish()


def _live(
    make: Callable[[], Node], prepared: str, start: Optional[Callable[[Node], None]],
    ended: Optional[Callable[[Node], bool]], ending: Ending,
) -> None:
    """Make a node, spin and close it."""
    node: Optional[Node] = None
    try:
        with until_shutdown():
            node = _made(make)
            ending.logger = node.get_logger().name
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            node.get_logger().info(prepared)
            if start:
                start(node)
            _spin(executor, node, ended)
    finally:
        ending.release()
        _close(node)


def _close(node: Optional[Node]) -> None:
    """Close a node; what cannot be written at the end is told as a UserError."""
    try:
        with until_shutdown():
            if node:
                getattr(node, 'close', node.destroy_node)()
    finally:
        try_shutdown()


def _init(args: Optional[List[str]]) -> None:
    """Start rclpy; what it cannot make of the command line is the user's to mend."""
    # rcl logs that there is an error, and tells only rclpy which.
    set_logger_level('rcl', LoggingSeverity.FATAL)
    try:
        rclpy.init(args=args)
    except Exception as error:  # of private types, and all about the arguments
        text = _rcl_text(error)
        raise UserError(security.refusal(text) or f'wrong command line: {text}') from error
    finally:
        set_logger_level('rcl', LoggingSeverity.UNSET)


def _made(make: Callable[[], Node]) -> Node:
    try:
        return make()
    except Exception as error:
        # rclpy refuses names of nodes and topics and its own parameters by itself.
        if type(error).__module__.split('.')[0] != 'rclpy' or not rclpy.ok():
            raise
        text = _rcl_text(error)
        raise UserError(f'cannot start: {security.refusal(text) or text}') from error


def _rcl_text(error: Exception) -> str:
    """Return what ROS's C libraries say, less what helps their authors only."""
    text = str(error).replace('failed to initialize rcl: ', '')
    text = re.sub(r', at \S+:\d+', '', text)
    text = re.sub(r'Error: (error not set|Expected lexeme.*)', 'It must be NAME:=VALUE', text)
    if text.startswith('['):
        text = f'unknown ROS arguments {text}'
    if 'log level' in text:
        text += '; give debug, info, warn, error or fatal'
    return one_line(text)


def _spin(
    executor: SingleThreadedExecutor, node: Node, ended: Optional[Callable[[Node], bool]],
) -> None:
    """Spin until the end; a callback that raises is logged, and the node lives on."""
    while True:
        try:
            while ended and not ended(node):
                executor.spin_once(timeout_sec=_ENDED_SECONDS)
            if not ended:
                executor.spin()
            return
        except ExternalShutdownException:
            raise
        except Exception as error:
            if not rclpy.ok():
                raise
            node.get_logger().error(
                f'a callback failed, the node goes on: {type(error).__name__}: '
                f'{one_line(str(error))}', throttle_duration_sec=_LOG_SECONDS)
            node.get_logger().debug(traceback.format_exc())
