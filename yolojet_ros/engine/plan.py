"""What is going to be built: a profile and the user's options, resolved and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import refuse_same
from yolojet_ros.engine import profiles
from yolojet_ros.engine.model_facts import ModelFacts
from yolojet_ros.engine.profiles import Profile

BEST = 'best'
NMS_KINDS = ('none', 'plugin', 'layer')
CALIBRATORS = ('entropy', 'minmax')
DEFAULT_CALIBRATION_IMAGES = 500


@dataclass(frozen=True)
class Options:
    """
    What the user asked for; None leaves it to the profile.

    onnx: path of the model; out: path of the engine, None for beside the model
    precision: 'fp32', 'fp16', 'int8' or 'best'
    workspace_mib: limit of the builder's scratch memory
    calibration: 'scene', a folder of images or a bag, for INT8 without Q/DQ
    num_calib: how many images of it
    calibrator: 'entropy' or 'minmax', how TensorRT finds ranges in them
    timing_cache: file that keeps kernel timings between builds
    dla: core of the deep learning accelerator to use
    optimization_level: 0 (quick build) to 5 (thorough)
    typed: let the model's own types decide (only choice from TensorRT 11 on)
    strict: forbid TensorRT to choose another precision for a layer
    nms: 'none', or let the engine end in the NMS 'plugin' or 'layer'
    nms_score, nms_iou: thresholds of that NMS
    float_input: let the engine of a Q/DQ model quantize the image itself
    plugins: libraries of the user's own TensorRT plugins
    verify_images: source of the images to verify on, as `calibration`
    reference: file of ONNX Runtime results for machines without it (engine.verify)
    """

    onnx: str
    profile: str = profiles.AUTO
    out: Optional[str] = None
    precision: Optional[str] = None
    workspace_mib: Optional[int] = None
    batch: Optional[int] = None
    calibration: Optional[str] = None
    num_calib: int = DEFAULT_CALIBRATION_IMAGES
    calibrator: str = 'entropy'
    timing_cache: Optional[str] = None
    dla: Optional[int] = None
    optimization_level: Optional[int] = None
    tactic_sources: Tuple[str, ...] = ()
    typed: bool = False
    strict: bool = False
    nms: str = 'none'
    nms_score: float = 0.05
    nms_iou: float = 0.7
    float_input: bool = False
    plugins: Tuple[str, ...] = ()
    verify_images: str = 'scene'
    reference: Optional[str] = None
    device: int = 0

    def command(self) -> List[str]:
        """Return the arguments of `yolojet` that say the same."""
        words = ['engine', 'build']
        for name, default in _OPTION_DEFAULTS.items():
            value = getattr(self, name)
            option = '--' + _OPTION_NAMES.get(name, name.replace('_', '-'))
            if value == default:
                continue
            if isinstance(value, bool):
                words.append(option)
            elif isinstance(value, tuple):
                for item in value:
                    words += [option, str(item)]
            else:
                words += [option, str(value)]
        return words


_OPTION_DEFAULTS: Dict[str, Any] = {
    name: item.default for name, item in Options.__dataclass_fields__.items()}
_OPTION_NAMES = {
    'workspace_mib': 'workspace', 'calibration': 'calib', 'tactic_sources': 'tactic-source',
    'plugins': 'plugin'}


@dataclass(frozen=True)
class BuildPlan:
    """
    A resolved build; the names are those of TensorRT's Python API.

    fallback: whether FP16 may replace INT8 where INT8 cannot be had
    quantized: whether the model carries Q/DQ, as far as it is known (`for_model`)
    """

    options: Options
    profile: Profile
    out: str
    precision: str
    fallback: bool
    workspace_bytes: int
    batch: int
    optimization_level: Optional[int]
    tactic_sources: Tuple[str, ...]
    quantized: bool = False

    @property
    def dynamic_batch(self) -> bool:
        """Return whether a model that leaves the batch open takes 1 to `batch` images."""
        return self.batch > 1 and self.options.nms == 'none' and self.options.dla is None

    @property
    def int8_input(self) -> bool:
        """Return whether the engine of a Q/DQ model takes the image in INT8, where it may."""
        options = self.options
        return self.quantized and options.dla is None and not (
            options.typed or options.float_input)

    def as_dict(self) -> Dict[str, Any]:
        """Return the plan for --dry-run, with the flags that the profile's TensorRT takes."""
        has = _expected_surface(self.profile)
        weak = self.profile.weakly_typed and not self.options.typed
        return {
            'profile': self.profile.name, 'onnx': self.options.onnx, 'engine': self.out,
            'precision': self.precision, 'fallback_to_fp16': self.fallback,
            'quantized': self.quantized, 'int8_input': self.int8_input and weak,
            'workspace_bytes': self.workspace_bytes, 'batch': self.batch,
            'builder_flags': builder_flags(self, self.precision, weak, has),
            'network_flags': network_flags(weak, self.profile.weakly_typed, has),
            'expected_tensorrt': self.profile.tensorrt,
            'compute_capability': self.profile.compute_capability,
            'dla_core': self.options.dla, 'optimization_level': self.optimization_level,
            'tactic_sources': list(self.tactic_sources), 'nms': self.options.nms,
            'plugins': list(self.options.plugins), 'calibration': self.options.calibration,
            'calibration_images': self.options.num_calib if self.options.calibration else 0,
            'calibrator': self.options.calibrator if self.options.calibration else None,
            'timing_cache': self.options.timing_cache, 'strict': self.options.strict,
            'typed': not weak, 'options': asdict(self.options)}


def resolve(options: Options) -> BuildPlan:
    """
    Return the plan for `options`.

    :raises UserError: if they contradict each other or the profile.
    """
    profile = profiles.load(options.profile)
    asked = options.precision or profile.precision
    if asked not in (*profiles.PRECISIONS, BEST):
        raise UserError(
            f'precision is "{asked}"; choose {", ".join(profiles.PRECISIONS)} or {BEST}')
    precision = profile.precisions[-1] if asked == BEST else asked
    if precision not in profile.precisions:
        raise UserError(
            f'{precision.upper()} is slow or absent on {profile.name} '
            f'({profile.description}); use --precision {profile.precision}')
    for name, value, least, most in (
            ('--workspace', options.workspace_mib, 1, 1 << 20),
            ('--batch', options.batch, 1, 4096), ('--num-calib', options.num_calib, 1, 10**6),
            ('--dla', options.dla, 0, 15), ('--device', options.device, 0, 63),
            ('--optimization-level', options.optimization_level, 0, 5),
            ('--nms-score', options.nms_score, 0, 1), ('--nms-iou', options.nms_iou, 0, 1)):
        if value is not None and not least <= value <= most:
            raise UserError(f'{name} is {value}; it must be {least} to {most}')
    try:
        profiles.check_tactic_sources(options.tactic_sources)
    except ValueError as error:
        raise UserError(f'--tactic-source: {error}') from error
    if options.dla is not None:
        if options.dla >= profile.dla_cores:
            raise UserError(
                f'--dla {options.dla}: {profile.name} has {profile.dla_cores} DLA cores'
                + ('; leave --dla out' if not profile.dla_cores else ', counted from 0'))
        if precision == 'fp32':
            raise UserError('a DLA core has no FP32; use --precision fp16 or int8 with --dla')
    if options.nms not in NMS_KINDS:
        raise UserError(f'--nms is "{options.nms}"; choose {", ".join(NMS_KINDS)}')
    if options.calibrator not in CALIBRATORS:
        raise UserError(
            f'--calibrator is "{options.calibrator}"; choose {", ".join(CALIBRATORS)}')
    out = options.out or str(Path(options.onnx).with_suffix('.engine'))
    for written in (out, options.timing_cache):
        if written is not None:
            refuse_same(Path(options.onnx), Path(written))
    level = options.optimization_level
    return BuildPlan(
        options=options, profile=profile,
        out=out,
        precision=precision, fallback=asked == BEST and precision == 'int8',
        workspace_bytes=(options.workspace_mib or profile.workspace_mib) << 20,
        batch=options.batch or profile.batch,
        optimization_level=profile.optimization_level if level is None else level,
        tactic_sources=options.tactic_sources or profile.tactic_sources)


def for_model(plan: BuildPlan, facts: ModelFacts) -> BuildPlan:
    """
    Return the plan for a model: one with Q/DQ can be built in INT8 only.

    :raises UserError: if another precision is asked for, or INT8 is slow or absent there.
    """
    if not facts.quantized:
        return plan
    asked, profile, onnx = plan.options.precision, plan.profile, plan.options.onnx
    if 'int8' not in profile.precisions:
        raise UserError(
            f'{onnx} is quantized (Q/DQ), but INT8 is slow or absent on {profile.name} '
            f'({profile.description}); give the model that it was made from')
    if asked not in (None, BEST, 'int8'):
        raise UserError(
            f'{onnx} is quantized (Q/DQ), which cannot be built in {asked.upper()}; use '
            '--precision int8, or give the model that it was made from')
    return replace(plan, precision='int8', fallback=False, quantized=True)


def check_files(options: Options) -> None:
    """
    Check that everything a build reads is there.

    :raises UserError: naming the first file or folder that is not.
    """
    sources = {
        '--onnx': options.onnx, '--reference': options.reference,
        '--calib': None if options.calibration == 'scene' else options.calibration,
        '--verify-images': None if options.verify_images == 'scene' else options.verify_images}
    for option, path in sources.items():
        if path is not None and not Path(path).exists():
            raise UserError(f'nothing is at {path}, which {option} names; give a path that exists')
    if not Path(options.onnx).is_file():
        raise UserError(f'{options.onnx} is not a file; give the path of an ONNX file')
    for plugin in options.plugins:
        # A bare name is looked for by the system's loader.
        if '/' in plugin and not Path(plugin).is_file():
            raise UserError(f'no library is at {plugin}, which --plugin names')


def builder_flags(
    plan: BuildPlan, precision: str, weak: bool, has: Callable[[str], bool],
) -> List[str]:
    """
    Return the names of the builder flags to set.

    :param precision: what is really built
    :param weak: whether precisions are chosen by flag
    :param has: whether trt.BuilderFlag has a name
    """
    flags = []
    if weak and precision in ('fp16', 'int8'):
        flags.append('FP16')
    if weak and precision == 'int8':
        flags.append('INT8')
    if weak and plan.options.strict:
        flags += [name for name in ('OBEY_PRECISION_CONSTRAINTS', 'STRICT_TYPES')
                  if has(name)][:1]
    if plan.options.dla is not None and has('GPU_FALLBACK'):
        flags.append('GPU_FALLBACK')
    return flags


def network_flags(weak: bool, choice: bool, has: Callable[[str], bool]) -> List[str]:
    """
    Return the names of the network flags to set.

    :param choice: whether this TensorRT can build both ways
    :param has: whether trt.NetworkDefinitionCreationFlag has a name
    """
    flags = ['EXPLICIT_BATCH'] if has('EXPLICIT_BATCH') else []
    if not weak and choice:
        flags.append('STRONGLY_TYPED')
    return flags


def _expected_surface(profile: Profile) -> Callable[[str], bool]:
    """Tell which flags exist where a profile says what to expect, but nothing is installed."""
    weak_only = ('EXPLICIT_BATCH', 'OBEY_PRECISION_CONSTRAINTS')
    return lambda name: profile.weakly_typed or name not in weak_only
