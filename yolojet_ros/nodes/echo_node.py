"""Receive and convert images and do nothing else: what transport alone costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
import sys
import threading
import time
from typing import List, Optional

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolojet_ros.core.files import atomic_path
from yolojet_ros.ros import parameters
from yolojet_ros.ros.images import view_of_image
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.spin import run_node, until_shutdown
from yolojet_ros.ros.statistics import Statistics
from yolojet_ros.ros.subscription import ImageSubscription


class EchoNode(parameters.CheckedParameters, Node):
    """
    Subscribe `image_raw` as the detector does, answer each image with its header on `echo`.

    Leaves the counts, the age of the images on arrival and the share of one core
    that the process used as a JSON file named by the parameter `out`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('echo', **kwargs)
        parameters.declare(self, 'out', 'echo.json', 'JSON file to leave.', read_only=True)
        self._ages: List[float] = []
        self._publisher = self.create_publisher(Header, 'echo', 5)
        self._begin: Optional[tuple] = None
        self._end = (0.0, 0.0)
        self._statistics, self._inlet = Statistics(), Inlet(self.context)
        self._subscription = ImageSubscription(self, False, self._inlet, self._statistics)
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name='echo', daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with until_shutdown():
            while not self._ended:
                taken = self._subscription.take()
                if taken:
                    self._on_image(taken.message)
                else:
                    self._inlet.wait(self._subscription.readers)

    def _on_image(self, message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp, self.get_clock().clock_type)
        self._ages.append((self.get_clock().now() - stamp).nanoseconds * 1e-6)
        view_of_image(message).samples()
        self._publisher.publish(message.header)
        self._end = (time.monotonic(), time.process_time())
        self._begin = self._begin or self._end

    def close(self) -> None:
        """Write what was measured."""
        self._ended = True
        self._inlet.wake()
        self._thread.join()
        p50, p99 = np.percentile(self._ages, (50, 99)) if self._ages else (math.nan, math.nan)
        each = max(len(self._ages) - 1, 1)
        begin = self._begin or self._end
        wall, cpu = self._end[0] - begin[0], self._end[1] - begin[1]
        result = {
            'received': len(self._ages),
            'lost_in_middleware': self._statistics.lost,
            'reliability': self._subscription.reliability.name.lower(),
            'age_ms_p50': round(float(p50), 3) if self._ages else None,
            'age_ms_p99': round(float(p99), 3) if self._ages else None,
            'cpu_ms_an_image': round(1e3 * cpu / each, 3),
            'cpu_percent_of_a_core': round(100 * cpu / wall, 1) if wall else None,
        }
        with atomic_path(Path(self.get_parameter('out').value)) as path:
            path.write_text(json.dumps(result) + '\n')
        self._inlet.close()
        self.destroy_node()


def main(args: Optional[List[str]] = None) -> int:
    """Run the echo node until it is interrupted; return the exit code."""
    return run_node(EchoNode, args)


if __name__ == '__main__':
    sys.exit(main())
