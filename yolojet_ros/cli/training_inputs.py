"""What several commands of `yolojet model` ask for before they begin."""

from __future__ import annotations

from typing import Tuple

from yolojet_ros.core.errors import UserError


def image_size(text: str) -> Tuple[int, int]:
    """
    Parse WIDTHxHEIGHT of a network input.

    :raises UserError: if a side is not a positive multiple of 32.
    """
    from yolojet_ros.core.knob_values import parse_size
    width, height = parse_size('the input size', text.lower()) or (0, 0)
    if width < 32 or height < 32 or width % 32 or height % 32:
        raise UserError(
            f'the input size {width}x{height} does not suit YOLOv8; both sides must be '
            'multiples of 32')
    return width, height


def require_torch() -> None:
    """Raise a UserError that says how to get PyTorch where it is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        from yolojet_ros.core.installing import install_command
        raise UserError(
            f'this command needs PyTorch; run "{install_command("torch")}"') from error
