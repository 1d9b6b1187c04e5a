"""Lifecycle transitions that tell: logged, and never failing without a word."""

from __future__ import annotations

import functools
import time
import traceback
from typing import Any, Callable

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line

Callback = Callable[[Any, LifecycleState], TransitionCallbackReturn]
# Where a refusal leads back to the state before. Everything else needs `on_error`.
_REFUSABLE = ('configure', 'activate')


def transition(callback: Callback) -> Callback:
    """
    Wrap a transition callback `on_NAME` of a lifecycle node that has `keep_failure(text)`.

    rclpy swallows what such a callback raises. Here it is handed to
    `keep_failure`; a UserError then refuses to configure or activate (FAILURE),
    any other exception leads to `on_error` (ERROR).
    """
    name = callback.__name__[len('on_'):]

    @functools.wraps(callback)
    def run(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        logger, begin = node.get_logger(), time.monotonic()
        logger.debug(f'{name} begins, from {state.label}')
        result = TransitionCallbackReturn.ERROR
        try:
            result = callback(node, state)
        except UserError as error:
            if name in _REFUSABLE:
                result = TransitionCallbackReturn.FAILURE
            _tell(node, f'cannot {name}: {one_line(str(error))}')
        except Exception as error:  # whatever it is, it must be said
            logger.debug(traceback.format_exc())
            _tell(node, f'cannot {name}: {type(error).__name__}: {one_line(str(error))}')
        logger.debug(f'{name} ends in {result.name} after {time.monotonic() - begin:.3f} s')
        return result

    return run


def _tell(node: Any, text: str) -> None:
    """Keep a failure, unless it only means that the process was told to end."""
    if node.context.ok():
        node.keep_failure(text)
    else:
        node.get_logger().debug(text)
