"""A sample of every head: what its exports look like, and what they give for known objects."""

from pathlib import Path

import numpy as np
import pytest

from yolojet_ros.core.decode import grid
from yolojet_ros.core.head import anchor_count
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.tensors import TensorSpec

SIZE = (640, 640)
ANCHORS = anchor_count(SIZE)


def spec(name, *shape, dtype='float32'):
    """Return a TensorSpec."""
    return TensorSpec(name, dtype, shape)


IMAGE = spec('images', 1, 3, 640, 640)
BYTES = spec('input', 1, 3, 640, 640, dtype='uint8')
ORIGINAL = spec('orig_target_sizes', 1, 2, dtype='int64')
PROTOTYPES = spec('output1', 1, 32, 160, 160)
EFFICIENT = [spec('num_dets', 1, 1, dtype='int32'), spec('det_boxes', 1, 100, 4),
              spec('det_scores', 1, 100), spec('det_classes', 1, 100, dtype='int32')]


def metadata_of(arguments):
    """Return the metadata of a file that a row's arguments describe."""
    names = arguments.get('names', 0)
    said = {'names': str({index: f'c{index}' for index in range(names)})} if names else {}
    return {**said, **arguments.get('metadata', {})}


def read_card(outputs, inputs=(IMAGE,), card='', **arguments):
    """Return the card of a model with these outputs, as arguments of KNOWN describe it."""
    said = metadata_of(arguments)
    if card:
        said['yolojet_card'] = card
    return ModelCard.read('m.onnx', said, list(inputs), list(outputs))


# (key, task, classes, outputs, arguments)
KNOWN = [
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, ANCHORS)], {'names': 80}),
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, ANCHORS)], {}),
    ('yolov8', 'detect', 2, [spec('output0', 1, 6, ANCHORS)], {'names': 2}),
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, 34000)], {'names': 80}),  # P2
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, 8500)], {'names': 80}),  # P6
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, 2000)], {'names': 80}),  # no P3
    ('yolov8', 'detect', 80, [spec('output0', 'batch', 84, 'anchors')], {'names': 80}),
    ('yolov8', 'detect', 80, [spec('map', 1, 64, 80, 80), spec('output0', 1, 84, ANCHORS)], {}),
    ('yolov8', 'segment', 80, [spec('output0', 1, 116, ANCHORS), PROTOTYPES], {'names': 80}),
    ('yolov8', 'segment', 80, [spec('output0', 1, 116, ANCHORS), PROTOTYPES],
     {'card': 'task: segment'}),
    # Feature maps may have a prototype's shape.
    ('yolov8', 'detect', 80, [spec('output0', 1, 84, ANCHORS), spec('map', 1, 64, 160, 160)],
     {'names': 80}),
    ('yolov8', 'segment', 80, [spec('map', 1, 64, 160, 160), spec('output0', 1, 116, ANCHORS),
                               PROTOTYPES], {'names': 80}),
    ('yolov8', 'pose', 1, [spec('output0', 1, 56, ANCHORS)],
     {'names': 1, 'metadata': {'task': 'pose', 'kpt_shape': '[17, 3]'}}),
    ('yolov8', 'pose', 1, [spec('output0', 1, 56, ANCHORS)],
     {'card': 'task: pose\nkeypoints: [17, 3]'}),
    ('yolov8', 'obb', 15, [spec('output0', 1, 20, ANCHORS)],
     {'names': 15, 'metadata': {'task': 'obb'}}),
    ('yolov8_transposed', 'detect', 80, [spec('output0', 1, ANCHORS, 84)], {'names': 80}),
    ('yolov9_dual', 'detect', 80, [
        spec('output0', 1, 84, ANCHORS), spec('output1', 1, 84, ANCHORS)], {}),
    ('end2end', 'detect', 0, [spec('output0', 1, 300, 6)], {'names': 80}),
    ('end2end', 'detect', 0, [spec('output0', 1, 300, 6)], {'names': 2}),
    ('end2end', 'detect', 0, [spec('output0', 1, 300, 6)], {}),
    ('end2end', 'segment', 0, [spec('output0', 1, 300, 38), PROTOTYPES],
     {'metadata': {'task': 'segment'}}),
    ('end2end', 'pose', 0, [spec('output0', 1, 300, 57)],
     {'names': 1, 'metadata': {'task': 'pose', 'kpt_shape': '[17, 3]'}}),
    ('end2end', 'obb', 0, [spec('output0', 1, 300, 7)],
     {'names': 15, 'metadata': {'task': 'obb'}}),
    ('yolov5', 'detect', 80, [spec('output', 1, 3 * ANCHORS, 85)], {}),
    ('yolov5', 'detect', 80, [spec('output', 1, 3 * ANCHORS, 85)], {'names': 80}),
    ('yolov5', 'segment', 80, [spec('output0', 1, 3 * ANCHORS, 117), PROTOTYPES],
     {'names': 80}),
    ('yolov6', 'detect', 80, [spec('outputs', 1, ANCHORS, 85)], {}),
    ('yolov7_end2end', 'detect', 0, [spec('output', 'n', 7)], {}),
    ('efficient_nms', 'detect', 0, EFFICIENT, {}),
    ('yolox', 'detect', 80, [spec('output', 1, ANCHORS, 85)], {'card': 'head: yolox'}),
    ('yolox_grid', 'detect', 80, [spec('output', 1, ANCHORS, 85)], {'card': 'head: yolox_grid'}),
    ('rtdetr', 'detect', 0, [spec('labels', 1, 300, dtype='int64'), spec('boxes', 1, 300, 4),
                             spec('scores', 1, 300)], {'inputs': (IMAGE, ORIGINAL)}),
    ('rtdetr_ultralytics', 'detect', 80, [spec('output0', 1, 300, 84)], {'names': 80}),
    ('rtdetr_ultralytics', 'detect', 2, [spec('output0', 1, 300, 6)],
     {'names': 2, 'card': 'head: rtdetr_ultralytics'}),
    ('rtdetr_ultralytics_best', 'detect', 0, [spec('output0', 1, 300, 6)],
     {'names': 80, 'metadata': {'description': 'Ultralytics rtdetr-l model'}}),
    ('rtdetr_huggingface', 'detect', 80, [spec('logits', 1, 300, 80),
                                          spec('pred_boxes', 1, 300, 4)],
     {'card': 'head: rtdetr_huggingface'}),
    ('rfdetr', 'detect', 90, [spec('dets', 1, 300, 4), spec('labels', 1, 300, 91)], {}),
    ('rfdetr_trained', 'detect', 7, [spec('dets', 1, 300, 4), spec('labels', 1, 300, 8)], {}),
    ('rfdetr_trained', 'detect', 4, [spec('dets', 1, 300, 4), spec('labels', 1, 300, 5)],
     {'names': 4}),
    ('rfdetr', 'detect', 6, [spec('dets', 1, 300, 4), spec('labels', 1, 300, 7)],
     {'card': 'head: rfdetr'}),
    ('yolo_nas', 'detect', 0, [spec('graph2_flat_predictions', 'n', 7)], {'inputs': (BYTES,)}),
    ('yolo_nas_batch', 'detect', 0, [
        spec('graph2_num_predictions', 1, 1, dtype='int64'),
        spec('graph2_pred_boxes', 1, 1000, 4), spec('graph2_pred_scores', 1, 1000),
        spec('graph2_pred_classes', 1, 1000, dtype='int64')], {'inputs': (BYTES,)}),
    ('deepstream', 'detect', 0, [spec('output', 1, ANCHORS, 6)], {'card': 'head: deepstream'}),
    ('deepstream_anchors', 'detect', 0, [spec('output', 1, 3 * ANCHORS, 6)],
     {'card': 'head: deepstream_anchors'}),
    ('classify', 'classify', 1000, [spec('output0', 1, 1000)],
     {'names': 1000, 'metadata': {'task': 'classify'}}),
]


# What every head says of three objects in a 640x640 input, the last below the threshold: x1, y1,
# x2, y2; of rotated boxes the sides are those before they are turned by ANGLE.
BOXES = np.array([[100, 80, 180, 140], [300, 200, 420, 260], [10, 10, 30, 30]], np.float32)
SCORES, LABELS = np.array([0.9, 0.7, 0.1], np.float32), np.array([2, 0, 1])
ANGLE = 0.3
# Row of the input's pixels above which the second object's mask lies.
MASK_END = 232
_LOW = 0.05


def keypoints(count):
    """Return float32[3, count, 2] within BOXES, pixels of the input."""
    along = np.linspace(0.1, 0.9, count, dtype=np.float32)[None, :, None]
    return BOXES[:, None, :2] + along * (BOXES[:, None, 2:] - BOXES[:, None, :2])


def outputs_of(card, seed=0):
    """
    Return what the card's head gives for the objects, of one image, as core.decode.Table takes it.

    The other rows have boxes anywhere and low scores.
    """
    rng = np.random.default_rng(seed)
    reading, head = card.head, card.head.head
    if card.task == 'classify':
        scores = np.full(reading.classes, 0.3 / (reading.classes - 1), np.float32)
        scores[2] = 0.7
        return [scores]
    rows = anchor_count(card.input_size) if head.grid else max(reading.rows, 20)
    here = np.arange(rows)[-4:-1]
    boxes = _random_boxes(rng, rows, card.input_size)
    boxes[here] = BOXES
    scores = rng.uniform(0, _LOW, rows).astype(np.float32)
    scores[here] = SCORES
    known = min(len(card.names), 3)
    labels = rng.integers(0, known, rows)
    labels[here] = LABELS % known
    tables = {}

    def put(place, values):
        if place is not None:
            columns = np.asarray(values, np.float32).reshape(rows, -1).T
            for index, column in enumerate(columns):
                tables.setdefault(place.output, {})[place.column + index] = column

    put(head.box, _boxes_for(reading, card.input_size, boxes))
    objectness = rng.uniform(0, 2 * _LOW, rows).astype(np.float32)
    objectness[here] = 0.95
    if head.label is None:
        wide = rng.uniform(0, _LOW, (rows, head.first_class + reading.classes))
        wide[here] = 0.01
        wide[here, head.first_class + LABELS % known] = SCORES / (
            0.95 if head.objectness is not None else 1)
        if head.outputs[head.score.output].endswith('C+1'):  # the last column is none
            wide = np.concatenate((wide, np.full((rows, 1), 0.5)), axis=1)
        put(head.score, np.log(wide / (1 - wide)) if head.logits else wide)
    else:
        put(head.score, scores)
        put(head.label, labels)
    put(head.objectness, objectness)
    put(head.ones, np.ones(rows))
    put(head.batch, np.zeros(rows))
    if reading.extras:
        extras = rng.normal(0, 1, (rows, reading.extras))
        extras[here] = _extras(reading)
        put(reading.extra, extras)
    if head.count is not None:
        tables[head.count] = {0: np.array([rows - 1], np.float32)}
    found = []
    for number, pattern in enumerate(head.outputs):
        columns = tables.get(number) or _another_table(rng, rows, reading.classes)
        table = np.stack([columns[index] for index in sorted(columns)], axis=1)
        if head.count == number or pattern == 'B N':
            table = table[:, 0]
        found.append(np.float32(table.T if head.columns_first else table))
    if reading.masks:
        found.append(_prototypes(reading.masks, card.input_size))
    return found


def _boxes_for(reading, size, boxes):
    """Return corners [n, 4] in the form of the head."""
    head = reading.head
    if not reading.corners:
        boxes = np.concatenate((
            (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), axis=1)
    if head.normalized:
        boxes = boxes / (*size, *size)
    if head.grid:
        column, row, stride = grid(size)
        boxes = np.stack((boxes[:, 0] / stride - column, boxes[:, 1] / stride - row,
                          np.log(boxes[:, 2] / stride), np.log(boxes[:, 3] / stride)), axis=1)
    return boxes


def _random_boxes(rng, rows, size):
    middle = rng.uniform(0, 1, (rows, 2)) * size
    if rows == anchor_count(size):  # a head's boxes lie around their anchor points
        column, row, stride = grid(size)
        middle = (np.stack((column, row), axis=1) + rng.uniform(0, 1, (rows, 2))) * stride[:, None]
    half = rng.uniform(2, 60, (rows, 2))
    return np.concatenate((middle - half, middle + half), axis=1).astype(np.float32)


def _extras(reading):
    if reading.masks:
        return np.eye(3, reading.masks)
    count, values = reading.keypoints
    if count:
        points = np.full((3, count, values), 0.8, np.float32)
        points[..., :2] = keypoints(count)
        return points.reshape(3, -1)
    return np.full((3, 1), ANGLE)


def _prototypes(masks, size):
    """Return float32[masks, h, w]: the first is positive everywhere, the second above MASK_END."""
    found = np.zeros((masks, size[1] // 4, size[0] // 4), np.float32)
    found[0] = 1
    found[1] = 1
    found[1, MASK_END // 4:] = -1
    return found


def _another_table(rng, rows, classes):
    """Return the columns of an auxiliary head, which sees other things."""
    boxes = rng.uniform(100, 400, (4, rows))
    return dict(enumerate([*boxes, *rng.uniform(0, 1, (classes, rows))]))


def write(path, inputs, outputs, arrays, metadata=None, card='', probe=None):
    """
    Write an ONNX file that always answers `arrays`, and the card file beside it if it has text.

    :param inputs, outputs: TensorSpec of each; those with an open first dimension answer for as
        many images as they get
    :param arrays: of each output, for one image, as core.decode.Table takes them
    :param probe: (output, [(index into that output, (channel, y, x))], factor): these values are
        the input's pixels times `factor`
    """
    onnx = pytest.importorskip('onnx')
    from onnx import helper, numpy_helper
    constants, nodes = {}, []

    def kind(spec):
        return helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))

    def node(name, sources, result, **options):
        nodes.append(helper.make_node(name, sources, [result], **options))
        return result

    def constant(name, values):
        constants[name] = values
        return name

    image = node('Cast', [inputs[0].name], 'image', to=onnx.TensorProto.FLOAT)
    nothing = node('Mul', [node('ReduceMax', [image], 'most', keepdims=0),
                           constant('zero', np.float32(0))], 'nothing')
    many = isinstance(inputs[0].shape[0], str)
    if many:
        whole = node('Shape', [image], 'shape')
        images = node('Slice', [whole, constant('0', np.array([0])), constant('1', np.array([1]))],
                      'images_given')
    for number, (item, values) in enumerate(zip(outputs, arrays)):
        values = np.asarray(values, np.float32)
        listed = len(item.shape) == 2 and values.ndim == 2
        if not listed:
            values = values[None]
            if len(item.shape) > values.ndim:  # a list of one value
                values = values[:, None]
        result = node('Add', [constant(f'answer{number}', values), nothing], f'sum{number}')
        if probe is not None and probe[0] == number:
            first = () if listed else (0,)
            result = _probed(node, constant, image, result, first, *probe[1:])
        if listed:  # how many there are, no file says
            used = node('Add', [constant('ones', np.ones(len(values), np.float32)), nothing],
                        'used')
            result = node('Compress', [
                result, node('Cast', [used], 'all', to=onnx.TensorProto.BOOL)], 'list', axis=0)
        if many and not listed:
            ones = constant(f'ones{number}', np.ones(values.ndim - 1, np.int64))
            shape = node('Concat', [images, ones], f'shape{number}', axis=0)
            result = node('Expand', [result, shape], f'all{number}')
        node('Cast', [result], item.name, to=kind(item))
    graph = helper.make_graph(
        nodes, 'sample',
        [helper.make_tensor_value_info(item.name, kind(item), item.shape) for item in inputs],
        [helper.make_tensor_value_info(item.name, kind(item), item.shape) for item in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 15)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, str(path))
    if card:
        Path(path).with_suffix('.card.yaml').write_text(card)
    return path


def _probed(node, constant, image, result, first, places, factor):
    """Put values of the image into the result."""
    indices, pixels = zip(*places)
    looked = node('GatherND', [image, constant('pixels', np.array(
        [(0, *pixel) for pixel in pixels]))], 'looked')
    scaled = node('Mul', [looked, constant('factor', np.float32(factor))], 'scaled')
    return node('ScatterND', [result, constant('indices', np.array(
        [(*first, *index) for index in indices])), scaled], 'probed')


def write_sample(path, row, **options):
    """Write the file that a row of KNOWN describes; return its card as the row says."""
    _, _, _, outputs, arguments = row
    card = read_card(outputs, **arguments)
    inputs = arguments.get('inputs', (IMAGE,))
    arrays = [np.zeros(item.shape[1:], np.float32) if item.dtype == 'float32' else None
              for item in outputs if all(isinstance(side, int) for side in item.shape)]
    arrays += [None] * (len(outputs) - len(arrays))
    for number, values in zip(card.head.outputs, outputs_of(card)):
        arrays[number] = values
    write(path, inputs, outputs, arrays, metadata_of(arguments), arguments.get('card', ''),
          **options)
    return card
