"""The camera: a video, a folder, a device or the synthetic scene as image topics."""

from __future__ import annotations

import array
import math
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PolygonStamped
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.nodes.service import Service
from yolojet_ros.operate.reopening import ReopenedSource
from yolojet_ros.ros import parameters
from yolojet_ros.ros.ending import leave
from yolojet_ros.ros.images import fill_image
from yolojet_ros.ros.messages import detections_message
from yolojet_ros.ros.spin import run_node, until_shutdown
from yolojet_ros.ros.topics import camera_info_name, image_name, LATEST
from yolojet_ros.ros.warps import polygon_of_warp
from yolojet_ros.sim.scene import CLASS_NAMES, SceneFrame
from yolojet_ros.sources import is_live, open_source, Schedule, Source, SourceOptions

_JPEG_QUALITY = 90
_SETTLE_SECONDS = 0.5  # in which discovery, and the last messages, come to an end
_THREAD_SECONDS = 2.0  # that a device may keep us waiting at the end
_SILENCE = 2.0  # s without a picture that are worth a warning
_STUCK_SECONDS = 30.0  # in which a device must give a picture or an error


def _yuv422(luma: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a packer of BGR as YUV 4:2:2 with luma in byte `luma` of each pixel's two."""
    def pack(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            raise UserError(f'a picture of {width}x{height} has an odd side; '
                            'YUV 4:2:2 needs even ones')
        planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
        chroma = planar[height:].reshape(2, height // 2, width // 2)
        packed = np.empty((height, width, 2), np.uint8)
        packed[..., luma] = planar[:height]
        for offset, plane in enumerate(chroma):
            packed[0::2, offset::2, 1 - luma] = plane
            packed[1::2, offset::2, 1 - luma] = plane
        return packed
    return pack


def _converted(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.cvtColor(image, code)


REOPEN = ('lost', 'always', 'never')
# From uint8 BGR to the samples of an encoding of sensor_msgs/image_encodings.
ENCODERS: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'bgr8': np.ascontiguousarray,
    'rgb8': _converted(cv2.COLOR_BGR2RGB),
    'bgra8': _converted(cv2.COLOR_BGR2BGRA),
    'rgba8': _converted(cv2.COLOR_BGR2RGBA),
    'mono8': _converted(cv2.COLOR_BGR2GRAY),
    'yuv422': _yuv422(luma=1),
    'yuv422_yuy2': _yuv422(luma=0),
}


class CameraNode(parameters.CheckedParameters, Node):
    """
    Publish pictures at a steady rate, each stamped when it is taken.

    Publishes `image_raw` (reliable, so that every subscriber fits), `camera_info`
    beside it with the same header, `image_raw/compressed` (JPEG), and of the synthetic scene
    `truth`: its boxes, where the score is the visible part of the object, and
    `camera_motion` (see ros/warps.py). What nobody subscribes to is not made.
    `/diagnostics` counts at 1 Hz.

    Pictures of files and of the scene are read ahead, so that the stamp is the
    moment of publication; those of a device are stamped when they arrive. A device that is
    lost is opened again and again (parameter `reopen`).

    :raises UserError: if the source cannot be opened.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('camera', **kwargs)
        self._declare_parameters()
        self.published = 0  # pictures that somebody listened to
        self.failure: Optional[str] = None
        self._own_name = self.get_name()
        self._finished = False
        self._encoding = self.get_parameter('encoding').value
        self._ended = threading.Event()
        self._source = self._open_source()
        self._schedule = Schedule(self._source.rate) if self._source.rate else None
        self._last_report = (time.monotonic(), 0, 0)
        self._header = Header(frame_id=self.get_parameter('frame_id').value)
        # Made once; only what changes from frame to frame is written.
        self._image = Image(header=self._header)
        self._compressed = CompressedImage(
            header=self._header, format='bgr8; jpeg compressed bgr8')
        # All intrinsics zero: ROS's way to say that the camera is not calibrated.
        self._camera_info = CameraInfo(header=self._header)
        self._sent_image = False
        qos = self._qos()
        self._image_publisher = self.create_publisher(Image, 'image_raw', qos)
        self._info_publisher = self.create_publisher(CameraInfo, camera_info_name(self), qos)
        self._compressed_publisher = self.create_publisher(
            CompressedImage, image_name(self, compressed=True), qos)
        self._truth_publisher = self.create_publisher(Detection2DArray, 'truth', qos)
        # Reliable and deep: a lost piece of motion is lost for all that follow.
        self._motion_publisher = self.create_publisher(PolygonStamped, 'camera_motion', 50)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, '/diagnostics', LATEST)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)
        self._sentence = ''  # of the last diagnostics
        self._reading: Optional[float] = None  # since when, on time.monotonic
        self._thread = threading.Thread(target=self._capture, name='capture', daemon=True)
        self._service = Service(self, self._fault, lambda: self._sentence)

    def start(self) -> None:
        """Begin to publish."""
        rate = f'{self._source.rate:g} Hz' if self._source.rate else 'its own rate'
        self.get_logger().info(
            f'publishing {self._source.description} as {self._encoding} at {rate} '
            f'on {self._image_publisher.topic_name}')
        self._thread.start()
        self._service.ready()

    def close(self) -> None:
        """End the capture, give the source back and leave the graph."""
        self._service.stopping()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_THREAD_SECONDS)
        if not self._thread.is_alive():
            self._source.close()
        # Not by the logger, nor with get_name(): the context may be gone already.
        print(f'{self._own_name}: published {self.published} images, '
              f'skipped {self.skipped} ticks', file=sys.stderr)
        self.destroy_node()

    @property
    def skipped(self) -> int:
        """Return how many moments of the schedule passed without a picture."""
        return self._schedule.skipped if self._schedule else 0

    # ---- parameters

    def _declare_parameters(self) -> None:
        def declare(name, default, description, *limits, **options):
            parameters.declare(
                self, name, default, description, *limits, read_only=True, **options)

        # Dynamic, because the command line makes an integer of a camera's index.
        declare('source', 'synthetic', 'what to publish: synthetic; a video, an image or a '
                'folder of images; a camera index or /dev/videoN; the URL of a stream',
                dynamic=True)

        declare('rate', 0.0, 'images per second; 0 takes that of the video or device, '
                             'and 30 for folders and the scene', 0.0, 1000.0)
        declare('width', 0, 'pixels; 0 keeps that of the source, 640 for the scene', 0, 8192)
        declare('height', 0, 'pixels; 0 keeps that of the source, 384 for the scene', 0, 8192)
        declare('seed', 0, 'of the synthetic scene: the same seed shows the same film',
                0, 2**31 - 1)
        declare('objects', 12, 'in the synthetic scene; some are out of sight at times', 0, 200)
        # One for each namespace, as tf2 has it: front/camera.
        frame_id = f'{self.get_namespace()}/camera'.lstrip('/')
        declare('frame_id', frame_id, 'of the header of every message')
        declare('loop', True, 'start a video or folder again at its end; otherwise the node ends')
        declare('reopen', 'lost', 'a camera or stream, again and again: one that is lost, always '
                '(also one that is not there at the start), or never', choices=REOPEN)
        declare('encoding', 'bgr8', 'of image_raw', choices=tuple(ENCODERS))
        declare('reliability', 'reliable',
                'of the publishers; reliable fits every subscriber',
                choices=('reliable', 'best_effort'))
        declare('duration', 0.0, 'seconds to publish for; 0 publishes for ever', 0.0, 1e6)
        declare('wait_for_subscribers', 0, 'of image_raw, before the first picture', 0, 100)
        parameters.warn_of_unknown(self)

    def _qos(self) -> QoSProfile:
        reliability = self.get_parameter('reliability').value
        return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=4,
                          reliability=ReliabilityPolicy[reliability.upper()])

    def _open_source(self) -> Source:
        value = {name: self.get_parameter(name).value for name in (
            'source', 'rate', 'width', 'height', 'loop', 'seed', 'objects')}
        options = SourceOptions(
            rate=value['rate'], size=(value['width'], value['height']), loop=value['loop'],
            seed=value['seed'], objects=value['objects'])
        reopen = self.get_parameter('reopen').value
        if reopen == 'never' or not is_live(value['source']):
            return open_source(value['source'], options)

        def open_again() -> Source:
            return open_source(value['source'], options)

        return ReopenedSource(
            f'camera {value["source"]}', options.rate, open_again, self._ended.wait,
            self.get_logger().warning, open_again() if reopen == 'lost' else None)

    # ---- capture, on a thread of its own: a device makes it wait

    def _capture(self) -> None:
        try:
            with until_shutdown():
                self._wait_for_subscribers()
                seconds = self.get_parameter('duration').value
                end = time.monotonic() + seconds if seconds else math.inf
                while (not self._ended.is_set() and time.monotonic() < end
                       and self._capture_one()):
                    pass
        except UserError as error:
            self.failure = str(error)
        except Exception as error:
            self.failure = f'unexpected {type(error).__name__}: {error}'
            raise
        finally:
            if not self._ended.is_set():
                self._finish()
                self.context.try_shutdown()

    def _wait_for_subscribers(self) -> None:
        wanted = self.get_parameter('wait_for_subscribers').value
        if not wanted:
            return
        while (self._image_publisher.get_subscription_count() < wanted
               and not self._ended.wait(0.05)):
            pass
        # The subscribers learn of us at about the same time, but not earlier.
        self._ended.wait(_SETTLE_SECONDS)

    def _capture_one(self) -> bool:
        """Publish one picture; return False at the end."""
        self._reading = time.monotonic()
        image = self._source.read()
        self._reading = None
        if image is None:
            return False
        if self._source.live:
            arrived = time.monotonic()
            self._header.stamp = self.get_clock().now().to_msg()
            if self._schedule and not self._schedule.reached(arrived):
                return True
            messages = self._make_messages(image)
        else:
            messages = self._make_messages(image)
            now = time.monotonic()
            if self._ended.wait(max(0.0, self._schedule.next(now) - now)):
                return False
            self._header.stamp = self.get_clock().now().to_msg()
        for publisher, message in messages:
            publisher.publish(message)
        self.published += self._sent_image
        return True

    def _make_messages(self, image: np.ndarray) -> List[Tuple[Publisher, Any]]:
        """Return what somebody listens to; all messages share the header."""
        messages: List[Tuple[Publisher, Any]] = []
        if self._image_publisher.get_subscription_count():
            fill_image(self._image, ENCODERS[self._encoding](image), self._encoding)
            messages.append((self._image_publisher, self._image))
        if self._compressed_publisher.get_subscription_count():
            self._compressed.data = _jpeg(image)
            messages.append((self._compressed_publisher, self._compressed))
        self._sent_image = bool(messages)
        if self._info_publisher.get_subscription_count():
            self._camera_info.height, self._camera_info.width = image.shape[:2]
            messages.append((self._info_publisher, self._camera_info))
        truth = self._source.truth
        if truth and self._truth_publisher.get_subscription_count():
            messages.append((self._truth_publisher, detections_message(
                self._header, _truth(truth), CLASS_NAMES)))
        if truth and self._motion_publisher.get_subscription_count():
            motion = polygon_of_warp(self._header, truth.warp, image.shape[1], image.shape[0])
            # First, so that it is there when the image is.
            messages.insert(0, (self._motion_publisher, motion))
        return messages

    # ---- what the node says of itself

    @property
    def _lost(self) -> str:
        """Return why there is no picture of a device that is waited for, or ''."""
        return self._source.lost if isinstance(self._source, ReopenedSource) else ''

    @property
    def _silence(self) -> float:
        """Return for how many seconds a picture has been waited for."""
        reading = self._reading
        return 0.0 if reading is None else time.monotonic() - reading

    def _fault(self) -> str:
        """Return why a new process is needed, or ''; a device that is lost is not mended by it."""
        if not self._finished and not self._thread.is_alive():
            return 'the thread that takes the pictures has ended'
        if self._silence > _STUCK_SECONDS and not self._lost:
            return (f'{self._source.description} has given neither a picture nor an error for '
                    f'{self._silence:.0f} s')
        return ''

    def _finish(self) -> None:
        """Say why the pictures end, and give the last ones time to arrive."""
        if self.failure:
            self.get_logger().error(self.failure)
        else:
            self.get_logger().info(f'{self._source.description} has ended')
        self._finished = True
        self._publish_diagnostics()
        self._ended.wait(_SETTLE_SECONDS)

    def _publish_diagnostics(self) -> None:
        now = time.monotonic()
        before, published, skipped = self._last_report
        self._last_report = (now, self.published, self.skipped)
        rate = (self.published - published) / (now - before)
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK, name=f'{self.get_fully_qualified_name()}: camera',
            message=f'{rate:.1f} images/s', hardware_id=self._source.description)
        if not rate and not (self._image_publisher.get_subscription_count()
                             or self._compressed_publisher.get_subscription_count()):
            status.message = 'nobody listens to the images'
        if self.skipped > skipped:
            status.level = DiagnosticStatus.WARN
            status.message += f', slower than the {self._source.rate:g} asked for'
        if self._silence > _SILENCE:
            status.level = DiagnosticStatus.WARN
            status.message = f'no picture for {self._silence:.0f} s'
        lost = self._lost
        if lost:
            status.level, status.message = DiagnosticStatus.ERROR, lost
        self._sentence = status.message
        status.values = [KeyValue(key='published', value=str(self.published)),
                         KeyValue(key='skipped', value=str(self.skipped)),
                         KeyValue(key='rate', value=f'{rate:.2f}'),
                         KeyValue(key='reopened', value=str(
                             getattr(self._source, 'reopened', 0))),
                         KeyValue(key='finished', value=str(self._finished))]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        with until_shutdown():
            self._diagnostics_publisher.publish(message)


def _jpeg(image: np.ndarray) -> array.array:
    _, encoded = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    data = array.array('B')
    data.frombytes(encoded.reshape(-1))
    return data


def _truth(frame: SceneFrame) -> Detections:
    """Return the ground truth as detections: the score is the visible part."""
    return Detections(frame.boxes, frame.visibility, frame.classes, frame.ids)


def main(args: Optional[List[str]] = None) -> int:
    """Run the camera until it is interrupted or ends; return 2 for wrong input, 1 if it failed."""
    nodes: List[CameraNode] = []

    def make() -> CameraNode:
        nodes.append(CameraNode())
        return nodes[0]

    refused = run_node(make, args, CameraNode.start)
    # A device may hold its thread for longer than the end waits.
    return leave(refused or int(bool(nodes and nodes[0].failure)))


if __name__ == '__main__':
    sys.exit(main())
