"""Behaviour of the tracker: ids over time, life of a track, and bad input."""

from __future__ import annotations

from dataclasses import replace
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
import numpy as np
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking import create_tracker, TrackerParams, TrackState

RATE = 30.0


def box(x, y=100.0, w=40.0, h=80.0):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def feed(tracker, frame, *boxes, score=0.8, class_id=0, warp=None, rate=RATE):
    """Update with `boxes`, all of one score and class, at the time of a frame number."""
    n = len(boxes)
    return tracker.update(
        np.array(boxes, np.float32).reshape(n, 4), np.full(n, score, np.float32),
        np.full(n, class_id, np.int32), frame / rate, warp).tolist()


def test_id_comes_with_the_second_detection_and_stays():
    tracker = create_tracker()
    ids = [feed(tracker, k, box(100 + 3 * k, 100))[0] for k in range(20)]
    assert ids == [-1] + [1] * 19


def test_sure_detection_is_published_at_once():
    tracker = create_tracker()
    assert feed(tracker, 0, box(100, 100), score=0.95) == [1]


def test_low_score_keeps_a_track_and_never_starts_one():
    tracker = create_tracker()
    assert [feed(tracker, k, box(300, 100), score=0.3) for k in range(5)] == [[-1]] * 5
    for k in range(5, 10):
        feed(tracker, k, box(100, 100))
    assert feed(tracker, 10, box(101, 100), score=0.3) == [1]
    assert tracker.tracks[0].state == TrackState.CONFIRMED


def test_objects_that_cross_keep_their_ids():
    tracker = create_tracker()
    for k in range(60):
        ids = feed(tracker, k, box(100 + 5 * k, 100), box(400 - 5 * k, 110))
    assert ids == [1, 2]


@pytest.mark.parametrize('rate', [5.0, 15.0, 30.0, 100.0])
def test_gap_of_a_second_keeps_the_id_at_any_frame_rate(rate):
    tracker = create_tracker()
    frames = int(2 * rate)
    for k in range(frames):
        feed(tracker, k, box(100 + 30 * k / rate, 100), rate=rate)
    for k in range(frames, frames + int(rate)):
        assert feed(tracker, k, rate=rate) == []
    k = frames + int(rate)
    assert feed(tracker, k, box(100 + 30 * k / rate, 100), rate=rate) == [1]


def test_track_is_dropped_after_lost_seconds_and_its_id_never_comes_back():
    tracker = create_tracker(lost_seconds=0.5)
    for k in range(10):
        feed(tracker, k, box(100, 100))
    for k in range(10, 10 + 20):
        feed(tracker, k)
    assert tracker.tracks == []
    assert [feed(tracker, k, box(100, 100))[0] for k in (30, 31)] == [-1, 2]


def test_coasting_track_moves_and_is_not_published():
    tracker = create_tracker()
    for k in range(30):
        feed(tracker, k, box(100 + 4 * k, 100))
    feed(tracker, 35)
    track, = tracker.tracks
    assert track.state == TrackState.LOST
    assert track.unseen == pytest.approx(6 / RATE)
    assert track.velocity == pytest.approx((4 * RATE, 0), abs=5)
    assert (track.box[0] + track.box[2]) / 2 == pytest.approx(100 + 4 * 35, abs=5)


def test_warp_carries_tracks_through_a_pan_that_would_lose_them():
    shift = np.array([[1, 0, -60.0], [0, 1, 0]])
    still, moved = create_tracker(), create_tracker()
    for k in range(20):
        boxes = [box(1000 - 60 * k + 100 * j, 100) for j in range(6)]
        without = feed(still, k, *boxes)
        ids = feed(moved, k, *boxes, warp=shift)
    assert ids == [1, 2, 3, 4, 5, 6]
    assert without != ids


def test_class_is_voted_by_score():
    tracker = create_tracker()
    for k in range(20):
        feed(tracker, k, box(100, 100), class_id=5 if k % 4 == 2 else 3)
    assert tracker.tracks[0].class_id == 3
    for k in range(20, 50):
        feed(tracker, k, box(100, 100), class_id=7)
    assert tracker.tracks[0].class_id == 7
    assert tracker.tracks[0].id == 1


@pytest.mark.parametrize('vote, expected', [(False, [3, 9, 4]), (True, [1, 0, 4])])
def test_voted_class_is_published_when_asked_for(vote, expected):
    tracker = create_tracker(class_vote=vote)

    def show(k, classes):
        boxes = np.array([box(100), box(300), box(500)][:len(classes)])
        classes = np.array(classes, np.int32)
        ids = tracker.update(boxes, np.full(len(classes), 0.8), classes, k / RATE)
        return ids, tracker.published_classes(ids, classes)

    for k in range(9):
        show(k, [1, 0])
    ids, classes = show(9, [3, 9, 4])
    assert ids.tolist() == [1, 2, -1]
    assert classes.tolist() == expected and classes.dtype == np.int32


def test_duplicate_detection_starts_no_second_track():
    tracker = create_tracker()
    for k in range(5):
        ids = feed(tracker, k, box(100, 100), box(102, 101))
    assert sorted(ids) == [-1, 1]


def test_reset_forgets_tracks_and_goes_on_counting():
    tracker = create_tracker()
    feed(tracker, 0, box(100, 100), score=0.95)
    tracker.reset()
    assert tracker.tracks == []
    assert feed(tracker, 1, box(100, 100), score=0.95) == [2]


def test_parameters_change_between_updates_without_losing_tracks():
    tracker = create_tracker(max_tracks=50)
    for k in range(3):
        feed(tracker, k, box(100, 100), box(300, 100))
    tracker.set_params(replace(tracker.params, instant_score=0.5, max_tracks=60))
    assert feed(tracker, 3, box(100, 100), box(300, 100), box(500, 100)) == [1, 2, 3]
    tracker.set_params(replace(tracker.params, max_tracks=1))
    assert len(tracker.tracks) == 1


def test_each_parameter_says_its_range_and_refuses_what_is_outside():
    for name, knob in TrackerParams.__dataclass_fields__.items():
        assert 'aising' in knob.metadata['description']
        bads = [math.nan, 'much', None]
        if type(knob.default) is not bool:
            assert knob.metadata['minimum'] <= knob.default <= knob.metadata['maximum']
            bads.append(knob.metadata['maximum'] + 1)
        for bad in bads:
            with pytest.raises(UserError, match=name):
                TrackerParams(**{name: bad})
    with pytest.raises(UserError, match='no parameter'):
        create_tracker(colour=1)


def test_wrong_shapes_are_refused():
    tracker = create_tracker()
    with pytest.raises(ValueError, match='do not belong together'):
        tracker.update(np.zeros((2, 4)), np.zeros(3), np.zeros(3), 0.0)
    with pytest.raises(ValueError, match='warp'):
        feed(tracker, 0, box(1, 1), warp=np.eye(3))


# Bad input -------------------------------------------------------------------------------

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
COORDINATE = st.one_of(st.floats(-50, 700), ANY)


@st.composite
def frames(draw):
    n = draw(st.integers(0, 6))
    warps = st.one_of(st.none(), arrays(np.float64, (2, 3), elements=st.one_of(
        st.floats(-2, 2), ANY)))
    return (
        draw(arrays(np.float64, (n, 4), elements=COORDINATE)),
        draw(arrays(np.float64, n, elements=st.one_of(st.floats(0, 1), ANY))),
        draw(arrays(np.int64, n)),
        draw(st.one_of(st.floats(0, 3), ANY)),
        draw(warps))


@settings(max_examples=200, deadline=None)
@given(st.lists(frames(), max_size=12))
def test_any_input_gives_unique_new_or_known_ids(sequence):
    tracker, twin = create_tracker(max_tracks=4), create_tracker(max_tracks=4)
    for frame in sequence:
        ids = tracker.update(*frame)
        assert ids.dtype == np.int64 and ids.shape == (len(frame[1]),)
        assert (ids == twin.update(*frame)).all()
        published = ids[ids >= 0]
        assert len(set(published)) == len(published)
        boxes, scores = frame[0][ids >= 0], frame[1][ids >= 0]
        assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (scores >= 0.1).all()
        tracks = tracker.tracks
        assert len(tracks) <= 4
        held = [t.id for t in tracks if t.state != TrackState.TENTATIVE]
        assert len(set(held)) == len(held) and set(published) <= set(held)
        assert all(np.isfinite(t.box).all() and np.isfinite(t.velocity).all() for t in tracks)


def test_bad_boxes_and_scores_are_never_published_and_do_no_harm():
    tracker = create_tracker()
    for k in range(10):
        ids = feed(
            tracker, k, box(100, 100), [math.nan, 0, 10, 10], [0, 0, math.inf, 10],
            [50, 50, 40, 90], [60, 60, 60, 60], [-1e30, 0, 1e30, 10], score=0.95)
        assert ids == [1, -1, -1, -1, -1, -1]
    scores = np.array([math.nan, -3.0, 7.0])
    boxes = np.array([box(300, 100), box(400, 100), box(100, 100)])
    assert tracker.update(boxes, scores, np.zeros(3, int), 1 / 3).tolist() == [-1, -1, 1]
    assert tracker.tracks[0].score == 1.0


def test_ten_thousand_boxes_at_once():
    rng = np.random.default_rng(0)
    tracker = create_tracker(max_tracks=300)
    for k in range(4):
        corner = rng.uniform(0, 1000, (10000, 2))
        boxes = np.hstack((corner, corner + rng.uniform(1, 300, (10000, 2))))
        ids = tracker.update(boxes, rng.uniform(0, 1, 10000), np.zeros(10000, int), k / RATE)
        assert (ids >= 0).sum() <= 300
        assert len(tracker.tracks) <= 300


@pytest.mark.parametrize('stamps', [
    [0.0] * 40, [math.nan] * 40, [k / RATE - (k == 20) * 0.1 for k in range(40)]])
def test_stamps_that_stand_still_or_stumble_keep_ids(stamps):
    tracker = create_tracker()
    for k, stamp in enumerate(stamps):
        ids = tracker.update(
            np.array([box(100 + 4 * k, 100)]), np.array([0.8]), np.array([0]), stamp)
    assert ids.tolist() == [1]
    x1, _, x2, _ = tracker.tracks[0].box
    assert (x1 + x2) / 2 == pytest.approx(100 + 4 * 39, abs=3)


@pytest.mark.parametrize('jump', [3600.0, -3600.0])
def test_jump_of_an_hour_drops_all_tracks(jump):
    tracker = create_tracker()
    for k in range(10):
        feed(tracker, k, box(100, 100))
    tracker.update(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0.3 + jump)
    assert tracker.tracks == []


def test_minutes_of_empty_frames_leave_nothing_behind():
    tracker = create_tracker()
    feed(tracker, 0, box(100, 100), score=0.95)
    for k in range(1, 30 * 120):
        assert feed(tracker, k) == []
    assert tracker.tracks == []
    assert feed(tracker, 30 * 120, box(100, 100), score=0.95) == [2]


def test_memory_does_not_grow():
    import gc
    import pickle
    import tracemalloc
    rng = np.random.default_rng(1)
    tracker = create_tracker()

    def churn(first, frames):
        for k in range(first, first + frames):
            corner = rng.uniform(0, 600, (rng.integers(0, 40), 2))
            n = len(corner)
            tracker.update(
                np.hstack((corner, corner + 50)), rng.uniform(0, 1, n),
                rng.integers(0, 9, n), k / RATE)

    def objects():
        # Without arrays: NumPy before 1.22 counts the freed blocks that it keeps for later.
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.DomainFilter(False, np.lib.tracemalloc_domain)])
        return sum(trace.size for trace in traces.traces)

    churn(0, 300)
    tracemalloc.start()
    churn(300, 200)
    before, state = objects(), len(pickle.dumps(tracker))
    churn(500, 1000)
    after = objects()
    tracemalloc.stop()
    assert after - before < 20_000
    assert len(pickle.dumps(tracker)) - state < 20_000


@st.composite
def _films(draw):
    """Return frames (boxes, scores, classes, stamp, warp) of a few objects that come and go."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, frames, stamp = draw(st.integers(1, 8)), [], 0.0
    places, speeds = rng.uniform(0, 300, (count, 2)), rng.normal(0, 6, (count, 2))
    for _ in range(draw(st.integers(2, 40))):
        places = places + speeds
        seen = rng.random(count) > draw(st.sampled_from([0.0, 0.3]))
        centres = places[seen] + rng.normal(0, 1, (np.count_nonzero(seen), 2))
        stamp += draw(st.sampled_from([1 / 30, 1 / 30, 0.2, 0.0, 5.0, -1.0, math.nan]))
        warp = draw(st.sampled_from([None, np.array([[1, 0.01, 3], [-0.01, 1, -2]])]))
        frames.append((
            np.hstack((centres - 25, centres + 25)), rng.uniform(0.05, 1, len(centres)),
            rng.integers(0, 2, len(centres)), stamp, warp))
        stamp = 0.0 if math.isnan(stamp) else stamp
    return frames


@settings(max_examples=60, deadline=None)
@given(_films(), st.randoms(use_true_random=False))
def test_work_done_beforehand_or_later_changes_nothing(film, random):
    plain, early = (create_tracker(class_vote=True, confirm_hits=2) for _ in range(2))
    for boxes, scores, classes, stamp, warp in film:
        found = plain.update(boxes, scores, classes, stamp, warp)
        voted = plain.published_classes(found, classes)
        tracks = plain.tracks
        if random.random() < 0.5:
            early.expect(stamp, warp)
        given_ = boxes.copy(), scores.copy(), classes.copy()
        again = early.update(*given_, stamp, warp)
        for array in given_:  # the caller may use its arrays for the next frame
            array[:] = 1
        np.testing.assert_array_equal(again, found)
        if random.random() < 0.5:
            np.testing.assert_array_equal(early.published_classes(again, classes), voted)
        if random.random() < 0.3:
            assert early.tracks == tracks
    assert early.tracks == plain.tracks


def test_a_frame_that_was_expected_and_lost_is_passed_over():
    plain, early = create_tracker(), create_tracker()
    for frame in range(30):
        if frame == 20:
            early.expect(frame / RATE)  # and the network fails
            continue
        for tracker in (plain, early):
            ids = feed(tracker, frame, box(100 + 4 * frame))
    assert ids == [1]
    assert early.tracks[0].box == pytest.approx(plain.tracks[0].box, abs=0.5)
