"""One of the cameras that a detector watches: its images, tracks, outputs and counts."""

from __future__ import annotations

from dataclasses import dataclass
import math
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from diagnostic_msgs.msg import KeyValue
from geometry_msgs.msg import PolygonStamped
import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.outputs.output import Result
from yolojet_ros.nodes.outputs.outputs import Outputs
from yolojet_ros.nodes.records import Records
from yolojet_ros.pipeline.stream import Frame, Shot, Stream
from yolojet_ros.ros.images import check_frame_id, view_of_compressed, view_of_image
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.node_clock import NodeClock
from yolojet_ros.ros.spin import until_shutdown
from yolojet_ros.ros.statistics import Statistics
from yolojet_ros.ros.subscription import ImageSubscription
from yolojet_ros.ros.topics import of_camera
from yolojet_ros.ros.warps import WarpBuffer
from yolojet_ros.tracking import Tracker
from yolojet_ros.tracking.camera_motion import CameraMotion


@dataclass
class Job:
    """
    One image on its way.

    activation: of the camera that it came in
    entered: when it was out of the queue, on time.perf_counter; times: milliseconds up to then
    """

    camera: WatchedCamera
    activation: Optional[object]
    message: Any
    view: ImageView
    entered: float
    times: Dict[str, float]


class WatchedCamera:
    """
    A camera from its images to its results; what the model does is not here.

    :param name: its topics begin with NAME/; '' for the only one, whose topics have no prefix
    :param inlet: where the worker waits for images
    :param log: called with a key and a warning that may come often
    :param records: take the images with their results

    The first part is called by the executor's thread, the second by the worker's.
    """

    def __init__(
        self, node: Node, name: str, inlet: Inlet, log: Callable[[str, str], None],
        records: Records,
    ) -> None:
        self.name = name
        self.statistics = Statistics()
        self.outputs: Optional[Outputs] = None
        self._node, self._inlet, self._records = node, inlet, records
        self._log = lambda key, text: log(
            f'{name} {key}', f'{name}: {text}' if name else text)
        self._used: Optional[DetectorParameters] = None  # by the frame in work
        self._stream: Optional[Stream] = None
        self._tracker: Optional[Tracker] = None
        self._images: Optional[ImageSubscription] = None
        self._activation: Optional[object] = None  # whose results are published
        self._tracks = 0
        self._geometry: Optional[tuple] = None  # of the last image, for the log
        self._aside: Optional[Job] = None  # until its motion comes; newer ones stay in the queue
        self._warps = WarpBuffer()
        self._motion = node.create_subscription(
            PolygonStamped, of_camera(name, 'camera_motion'), self._on_motion, 50)

    # ---- the executor's

    def configure(self, backend: Backend, used: DetectorParameters) -> None:
        """Get ready for the images of a loaded model."""
        self._used, self._tracker = used, Tracker(used.tracker)
        self._stream = Stream(
            backend.card, used.filters_of(self.name), self._tracker if used.tracking else None,
            _estimator(used.camera_motion), used.appearance)
        self.outputs = Outputs(self._node, backend, used, self.name)
        self.statistics.on_model()

    def cleanup(self) -> None:
        """Withdraw the outputs."""
        if self.outputs:
            self.outputs.close()
        self._stream = self._tracker = self.outputs = None

    def listen(self) -> str:
        """Subscribe to the images; return the topic's full name."""
        self._geometry = None
        images = ImageSubscription(
            self._node, self._used.transport == 'compressed', self._inlet, self.statistics,
            self.name)
        self._images, self._activation = images, object()
        return images.topic_name

    def stop_listening(self) -> Callable[[str], None]:
        """
        Let no more images be taken.

        :return: to be called when none is in work any more, with the cause by which what waits
            is dropped
        """
        images, self._images = self._images, None

        def finish(cause: str) -> None:
            if images:
                with until_shutdown():
                    images.take()  # so that what waits is counted
                images.destroy()
            self._aside = self._activation = None
            self.statistics.settle(cause)
        return finish

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_subscription(self._motion)

    def report(self) -> Tuple[bytes, str, List[KeyValue]]:
        """Return level, message and values for diagnostics."""
        images = self._images
        if images:
            images.update()  # before what it reports is compared with what came
        level, text, values = self.statistics.report(
            self._activation is not None, *(images.problem(), images.silence()) if images else (),
            clock=NodeClock.of(self._node))
        more = dict(images.values() if images else {}, **(
            {'tracks': self._tracks} if self._stream else {}), **self._records.values(self.name))
        return level, text, values + [
            KeyValue(key=key, value=str(value)) for key, value in more.items()]

    def _on_motion(self, message: PolygonStamped) -> None:
        fault = self._warps.add(message)
        if self._aside:
            self._inlet.wake()
        if fault and self._used and self._used.camera_motion == 'topic':
            self._log('polygon', (
                f'a message of {self._motion.topic_name} has {fault} and is ignored; it must hold '
                'where the corners (0, 0), (width, 0), (0, height) of the previous image lie'))

    # ---- the worker's

    @property
    def readers(self) -> List[Any]:
        """Return the subscriptions whose images may be waited for."""
        images = self._images
        return images.readers if images and not self._aside else []

    @property
    def patience(self) -> float:
        """Return for how many seconds the image that was put aside may wait yet."""
        job = self._aside if self._images else None
        return max(self._left(job), 0.0) if job else math.inf

    def expects_within(self, seconds: float) -> bool:
        """Return whether an image came in the last so many seconds, so that the next one may."""
        images = self._images
        return images is not None and images.silence() < seconds

    def reset(self) -> None:
        """Forget the tracks and the last image, before the first of new ones."""
        self._stream.reset()
        self._warps.reset()

    def apply(self, wanted: DetectorParameters) -> None:
        """Act by new parameters from the next image on."""
        current, self._used = self._used, wanted
        stream = self._stream
        stream.filters = wanted.filters_of(self.name)
        self.outputs.apply(wanted)
        if wanted.tracker != current.tracker:
            self._tracker.set_params(wanted.tracker)
        if wanted.tracking and not current.tracking:
            self._tracker.reset()
        stream.tracker = self._tracker if wanted.tracking else None
        stream.appearance = wanted.appearance
        if wanted.camera_motion != current.camera_motion:
            self._warps.reset()
            stream.camera_motion = _estimator(wanted.camera_motion)

    def adopt(self, backend: Backend) -> None:
        """Go on with another model of the same outputs, from the next image on."""
        self._stream.adopt(backend.card)
        self.statistics.on_model()
        self.outputs.adopt(backend, self._used)
        self._records.adopt(backend)

    def stream_for(self, card: ModelCard) -> Stream:
        """Return what a user would see of this camera by another model, without tracks."""
        return Stream(card, self._used.filters_of(self.name))

    def take(self) -> Optional[Shot]:
        """Return the newest image ready for the model, None if there is none, or none yet."""
        images = self._images
        if not images:
            return None
        try:
            with until_shutdown():
                job = self._aside = self._aside or self._next_job(images)
                if job and not self._awaits_motion(job):
                    self._aside = None
                    return self._shot(job)
        except ImageError as error:
            self.drop(error)
        return None

    def _next_job(self, images: ImageSubscription) -> Optional[Job]:
        taken = images.take()
        if not taken:
            return None
        now = time.perf_counter()
        return Job(self, self._activation, taken.message, self._view(taken.message), now, {
            'queued': taken.queued * 1e3, 'take': (now - taken.started) * 1e3})

    def _view(self, message: Any) -> ImageView:
        check_frame_id(message.header.frame_id)
        read = view_of_compressed if isinstance(message, CompressedImage) else view_of_image
        view = read(message, self._used.max_image_pixels)
        self._debug_geometry(view, message.header)
        return view

    def _shot(self, job: Job) -> Shot:
        header = job.message.header
        warp = None
        if self._used.camera_motion == 'topic':
            warp = self._told_motion(job.view, header)
        return self._stream.shot(job.view, self._tracker_stamp(header), job, warp)

    def drop(self, error: ImageError) -> None:
        """Count an image that cannot be used, and say why."""
        count = self.statistics.on_dropped(error.cause)
        self._log(f'image:{error.cause}', f'dropped an image ({count} so far): {error}')
        self._records.take(self, None, error=f'dropped an image: {error}')

    def keep(self, job: Job) -> None:
        """Have an image recorded that the network failed on."""
        self._records.take(self, job)

    def fail(self, error: Exception) -> None:
        """Have it recorded that the network failed."""
        self._records.take(self, None, error=f'{type(error).__name__}: {one_line(str(error))}')

    def accept(self) -> None:
        """Take the motion of the last shot as used: it went to the model."""
        self._warps.accept()

    def publish(self, frame: Frame) -> None:
        """Publish a result."""
        job: Job = frame.context
        header = job.message.header
        if job.activation is not self._activation:  # counted already
            return
        result = Result(job.view, frame.detections)
        with until_shutdown():
            published = self.outputs.publish(header, result)
            elapsed = (time.perf_counter() - job.entered) * 1e3
            times = dict(job.times, **frame.times.laps, **published, pipeline=frame.times.total,
                         overhead=elapsed - frame.times.total)
            ids = frame.detections.ids
            self._tracks = 0 if ids is None else int(np.count_nonzero(ids >= 0))
            self.statistics.on_processed(len(frame.detections), self._age(header), times)
            self.statistics.on_broken_rows(frame.detections.broken)
            self.statistics.on_published(self.outputs.publish_more(header, result))
        self._records.take(self, job, frame.detections)

    def _awaits_motion(self, job: Job) -> bool:
        """Return whether an image is to wait for its motion; it does if somebody publishes."""
        return (self._used.camera_motion == 'topic'
                and self._node.count_publishers(self._motion.topic_name) > 0
                and self._warps.expects(job.message.header, self._left(job)))

    def _left(self, job: Job) -> float:
        return job.entered + self._used.camera_motion_wait - time.perf_counter()

    def _told_motion(self, view: ImageView, header: Header) -> Optional[np.ndarray]:
        """Return how the camera moved by the topic, as far as it is known by now."""
        missed, topic = self._warps.missed, self._motion.topic_name
        warp = self._warps.warp_to(header, view.width, view.height)
        if self._warps.missed > missed:
            self._log('motion', (
                f'no valid message of {topic} had the stamp of an image within '
                f'{self._used.camera_motion_wait} s ({missed + 1} so far, '
                f'{self._node.count_publishers(topic)} publishers); '
                'the next one is told the sum; raise camera_motion_wait if it comes later'))
        return warp

    def _tracker_stamp(self, header: Header) -> float:
        """Return the image's time in seconds; the clock's where the stamp is unusable."""
        seconds, nanoseconds = header.stamp.sec, header.stamp.nanosec
        if seconds < 0 or nanoseconds >= 10**9 or not (seconds or nanoseconds):
            self.statistics.on_odd_stamp()
            self._log('stamp', (
                f'image stamp {seconds} s {nanoseconds} ns is zero or invalid; tracking uses '
                'the time of arrival, set the stamp in the camera driver'))
            return self._node.get_clock().now().nanoseconds * 1e-9
        return seconds + nanoseconds * 1e-9

    def _age(self, header: Header) -> Optional[float]:
        """Return how old the image is now, in seconds; 0 if its stamp is unusable."""
        if header.stamp.nanosec >= 10**9 or header.stamp.sec < 0:
            return 0.0
        clock = self._node.get_clock()
        now, stamp = clock.now(), Time.from_msg(header.stamp, clock.clock_type)
        # A simulated clock stands at 0 until it is told the time.
        return (now - stamp).nanoseconds * 1e-9 if now.nanoseconds else None

    def _debug_geometry(self, view: ImageView, header: Header) -> None:
        geometry = (view.width, view.height, view.step, view.encoding, header.frame_id)
        if geometry != self._geometry:
            self._geometry = geometry
            name = f'{self.name}: ' if self.name else ''
            self._node.get_logger().debug(
                f'{name}images are {view.width}x{view.height} {shown(view.encoding)}, step '
                f'{view.step}, frame_id {shown(header.frame_id)}')


def _estimator(mode: str) -> Optional[CameraMotion]:
    return CameraMotion(mode) if mode in ('auto', 'flow') else None
