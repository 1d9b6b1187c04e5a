"""The pipeline: what the tracker is shown."""

import numpy as np
import pytest

from models import NAMES, raw_output
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.head import anchor_count, raw_reading
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.backend import HostBackend
from yolojet_ros.pipeline import Pipeline
from yolojet_ros.tracking import Tracker, TrackerParams

_SIZE = (320, 192)
_VIEW = ImageView.from_bgr(np.zeros((192, 320, 3), np.uint8))


class _Network(HostBackend):
    """A network that sees one box with a score of our choice."""

    def __init__(self):
        super().__init__(ModelCard(
            source='test', names=NAMES, input_size=_SIZE, stride=32,
            head=raw_reading(anchor_count(_SIZE), len(NAMES))))
        self.score = 0.9

    def run(self, tensor):
        return [raw_output([[160, 96, 80, 60]], [[self.score, 0, 0]], _SIZE)[0]]


def _id_after_weak_frames(pipeline, start):
    """Return (id before, id after) a second in which the box scores 0.06 only."""
    network = pipeline.backend
    scores = [0.9] * 5 + [0.06] * 30 + [0.9] * 5
    ids = []
    for index, network.score in enumerate(scores):
        frame = pipeline.process(_VIEW, start + index / 30)
        ids += frame.detections.ids.tolist()
        assert len(frame.detections) == (network.score > 0.25)
    assert ids[4] > 0
    return ids[4], ids[-1]


def test_low_score_acts_below_a_tenth_and_live():
    params = dict(lost_seconds=0.5, recover_seconds=0.0)
    tracker = Tracker(TrackerParams(**params))
    pipeline = Pipeline(_Network(), FilterParams(), tracker)
    before, after = _id_after_weak_frames(pipeline, 100.0)
    assert before != after, 'weak boxes are not looked at'
    tracker.set_params(TrackerParams(low_score=0.04, **params))
    before, after = _id_after_weak_frames(pipeline, 200.0)
    assert before == after, 'weak boxes keep the track'


@pytest.mark.parametrize('low_score', [0.0, 0.3, 1.0])
def test_low_score_hides_nothing_from_the_user(low_score):
    pipeline = Pipeline(_Network(), FilterParams(score_threshold=0.2),
                        Tracker(TrackerParams(low_score=low_score)))
    pipeline.backend.score = 0.25
    assert len(pipeline.process(_VIEW, 1.0).detections) == 1
