"""The detector: images in, tracked detections out; a lifecycle node."""

from __future__ import annotations

from dataclasses import dataclass
import sys
import time
import traceback
from typing import Any, Dict, List, Optional

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PolygonStamped
import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.inference.demo_model import demo_model
from yolojet_ros.inference.load import load_backend
from yolojet_ros.nodes import detector_parameters
from yolojet_ros.nodes.detector_parameters import DetectorParameters, FIXED
from yolojet_ros.nodes.frame_worker import FrameWorker
from yolojet_ros.nodes.outputs.output import Result
from yolojet_ros.nodes.outputs.outputs import Outputs
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame, Stream
from yolojet_ros.ros import parameters
from yolojet_ros.ros.bond import ManagerBond
from yolojet_ros.ros.ending import leave
from yolojet_ros.ros.images import check_frame_id, view_of_compressed, view_of_image
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.lifecycle import transition
from yolojet_ros.ros.spin import run_node, until_shutdown
from yolojet_ros.ros.statistics import DEACTIVATED, FAILED, Statistics
from yolojet_ros.ros.subscription import ImageSubscription
from yolojet_ros.ros.topics import image_topic
from yolojet_ros.ros.warps import WarpBuffer
from yolojet_ros.tracking import Tracker
from yolojet_ros.tracking.camera_motion import CameraMotion

_LOG_PERIOD = 10.0  # s between two messages about one cause
_DRAIN_SECONDS = 5.0  # that deactivation waits for the image in work


@dataclass
class _Job:
    """
    One image on its way.

    entered: when it was out of the queue, on time.perf_counter; times: milliseconds up to then
    """

    message: Any
    entered: float
    times: Dict[str, float]
    view: Optional[ImageView] = None


class DetectorNode(parameters.CheckedParameters, LifecycleNode):
    """
    Detect and track objects on the images of one camera.

    Subscribes `image_raw` or `image_raw/compressed`; publishes what nodes/outputs holds for the
    task of the model, and `/diagnostics`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('detector', **kwargs)
        self._worker: Optional[FrameWorker] = None
        # Run by the worker only.
        self._detector: Optional[Detector] = None
        self._stream: Optional[Stream] = None
        self._tracker: Optional[Tracker] = None
        self._subscription: Optional[ImageSubscription] = None
        self._tracks = 0
        self._outputs: Optional[Outputs] = None
        self._statistics = Statistics()
        self._used: Optional[DetectorParameters] = None  # by the frame in work
        self._warps = WarpBuffer()
        self._logged: Dict[str, float] = {}
        self._warnings_logged = 0  # of the backend's
        self._active = False
        self._failure: Optional[str] = None
        self._geometry: Optional[tuple] = None  # of the last image, for the log
        detector_parameters.declare(self)
        DetectorParameters.read(self)  # what is wrong from the start is said at the start
        parameters.warn_of_unknown(self, [
            name for compressed in (False, True)
            for name in parameters.qos_override_names(image_topic(self, compressed))])
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 5)
        self._bond = ManagerBond(self)
        self._inlet = Inlet(self.context)
        self._failure_guard = self.create_guard_condition(self._on_worker_failure)
        self._motion_topic = self.create_subscription(
            PolygonStamped, 'camera_motion', self._on_motion, 50).topic_name
        # Health is reported even while simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)

    # ---- parameters

    def _on_set_parameters(self, changes: List[Parameter]) -> SetParametersResult:
        """Accept all changes or none; accepted ones act from the next frame on."""
        try:
            wanted = DetectorParameters.read(self, changes)
            if self._detector:
                wanted.filters.resolve(self._detector.backend.card.names)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._detector:
            stream = self._stream
            self._worker.call(lambda _: self._apply(stream, wanted))
        for change in changes:
            if self.has_parameter(change.name):  # not one that is just being declared
                self.get_logger().debug(f'{change.name} is set to {shown(change.value)}')
        return SetParametersResult(successful=True)

    def _apply(self, stream: Stream, wanted: DetectorParameters) -> None:
        """Bring a running stream to new parameters; called in the worker's thread."""
        current, self._used = self._used, wanted
        stream.filters = wanted.filters
        self._outputs.apply(wanted)
        if wanted.tracker != current.tracker:
            self._tracker.set_params(wanted.tracker)
        if wanted.tracking and not current.tracking:
            self._tracker.reset()
        stream.tracker = self._tracker if wanted.tracking else None
        stream.appearance = wanted.appearance
        if wanted.camera_motion != current.camera_motion:
            self._warps.reset()
            stream.camera_motion = _estimator(wanted.camera_motion)

    def how_to_change(self, name: str) -> str:
        """Say what to do where a parameter is fixed now."""
        if name not in FIXED:
            return super().how_to_change(name)
        command = f'ros2 lifecycle set {self.get_fully_qualified_name()}'
        return f'first {command} deactivate, if it is active, and {command} cleanup'

    def _fix_parameters(self, fixed: bool) -> None:
        for name in FIXED:
            self.describe_parameter(name).read_only = fixed

    # ---- lifecycle

    def keep_failure(self, text: str) -> None:
        """Say what went wrong, in the log now and in diagnostics until it is mended."""
        self._failure = text
        self.get_logger().error(text)

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        try:
            self._load()
            self._outputs = Outputs(self, self._detector.backend, self._used)
        except Exception:
            self._release()
            raise
        card = self._detector.backend.card
        self._failure = None
        self._fix_parameters(True)
        self.get_logger().info(
            f'loaded {card.source}: {card.task}, {len(card.names)} classes, input '
            f'{card.input_size[0]}x{card.input_size[1]}, {self._detector.backend.description}')
        self._log_backend_warnings()
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> None:
        """Load the model in a worker of its own; raises what was wrong with it."""
        used = self._used = DetectorParameters.read(self)
        model = used.model or self._demo_model()
        tracker = self._tracker = Tracker(used.tracker)

        def load() -> Detector:
            return Detector(load_backend(
                model, used.backend, used.device, used.pipeline_depth, used.plugins,
                used.cpu_threads, used.cpu_spinning, used.input_size))

        self._worker = FrameWorker(load, self, self._submit, self._publish, self._on_failure)
        self._detector = self._worker.wait_loaded(self.context.ok)
        self._stream = Stream(
            self._detector.backend.card, used.filters, tracker if used.tracking else None,
            _estimator(used.camera_motion), used.appearance)

    def _demo_model(self) -> str:
        path = str(demo_model())
        self.get_logger().warning(
            f'no model is set: taking the demo model {path}, which knows the synthetic scene '
            'only; set the parameter "model" to an .onnx or .engine file')
        return path

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        if self._worker.failed:
            raise UserError(f'{self._failure}; clean up and configure the node again')
        stream = self._stream
        self._worker.call(lambda _: stream.reset())
        self._warps.reset()
        self._geometry = None
        compressed = self._used.transport == 'compressed'
        self._subscription = ImageSubscription(
            self, compressed, self._inlet, self._statistics)
        self._active = True
        self.wake()
        result = super().on_activate(state)
        self._failure = None
        self._bond.form()
        self.get_logger().info(f'active: waiting for images on {self._subscription.topic_name}')
        return result

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to listen; an image in work is still published, one that waits is dropped."""
        self._unsubscribe()
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        self._failure = None
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that configure can be tried again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` says so."""
        if self.get_parameter('autostart').value:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

    def close(self) -> None:
        """Free everything when the process ends."""
        self._release()
        self._inlet.close()
        self.destroy_node()

    def _unsubscribe(self) -> None:
        """Take no more images, finish the one in work and count what is left of them."""
        self._bond.break_()
        images, self._subscription = self._subscription, None
        if self._worker:
            self._worker.drain(_DRAIN_SECONDS)
        if images:
            with until_shutdown():
                images.take()  # so that what waits is counted
            images.destroy()
        if self._worker:
            self._statistics.settle(FAILED if self._worker.failed else DEACTIVATED)
        self._active = False

    def _release(self) -> None:
        self._unsubscribe()
        if self._worker:
            self._worker.stop()
        if self._outputs:
            self._outputs.close()
        self._worker = self._detector = self._stream = None
        self._tracker = self._outputs = None
        self._warnings_logged = 0
        self._fix_parameters(False)

    # ---- frames, in the worker's thread

    def take(self) -> Optional[_Job]:
        """Return the newest image, None if there is none."""
        images = self._subscription
        with until_shutdown():
            taken = images.take() if images else None
            if taken:
                now = time.perf_counter()
                return _Job(taken.message, now, {
                    'queued': taken.queued * 1e3, 'take': (now - taken.started) * 1e3})
        return None

    def wait(self, failed: bool) -> None:
        """Return when an image may have come, or after `wake`."""
        images = self._subscription
        self._inlet.wait(images.readers if images and not failed else ())

    def wake(self) -> None:
        """Have the worker look again at what there is to do."""
        self._inlet.wake()

    def _submit(self, detector: Detector, job: _Job) -> None:
        message = job.message
        try:
            check_frame_id(message.header.frame_id)
            if isinstance(message, CompressedImage):
                job.view = view_of_compressed(message, self._used.max_image_pixels)
            else:
                job.view = view_of_image(message, self._used.max_image_pixels)
            self._debug_geometry(job.view, message.header)
            detector.backend.extras = self._outputs.want_extras()
            warp = None
            if self._used.camera_motion == 'topic':
                warp = self._told_motion(job.view, message.header)
            detector.submit([self._stream.shot(
                job.view, self._tracker_stamp(message.header), job, warp)])
            self._warps.accept()
        except ImageError as error:
            count = self._statistics.on_dropped(error.cause)
            self._log_rarely(
                f'image:{error.cause}', f'dropped an image ({count} so far): {error}')

    def _on_motion(self, message: PolygonStamped) -> None:
        fault = self._warps.add(message)
        if fault and self._used and self._used.camera_motion == 'topic':
            self._log_rarely('polygon', (
                f'a message of {self._motion_topic} has {fault} and is ignored; it must hold '
                'where the corners (0, 0), (width, 0), (0, height) of the previous image lie'))

    def _told_motion(self, view: ImageView, header: Header) -> Optional[np.ndarray]:
        """Return how the camera moved by the topic, waiting for it if somebody publishes."""
        missed = self._warps.missed
        told_by = self.count_publishers(self._motion_topic)
        warp = self._warps.warp_to(header, view.width, view.height,
                                   self._used.camera_motion_wait if told_by else 0.0)
        if self._warps.missed > missed:
            self._log_rarely('motion', (
                f'no valid message of {self._motion_topic} had the stamp of an image within '
                f'{self._used.camera_motion_wait} s ({missed + 1} so far, {told_by} publishers); '
                'the next one is told the sum; raise camera_motion_wait if it comes later'))
        return warp

    def _tracker_stamp(self, header: Header) -> float:
        """Return the image's time in seconds; the clock's where the stamp is unusable."""
        seconds, nanoseconds = header.stamp.sec, header.stamp.nanosec
        if seconds < 0 or nanoseconds >= 10**9 or not (seconds or nanoseconds):
            self._statistics.on_odd_stamp()
            self._log_rarely('stamp', (
                f'image stamp {seconds} s {nanoseconds} ns is zero or invalid; tracking uses '
                'the time of arrival, set the stamp in the camera driver'))
            return self.get_clock().now().nanoseconds * 1e-9
        return seconds + nanoseconds * 1e-9

    def _publish(self, frame: Frame) -> None:
        job: _Job = frame.context
        header = job.message.header
        if not self._active:  # counted already
            return
        result = Result(job.view, frame.detections)
        with until_shutdown():
            self._outputs.publish(header, result)
            elapsed = (time.perf_counter() - job.entered) * 1e3
            times = dict(job.times, **frame.times.laps, pipeline=frame.times.total,
                         overhead=elapsed - frame.times.total)
            ids = frame.detections.ids
            self._tracks = 0 if ids is None else int(np.count_nonzero(ids >= 0))
            self._statistics.on_processed(len(frame.detections), self._age(header), times)
            self._statistics.on_broken_rows(frame.detections.broken)
            self._statistics.on_published(self._outputs.publish_more(header, result))

    def _age(self, header: Header) -> float:
        """Return how old the image is now, in seconds; 0 if its stamp is unusable."""
        if header.stamp.nanosec >= 10**9 or header.stamp.sec < 0:
            return 0.0
        stamp = Time.from_msg(header.stamp, self.get_clock().clock_type)
        return (self.get_clock().now() - stamp).nanoseconds * 1e-9

    def _on_failure(self, error: Exception) -> None:
        self._failure = f'{type(error).__name__}: {one_line(str(error))}'
        self.get_logger().debug(traceback.format_exc())
        self._failure_guard.trigger()

    def _on_worker_failure(self) -> None:
        self.get_logger().error(
            f'stopped: {self._failure}; clean up and configure the node again')
        if self._active:
            self.trigger_deactivate()

    # ---- what the node says of itself

    def _log_rarely(self, key: str, text: str) -> None:
        now = time.monotonic()
        if now - self._logged.get(key, -_LOG_PERIOD) >= _LOG_PERIOD:
            self._logged[key] = now
            self.get_logger().warning(text)

    def _log_backend_warnings(self) -> None:
        """Log what the backend has to say since the last time; it may come with a frame."""
        if self._detector:
            warnings = self._detector.backend.warnings
            for text in warnings[self._warnings_logged:]:
                self.get_logger().warning(text)
            self._warnings_logged = len(warnings)

    def _debug_geometry(self, view: ImageView, header: Header) -> None:
        geometry = (view.width, view.height, view.step, view.encoding, header.frame_id)
        if geometry != self._geometry:
            self._geometry = geometry
            self.get_logger().debug(
                f'images are {view.width}x{view.height} {shown(view.encoding)}, step {view.step}, '
                f'frame_id {shown(header.frame_id)}')

    def _publish_diagnostics(self) -> None:
        images = self._subscription
        if images:
            images.update()  # before what it reports is compared with what came
        level, text, values = self._statistics.report(
            self._active, *(images.problem(), images.silence()) if images else ())
        if images:
            values += [KeyValue(key=key, value=str(value))
                       for key, value in images.values().items()]
        self._log_backend_warnings()
        if self._active:
            self.get_logger().debug('in the last second: ' + _summary(values))
        namesakes = self._namesakes()
        if namesakes:
            self._log_rarely('namesakes', namesakes)
            level, text = DiagnosticStatus.WARN, namesakes
        if self._failure:
            level, text = DiagnosticStatus.ERROR, self._failure
        detector = self._detector
        hardware = ''
        if detector:
            card = detector.backend.card
            hardware = detector.backend.description
            values += [
                KeyValue(key='model', value=card.source),
                KeyValue(key='task', value=card.task),
                KeyValue(key='input_size', value=f'{card.input_size[0]}x{card.input_size[1]}'),
                KeyValue(key='backend', value=detector.backend.name),
                KeyValue(key='tracks', value=str(self._tracks)),
            ]
            if card.task in ('segment', 'pose'):
                values.append(KeyValue(key='masks_or_keypoints', value=(
                    'computed' if detector.backend.extras else 'not wanted by anybody')))
            warnings = '; '.join(detector.backend.warnings)
            if warnings:
                values.append(KeyValue(key='backend_warnings', value=warnings))
                if level == DiagnosticStatus.OK:
                    level, text = DiagnosticStatus.WARN, warnings
        status = DiagnosticStatus(
            level=level, name=f'{self.get_fully_qualified_name()}: detector', message=text,
            hardware_id=hardware, values=values)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        with until_shutdown():
            self._diagnostics_publisher.publish(message)

    def _namesakes(self) -> str:
        """Say that other nodes have the full name of this one, or ''."""
        own = self.get_name(), self.get_namespace()
        count = self.get_node_names_and_namespaces().count(own) - 1
        return '' if count < 1 else (
            f'{count} more node(s) called {self.get_fully_qualified_name()}, which publish on the '
            'same topics; give each a namespace (one that was killed is counted for 20 s more)')


def _estimator(mode: str) -> Optional[CameraMotion]:
    return CameraMotion(mode) if mode in ('auto', 'flow') else None


def _summary(values: List[KeyValue]) -> str:
    """Return rates, ages and counts, without the times of the stages."""
    return ', '.join(f'{item.key} {item.value}' for item in values
                     if item.key.startswith('age') or not item.key.endswith('_ms_p50'))


def main(args: Optional[List[str]] = None) -> int:
    """Run the detector until it is interrupted; return the exit code."""
    # A load that was abandoned may still go on.
    return leave(run_node(DetectorNode, args, DetectorNode.autostart))


if __name__ == '__main__':
    sys.exit(main())
