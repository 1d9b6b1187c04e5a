"""What a model file says of itself: input size, classes, stride and head layout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Dict, List, Mapping, Sequence, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.metadata import read_names, read_numbers
from yolojet_ros.core.text import one_line, shown

STRIDES = (8, 16, 32)
# Heads with one level more (P2, P6); a head with one less (P3 missing) is known in RAW only,
# because its rows can be as few as the 300 queries of a transformer.
_MORE_STRIDES = ((4, 8, 16, 32), (8, 16, 32, 64))
_FEWER_STRIDES = (16, 32)
_MAX_STRIDE = 1024
MAX_CLASSES = 10_000
MAX_NAME_LENGTH = 200
_MAX_NAMES_TEXT = 1 << 20
# Detections in the output of a network that ends in NMS.
_MAX_FINAL_ROWS = 4096
# A network of the smallest kind needs some 150 bytes a pixel of its input while it runs.
MAX_IMAGE_PIXELS = 1 << 24
MAX_BATCH_PIXELS = 1 << 26


class HeadLayout(Enum):
    """Layout of the output tensor of one image."""

    RAW = 'raw'  # [4 + nc, A]
    TRANSPOSED = 'transposed'  # [A, 4 + nc]
    NMS = 'nms'  # [N, 6]

    @property
    def final(self) -> bool:
        """Return whether its rows are detections already, so that no NMS may follow."""
        return self is HeadLayout.NMS


@dataclass(frozen=True)
class ModelCard:
    """
    Identity of a detection model.

    source: file name, for messages
    names: class names, by index
    input_size: (width, height) in pixels
    stride: largest stride of the head
    layout: of the output
    boxes: rows of the output: anchor points (RAW, TRANSPOSED) or detections (NMS)
    batch: images of one run; 0 where the batch dimension is dynamic
    half: whether the input is float16
    """

    source: str
    names: Tuple[str, ...]
    input_size: Tuple[int, int]
    stride: int
    layout: HeadLayout
    boxes: int
    batch: int = 1
    half: bool = False

    @classmethod
    def from_tensors(
        cls,
        source: str,
        metadata: Mapping[str, str],
        input_shape: Sequence,
        output_shape: Sequence,
        half: bool = False,
    ) -> ModelCard:
        """
        Read the card from a model's metadata and tensor shapes.

        :param source: file name, for messages
        :param metadata: string keys `names`, `stride`, `imgsz`, `task` as YOLOv8
            exports carry them; any may be missing
        :param input_shape: [batch, 3, H, W]; a dimension that is not a positive
            int is dynamic
        :param output_shape: [batch, 4 + nc, A], [batch, A, 4 + nc] or [batch, N, 6]
        :raises UserError: if this is not a YOLOv8 detection model.
        """
        task = metadata.get('task', 'detect')
        if task != 'detect':
            raise UserError(
                f'{source} is a {shown(task)} model; a YOLOv8 detection model (task "detect") '
                'is needed')
        batch, size = read_input(source, metadata, input_shape)
        names = _names(source, metadata.get('names'))
        layout, boxes, count = _layout(source, output_shape, size, len(names))
        if not names:
            # The output of a model that ends in NMS does not tell how many classes there are.
            names = tuple(f'class_{index}' for index in range(count or 1000))
        return cls(
            source, names, size, _stride(source, metadata), layout, boxes, batch, half)

    @classmethod
    def from_outputs(
        cls,
        source: str,
        metadata: Mapping[str, str],
        input_shape: Sequence,
        output_shapes: Sequence[Sequence],
        half: bool = False,
    ) -> Tuple[int, ModelCard]:
        """
        Return which output is the head, and the card that `from_tensors` reads from it.

        :param output_shapes: of all float outputs; feature maps among them are passed over
        :raises UserError: if none or more than one of them could be the head.
        """
        cards: Dict[int, ModelCard] = {}
        refusals: List[UserError] = []
        for index, shape in enumerate(output_shapes):
            try:
                cards[index] = cls.from_tensors(source, metadata, input_shape, shape, half)
            except UserError as error:
                refusals.append(error)
        if len(cards) > 1:
            shapes = ' and '.join(str(list(output_shapes[index])) for index in cards)
            raise UserError(
                f'{source} has {len(cards)} outputs that could be the detection head ({shapes}); '
                'one of them may be an auxiliary head of training, as in YOLOv9: export the '
                'model with its main head as the only output')
        if not cards:
            raise refusals[0] if refusals else UserError(
                f'{source} has no float output; a YOLOv8 detection model is needed')
        return cards.popitem()


def anchor_count(size: Tuple[int, int], strides: Sequence[int] = STRIDES) -> int:
    """Return how many anchor points a YOLOv8 head has for a (width, height) input."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _fixed(dimension) -> bool:
    return isinstance(dimension, int) and dimension > 0


def read_input(
    source: str, metadata: Mapping[str, str], shape: Sequence,
) -> Tuple[int, Tuple[int, int]]:
    """
    Return (batch, (width, height)) of the input; batch 0 is dynamic.

    :raises UserError: if it is no image, or of a size that no network of this kind runs with.
    """
    shape = [one_line(size, 30) if isinstance(size, str) else size for size in shape]
    if len(shape) != 4 or (_fixed(shape[1]) and shape[1] != 3):
        raise UserError(
            f'{source} takes an input of shape {list(shape)}; [batch, 3, height, width] '
            'of a YOLOv8 detection model is needed')
    batch = shape[0] if _fixed(shape[0]) else 0
    if _fixed(shape[2]) and _fixed(shape[3]):
        size = (shape[3], shape[2])
    else:
        size = _size_of_metadata(source, metadata)
    _check_input(source, size, batch)
    return batch, size


def _size_of_metadata(source: str, metadata: Mapping[str, str]) -> Tuple[int, int]:
    try:
        sides = read_numbers(metadata['imgsz'])
        height, width = sides if len(sides) > 1 else sides * 2
        return width, height
    except (KeyError, ValueError):
        raise UserError(
            f'{source} has a dynamic input size and no imgsz in its metadata that could be read; '
            'export it with a fixed input size') from None


def _stride(source: str, metadata: Mapping[str, str]) -> int:
    text = metadata.get('stride', str(STRIDES[-1]))
    try:
        stride = max(read_numbers(text))
    except ValueError:
        stride = 0
    if not 0 < stride <= _MAX_STRIDE:
        raise UserError(
            f'the stride in the metadata of {source} is {shown(text)}; a number from 1 to '
            f'{_MAX_STRIDE} is expected: export it again')
    return stride


def _check_input(source: str, size: Tuple[int, int], batch: int) -> None:
    """Refuse what cannot run before any memory is asked for."""
    width, height = size
    largest = STRIDES[-1]
    if width < largest or height < largest or width % largest or height % largest:
        raise UserError(
            f'{source} takes images of {width}x{height}; both sides of a YOLOv8 input are '
            f'multiples of {largest}: export it with such a size')
    if width * height > MAX_IMAGE_PIXELS:
        raise UserError(
            f'{source} takes images of {width}x{height}; at most {MAX_IMAGE_PIXELS >> 20} Mi '
            'pixels (4096x4096) fit into memory: export it with a smaller size')
    if batch * width * height > MAX_BATCH_PIXELS:
        raise UserError(
            f'{source} takes {batch} images of {width}x{height} at once; at most '
            f'{MAX_BATCH_PIXELS >> 20} Mi pixels fit into memory: export it with batch 1')


def _names(source: str, text) -> Tuple[str, ...]:
    """Return the class names, bounded in number and length; () if there are none."""
    if not text:
        return ()
    most = (f'at most {MAX_CLASSES} names of {MAX_NAME_LENGTH} characters, {_MAX_NAMES_TEXT >> 20}'
            ' MiB in all, are read: export it with shorter ones')
    if len(text) > _MAX_NAMES_TEXT:
        raise UserError(
            f'the class names in the metadata of {source} take {len(text)} characters; {most}')
    try:
        names = read_names(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(
            f'the class names in the metadata of {source} cannot be read ({shown(text)}: '
            f'{one_line(str(error), 100)}); '
            'they must be a dict {0: "name", ...} or a list') from None
    odd = next((name for name in names if not _can_be_sent(name)), None)
    if odd is not None:
        raise UserError(
            f'the metadata of {source} names a class {shown(odd)}, which holds a character that '
            'no ROS message can carry (NUL, or half a surrogate pair); export it without')
    longest = max(map(len, names), default=0)
    if len(names) > MAX_CLASSES or longest > MAX_NAME_LENGTH:
        raise UserError(
            f'the metadata of {source} names {len(names)} classes, the longest in {longest} '
            f'characters; {most}')
    return names


def _can_be_sent(name: str) -> bool:
    return '\0' not in name and not any('\ud800' <= char <= '\udfff' for char in name)


def _layout(source: str, shape: Sequence, size: Tuple[int, int], known: int):
    """
    Return (layout, rows, class count or 0 if the output does not tell).

    A layout is taken only where the rows are as many as its kind has, because other heads
    (transformers, heads with objectness, boxes without NMS) differ in nothing else.
    """
    anchors = anchor_count(size)
    if len(shape) == 3:
        _, first, second = shape
        for layout, rows, columns in (
                (HeadLayout.RAW, second, first), (HeadLayout.TRANSPOSED, first, second)):
            if _is_anchors(layout, rows, columns, size, known):
                _check_classes(source, shape, layout, columns - 4, known)
                return layout, rows if _fixed(rows) else anchors, columns - 4
        if second == 6 and _is_final(first, anchors):
            return HeadLayout.NMS, first if _fixed(first) else 0, 0
        if known and 4 + known in (first, second):
            rows = second if first == 4 + known else first
            raise UserError(
                f'{source} gives an output of shape {list(shape)}: {4 + known} are 4 + its '
                f'{known} classes, but {rows} are not the {anchors} anchor points of a YOLOv8 '
                f'head for an input of {size[0]}x{size[1]}; a head of another kind (RT-DETR, '
                'say) cannot be read, use a model with a YOLOv8 head')
    raise UserError(
        f'{source} gives an output of shape {list(shape)}; a YOLOv8 detection head '
        f'[1, 4 + classes, {anchors}], its transpose, or [1, N, 6] after NMS is expected '
        f'for an input of {size[0]}x{size[1]}')


def _is_anchors(
    layout: HeadLayout, rows, columns, size: Tuple[int, int], known: int,
) -> bool:
    """Return whether `rows` are the anchor points of a head with `columns` values each."""
    if not _fixed(columns) or columns <= 4:
        return False
    named = known and columns == 4 + known
    if not _fixed(rows):
        return named and (layout is HeadLayout.RAW or columns != 6)
    other = _MORE_STRIDES + ((_FEWER_STRIDES,) if layout is HeadLayout.RAW else ())
    return rows == anchor_count(size) or (
        named and rows in [anchor_count(size, strides) for strides in other])


def _is_final(rows, anchors: int) -> bool:
    """Return whether rows of six can be detections: not one for every anchor point."""
    return not _fixed(rows) or (rows <= _MAX_FINAL_ROWS and rows % anchors != 0)


def _check_classes(
    source: str, shape: Sequence, layout: HeadLayout, count: int, known: int,
) -> None:
    if known and known != count:
        objectness = (
            '; the column more is objectness (YOLOv5, YOLOX, YOLOv6, YOLOv7), which is not read'
            if count == known + 1 else '')
        raise UserError(
            f'{source} names {known} classes in its metadata but its output has {count}'
            f'{objectness}; export it again with a YOLOv8 head')
    if layout is HeadLayout.TRANSPOSED and not known:
        raise UserError(
            f'{source} gives an output of shape {list(shape)} and names no classes: a transposed '
            'YOLOv8 head, a head with objectness (YOLOX, YOLOv6) and DeepStream\'s boxes before '
            'NMS look alike; export a YOLOv8 model with "names" in its metadata')
    if count > MAX_CLASSES:
        raise UserError(
            f'{source} gives an output of shape {list(shape)}, which is {count} classes; at most '
            f'{MAX_CLASSES} are read')
