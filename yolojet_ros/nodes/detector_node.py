"""The detector: images in, tracked detections out; a lifecycle node."""

from __future__ import annotations

import math
import sys
import time
import traceback
from typing import Dict, Iterable, List, Optional, Sequence

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_formats import ImageError
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.inference.demo_model import demo_model
from yolojet_ros.nodes import detector_parameters
from yolojet_ros.nodes.detector_health import DetectorHealth
from yolojet_ros.nodes.detector_parameters import DetectorParameters, FIXED
from yolojet_ros.nodes.diagnostics import Diagnostics
from yolojet_ros.nodes.frame_worker import FrameWorker
from yolojet_ros.nodes.loading import Loading
from yolojet_ros.nodes.model_update import ModelUpdate
from yolojet_ros.nodes.records import Records
from yolojet_ros.nodes.service import Service
from yolojet_ros.nodes.watched_camera import WatchedCamera
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.pipeline.stream import Frame, Shot
from yolojet_ros.ros import parameters
from yolojet_ros.ros.bond import ManagerBond
from yolojet_ros.ros.ending import leave
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.lifecycle import transition
from yolojet_ros.ros.spin import run_node
from yolojet_ros.ros.statistics import DEACTIVATED, FAILED
from yolojet_ros.ros.topics import image_topic

_LOG_PERIOD = 10.0  # s between two messages about one cause
_EXPECT_SECONDS = 1.0  # after an image, in which the next one is worth waiting for
_DRAIN_SECONDS = 5.0  # that deactivation waits for the image in work


class DetectorNode(parameters.CheckedParameters, LifecycleNode):
    """
    Detect and track objects on the images of one camera, or of several with one model.

    Subscribes `image_raw` or `image_raw/compressed`; publishes what nodes/outputs holds for the
    task of the model, and `/diagnostics`. Of several cameras all topics begin with the camera's
    name.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('detector', **kwargs)
        self.worker: Optional[FrameWorker] = None
        self.detector: Optional[Detector] = None  # run by the worker only
        self.cameras: List[WatchedCamera] = []
        self._next = 0  # the camera that is asked first for an image
        self._failing: List[Shot] = []  # that the network failed on
        self._logged: Dict[str, float] = {}
        self.active = False
        self.failure: Optional[str] = None
        detector_parameters.declare(self)
        # What is wrong from the start is said at the start.
        self._used = DetectorParameters.read(self)
        parameters.warn_of_unknown(self, [
            name for compressed in (False, True) for camera in self._used.cameras or ('',)
            for name in parameters.qos_override_names(image_topic(self, compressed, camera))])
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics = Diagnostics(self)
        self.update = ModelUpdate(self)
        self._service = Service(self, DetectorHealth(self, lambda: self.worker).fault,
                                lambda: self._diagnostics.sentence)
        self._bond = ManagerBond(self)
        self._inlet = Inlet(self.context)
        self._records = Records(self)
        self._failure_guard = self.create_guard_condition(self._on_worker_failure)
        self._make_cameras()
        # Health is reported even while simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._look, clock=steady)

    # ---- parameters

    def _on_set_parameters(self, changes: List[Parameter]) -> SetParametersResult:
        """Accept all changes or none; accepted ones act from the next frame on."""
        try:
            wanted = DetectorParameters.read(self, changes)
            if self.detector:
                for card in self.update.cards():
                    wanted.resolve(card.names)
                if any(change.name == 'model_store' for change in changes):
                    self.update.check(wanted)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self.detector:
            self.worker.call(lambda _: self._apply(wanted))
        for change in changes:
            if self.has_parameter(change.name):  # not one that is just being declared
                self.get_logger().debug(f'{change.name} is set to {shown(change.value)}')
        return SetParametersResult(successful=True)

    def _apply(self, wanted: DetectorParameters) -> None:
        """Bring running cameras to new parameters; called in the worker's thread."""
        try:
            wanted.resolve(self.detector.backend.card.names)
        except UserError as error:  # another model has come in between
            self.get_logger().error(f'a parameter that was set has no effect: {error}')
            return
        self._used = wanted
        for camera in self.cameras:
            camera.apply(wanted)
        self._records.apply(wanted)

    def after_parameters(self, names: Sequence[str]) -> None:
        """Have the cameras that are named now, and what another store has active."""
        if 'cameras' in names:
            self._make_cameras()
        if 'model_store' in names and self.detector:
            used = DetectorParameters.read(self)
            if used.model_store:  # what comes of it is logged
                self.update.start(used, lambda runs, text: None)

    def _make_cameras(self) -> None:
        """Keep the cameras that are named still, make those that are new."""
        self._used = DetectorParameters.read(self)
        wanted = self._used.cameras or ('',)
        kept = {camera.name: camera for camera in self.cameras if camera.name in wanted}
        for camera in self.cameras:
            if camera.name not in kept:
                camera.close()
        self.cameras = [kept.get(name) or WatchedCamera(
            self, name, self._inlet, self.log_rarely, self._records) for name in wanted]
        detector_parameters.declare_cameras(self, self._used.cameras)
        self._next = 0

    def meant(self, name: str, known: Iterable[str]) -> str:
        """Name the cameras where one is meant that there is not."""
        return (detector_parameters.other_cameras(name, self._used.cameras)
                or super().meant(name, known))

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
        self.failure = text
        self.get_logger().error(text)

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        try:
            loaded = self._load()
            self._used.resolve(self.detector.backend.card.names)
            for camera in self.cameras:
                camera.configure(self.detector.backend, self._used)
            self._records.start(self._used, self.detector.backend)
        except Exception:
            self._release()
            raise
        card = self.detector.backend.card
        self.failure = None
        self.update.watch_first(loaded, self._used)
        self._fix_parameters(True)
        version = f' (version {loaded.stored.version})' if loaded.stored else ''
        self.get_logger().info(
            f'loaded {card.source}{version}: {card.task}, {len(card.names)} classes, input '
            f'{card.input_size[0]}x{card.input_size[1]}, {self.detector.backend.description}')
        self._diagnostics.log_warnings()
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> Loading:
        """Load the model in a worker of its own; raises what was wrong with it."""
        used = self._used = DetectorParameters.read(self)
        loading = Loading('' if used.model_store else used.model or self._demo_model(), used)
        self.worker = FrameWorker(
            loading.run, self, self._submit, self._publish, self._rescue, self._on_failure)
        self.detector = self.worker.wait_loaded(self._go_on_loading)
        return loading

    def _go_on_loading(self) -> bool:
        """Say that the node lives while it waits for the model; return whether to go on."""
        self._diagnostics.keep_up()
        self._service.keep_up()
        return self.context.ok()

    def _demo_model(self) -> str:
        path = str(demo_model())
        self.get_logger().warning(
            f'no model is set: taking the demo model {path}, which knows the synthetic scene '
            'only; set the parameter "model" to an .onnx or .engine file')
        return path

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        if self.worker.failed:
            raise UserError(f'{self.failure}; clean up and configure the node again')
        cameras = self.cameras
        self.worker.call(lambda _: [camera.reset() for camera in cameras])
        self.active = True
        try:
            topics = [camera.listen() for camera in cameras]
            self.wake()
            result = super().on_activate(state)
            self._bond.form()
        except Exception:
            self._unsubscribe()  # from those that were subscribed before it
            raise
        self.failure = None
        self.get_logger().info(f'active: waiting for images on {", ".join(topics)}')
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
        self.failure = None
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
        self._service.ready()

    def close(self) -> None:
        """Free everything when the process ends."""
        self._service.stopping()
        self._release()
        self._inlet.close()
        self.destroy_node()

    def _unsubscribe(self) -> None:
        """Take no more images, finish the one in work and count what is left of them."""
        self._bond.break_()
        finish = [camera.stop_listening() for camera in self.cameras]
        if self.worker:
            self.worker.drain(_DRAIN_SECONDS)
        failed = self.worker is not None and self.worker.failed
        for each in finish:
            each(FAILED if failed else DEACTIVATED)
        self.active = False

    def _release(self) -> None:
        self._unsubscribe()
        if self.worker:
            self.worker.stop()
        self.update.end()
        self._records.stop()
        for camera in self.cameras:
            camera.cleanup()
        self.worker = self.detector = None
        self._fix_parameters(False)

    # ---- frames, in the worker's thread

    def take(self, most: int) -> Optional[List[Shot]]:
        """Return the newest images of at most so many cameras that have one, None if none has."""
        shots: List[Shot] = []
        most = min(most, len(self.cameras))
        self._take_into(shots, most)
        end = time.monotonic() + self._used.batch_wait * 1e-3
        while shots and len(shots) < most:
            # Only for a camera that has sent of late: one that stopped holds up nobody.
            others = [camera for camera in self._without(shots)
                      if camera.expects_within(_EXPECT_SECONDS)]
            left = end - time.monotonic()
            if not others or left <= 0:
                break
            self._wait_for(others, left)
            self._take_into(shots, most)
        return shots or None

    def _take_into(self, shots: List[Shot], most: int) -> None:
        """Ask the cameras that have no shot yet, the one first that was not asked longest."""
        for camera in self._without(shots):
            if len(shots) == most:
                return
            shot = camera.take()
            if shot:
                shots.append(shot)
                self._next = (self.cameras.index(camera) + 1) % len(self.cameras)

    def _without(self, shots: List[Shot]) -> List[WatchedCamera]:
        """Return the cameras that have none of these shots, in the order of their turns."""
        having = [shot.context.camera for shot in shots]
        return [camera for camera in self.cameras[self._next:] + self.cameras[:self._next]
                if camera not in having]

    def wait(self, failed: bool) -> None:
        """Return when an image may be ready, or after `wake`."""
        self._wait_for([] if failed else self.cameras)

    def _wait_for(self, cameras: Sequence[WatchedCamera], seconds: float = math.inf) -> None:
        """Return when an image of one of these may be ready, after `wake`, or so many seconds."""
        seconds = min([seconds, *(camera.patience for camera in cameras)])
        self._inlet.wait([reader for camera in cameras for reader in camera.readers],
                         None if seconds == math.inf else seconds)

    def wake(self) -> None:
        """Have the worker look again at what there is to do."""
        self._inlet.wake()

    def _submit(self, detector: Detector, shots: List[Shot]) -> None:
        detector.backend.extras = any(
            shot.context.camera.outputs.want_extras() for shot in shots)
        self._run(detector, shots)

    def _run(self, detector: Detector, shots: List[Shot]) -> None:
        """Submit images together, or one by one if one of them cannot be used."""
        try:
            detector.submit(shots)
            for shot in shots:
                shot.context.camera.accept()
        except ImageError as error:
            if len(shots) == 1:
                shots[0].context.camera.drop(error)
                return
            for shot in shots:
                while detector.in_flight >= detector.backend.depth:
                    for frame in detector.collect():
                        self._publish(frame)
                self._run(detector, [shot])
        except Exception:
            self._failing = shots
            raise

    def _publish(self, frame: Frame) -> None:
        frame.context.camera.publish(frame)
        self.update.on_frame(frame)

    def _rescue(self, error: Exception) -> Optional[Detector]:
        for camera in self.cameras:
            camera.fail(error)
        other = self.update.rescue(error)
        if other is not None:
            self._failing = []
        return other

    def _on_failure(self, error: Exception) -> None:
        self.failure = f'{type(error).__name__}: {one_line(str(error))}'
        self.get_logger().debug(traceback.format_exc())
        for shot in self._failing:
            shot.context.camera.keep(shot.context)
        self._failing = []
        self._failure_guard.trigger()

    def _on_worker_failure(self) -> None:
        self.get_logger().error(
            f'stopped: {self.failure}; clean up and configure the node again')
        if self.active:
            self.trigger_deactivate()

    # ---- what the node says of itself

    def _look(self) -> None:
        self.update.look()
        self._diagnostics.publish()

    def log_rarely(self, key: str, text: str) -> None:
        """Warn of what may come often: once in ten seconds for each key."""
        now = time.monotonic()
        if now - self._logged.get(key, -_LOG_PERIOD) >= _LOG_PERIOD:
            self._logged[key] = now
            self.get_logger().warning(text)


def main(args: Optional[List[str]] = None) -> int:
    """Run the detector until it is interrupted; return the exit code."""
    # A load that was abandoned may still go on.
    return leave(run_node(DetectorNode, args, DetectorNode.autostart))


if __name__ == '__main__':
    sys.exit(main())
