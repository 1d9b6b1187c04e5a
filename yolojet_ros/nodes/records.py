"""The detector's records: from its images, results and parameters to a recorder."""

from __future__ import annotations

from functools import partial
import time
from typing import Any, Dict, Optional, Tuple

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.outputs.output import Result
from yolojet_ros.operate.records.bag import Topics
from yolojet_ros.operate.records.events import Event
from yolojet_ros.operate.records.params import OF_TRACKS
from yolojet_ros.operate.records.recorder import Camera, Recorder, Taken
from yolojet_ros.ros.topics import image_topic, of_camera

_QUALITY = 90  # of JPEG
_LONGEST_SIDE = 65500  # px, that libjpeg compresses


class Records:
    """
    What happened around events, kept while `record_on` says so; else there is nothing of it.

    All but `values` and `stop` is called by the thread of the frames, or while there is none.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._recorder: Optional[Recorder] = None
        self._used: Optional[DetectorParameters] = None
        self._backend: Optional[Backend] = None
        self._cameras: Dict[str, Camera] = {}  # that images came from

    def start(self, used: DetectorParameters, backend: Backend) -> None:
        """Begin, if the parameters say so."""
        self._backend = backend
        self.apply(used)
        if backend.card.task == 'classify' and set(used.records.record_on) & set(OF_TRACKS):
            self._node.get_logger().warning(
                f'record_on: {" and ".join(OF_TRACKS)} are of tracks, which a classifier has '
                'none of')

    def adopt(self, backend: Backend) -> None:
        """Take another model, whose results come from now on."""
        self._backend = backend
        self._cameras.clear()

    def apply(self, used: DetectorParameters) -> None:
        """Act by new parameters."""
        changed = self._used is None or used.records != self._used.records
        self._used = used
        self._cameras.clear()
        stopped = self._recorder is not None and bool(self._recorder.problem)
        if changed or stopped:
            self.stop(wait=False)
            if used.records.record_on:
                logger = self._node.get_logger()
                self._recorder = Recorder(used.records, logger.info, logger.warning)

    def stop(self, wait: bool = True) -> None:
        """Finish what is being recorded."""
        recorder, self._recorder = self._recorder, None
        if recorder:
            recorder.stop(wait)
        if wait:
            self._used = None

    def values(self, camera: str) -> Dict[str, str]:
        """Return what diagnostics say of a camera's records, nothing while they are off."""
        recorder = self._recorder
        return recorder.values(self._label(camera)) if recorder else {}

    def take(self, camera: Any, job: Any, detections: Any = None, error: str = '') -> None:
        """
        Take an image with its result.

        :param camera: that it is of (a WatchedCamera)
        :param job: the image on its way, None where there is none that can be used
        :param detections: what was published, None where the image has no result
        :param error: what went wrong, if something did
        """
        recorder = self._recorder
        if recorder is None:
            return
        now = time.time_ns()
        events = [Event('error', error)] if error else []
        source = self._camera(camera)
        if job is None:
            recorder.put(Taken(source, time.monotonic(), now, now, events=events))
            return
        header = job.message.header
        waited = time.perf_counter() - job.entered
        if detections is not None and detections.broken:
            events.append(Event('error', f'{detections.broken} rows of the network\'s output '
                                         'can be no detection'))
        recorder.put(Taken(
            source, time.monotonic() - waited, now - int(waited * 1e9), now,
            (header.stamp.sec, header.stamp.nanosec), header.frame_id,
            (job.view.width, job.view.height), partial(_compressed, job.message, job.view),
            None if detections is None else camera.outputs.packed(
                header, Result(job.view, detections)),
            detections, events))

    def _camera(self, camera: Any) -> Camera:
        found = self._cameras.get(camera.name)
        if found is None:
            event = self._node.resolve_topic_name(of_camera(camera.name, 'record_event'))
            filters = self._used.filters_of(camera.name).resolve(self._backend.card.names)
            topics = Topics(image_topic(self._node, True, camera.name),
                            *camera.outputs.result_topic, event)
            model = f'{self._backend.file or self._backend.card.source} ({self._backend.name})'
            found = self._cameras[camera.name] = Camera(
                self._label(camera.name), topics, filters.published, model)
        return found

    def _label(self, camera: str) -> str:
        space = self._node.get_namespace().strip('/').replace('/', '_')
        return '_'.join(filter(None, (space, camera)))[:100] or 'camera'


def _compressed(message: Any, view: ImageView) -> Optional[Tuple[str, bytes]]:
    """Return format and bytes of a CompressedImage: as it came, or JPEG; None if none can be."""
    if isinstance(message, CompressedImage):
        return message.format, np.frombuffer(message.data, np.uint8).tobytes()
    if max(view.width, view.height) > _LONGEST_SIDE:
        return None
    data = cv2.imencode('.jpg', view.bgr(), (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1]
    return 'bgr8; jpeg compressed bgr8', data.tobytes()
