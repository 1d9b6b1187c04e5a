"""The synthetic scene: a seeded world of moving objects, its pictures and its truth."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Iterator, List

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.sim import objects
from yolojet_ros.sim.background import KINDS, panorama, View
from yolojet_ros.sim.camera import CameraMotion, Illumination, relative, Sensor
from yolojet_ros.sim.frame import CLASS_NAMES, frame_of, SceneFrame
from yolojet_ros.sim.sprites import (
    centred, compose, instance_map, Layer, marks_seen, measure_visibility, SpriteCache)
from yolojet_ros.sim.stills import sample

__all__ = ['CLASS_NAMES', 'Scene', 'SceneFrame', 'sample']

_EYE_METRES = 2.2
_NEAR, _FAR = 3.0, 9.0
_WORLD_MARGIN = 0.18
_HORIZON = 0.17
_PLACES = 3
_FADE_SECONDS = 1.5


@dataclass(frozen=True)
class _Actor:
    """One thing on the floor; a negative label stands for a pillar, which has no truth."""

    key: int
    label: int
    shape: objects.Shape
    speed: float
    spin: float
    bounce: float
    phase: float


class Scene:
    """
    An endless, seeded film of objects on a floor, with the truth of each frame.

    >>> scene = Scene(640, 384, seed=3)
    >>> scene.read().image.shape
    (384, 640, 3)

    :param width: of the image in pixels, 320 to 1920.
    :param height: of the image in pixels, 192 to 1080.
    :param seed: the same seed (and the same other arguments) gives the same frames.
    :param rate: frames per second of the world's time.
    :param object_count: objects in the world; some of them are out of sight at times.
    :param camera_motion: False keeps the camera still (`warp` is then the identity).
    :param occluders: pillars in the foreground that objects pass behind.
    :param place_seconds: how long the background stays before it fades into another.
    :raises UserError: if an argument is out of range.
    """

    def __init__(self, width: int = 640, height: int = 384, seed: int = 0, rate: float = 30.0,
                 object_count: int = 12, camera_motion: bool = True, occluders: int = 0,
                 place_seconds: float = 20.0):
        _check(width, height, seed, rate, object_count, occluders, place_seconds)
        rng = np.random.default_rng(seed)
        self._rng = rng
        self._size = (width, height)
        self._rate = rate
        self._index = 0
        self._place_seconds = place_seconds
        world = tuple(round(side * (1 + 2 * _WORLD_MARGIN)) for side in self._size)
        self._view = View(world, height * (_WORLD_MARGIN + _HORIZON), float(height), _EYE_METRES)
        # Four channels: OpenCV warps them three times as fast as three.
        self._places = [cv2.cvtColor(panorama(rng, self._view, kind), cv2.COLOR_BGR2BGRA)
                        for kind in rng.permutation(KINDS)[:_PLACES].tolist()]
        self._camera = CameraMotion(rng, self._size, world, camera_motion)
        self._illumination = Illumination(rng, self._size, 0.6)
        self._sensor = Sensor(rng, self._size)
        self._mood = rng.uniform(0, 2 * math.pi, 3)
        self._sprites = SpriteCache()
        self._ground = np.empty((height, width, 4), np.uint8)
        self._other_ground = np.empty((height, width, 4), np.uint8)
        self._hidden = np.empty((height, width), np.uint8)
        self._actors = self._cast(object_count, occluders)
        count = len(self._actors)
        self._radii = np.array([actor.shape.radius for actor in self._actors])
        self._speeds = np.array([actor.speed for actor in self._actors])
        self._position = self._waypoints(count)
        self._goal = self._waypoints(count)
        self._velocity = np.zeros((count, 2))
        self._heading = rng.uniform(0, 2 * math.pi, count)
        self._set_pillars(object_count)
        for _ in range(30):
            self._move(0.1)
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
        image = self._paint_ground(matrix, time)
        order = np.argsort(self._position[:, 1], kind='stable').tolist()
        zoom = math.hypot(matrix[0, 0], matrix[1, 0])
        front = [self._layer(index, matrix, zoom, time) for index in order]
        visibility = measure_visibility(front, self._hidden)
        compose(image, front, self._illumination.shade(time))
        self._expose(image, time)
        actors = [self._actors[index] for index in order]
        kept = [place for place, actor in enumerate(actors)
                if actor.label >= 0 and visibility[place] > 0]
        kept.sort(key=lambda place: actors[place].key)
        seen = [front[place] for place in kept]
        return frame_of(image, time, [layer.box for layer in seen],
                        [actors[place].label for place in kept],
                        [actors[place].key for place in kept], visibility[kept], warp,
                        instance_map(front, seen, self._size),
                        [layer.rotated for layer in seen],
                        [marks_seen(layer, front, self._size) for layer in seen])

    def _cast(self, count: int, pillars: int) -> List[_Actor]:
        segments = 40 if self._size[1] < 500 else 64
        actors = []
        labels = self._rng.permutation(np.arange(count) % len(CLASS_NAMES))
        for key, label in enumerate(labels.tolist()):
            kind = CLASS_NAMES[label]
            shape = objects.build(label, int(self._rng.integers(1 << 31)), segments)
            speed, spin, phase = self._rng.uniform((0.5, -0.6, 0), (1.5, 0.6, 2 * math.pi))
            bounce = self._rng.uniform(0.15, 0.8) if kind == 'ball' else 0.0
            actors.append(_Actor(key, label, shape, float(speed),
                                 0.0 if kind == 'robot' else float(spin), bounce, float(phase)))
        for key in range(count, count + pillars):
            shape = objects.pillar(int(self._rng.integers(1 << 31)))
            actors.append(_Actor(key, -1, shape, 0.0, 0.0, 0.0, 0.0))
        return actors

    def _set_pillars(self, first: int) -> None:
        """Spread the pillars over the view, nearer than the middle of the floor."""
        count = len(self._actors) - first
        away = self._rng.uniform(4.0, 5.5, count)
        spread = (np.arange(count) + 0.5 + self._rng.uniform(-0.2, 0.2, count)) / max(count, 1)
        across = (2 * spread - 1) * away * self._size[0] / 2 / self._view.focal
        self._position[first:] = self._goal[first:] = np.stack([across, away], 1)

    def _waypoints(self, count: int) -> np.ndarray:
        """Return float[count, 2] points (across, away) in metres; some are out of sight."""
        away = np.exp(self._rng.uniform(math.log(_NEAR), math.log(_FAR), count))
        half = away * self._view.size[0] / 2 / self._view.focal
        across = self._rng.uniform(-1, 1, count) * (half * 1.1 + 1.0)
        return np.stack([across, away], 1)

    def _move(self, step: float) -> None:
        """Walk towards the goals and keep out of each other's way."""
        way = self._goal - self._position
        distance = np.hypot(way[:, 0], way[:, 1])
        reached = np.flatnonzero((distance < 0.6) & (self._speeds > 0))
        if len(reached):
            self._goal[reached] = self._waypoints(len(reached))
        wish = way * (self._speeds / np.maximum(distance, 0.1))[:, None]
        gap = self._position[:, None] - self._position[None]
        between = np.hypot(gap[..., 0], gap[..., 1]) + 1e-6
        push = np.maximum(1 - between / (self._radii[:, None] + self._radii + 0.6), 0)
        np.fill_diagonal(push, 0)
        # The gap also turns aside, so that two who meet head-on get past each other.
        aside = np.stack([-gap[..., 1], gap[..., 0]], 2) * 0.4
        wish += ((gap + aside) * (push / between)[..., None]).sum(1) * 7
        moving = (self._speeds > 0)[:, None]
        self._velocity += (wish - self._velocity) * min(1.0, 2.0 * step) * moving
        self._position += self._velocity * step
        np.clip(self._position[:, 1], _NEAR * 0.8, _FAR * 1.2, self._position[:, 1])
        course = np.arctan2(self._velocity[:, 0], -self._velocity[:, 1])
        turn = (course - self._heading + math.pi) % (2 * math.pi) - math.pi
        self._heading += np.clip(turn, -2.5 * step, 2.5 * step)

    def _paint_ground(self, matrix: np.ndarray, time: float) -> np.ndarray:
        """Return the empty floor with what is behind it as uint8[H, W, 3]."""
        place, inside = divmod(time, self._place_seconds)
        current = int(place) % _PLACES
        ground = self._warp_place(current, matrix, self._ground)
        fade = (inside - self._place_seconds) / _FADE_SECONDS + 1
        if fade > 0:
            other = self._warp_place((current + 1) % _PLACES, matrix, self._other_ground)
            ground = cv2.addWeighted(ground, 1 - fade, other, fade, 0, self._ground)
        return cv2.cvtColor(ground, cv2.COLOR_BGRA2BGR)

    def _warp_place(self, place: int, matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(self._places[place], centred(matrix[:, :2], matrix[:, 2]),
                              self._size, target, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)

    def _layer(self, index: int, matrix: np.ndarray, zoom: float, time: float) -> Layer:
        actor = self._actors[index]
        across, away = self._position[index].tolist()
        scale = self._view.focal / away
        linear = matrix[:, :2]
        floor = np.array([self._view.size[0] / 2 + scale * across,
                          self._view.horizon + scale * _EYE_METRES])
        ground = linear @ floor + matrix[:, 2]
        lift = actor.bounce * abs(math.sin(2.5 * time + actor.phase)) * scale
        spinning = actor.phase + actor.spin * time
        yaw = spinning if actor.spin else float(self._heading[index])
        elevation = math.atan2(_EYE_METRES - 0.4, away)
        sprite = self._sprites.view(actor.key, actor.shape, yaw, elevation, scale * zoom)
        return Layer(sprite, linear * (scale / sprite.scale), ground + linear @ (0, -lift),
                     ground, self._size)

    def _expose(self, image: np.ndarray, time: float) -> None:
        """Let exposure wander, focus hunt now and then, and the gain raise the noise."""
        gain = 1.18 + 0.16 * math.sin(0.45 * time + self._mood[0])
        hunting = max(0.0, math.sin(0.31 * time + self._mood[1]) - 0.8) * 5
        noise = 2.5 + 1.5 * math.sin(0.23 * time + self._mood[2])
        self._sensor.expose(image, gain, noise, hunting * self._size[1] / 600)


def _check(width: int, height: int, seed: int, rate: float, count: int, pillars: int,
           seconds: float) -> None:
    if not (320 <= width <= 1920 and 192 <= height <= 1080):
        raise UserError(f'a scene of {width}x{height} pixels was asked for; '
                        'choose 320x192 to 1920x1080')
    if seed < 0:
        raise UserError(f'a scene with seed {seed} was asked for; choose 0 or above')
    if not 0 < rate <= 1000:
        raise UserError(f'a scene at {rate} frames per second was asked for; choose above 0 '
                        'and up to 1000')
    if not (0 <= count <= 200 and 0 <= pillars <= 20):
        raise UserError(f'a scene with {count} objects and {pillars} occluders was asked for; '
                        'choose up to 200 objects and 20 occluders')
    if not seconds > _FADE_SECONDS:
        raise UserError(f'a background for {seconds} seconds was asked for; choose more than '
                        f'{_FADE_SECONDS}')
