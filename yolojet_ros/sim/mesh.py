"""A small software renderer: shaded, textured convex facets seen from far away."""

from __future__ import annotations

from dataclasses import dataclass, field
import math
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np

Color = Tuple[float, float, float]

# Towards the light, in view coordinates: x right, y up, z to the viewer.
_LIGHT = np.array([-0.48, 0.72, 0.50], np.float32) / np.float32(np.linalg.norm(
    [-0.48, 0.72, 0.50]))
_SHIFT = 4
_OVERSAMPLING = 2


@dataclass
class Part:
    """
    A convex piece of an object, or one that is convex enough to paint back to front.

    :param quads: float32[m, 4, 3] corners in metres (y up), clockwise seen from outside,
        the first at the top left of the texture.
    :param normals: float32[m, 3], unit, outward.
    :param colors: float32[m, 3], BGR 0..255.
    :param gloss: strength of the highlight, 0..1.
    :param layer: parts of a higher layer are painted later.
    :param textures: one picture (uint8[h, w, 3]) for each facet, or None for flat colour.
    """

    quads: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    gloss: float = 0.1
    layer: int = 0
    textures: Sequence[Optional[np.ndarray]] = field(default_factory=list)


class Model:
    """All facets of one object as arrays, ready to be seen from any side."""

    def __init__(self, parts: Sequence[Part]):
        self.quads = np.concatenate([part.quads for part in parts]).astype(np.float32)
        self.normals = np.concatenate([part.normals for part in parts]).astype(np.float32)
        self.colors = np.concatenate([part.colors for part in parts]).astype(np.float32)
        counts = [len(part.quads) for part in parts]
        self.gloss = np.repeat([part.gloss for part in parts], counts).astype(np.float32)
        self.layers = np.repeat([part.layer for part in parts], counts)
        self.centres = np.repeat(
            [part.quads.reshape(-1, 3).mean(0) for part in parts], counts, axis=0)
        self.textures: List[Optional[np.ndarray]] = []
        for part, count in zip(parts, counts):
            self.textures += list(part.textures) or [None] * count
        points = self.quads.reshape(-1, 3)
        self.height = float(points[:, 1].max())
        self.radius = float(np.hypot(points[:, 0], points[:, 2]).max())

    def render(self, yaw: float, elevation: float, scale: float) -> Tuple[np.ndarray, np.ndarray]:
        """
        Paint the object as seen from `elevation` radians above the horizon.

        :param yaw: turn about the vertical axis in radians.
        :param scale: pixels per metre of the result.
        :returns: premultiplied uint8[h, w, 4] BGRA, and the origin (the middle of the
            object on the ground) in pixels of this picture.
        """
        view = _view_matrix(yaw, elevation)
        points = self.quads @ view.T
        normals = self.normals @ view.T
        seen = np.flatnonzero(normals[:, 2] > 1e-3)
        depth = points[seen, :, 2].mean(1)
        part_depth = self.centres[seen] @ view[2]
        order = seen[np.lexsort((depth, part_depth, self.layers[seen]))]
        factor = scale * _OVERSAMPLING
        flat = points[..., :2] * np.array([factor, -factor], np.float32)
        low = np.floor(flat.reshape(-1, 2).min(0)) - 2
        size = np.ceil((flat.reshape(-1, 2).max(0) - low + 2) / _OVERSAMPLING).astype(int)
        flat -= low
        image = np.zeros((size[1] * _OVERSAMPLING, size[0] * _OVERSAMPLING, 4), np.uint8)
        diffuse, highlight = _shade(normals)
        highlight = highlight * self.gloss * 200
        colors = np.clip(self.colors * diffuse[:, None] + highlight[:, None], 0, 255)
        fixed = np.round(flat * (1 << _SHIFT)).astype(np.int32)
        for index in order:
            texture = self.textures[index]
            if texture is None:
                blue, green, red = colors[index].tolist()
                cv2.fillConvexPoly(image, fixed[index], (blue, green, red, 255),
                                   cv2.LINE_8, _SHIFT)
            else:
                _paint_texture(image, flat[index], texture, float(diffuse[index]),
                               float(highlight[index]))
        small = cv2.resize(image, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
        return small, -low / _OVERSAMPLING


def _view_matrix(yaw: float, elevation: float) -> np.ndarray:
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0],
                     [-math.sin(yaw), 0, math.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(elevation), -math.sin(elevation)],
                     [0, math.sin(elevation), math.cos(elevation)]])
    return (tilt @ turn).astype(np.float32)


def _shade(normals: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the diffuse factor and the highlight of each normal (Blinn-Phong)."""
    lambert = np.clip(normals @ _LIGHT, 0, 1)
    sky = 0.5 + 0.5 * normals[:, 1]
    half = _LIGHT + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    return 0.34 + 0.22 * sky + 0.56 * lambert, np.clip(normals @ half, 0, 1) ** 24


def _paint_texture(image: np.ndarray, corners: np.ndarray, texture: np.ndarray,
                   diffuse: float, highlight: float) -> None:
    low = np.floor(corners.min(0)).astype(int)
    high = np.ceil(corners.max(0)).astype(int) + 1
    width, height = (high - low).tolist()
    rows, columns = texture.shape[:2]
    local = (corners - low).astype(np.float32)
    source = np.array([[-.5, -.5], [columns - .5, -.5], [columns - .5, rows - .5]], np.float32)
    matrix = cv2.getAffineTransform(source, local[:3])
    shaded = cv2.warpAffine(cv2.convertScaleAbs(texture, alpha=diffuse, beta=highlight), matrix,
                            (width, height), flags=cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.round(local * (1 << _SHIFT)).astype(np.int32), 255,
                       cv2.LINE_8, _SHIFT)
    target = image[low[1]:high[1], low[0]:high[0]]
    cv2.copyTo(cv2.cvtColor(shaded, cv2.COLOR_BGR2BGRA), mask, target)


def box(size: Sequence[float], centre: Sequence[float], color: Color, gloss: float = 0.1,
        layer: int = 0, textures: Sequence[Optional[np.ndarray]] = ()) -> Part:
    """Return a box; faces come as front, back, right, left, top, bottom."""
    sx, sy, sz = (value / 2 for value in size)
    front = [[-sx, sy, sz], [sx, sy, sz], [sx, -sy, sz], [-sx, -sy, sz]]
    back = [[sx, sy, -sz], [-sx, sy, -sz], [-sx, -sy, -sz], [sx, -sy, -sz]]
    right = [[sx, sy, sz], [sx, sy, -sz], [sx, -sy, -sz], [sx, -sy, sz]]
    left = [[-sx, sy, -sz], [-sx, sy, sz], [-sx, -sy, sz], [-sx, -sy, -sz]]
    top = [[-sx, sy, -sz], [sx, sy, -sz], [sx, sy, sz], [-sx, sy, sz]]
    bottom = [[-sx, -sy, sz], [sx, -sy, sz], [sx, -sy, -sz], [-sx, -sy, -sz]]
    quads = np.array([front, back, right, left, top, bottom], np.float32)
    normals = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]],
                       np.float32)
    return Part(quads + np.asarray(centre, np.float32), normals,
                np.tile(np.float32(color), (6, 1)), gloss, layer, textures)


def lathe(profile: Sequence[Tuple[float, float]], colors: np.ndarray, gloss: float = 0.1,
          layer: int = 0, segments: int = 32, centre: Sequence[float] = (0, 0, 0)) -> Part:
    """
    Turn a profile about the vertical axis.

    :param profile: k + 1 points (radius, height) in metres, from the top down.
    :param colors: float[k, 3] for rings, or float[k, segments, 3], BGR.
    """
    outline = np.asarray(profile, np.float32)
    angles = np.linspace(0, 2 * math.pi, segments + 1, dtype=np.float32)
    circle = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], 1)
    rings = outline[:, None, :1] * circle + outline[:, None, 1:] * np.float32([0, 1, 0])
    quads = np.stack([rings[:-1, :-1], rings[:-1, 1:], rings[1:, 1:], rings[1:, :-1]], 2)
    middle = (angles[:-1] + angles[1:]) / 2
    step = np.diff(outline, axis=0)
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6)
    normals = np.stack([
        -step[:, 1:] * np.sin(middle), np.repeat(step[:, :1], segments, 1),
        -step[:, 1:] * np.cos(middle)], 2)
    colors = np.asarray(colors, np.float32)
    if colors.ndim == 2:
        colors = np.repeat(colors[:, None], segments, 1)
    return Part(quads.reshape(-1, 4, 3) + np.asarray(centre, np.float32),
                normals.reshape(-1, 3), colors.reshape(-1, 3), gloss, layer)
