"""A small software renderer: shaded, textured facets and balls seen from far away."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np

Color = Tuple[float, float, float]
Points = Sequence[Sequence[float]]

# Towards the light, in view coordinates: x right, y up, z to the viewer.
_LIGHT = np.array([-0.48, 0.72, 0.50], np.float32) / np.float32(math.sqrt(0.9988))
_HALF = (_LIGHT + np.float32([0, 0, 1])) / np.float32(math.sqrt(3.0))
_SHIFT = 4
_OVERSAMPLING = 2
_SMALLEST_TEXTURE = 8
# Metres above the ground up to which a corner belongs to the foot.
_FOOT = 0.03


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
    :param textures: one picture for each facet, or None for flat colour; uint8[h, w, 3], or
        uint8[h, w, 4] where an alpha below 128 leaves a hole.
    """

    quads: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    gloss: float = 0.1
    layer: int = 0
    textures: Sequence[Optional[np.ndarray]] = ()

    def turned(self, matrix: Points, shift: Sequence[float] = (0, 0, 0)) -> Part:
        """Return the part turned by a 3 x 3 rotation, then moved."""
        rotation = np.asarray(matrix, np.float32).T
        return Part(self.quads @ rotation + np.asarray(shift, np.float32),
                    self.normals @ rotation, self.colors, self.gloss, self.layer, self.textures)


class Model:
    """
    All facets of one object as arrays, ready to be seen from any side.

    :ivar height: metres from the ground to the highest point.
    :ivar radius: metres from the vertical axis to the farthest point.
    :ivar directed: whether it looks turned when it is turned in the picture.
    """

    directed = True

    def __init__(self, parts: Sequence[Part]):
        counts = [len(part.quads) for part in parts]
        self._quads = np.concatenate([part.quads for part in parts]).astype(np.float32)
        self._normals = np.concatenate([part.normals for part in parts]).astype(np.float32)
        self._gloss = np.repeat([220 * part.gloss for part in parts], counts).astype(np.float32)
        self._layers = np.repeat([part.layer for part in parts], counts)
        self._centres = np.repeat(
            [part.quads.reshape(-1, 3).mean(0) for part in parts], counts, axis=0)
        # Little light reaches what is close to the ground.
        open_sky = 0.74 + 0.26 * np.clip(self._quads[..., 1].mean(1) / 0.35, 0, 1)
        self._colors = np.concatenate([part.colors for part in parts]).astype(np.float32)
        self._colors *= open_sky[:, None]
        textures: List[Optional[np.ndarray]] = []
        for part, count in zip(parts, counts):
            textures += list(part.textures) or [None] * count
        self._holes = [texture is not None and texture.shape[2] == 4 for texture in textures]
        # One pyramid for a texture that several facets share.
        pyramids = {id(texture): _pyramid(texture if texture.shape[2] == 4 else cv2.cvtColor(
            texture, cv2.COLOR_BGR2BGRA)) for texture in textures if texture is not None}
        self._textures = [None if texture is None else pyramids[id(texture)]
                          for texture in textures]
        points = self._quads.reshape(-1, 3)
        self.height = float(points[:, 1].max())
        self.radius = float(np.hypot(points[:, 0], points[:, 2]).max())
        # What stands on the ground: corners that the lowest facets share, once each.
        self._foot = np.unique(points[points[:, 1] < _FOOT].round(4), axis=0)

    def render(self, yaw: float, elevation: float, scale: float) -> Tuple[np.ndarray, np.ndarray]:
        """
        Paint the object as seen from `elevation` radians above the horizon.

        :param yaw: turn about the vertical axis in radians.
        :param scale: pixels per metre of the result.
        :returns: premultiplied uint8[h, w, 4] BGRA, and the origin (the middle of the
            object on the ground) in continuous pixels of this picture.
        """
        view = _view_matrix(yaw, elevation)
        normals = self._normals @ view.T
        seen = np.flatnonzero(normals[:, 2] > 1e-3)
        points = self._quads[seen] @ view.T
        order = np.lexsort((points[:, :, 2].sum(1), self._centres[seen] @ view[2],
                            self._layers[seen]))
        seen, points = seen[order], points[order]
        factor = scale * _OVERSAMPLING
        flat = points[..., :2] * np.array([factor, -factor], np.float32)
        low = np.floor(flat.min((0, 1))) - 2
        width, height = np.ceil((flat.max((0, 1)) - low + 2) / _OVERSAMPLING).astype(int).tolist()
        flat -= low
        image = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING, 4), np.uint8)
        diffuse, highlight = _shade(normals[seen])
        highlight *= self._gloss[seen]
        colors = np.full((len(seen), 4), 255, np.float32)
        colors[:, :3] = np.minimum(self._colors[seen] * diffuse[:, None] + highlight[:, None], 255)
        fixed = np.rint(flat * (1 << _SHIFT)).astype(np.int32)
        shades = zip(seen.tolist(), fixed, colors.tolist())
        for position, (index, corners, color) in enumerate(shades):
            if self._textures[index] is None:
                cv2.fillConvexPoly(image, corners, color, cv2.LINE_8, _SHIFT)
            else:
                _paint_texture(image, flat[position], self._textures[index],
                               self._holes[index], float(diffuse[position]),
                               float(highlight[position]))
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return small, -low / _OVERSAMPLING


    def marks(self, yaw: float, elevation: float) -> np.ndarray:
        """
        Place the keypoints (frame.KEYPOINT_NAMES) in a view; see render().

        :returns: float64[4, 2], metres right of and below the origin.
        """
        view = _view_matrix(yaw, elevation).astype(np.float64)
        foot = self._foot @ view.T
        ends = foot[[foot[:, 0].argmin(), foot[:, 0].argmax()], :2]
        return _with_axis(self.height, elevation, ends * (1, -1))


class Ball:
    """
    A ball that lies on the ground.

    :param texture: uint8[h, 2h, 3], longitude by latitude.
    :param axis: 3 x 3 rotation of the pattern.
    """

    directed = False

    def __init__(self, texture: np.ndarray, radius: float, axis: np.ndarray, gloss: float):
        # One column again at the seam, so that interpolation wraps.
        self._texture = [np.concatenate([level, level[:, :1]], 1) for level in _pyramid(texture)]
        self._axis = axis.astype(np.float32)
        self._gloss = 220 * gloss
        self.radius = radius
        self.height = 2 * radius

    def render(self, yaw: float, elevation: float, scale: float) -> Tuple[np.ndarray, np.ndarray]:
        """Paint the ball; see Model.render."""
        radius = self.radius * scale
        half = math.ceil(radius + 1)
        across = (np.arange(2 * half, dtype=np.float32) - (half - 0.5)) / np.float32(radius)
        normals = np.empty((2 * half, 2 * half, 3), np.float32)
        normals[..., 0] = across
        normals[..., 1] = -across[:, None]
        squared = across ** 2 + across[:, None] ** 2
        normals[..., 2] = np.sqrt(np.maximum(1 - squared, 0))
        normals /= np.maximum(np.sqrt(squared), 1)[..., None]
        local = cv2.transform(normals, self._axis @ _view_matrix(yaw, elevation).T)
        east, up, south = cv2.split(local)
        longitude = cv2.phase(south, east) * np.float32(0.5 / math.pi)
        latitude = cv2.phase(up, cv2.magnitude(east, south)) * np.float32(1 / math.pi)
        level = 0
        while level + 1 < len(self._texture) and len(self._texture[level]) > 2.8 * radius:
            level += 1
        texture = self._texture[level]
        rows, columns = texture.shape[:2]
        albedo = cv2.remap(texture, longitude * np.float32(columns - 1),
                           latitude * np.float32(rows) - np.float32(0.5), cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)
        diffuse, highlight = _shade(normals.reshape(-1, 3))
        diffuse *= 0.80 + 0.20 * np.clip(normals[..., 1].ravel() + 0.9, 0, 1)
        alpha = np.clip((1 - np.sqrt(squared)) * radius + 0.5, 0, 1)
        color = albedo.reshape(-1, 3) * diffuse[:, None] + (highlight * self._gloss)[:, None]
        pixels = np.empty((2 * half, 2 * half, 4), np.uint8)
        np.minimum(color, 255, out=color)
        pixels[..., :3] = color.reshape(albedo.shape) * alpha[..., None]
        pixels[..., 3] = alpha * 255
        foot = half + radius * math.cos(elevation)
        return pixels, np.array([half, foot])

    def marks(self, yaw: float, elevation: float) -> np.ndarray:
        """Place the keypoints; its left and right are those of its outline."""
        middle = -self.radius * math.cos(elevation)
        ends = np.array([[-self.radius, middle], [self.radius, middle]])
        return _with_axis(self.height, elevation, ends)


def _with_axis(height: float, elevation: float, ends: np.ndarray) -> np.ndarray:
    """Put top and foot of the vertical axis before the points left and right."""
    return np.concatenate([[[0, -height * math.cos(elevation)], [0, 0]], ends])


def _pyramid(texture: np.ndarray) -> List[np.ndarray]:
    """Return the texture and its halves."""
    levels = [texture]
    while min(levels[-1].shape[:2]) >= 2 * _SMALLEST_TEXTURE:
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2),
                                 interpolation=cv2.INTER_AREA))
    return levels


def _view_matrix(yaw: float, elevation: float) -> np.ndarray:
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0],
                     [-math.sin(yaw), 0, math.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(elevation), -math.sin(elevation)],
                     [0, math.sin(elevation), math.cos(elevation)]])
    return (tilt @ turn).astype(np.float32)


def _shade(normals: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the diffuse factor and the highlight of each normal (Blinn-Phong, a bright sky)."""
    lambert = np.maximum(normals @ _LIGHT, 0)
    sky = 0.5 + 0.5 * normals[:, 1]
    shine = np.maximum(normals @ _HALF, 0)
    shine *= shine
    shine *= shine
    shine *= shine
    return 0.36 + 0.24 * sky + 0.58 * lambert, shine ** 4 + 0.12 * shine


def _paint_texture(image: np.ndarray, corners: np.ndarray, levels: List[np.ndarray], holes: bool,
                   diffuse: float, highlight: float) -> None:
    low = np.floor(corners.min(0)).astype(int)
    width, height = (np.ceil(corners.max(0)).astype(int) + 1 - low).tolist()
    local = (corners - low).astype(np.float32)
    extent = max(np.hypot(*(local[1] - local[0])), np.hypot(*(local[3] - local[0])))
    level = 0
    while level + 1 < len(levels) and max(levels[level].shape[:2]) > 1.5 * extent:
        level += 1
    shaded = cv2.multiply(levels[level], (diffuse, diffuse, diffuse, 1.0))
    if highlight > 1:
        shaded = cv2.add(shaded, (highlight, highlight, highlight, 0.0))
    rows, columns = shaded.shape[:2]
    source = np.array([[-.5, -.5], [columns - .5, -.5], [columns - .5, rows - .5]], np.float32)
    matrix = cv2.getAffineTransform(source, local[:3] - np.float32(0.5))
    warped = cv2.warpAffine(shaded, matrix, (width, height), flags=cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(local * (1 << _SHIFT)).astype(np.int32), 255,
                       cv2.LINE_8, _SHIFT)
    if holes:
        cv2.bitwise_and(mask, cv2.compare(cv2.extractChannel(warped, 3), 127, cv2.CMP_GT), mask)
    cv2.copyTo(warped, mask, image[low[1]:low[1] + height, low[0]:low[0] + width])


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


def panel(size: Sequence[float], centre: Sequence[float], front: np.ndarray, back: np.ndarray,
          gloss: float = 0.1, layer: int = 0) -> Part:
    """Return a thin upright sheet with a texture on each side."""
    sheet = box((size[0], size[1], 0.02), centre, (0, 0, 0), gloss, layer)
    return Part(sheet.quads[:2], sheet.normals[:2], sheet.colors[:2], gloss, layer,
                [front, back])


def lathe(profile: Points, colors: np.ndarray, gloss: float = 0.1, layer: int = 0,
          segments: int = 32, phase: float = 0.0) -> Part:
    """
    Turn a profile about the vertical axis.

    :param profile: k + 1 points (radius, height) in metres, from the top down.
    :param colors: float[k, 3] for rings, or float[k, segments, 3], BGR.
    :param phase: where the first segment begins, in segments.
    """
    outline = np.asarray(profile, np.float32)
    angles = (np.arange(segments + 1, dtype=np.float32) + phase) * (2 * math.pi / segments)
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
    return Part(quads.reshape(-1, 4, 3), normals.reshape(-1, 3), colors.reshape(-1, 3), gloss,
                layer)
