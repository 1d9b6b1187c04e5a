"""On a real GPU: builds that fail, batches, frames in flight, and compilers that refuse."""

import sys

import conv_model
import numpy as np
import pytest
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.engine import builder, plan, verify, workflow
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
from yolojet_ros.inference.tensorrt_network import import_tensorrt, make_logger

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device():
    try:
        device = Device()  # before TensorRT, which crashes without a driver
        import_tensorrt()
    except UserError as error:
        pytest.skip(str(error))
    yield device
    device.close()


def build(tmp_path, batch=1, dynamic=False):
    import cv2
    pictures = tmp_path / 'pictures'
    pictures.mkdir(exist_ok=True)
    for index in range(8):
        picture = np.random.default_rng(index).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f'{index}.png'), picture)
    onnx = conv_model.write(tmp_path, batch='batch' if dynamic else 1)
    asked = plan.Options(onnx, 'desktop', str(tmp_path / 'e.engine'), 'fp32', batch=batch,
                         optimization_level=0, verify_images=str(pictures))
    warnings = []
    workflow.build_engine(plan.resolve(asked), lambda line: None, warnings.append)
    return tmp_path / 'e.engine', onnx, warnings


def run_two_at_once(engine, onnx):
    expected, backend = OnnxRuntimeBackend(onnx), TensorRTBackend(engine, depth=2)
    selection = FilterParams().resolve(expected.card.names)
    rng = np.random.default_rng(1)
    views = [ImageView.from_bgr(rng.integers(0, 256, (70, 110, 3), dtype=np.uint8) // shade)
             for shade in (1, 3)]
    try:
        for _ in range(3):
            for view in views:
                backend.submit([view], [selection], [StageTimes()])
            for view in views:
                found, = backend.collect()
                wanted = expected.detect(view, selection, StageTimes())
                # TF32 moves the scores a little, and so a box across the threshold.
                assert abs(len(found) - len(wanted)) <= 1 and len(found)
        assert backend.warnings == []
    finally:
        backend.close()


def test_a_failed_verification_leaves_the_gpu_usable(tmp_path, monkeypatch):
    reference = verify.Reference.compute

    def spoilt(*args):
        found = reference(*args)
        return verify.Reference(found.onnx_sha256, found.inputs, [part + 50 for part in found.outputs])
    with monkeypatch.context() as patch:
        patch.setattr(verify.Reference, 'compute', spoilt)
        with pytest.raises(UserError, match='it is not installed'):
            build(tmp_path)
    engine, onnx, _ = build(tmp_path)
    run_two_at_once(engine, onnx)


def run_numbers(engine, onnx, most, depth):
    """Run 1 to `most` images at once in any order, each with a selection of its own."""
    expected, backend = OnnxRuntimeBackend(onnx), TensorRTBackend(engine, depth=depth)
    rng = np.random.default_rng(3)
    views = [ImageView.from_bgr(rng.integers(0, 256, (60 + 20 * index, 110, 3), dtype=np.uint8))
             for index in range(most)]
    chosen = [FilterParams(score_threshold=0.1 + 0.1 * index).resolve(expected.card.names)
              for index in range(most)]
    alone = [expected.detect(*image, StageTimes()) for image in zip(views, chosen)]
    waiting = []

    def collect():
        order, found = waiting.pop(0), backend.collect()
        for index, one in zip(order, found):
            # TF32 moves the scores a little, and so a box across the threshold.
            assert abs(len(one) - len(alone[index])) <= 1 and len(one)
            if len(one) == len(alone[index]):
                np.testing.assert_allclose(one.scores, alone[index].scores, atol=2e-3)
    try:
        for _ in range(40):
            order = rng.permutation(most)[:rng.integers(1, most + 1)]
            if len(waiting) == depth:
                collect()
            backend.submit([views[index] for index in order], [chosen[index] for index in order],
                           [StageTimes() for _ in order])
            waiting.append(order)
        while waiting:
            collect()
        assert backend.warnings == []
    finally:
        backend.close()


@pytest.mark.parametrize('dynamic', [True, False])
def test_a_batch_takes_one_to_many_images_in_both_slots(tmp_path, dynamic):
    engine, onnx, warnings = build(tmp_path, batch=3, dynamic=dynamic)
    assert not any('graph' in text for text in warnings)
    run_two_at_once(engine, onnx)
    run_numbers(engine, onnx, 3, 2)


def test_contexts_without_a_shared_profile_have_one_each(tmp_path, monkeypatch):
    """As before TensorRT 8.6."""
    monkeypatch.setattr(builder, '_share_profile', lambda trt, config: False)
    engine, onnx, _ = build(tmp_path, batch=3, dynamic=True)
    run_numbers(engine, onnx, 3, 2)


def test_a_foreign_engine_with_one_profile_runs_two_at_once_or_is_refused(device, tmp_path):
    trt = import_tensorrt()
    logger = make_logger(trt)
    onnx = conv_model.write(tmp_path, batch='batch')
    with device.current():
        builder = trt.Builder(logger)
        has_flag = hasattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH')
        network = builder.create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if has_flag else 0)
        assert trt.OnnxParser(network, logger).parse_from_file(onnx)
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        shape = (3, conv_model.SIZE[1], conv_model.SIZE[0])
        profile.set_shape('images', (1, *shape), (1, *shape), (2, *shape))
        config.add_optimization_profile(profile)
        if hasattr(config, 'set_memory_pool_limit'):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 28)
        else:
            config.max_workspace_size = 1 << 28
        engine = tmp_path / 'foreign.engine'
        engine.write_bytes(bytes(builder.build_serialized_network(network, config)))
        del network, config, profile, builder
    run_numbers(engine, onnx, 2, 1)
    if int(trt.__version__.split('.')[0]) >= 10:
        run_two_at_once(engine, onnx)
    else:
        with pytest.raises(UserError, match='pipeline_depth to 1'):
            TensorRTBackend(engine, depth=2)


def test_an_nvcc_that_refuses_gives_way_to_nvrtc(device, tmp_path, monkeypatch):
    if not any(kernels.nvrtc_libraries()):
        pytest.skip('NVRTC is not installed')
    nvcc = tmp_path / 'bin' / 'nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "nvcc fatal: Unsupported gpu architecture"; exit 1\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(tmp_path))
    binary = kernels.compile_source(device.capability)
    with device.current():
        assert device.module(binary).get_function('suppress')


def test_a_model_exported_again_runs_instead_of_its_old_engine(tmp_path):
    from yolojet_ros.inference.load import load_backend
    engine, onnx, _ = build(tmp_path)
    engine = engine.rename(tmp_path / 'float.engine')
    (tmp_path / 'e.engine.json').rename(tmp_path / 'float.engine.json')
    backend = load_backend(onnx)
    assert backend.name == 'tensorrt' and backend.warnings == []
    backend.close()
    with open(onnx, 'ab') as file:
        file.write(b'\x3a\x00')  # an empty graph to merge: the same model, other bytes
    backend = load_backend(onnx)
    assert backend.name == 'onnxruntime' and 'not built from float.onnx' in backend.warnings[0]
    backend.close()
    assert 'tensorrt' in sys.modules
