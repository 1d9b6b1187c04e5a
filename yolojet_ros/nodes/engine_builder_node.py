"""The engine builder as a node: parameters in, progress as log and diagnostics, exit code out."""

from __future__ import annotations

import sys
import threading
import time
from typing import List, Optional

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.engine.plan import BuildPlan, Options, resolve
from yolojet_ros.engine.report import headline
from yolojet_ros.engine.workflow import build_engine
from yolojet_ros.ros import parameters
from yolojet_ros.ros.ending import leave
from yolojet_ros.ros.spin import run_node, until_shutdown

_INTERRUPTED = 130  # exit code
_SETTLE_SECONDS = 0.5  # in which the last diagnostics reach their subscribers
# Parameter, default, option of engine.plan.Options, description. Empty and -1 leave it open.
_PARAMETERS = (
    ('onnx', '', 'onnx', '.onnx file to build from.'),
    ('profile', 'auto', 'profile', 'auto, a name of config/profiles, or a .yaml file.'),
    ('out', '', 'out', 'Engine file to write; empty: beside the .onnx file.'),
    ('precision', '', 'precision', "fp32, fp16, int8 or best; empty: the profile's."),
    ('workspace', -1, 'workspace_mib', "Scratch memory of the builder in MiB; -1: the profile's."),
    ('batch', -1, 'batch', "Most images in one run; -1: the profile's."),
    ('calib', '', 'calibration', 'Images for INT8 without Q/DQ: scene, a folder or a bag.'),
    ('num_calib', 500, 'num_calib', 'How many of them.'),
    ('timing_cache', '', 'timing_cache', 'File that keeps kernel timings between builds.'),
    ('dla', -1, 'dla', 'DLA core to use; -1: none.'),
    ('optimization_level', -1, 'optimization_level', "0 to 5; -1: the profile's."),
    ('nms', 'none', 'nms', 'Let the engine end in NMS: none, plugin or layer.'),
    ('verify_images', 'scene', 'verify_images', 'Images to verify on: scene, a folder or a bag.'),
    ('device', 0, 'device', 'Index of the GPU.'))


class EngineBuilderNode(parameters.CheckedParameters, Node):
    """
    Build one engine, in a thread of its own, then stop.

    Publishes `/diagnostics`: the phase and the seconds since the start, and in the
    end what was built or why nothing was. `exit_code` is None while it builds,
    then 0 (built), 1 (failed for a reason of its own) or 2 (wrong input).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('engine_builder', **kwargs)
        for name, default, _, description in _PARAMETERS:
            parameters.declare(self, name, default, description, read_only=True)
        parameters.warn_of_unknown(self)
        self.exit_code: Optional[int] = None
        self._start = time.monotonic()
        self._publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 5)
        self._thread = threading.Thread(target=self._build, name='build', daemon=True)

    def start(self) -> None:
        """Begin to build."""
        self._thread.start()

    def _options(self) -> Options:
        values = {}
        for name, _, option, _ in _PARAMETERS:
            value = self.get_parameter(name).value
            if value not in ('', -1):
                values[option] = value
        if 'onnx' not in values:
            raise UserError('the parameter "onnx" is empty; set it to an .onnx file')
        return Options(**values)

    def _build(self) -> None:
        try:
            plan: BuildPlan = resolve(self._options())
            self.get_logger().info(
                f'building {plan.out} from {plan.options.onnx}: profile {plan.profile.name}, '
                f'{plan.precision}, {plan.workspace_bytes >> 20} MiB of workspace')
            self._succeed(plan, build_engine(plan, self._report, self._warn))
        except UserError as error:
            self._fail(str(error), 2)
        except Exception as error:  # the process must end with a code whatever happened
            self._fail(f'{type(error).__name__}: {error}', 1)

    def _succeed(self, plan: BuildPlan, card: EngineCard) -> None:
        if self.context.ok():
            self.get_logger().info(headline(plan.out, card))
        self._publish(DiagnosticStatus.OK, 'built', {
            'engine': plan.out, 'precision': card.precision, 'TensorRT': card.tensorrt,
            'GPU': card.gpu, 'latency_ms': card.latency_ms.get('median'),
            'verified': card.verification.get('passed', False)})
        self._end(0)

    def _fail(self, reason: str, exit_code: int) -> None:
        if self.context.ok():
            self.get_logger().error(reason)
        self._publish(DiagnosticStatus.ERROR, reason, {})
        self._end(exit_code)

    def _end(self, exit_code: int) -> None:
        time.sleep(_SETTLE_SECONDS)
        self.exit_code = exit_code

    def _report(self, line: str) -> None:
        if self.context.ok():
            self.get_logger().info(line)
        self._publish(DiagnosticStatus.OK, line.partition(' s  ')[2] or line, {})

    def _warn(self, text: str) -> None:
        if self.context.ok():
            self.get_logger().warning(text)
        self._publish(DiagnosticStatus.WARN, text, {})

    def _publish(self, level: bytes, message: str, values: dict) -> None:
        # TensorRT goes on when the process was told to end, and nothing may be raised in it.
        with until_shutdown():
            self._publish_status(level, message, values)

    def _publish_status(self, level: bytes, message: str, values: dict) -> None:
        values = {'elapsed_s': round(time.monotonic() - self._start, 1), **values}
        status = DiagnosticStatus(
            level=level, name=f'{self.get_fully_qualified_name()}: build', message=message,
            hardware_id='gpu', values=[KeyValue(key=key, value=str(value))
                                       for key, value in values.items()])
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(array)


def main(args: Optional[List[str]] = None) -> int:
    """Build as the parameters say and return the exit code; 130 if interrupted."""
    nodes: List[EngineBuilderNode] = []

    def make() -> EngineBuilderNode:
        nodes.append(EngineBuilderNode())
        return nodes[0]

    refused = run_node(
        make, args, EngineBuilderNode.start, lambda node: node.exit_code is not None)
    if refused:
        return refused
    if not nodes or nodes[0].exit_code is None:
        # TensorRT does not come back before it is done; nothing is written until then.
        return leave(_INTERRUPTED)
    return nodes[0].exit_code


if __name__ == '__main__':
    sys.exit(main())
