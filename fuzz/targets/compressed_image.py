"""sensor_msgs/CompressedImage from a hostile publisher: JPEG and PNG."""

from __future__ import annotations

import cv2
import numpy as np

from robot_vision.errors import ImageError
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.recordings.base import CompressedImage

MAX_LEN = 1 << 13
ALLOWED_S = 10.0
_SIZES = (None, (1, 1), (16, 16), (4096, 4096))


def one_input(data: bytes) -> None:
    """Byte 0: the size that is asked for, and the format's text; then the image."""
    choice = data[0] if data else 0
    message = CompressedImage("rgb8; jpeg compressed rgb8" if choice & 4 else "jpeg", data[1:])
    try:
        height, width = image_size(message)
        image = to_rgb(message, _SIZES[choice & 3])
    except ImageError:
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    assert 0 < image.shape[0] <= height and 0 < image.shape[1] <= width


def seeds() -> list[bytes]:
    """Returns small pictures of every kind that OpenCV writes."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (24, 33, 3), np.uint8)
    inputs = []
    for image in (colour, colour[..., 0], np.dstack((colour, colour[..., 0]))):
        inputs.append(b"\0" + cv2.imencode(".png", image)[1].tobytes())
    sixteen = colour.astype(np.uint16) * 257
    inputs.append(b"\0" + cv2.imencode(".png", sixteen)[1].tobytes())
    for flags in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]):
        jpeg = cv2.imencode(".jpg", colour, flags)[1].tobytes()
        inputs += [bytes([choice]) + jpeg for choice in (0, 1, 6)]
    inputs.append(b"\0" + cv2.imencode(".jpg", colour[..., 0])[1].tobytes())
    return inputs
