"""Sources of pictures and the schedule that they are read on."""

import cv2
from hypothesis import given, strategies as st
import numpy as np
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.sources import open_source, Schedule, SourceOptions


def _write_images(folder, names, size=(64, 48)):
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((size[1], size[0], 3), 10 * index, np.uint8))
    return folder


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """Return a video of 5 pictures at 12.5 Hz that grow brighter."""
    path = tmp_path_factory.mktemp('video') / 'five.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12.5, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 + 40 * index, np.uint8))
    writer.release()
    return path


def _brightness(image):
    return round(float(image.mean()) / 40) - 1


def test_scene_gives_the_same_film_for_the_same_seed_and_its_truth():
    first, second = (open_source('synthetic', SourceOptions(seed=4)) for _ in range(2))
    for _ in range(2):
        assert np.array_equal(first.read(), second.read())
    assert first.truth.image.shape == (384, 640, 3) and len(first.truth.boxes)
    assert first.rate == 30


def test_folder_is_read_in_natural_order_and_loops(tmp_path):
    folder = _write_images(tmp_path / 'images', ['2.png', '10.png', 'notes.txt.png', '1.bmp'])
    (folder / 'notes.txt').write_text('no image')
    source = open_source(folder)
    levels = [int(source.read()[0, 0, 0]) for _ in range(5)]
    assert levels == [30, 0, 10, 20, 30]
    once = open_source(folder, SourceOptions(loop=False))
    assert [once.read() is None for _ in range(5)] == [False] * 4 + [True]


def test_one_image_is_a_source(tmp_path):
    source = open_source(_write_images(tmp_path, ['a.jpg', 'b.jpg']) / 'b.jpg')
    assert [int(source.read()[0, 0, 0]) for _ in range(2)] == [10, 10]


def test_video_is_read_whole_at_its_own_rate_and_loops(video):
    source = open_source(video)
    assert source.rate == 12.5
    assert [_brightness(source.read()) for _ in range(7)] == [0, 1, 2, 3, 4, 0, 1]
    source.close()
    once = open_source(video, SourceOptions(loop=False, rate=50))
    assert once.rate == 50
    assert [once.read() is None for _ in range(6)] == [False] * 5 + [True]


def test_size_that_is_asked_for_is_given(tmp_path, video):
    options = SourceOptions(size=(32, 20))
    for name in (_write_images(tmp_path / 'images', ['a.png']), video):
        assert open_source(name, options).read().shape == (20, 32, 3)


@pytest.mark.parametrize('make, text', [
    (lambda path: path / 'nothing', 'neither a file nor a folder'),
    (lambda path: path, 'holds no images'),
    (lambda path: 9999, 'camera 9999 cannot be opened'),
    (lambda path: '/dev/video9999', 'camera /dev/video9999 cannot be opened'),
])
def test_a_source_that_is_none_is_named(tmp_path, make, text):
    with pytest.raises(UserError, match=text):
        open_source(make(tmp_path))


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / 'a.mp4').write_bytes(b'no video' * 100)
    with pytest.raises(UserError, match='cannot be read as a video'):
        open_source(tmp_path / 'a.mp4')
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='not an image that can be used'):
        open_source(tmp_path).read()


@pytest.mark.parametrize('size', [(640, 0), (0, 384), (-1, -1)])
def test_half_a_size_is_refused(size):
    with pytest.raises(UserError, match='both width and height'):
        open_source('synthetic', SourceOptions(size=size))


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), min_size=1, max_size=50))
def test_schedule_keeps_its_grid_and_counts_what_it_skips(rate, works):
    """Whatever each piece of work takes: never early, hardly late, no burst, all counted."""
    schedule = Schedule(rate)
    now = start = 100.0
    ticks, moments = [], []
    for work in works:
        due = schedule.next(now)
        now = max(now, due)
        ticks.append((due - start) * rate)
        moments.append((now - start) * rate)
        now += work / rate  # in periods
    assert ticks == pytest.approx([round(tick) for tick in ticks], abs=1e-6)
    assert schedule.skipped == round(ticks[-1]) + 1 - len(ticks)
    assert np.all(np.subtract(moments, ticks) <= 0.5 + 1e-6)
    assert np.all(np.diff(moments) >= 0.5 - 1e-6)


def test_schedule_does_not_drift():
    schedule = Schedule(30)
    moments = [schedule.next(schedule_now) for schedule_now in np.arange(3000) / 30 + 0.01]
    assert moments[-1] - moments[0] == pytest.approx(2999 / 30, abs=1e-6)
    assert schedule.skipped == 0


def test_faster_device_is_thinned_to_the_rate_asked_for():
    schedule = Schedule(10)
    arrivals = np.arange(600) / 60 + np.random.default_rng(0).normal(0, 0.001, 600)
    assert sum(map(schedule.reached, arrivals)) == pytest.approx(100, abs=1)
    slower = Schedule(10)
    assert all(map(slower.reached, np.arange(50) / 5))
