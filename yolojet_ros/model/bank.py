"""
Training images in the memory of the device, and batches of them augmented there.

Rendering runs once, in as many processes as there are cores; after that a batch
costs an index and one resampling on the GPU. Needs PyTorch.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Tuple

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.letterbox import Letterboxer, PAD_VALUE
from yolojet_ros.model.data import in_processes, scene_still
from yolojet_ros.model.losses import Targets

# Cameras differ in shape: sizes of the rendered stills and how often each comes, of 8.
_SOURCES = (((640, 384), 5), ((640, 480), 1), ((640, 360), 1), ((320, 192), 1))
_SOURCE_OF_SEED = tuple(size for size, times in _SOURCES for _ in range(times))


class Prepared(NamedTuple):
    """A letterboxed still: image uint8[3, h, w] RGB; boxes in its pixels; clear as in data."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    clear: np.ndarray


class Recipe(NamedTuple):
    """
    Augmentation, each a probability or a largest relative change; 0 switches one off.

    flip: probability of a mirror image
    zoom: probability of a change of scale and place
    scale: largest relative change of size
    shift: largest move as a share of the image's sides
    color: largest relative change of brightness, contrast and saturation
    noise: largest standard deviation of sensor noise, of a range 0..1
    """

    flip: float = 0.5
    zoom: float = 0.5
    scale: float = 0.3
    shift: float = 0.15
    color: float = 0.3
    noise: float = 0.03


def prepare(seed: int, size: Tuple[int, int]) -> Prepared:
    """Render the still of a seed and letterbox it to (width, height) as the runtime does."""
    still = scene_still(seed, _SOURCE_OF_SEED[seed % len(_SOURCE_OF_SEED)])
    tensor, letterbox = Letterboxer(size)(ImageView.from_bgr(still.image))
    image = np.rint(tensor[0] * 255).astype(np.uint8)
    return Prepared(image, letterbox.forward(still.boxes), still.classes, still.clear)


class ImageBank:
    """
    Stills with their truth, on one device.

    images: uint8[n, 3, h, w] RGB; targets: padded to the most objects of any still.
    """

    def __init__(self, images: torch.Tensor, targets: Targets) -> None:
        """Take tensors that are on the device already."""
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def render(
        cls, count: int, first_seed: int, size: Tuple[int, int], device: torch.device,
        workers: int = 0,
    ) -> ImageBank:
        """
        Render `count` stills of consecutive seeds.

        :param size: (width, height) of the network's input.
        :param workers: processes that render; 0 renders in this one.
        """
        images = torch.empty((count, 3, size[1], size[0]), dtype=torch.uint8)
        labels = []
        stills = in_processes(
            partial(prepare, size=size), range(first_seed, first_seed + count), workers)
        for index, still in enumerate(tqdm(stills, 'render', count, unit='image')):
            images[index] = torch.from_numpy(still.image)
            labels.append(still[1:])
        return cls(images.to(device), _pad(labels, device))

    def batch(
        self, indices: torch.Tensor, recipe: Recipe, generator: torch.Generator,
    ) -> Tuple[torch.Tensor, Targets]:
        """
        Take the stills of `indices`, augmented.

        :returns: images float[b, 3, h, w] RGB in 0..1 and their targets.
        """
        images = self.images[indices].float() / 255
        targets = Targets(*(part[indices] for part in self.targets))
        images, targets = _move(images, targets, recipe, generator)
        return _recolor(images, recipe, generator), targets


def _pad(labels: list, device: torch.device) -> Targets:
    most = max((len(boxes) for boxes, _, _ in labels), default=0)
    boxes = torch.zeros((len(labels), most, 4))
    classes = torch.zeros((len(labels), most), dtype=torch.int64)
    learn = torch.zeros((len(labels), most), dtype=torch.bool)
    for i, (some_boxes, some_classes, clear) in enumerate(labels):
        boxes[i, :len(some_boxes)] = torch.from_numpy(some_boxes)
        classes[i, :len(some_boxes)] = torch.from_numpy(some_classes)
        learn[i, :len(some_boxes)] = torch.from_numpy(clear)
    return Targets(boxes.to(device), classes.to(device), learn.to(device))


def _move(images: torch.Tensor, targets: Targets, recipe: Recipe, generator: torch.Generator):
    """Mirror, scale and shift images together with their boxes; the rest is padding."""
    batch, _, height, width = images.shape

    def uniform(low: float, high: float, columns: int = 1) -> torch.Tensor:
        values = torch.rand((batch, columns), device=images.device, generator=generator)
        return low + (high - low) * values

    zoomed = (uniform(0, 1) < recipe.zoom).float()
    scale = 1 + zoomed * uniform(-recipe.scale, recipe.scale)
    shift = zoomed * uniform(-2 * recipe.shift, 2 * recipe.shift, 2)
    mirror = torch.where(uniform(0, 1) < recipe.flip, -1.0, 1.0)
    # An output position p in -1..1 shows the input at (p - shift) / scale, mirrored in x.
    theta = torch.zeros((batch, 2, 3), device=images.device)
    theta[:, 0, 0] = (mirror / scale)[:, 0]
    theta[:, 1, 1] = (1 / scale)[:, 0]
    theta[:, 0, 2] = (-mirror * shift[:, :1] / scale)[:, 0]
    theta[:, 1, 2] = (-shift[:, 1:] / scale)[:, 0]
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    pad = PAD_VALUE / 255
    images = functional.grid_sample(images - pad, grid, align_corners=False) + pad

    sides = torch.tensor((width, height), device=images.device, dtype=torch.float32)
    corners = targets.boxes.view(batch, -1, 2, 2) / sides * 2 - 1
    factor = torch.cat((mirror * scale, scale), 1)[:, None, None]
    corners = (corners * factor + shift[:, None, None] + 1) / 2 * sides
    whole = torch.cat((corners.amin(2), corners.amax(2)), 2)
    boxes = torch.minimum(whole.clamp(0), sides.repeat(2))
    kept = _area(boxes) / _area(whole).clamp(1e-6)
    return images, targets._replace(boxes=boxes, learn=targets.learn & (kept > 0.4))


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _recolor(
    images: torch.Tensor, recipe: Recipe, generator: torch.Generator,
) -> torch.Tensor:
    """Change brightness, contrast and saturation of each image, and add noise."""
    if recipe.color == 0 and recipe.noise == 0:
        return images
    shape = (len(images), 1, 1, 1)
    brightness, contrast, saturation = (
        1 + recipe.color * (2 * torch.rand(
            shape, device=images.device, generator=generator) - 1) for _ in range(3))
    gray = images.mean(1, keepdim=True)
    images = gray + (images - gray) * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast) * brightness
    deviation = recipe.noise * torch.rand(shape, device=images.device, generator=generator)
    noise = torch.randn(images.shape, device=images.device, generator=generator)
    return (images + deviation * noise).clamp(0, 1)
