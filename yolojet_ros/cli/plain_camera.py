"""
Publish images as a camera driver that knows nothing of this package.

Run as a process of its own, in `plain_environment()`, by the benchmark of transports
and the tests: nothing here prepares the middleware.
"""

from __future__ import annotations

import argparse
import array
import os
import sys
import time
from typing import Dict, List

_OURS = ('FASTDDS', 'FASTRTPS', 'RMW_FASTRTPS', 'MALLOC_', 'YOLOJET')
_SETTLE_SECONDS = 1.0  # in which both sides learn of each other, and the last images arrive
_WAIT_SECONDS = 30.0


def plain_environment() -> Dict[str, str]:
    """Return the environment without anything that configures the middleware."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def command(
    width: int, height: int, rate: float, count: int, qos: str, subscribers: int = 1,
    namespace: str = '',
) -> List[str]:
    """
    Return the command line that publishes `count` images and ends.

    :param qos: reliable, best_effort or transient_local
    :param subscribers: to wait for before the first image
    """
    return [sys.executable, '-m', __name__, f'--size={width}x{height}', f'--rate={rate}',
            f'--count={count}', f'--qos={qos}', f'--subscribers={subscribers}',
            f'--namespace={namespace}']


def main() -> None:
    """Publish images; print how many a second it were."""
    import rclpy
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    parser = argparse.ArgumentParser()
    for name in ('size', 'rate', 'count', 'qos', 'subscribers', 'namespace'):
        parser.add_argument(f'--{name}')
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split('x'))
    rate, count = float(arguments.rate), int(arguments.count)
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    if arguments.qos == 'best_effort':
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    elif arguments.qos == 'transient_local':
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    rclpy.init()
    node = rclpy.create_node('driver', namespace=arguments.namespace)
    publisher = node.create_publisher(Image, 'image_raw', qos)
    end = time.monotonic() + _WAIT_SECONDS
    while publisher.get_subscription_count() < int(arguments.subscribers):
        if time.monotonic() > end:
            sys.exit('nobody subscribes')
        time.sleep(0.02)
    time.sleep(_SETTLE_SECONDS)
    message = Image(width=width, height=height, encoding='rgb8', step=3 * width,
                    data=array.array('B', bytes(3 * width * height)))
    message.header.frame_id = 'camera'
    start = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, start + index / rate - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    achieved = (count - 1) / max(time.monotonic() - start, 1e-6)
    time.sleep(_SETTLE_SECONDS)
    node.destroy_node()
    rclpy.shutdown()
    print(f'{achieved:.1f}')


if __name__ == '__main__':
    main()
