"""The detector: images in, tracked detections out; a lifecycle node."""

from __future__ import annotations

from dataclasses import dataclass
import time
import traceback
from typing import Any, Dict, List, Optional

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.drawing import draw_detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.inference.load import BACKENDS, load_backend
from yolojet_ros.nodes.frame_worker import FrameWorker
from yolojet_ros.pipeline import Frame, Pipeline
from yolojet_ros.ros import messages, parameters
from yolojet_ros.ros.cdr import DetectionsWriter
from yolojet_ros.ros.images import fill_image, view_of_compressed, view_of_image
from yolojet_ros.ros.spin import run_node, until_shutdown
from yolojet_ros.ros.statistics import Statistics, SUPERSEDED
from yolojet_ros.ros.subscription import subscribe_images
from yolojet_ros.tracking import Tracker, TrackerParams

TRACKER_PREFIX = 'tracker.'
FIXED_PARAMETERS = ('model', 'backend', 'device', 'transport', 'pipeline_depth')
_LOG_PERIOD = 10.0  # s between two messages about one cause
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL,
                      reliability=ReliabilityPolicy.RELIABLE)


@dataclass
class _Job:
    """One image on its way; times on the monotonic clock, in seconds."""

    message: Any
    entered: float
    view: Optional[ImageView] = None


class DetectorNode(LifecycleNode):
    """
    Detect and track objects on the images of one camera.

    Subscribes `image_raw` or `image_raw/compressed`; publishes `detections`,
    `debug_image`, `vision_info`, `label_info` and `/diagnostics`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('detector', **kwargs)
        self._worker: Optional[FrameWorker] = None
        self._pipeline: Optional[Pipeline] = None  # run by the worker only
        self._writer: Optional[DetectionsWriter] = None
        self._tracker: Optional[Tracker] = None
        self._subscription = None
        self._info_publishers: List[Any] = []
        self._statistics = Statistics()
        self._logged: Dict[str, float] = {}
        self._active = False
        self._failure: Optional[str] = None
        self._declare_parameters()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._detections_publisher = self.create_lifecycle_publisher(
            Detection2DArray, 'detections', 5)
        self._debug_publisher = self.create_lifecycle_publisher(Image, 'debug_image', 1)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 5)
        self._failure_guard = self.create_guard_condition(self._on_worker_failure)
        # On the steady clock: health is reported even while simulated time stands still.
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # ---- parameters

    def _declare_parameters(self) -> None:
        fixed = 'Fixed while configured: clean up the node first.'
        parameters.declare(
            self, 'model', '', 'Path of a YOLOv8 .onnx file or a TensorRT .engine file. '
            + fixed)
        parameters.declare(
            self, 'backend', 'auto', 'What runs the network. ' + fixed,
            constraints='one of ' + ', '.join(BACKENDS))
        parameters.declare(self, 'device', 0, 'CUDA device index. ' + fixed, 0, 63)
        parameters.declare(
            self, 'transport', 'raw', 'Whether to subscribe image_raw or image_raw/compressed. '
            + fixed, constraints='one of raw, compressed')
        parameters.declare(
            self, 'pipeline_depth', 1, 'Images on the GPU at once. 2 raises throughput and adds '
            'up to one frame of latency. ' + fixed, 1, 2)
        parameters.declare(
            self, 'autostart', False, 'Configure and activate without a lifecycle manager.',
            read_only=True)
        parameters.declare(self, 'tracking', True, 'Give detections ids that stay with objects.')
        parameters.declare(
            self, 'debug_image', True, 'Draw debug_image while someone subscribes to it.')
        parameters.declare_dataclass(self, FilterParams)
        parameters.declare_dataclass(self, TrackerParams, TRACKER_PREFIX)

    def _values(self, changes: List[Parameter] = ()) -> Dict[str, Any]:
        """Return all parameter values as they are with `changes` applied."""
        values = {name: item.value for name, item in self.get_parameters_by_prefix('').items()}
        values.update({parameter.name: parameter.value for parameter in changes})
        return values

    def _on_set_parameters(self, changes: List[Parameter]) -> SetParametersResult:
        """Accept all changes or none; accepted ones act from the next frame on."""
        try:
            values = self._values(changes)
            if values['backend'] not in BACKENDS:
                raise UserError(
                    f'backend is "{values["backend"]}"; it must be one of '
                    + ', '.join(BACKENDS))
            if values['transport'] not in ('raw', 'compressed'):
                raise UserError(
                    f'transport is "{values["transport"]}"; it must be raw or compressed')
            filters = parameters.read_dataclass(FilterParams, values)
            tracker_params = parameters.read_dataclass(TrackerParams, values, TRACKER_PREFIX)
            if self._pipeline:
                filters.resolve(self._pipeline.backend.card.names)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._worker and self._pipeline:
            tracking = values['tracking']
            self._worker.call(
                lambda pipeline: self._apply(pipeline, filters, tracker_params, tracking))
        return SetParametersResult(successful=True)

    def _apply(
        self, pipeline: Pipeline, filters: FilterParams, tracker_params: TrackerParams,
        tracking: bool,
    ) -> None:
        if filters.score_threshold != pipeline.filters.score_threshold:
            self._publish_label_info(pipeline, filters)
        pipeline.filters = filters
        if tracker_params != self._tracker.params:
            self._tracker.set_params(tracker_params)
        if tracking and pipeline.tracker is None:
            self._tracker.reset()
        pipeline.tracker = self._tracker if tracking else None

    def _fix_parameters(self, fixed: bool) -> None:
        for name in FIXED_PARAMETERS:
            self.describe_parameter(name).read_only = fixed

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        try:
            values = self._values()
            filters = parameters.read_dataclass(FilterParams, values)
            self._tracker = Tracker(
                parameters.read_dataclass(TrackerParams, values, TRACKER_PREFIX))
            if not values['model']:
                raise UserError(
                    'no model is set; set the parameter "model" to a YOLOv8 .onnx or .engine file')

            def load() -> Pipeline:
                backend = load_backend(
                    values['model'], values['backend'], values['device'],
                    values['pipeline_depth'])
                try:
                    return Pipeline(
                        backend, filters, self._tracker if values['tracking'] else None)
                except Exception:
                    backend.close()
                    raise

            self._worker = FrameWorker(load, self._submit, self._publish, self._on_failure)
            self._pipeline = self._worker.wait_loaded()
            card = self._pipeline.backend.card
            self._writer = DetectionsWriter(card.names)
            messages.check_writer(self._writer, _SAMPLE, card.names)
        except Exception as error:
            if not isinstance(error, UserError):
                self.get_logger().debug(traceback.format_exc())
            self._release()
            self._failure = str(error)
            self.get_logger().error(f'cannot configure: {error}')
            return TransitionCallbackReturn.FAILURE
        self._failure = None
        self._fix_parameters(True)
        self._info_publishers = [
            self.create_publisher(kind, topic, _LATCHED)
            for kind, topic in ((VisionInfo, 'vision_info'), (LabelInfo, 'label_info'))]
        self._publish_label_info(self._pipeline, filters)
        self._info_publishers[0].publish(messages.vision_info_message(
            self._info_header(), card, self._pipeline.backend.description))
        self.get_logger().info(
            f'loaded {card.source}: {len(card.names)} classes, input '
            f'{card.input_size[0]}x{card.input_size[1]}, {self._pipeline.backend.description}')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        if self._failure:
            self.get_logger().error(
                f'cannot activate after a failure ({self._failure}); clean up and configure again')
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self._statistics.restart_silence()
        self._worker.call(lambda pipeline: self._tracker.reset())
        compressed = self.get_parameter('transport').value == 'compressed'
        self._active = True
        self._subscription = subscribe_images(self, compressed, self._on_image)
        self.get_logger().info(f'active: waiting for images on {self._subscription.topic_name}')
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to listen; an image in work is still published."""
        self._unsubscribe()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        self._failure = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

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
        self.destroy_node()

    def _unsubscribe(self) -> None:
        self._active = False
        if self._subscription:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._worker:
            self._worker.drop_waiting()

    def _release(self) -> None:
        self._unsubscribe()
        if self._worker:
            self._worker.stop()
        self._worker = self._pipeline = self._writer = self._tracker = None
        for publisher in self._info_publishers:
            self.destroy_publisher(publisher)
        self._info_publishers = []
        self._fix_parameters(False)

    # ---- frames: _on_image in the executor's thread, the rest in the worker's

    def _on_image(self, message: Any) -> None:
        job = _Job(message, time.perf_counter())
        self._statistics.on_received()
        if self._worker.offer(job) is not None:
            self._statistics.on_dropped(SUPERSEDED)

    def _submit(self, pipeline: Pipeline, job: _Job) -> None:
        message = job.message
        try:
            if isinstance(message, CompressedImage):
                job.view = view_of_compressed(message)
            else:
                job.view = view_of_image(message)
            pipeline.submit(job.view, self._tracker_stamp(message.header), job)
        except ImageError as error:
            count = self._statistics.on_dropped(error.cause)
            self._log_rarely(
                f'image:{error.cause}', f'dropped an image ({count} so far): {error}')

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
        if not self._active:
            return
        with until_shutdown():
            self._detections_publisher.publish(self._writer(header, frame.detections))
            elapsed = (time.perf_counter() - job.entered) * 1e3
            times = dict(frame.times.laps, pipeline=frame.times.total,
                         overhead=elapsed - frame.times.total)
            self._statistics.on_processed(len(frame.detections), self._age(header), times)
            wanted = self._debug_publisher.get_subscription_count()
            if wanted and self.get_parameter('debug_image').value:
                self._publish_debug_image(header, job.view, frame.detections)

    def _age(self, header: Header) -> float:
        """Return how old the image is now, in seconds; 0 if its stamp is unusable."""
        if header.stamp.nanosec >= 10**9 or header.stamp.sec < 0:
            return 0.0
        stamp = Time.from_msg(header.stamp, self.get_clock().clock_type)
        return (self.get_clock().now() - stamp).nanoseconds * 1e-9

    def _publish_debug_image(
        self, header: Header, view: ImageView, detections: Detections,
    ) -> None:
        picture = np.ascontiguousarray(view.bgr())
        if not picture.flags.writeable or np.shares_memory(picture, view.data):
            picture = picture.copy()
        message = Image(header=header)
        fill_image(message, draw_detections(
            picture, detections, self._pipeline.backend.card.names), 'bgr8')
        self._debug_publisher.publish(message)

    def _on_failure(self, error: Exception) -> None:
        self._failure = f'{type(error).__name__}: {error}'
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

    def _info_header(self) -> Header:
        return Header(stamp=self.get_clock().now().to_msg())

    def _publish_label_info(self, pipeline: Pipeline, filters: FilterParams) -> None:
        self._info_publishers[1].publish(messages.label_info_message(
            self._info_header(), pipeline.backend.card, filters.score_threshold))

    def _publish_diagnostics(self) -> None:
        level, text, values = self._statistics.report(self._active)
        if self._failure:
            level, text = DiagnosticStatus.ERROR, self._failure
        pipeline = self._pipeline
        hardware = ''
        if pipeline:
            card = pipeline.backend.card
            hardware = pipeline.backend.description
            values += [
                KeyValue(key='model', value=card.source),
                KeyValue(key='input_size', value=f'{card.input_size[0]}x{card.input_size[1]}'),
                KeyValue(key='backend', value=pipeline.backend.name),
                KeyValue(key='tracks', value=str(len(self._tracker.tracks))),
            ]
        status = DiagnosticStatus(
            level=level, name=f'{self.get_fully_qualified_name()}: detector', message=text,
            hardware_id=hardware, values=values)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        with until_shutdown():
            self._diagnostics_publisher.publish(message)


_SAMPLE = Detections(
    np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32), np.array([0.5, 0.25], np.float32),
    np.array([0, 0], np.int32), np.array([7, -1]))


def main(args: Optional[List[str]] = None) -> None:
    """Run the detector until it is interrupted."""
    run_node(DetectorNode, args, DetectorNode.autostart)


if __name__ == '__main__':
    main()
