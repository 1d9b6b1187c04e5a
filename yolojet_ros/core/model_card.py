"""What a model file says of itself: input, classes, and how its head is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping, Optional, Sequence, Tuple

from yolojet_ros.core.card_file import CardFile, KEY as CARD_KEY
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import (
    BY_KEY, Evidence, Facts, HEADS, MAX_CLASSES, Reading, readings, STRIDES, TASKS)
from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.metadata import read_names, read_numbers
from yolojet_ros.core.tensors import is_fixed, TensorSpec
from yolojet_ros.core.text import one_line, shown

_MAX_STRIDE = 1024
MAX_NAME_LENGTH = 200
_MAX_NAMES_TEXT = 1 << 20
# A network of the smallest kind needs some 150 bytes a pixel of its input while it runs.
MAX_IMAGE_PIXELS = 1 << 24
MAX_BATCH_PIXELS = 1 << 26
MAX_KEYPOINTS = 256
# One anchor point on the largest stride of an ordinary head.
_MIN_SIDE = STRIDES[-1]
_INPUT_TYPES = ('float32', 'float16', 'uint8', 'int8')
# Metadata of an engine that takes int8: the value of one step.
STEP_KEY = 'input_step'


class UnknownHead(UserError):
    """
    The outputs of a model can be read in no way, or in several.

    choices: those ways
    """

    def __init__(self, message: str, choices: Sequence[Reading] = ()) -> None:
        super().__init__(message)
        self.choices = tuple(choices)


@dataclass(frozen=True)
class ModelCard:
    """
    Identity of a model.

    source: file name, for messages
    names: class names, by index
    input_size: (width, height) in pixels
    stride: largest stride of the head
    head: how its outputs are read
    input: how an image goes in
    batch: images of one run; 0 where the batch dimension is dynamic
    evidence: how its head was recognised
    named: whether the model, or its card file, names the classes
    """

    source: str
    names: Tuple[str, ...]
    input_size: Tuple[int, int]
    stride: int
    head: Reading
    input: ImageInput = ImageInput()
    batch: int = 1
    evidence: str = ''
    named: bool = True

    @property
    def half(self) -> bool:
        """Return whether the image goes in as float16."""
        return self.input.dtype == 'float16'

    @property
    def task(self) -> str:
        """Return 'detect', 'segment', 'pose', 'obb' or 'classify'."""
        return self.head.task

    @classmethod
    def read(
        cls,
        source: str,
        metadata: Mapping[str, str],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        input_size: Optional[Tuple[int, int]] = None,
    ) -> ModelCard:
        """
        Read the card from a model's metadata and tensors.

        :param source: file name, for messages
        :param metadata: string keys `names`, `stride`, `imgsz`, `task`, `kpt_shape` as
            ultralytics' exports carry them, and the text of a card file; any may be missing
        :param input_size: (width, height) for a model that leaves it open
        :raises UserError: if no head, or more than one, fits the outputs.
        """
        image = read_image_input(source, inputs)
        batch, size = read_input(source, metadata, image.shape, input_size)
        said = CardFile.parse(metadata.get(CARD_KEY, ''), source)
        names = said.names or _names(source, metadata.get('names'))
        task = said.task or metadata.get('task', '')
        if task and task not in TASKS:
            raise UserError(
                f'{source} is a {shown(task)} model; a model for {", ".join(TASKS)} is needed')
        facts = Facts(
            tuple(inputs), tuple(outputs), size, task, len(names),
            said.keypoints or _keypoints(source, metadata),
            one_line(metadata.get('description', ''), 200))
        evidence, head = _choose(source, facts, said)
        named = bool(names)
        if not named:
            # Where a column has the class, the output does not tell how many there are.
            names = tuple(f'class_{index}' for index in range(head.classes or 1000))
        takes = replace(said.applied(_usual_input(head, size)), dtype=image.dtype,
                        step=_step(source, metadata) if image.dtype == 'int8' else 1.0)
        return cls(source, names, size, _stride(source, metadata), head, takes, batch, evidence,
                   named)


def _usual_input(head: Reading, size: Tuple[int, int]) -> ImageInput:
    """Return how images go in where the user says nothing."""
    takes = head.head.input
    # What cuts the centre out for a square input stretches the image for another, as ultralytics
    # and torchvision's Resize((height, width)) do.
    if takes.fit is Fit.CROP and size[0] != size[1]:
        return replace(takes, fit=Fit.STRETCH)
    return takes


def _step(source: str, metadata: Mapping[str, str]) -> float:
    try:
        return float(metadata[STEP_KEY])
    except (KeyError, ValueError) as error:
        raise UserError(
            f'{source} takes an int8 image, and nothing tells the value of one step; keep the '
            '.json file beside the engine, or build it again with --float-input') from error


def read_image_input(source: str, inputs: Sequence[TensorSpec]) -> TensorSpec:
    """
    Return the input that takes the image; another one may take the sizes of images.

    :raises UserError: if there is none, or an input that nothing here can fill.
    """
    known = {head.sizes_input for head in HEADS if head.sizes_input}
    images = [item for item in inputs if item.name not in known]
    if len(images) != 1 or images[0].dtype not in _INPUT_TYPES \
            or (inputs and inputs[0] is not images[0]):
        found = one_line(', '.join(map(str, inputs)), 200)
        raise UserError(
            f'{source} takes {found or "no input"}; one float or uint8 image input '
            '[batch, 3, height, width] is needed')
    return images[0]


def read_input(
    source: str, metadata: Mapping[str, str], shape: Sequence,
    wanted: Optional[Tuple[int, int]] = None,
) -> Tuple[int, Tuple[int, int]]:
    """
    Return (batch, (width, height)) of the input; batch 0 is dynamic.

    :param wanted: (width, height) for an input whose sides are dynamic
    :raises UserError: if it is no image, or of a size that no network of this kind runs with.
    """
    if len(shape) != 4 or (is_fixed(shape[1]) and shape[1] != 3):
        raise UserError(
            f'{source} takes an input of shape {list(shape)}; [batch, 3, height, width] '
            'is needed')
    batch = shape[0] if is_fixed(shape[0]) else 0
    if is_fixed(shape[2]) and is_fixed(shape[3]):
        size = (shape[3], shape[2])
        if wanted is not None and tuple(wanted) != size:
            raise UserError(
                f'{source} takes images of {size[0]}x{size[1]} only; input_size asks for '
                f'{wanted[0]}x{wanted[1]}: leave it empty, or export the model with dynamic '
                'sizes')
    else:
        size = tuple(wanted) if wanted is not None else _size_of_metadata(source, metadata)
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
            'set input_size (640x640, say), or export it with a fixed size') from None


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
    if min(size) < _MIN_SIDE:
        raise UserError(
            f'{source} takes images of {width}x{height}; both sides must be at least '
            f'{_MIN_SIDE}: export it with such a size')
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


def _keypoints(source: str, metadata: Mapping[str, str]) -> Tuple[int, int]:
    """Return (count, values of each), (0, 0) if the metadata has none."""
    text = metadata.get('kpt_shape')
    if text is None:
        return 0, 0
    try:
        count, values = read_numbers(text)
    except ValueError:
        count, values = 0, 0
    if not 0 < count <= MAX_KEYPOINTS or values not in (2, 3):
        raise UserError(
            f'kpt_shape in the metadata of {source} is {shown(text)}; [count, 2] or [count, 3] '
            f'with 1 to {MAX_KEYPOINTS} keypoints is expected: export it again')
    return count, values


def _choose(source: str, facts: Facts, said: CardFile) -> Tuple[str, Reading]:
    """
    Return (why, the reading) that alone fits best.

    :raises UnknownHead: if none fits, or two fit alike, with what to write into a card file.
    """
    heads = (BY_KEY[said.head],) if said.head else HEADS
    found = readings(facts, heads)
    outputs = ', '.join(map(str, facts.outputs))
    file = CardFile.name(source)
    if not found:
        wanted = ', '.join(heads[0].outputs) if said.head else 'one of a known kind'
        raise UnknownHead(
            f'{source} gives {one_line(outputs, 300) or "no output"}; {_missing(facts)}'
            f'a head ({wanted}) is needed for an input of {facts.size[0]}x{facts.size[1]}'
            + (f': correct {file}' if said.head else
               ': see "Your own model" in the README for those that are read'))
    best, reading = found[0]
    rivals = [other for evidence, other in found if evidence == best]
    if said.head:
        if len(rivals) == 1:
            return f'{file} says head: {said.head}', reading
    elif best > Evidence.POSSIBLE and len(rivals) == 1:
        return _WHY[best], reading
    alike = len({other.head for other in rivals}) < len(rivals)
    ways = [(f'"head: {other.head.key}" and "task: {other.task}"' if alike
             else f'"head: {other.head.key}"') + f' for {other.head.title}' for other in rivals]
    raise UnknownHead(
        f'{source} gives {one_line(outputs, 300)}, which '
        + (f'{len(rivals)} kinds of head give' if len(rivals) > 1 else 'proves too little')
        + f'; say which it is in a file {file} beside it: {" or ".join(ways)}',
        rivals)


_WHY = {
    Evidence.OWN: 'by the names of its outputs and the number of its classes',
    Evidence.NAMED: 'by the names of its outputs or its metadata',
    Evidence.CLASSES: 'by its shapes, with the classes that its metadata names',
    Evidence.SIZES: 'by its shapes'}


def _missing(facts: Facts) -> str:
    """Return what is odd about outputs that no head fits, as the beginning of a sentence."""
    if facts.task == 'pose' and not facts.keypoints[0]:
        return 'its metadata names no kpt_shape ("keypoints: [17, 3]" in a card file), and '
    if facts.classes:
        return f'with the {facts.classes} classes that are named '
    return ''
