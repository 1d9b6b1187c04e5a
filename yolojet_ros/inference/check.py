"""Run a loaded model before it is used, and look at what it gives: one check for all backends."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple, TypeVar

import numpy as np

from yolojet_ros.core.card_file import CardFile
from yolojet_ros.core.decode import MAX_SCORE, sigmoid, Table
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import BY_KEY
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import PAD_VALUE
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.backend import Backend, BackendError

# What rounds a score of 1 up to MAX_SCORE rounds one of 0 down to this.
_LEAST_SCORE = -0.01
# Pixels; boxes of a whole head that all lie below it are given in 0..1 of the image.
_UNIT = 2.0
# Boxes before decoding are offsets to anchor points and logarithms of sides, in strides; those
# after it lie all over the input.
_MOST_OFFSET, _MOST_LOGARITHM = 16.0, 20.0
_BLOCK = 16

Loaded = TypeVar('Loaded', bound=Backend)


def checked(backend: Loaded) -> Loaded:
    """
    Return `backend` if it can run and gives what a detection head gives; else close it.

    :raises UserError: in one sentence, what is wrong with the model.
    """
    card = backend.card
    try:
        for name, view in _images(card.input_size):
            try:
                outputs = backend.look(view)
            except BackendError as error:
                raise UserError(
                    f'{card.source} cannot run on {name} of {view.width}x{view.height} '
                    f'({error}); export it again') from error
            fault = examine(outputs, card)
            if fault is not None:
                raise UserError(f'{card.source} gives {fault}')
        if not card.named:
            backend.warn(
                f'{card.source} names no classes, so they are called class_0, class_1, ...; list '
                f'them in {CardFile.name(card.source)} beside it: "names: [...]"')
        if backend.places > 1:
            backend.warn(
                f'{card.source} has a fixed batch of {backend.places}, so every run takes the '
                f'time of {backend.places}; export it with batch 1 or a dynamic batch')
    except BaseException:
        backend.close()
        raise
    return backend


def examine(outputs: Sequence[np.ndarray], card: ModelCard) -> Optional[str]:
    """
    Return what no head of the card's kind gives, None if all is well.

    :param outputs: of one image, as core.decode.Table takes them
    """
    if not all(np.isfinite(output).all() for output in outputs):
        return ('values that are infinite or NaN on a test image, as an overflow in FP16 does; '
                'export it in FP32')
    head = card.head.head
    table = Table(outputs, card.head)
    if card.task == 'classify':
        return _odd_scores(card, table.class_scores())
    boxes = table.take(head.box, 4)
    labels = np.zeros(0, np.float32) if head.label is None else table.one(head.label)
    if head.label is None:
        scores = table.class_scores()
        if head.logits:
            if scores.min(initial=0) >= 0:
                return ('class scores that are 0.5 at least, all of them, once the sigmoid is '
                        f'taken that {head.title} wants; {_say(card)}')
            scores = sigmoid(scores)
    else:
        scores = table.one(head.score)
    if head.label is not None and head.final:
        used = scores > 0  # the others are not used
        boxes, scores, labels = boxes[:, used], scores[used], labels[used]
    return (_odd_columns(card, table) or _odd_scores(card, scores) or _odd_boxes(card, boxes)
            or _odd_labels(card, labels))


def _odd_scores(card: ModelCard, scores: np.ndarray) -> Optional[str]:
    least, most = float(scores.min(initial=0)), float(scores.max(initial=0))
    if least < _LEAST_SCORE or most > MAX_SCORE:
        return (f'class scores from {least:.3g} to {most:.3g} on a test image, read as '
                f'{card.head.head.title}; scores of 0 to 1 are needed: export it with the '
                f'sigmoid at its end, or {_say(card)}')
    return None


def _odd_boxes(card: ModelCard, boxes: np.ndarray) -> Optional[str]:
    head, most = card.head.head, float(boxes.max(initial=0))
    if head.normalized and most > _UNIT:
        return (f'boxes up to {most:.4g} where 0..1 of the image is expected of '
                f'{head.title}; {_say(card)}')
    if head.grid:
        if most > _MOST_LOGARITHM:
            return (f'boxes up to {most:.4g} where offsets and logarithms are expected of '
                    f'{head.title}: they are decoded already; {_say(card)}')
        return None
    if not head.normalized and 0 < most < _UNIT:
        return (f'boxes in 0..1 of the image where pixels of its input are expected of '
                f'{head.title}: export it without normalization, or {_say(card)}')
    if not head.final and 0 < most < _MOST_OFFSET:
        return (f'boxes up to {most:.4g} where pixels of the whole input are expected of '
                f'{head.title}: export it with its boxes decoded, or {_say(card)}')
    return None


def _odd_labels(card: ModelCard, labels: np.ndarray) -> Optional[str]:
    if ((labels == np.rint(labels)) & (labels >= 0) & (labels < len(card.names))).all():
        return None
    return (f'a last value that is no class from 0 to {len(card.names) - 1}, read as '
            f'{card.head.head.title}; {_say(card)}')


def _odd_columns(card: ModelCard, table: Table) -> Optional[str]:
    """Return what shows that columns mean something else than the head's kind says."""
    head = card.head.head
    if head.ones is not None and not (table.one(head.ones) == 1).all():
        return f'other values than 1 in a column that is always 1 in {head.title}; {_say(card)}'
    if head.label is not None or head.columns_first:
        return None
    if head.ones is None and head.score.output == head.box.output and (
            table.one(head.box.right(4)) == 1).all():
        return (f'1 in all rows of a column that no {head.title} has so, as YOLOv6 does; '
                + _write(card, 'yolov6'))
    if card.head.classes == 2:
        last = table.class_scores()[1]
        if (last == np.rint(last)).all() and last.any():
            key = 'rtdetr_ultralytics_best' if head.final else 'deepstream'
            return ('whole numbers only as scores of the second class, so they are classes '
                    f'themselves, as in {BY_KEY[key].title}; {_write(card, key)}')
    return None


def _write(card: ModelCard, key: str) -> str:
    return f'write "head: {key}" into {CardFile.name(card.source)} beside it'


def _say(card: ModelCard) -> str:
    return f'say what it is ("head: ...") in {CardFile.name(card.source)} beside it'


def _images(size: Tuple[int, int]):
    """Return a blank and a colourful image, both of the network's size, with their names."""
    width, height = size
    rng = np.random.default_rng(0)
    blocks = rng.integers(16, 236, (-(-height // _BLOCK), -(-width // _BLOCK), 3), np.uint8)
    blank = np.full((height, width, 3), PAD_VALUE, np.uint8)
    colourful = blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]
    colourful = np.ascontiguousarray(colourful)
    return (('a blank image', ImageView.from_bgr(blank)),
            ('an image of random blocks', ImageView.from_bgr(colourful)))
