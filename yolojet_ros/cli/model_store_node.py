"""Tell a running node that the store has another active version."""

from __future__ import annotations

import os
import time
from typing import Callable

from yolojet_ros.core.errors import RunFailed, UserError

_FOUND_SECONDS = 10.0
_REPORT_SECONDS = 5.0


def load_model(node: str, seconds: float, report: Callable[[str], None]) -> str:
    """
    Let a node load what is active, and return its answer.

    :param node: its full name, such as /detector
    :param seconds: to wait for the answer
    :param report: gets progress, a line at a time
    :raises RunFailed: if it is not there, does not answer, or refuses.
    """
    from yolojet_ros.ros import middleware, security
    middleware.prepare()
    middleware.check_installed()
    try:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from std_srvs.srv import Trigger
    except ImportError as error:
        raise UserError(f'a node can be told with ROS 2 alone, which is not here ({error}); '
                        'source it, or leave --node out') from error
    context = Context()
    with security.explained():
        rclpy.init(args=[], context=context)
        teller = rclpy.create_node(f'model_store_{os.getpid()}', context=context,
                                   enable_rosout=False, start_parameter_services=False)
    try:
        service = '/' + node.strip('/') + '/load_model'
        client = teller.create_client(Trigger, service)
        if not client.wait_for_service(_FOUND_SECONDS):
            raise RunFailed(
                f'it is active in the store, but there is no service {service}; is the node '
                'running, with model_store set, on this ROS_DOMAIN_ID? At its next start it takes '
                'it')
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(teller)
        future = client.call_async(Trigger.Request())
        start = time.monotonic()
        while not future.done():
            waited = time.monotonic() - start
            if waited > seconds:
                raise RunFailed(f'{node} has not answered within {seconds:.0f} s; see its log, '
                                'and "yolojet model-store list" for what came of it')
            executor.spin_until_future_complete(
                future, timeout_sec=min(_REPORT_SECONDS, seconds - waited + 0.01))
            if not future.done():
                report(f'{node} is loading ... {time.monotonic() - start:.0f} s')
        answer = future.result()
        if not answer.success:
            raise RunFailed(f'{node} has not taken it: {answer.message}')
        return f'{node}: {answer.message}'
    finally:
        teller.destroy_node()
        rclpy.shutdown(context=context)
