"""Image messages as views, and pictures as image messages."""

from __future__ import annotations

import array
import sys

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from yolojet_ros.core.compressed_images import decode
from yolojet_ros.core.image_formats import (
    check_size, FORMATS, ImageError, ImageView, MAX_PIXELS)
from yolojet_ros.core.text import one_line, shown

_MAX_FRAME_ID = 1024  # characters


def check_frame_id(frame_id: str) -> None:
    """:raises ImageError: if it is so long that its copy in every detection floods memory."""
    if len(frame_id) > _MAX_FRAME_ID:
        raise ImageError('frame_id', (
            f'its frame_id has {len(frame_id)} characters; at most {_MAX_FRAME_ID} are accepted'))


def view_of_image(message: Image, max_pixels: int = MAX_PIXELS) -> ImageView:
    """
    Return a view of the message's bytes; only an encoding outside the table is copied.

    :param max_pixels: width times height that is accepted
    :raises ImageError: if the image is too large, or if the encoding is unknown here and
        cv_bridge cannot help.
    """
    check_size(message.width, message.height, max_pixels)
    if message.encoding not in FORMATS:
        return ImageView.from_bgr(_by_cv_bridge(message))
    data = np.frombuffer(message.data, np.uint8)
    return ImageView(data, message.width, message.height, message.step, message.encoding,
                     bool(message.is_bigendian))


def view_of_compressed(message: CompressedImage, max_pixels: int = MAX_PIXELS) -> ImageView:
    """
    Decode a JPEG or PNG message.

    :param max_pixels: width times height that is accepted
    :raises ImageError: if the bytes are not a complete picture, or one too large.
    """
    return ImageView.from_bgr(decode(np.frombuffer(message.data, np.uint8), max_pixels))


def fill_image(message: Image, image: np.ndarray, encoding: str) -> None:
    """
    Put a C-contiguous picture into a message that may be reused; the header stays.

    :param image: uint8[H, W, channels], uint8[H, W] or uint16[H, W]
    """
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.step = image.strides[0]
    message.is_bigendian = int(image.itemsize > 1 and sys.byteorder == 'big')
    # The only fast way in: assigning an ndarray is checked element by element.
    data = array.array('B')
    data.frombytes(image.reshape(-1).view(np.uint8))
    message.data = data


def image_message(header: Header, image: np.ndarray, encoding: str) -> Image:
    """Return a new message with a picture as `fill_image` takes it."""
    message = Image(header=header)
    fill_image(message, image, encoding)
    return message


def _by_cv_bridge(message: Image) -> np.ndarray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except Exception as error:  # a cv_bridge built for NumPy 1 fails in many ways on NumPy 2
        raise ImageError('encoding', (
            f'cannot decode encoding {shown(message.encoding)} without cv_bridge; supported are '
            + ', '.join(sorted(FORMATS)))) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, 'bgr8'))
    except (CvBridgeError, TypeError, ValueError) as error:
        raise ImageError('encoding', (
            f'cv_bridge cannot convert encoding {shown(message.encoding)} to bgr8 '
            f'({one_line(str(error), 200)}); '
            'supported are ' + ', '.join(sorted(FORMATS)))) from error
