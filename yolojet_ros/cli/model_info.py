"""`model info`: what a file says of itself, as what it was recognised, and why."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple

from yolojet_ros.core.card_file import CardFile, KEY as CARD_KEY
from yolojet_ros.core.engine_card import EngineCard, sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import describe, needed
from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.model_card import ModelCard, UnknownHead
from yolojet_ros.core.tensors import TensorSpec
from yolojet_ros.core.text import listed, one_line

_LONGEST = 2000  # characters of a line
_SHORT = 120  # of a metadata value, after what matters
_OWN_DOMAINS = ('', 'ai.onnx', 'ai.onnx.ml')  # of operators that every runtime has
_FITS = {
    Fit.LETTERBOX: 'letterbox, centred', Fit.TOP_LEFT: 'letterbox in the top left corner',
    Fit.STRETCH: 'stretched to the input', Fit.CROP: 'the centre, cropped to the input'}


def print_onnx(path: Path, size: Optional[Tuple[int, int]]) -> None:
    """
    Print what an ONNX file is.

    :param size: (width, height) of the input, for a model that leaves it open
    :raises UserError: if it cannot be used; what it says of itself is printed before.
    """
    from yolojet_ros.model import onnx_file
    model = onnx_file.load(path)
    inputs, outputs = onnx_file.tensors(model)
    _line(f'{path.name}: {onnx_file.weight_count(model):,} weights, '
          f'{path.stat().st_size / 1e6:.1f} MB, opset {onnx_file.opset(model)}')
    metadata = onnx_file.metadata(model)
    _print_tensors(inputs, outputs)
    try:
        _print_reading(path, model, size)
    finally:
        _print_metadata(metadata)


def _print_reading(path: Path, model, size: Optional[Tuple[int, int]]) -> None:
    """Print what an ONNX model is read as, and whether it runs."""
    from yolojet_ros.inference.load import load_backend
    from yolojet_ros.model import onnx_file
    inputs, outputs = onnx_file.tensors(model)
    metadata = onnx_file.metadata(model)
    plugins = sorted({node.op_type for node in model.graph.node
                      if node.domain not in _OWN_DOMAINS})
    if plugins or find_spec('onnxruntime') is None:
        _print_card(_read(path.name, metadata, inputs, outputs, size), outputs)
        _line('  not checked: ' + (f'it needs {listed(plugins)}, which not every runtime has'
                                   if plugins else 'ONNX Runtime is not installed'))
        return
    try:
        # A run tells sizes that the file leaves open, too.
        backend = load_backend(path, 'onnxruntime', input_size=size)
    except UserError as error:
        if isinstance(error, UnknownHead):
            _print_choices(path.name, error)
        else:
            _print_card(_read(path.name, metadata, inputs, outputs, size), outputs)
        raise
    try:
        _print_card(backend.card, outputs)
        _line('  checked: ONNX Runtime runs it, and it gives what such a head gives on two images')
        for warning in backend.warnings:
            _line(f'  {warning}')
    finally:
        backend.close()


def print_engine(path: Path) -> None:
    """
    Print what the .json beside an engine says of it; no GPU is needed.

    :raises UserError: if there is none, or the engine cannot be used.
    """
    if not path.is_file():
        raise UserError(f'no engine at {path}; give the path of one')
    card = EngineCard.load(path)
    if card is None:
        raise UserError(
            f'{path.name} ({path.stat().st_size / 1e6:.1f} MB) has no {path.name}.json beside it, '
            'and without it only TensorRT on its GPU knows what is inside ("yolojet engine '
            f'inspect {path}"); "yolojet engine build" writes both')
    _line(f'{path.name}: {card.precision} engine, {path.stat().st_size / 1e6:.1f} MB, of '
          f'{card.onnx}, batch {card.batch}')
    _line(f'  built: {card.built_at or "?"} by TensorRT {card.tensorrt} on {card.gpu} (compute '
          f'capability {card.compute_capability}), profile {card.profile}; it runs there only')
    if card.plugins:
        _line(f'  needs the plugin libraries {listed(card.plugins)}')
    tensors = [(item.input, TensorSpec(item.name, item.dtype, tuple(item.shape)))
               for item in card.tensors]
    inputs = [spec for is_input, spec in tensors if is_input]
    outputs = [spec for is_input, spec in tensors if not is_input]
    metadata = {**card.metadata, **CardFile.metadata(path)}
    _print_tensors(inputs, outputs)
    _line(f'  build it again: {card.rebuild_command}')
    if card.engine_sha256 != sha256(path):
        raise UserError(f'{path.name} is not the file that its .json describes (half copied, or '
                        f'overwritten); build it again with: {card.rebuild_command}')
    try:
        _print_card(_read(path.name, metadata, inputs, outputs, None), outputs)
    finally:
        _print_metadata(metadata)


def _read(
    source: str, metadata: Mapping[str, str], inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec], size: Optional[Tuple[int, int]],
) -> ModelCard:
    """Return the card; where no head is known for sure, print what could be said, and raise."""
    try:
        return ModelCard.read(source, metadata, inputs, outputs, size)
    except UnknownHead as error:
        _print_choices(source, error)
        raise


def _print_tensors(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    for title, tensors in (('takes', inputs), ('gives', outputs)):
        _line(f'  {title}: {", ".join(map(str, tensors)) or "nothing"}')


def _print_metadata(metadata: Mapping[str, str]) -> None:
    """Print what else the file says, which is mostly long, each in a short line."""
    for key, value in sorted(metadata.items()):
        _line(f'  {"card file" if key == CARD_KEY else key}: {one_line(value, _SHORT)}')


def _print_card(card: ModelCard, outputs: Sequence[TensorSpec]) -> None:
    head = card.head.head
    _line(f'  read as: {describe(card.head, outputs)}')
    _line(f'  known: {card.evidence}')
    width, height = card.input_size
    takes = card.input
    values = 'bytes'
    smooth = ' with antialiasing' if takes.antialias else ''
    if takes.dtype != 'uint8':
        values = f'{takes.dtype}, bytes x {takes.scale:.4g}'
        if takes.dtype == 'int8':
            values += f' in steps of {takes.step:.4g}'
        if (takes.mean, takes.std) != (ImageInput.mean, ImageInput.std):
            values += f', less {list(takes.mean)}, by {list(takes.std)}'
    padding = f', padded with {takes.pad}' if takes.fit in (Fit.LETTERBOX, Fit.TOP_LEFT) else ''
    _line(f'  image: {width}x{height}, {_FITS[takes.fit]}{smooth}{padding}, '
          f'{takes.order.upper()}, {values}')
    if card.task != 'classify':
        form = ('cx, cy, w, h, angle' if card.task == 'obb' else
                'x1, y1, x2, y2' if card.head.corners else 'cx, cy, w, h')
        scores = ('logits' if head.logits else
                  'objectness x class' if head.objectness is not None else '0 to 1')
        _line(f'  boxes: {form} {"in 0..1" if head.normalized else "in pixels"} of the input; '
              f'scores: {scores}; NMS: {"none follows" if head.final else "follows"}')
    _line(f'  classes: {len(card.names)}: {listed(card.names)}')


def _print_choices(source: str, error: UnknownHead) -> None:
    """Print the lines of a card file that would say what the model does not."""
    if error.choices:
        _line(f'  it may be one of these; save the right line as {CardFile.name(source)} '
              'beside it:')
        for reading in error.choices:
            _line(f'    head: {reading.head.key} # {reading.head.title} ({reading.task})')
        return
    _line('  heads that are read (B images, A anchor points, N objects, C classes, E extra '
          'columns):')
    for key, text in needed().items():
        _line(f'    {key}: {text}')


def _line(text: str) -> None:
    """Print a line, indented as given; what strangers wrote into it stays one line."""
    print(' ' * (len(text) - len(text.lstrip(' '))) + one_line(text, _LONGEST))
