"""What a CameraInfo says of an image: raw or rectified, binned or cut out of the sensor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics, camera_of, is_rectified

K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]
P = [460.0, 0, 310, -46, 0, 460, 235, 0, 0, 0, 1, 0]
D = [-0.3, 0.1, 0.001, 0.0, 0.0]


def info(**changes: Any) -> Any:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    values = {
        "width": 640, "height": 480, "k": K, "d": D, "p": P, "distortion_model": "plumb_bob",
        "binning_x": 0, "binning_y": 0, "roi": roi,
    }  # fmt: skip
    return SimpleNamespace(**(values | changes))


def region(x: int, y: int, width: int, height: int) -> Any:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height)


@pytest.mark.parametrize(
    "topic, rectified",
    [
        ("/camera/image_raw", False),
        ("/camera/image_raw/compressed", False),
        ("/camera/image_rect", True),
        ("/left/image_rect_color/compressed", True),
        ("/zed/rgb/image_rect_gray", True),
        ("/infra1/image_rect_raw", True),  # a stereo camera's, rectified by the device
        ("/camera_rect/image", True),
        ("/undistorted/image", True),
        ("/direct/image", False),
        ("/rectangle/image_raw", False),
    ],
)
def test_rectified_topics_are_known_by_their_names(topic: str, rectified: bool) -> None:
    assert is_rectified(topic) is rectified


def test_raw_images_go_with_k_and_rectified_ones_with_p() -> None:
    raw = camera_of(info(), "/camera/image_raw")
    assert raw.K.reshape(-1).tolist() == K and raw.distortion.tolist() == D
    rectified = camera_of(info(distortion_model="equidistant", d=D[:4]), "/camera/image_rect")
    assert rectified.K.tolist() == [[460, 0, 310], [0, 460, 235], [0, 0, 1]]
    assert len(rectified.distortion) == 0
    # A point straight ahead of the rectified camera is where P has its centre, not bent by the lens.
    assert rectified.rays(np.array([[310.0, 235.0]]))[0] == pytest.approx([0, 0])
    # What people say counts over the name.
    assert camera_of(info(), "/camera/image_rect", "raw").K[0, 0] == 500
    assert camera_of(info(), "/camera/image", "rectified").K[0, 0] == 460
    with pytest.raises(ConfigError, match="raw"):
        camera_of(info(), "/camera/image", "rect")


def test_names_of_ros_1_are_read_too() -> None:
    message = info(K=K, D=D, P=P)
    for name in "kdp":
        delattr(message, name)
    assert camera_of(message, "/camera/image_raw").K[1, 1] == 510


def test_rectified_images_without_p_are_refused() -> None:
    with pytest.raises(ConfigError, match="no P"):
        camera_of(info(p=[0.0] * 12), "/camera/image_rect")


@pytest.mark.parametrize("topic", ["/camera/image_raw", "/camera/image_rect"])
def test_binning_and_region_move_the_rays_with_the_pixels(topic: str) -> None:
    """The same thing has the same ray in the whole image and in each part of it."""
    whole = camera_of(info(), topic, size=(640, 480))
    corner, step = np.array([100, 60]), 2
    part = camera_of(
        info(binning_x=step, binning_y=step, roi=region(100, 60, 400, 300)), topic, size=(200, 150)
    )
    pixel = np.array([[300.0, 201.0]])
    assert part.rays((pixel - corner + 0.5) / step - 0.5) == pytest.approx(whole.rays(pixel))
    cut = camera_of(info(roi=region(100, 60, 400, 300)), topic)
    assert (cut.width, cut.height) == (400, 300)
    assert cut.rays(pixel - corner) == pytest.approx(whole.rays(pixel))


@pytest.mark.parametrize("size", [(320, 240), (480, 640), (1280, 960)])
def test_images_of_another_size_are_refused_with_the_numbers(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} .* 640 x 480.*binning 1 x 1"):
        camera_of(info(), "/camera/image_raw", size=size)


def test_camera_that_nobody_calibrated_is_refused() -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        camera_of(info(k=[0.0] * 9), "/camera/image_raw")
    assert isinstance(camera_of(info(d=[]), "/camera/image_raw"), Intrinsics)
