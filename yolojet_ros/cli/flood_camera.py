"""
Publish ready-made images as fast as it is told.

Run as a process of its own by the benchmark of floods: the images are packed to CDR once, and
before each sending only the stamp in its bytes is written anew.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple, Sequence

from yolojet_ros.core.errors import UserError

_PICTURES = 8  # in turns, so that the camera seems to move
_STAMP_AT = 4  # bytes; behind the encapsulation, the header begins with the stamp
_STAMP = struct.Struct('<iI')
_WAIT_SECONDS = 30.0
_WARM_UP_SECONDS = 1.5  # of images that are not measured; reliability may change meanwhile
_SETTLE_SECONDS = 1.0


class Sent(NamedTuple):
    """
    What one process has sent: images, in so many seconds, with so many milliseconds of CPU.

    first: stamp in ns from which on it counts
    warm_up: images before
    """

    first: int
    warm_up: int
    sent: int
    seconds: float
    cpu_ms: float


class Senders:
    """
    A process for each topic; all of them send the same images at the same time.

    Call `begin`, then `end` to wait until they have sent for `seconds`.
    """

    def __init__(
        self, topics: Sequence[str], width: int, height: int, rate: float, seconds: float,
    ) -> None:
        self._processes = [subprocess.Popen(
            [sys.executable, '-m', __name__, f'--topic={topic}', f'--size={width}x{height}',
             f'--rate={rate}', f'--seconds={seconds}'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for topic in topics]
        self._begun: List[Dict[str, int]] = []

    def __enter__(self) -> Senders:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def begin(self) -> None:
        """
        Return when what counts begins.

        :raises UserError: if a sender ends before, with its last words.
        """
        for process in self._processes:
            self._said_by(process)
        for process in self._processes:
            process.stdin.write('go\n')
            process.stdin.flush()
        self._begun = [self._said_by(process) for process in self._processes]

    def end(self) -> List[Sent]:
        """Return what each has sent."""
        return [Sent(**begun, **self._said_by(process))
                for begun, process in zip(self._begun, self._processes)]

    @staticmethod
    def _said_by(process: subprocess.Popen) -> Dict[str, Any]:
        line = process.stdout.readline()
        if not line:
            raise UserError(f'a sender ended: {process.communicate()[1].strip()[-300:]}')
        return json.loads(line)


def packed_images(width: int, height: int) -> List[bytes]:
    """Return images of the synthetic scene as CDR."""
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    from yolojet_ros.ros.images import image_message
    from yolojet_ros.sim.scene import Scene

    scene, header = Scene(width, height, seed=1), Header(frame_id='camera')
    return [serialize_message(image_message(header, scene.read().image, 'bgr8'))
            for _ in range(_PICTURES)]


def set_stamp(packed: bytes, nanoseconds: int) -> None:
    """Write a stamp into packed bytes that nobody else holds; a copy would cost as an image."""
    stamp = _STAMP.pack(*divmod(nanoseconds, 10**9))
    start = ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p).value
    ctypes.memmove(start + _STAMP_AT, stamp, len(stamp))


def main() -> None:
    """Publish images; print what was sent."""
    from yolojet_ros.ros import middleware
    middleware.prepare()

    import rclpy
    from sensor_msgs.msg import Image

    parser = argparse.ArgumentParser()
    for name in ('topic', 'size', 'rate', 'seconds'):
        parser.add_argument(f'--{name}')
    arguments = parser.parse_args()
    rate, seconds = float(arguments.rate), float(arguments.seconds)
    images = packed_images(*map(int, arguments.size.split('x')))
    rclpy.init()
    node = rclpy.create_node('flood')
    publisher = node.create_publisher(Image, arguments.topic, 5)
    end = time.monotonic() + _WAIT_SECONDS
    while not publisher.get_subscription_count():
        if time.monotonic() > end:
            sys.exit('nobody subscribes')
        time.sleep(0.02)
    time.sleep(_SETTLE_SECONDS)

    def send(duration: float) -> int:
        count, start = 0, time.monotonic()
        while count / rate < duration and time.monotonic() - start < duration:
            time.sleep(max(0.0, start + count / rate - time.monotonic()))
            image = images[count % len(images)]
            set_stamp(image, time.time_ns())
            publisher.publish(image)
            count += 1
        time.sleep(max(0.0, start + duration - time.monotonic()))
        return count

    print('{}', flush=True)  # ready
    sys.stdin.readline()
    warm_up = send(_WARM_UP_SECONDS)
    print(json.dumps({'first': time.time_ns(), 'warm_up': warm_up}), flush=True)
    start, used = time.monotonic(), time.process_time()
    sent = send(seconds)
    print(json.dumps({
        'sent': sent, 'seconds': time.monotonic() - start,
        'cpu_ms': (time.process_time() - used) * 1e3}), flush=True)
    time.sleep(_SETTLE_SECONDS)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
