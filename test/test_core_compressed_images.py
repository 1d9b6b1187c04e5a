"""JPEG and PNG as cameras send them, and as nobody should."""

import time

import cv2
import numpy as np
import pytest

from image_samples import (
    animated, CMYK, EOI, huge_png, interlaced_png, jpeg, picture, PROGRESSIVE, resized_header,
    with_profile, with_thumbnail, without_tables)

from yolojet_ros.core.compressed_images import decode, read_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_formats import ImageError

_PICTURES = {
    'baseline': jpeg(),
    'best quality': jpeg(cv2.IMWRITE_JPEG_QUALITY, 100),
    'own tables': jpeg(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    'restarts': jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    'gray': jpeg(image=picture()[..., 0]),
    'progressive': jpeg(*PROGRESSIVE),
    'thumbnail': with_thumbnail(jpeg()),
    'motion JPEG': without_tables(jpeg()),
    'PNG': cv2.imencode('.png', picture())[1].tobytes(),
    'interlaced PNG': interlaced_png(),
}
_JPEGS = [name for name in _PICTURES if 'PNG' not in name]


def _decode(data, **options):
    return decode(np.frombuffer(data, np.uint8), **options)


@pytest.mark.parametrize('name', _PICTURES)
def test_a_whole_picture_is_decoded(name):
    image = _decode(_PICTURES[name])
    assert image.dtype == np.uint8 and image.shape == (45, 61, 3)
    tolerance = 0 if 'PNG' in name else 40  # chroma of noise is lost in JPEG
    if name != 'gray':
        assert np.abs(image.astype(int) - picture()).mean() <= tolerance


@pytest.mark.parametrize('name', _PICTURES)
def test_wherever_a_picture_is_cut_no_wrong_pixel_comes_of_it(name):
    data = _PICTURES[name]
    whole, accepted = _decode(data), []
    for length in range(len(data)):
        try:
            image = _decode(data[:length])
        except ImageError as error:
            assert error.cause == 'decode'
            continue
        accepted.append(length)
        np.testing.assert_array_equal(image, whole, f'{length} of {len(data)} bytes')
    # What is not missed: the end marker, checksums behind the last pixel, the bits that fill
    # up the last byte.
    assert all(length >= len(data) - 16 for length in accepted), accepted


@pytest.mark.parametrize('name', [name for name in _JPEGS if name != 'progressive'])
def test_a_jpeg_without_its_end_marker_is_whole(name):
    data = _PICTURES[name]
    assert data.endswith(EOI)
    for cut in (1, 2):
        np.testing.assert_array_equal(_decode(data[:-cut]), _decode(data))


@pytest.mark.parametrize('tail', [
    bytes(5000), b'\xff' * 64, bytes(range(256)) * 9, EOI, b'\xff\xd8\xff\xe0'],
    ids=['zeros', 'ones', 'garbage', 'second end', 'next picture'])
@pytest.mark.parametrize('name', _JPEGS)
def test_what_follows_the_end_of_a_jpeg_does_not_matter(name, tail):
    data = _PICTURES[name]
    np.testing.assert_array_equal(_decode(data + tail), _decode(data))


@pytest.mark.parametrize('name', _JPEGS)
def test_half_a_picture_before_the_next_one_is_nopicture(name):
    data = _PICTURES[name]
    with pytest.raises(ImageError, match='cut off'):
        _decode(data[:len(data) * 3 // 4] + data)


# Progressive ones lose detail where their end is lost, not pixels.
@pytest.mark.parametrize('name', [name for name in _JPEGS if name != 'progressive'])
def test_a_jpeg_whose_end_is_lost_is_refused_though_its_end_marker_is_there(name):
    data = _PICTURES[name]
    whole = _decode(data)
    for length in range(len(data) * 2 // 3, len(data) - 2, 3):
        try:
            image = _decode(data[:length] + EOI)
        except ImageError as error:
            assert error.cause == 'decode'
            continue
        # What is not missed: some of the last unit of 16x16 pixels.
        differ = np.argwhere((image != whole).any(axis=-1))
        assert len(differ) == 0 or (differ >= (31, 47)).all(), f'{length} of {len(data)} bytes'


@pytest.mark.parametrize('name, least', [('baseline', 0.7), ('restarts', 1.0)])
def test_a_jpeg_whose_middle_is_lost_is_refused(name, least):
    rng, refused = np.random.default_rng(0), 0
    options = (cv2.IMWRITE_JPEG_RST_INTERVAL, 3) if name == 'restarts' else ()
    data = jpeg(*options, image=picture(640, 384))
    for _ in range(40):
        begin = int(rng.integers(len(data) // 3, len(data) // 2))
        try:
            _decode(data[:begin] + data[begin + int(rng.integers(1000, 4000)):])
        except ImageError as error:
            refused += error.cause == 'decode'
    assert refused >= least * 40


def test_a_blank_picture_is_a_whole_one():
    for blank in (np.full((45, 61, 3), 128, np.uint8), np.full((64, 64), 128, np.uint8)):
        for options in ((), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)):
            assert (_decode(jpeg(*options, image=blank)) == 128).all()


def test_the_inks_of_a_printer_become_colours():
    image, (y, x) = _decode(CMYK), np.mgrid[0:16, 0:16]
    assert np.abs(image.astype(int) - 8 * (x + y)[..., None]).max() < 25
    for length in range(len(CMYK) - 20, len(CMYK) - 8):
        with pytest.raises(ImageError, match='cut off'):
            _decode(CMYK[:length] + EOI)


def test_of_an_animation_the_still_picture_is_decoded():
    data, other = (cv2.imencode('.png', image)[1].tobytes() for image in (
        picture(), 255 - picture()))
    np.testing.assert_array_equal(_decode(animated(data, other)), picture())


def test_libpng_says_nothing_of_pictures_that_are_broken_or_odd(capfd):
    data = _PICTURES['PNG']
    rng, broken = np.random.default_rng(0), [data[:-9] + EOI, data[:len(data) // 2]]
    for _ in range(30):
        flipped = bytearray(data)
        flipped[int(rng.integers(33, len(data)))] ^= 1 << int(rng.integers(8))
        broken.append(bytes(flipped))
    for bad in broken:
        with pytest.raises(ImageError, match='cut off'):
            _decode(bad)
    np.testing.assert_array_equal(_decode(with_profile(data)), picture())
    assert capfd.readouterr().err == ''


def test_gray_16_bit_and_transparent_png_are_pictures():
    for samples in (picture()[..., 0], picture().astype(np.uint16) * 257,
                    np.dstack((picture(), picture()[..., 0]))):
        assert _decode(cv2.imencode('.png', samples)[1].tobytes()).shape == (45, 61, 3)


def _seconds(data, cause):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with pytest.raises(ImageError, match='million pixels') as error:
            _decode(data)
        times.append(time.perf_counter() - start)
        assert error.value.cause == cause
    return min(times)


def test_a_picture_of_too_many_pixels_is_refused_by_its_header():
    png = huge_png()
    assert len(png) < 120_000
    assert _seconds(png, 'size') < 0.001
    assert _seconds(resized_header(jpeg(), 0xc0, 65500, 65500), 'size') < 0.005


def test_the_limit_is_the_callers():
    for name in ('baseline', 'PNG'):
        assert _decode(_PICTURES[name], max_pixels=61 * 45).shape == (45, 61, 3)
        with pytest.raises(ImageError, match='61x45') as error:
            _decode(_PICTURES[name], max_pixels=61 * 45 - 1)
        assert error.value.cause == 'size'


def test_a_jpeg_of_thousands_of_scans_is_refused():
    # Each scan of ten bytes has a decoder pass over all pixels.
    data = resized_header(jpeg(*PROGRESSIVE), 0xc2, 8000, 8000)
    start = data.rindex(b'\xff\xda')
    bomb = data[:start] + data[start:start + 10] * 4000 + EOI
    assert len(bomb) < 60_000
    begin = time.perf_counter()
    with pytest.raises(ImageError, match='scans') as error:
        _decode(bomb)
    assert error.value.cause == 'size' and time.perf_counter() - begin < 0.2
    usual = jpeg(*PROGRESSIVE, image=picture(640, 480))
    assert _decode(usual, max_pixels=640 * 480).shape == (480, 640, 3)


@pytest.mark.parametrize('data', [
    b'', b'\xff', b'\xff\xd8\xff', b'\xff\xd8' * 9, b'\x89PNG\r\n\x1a\n', b'\0' * 99,
    cv2.imencode('.bmp', picture())[1].tobytes(), cv2.imencode('.webp', picture())[1].tobytes(),
    cv2.imencode('.tiff', picture())[1].tobytes(), b'P6 2 2 255 ' + b'\0' * 12])
def test_anything_else_is_refused(data):
    with pytest.raises(ImageError) as error:
        _decode(data)
    assert error.value.cause == 'decode'


def test_mutations_are_pictures_or_image_errors():
    rng = np.random.default_rng(7)
    names, refused = list(_PICTURES), 0
    for index in range(1500):
        data = bytearray(_PICTURES[names[index % len(names)]])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data)))
            data[at:at + int(rng.integers(0, 4))] = rng.bytes(int(rng.integers(0, 4)))
        try:
            image = _decode(bytes(data), max_pixels=1_000_000)
            assert image.ndim == 3 and image.size
        except ImageError as error:
            refused += 1
            assert error.cause in ('decode', 'size', 'empty') and '\n' not in str(error)
    assert 300 < refused < 1300


def test_files_are_read_in_more_formats_and_just_as_strictly(tmp_path):
    for suffix in ('.png', '.bmp', '.tiff', '.webp', '.jpg'):
        path = tmp_path / f'bild ü{suffix}'
        path.write_bytes(cv2.imencode(suffix, picture())[1].tobytes())
        assert read_image(path).shape == (45, 61, 3)
    half = tmp_path / 'half.jpg'
    half.write_bytes(jpeg()[:800])
    huge = tmp_path / 'huge.bmp'
    huge.write_bytes(huge_png())  # the name does not decide
    for path in (half, huge, tmp_path, tmp_path / 'none.png'):
        with pytest.raises(UserError, match=str(path)):
            read_image(path)
