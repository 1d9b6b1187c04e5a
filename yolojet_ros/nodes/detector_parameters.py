"""The parameters of the detector node: declared, checked together, read as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from rclpy.node import Node
from rclpy.parameter import Parameter

from yolojet_ros.core.detections import BEST_CLASSES
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import MAX_PIXELS
from yolojet_ros.core.knob_values import parse_names, parse_size, read_dataclass
from yolojet_ros.inference.load import BACKENDS
from yolojet_ros.ros import parameters
from yolojet_ros.tracking import TrackerParams
from yolojet_ros.tracking.camera_motion import MODES

# While the node is configured these are read-only.
FIXED = ('model', 'input_size', 'backend', 'device', 'transport', 'pipeline_depth', 'plugins',
         'cpu_threads', 'cpu_spinning')
_TRACKER_PREFIX = 'tracker.'
_CHOICES = {
    'backend': BACKENDS,
    'transport': ('raw', 'compressed'),
    'camera_motion': (*MODES, 'topic'),
}


@dataclass(frozen=True)
class DetectorParameters:
    """Valid values of all parameters; see `declare` for what each means."""

    model: str
    input_size: Optional[Tuple[int, int]]
    backend: str
    device: int
    transport: str
    pipeline_depth: int
    plugins: Tuple[str, ...]
    cpu_threads: int
    cpu_spinning: bool
    tracking: bool
    camera_motion: str
    camera_motion_wait: float
    appearance: bool
    debug_image: bool
    top_k: int
    max_image_pixels: int
    filters: FilterParams
    tracker: TrackerParams

    @classmethod
    def read(cls, node: Node, changes: Sequence[Parameter] = ()) -> DetectorParameters:
        """
        Read all parameters of a node, with `changes` applied.

        :raises UserError: naming the parameter that is wrong.
        """
        values: Dict[str, Any] = {
            name: item.value for name, item in node.get_parameters_by_prefix('').items()}
        for parameter in changes:
            if parameter.value is None:
                raise UserError(f'{parameter.name} cannot be deleted; set a value')
            values[parameter.name] = parameter.value
        if values['camera_motion'] is False:  # what YAML makes of a bare off
            values['camera_motion'] = 'off'
        for name, choices in _CHOICES.items():
            parameters.check_choice(name, values[name], choices)
        own = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        own['input_size'] = parse_size('input_size', values['input_size'])
        own['plugins'] = parse_names('plugins', values['plugins'])
        return cls(
            filters=read_dataclass(FilterParams, values),
            tracker=read_dataclass(TrackerParams, values, _TRACKER_PREFIX), **own)


def declare(node: Node) -> None:
    """Declare all parameters, each with description, type and range."""

    command = f'ros2 lifecycle set {node.get_fully_qualified_name()}'
    remedy = ('Fixed, and told to be read only, while the node is configured: clean up first '
              f'({command} deactivate if it is active, then {command} cleanup).')

    def fixed(name: str, default: Any, description: str, *limits: int) -> None:
        parameters.declare(node, name, default, f'{description} {remedy}', *limits,
                           choices=_CHOICES.get(name, ()))

    fixed('model', '', 'Path of an .onnx file or a TensorRT .engine file; empty takes the demo '
          'model.')
    fixed('input_size', '', 'Size of the network input as WxH, such as 640x384, for a model that '
          'leaves it open; empty takes what the file says.')
    fixed('backend', 'auto', 'What runs the network.')
    fixed('device', 0, 'CUDA device index; ONNX Runtime runs on the CPU and takes 0 only.', 0, 63)
    fixed('transport', 'raw', 'Whether to subscribe image_raw or image_raw/compressed.')
    fixed('pipeline_depth', 1, 'Images on the GPU at once. 2 raises throughput and adds up to '
          'one frame of latency; ONNX Runtime takes 1 only.', 1, 2)
    fixed('plugins', (), "Libraries (.so) of your own TensorRT plugins. They run as part of this "
          'process; an engine cannot name them itself.')
    fixed('cpu_threads', 0, 'Threads of ONNX Runtime; 0: one a core. Raising it gives a result '
          'sooner where cores are idle. TensorRT takes 0 only.', 0, 256)
    fixed('cpu_spinning', False, 'Let the threads of ONNX Runtime spin while they wait: results '
          'come sooner, and other nodes lose the cores meanwhile. TensorRT takes false only.')
    parameters.declare(
        node, 'autostart', False, 'Configure and activate without a lifecycle manager.',
        read_only=True)
    parameters.declare(node, 'tracking', True, 'Give detections ids that stay with objects.')
    parameters.declare(
        node, 'camera_motion', 'auto', 'How the tracker learns that the camera moves. auto '
        'estimates it from the images and rests while the camera stands still, flow always '
        'estimates, topic takes it from the topic camera_motion, off never.',
        choices=_CHOICES['camera_motion'], dynamic=True)
    parameters.declare(
        node, 'camera_motion_wait', 0.05, 'Seconds to wait for the camera_motion message of an '
        'image. Raising it serves odometry that takes longer; results come as much later.',
        0.0, 1.0)
    parameters.declare(
        node, 'appearance', False, 'Let the tracker know lost objects again by colour and edges. '
        'Helps where objects look different, costs about 0.05 ms for each.')
    parameters.declare(
        node, 'debug_image', True, 'Draw debug_image while someone subscribes to it.')
    parameters.declare(
        node, 'top_k', BEST_CLASSES, 'Classes in a classification at most, the best by score.', 1, 1000)
    parameters.declare(
        node, 'max_image_pixels', MAX_PIXELS, 'Width times height of the largest image that is '
        'accepted. Lowering it bounds time and memory that a broken or hostile image can take.',
        1, MAX_PIXELS)
    parameters.declare_dataclass(node, FilterParams)
    parameters.declare_dataclass(node, TrackerParams, _TRACKER_PREFIX)
