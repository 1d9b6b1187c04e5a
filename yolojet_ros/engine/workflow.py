"""From a plan to an installed engine: check, build, verify, measure, write the card."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np

from yolojet_ros.core.engine_card import EngineCard, sha256, TensorFacts
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.model_card import STEP_KEY
from yolojet_ros.engine import builder, calibration, layers, memory, model_facts, verify
from yolojet_ros.engine.model_facts import ModelFacts
from yolojet_ros.engine.plan import BuildPlan, for_model
from yolojet_ros.engine.progress import Progress
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.tensorrt_backend import read_card
from yolojet_ros.inference.tensorrt_network import import_tensorrt, load_plugins, Network
from yolojet_ros.inference.tensorrt_session import Session
from yolojet_ros.model.calibration_images import network_inputs

Report = Callable[[str], None]
_L4T = Path('/etc/nv_tegra_release')


def build_engine(plan: BuildPlan, report: Report, warn: Report) -> EngineCard:
    """
    Build, verify and install an engine with its card; nothing is left behind on failure.

    :param report: gets progress, one line at a time, also from another thread
    :param warn: gets what the user should know
    :raises UserError: in one sentence, why there is no engine.
    """
    facts = model_facts.read(plan.options.onnx)
    plan = for_model(plan, facts)
    device = Device(plan.options.device)  # before TensorRT, which crashes without a driver
    try:
        with _as_user_error(), device.current():
            return _build_on(device, plan, facts, report, warn)
    finally:
        device.close()


def _build_on(
    device: Device, plan: BuildPlan, facts: ModelFacts, report: Report, warn: Report,
) -> EngineCard:
    trt = import_tensorrt()
    load_plugins(plan.options.plugins)
    memory.check(device, plan.workspace_bytes, facts.nbytes)
    _compare_device(plan, device, warn)
    with Progress(report) as progress:
        calibrator, digest = _calibrator(trt, device, plan, facts, progress)
        try:
            built = builder.build(trt, plan, facts, progress, warn, calibrator)
        finally:
            if calibrator is not None:
                calibrator.free()
        _check_unchanged(plan, facts)
        progress.phase('verifying')
        metadata = dict(facts.metadata)
        if built.input_step is not None:
            metadata[STEP_KEY] = repr(built.input_step)
        with closing(Network(
                built.engine, Path(plan.out).name, built.shared_profile)) as network:
            heads, card = read_card(network, metadata)
            with closing(Session(device, network, heads)) as session:
                verdict = _verify(session, plan, facts, card, built.precision, warn)
                latency = session.latency_ms()
                if session.obstacle is not None:
                    warn(f'the engine runs without a CUDA graph, which takes longer: '
                         f'{session.obstacle}')
            found = _engine_facts(network, device, built)
        seconds = progress.elapsed
    _check_unchanged(plan, facts)
    with atomic_path(plan.out) as temporary:
        temporary.write_bytes(built.engine)
        result = EngineCard(
            engine_sha256=sha256(temporary), onnx=plan.options.onnx, onnx_sha256=facts.sha256,
            metadata=metadata, l4t=l4t_release(), precision=built.precision,
            profile=plan.profile.name, workspace_bytes=built.workspace_bytes, batch=plan.batch,
            command=plan.options.command(), plugins=list(plan.options.plugins),
            calibration_sha256=digest, build_seconds=round(seconds, 1),
            built_at=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            verification=verdict, latency_ms=latency, **found)
        result.save(plan.out)
    return result


def _check_unchanged(plan: BuildPlan, facts: ModelFacts) -> None:
    """:raises UserError: if another model lies where the one lay that is built."""
    if not Path(plan.options.onnx).is_file() or sha256(plan.options.onnx) != facts.sha256:
        raise UserError(f'{plan.options.onnx} was replaced or removed while its engine was built; '
                        'build again')


def _engine_facts(network: Network, device: Device, built: builder.Built) -> Dict[str, Any]:
    """Return what the card says of the engine itself and of where it was built."""
    return {
        'tensors': [TensorFacts(tensor.name, tensor.is_input, tensor.dtype.name,
                                list(tensor.shape)) for tensor in network.tensors],
        'tensorrt': network.trt.__version__, 'gpu': device.name,
        'compute_capability': '.'.join(str(number) for number in device.capability),
        'driver': str(device.driver_version), 'device_memory_bytes': network.device_memory,
        'shared_profile': built.shared_profile,
        'other_precision': layers.other_precision(layers.inspect(network), built.precision)}


def l4t_release(path: Path = _L4T) -> Optional[str]:
    """Return the release of Jetson Linux, e.g. 'R35 (release), REVISION: 4.1'."""
    try:
        return ','.join(path.read_text().lstrip('# ').split(',')[:2])
    except OSError:
        return None


def _calibrator(trt, device: Device, plan: BuildPlan, facts: ModelFacts, progress: Progress):
    """Return (calibrator, hash of its data) where INT8 needs one and it can be had."""
    if plan.precision != 'int8' or facts.quantized or plan.options.calibration is None \
            or not hasattr(trt, 'IInt8EntropyCalibrator2'):
        return None, None
    progress.phase(f'reading {plan.options.num_calib} calibration images')
    tensors: List[np.ndarray] = network_inputs(
        plan.options.calibration, plan.options.num_calib, facts.card)
    digest = calibration.data_hash(tensors)
    method = plan.options.calibrator
    cache = calibration.cache_path(plan.out, facts.sha256, digest, method)
    return calibration.make_calibrator(
        trt, device, tensors, plan.batch, cache, method), digest


def _verify(session: Session, plan: BuildPlan, facts: ModelFacts, card, precision: str,
            warn: Report) -> dict:
    try:
        reference = verify.reference_for(
            plan.options.onnx, facts.sha256, facts.card, plan.options.verify_images,
            plan.options.reference)
    except UserError as error:
        if plan.options.reference is not None:
            raise
        warn(f'the engine is not verified: {error}')
        return {'skipped': str(error)}
    verdict = verify.verify(session, reference, facts.card, card, precision)
    if not verdict.passed:
        raise UserError(
            f'the engine was built but {verdict.sentence()}; it is not installed. Try another '
            '--precision, or other calibration images')
    return verdict.as_dict()


def _compare_device(plan: BuildPlan, device: Device, warn: Report) -> None:
    expected = plan.profile.compute_capability
    found = '.'.join(str(number) for number in device.capability)
    if expected is not None and expected != found:
        warn(f'profile {plan.profile.name} is for compute capability {expected}, and '
             f'{device.name} has {found}: the engine will run on GPUs like this one only')


@contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except BackendError as error:
        raise UserError(str(error)) from error
