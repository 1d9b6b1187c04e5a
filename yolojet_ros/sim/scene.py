"""The synthetic scene: a seeded world of moving objects, its pictures and its truth."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Iterator, List, Tuple

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.sim import background, objects
from yolojet_ros.sim.camera import CameraMotion, relative, Sensor
from yolojet_ros.sim.frame import CLASS_NAMES, SceneFrame
from yolojet_ros.sim.mesh import Model
from yolojet_ros.sim.sprites import hide, Layer, SpriteCache, visible_pixels
from yolojet_ros.sim.stills import sample

__all__ = ['CLASS_NAMES', 'Scene', 'SceneFrame', 'sample']

_EYE_HEIGHT = 2.2
_NEAR, _FAR = 3.2, 14.0
_WORLD_MARGIN = 0.18
_HORIZON = 0.16


@dataclass
class _Actor:
    """One thing that stands or moves on the floor; ids below 0 carry no truth."""

    key: int
    label: int
    model: Model
    speed: float
    spin: float
    bounce: float
    phase: float


class Scene:
    """
    An endless, seeded film of objects on a floor, with the truth of each frame.

    >>> scene = Scene(640, 384, seed=3)
    >>> frame = scene.read()
    >>> frame.image.shape
    (384, 640, 3)

    :param width: of the image in pixels, 320 to 1920.
    :param height: of the image in pixels, 192 to 1080.
    :param seed: the same seed gives the same frames.
    :param rate: frames per second of the world's time.
    :param objects_count: number of objects in the world; some are out of sight at times.
    :param moving_camera: False keeps the camera still (`warp` is then the identity).
    :param occluders: number of pillars that objects pass behind.
    """

    def __init__(self, width: int = 640, height: int = 384, seed: int = 0, rate: float = 30.0,
                 objects_count: int = 12, moving_camera: bool = True, occluders: int = 0):
        if not (320 <= width <= 1920 and 192 <= height <= 1080):
            raise UserError(f'a scene of {width}x{height} pixels was asked for; '
                            f'choose 320x192 to 1920x1080')
        if not rate > 0:
            raise UserError(f'a scene at {rate} frames per second was asked for; '
                            f'choose a rate above 0')
        self._size = (width, height)
        self._rate = rate
        self._index = 0
        rng = np.random.default_rng(seed)
        world = (round(width * (1 + 2 * _WORLD_MARGIN)), round(height * (1 + 2 * _WORLD_MARGIN)))
        self._focal = float(height)
        self._principal = world[0] / 2
        self._horizon = height * (_WORLD_MARGIN + _HORIZON)
        self._background = background.panorama(rng, world, self._horizon)
        self._camera = CameraMotion(rng, self._size, world, moving_camera)
        self._sensor = Sensor(rng, self._size)
        self._sprites = SpriteCache()
        self._hidden = np.zeros((height, width), np.uint8)
        self._image = np.empty((height, width, 3), np.uint8)
        self._half_view = world[0] / 2 / self._focal
        self._rng = rng
        self._actors = self._cast(objects_count)
        self._position = self._waypoints(len(self._actors))
        self._goal = self._waypoints(len(self._actors))
        self._velocity = np.zeros_like(self._position)
        self._heading = rng.uniform(0, 2 * math.pi, len(self._actors))
        self._matrix = self._camera.matrix(0.0)

    def __iter__(self) -> Iterator[SceneFrame]:
        return self

    def __next__(self) -> SceneFrame:
        return self.read()

    def read(self) -> SceneFrame:
        """Return the next frame; its arrays belong to the caller."""
        time = self._index / self._rate
        if self._index:
            self._move(1 / self._rate)
        self._index += 1
        matrix = self._camera.matrix(time)
        warp = relative(self._matrix, matrix)
        self._matrix = matrix
        image = np.empty((self._size[1], self._size[0], 3), np.uint8)
        shift = matrix.copy()
        shift[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        cv2.warpAffine(self._background, shift, self._size, image, cv2.INTER_LINEAR,
                       cv2.BORDER_REFLECT_101)
        layers, grounds = self._place(matrix, time)
        visible = self._measure(layers)
        order = np.argsort(-self._position[:, 1], kind='stable')
        for index in order:
            layers[index].cast_shadow(image, grounds[index])
        for index in order:
            layers[index].paint(image)
        self._sensor.expose(image, 1.0 + 0.12 * math.sin(0.5 * time), 3.0, 0.0)
        return self._frame(image, time, layers, visible, warp)

    def _cast(self, count: int) -> List[_Actor]:
        actors = []
        labels = self._rng.permutation(np.arange(count) % len(CLASS_NAMES))
        for key, label in enumerate(labels.tolist()):
            seed = int(self._rng.integers(1 << 31))
            ball = CLASS_NAMES[label] == 'ball'
            actors.append(_Actor(
                key, label, objects.build(label, seed), self._rng.uniform(0.5, 1.5),
                self._rng.uniform(-0.8, 0.8), self._rng.uniform(0.2, 0.8) if ball else 0.0,
                self._rng.uniform(0, 2 * math.pi)))
        return actors

    def _waypoints(self, count: int) -> np.ndarray:
        """Return float[count, 2] points (across, away) in metres; some are out of sight."""
        away = np.exp(self._rng.uniform(math.log(_NEAR), math.log(_FAR), count))
        across = self._rng.uniform(-1, 1, count) * (away * self._half_view * 1.1 + 1.0)
        return np.stack([across, away], 1)

    def _move(self, step: float) -> None:
        """Walk towards the goals and keep out of each other's way."""
        reached = np.flatnonzero(np.hypot(*(self._goal - self._position).T) < 0.6)
        if len(reached):
            self._goal[reached] = self._waypoints(len(reached))
        way = self._goal - self._position
        speeds = np.array([actor.speed for actor in self._actors])
        wish = way / np.linalg.norm(way, axis=1, keepdims=True) * speeds[:, None]
        gap = self._position[:, None] - self._position[None]
        distance = np.linalg.norm(gap, axis=2) + 1e-6
        radii = np.array([actor.model.radius for actor in self._actors])
        push = np.clip(1 - distance / (radii[:, None] + radii[None] + 0.5), 0, None)
        np.fill_diagonal(push, 0)
        wish += (gap / distance[..., None] * push[..., None]).sum(1) * 6
        self._velocity += (wish - self._velocity) * min(1.0, 1.5 * step)
        self._position += self._velocity * step
        self._position[:, 1] = np.clip(self._position[:, 1], _NEAR * 0.8, _FAR * 1.2)

    def _place(self, matrix: np.ndarray, time: float) -> Tuple[List[Layer], List[np.ndarray]]:
        layers, grounds = [], []
        zoom = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
        for actor, (across, away) in zip(self._actors, self._position.tolist()):
            scale = self._focal / away
            point = np.array([self._principal + scale * across,
                              self._horizon + scale * _EYE_HEIGHT])
            lift = actor.bounce * abs(math.sin(2.5 * time + actor.phase)) * scale
            ground = matrix[:, :2] @ point + matrix[:, 2]
            foot = matrix[:, :2] @ (point - (0, lift)) + matrix[:, 2]
            yaw = actor.phase + actor.spin * time
            elevation = math.atan2(_EYE_HEIGHT - 0.4, away)
            sprite = self._sprites.view(actor.key, actor.model, yaw, elevation, scale * zoom)
            layers.append(Layer(sprite, matrix[:, :2] * (scale / sprite.scale), foot, self._size))
            grounds.append(ground)
        return layers, grounds

    def _measure(self, layers: List[Layer]) -> np.ndarray:
        """Return the visible fraction of each layer's silhouette."""
        self._hidden[:] = 0
        visible = np.zeros(len(layers), np.float32)
        for index in np.argsort(self._position[:, 1], kind='stable'):
            layer = layers[index]
            visible[index] = min(1.0, visible_pixels(layer, self._hidden) / max(layer.area, 1e-6))
            hide(layer, self._hidden)
        return visible

    def _frame(self, image: np.ndarray, time: float, layers: List[Layer], visible: np.ndarray,
               warp: np.ndarray) -> SceneFrame:
        kept = np.flatnonzero(visible > 0)
        boxes = np.array([layers[i].full_box for i in kept], np.float32).reshape(-1, 4)
        width, height = self._size
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        return SceneFrame(
            image, time, boxes, np.array([self._actors[i].label for i in kept], np.int32),
            np.array([self._actors[i].key for i in kept], np.int64), visible[kept], warp)
