"""Ids for detections over time; no ROS, no GPU."""

from yolojet_ros.tracking.params import TrackerParams
from yolojet_ros.tracking.track import Track, TrackState
from yolojet_ros.tracking.tracker import create_tracker, Tracker

__all__ = ['Track', 'TrackState', 'Tracker', 'TrackerParams', 'create_tracker']
