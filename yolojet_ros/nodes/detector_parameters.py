"""The parameters of the detector node: declared, checked together, read as one object."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields
import re
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from rclpy.node import Node
from rclpy.parameter import Parameter

from yolojet_ros.core.detections import BEST_CLASSES
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import MAX_PIXELS
from yolojet_ros.core.knob_values import parse_names, parse_size, read_dataclass
from yolojet_ros.core.text import listed, shown
from yolojet_ros.inference.load import BACKENDS
from yolojet_ros.operate.records.params import OF_TRACKS, OFF, RecordParams
from yolojet_ros.ros import parameters
from yolojet_ros.tracking import TrackerParams
from yolojet_ros.tracking.camera_motion import MODES

# While the node is configured these are read-only.
FIXED = ('model', 'input_size', 'backend', 'device', 'cameras', 'transport', 'pipeline_depth',
         'plugins', 'cpu_threads', 'cpu_spinning')
MOST_CAMERAS = 64
_TRACKER_PREFIX = 'tracker.'
_INHERITED = ''  # of a camera's own filter: it is that of the node
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
    cameras: Tuple[str, ...]
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
    batch_wait: float
    model_store: str
    verification_frames: int
    trial_seconds: float
    filters: FilterParams
    tracker: TrackerParams
    records: RecordParams
    own_filters: Mapping[str, FilterParams]

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
        own['cameras'] = _camera_names(values['cameras'])
        if own['batch_wait'] and len(own['cameras']) < 2:
            raise UserError(
                f'batch_wait is {own["batch_wait"]}, but there is one camera only and no other to '
                'wait for; set 0.0, or name several in cameras')
        if own['model'] and own['model_store']:
            raise UserError(
                f'model is {shown(own["model"])} and model_store {shown(own["model_store"])}; set '
                'one of them: the store says itself which model is to run')
        records = read_dataclass(RecordParams, values)
        of_tracks = [cause for cause in records.record_on if cause in OF_TRACKS]
        if of_tracks and not own['tracking']:
            raise UserError(f'record_on holds {of_tracks[0]}, which is of tracks, and tracking is '
                            f'false; set tracking to true, or record_on to error or {OFF}')
        start = parameters.start_values(node)
        return cls(
            filters=read_dataclass(FilterParams, values),
            own_filters={name: _own_filters(name, values, start) for name in own['cameras']},
            tracker=read_dataclass(TrackerParams, values, _TRACKER_PREFIX), records=records,
            **own)

    def filters_of(self, camera: str) -> FilterParams:
        """Return what the user wants to see of a camera, '' for the only one."""
        return self.own_filters.get(camera, self.filters)

    def resolve(self, names: Sequence[str]) -> None:
        """:raises UserError: if a class is not one of the model's, whose classes are `names`."""
        self.filters.resolve(names)
        for camera, filters in self.own_filters.items():
            with _of(camera):
                filters.resolve(names)


@contextmanager
def _of(camera: str, remedy: str = '') -> Iterator[None]:
    """Let errors say whose parameter they name first."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{camera}.{error}{remedy}') from None


def _camera_names(value: Any) -> Tuple[str, ...]:
    """:raises UserError: if a name cannot begin the names of topics and parameters."""
    names = parse_names('cameras', value)
    for name in names:
        if not re.fullmatch(r'[A-Za-z][A-Za-z0-9_]{0,63}', name, re.ASCII) or '__' in name:
            raise UserError(
                f'cameras names {shown(name)}; a name is a letter and then letters, digits and '
                'single underscores, 64 in all, because topics begin with it')
        if name in _RESERVED:
            raise UserError(f'cameras names {shown(name)}, which is a parameter of this node; '
                            'take another name')
        if names.count(name) > 1:
            raise UserError(f'cameras names {shown(name)} twice; each needs a name of its own')
    if len(names) > MOST_CAMERAS:
        raise UserError(f'cameras has {len(names)} names; at most {MOST_CAMERAS} are accepted')
    return names


def other_cameras(name: str, cameras: Sequence[str]) -> str:
    """Return which cameras there are if a name is that of a filter of another, or nothing."""
    camera, _, own = name.partition('.')
    if not cameras or camera in cameras or own not in FilterParams.__dataclass_fields__:
        return ''
    return f'; {shown(camera)} is none of the cameras, which are {listed(cameras)}'


def _own_filters(
    camera: str, values: Mapping[str, Any], start: Mapping[str, Any],
) -> FilterParams:
    """
    Return the filters of a camera: those of the node, but for what was set for it.

    :param start: values from the start, which a camera has that is to be declared
    """
    names = {item.name: f'{camera}.{item.name}' for item in fields(FilterParams)}
    known = any(name in values for name in names.values())
    remedy = '' if known else '; it is from the start: start the node again with another'
    own = {item: values.get(name, _INHERITED if start.get(name) is None else start[name])
           for item, name in names.items()}
    with _of(camera, remedy):
        return read_dataclass(FilterParams, {
            name: values[name] if value == _INHERITED else value for name, value in own.items()})


_RESERVED = (*DetectorParameters.__dataclass_fields__,
             *(item.name for item in (*fields(FilterParams), *fields(RecordParams))),
             'autostart', 'qos_overrides', 'use_sim_time')


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
    fixed('cameras', (), 'Names of several cameras that share the model: front subscribes '
          'front/image_raw and publishes front/detections. Empty: one camera, image_raw.')
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
        node, 'top_k', BEST_CLASSES, 'Classes in a classification at most, the best by score.',
        1, 1000)
    parameters.declare(
        node, 'max_image_pixels', MAX_PIXELS, 'Width times height of the largest image that is '
        'accepted. Lowering it bounds time and memory that a broken or hostile image can take.',
        1, MAX_PIXELS)
    parameters.declare(
        node, 'batch_wait', 0.0, 'Milliseconds that the images of some cameras wait for those of '
        'the others, to run as one batch. Raising it gives fuller batches and later results; '
        'with one camera it must be 0.', 0.0, 50.0)
    parameters.declare(
        node, 'model_store', '', 'Folder of a model store; what it has active runs, instead of '
        'model. Setting it while the node is active brings the node to that, as the service '
        '~/load_model does.')
    parameters.declare(
        node, 'verification_frames', 20, 'Live images that a new version of the store is verified '
        'on before it takes the place of the old one. Raising it makes the change later and '
        'safer.', 1, 1000)
    parameters.declare(
        node, 'trial_seconds', 60.0, 'Seconds in which a new version of the store must work '
        'without an error and no more than twice as long as the old one, or the node goes back; '
        'both are in memory meanwhile.', 1.0, 3600.0)
    parameters.declare_dataclass(node, FilterParams)
    parameters.declare_dataclass(node, TrackerParams, _TRACKER_PREFIX)
    parameters.declare_dataclass(node, RecordParams, dynamic=('record_on',))
    declare_cameras(node, _camera_names(node.get_parameter('cameras').value))


def declare_cameras(node: Node, cameras: Sequence[str]) -> None:
    """Declare CAMERA.NAME for each filter of each camera, and no others."""
    wanted = {f'{camera}.{item.name}': (camera, item)
              for camera in cameras for item in fields(FilterParams)}
    own = tuple(f'.{item.name}' for item in fields(FilterParams))
    for name in [name for name in node.get_parameters_by_prefix('') if name.endswith(own)]:
        if name not in wanted:
            node.undeclare_parameter(name)
    for name, (camera, item) in wanted.items():
        if not node.has_parameter(name):
            low, high = item.metadata['minimum'], item.metadata['maximum']
            parameters.declare(
                node, name, _INHERITED, f'Of the camera {camera}: {item.metadata["description"]} '
                f"'' takes what {item.name} says.", dynamic=True,
                constraints='' if low is None else f'{low} to {high}')
