"""The demo's observer: pairs results with images, measures, draws and sums up."""

from __future__ import annotations

from collections import defaultdict, deque
import json
from pathlib import Path
import queue
import sys
import threading
import time
from typing import Any, Deque, Dict, List, Optional, Tuple

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import Image
from tqdm import tqdm
from vision_msgs.msg import Detection2D, Detection2DArray

from yolojet_ros.core.compressed_images import write_image
from yolojet_ros.core.drawing import (
    Color, color_of, draw_masks, draw_outline, Labels, NO_TRACK)
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.video import video_file
from yolojet_ros.ros import parameters
from yolojet_ros.ros.images import view_of_image
from yolojet_ros.ros.messages import corners_of
from yolojet_ros.ros.spin import run_node

_TRAIL = 30  # frames
_WAITING_IMAGES = 60
_WAITING_MASKS = 10  # results that wait for theirs
_SETTLE_SECONDS = 3.0  # for the last results after the camera's end
_VIDEO_WIDTH = 960


class MonitorNode(parameters.CheckedParameters, Node):
    """
    Watch one camera and one detector until the camera has finished.

    Leaves `summary.json` and, if it draws, `annotated.png` and `annotated.mp4` in the
    folder `out`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('monitor', **kwargs)
        parameters.declare(self, 'out', '.', 'Folder for the results.', read_only=True)
        parameters.declare(self, 'seconds', 10.0, 'Expected duration, for the progress bar.',
                           0.0, 1e6, read_only=True)
        parameters.declare(self, 'draw', True, 'Draw the picture and the video.', read_only=True)
        self.out = Path(self.get_parameter('out').value)
        self._images: Dict[Tuple[int, int], Image] = {}
        self._latencies: List[float] = []
        self._ids: set = set()
        self._classes: Dict[str, int] = defaultdict(int)
        self._last: Tuple[int, int] = (0, 0)
        self._camera: Dict[str, str] = {}
        self._detector: Dict[str, str] = {}
        self._watching = False
        self._first_result: Optional[float] = None
        self._finished_at: Optional[float] = None
        self._summary: Optional[Dict[str, Any]] = None
        self._refusal = ''
        self._artist: Optional[_Artist] = None
        self._masked = False
        self._held: Deque[Tuple[Image, Detection2DArray]] = deque()  # until their masks come
        if self.get_parameter('draw').value:
            self._start_drawing()
        self.create_subscription(Detection2DArray, 'detections', self._on_detections, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 50)
        self._bar = tqdm(
            total=round(self.get_parameter('seconds').value, 1), unit='s', file=sys.stdout,
            bar_format='{n:.0f}/{total:.0f} s |{bar:20}| {desc}', mininterval=0.5)
        self._bar.set_description_str('waiting for the first result')
        self.create_timer(0.5, self._tick)

    def _start_drawing(self) -> None:
        self._artist = _Artist(self.out)
        images = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10,
                            reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, 'image_raw', self._on_image, images)
        self.create_subscription(Image, 'instance_mask', self._on_mask, 10)

    # ---- what arrives

    def _on_image(self, message: Image) -> None:
        self._images[_key(message.header)] = message
        if len(self._images) > _WAITING_IMAGES:
            del self._images[next(iter(self._images))]  # the oldest: nothing came of it

    def _on_detections(self, message: Detection2DArray) -> None:
        now = self.get_clock().now()
        stamp = Time.from_msg(message.header.stamp, self.get_clock().clock_type)
        self._latencies.append((now - stamp).nanoseconds * 1e-6)
        if self._first_result is None:
            self._first_result = time.monotonic()
        ids = [item.id for item in message.detections if item.id]
        self._ids.update(ids)
        for item in message.detections:
            self._classes[item.results[0].hypothesis.class_id] += 1
        self._last = (len(message.detections), len(ids))
        image = self._images.pop(_key(message.header), None)
        if image is not None and self._artist:
            self._held.append((image, message))
            self._draw_held(_WAITING_MASKS if self._masked else 0)

    def _on_mask(self, message: Image) -> None:
        self._masked = True
        keys = [_key(result.header) for _, result in self._held]
        if _key(message.header) in keys:
            self._draw_held(len(keys) - keys.index(_key(message.header)))
            self._artist.add(*self._held.popleft(), message)

    def _draw_held(self, most: int = 0) -> None:
        """Draw the oldest results that wait, without masks, until `most` are left."""
        while len(self._held) > most:
            self._artist.add(*self._held.popleft(), None)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        namespace = self.get_namespace().rstrip('/')
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if status.name == f'{namespace}/camera: camera':
                self._camera = values
            elif status.name == f'{namespace}/detector: detector':
                self._detector = values

    # ---- progress and end

    def _tick(self) -> None:
        now = time.monotonic()
        if not self._watching and self.count_publishers('detections'):
            self._watching = True
            self.get_logger().info('watching')
        if not self._watching and self.count_publishers('classification'):
            self._refusal = (
                'the model is a classifier, and there are no detections to watch; take a model '
                'for detect, segment, pose or obb')
            self.context.try_shutdown()
            return
        if self._first_result is not None:
            elapsed = now - self._first_result
            recent = self._latencies[-30:]
            self._bar.n = min(elapsed, self._bar.total)
            self._bar.set_description_str(
                f'{len(self._latencies) / max(elapsed, 1e-3):5.1f} results/s, latency '
                f'{np.median(recent):5.1f} ms, {self._last[0]:2d} detections, '
                f'{self._last[1]:2d} tracks, {len(self._ids):3d} ids so far')
        # Its last word may be lost, and its end in the graph may not.
        gone = self._camera and not self.count_publishers('image_raw')
        if self._camera.get('finished') != 'True' and not gone:
            return
        self._finished_at = self._finished_at or now
        received = int(self._detector.get('received', 0))
        complete = received >= int(self._camera['published']) and self._drained()
        if complete or now - self._finished_at > _SETTLE_SECONDS:
            self._summary = self.summary()
            self.context.try_shutdown()

    def _drained(self) -> bool:
        return int(self._detector.get('processed', 0)) <= len(self._latencies)

    def summary(self) -> Dict[str, Any]:
        """Return the figures of the run."""
        detector = self._detector
        received = int(detector.get('received', 0))
        # A camera that ended without a last word has published more than it last said.
        published = max(int(self._camera.get('published', 0)), received)
        latencies = self._latencies or [float('nan')]
        return {
            'frames': {
                'published': published,
                'received': received,
                'lost_in_transport': published - received,
                'processed': int(detector.get('processed', 0)),
                'dropped': {key[len('dropped_'):]: int(value) for key, value in detector.items()
                            if key.startswith('dropped_')},
                'skipped_by_camera': int(self._camera.get('skipped', 0)),
                'results_received': len(self._latencies),
            },
            'detections': sum(self._classes.values()),
            'detections_by_class': dict(sorted(self._classes.items())),
            'distinct_ids': len(self._ids),
            'latency_ms': {'p50': round(float(np.percentile(latencies, 50)), 3),
                           'p99': round(float(np.percentile(latencies, 99)), 3)},
            'stages_ms_p50': {key[:-len('_ms_p50')]: float(value)
                              for key, value in detector.items() if key.endswith('_ms_p50')},
            'backend': detector.get('backend'),
            'model': detector.get('model'),
            'input_size': detector.get('input_size'),
            'type_hash': self._type_hash(),
        }

    def _type_hash(self) -> Optional[str]:
        """Return the type hash of the results; such hashes came with Iron."""
        infos = self.get_publishers_info_by_topic('detections')
        return str(infos[0].topic_type_hash) if infos and hasattr(
            infos[0], 'topic_type_hash') else None

    def close(self) -> None:
        """
        Write the results.

        :raises UserError: if they cannot be written, or there was nothing to watch.
        """
        self._bar.close()
        try:
            if self._artist:
                self._draw_held()
                self._artist.close()
            if self._summary:
                with atomic_path(self.out / 'summary.json') as path:
                    path.write_text(json.dumps(self._summary, indent=2) + '\n')
        finally:
            self.destroy_node()
        if self._refusal:
            raise UserError(self._refusal)


class _Artist:
    """Draws and encodes in a thread of its own, so that latencies stay honest."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._queue: queue.Queue = queue.Queue(maxsize=300)
        self._trails: Dict[str, Deque[Tuple[int, int]]] = {}
        self._frames = 0
        self._failure: Optional[UserError] = None
        self._best: Tuple[int, Optional[np.ndarray]] = (0, None)
        self._thread = threading.Thread(target=self._main, name='artist', daemon=True)
        self._thread.start()

    def add(self, image: Image, result: Detection2DArray, mask: Optional[Image]) -> None:
        """Draw a result on its image; skipped if the thread is far behind."""
        try:
            self._queue.put_nowait((image, result, mask))
        except queue.Full:
            pass

    def close(self) -> None:
        """
        Finish the video and the picture.

        :raises UserError: if they could not be written.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._failure:
            raise self._failure

    def _main(self) -> None:
        try:
            with video_file(self._out / 'annotated.mp4') as add:
                for item in iter(self._queue.get, None):
                    add(_fit_width(self._draw(*item), _VIDEO_WIDTH))
            if self._best[1] is not None:
                write_image(self._out / 'annotated.png', self._best[1])
        except UserError as error:
            self._failure = error

    def _draw(
        self, image: Image, result: Detection2DArray, mask: Optional[Image],
    ) -> np.ndarray:
        picture = view_of_image(image).bgr().copy()
        if mask is not None:
            draw_masks(picture, view_of_image(mask).samples(), list(map(_color, result.detections)))
        thickness = max(round(picture.shape[0] / 360), 1)
        seen = {item.id: item for item in result.detections if item.id}
        self._trails = {track: self._trails.get(track, deque(maxlen=_TRAIL)) for track in seen}
        for track, item in seen.items():
            center = item.bbox.center.position
            self._trails[track].append((round(center.x), round(center.y)))
            points = np.array(self._trails[track], np.int32)
            cv2.polylines(picture, [points], False, color_of(int(track)), thickness, cv2.LINE_AA)
        for item in result.detections:
            draw_outline(picture, corners_of(item.bbox), _color(item), thickness)
        labels = Labels(picture, thickness)
        for item in result.detections:
            labels.write(_label(item), corners_of(item.bbox), _color(item))
        self._frames += 1
        # Some time into the film, when the trails have grown.
        if self._frames > _TRAIL and len(seen) > self._best[0]:
            self._best = (len(seen), picture)
        return picture


def _color(item: Detection2D) -> Color:
    return color_of(int(item.id)) if item.id else NO_TRACK


def _label(item: Detection2D) -> str:
    hypothesis = item.results[0].hypothesis
    track = f' #{item.id}' if item.id else ''
    return f'{hypothesis.class_id}{track} {hypothesis.score:.2f}'


def _key(header: Any) -> Tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec


def _fit_width(picture: np.ndarray, width: int) -> np.ndarray:
    if picture.shape[1] <= width:
        return picture
    height = round(picture.shape[0] * width / picture.shape[1] / 2) * 2
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def main(args: Optional[List[str]] = None) -> int:
    """Run the monitor until the camera has finished, or it is interrupted; return the code."""
    return run_node(MonitorNode, args)


if __name__ == '__main__':
    sys.exit(main())
