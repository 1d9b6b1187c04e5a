"""
Build an engine from ONNX with whatever TensorRT is installed, from 8.2 to 11.

There is one path. Where versions differ, the installed one is asked for the capability
(`hasattr`), never for its number.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple, TYPE_CHECKING

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.engine import nms_tail
from yolojet_ros.engine.model_facts import ModelFacts
from yolojet_ros.engine.plan import builder_flags, BuildPlan, network_flags
from yolojet_ros.engine.progress import interruptible, make_monitor, Progress
from yolojet_ros.inference.tensorrt_network import make_logger, reason
from yolojet_ros.model import onnx_file, quantization
from yolojet_ros.model.open_batch import open_batch

if TYPE_CHECKING:
    import onnx

Report = Callable[[str], None]
# Where contexts cannot share a profile, each number of images needs one in each of two slots;
# more numbers than these share what there is (inference.cuda.frame).
_SLOTS, _NUMBERS = 2, 4


@dataclass(frozen=True)
class Built:
    """
    A serialized engine.

    precision: what it was built in; differs from the plan's only for 'best'
    workspace_bytes: the limit that was set
    input_step: value of one step of the image where the engine takes it in INT8, else None
    shared_profile: whether its contexts can all use the same optimization profile
    """

    engine: bytes
    precision: str
    workspace_bytes: int
    input_step: Optional[float] = None
    shared_profile: bool = False


def is_weak(trt) -> bool:
    """Return whether this TensorRT chooses precisions by flag."""
    return hasattr(trt.BuilderFlag, 'FP16')


def build(
    trt, plan: BuildPlan, facts: ModelFacts, progress: Progress, warn: Report, calibrator=None,
) -> Built:
    """
    Return the serialized engine; needs a current CUDA context.

    :param trt: the tensorrt module
    :param facts: of the ONNX file
    :param calibrator: trt.IInt8Calibrator for a model without Q/DQ, or None
    :raises UserError: in one sentence, why it cannot be built.
    """
    model = opened(plan, facts, warn)
    if plan.int8_input and is_weak(trt):
        try:
            return _build(trt, plan, facts, progress, warn, calibrator, model, True)
        except UserError as error:
            warn(f'building again for a float image, because INT8 is refused for it: {error}')
    return _build(trt, plan, facts, progress, warn, calibrator, model, False)


def _build(
    trt, plan: BuildPlan, facts: ModelFacts, progress: Progress, warn: Report, calibrator,
    model: Optional[onnx.ModelProto], int8_input: bool,
) -> Built:
    weak = is_weak(trt)
    typed = plan.options.typed or not weak
    if typed and weak and not hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED'):
        raise UserError(
            f'TensorRT {trt.__version__} cannot build a strongly typed network; leave --typed out')
    logger = make_logger(trt)
    trt.init_libnvinfer_plugins(logger, '')
    builder = _create_builder(trt, logger)
    precision = _choose_precision(trt, builder, plan, facts, typed, calibrator, warn)
    progress.phase('reading the model')
    network = builder.create_network(_mask(trt.NetworkDefinitionCreationFlag, network_flags(
        not typed, weak, lambda name: hasattr(trt.NetworkDefinitionCreationFlag, name))))
    changed, step = _changed(plan, model, int8_input and precision == 'int8')
    _parse(trt, network, logger, plan.options.onnx, changed)
    if step is not None:
        network.get_input(0).allowed_formats = _mask(trt.TensorFormat, ['LINEAR'])
    config = builder.create_builder_config()
    shared = _set_batch(trt, builder, network, config, plan)
    constants: List = []
    if plan.options.nms != 'none':
        # The network refers to these arrays until it is built.
        constants = nms_tail.append(trt, network, plan.options)
    for name in builder_flags(plan, precision, not typed,
                              lambda name: hasattr(trt.BuilderFlag, name)):
        config.set_flag(getattr(trt.BuilderFlag, name))
    _configure(trt, builder, config, plan, warn)
    if precision == 'int8' and calibrator is not None and not facts.quantized:
        config.int8_calibrator = calibrator
    if plan.options.strict and not typed:
        _force_precision(trt, network, precision)
    cache = _load_timing_cache(config, plan.options.timing_cache, warn)
    monitor = make_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    progress.phase('timing kernels, which takes minutes')
    with interruptible():
        serialized = builder.build_serialized_network(network, config)
    constants.clear()
    if serialized is None:
        raise UserError(
            f'TensorRT {trt.__version__} could not build {plan.options.onnx}: {reason(logger)}; '
            'if memory is short, close other programs or lower --workspace')
    _save_timing_cache(config, cache, plan.options.timing_cache, warn)
    return Built(bytes(serialized), precision, plan.workspace_bytes, step, shared)


def _create_builder(trt, logger):
    try:
        return trt.Builder(logger)
    except TypeError as error:  # the bindings' answer to a null pointer
        raise UserError(
            f'TensorRT {trt.__version__} cannot start its builder ({reason(logger)}); its '
            'version must fit the NVIDIA driver') from error


def _choose_precision(
    trt, builder, plan: BuildPlan, facts: ModelFacts, typed: bool, calibrator, warn: Report,
) -> str:
    """Return what to build, or refuse what would silently become something else."""
    precision = plan.precision
    if precision == 'int8':
        obstacle = _int8_obstacle(trt, builder, facts, typed, calibrator)
        if obstacle and not plan.fallback:
            raise UserError(obstacle)
        if obstacle:
            warn(f'building FP16 instead of INT8: {obstacle}')
            precision = 'fp16'
    if typed and precision == 'fp16' and not facts.half:
        raise UserError(
            f'{plan.options.onnx} carries no FP16 types, and a strongly typed network is built '
            'in the types that the model carries: it would silently be FP32; convert it with '
            '"yolojet model fp16"')
    if typed and precision == 'fp32' and facts.half:
        raise UserError(
            f'{plan.options.onnx} carries FP16 types, so a strongly typed network cannot be built '
            'in FP32; give the FP32 model')
    fast = getattr(builder, 'platform_has_fast_fp16', True)
    if precision == 'fp16' and not fast:
        warn('this GPU has no fast FP16; --precision fp32 may be as quick')
    return precision


def _int8_obstacle(trt, builder, facts: ModelFacts, typed: bool, calibrator) -> Optional[str]:
    if not getattr(builder, 'platform_has_fast_int8', True):
        return 'this GPU has no fast INT8; ' + (
            'give the model that was quantized' if facts.quantized else 'use --precision fp16')
    if facts.quantized:
        return None
    if typed or not hasattr(trt, 'IInt8EntropyCalibrator2'):
        return (f'the model carries no Q/DQ, and TensorRT {trt.__version__} '
                'quantizes nothing by itself here: it would silently not be INT8; quantize it '
                'with "yolojet model quantize"')
    if calibrator is None:
        return ('INT8 needs a quantized (Q/DQ) model or images to calibrate with; run "yolojet '
                'model quantize", give --calib FOLDER, or use --precision fp16')
    return None


def _mask(enumeration, names: List[str]) -> int:
    return sum(1 << int(getattr(enumeration, name)) for name in names)


def opened(plan: BuildPlan, facts: ModelFacts, warn: Report) -> Optional[onnx.ModelProto]:
    """
    Return a model of one image with an open batch, where more are asked for, else None.

    :raises UserError: if it cannot be opened, or has another fixed batch than what is asked for.
    """
    if facts.card.batch in (0, plan.batch):
        return None
    path = Path(plan.options.onnx)
    if facts.card.batch > 1:
        raise UserError(
            f'{path} has a fixed batch of {facts.card.batch}, not {plan.batch}; export it with a '
            f'dynamic batch, or use --batch {facts.card.batch}')
    model = open_batch(onnx_file.load(path), path.name)
    warn(f'{path.name} has a fixed batch of 1, which is opened for --batch {plan.batch}')
    return model


def _changed(
    plan: BuildPlan, model: Optional[onnx.ModelProto], int8_input: bool,
) -> Tuple[Optional[bytes], Optional[float]]:
    """
    Return the model as bytes, with an INT8 image where it is to have one.

    :param model: as opened() returns it.
    :return: None for a model that is built as its file has it; and the step of an INT8 image,
        which spares the layer that quantizes it.
    """
    if not int8_input:
        return (None if model is None else model.SerializeToString()), None
    changed = onnx_file.load(Path(plan.options.onnx)) if model is None else copy.deepcopy(model)
    step = quantization.take_int8(changed)
    unchanged = model is None and step is None
    return (None if unchanged else changed.SerializeToString()), step


def _parse(trt, network, logger, onnx: str, changed: Optional[bytes]) -> None:
    """
    Read the model, and tell every error at once.

    :param changed: what it became, instead of what the file holds
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(onnx) if changed is None else parser.parse(changed):
        return
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator = f' ({error.node_operator()})' if hasattr(error, 'node_operator') else ''
        problems.append(f'node {error.node()}{operator}: {error.desc().strip()}')
    raise UserError(
        f'TensorRT {trt.__version__} cannot read {Path(onnx).name}: '
        + ('; '.join(problems) or reason(logger))
        + '; export it again with an older --opset, or build with a newer TensorRT')


def _set_batch(trt, builder, network, config, plan: BuildPlan) -> bool:
    """
    Let an open batch take 1 to as many images as are asked for; a fixed one takes as many.

    One image needs no optimization profile, and the ends in NMS and DLA want sizes that are known.

    :returns: whether there is a profile that all contexts share.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shape = tuple(inputs[0].shape)
    if shape[0] > 0:
        return False
    if min(shape[1:]) <= 0:
        raise UserError(
            f'{plan.options.onnx} takes an input of dynamic size {list(shape)}; export it with '
            'a fixed height and width')
    rests = [(item, tuple(item.shape)[1:]) for item in inputs if item.shape[0] < 0]
    if not plan.dynamic_batch:
        for item, rest in rests:
            item.shape = (plan.batch, *rest)
        return False
    shared = _share_profile(trt, config)
    for _ in range(1 if shared else _SLOTS * min(plan.batch, _NUMBERS)):
        profile = builder.create_optimization_profile()
        for item, rest in rests:
            # Several cameras are what it is for, so that many images are to be quick.
            profile.set_shape(item.name, (1, *rest), (plan.batch, *rest), (plan.batch, *rest))
        config.add_optimization_profile(profile)
    return shared


def _share_profile(trt, config) -> bool:
    """Let one profile serve all contexts; return whether it does."""
    if hasattr(trt, 'ExecutionContextAllocationStrategy'):  # from 10 on they always share it
        return True
    preview = getattr(trt, 'PreviewFeature', None)
    if not hasattr(preview, 'PROFILE_SHARING_0806'):
        return False
    config.set_preview_feature(preview.PROFILE_SHARING_0806, True)
    return True


def _configure(trt, builder, config, plan: BuildPlan, warn: Report) -> None:
    if hasattr(config, 'set_memory_pool_limit'):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_bytes)
    else:
        config.max_workspace_size = plan.workspace_bytes
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for yolojet engine inspect
    if plan.optimization_level is not None:
        if hasattr(config, 'builder_optimization_level'):
            config.builder_optimization_level = plan.optimization_level
        else:
            warn(f'TensorRT {trt.__version__} has no optimization level; it takes all the time '
                 'it needs')
    sources = [name for name in plan.tactic_sources if hasattr(trt.TacticSource, name)]
    absent = ', '.join(name for name in plan.tactic_sources if name not in sources)
    if absent:
        warn(f'TensorRT {trt.__version__} has no tactic source {absent}'
             + ('' if sources else '; it takes those of its own choice'))
    if sources:
        config.set_tactic_sources(_mask(trt.TacticSource, sources))
    if plan.options.dla is not None:
        if builder.num_DLA_cores <= plan.options.dla:
            raise UserError(
                f'--dla {plan.options.dla}: this device has {builder.num_DLA_cores} DLA cores')
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = plan.options.dla


def _force_precision(trt, network, precision: str) -> None:
    """Ask for the precision layer by layer; constants and shape layers keep their types."""
    wanted = {'fp32': trt.DataType.FLOAT}.get(precision, trt.DataType.HALF)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.precision = wanted


def _load_timing_cache(config, path: Optional[str], warn: Report):
    """Return the timing cache in use; an unusable file costs time, nothing else."""
    if path is None:
        return None
    stored = Path(path).read_bytes() if Path(path).is_file() else b''
    for content in ([stored] if stored else []) + [b'']:
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            if stored and not content:
                warn(f'{path} comes from another TensorRT or GPU and is written anew')
            return cache
    warn('this TensorRT takes no timing cache')
    return None


def _save_timing_cache(config, cache, path: Optional[str], warn: Report) -> None:
    if cache is None:
        return
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except UserError as error:
        warn(f'the timing cache is not kept: {error}')
