"""
The heads that detectors have: one table of layouts, and which of them a model's outputs fit.

A head is known by the names of its outputs, by the classes that the metadata names, or by
sizes that no other head has. Where two heads fit alike nothing is guessed: the user says which
it is, in `MODEL.card.yaml` beside the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.tensors import is_fixed, TensorSpec

OBJECT_TASKS = ('detect', 'segment', 'pose', 'obb')
TASKS = (*OBJECT_TASKS, 'classify')
STRIDES = (8, 16, 32)
# Heads with one level more (P2, P6) or less (P3 missing).
_OTHER_STRIDES = ((4, 8, 16, 32), (8, 16, 32, 64), (16, 32))
# Rows of a head that gives objects, not anchor points.
MAX_OBJECTS = 4096
MAX_CLASSES = 10_000
MAX_EXTRA = 1024

_IMAGENET = ImageInput(Fit.STRETCH, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_STRETCHED = ImageInput(Fit.STRETCH)
_YOLOX = ImageInput(Fit.TOP_LEFT, order='bgr', scale=1.0)
_BYTES = ImageInput(dtype='uint8')
_SMOOTH = ImageInput(Fit.STRETCH, antialias=True)
_CROPPED = ImageInput(Fit.CROP, antialias=True)


@dataclass(frozen=True)
class Place:
    """Where a value of a row lies: which of the head's outputs, and its (first) column."""

    output: int = 0
    column: int = 0

    def right(self, columns: int) -> Place:
        """Return the place so many columns on."""
        return replace(self, column=self.column + columns)


@dataclass(frozen=True)
class Head:
    """
    One kind of head: an entry of HEADS.

    key: what `head:` in a card file calls it; title: what messages call it
    outputs: shapes of its outputs. B is the batch, A the anchor points on the strides 8, 16, 32,
        N up to MAX_OBJECTS objects, R the objects of all images, C the classes, E the extra
        columns of the task
    names: the names of these outputs, in all spellings, that tell the head
    hint: word in the metadata's description that tells the head
    sizes_tell: no other head has outputs of these shapes
    tasks: those it comes with
    box, score: their columns. Without `label` there is a score for each class, and the object's
        class is the best
    label: column with the class
    objectness: column whose value multiplies every score
    ones: column that is always 1
    batch: column that says which image a row belongs to
    count: output that says how many rows are used
    columns_first: a row of the head is a column of its output
    corners: boxes are x1, y1, x2, y2; else cx, cy, w, h
    normalized: boxes are 0..1 of the input; else its pixels
    grid: boxes are offsets to their anchor point and logarithms of sides, in strides
    logits: scores want a sigmoid
    first_class: column of the scores that is class 0; those before it are none
    classes: how many there are in the models that have it, 0 for any number
    final: rows are objects, so that no NMS may follow
    sizes_input: name of the second input, int64[B, 2]: width and height that boxes refer to
    input: how the image goes in
    """

    key: str
    title: str
    outputs: Tuple[str, ...]
    names: Tuple[Tuple[str, ...], ...] = ()
    hint: str = ''
    sizes_tell: bool = False
    tasks: Tuple[str, ...] = ('detect',)
    box: Place = Place(0, 0)
    score: Place = Place(0, 4)
    label: Optional[Place] = None
    objectness: Optional[Place] = None
    ones: Optional[Place] = None
    batch: Optional[Place] = None
    count: Optional[int] = None
    columns_first: bool = False
    corners: bool = False
    normalized: bool = False
    grid: bool = False
    logits: bool = False
    first_class: int = 0
    classes: int = 0
    final: bool = False
    sizes_input: str = ''
    input: ImageInput = ImageInput()

    @property
    def class_score(self) -> Place:
        """Return where the score of class 0 lies, in a head with a score for each class."""
        return self.score.right(self.first_class)


_NMS_PARTS = {
    'outputs': ('B 1', 'B N 4', 'B N', 'B N'), 'count': 0, 'box': Place(1), 'score': Place(2),
    'label': Place(3), 'corners': True, 'final': True}

HEADS: Tuple[Head, ...] = (
    Head('yolov8', 'YOLOv8 (v5u, v9, 11, 12 and 26 alike)', ('B 4+C+E A',), columns_first=True,
         tasks=OBJECT_TASKS, sizes_tell=True),
    Head('yolov8_transposed', 'a transposed YOLOv8 head', ('B A 4+C+E',), tasks=OBJECT_TASKS),
    Head('yolov9_dual', 'YOLOv9 with its auxiliary head', ('B 4+C A', 'B 4+C A'),
         box=Place(1, 0), score=Place(1, 4), columns_first=True, sizes_tell=True),
    Head('end2end', 'objects after NMS (nms=True, YOLOv10, YOLO26)', ('B N 6+E',),
         label=Place(0, 5), corners=True, final=True, tasks=OBJECT_TASKS, sizes_tell=True),
    Head('yolov5', 'YOLOv5 and YOLOv7', ('B 3A 5+C+E',), objectness=Place(0, 4),
         score=Place(0, 5), tasks=('detect', 'segment'), sizes_tell=True),
    Head('yolov6', 'YOLOv6', ('B A 5+C',), names=(('outputs',),), ones=Place(0, 4),
         score=Place(0, 5)),
    Head('yolov7_end2end', 'YOLOv7 with NMS', ('R 7',), batch=Place(0, 0), box=Place(0, 1),
         label=Place(0, 5), score=Place(0, 6), corners=True, final=True, names=(('output',),)),
    Head('efficient_nms', 'the outputs of EfficientNMS',
         names=(('num_dets', 'det_boxes', 'det_scores', 'det_classes'),
                ('num_detections', 'detection_boxes', 'detection_scores', 'detection_classes')),
         **_NMS_PARTS),
    Head('yolox', 'YOLOX', ('B A 5+C',), objectness=Place(0, 4), score=Place(0, 5),
         input=_YOLOX),
    Head('yolox_grid', 'YOLOX without decoding', ('B A 5+C',), objectness=Place(0, 4),
         score=Place(0, 5), grid=True, input=_YOLOX),
    Head('rtdetr', 'RT-DETR, D-FINE and DEIM', ('B N', 'B N 4', 'B N'),
         names=(('labels', 'boxes', 'scores'),), label=Place(0), box=Place(1), score=Place(2),
         corners=True, final=True, sizes_input='orig_target_sizes', input=_SMOOTH),
    Head('rtdetr_ultralytics', 'RT-DETR as ultralytics exported it', ('B N 4+C',), hint='rtdetr',
         normalized=True, final=True, input=_STRETCHED),
    Head('rtdetr_ultralytics_best', 'RT-DETR as ultralytics exports it since 8.4', ('B N 6',),
         hint='rtdetr', label=Place(0, 5), normalized=True, final=True, input=_STRETCHED),
    Head('rtdetr_huggingface', 'RT-DETR and D-FINE of Hugging Face', ('B N C', 'B N 4'),
         box=Place(1), score=Place(0), normalized=True, logits=True, final=True,
         input=_SMOOTH),
    # Columns are COCO's ids, 1 to 90; in training on other classes they are counted from 0, and
    # the last column is none.
    Head('rfdetr', 'RF-DETR trained on COCO', ('B N 4', 'B N C'), names=(('dets', 'labels'),),
         box=Place(0), score=Place(1), normalized=True, logits=True, first_class=1, classes=90,
         final=True, input=_IMAGENET),
    Head('rfdetr_trained', 'RF-DETR trained on other classes', ('B N 4', 'B N C+1'),
         names=(('dets', 'labels'),), box=Place(0), score=Place(1), normalized=True,
         logits=True, final=True, input=_IMAGENET),
    Head('yolo_nas', 'YOLO-NAS, one output', ('R 7',), batch=Place(0, 0), box=Place(0, 1),
         score=Place(0, 5), label=Place(0, 6), corners=True, final=True, sizes_tell=True,
         input=_BYTES),
    Head('yolo_nas_batch', 'YOLO-NAS, four outputs', sizes_tell=True, input=_BYTES,
         **_NMS_PARTS),
    Head('deepstream', 'boxes before NMS as DeepStream-Yolo exports them', ('B A 6',),
         label=Place(0, 5), corners=True),
    Head('deepstream_anchors', 'boxes of YOLOv5 and YOLOv7 before NMS as DeepStream-Yolo exports '
         'them', ('B 3A 6',), label=Place(0, 5), corners=True),
    Head('classify', 'a classifier', ('B C',), score=Place(0, 0), tasks=('classify',),
         input=_CROPPED),
)
BY_KEY: Dict[str, Head] = {head.key: head for head in HEADS}


@dataclass(frozen=True)
class Reading:
    """
    A head as one model has it.

    outputs: which of the model's outputs are the head's, in its order; for masks the last one
        holds the prototypes, float[B, masks, h, w]
    rows: of the head, 0 where only a run tells
    classes: scores of a row that are classes; 0 where a column has the class
    masks: coefficients of a row
    keypoints: (count, values of each, 2 or 3)
    """

    head: Head
    task: str
    outputs: Tuple[int, ...]
    rows: int
    classes: int
    masks: int = 0
    keypoints: Tuple[int, int] = (0, 0)

    @property
    def final(self) -> bool:
        """Return whether its rows are objects, so that no NMS may follow."""
        return self.head.final

    @property
    def corners(self) -> bool:
        """Return whether boxes are x1, y1, x2, y2; rotated ones never are."""
        return self.head.corners and self.task != 'obb'

    @property
    def extra(self) -> Place:
        """Return where coefficients, keypoints or angle begin."""
        score, label = self.head.score, self.head.label
        if label is None:
            return self.head.class_score.right(self.classes)
        return replace(score, column=max(score.column, label.column) + 1)

    @property
    def extras(self) -> int:
        """Return how many columns of the task a row has."""
        count, values = self.keypoints
        return self.masks + count * values + (self.task == 'obb')


def raw_reading(
    rows: int, classes: int, task: str = 'detect', masks: int = 0,
    keypoints: Tuple[int, int] = (0, 0), key: str = 'yolov8',
) -> Reading:
    """Return the reading of a model whose outputs are those of the head `key`, in its order."""
    head = BY_KEY[key]
    outputs = tuple(range(len(head.outputs) + (task == 'segment')))
    return Reading(head, task, outputs, rows, 0 if head.label else classes, masks, keypoints)


class Evidence(IntEnum):
    """How sure a reading is."""

    POSSIBLE = 0  # others have such shapes, too
    SIZES = 1  # no other head has such shapes
    CLASSES = 2  # the scores are as many as the classes that the metadata names
    NAMED = 3  # the names of the outputs, or the metadata, say it
    OWN = 4  # and there are as many classes as this kind has


@dataclass(frozen=True)
class Facts:
    """
    What a model says of itself.

    inputs, outputs: all of them
    size: (width, height) of the image input
    task: that the metadata names, '' for none
    classes: how many class names there are, 0 for none
    keypoints: (count, values) that the metadata gives, (0, 0) for none
    description: of the metadata
    """

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    size: Tuple[int, int]
    task: str = ''
    classes: int = 0
    keypoints: Tuple[int, int] = (0, 0)
    description: str = ''


def readings(facts: Facts, heads: Sequence[Head] = HEADS) -> List[Tuple[Evidence, Reading]]:
    """Return every way to read the model's outputs, the surest first."""
    found = []
    for head in heads:
        for task, prototypes in _tasks(head, facts):
            for outputs, named in _outputs(head, facts, task, prototypes):
                reading = _read(head, facts, outputs, task, prototypes)
                if reading is not None:
                    found.append((_evidence(head, facts, reading, named), reading))
    return sorted(found, key=lambda pair: -pair[0])


def anchor_count(size: Tuple[int, int], strides: Sequence[int] = STRIDES) -> int:
    """Return how many anchor points a head has for a (width, height) input."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _evidence(head: Head, facts: Facts, reading: Reading, named: bool) -> Evidence:
    if head.classes and reading.classes != head.classes:
        return Evidence.POSSIBLE
    if named or (head.hint and head.hint in facts.description.lower()):
        return Evidence.OWN if head.classes else Evidence.NAMED
    # Six columns are two classes, or a score and a class.
    two = reading.classes == 2 and (head.final or not head.columns_first)
    told = reading.classes and facts.classes and not two
    if told:
        return Evidence.CLASSES
    # So are objectness and one class.
    one = reading.classes == 1 and head.objectness is not None and not reading.masks
    return Evidence.SIZES if head.sizes_tell and not one else Evidence.POSSIBLE


def _tasks(head: Head, facts: Facts) -> Iterator[Tuple[str, Optional[int]]]:
    """Yield each task that the model may have with this head, and its output of prototypes."""
    for task in head.tasks:
        if task == 'segment' and facts.task in ('', 'segment'):
            yield from ((task, number) for number in _prototypes(facts))
        elif facts.task == task or (not facts.task and task == head.tasks[0]):
            yield task, None


def _outputs(head: Head, facts: Facts, task: str, prototypes: Optional[int]):
    """Yield (indices of the model's outputs that could be the head's, whether named so)."""
    image = facts.inputs[0].dtype if facts.inputs else ''
    if (head.input.dtype == 'uint8') != (image == 'uint8'):
        return
    sizes = [item.name for item in facts.inputs[1:]]
    if sizes != ([head.sizes_input] if head.sizes_input else []):
        return
    index = {item.name: number for number, item in enumerate(facts.outputs)}
    for names in head.names:
        if all(name in index for name in names):
            yield tuple(index[name] for name in names), True
            return
    if head.names and len(head.outputs) > 1:
        return
    flat = [number for number, item in enumerate(facts.outputs) if len(item.shape) < 4]
    if len(head.outputs) > 1:
        if len(flat) == len(head.outputs):
            yield tuple(flat), False
        return
    fitting = [number for number in flat
               if _read(head, facts, (number,), task, prototypes) is not None]
    # Two outputs that fit one head may be a main and an auxiliary one: not known which.
    if len(fitting) == 1:
        yield tuple(fitting), False


def _read(
    head: Head, facts: Facts, outputs: Tuple[int, ...], task: str, prototypes: Optional[int],
) -> Optional[Reading]:
    """Return the reading of these outputs, None if they do not fit."""
    masks, keypoints = 0, (0, 0)
    if prototypes is not None:
        masks = facts.outputs[prototypes].shape[1]
        outputs = (*outputs, prototypes)
    if task == 'pose':
        keypoints = facts.keypoints
        if not keypoints[0]:
            return None
    extra = masks + keypoints[0] * keypoints[1] + (task == 'obb')
    found: Dict[str, int] = {}
    for pattern, number in zip(head.outputs, outputs):
        item = facts.outputs[number]
        if pattern.endswith(('A', '4', 'C', 'E', '6', '7')) and not item.is_float:
            return None
        if not _fits(pattern.split(), item.shape, head, facts, extra, found):
            return None
    if head.label is not None:
        classes = 0
    else:
        classes = found['C'] - head.first_class
        if not 0 < classes or (facts.classes and classes != facts.classes):
            return None
    return Reading(head, task, outputs, found.get('rows', 0), classes, masks, keypoints)


def _prototypes(facts: Facts) -> List[int]:
    """Return the outputs that may hold mask prototypes: [B, masks, h / 4, w / 4]."""
    width, height = facts.size
    return [number for number, item in enumerate(facts.outputs)
            if len(item.shape) == 4 and item.shape[2:] == (height // 4, width // 4)
            and is_fixed(item.shape[1]) and item.shape[1] <= MAX_EXTRA]


def _fits(
    pattern: List[str], shape: Sequence, head: Head, facts: Facts, extra: int,
    found: Dict[str, int],
) -> bool:
    """Return whether a shape is as the pattern says; put what it tells into `found`."""
    if len(shape) != len(pattern):
        return False
    for word, size in zip(pattern, shape):
        if word == 'B' or (word == 'R' and not is_fixed(size)):
            continue
        if word in ('A', '3A', 'N'):
            if not _rows_fit(word, size, head, facts):
                return False
            known = found.get('rows', 0)
            if known and is_fixed(size) and size != known:
                return False
            found['rows'] = size if is_fixed(size) else anchor_count(facts.size) if word == 'A' \
                else 3 * anchor_count(facts.size) if word == '3A' else 0
        elif word == 'R' or not _columns_fit(word, size, extra, found):
            return False
    return True


def _columns_fit(word: str, size, extra: int, found: Dict[str, int]) -> bool:
    parts = word.split('+')
    least = sum(int(part) for part in parts if part.isdigit()) + ('E' in parts) * extra
    if 'C' not in parts:
        return size == least
    found['C'] = size - least if is_fixed(size) else 0
    return 0 < found['C'] <= MAX_CLASSES


def _rows_fit(word: str, size, head: Head, facts: Facts) -> bool:
    anchors = anchor_count(facts.size)
    if not is_fixed(size):
        return facts.classes > 0 or (word == 'N' and head.label is not None)
    if word == 'N':
        return size <= MAX_OBJECTS and size % anchors != 0
    times = 3 if word == '3A' else 1
    if size == times * anchors:
        return True
    # Other strides make other numbers; without names they prove too little. A head with few rows
    # may be a transformer's.
    other = _OTHER_STRIDES if head.columns_first else _OTHER_STRIDES[:2]
    return facts.classes > 0 and not head.grid and size in [
        times * anchor_count(facts.size, strides) for strides in other]


def describe(reading: Reading, outputs: Sequence[TensorSpec]) -> str:
    """Return how the outputs are read, one line for people."""
    shapes = ', '.join(str(outputs[number]) for number in reading.outputs)
    return f'{reading.head.title} ({reading.task}): {shapes}'


def needed(heads: Sequence[Head] = HEADS) -> Mapping[str, str]:
    """Return title and shapes of every head by key."""
    return {head.key: f'{head.title}: {", ".join(head.outputs)}' for head in heads}
