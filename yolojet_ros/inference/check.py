"""Run a loaded model before it is used, and look at what it gives: one check for all backends."""

from __future__ import annotations

from typing import Optional, Tuple, TypeVar

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import MAX_SCORE
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.letterbox import PAD_VALUE
from yolojet_ros.core.model_card import HeadLayout, ModelCard
from yolojet_ros.inference.backend import Backend, BackendError

# What rounds a score of 1 up to MAX_SCORE rounds one of 0 down to this.
_LEAST_SCORE = -0.01
# Pixels; boxes of a whole head that all lie below it are given in 0..1 of the image.
_UNIT = 2.0
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
                output = backend.look(view)
            except BackendError as error:
                raise UserError(
                    f'{card.source} cannot run on {name} of {view.width}x{view.height} '
                    f'({error}); export it again') from error
            fault = examine(output, card)
            if fault is not None:
                raise UserError(f'{card.source} gives {fault}')
        if backend.places > 1:
            backend.warn(
                f'{card.source} has a fixed batch of {backend.places}, so every image takes the '
                f'time of {backend.places}; export it with batch 1 or a dynamic batch')
    except BaseException:
        backend.close()
        raise
    return backend


def examine(output: np.ndarray, card: ModelCard) -> Optional[str]:
    """
    Return what no detection head of the card's layout gives, None if all is well.

    :param output: float32, of one image, without the batch dimension
    """
    if not np.isfinite(output).all():
        return ('values that are infinite or NaN on a test image, as an overflow in FP16 does; '
                'export it in FP32')
    rows = output.T if card.layout is HeadLayout.RAW else output
    boxes, scores, labels = rows[:, :4], rows[:, 4:], np.zeros(0)
    if card.layout.final:
        rows = rows[rows[:, 4] > 0]  # the others are not used
        boxes, scores, labels = rows[:, :4], rows[:, 4], rows[:, 5]
    least, most = float(scores.min(initial=0)), float(scores.max(initial=0))
    if least < _LEAST_SCORE or most > MAX_SCORE:
        return (f'class scores from {least:.3g} to {most:.3g} on a test image; scores of 0 to 1 '
                'are needed: export it with the sigmoid at its end')
    if 0 < boxes.max(initial=0) < _UNIT:
        return ('boxes in 0..1 of the image; boxes in pixels of its input are needed: export it '
                'without normalization')
    if not ((labels == np.rint(labels)) & (labels >= 0) & (labels < len(card.names))).all():
        return (f'rows of six whose last value is no class from 0 to {len(card.names) - 1}; '
                'x1, y1, x2, y2, score, class are needed (a head with two classes and no NMS '
                'looks alike): use a model with a YOLOv8 head')
    return None


def _images(size: Tuple[int, int]):
    """Return a blank and a colourful image, both of the network's size, with their names."""
    width, height = size
    rng = np.random.default_rng(0)
    blocks = rng.integers(16, 236, (height // _BLOCK, width // _BLOCK, 3), np.uint8)
    blank = np.full((height, width, 3), PAD_VALUE, np.uint8)
    colourful = blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    return (('a blank image', ImageView.from_bgr(blank)),
            ('an image of random blocks', ImageView.from_bgr(colourful)))
