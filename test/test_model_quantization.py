"""INT8 and FP16: the form of the file, ranges, and sources that are refused."""

from __future__ import annotations

import cv2
from hypothesis import given, settings, strategies
import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip('torch')

from model_samples import exported, SIZE, stills  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.core.image_formats import ImageView  # noqa: E402
from yolojet_ros.core.letterbox import Letterboxer  # noqa: E402
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend  # noqa: E402
from yolojet_ros.model import (  # noqa: E402
    calibration, onnx_file, onnx_graph, quantization)
from yolojet_ros.model.calibration import calibrate, MagnitudeHistogram  # noqa: E402
from yolojet_ros.model.calibration_images import network_inputs  # noqa: E402
from yolojet_ros.model.fp16 import to_fp16  # noqa: E402
from yolojet_ros.model.sensitivity import layer_costs  # noqa: E402


def _model(opset: int = 17) -> onnx.ModelProto:
    return onnx.load_model_from_string(exported(opset))


def _inputs(count: int = 2):
    letterboxer = Letterboxer(SIZE)
    return [letterboxer(ImageView.from_bgr(s.image))[0].copy() for s in stills(4)[:count]]


def _run(model: onnx.ModelProto, tensor: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': tensor})[0]


def _quantized(opset: int = 17, method: str = 'minmax', keep=()) -> onnx.ModelProto:
    model = quantization.prepare(_model(opset), 'm')
    tensors = quantization.calibrated(model, quantization.quantizable(model))
    thresholds = calibrate(model, tensors, _inputs(), method)
    return quantization.quantize(model, thresholds, method, keep)


@pytest.mark.parametrize('opset', [13, 17])
@pytest.mark.parametrize('method', calibration.METHODS)
def test_quantized_model_has_the_form_that_tensorrt_accepts(opset, method, tmp_path):
    model = _quantized(opset, method)
    onnx_file.save(model, tmp_path / 'q.onnx')
    model = onnx_file.load(tmp_path / 'q.onnx')
    quantization.check_qdq(model)
    assert onnx_file.opset(model) == opset
    assert {o.domain for o in model.opset_import} == {''}
    constants = onnx_file.initializers(model)
    convolutions = {n.name: n for n in model.graph.node if n.op_type == 'Conv'}
    bare = set(onnx_file.bare_convolutions(model))
    assert len(convolutions) == 64 + 8 and len(bare) == 7
    for name, node in convolutions.items():
        dequantized = [i.endswith('_dequantized') for i in node.input]
        assert dequantized[:2] == [name not in bare] * 2
        assert not any(dequantized[2:]), 'a bias must stay float'
    for node in model.graph.node:
        if node.op_type == 'QuantizeLinear':
            scale = constants[node.input[1]]
            assert scale.data_type == onnx.TensorProto.FLOAT
            axis = [a.i for a in node.attribute if a.name == 'axis']
            assert axis == ([0] if len(scale.dims) else [])
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
    for name, tensor in constants.items():
        if tensor.data_type in integers:
            assert not onnx.numpy_helper.to_array(tensor).any(), f'{name} is no zero point'


_MOVES = ('Concat', 'Split', 'MaxPool', 'Resize')


def _pairs(model):
    """Return Q/DQ pairs by what they stand behind, and the scale of each."""
    constants = onnx_file.initializers(model)
    return {n.input[0]: onnx.numpy_helper.to_array(constants[n.input[1]])
            for n in model.graph.node if n.op_type == 'QuantizeLinear'}


def test_what_only_moves_has_one_scale_from_the_producer_to_the_convolution():
    """TensorRT quantizes it once then, where it is computed, and moves INT8."""
    model = _quantized()
    scales, seen = _pairs(model), {}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type not in _MOVES:
            continue
        if not any(name in scales for name in node.output):
            continue  # of the decoding
        seen[node.op_type] = seen.get(node.op_type, 0) + 1
        values = node.input if node.op_type == 'Concat' else node.input[:1]
        before = [onnx_graph.origin(name, makers) for name in values]
        met = {float(scales[name]) for name in (*before, *node.output) if name in scales}
        assert len(met) == 1, node.name
        for name in before:  # quantized itself, or moved here from what is
            assert name in scales or makers[name].op_type in _MOVES, (node.name, name)
    # What is pooled or upsampled goes into concatenations alone, and is quantized there.
    assert seen == {'Concat': 13}


def test_both_summands_of_a_residual_are_quantized():
    model = _quantized()
    sums = [n for n in model.graph.node if n.op_type == 'Add' and 'blocks' in n.name]
    assert len(sums) == 6
    for node in sums:
        assert all(name.endswith('_dequantized') for name in node.input), node.name


def test_what_reads_no_quantized_values_is_left_alone():
    """One convolution asks for the ranges of what it reads, and for nothing else."""
    model = _model()
    node = quantization.quantizable(model)[1]
    (name,) = quantization.calibrated(model, [node])
    assert name == node.input[0]
    result = quantization.insert_qdq(model, [node], {name: 2.54})
    assert {k: float(v) for k, v in _pairs(result).items() if not v.ndim} == {
        name: pytest.approx(0.02)}
    with pytest.raises(KeyError):
        quantization.insert_qdq(model, [node], {})


def test_quantization_stays_near_the_float_model():
    tensor = _inputs(1)[0]
    expected, found = _run(_model(), tensor), _run(_quantized(), tensor)
    assert not np.array_equal(expected, found)
    assert np.abs(expected[:, 4:] - found[:, 4:]).mean() < 0.05


def test_every_departure_from_the_form_is_refused():
    def broken(change) -> str:
        model = _quantized()
        change(model)
        with pytest.raises(UserError) as error:
            quantization.check_qdq(model)
        return str(error.value)

    def first(model, kind):
        return next(n for n in model.graph.node if n.op_type == kind)

    def constant(model, name, values):
        onnx_file.initializers(model)[name].CopyFrom(onnx.numpy_helper.from_array(values, name))

    assert 'zero point' in broken(lambda m: first(m, 'QuantizeLinear').input.pop())
    assert 'INT8 zero' in broken(lambda m: constant(
        m, first(m, 'QuantizeLinear').input[2], np.array(3, np.int8)))
    assert 'INT8 zero' in broken(lambda m: constant(
        m, first(m, 'DequantizeLinear').input[2], np.array(0, np.uint8)))
    assert 'positive FP32' in broken(lambda m: constant(
        m, first(m, 'QuantizeLinear').input[1], np.array(0, np.float32)))
    assert 'positive FP32' in broken(lambda m: constant(
        m, first(m, 'QuantizeLinear').input[1], np.array(1, np.float16)))

    def integer_weight(model):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ones((16, 3, 3, 3), np.int8), 'integer'))
        first(model, 'DequantizeLinear').input[0] = 'integer'

    assert 'integer constant' in broken(integer_weight)
    with pytest.raises(UserError, match='no Q/DQ pair'):
        quantization.check_qdq(_model())


def test_layers_can_be_kept_in_float():
    name = quantization.quantizable(_model())[5].name
    model = _quantized(keep=[name])
    node = next(n for n in model.graph.node if n.name == name)
    assert not any(i.endswith('_dequantized') for i in node.input)
    with pytest.raises(UserError, match='no convolution named'):
        _quantized(keep=['nonsense'])


def test_sensitivity_names_the_layer_with_the_broken_range():
    model = _model()
    nodes = quantization.quantizable(model)[:6]
    thresholds = calibrate(
        model, quantization.calibrated(model, nodes), _inputs(), 'minmax')
    victim = nodes[4]
    assert sum(n.input[0] == victim.input[0] for n in nodes) == 1
    thresholds[victim.input[0]] = 1e-3
    costs = layer_costs(model, nodes, _inputs(), thresholds)
    assert costs[0].name == victim.name and len(costs) == 6


def test_calibration_is_taken_from_the_cache_of_the_same_model_and_data(tmp_path, monkeypatch):
    model = _model()
    tensors = [n.input[0] for n in quantization.quantizable(model)][:3]
    first = calibrate(model, tensors, _inputs(1), 'minmax', tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(calibration, 'activations', None)
    assert calibrate(model, tensors, _inputs(1), 'minmax', tmp_path) == first
    for other in ((model, tensors, _inputs(2), 'minmax'), (model, tensors, _inputs(1), 'entropy'),
                  (_model(13), tensors, _inputs(1), 'minmax')):
        with pytest.raises(TypeError):  # it has to calibrate, and cannot
            calibrate(*other, tmp_path)


@settings(max_examples=50, deadline=None)
@given(strategies.lists(strategies.floats(0.01, 1e4), min_size=1, max_size=6),
       strategies.integers(0, 1000))
def test_histogram_does_not_depend_on_the_order_of_growth(scales, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(0, scale, 500).astype(np.float32) for scale in scales]
    histogram = MagnitudeHistogram()
    for batch in batches:
        histogram.add(batch)
    values = np.abs(np.concatenate(batches))
    assert histogram.counts.sum() == values.size
    assert histogram.threshold('minmax') == values.max()
    width = histogram.limit / len(histogram.counts)
    cut = histogram.threshold('percentile')
    assert abs(cut - np.sort(values)[min(
        int(np.ceil(values.size * 0.9999)) - 1, values.size - 1)]) <= 2 * width
    for method in calibration.METHODS:
        assert 0 < histogram.threshold(method) <= values.max()


def test_entropy_cuts_off_a_lonely_outlier():
    histogram = MagnitudeHistogram()
    histogram.add(np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32))
    histogram.add(np.array([40.0], np.float32))
    assert 2.5 < histogram.threshold('entropy') < 10
    assert histogram.threshold('minmax') == 40


def test_histogram_of_nothing_but_zeros_has_a_usable_range():
    histogram = MagnitudeHistogram()
    histogram.add(np.zeros(10, np.float32))
    assert [histogram.threshold(m) for m in calibration.METHODS] == [1.0] * 3
    with pytest.raises(UserError, match='infinite or undefined'):
        histogram.add(np.array([np.nan], np.float32))


@pytest.mark.parametrize('opset', [13, 17])
def test_fp16_keeps_the_outside_and_the_decoding_in_fp32(opset, tmp_path):
    model = _model(opset)
    half = to_fp16(model, 'm')
    onnx_file.save(half, tmp_path / 'h.onnx')
    half = onnx_file.load(tmp_path / 'h.onnx')
    assert not onnx_file.card(half, 'h').half
    assert half.ByteSize() < 0.55 * model.ByteSize()
    kept = {model.graph.node[place].name for place in onnx_graph.decoding(model.graph)}
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for node in half.graph.node:
        if node.op_type == 'Conv' and node.output[0] in types:
            assert types[node.output[0]] == (1 if node.name in kept else 10), node.name
    tensor = _inputs(1)[0]
    expected, found = _run(model, tensor), _run(half, tensor)
    assert found.dtype == np.float32
    assert np.abs(expected - found)[:, 4:].max() < 0.02
    assert np.abs(expected - found)[:, :4].max() < 1
    with pytest.raises(UserError, match='FP16 model already'):
        to_fp16(half, 'm')
    with pytest.raises(UserError, match='FP16 model; quantization'):
        quantization.check_source(half, 'm')


def test_int8_over_fp16_is_typed_at_opset_19(tmp_path):
    both = to_fp16(_quantized(13), 'm')
    quantization.check_qdq(both)
    onnx.checker.check_model(both, full_check=True)
    assert onnx_file.opset(both) == 19
    scales = {onnx_file.initializers(both)[n.input[1]].data_type for n in both.graph.node
              if n.op_type == 'QuantizeLinear'}
    assert scales == {onnx.TensorProto.FLOAT16}
    onnx_file.save(both, tmp_path / 'both.onnx')
    tensor = _inputs(1)[0]
    expected = _run(_quantized(13), tensor)[0]
    backend = OnnxRuntimeBackend(tmp_path / 'both.onnx')
    (found,), = backend.run(tensor)
    backend.close()
    assert np.abs(expected - found)[4:].mean() < 0.02


def test_scales_of_almost_nothing_stay_positive_in_fp16():
    model = _model()
    nodes = quantization.quantizable(model)
    thresholds = dict.fromkeys(quantization.calibrated(model, nodes), 1e-7)
    both = to_fp16(quantization.quantize(model, thresholds, 'minmax'), 'm')
    quantization.check_qdq(both)


def test_dynamic_quantization_runs_and_says_what_it_is(tmp_path):
    source, output = tmp_path / 'm.onnx', tmp_path / 'ü d.onnx'
    source.write_bytes(exported())
    quantization.quantize_dynamic(source, output)
    model = onnx_file.load(output)
    assert 'ConvInteger' in {n.op_type for n in model.graph.node}
    assert onnx_file.metadata(model)['quantization'].endswith('CPU only')
    assert _run(model, _inputs(1)[0]).shape == (1, 11, 126)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['m.onnx', 'ü d.onnx']
    with pytest.raises(UserError, match='quantized already'):
        quantization.check_source(model, 'm')


def test_domains_that_nothing_uses_are_not_written(tmp_path):
    model = _model()
    model.opset_import.append(onnx.helper.make_opsetid('ai.onnx.ml', 3))
    onnx_file.save(model, tmp_path / 'm.onnx')
    written = onnx.load(str(tmp_path / 'm.onnx'))
    assert [item.domain for item in written.opset_import] == ['']


def test_models_of_an_old_opset_are_refused():
    model = _model(13)
    model.opset_import[0].version = 11
    with pytest.raises(UserError, match='has opset 11'):
        quantization.check_source(model, 'm')


def test_calibration_images_come_from_a_folder_as_the_runtime_sees_them(tmp_path):
    card = onnx_file.card(_model(), 'm')
    for index, still in enumerate(stills(4)):
        cv2.imwrite(str(tmp_path / f'{index} ä.png'), still.image)
    (tmp_path / 'notes.txt').write_text('not an image, and not named as one')
    found = network_inputs(str(tmp_path), 2, card)
    expected = [_inputs(4)[0], _inputs(4)[2]]  # spread over the folder
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    with pytest.raises(UserError, match='has 4 images, fewer than the 5'):
        network_inputs(str(tmp_path), 5, card)
    (tmp_path / 'broken.jpg').write_text('no image')
    with pytest.raises(UserError, match='not an image'):
        network_inputs(str(tmp_path), 5, card)
    with pytest.raises(UserError, match='no calibration images'):
        network_inputs(str(tmp_path / 'none'), 5, card)


def test_calibration_images_come_from_a_bag(tmp_path):
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    from rosbags.typesys import get_typestore, Stores

    store = get_typestore(Stores.ROS2_HUMBLE)
    header_type = store.types['std_msgs/msg/Header']
    time_type = store.types['builtin_interfaces/msg/Time']
    image_type = store.types['sensor_msgs/msg/Image']
    with rosbag2.Writer(tmp_path / 'bag', version=8) as writer:
        topic = writer.add_connection('/camera/image', image_type.__msgtype__, typestore=store)
        for index, still in enumerate(stills(4)):
            height, width = still.image.shape[:2]
            message = image_type(
                header=header_type(stamp=time_type(sec=index, nanosec=0), frame_id='camera'),
                height=height, width=width, encoding='bgr8', is_bigendian=0, step=3 * width,
                data=still.image.ravel())
            writer.write(topic, index, store.serialize_cdr(message, image_type.__msgtype__))
    card = onnx_file.card(_model(), 'm')
    found = network_inputs(str(tmp_path / 'bag'), 4, card)
    assert all(np.array_equal(a, b) for a, b in zip(found, _inputs(4)))
    with pytest.raises(UserError, match='has 4 images, fewer than the 9'):
        network_inputs(str(tmp_path / 'bag'), 9, card)
