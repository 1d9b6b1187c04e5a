"""Builder and runtime on every TensorRT surface from 8.2 to 11.4: no name it lacks is touched."""

from dataclasses import replace
import itertools
import json
import sys

import conv_model
import host_device
import numpy as np
import onnx
import onnxruntime
import pytest
import trt_standin
from yolojet_ros.cli.main import main
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.head import raw_reading
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.engine import inspection, layers, plan, profiles, verify, workflow
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
from yolojet_ros.model.calibration_images import network_inputs

KINDS = ('float', 'qdq', 'half', 'qdq_half')
WEAK = [version for version in trt_standin.VERSIONS if not version.startswith('11')]
ONNX_RUNTIME = tuple(map(int, onnxruntime.__version__.split('.')[:2]))
TYPED_ONLY = ['11.0', '11.4']
CAN_BE_TYPED = [version for version in trt_standin.VERSIONS if version.startswith('1')]


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    return {kind: conv_model.write(folder, kind) for kind in KINDS}


@pytest.fixture(scope='module')
def images():
    """Return network inputs; the scene takes longer to draw than an engine to build here."""
    return network_inputs('scene', 8, ModelCard('x', ('a',), conv_model.SIZE, 32,
                                                raw_reading(126, 1)))


@pytest.fixture
def use(monkeypatch, library, images):
    """Return a function that installs one version and returns its stand-in."""
    host_device.install(monkeypatch, library)
    for module in (workflow, verify):
        monkeypatch.setattr(module, 'network_inputs', lambda source, count, card: images[:count])

    def install(version, **options):
        trt = trt_standin.make(version, **options)
        monkeypatch.setitem(sys.modules, 'tensorrt', trt)
        return trt
    return install


def build(tmp_path, onnx, **options):
    """Build with the profile that allows everything; return (card, warnings)."""
    options.setdefault('profile', 'jetson_agx_xavier')
    asked = plan.Options(onnx, out=str(tmp_path / 'e.engine'), **options)
    warnings = []
    card = workflow.build_engine(plan.resolve(asked), lambda line: None, warnings.append)
    return card, warnings


def expected_flags(version, precision, typed, dla):
    if typed:
        flags = set()
    else:
        flags = {'fp32': set(), 'fp16': {'FP16'}, 'int8': {'FP16', 'INT8'}}[precision]
    return flags | ({'GPU_FALLBACK'} if dla else set())


def refusal(version, precision, kind, calibrated, typed, dla):
    """Return a word of the refusal that is right for a combination, None if it can be built."""
    if dla and precision == 'fp32':
        return 'DLA'
    quantized, half = kind.startswith('qdq'), kind.endswith('half')
    if quantized and precision != 'int8':
        return f'Q/DQ.*cannot be built in {precision.upper()}'
    if precision == 'int8' and not quantized and (typed or not calibrated):
        return 'Q/DQ'
    if typed and precision == 'fp16' and not half:
        return 'FP16'
    if precision == 'fp32' and typed and half:
        return 'FP32'
    return None


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_every_combination_is_built_right_or_refused(version, kind, use, models, tmp_path):
    if kind == 'qdq_half' and ONNX_RUNTIME < (1, 15):
        pytest.skip('Q/DQ in FP16 needs opset 19, which ONNX Runtime reads from 1.15 on')
    # Where there is no choice, asking for types changes nothing that is worth a second look.
    asked = (False, True) if version in WEAK and version in CAN_BE_TYPED else (False,)
    for precision, calibrated, typed_wanted, dla in itertools.product(
            ('fp32', 'fp16', 'int8'), (False, True), asked, (None, 1)):
        trt = use(version, dla_cores=2)
        typed = typed_wanted or version in TYPED_ONLY
        options = {'precision': precision, 'typed': typed_wanted, 'dla': dla}
        if calibrated:
            options.update(calibration='scene', num_calib=2)
        case = (precision, kind, calibrated, typed, dla)
        word = refusal(version, precision, kind, calibrated, typed, dla)
        if word is not None:
            with pytest.raises(UserError, match=word):
                build(tmp_path, models[kind], **options)
            continue
        card, _ = build(tmp_path, models[kind], **options)
        config, network = trt.made.configs[-1], trt.made.networks[-1]
        assert {flag.name for flag in config._flags} == expected_flags(
            version, precision, typed, dla is not None), case
        assert ('EXPLICIT_BATCH' in network._flags) == (version in WEAK), case
        assert ('STRONGLY_TYPED' in network._flags) == (typed and version in WEAK), case
        assert config._workspace == 1024 << 20
        assert config._core == dla
        used = ('calibrated', 2) in trt.made.calls
        assert used == (precision == 'int8' and calibrated and not kind.startswith('qdq')), case
        assert card.precision == precision and card.verification['passed'], case


@pytest.mark.parametrize('version', ['8.2', '8.6', '10.3', '11.0'])
@pytest.mark.parametrize('precision', [None, 'best'])
@pytest.mark.parametrize('more', [{}, {'float_input': True}, {'dla': 0}])
def test_a_quantized_model_is_built_as_the_dry_run_says(
        version, precision, more, use, models, tmp_path, capsys):
    trt, profile = use(version, dla_cores=2), 'jetson_agx_xavier' if more else 'jetson_orin_nano'
    assert profiles.load(profile).precision == 'fp16'
    words = [f'--{name.replace("_", "-")}' + ('' if value is True else f'={value}')
             for name, value in {'precision': precision, **more}.items() if value is not None]
    assert main(['engine', 'build', '--onnx', models['qdq'], '--profile', profile,
                 '--dry-run', '--json', *words]) == 0
    told = json.loads(capsys.readouterr().out)
    card, _ = build(
        tmp_path, models['qdq'], profile=profile, precision=precision, **more)
    assert told['quantized'] and told['precision'] == card.precision == 'int8'
    assert told['fallback_to_fp16'] is False and told['int8_input'] == (not more)
    if version in WEAK:  # what that profile expects
        assert {flag.name for flag in trt.made.configs[-1]._flags} == set(told['builder_flags'])
        assert card.tensors[0].dtype == ('int8' if told['int8_input'] else 'float32')


@pytest.mark.parametrize('profile, precision, word', [
    ('jetson_nano', None, 'slow or absent on jetson_nano'),
    ('desktop', 'fp16', 'cannot be built in FP16'), ('desktop', 'fp32', 'cannot be built in FP32')])
def test_a_quantized_model_is_refused_by_the_dry_run_as_by_the_build(
        profile, precision, word, use, models, tmp_path, capsys):
    use('8.2')
    with pytest.raises(UserError, match=word) as error:
        build(tmp_path, models['qdq'], profile=profile, precision=precision)
    assert main(['engine', 'build', '--onnx', models['qdq'], '--profile', profile, '--dry-run',
                 *(['--precision', precision] if precision else [])]) == 2
    assert str(error.value) in capsys.readouterr().err


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_an_int8_engine_takes_the_image_in_int8(version, batch, use, models, tmp_path):
    use(version)
    card, warnings = build(tmp_path, models['qdq'], precision='int8', batch=batch)
    typed = version in TYPED_ONLY
    assert card.tensors[0].dtype == ('float32' if typed else 'int8')
    assert ('input_step' in card.metadata) != typed
    assert card.verification['largest_score_error'] < 1e-6, 'verified on other images'
    assert not any('refused' in text for text in warnings)
    view = ImageView.from_bgr(np.random.default_rng(5).integers(0, 256, (70, 110, 3), np.uint8))
    backend, expected = TensorRTBackend(tmp_path / 'e.engine'), OnnxRuntimeBackend(models['qdq'])
    selection = FilterParams().resolve(backend.card.names)
    wanted = expected.detect(view, selection, StageTimes())
    check(backend.detect(view, selection, StageTimes()), wanted)
    backend.close()
    with inspection.opened(tmp_path / 'e.engine') as opened:
        verdict = inspection.verify_engine(opened, None, 'scene', 2, None)
    assert verdict.passed and verdict.largest_score_error < 1e-6


def test_the_image_stays_float_where_int8_is_refused_or_not_wanted(use, models, tmp_path):
    use('8.6', refuses_int8_input=True)
    card, warnings = build(tmp_path, models['qdq'], precision='int8')
    assert card.tensors[0].dtype == 'float32' and card.verification['passed']
    (told,) = [text for text in warnings if 'float image' in text]
    assert 'INT8 inputs are not supported' in told
    for options in ({'float_input': True}, {'dla': 1}):
        use('8.6', dla_cores=2)
        card, warnings = build(tmp_path, models['qdq'], precision='int8', **options)
        assert card.tensors[0].dtype == 'float32' and not any('INT8' in w for w in warnings)


def test_an_int8_image_without_its_step_is_refused(use, models, tmp_path):
    use('8.6')
    card, _ = build(tmp_path, models['qdq'], precision='int8')
    EngineCard.path(tmp_path / 'e.engine').unlink()
    with pytest.raises(UserError, match='keep the .json file beside the engine'):
        TensorRTBackend(tmp_path / 'e.engine')
    for step in ('nan', '0', 'x'):
        replace(card, metadata={**card.metadata, 'input_step': step}).save(tmp_path / 'e.engine')
        with pytest.raises(UserError, match='step'):
            TensorRTBackend(tmp_path / 'e.engine')


@pytest.mark.parametrize('method', ['entropy', 'minmax'])
def test_the_calibrator_that_was_asked_for_finds_the_ranges(method, use, models, tmp_path):
    trt = use('8.6')
    build(tmp_path, models['float'], precision='int8', calibration='scene', num_calib=2,
          calibrator=method)
    used = trt.made.configs[-1]._calibrator
    assert isinstance(used, trt.IInt8MinMaxCalibrator) == (method == 'minmax')
    (cache,) = tmp_path.glob('*.calibration')
    assert cache.stem.endswith(method)
    with pytest.raises(UserError, match='choose entropy, minmax'):
        build(tmp_path, models['float'], precision='int8', calibration='scene', num_calib=2,
              calibrator='median')


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_runtime_finds_what_onnx_runtime_finds(version, use, models, tmp_path):
    use(version)
    kind = 'half' if version in TYPED_ONLY else 'float'
    build(tmp_path, models[kind], precision='fp16')
    rng = np.random.default_rng(1)
    views = [ImageView.from_bgr(rng.integers(0, 256, (70, 110, 3), dtype=np.uint8) // shade)
             for shade in (1, 3)]
    expected = OnnxRuntimeBackend(models[kind])
    for depth in (1, 2):
        backend = TensorRTBackend(tmp_path / 'e.engine', depth=depth)
        selection = FilterParams().resolve(backend.card.names)
        assert backend.card.names == conv_model.NAMES
        for view in views:
            backend.submit([view], [selection], [StageTimes()])
            if depth == 1:
                check(backend.collect()[0], expected.detect(view, selection, StageTimes()))
        for view in views if depth == 2 else ():
            check(backend.collect()[0], expected.detect(view, selection, StageTimes()))
        backend.close()


def check(found, wanted):
    assert len(found) == len(wanted) > 0
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    assert np.array_equal(found.classes, wanted.classes)


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_options_touch_only_what_exists(version, use, models, tmp_path):
    trt = use(version)
    cache = tmp_path / 'timings'
    cache.write_bytes(b'foreign')
    kind = 'half' if version in TYPED_ONLY else 'float'
    card, warnings = build(
        tmp_path, models[kind], precision='fp16', strict=True, timing_cache=str(cache),
        optimization_level=2, tactic_sources=('CUBLAS', 'JIT_CONVOLUTIONS'))
    config = trt.made.configs[-1]
    has_level = trt._surface.has('IBuilderConfig', 'builder_optimization_level')
    assert config._level == (2 if has_level else None)
    assert any('optimization level' in text for text in warnings) != has_level
    absent = [name for name in ('CUBLAS', 'JIT_CONVOLUTIONS')
              if not hasattr(trt.TacticSource, name)]
    told = [text for text in warnings if 'has no tactic source' in text]
    assert len(told) == bool(absent) and all(name in told[0] for name in absent)
    assert cache.read_bytes() == b'timings'
    assert any('another TensorRT' in text for text in warnings)
    names = {flag.name for flag in config._flags}
    assert ('OBEY_PRECISION_CONSTRAINTS' in names) == (version in WEAK)
    half = trt.DataType.HALF
    assert (trt.made.networks[-1]._layers[0]._precision is half) == (version in WEAK)
    assert card.other_precision == ['first \x01 conv (fp32)']


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
@pytest.mark.parametrize('nms', ['plugin', 'layer'])
def test_nms_is_added_with_the_calls_of_the_version(version, nms, use, models, tmp_path):
    trt = use(version)
    kind = 'half' if version in TYPED_ONLY else 'float'
    if nms == 'layer' and not trt._surface.has('INetworkDefinition', 'add_nms'):
        with pytest.raises(UserError, match='--nms plugin'):
            build(tmp_path, models[kind], precision='fp16', nms=nms)
        return
    build(tmp_path, models[kind], precision='fp16', nms=nms)
    assert trt.made.networks[-1]._outputs == ['detections']


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_layers_can_be_read(version, use, models, tmp_path):
    use(version)
    kind = 'half' if version in TYPED_ONLY else 'float'
    build(tmp_path, models[kind], precision='fp16')
    backend = TensorRTBackend(tmp_path / 'e.engine')
    found = layers.inspect(backend.network)
    assert [(layer.kind, layer.precision) for layer in found] == [('CaskConvolution', 'fp32')]
    backend.close()


def test_types_need_a_version_that_has_them(use, models, tmp_path):
    use('8.6')
    with pytest.raises(UserError, match='strongly typed'):
        build(tmp_path, models['half'], precision='fp16', typed=True)


def test_best_falls_back_to_fp16_with_a_warning(use, models, tmp_path):
    use('8.6')
    options = {'precision': 'best', 'profile': 'jetson_agx_orin'}
    card, warnings = build(tmp_path, models['float'], **options)
    assert card.precision == 'fp16' and 'FP16 instead of INT8' in warnings[0]
    card, warnings = build(tmp_path, models['qdq'], **options)
    assert card.precision == 'int8' and not warnings


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
@pytest.mark.parametrize('batch', [1, 4])
def test_a_dynamic_batch_takes_one_to_many_images_in_both_slots(version, batch, use, tmp_path):
    trt = use(version)
    kind = 'half' if version in TYPED_ONLY else 'float'
    onnx = conv_model.write(tmp_path, kind, batch='batch')
    card, _ = build(tmp_path, onnx, precision='fp16', batch=batch)
    shares = version.startswith('1') or version == '8.6'
    assert trt.made.configs[-1]._profiles == (
        [] if batch == 1 else [[1, 4, 4]] * (1 if shares else 8))
    assert trt.made.configs[-1]._previews == (
        ['PROFILE_SHARING_0806'] if batch > 1 and version == '8.6' else [])
    assert card.batch == batch
    run_both_slots(tmp_path / 'e.engine', onnx)
    run_all_numbers(tmp_path / 'e.engine', onnx, batch)


@pytest.mark.parametrize('version', ['8.2', '8.6', '10.3'])
def test_where_sizes_must_be_known_the_batch_is_fixed(version, use, tmp_path):
    trt = use(version, dla_cores=2)
    onnx = conv_model.write(tmp_path, 'float', batch='batch')
    for options in ({'nms': 'plugin'}, {'dla': 0, 'precision': 'fp16'}):
        build(tmp_path, onnx, batch=2, **options)
        assert trt.made.configs[-1]._profiles == []
        backend = TensorRTBackend(tmp_path / 'e.engine')
        assert (backend.places, backend.max_batch) == (2, 2)
        backend.close()


def run_all_numbers(engine, onnx, most):
    """Run 1 to `most` images in a run, all of one image's results bit by bit the same."""
    rng = np.random.default_rng(2)
    views = [ImageView.from_bgr(rng.integers(0, 256, (60 + index, 110, 3), dtype=np.uint8))
             for index in range(most)]
    expected = OnnxRuntimeBackend(onnx)
    backend = TensorRTBackend(engine, depth=2)
    try:
        selection = FilterParams().resolve(expected.card.names)
        alone = [expected.detect(view, selection, StageTimes()) for view in views]
        order = [*range(1, most + 1), *range(most, 0, -1)]
        for count in order:
            for start in (0, most - count):
                backend.submit(views[start:start + count], [selection] * count,
                               [StageTimes() for _ in range(count)])
            for start in (0, most - count):
                found = backend.collect()
                assert len(found) == count
                for one, wanted in zip(found, alone[start:]):
                    check(one, wanted)
    finally:
        backend.close()


def run_both_slots(engine, onnx):
    """Run an engine with two frames in flight, and compare them with ONNX Runtime."""
    rng = np.random.default_rng(1)
    views = [ImageView.from_bgr(rng.integers(0, 256, (70, 110, 3), dtype=np.uint8) // shade)
             for shade in (1, 3)]
    expected = OnnxRuntimeBackend(onnx)
    backend = TensorRTBackend(engine, depth=2)
    try:
        selection = FilterParams().resolve(expected.card.names)
        for _ in range(2):
            for view in views:
                backend.submit([view], [selection], [StageTimes()])
            for view in views:
                check(backend.collect()[0], expected.detect(view, selection, StageTimes()))
    finally:
        backend.close()


def foreign(tmp_path, profiles, **options):
    """Write an engine of a dynamic batch that another tool built."""
    path = tmp_path / 'foreign.engine'
    model = onnx.load(conv_model.write(tmp_path, 'float', batch='batch'))
    path.write_bytes(trt_standin.engine(model, profiles, **options))
    return path


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
@pytest.mark.parametrize('profiles, sharing', [
    ([(1, 1, 2)], False), ([(1, 1, 2)], True), ([(1, 1, 2), (1, 1, 2)], False),
    ([(1, 1, 2), (4, 4, 8), (1, 1, 2)], False), ([(1, 1, 2), (4, 4, 8)], False)])
def test_foreign_engines_get_a_profile_for_each_slot_or_are_refused_at_once(
        version, profiles, sharing, use, tmp_path):
    use(version)
    path = foreign(tmp_path, profiles, sharing=sharing)
    model = str(tmp_path / 'float.onnx')
    # 8.6 does not tell whether a profile may be shared, and crashes where it may not.
    enough = profiles.count((1, 1, 2)) > 1 or version.startswith('1')
    if enough:
        run_both_slots(path, model)
    else:
        with pytest.raises(UserError, match='pipeline_depth to 1.*yolojet engine build'):
            TensorRTBackend(path, depth=2)
    backend = TensorRTBackend(path)
    selection = FilterParams().resolve(backend.card.names)
    assert backend.card.batch == 2
    backend.submit([ImageView.from_bgr(np.zeros((70, 110, 3), np.uint8))] * 2, [selection] * 2,
                   [StageTimes(), StageTimes()])
    assert len(backend.collect()) == 2
    backend.close()
    with inspection.opened(path) as opened:
        assert len(opened.session.run_all(np.zeros((3, 3, 64, 96), np.float32))[0]) == 3


@pytest.mark.parametrize('version', trt_standin.VERSIONS)
def test_a_batch_fixed_to_one_is_opened(version, use, tmp_path):
    use(version)
    onnx = conv_model.write(tmp_path, 'half' if version in TYPED_ONLY else 'float')
    card, warnings = build(tmp_path, onnx, precision='fp16', batch=3)
    assert card.batch == 3 and any('fixed batch of 1, which is opened' in text
                                   for text in warnings)
    run_all_numbers(tmp_path / 'e.engine', onnx, 3)


def test_another_fixed_batch_is_built_as_it_is(use, tmp_path):
    use('8.5')
    onnx = conv_model.write(tmp_path, 'float', batch=2)
    assert build(tmp_path, onnx, precision='fp16', batch=2)[0].batch == 2


def mixing(tmp_path):
    """Write a model of one image that would add up several of them."""
    model = onnx.load(conv_model.write(tmp_path, 'float'))
    pool = next(node for node in model.graph.node if node.name == 'pool')
    model.graph.node.insert(list(model.graph.node).index(pool), onnx.helper.make_node(
        'ReduceSum', ['a', 'first'], ['all'], 'all', keepdims=1))
    pool.input[0] = 'all'
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([0], np.int64), 'first'))
    onnx.save(model, str(tmp_path / 'mixing.onnx'))
    return str(tmp_path / 'mixing.onnx')


@pytest.mark.parametrize('write, batch, text', [
    (lambda folder: conv_model.write(folder, 'float', batch=4), None,
     'fixed batch of 4, not 1; export it with a dynamic batch, or use --batch 4'),
    (lambda folder: conv_model.write(folder, 'qdq', batch=4), 2, 'fixed batch of 4, not 2;'),
    (mixing, 4, 'gives something else for two images at once')])
def test_a_batch_that_cannot_be_is_refused_by_the_plan_and_the_build(
        write, batch, text, use, tmp_path, capsys):
    trt, path = use('8.5'), write(tmp_path)
    with pytest.raises(UserError, match=text) as error:
        build(tmp_path, path, batch=batch)
    assert not trt.made.networks
    command = ['engine', 'build', '--onnx', path, '--profile', 'jetson_agx_xavier', '--dry-run']
    assert main(command + (['--batch', str(batch)] if batch else [])) == 2
    found = capsys.readouterr()
    assert str(error.value) in found.err and found.err.count('\n') == 1 and not found.out


def test_the_plan_tells_that_a_batch_is_opened(tmp_path, capsys):
    path = conv_model.write(tmp_path, 'float')
    command = ['engine', 'build', '--onnx', path, '--profile', 'desktop', '--dry-run', '--json']
    assert main([*command, '--batch', '4']) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)['batch'] == 4 and 'is opened for --batch 4' in found.err


@pytest.mark.parametrize('version', ['8.2', '8.6', '11.4'])
@pytest.mark.parametrize('batch, shape', [
    (1, [1, 'rows', 6]), (1, ['rows', 6]), ('batch', ['batch', 'rows', 6])])
def test_an_output_whose_size_depends_on_the_image_is_refused(
        version, batch, shape, use, tmp_path):
    use(version)
    model = onnx.load(conv_model.write(tmp_path, 'float', batch=batch))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(
        'output0', onnx.TensorProto.FLOAT, shape))
    path = tmp_path / 'foreign.engine'
    path.write_bytes(trt_standin.engine(model, [(1, 1, 2)] if batch != 1 else []))
    with pytest.raises(UserError, match=r'output0 of shape .*-1.*fixed') as error:
        TensorRTBackend(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('version', ['8.2', '11.4'])
def test_an_input_of_dynamic_size_is_refused(version, use, tmp_path):
    use(version)
    model = conv_model.build('batch')
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
        dim.dim_param = 'size'
    path = tmp_path / 'foreign.engine'
    path.write_bytes(trt_standin.engine(model, [(1, 1, 2)]))
    with pytest.raises(UserError, match=r'images of shape \[-1, 3, -1, -1\]'):
        TensorRTBackend(path)


def test_parser_errors_are_all_told(use, tmp_path, models):
    use('10.3')
    model = onnx.load(models['float'])
    for index in range(2):
        model.graph.node.append(
            onnx.helper.make_node('NonZero', ['c'], [f'nz{index}'], f'n{index}'))
    path = tmp_path / 'odd.onnx'
    onnx.save(model, str(path))
    with pytest.raises(UserError, match='node 8 .NonZero.: not supported; node 9'):
        build(tmp_path, str(path), precision='fp16')


def test_a_failed_build_leaves_nothing_behind(use, models, tmp_path, monkeypatch):
    use('8.6')
    folder = tmp_path / 'out'
    monkeypatch.setattr(
        'yolojet_ros.inference.tensorrt_session.Session.run_all',
        lambda self, images: np.full((len(images), 7, 126), np.nan, np.float32))
    with pytest.raises(UserError, match='not installed'):
        build(folder, models['float'], precision='fp16')
    assert host_device.HostDevice.left_open == []
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize('method', [
    'Runtime.deserialize_cuda_engine', 'ICudaEngine.create_execution_context',
    'IExecutionContext.execute_async_v3', 'OnnxParser.parse_from_file',
    'Builder.build_serialized_network', 'EngineInspector.get_engine_information'])
def test_whatever_fails_in_a_build_all_is_freed_before_the_context(
        method, use, models, tmp_path, monkeypatch):
    trt = use('8.6')
    name, method = method.split('.')
    stand_in = {**trt_standin._PRIVATE, **trt_standin._CLASSES}[name]

    def fail(self, *args):
        raise _Unexpected('of the test')
    monkeypatch.setattr(stand_in, method, fail)
    with pytest.raises(_Unexpected):
        build(tmp_path, models['float'], precision='fp16')
    assert host_device.HostDevice.left_open == [] and not (tmp_path / 'e.engine').exists()
    monkeypatch.undo()
    assert trt


class _Unexpected(Exception):
    pass


def test_a_build_says_that_its_engine_cannot_be_recorded(use, models, tmp_path, monkeypatch):
    use('8.6')

    class NoGraph:
        def __init__(self, stream, work):
            raise BackendError('could not record a CUDA graph: CUDA_ERROR_STREAM (900)')
    monkeypatch.setattr('yolojet_ros.inference.tensorrt_session.Graph', NoGraph)
    _, warnings = build(tmp_path, models['float'], precision='fp16')
    assert 'without a CUDA graph' in warnings[-1] and 'CUDA_ERROR_STREAM (900)' in warnings[-1]


def test_another_version_is_told_with_the_command_that_rebuilds(use, models, tmp_path):
    use('8.6')
    build(tmp_path, models['float'], precision='fp16')
    use('10.3')
    with pytest.raises(UserError) as error:
        TensorRTBackend(tmp_path / 'e.engine')
    text = str(error.value)
    assert 'TensorRT 8.6.1' in text and 'TensorRT 10.3.0' in text
    assert EngineCard.load(tmp_path / 'e.engine').rebuild_command in text
    assert '--profile jetson_agx_xavier --out' in text and '--precision fp16' in text
