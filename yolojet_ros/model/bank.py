"""
Training images in the memory of the device, and batches of them augmented there.

Rendering runs once, in as many processes as there are cores; after that a batch
costs an index and one resampling on the GPU. Needs PyTorch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import PAD_VALUE
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.model.data import in_processes, LabelledImage, scene_still
from yolojet_ros.model.losses import Targets
from yolojet_ros.model.yolo_folder import YoloFolder
from yolojet_ros.sim.frame import KEYPOINT_FLIP
from yolojet_ros.sim.sprites import centred

# Cameras differ in shape: sizes of the rendered stills and how often each comes, of 8.
_SOURCES = (((640, 384), 5), ((640, 480), 1), ((640, 360), 1), ((320, 192), 1))
_SOURCE_OF_SEED = tuple(size for size, times in _SOURCES for _ in range(times))


class Prepared(NamedTuple):
    """
    A letterboxed image: uint8[3, h, w] RGB; its labels in its pixels, as in LabelledImage.

    What the task does not need is None.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    clear: np.ndarray
    instances: Optional[np.ndarray] = None
    rotated: Optional[np.ndarray] = None
    keypoints: Optional[np.ndarray] = None


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


def prepare(seed: int, size: Tuple[int, int], task: str = 'detect') -> Prepared:
    """Render the still of a seed and letterbox it to (width, height) as the runtime does."""
    source = _SOURCE_OF_SEED[seed % len(_SOURCE_OF_SEED)]
    return letterboxed(scene_still(seed, source, turned=task == 'obb'), size, task)


def _prepare_file(folder: YoloFolder, size: Tuple[int, int], image: Path) -> Prepared:
    return letterboxed(folder.labelled(image), size, folder.task)


def letterboxed(labelled: LabelledImage, size: Tuple[int, int], task: str) -> Prepared:
    """Letterbox an image to (width, height), and of its labels what the task needs."""
    tensor, letterbox = Letterboxer(size)(ImageView.from_bgr(labelled.image))
    image = np.rint(tensor[0] * 255).astype(np.uint8)
    left, top, right, bottom = letterbox.forward(np.float32([[0, 0, 100, 100]]))[0].tolist()
    shift, scale = np.float32([left, top]), np.float32([right - left, bottom - top]) / 100
    instances = rotated = keypoints = None
    if task == 'segment':
        matrix = centred(np.diag(scale.astype(float)), shift.astype(float))
        instances = cv2.warpAffine(labelled.instances, matrix, size, flags=cv2.INTER_NEAREST)
    elif task == 'pose':
        keypoints = labelled.keypoints.copy()
        keypoints[..., :2] = keypoints[..., :2] * scale + shift
    elif task == 'obb':
        rotated = labelled.rotated.copy()
        rotated[:, :2] = rotated[:, :2] * scale + shift
        rotated[:, 2:4] *= scale
    return Prepared(image, letterbox.forward(labelled.boxes), labelled.classes, labelled.clear,
                    instances, rotated, keypoints)


class ImageBank:
    """
    Images with their truth, on one device.

    images: uint8[n, 3, h, w] RGB; targets: padded to the most objects of any image;
    keypoint_flip: which keypoint becomes which in a mirror image, None if that is not known
    (images with keypoints are then not mirrored).
    """

    def __init__(
        self, images: torch.Tensor, targets: Targets,
        keypoint_flip: Optional[Sequence[int]] = KEYPOINT_FLIP,
    ) -> None:
        """Take tensors that are on the device already."""
        self.images = images
        self.targets = targets
        self.keypoint_flip = keypoint_flip

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def render(
        cls, count: int, first_seed: int, size: Tuple[int, int], device: torch.device,
        workers: int = 0, task: str = 'detect',
    ) -> ImageBank:
        """
        Render `count` stills of consecutive seeds.

        :param size: (width, height) of the network's input.
        :param workers: processes that render; 0 renders in this one.
        :param task: what the truth is for.
        """
        stills = in_processes(partial(prepare, size=size, task=task),
                              range(first_seed, first_seed + count), workers)
        return cls.fill(tqdm(stills, 'render', count, unit='image'), count, size, device)

    @classmethod
    def read(
        cls, folder: YoloFolder, files: Sequence[Path], size: Tuple[int, int],
        device: torch.device, workers: int = 0,
    ) -> ImageBank:
        """
        Read images of a data set with their labels.

        :raises UserError: as YoloFolder.labelled().
        """
        prepared = in_processes(partial(_prepare_file, folder, size), files, workers)
        return cls.fill(tqdm(prepared, 'read', len(files), unit='image'), len(files), size,
                        device, folder.keypoint_flip)

    @classmethod
    def fill(
        cls, prepared: Iterable[Prepared], count: int, size: Tuple[int, int],
        device: torch.device, keypoint_flip: Optional[Sequence[int]] = KEYPOINT_FLIP,
    ) -> ImageBank:
        """Take `count` letterboxed images of (width, height)."""
        images = torch.empty((count, 3, size[1], size[0]), dtype=torch.uint8)
        labels = []
        for index, still in enumerate(prepared):
            images[index] = torch.from_numpy(still.image)
            labels.append(still._replace(image=None))
        return cls(images.to(device), _pad(labels).each(lambda part: part.to(device)),
                   keypoint_flip)

    def batch(
        self, indices: torch.Tensor, recipe: Recipe, generator: torch.Generator,
    ) -> Tuple[torch.Tensor, Targets]:
        """
        Take the images of `indices`, augmented.

        :returns: images float[b, 3, h, w] RGB in 0..1 and their targets.
        """
        images = self.images[indices].float() / 255
        targets = self.targets.each(lambda part: part[indices])
        if targets.keypoints is not None and self.keypoint_flip is None:
            recipe = recipe._replace(flip=0.0)
        images, targets = _move(images, targets, recipe, generator, self.keypoint_flip)
        return _recolor(images, recipe, generator), targets


def _pad(labels: List[Prepared]) -> Targets:
    most = max((len(some.boxes) for some in labels), default=0)

    def padded(name: str, kind: torch.dtype) -> Optional[torch.Tensor]:
        parts = [getattr(some, name) for some in labels]
        if not parts or parts[0] is None:
            return None
        whole = torch.zeros((len(parts), most, *parts[0].shape[1:]), dtype=kind)
        for row, part in zip(whole, parts):
            row[:len(part)] = torch.from_numpy(part)
        return whole

    instances = None
    if labels and labels[0].instances is not None:
        instances = torch.from_numpy(np.stack([some.instances for some in labels]))
    empty = torch.zeros((len(labels), most, 4))
    boxes = padded('boxes', torch.float32)
    return Targets(
        empty if boxes is None else boxes, padded('classes', torch.int64),
        padded('clear', torch.bool), padded('rotated', torch.float32),
        padded('keypoints', torch.float32), instances)


def _move(
    images: torch.Tensor, targets: Targets, recipe: Recipe, generator: torch.Generator,
    keypoint_flip: Optional[Sequence[int]],
) -> Tuple[torch.Tensor, Targets]:
    """Mirror, scale and shift images together with their labels; the rest is padding."""
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
    factor = torch.cat((mirror * scale, scale), 1)[:, None, None]

    def moved(points: torch.Tensor) -> torch.Tensor:
        """Move points [b, n, k, 2]."""
        return ((points / sides * 2 - 1) * factor + shift[:, None, None] + 1) / 2 * sides

    corners = moved(targets.boxes.view(batch, -1, 2, 2))
    whole = torch.cat((corners.amin(2), corners.amax(2)), 2)
    boxes = torch.minimum(whole.clamp(0), sides.repeat(2))
    kept = _area(boxes) / _area(whole).clamp(1e-6)
    targets = targets._replace(boxes=boxes, learn=targets.learn & (kept > 0.4))
    if targets.instances is not None:
        shown = functional.grid_sample(
            targets.instances[:, None].float(), grid, mode='nearest', align_corners=False)
        targets = targets._replace(instances=shown[:, 0].to(torch.uint8))
    if targets.rotated is not None:
        old = targets.rotated
        targets = targets._replace(rotated=torch.cat((
            moved(old[:, :, None, :2])[:, :, 0], old[..., 2:4] * scale[..., None],
            old[..., 4:] * mirror[..., None]), 2))
    if targets.keypoints is not None:
        targets = targets._replace(keypoints=_move_keypoints(
            targets.keypoints, moved, mirror < 0, keypoint_flip, sides))
    return images, targets


def _move_keypoints(
    keypoints: torch.Tensor, moved: Callable[[torch.Tensor], torch.Tensor],
    mirrored: torch.Tensor, flip: Optional[Sequence[int]], sides: torch.Tensor,
) -> torch.Tensor:
    """Move keypoints [b, n, K, 3]; those that leave the image are no longer labelled."""
    places, shown = moved(keypoints[..., :2]), keypoints[..., 2:]
    within = ((places >= 0) & (places < sides)).all(-1, keepdim=True)
    result = torch.cat((places, shown * within), -1)
    if flip is None:
        return result
    return torch.where(mirrored[..., None, None], result[:, :, list(flip)], result)


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
