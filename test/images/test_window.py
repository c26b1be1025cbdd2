"""Where a map lies in the camera's image, held against the resize itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into
from robot_vision.images.window import Window

RULES = [("squash", 1.0), ("crop", 1.0), ("crop", 0.875), ("letterbox", 1.0)]
CAMERAS = [(480, 640), (640, 480), (360, 1280), (97, 131)]
INPUTS = [(224, 224), (96, 160)]


def of(camera: tuple[int, int], size: tuple[int, int], rule: str, share: float) -> Window:
    return Window.of(camera, InputSpec(*size, rule, share))


def seen(image: np.ndarray, size: tuple[int, int], rule: str, share: float) -> np.ndarray:
    out = np.empty((*size, 3), np.uint8)
    resize_into(image, out, rule, share)
    return out


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("size", INPUTS)
def test_pixels_are_where_the_resize_takes_them_from(
    camera: tuple[int, int], size: tuple[int, int], rule: tuple[str, float]
) -> None:
    """A ramp's grey level says which column a pixel of the input came from."""
    window = of(camera, size, *rule)
    where, covered = window.pixels(size), window.covered(size)
    for axis, length in ((0, camera[1]), (1, camera[0])):
        position = np.arange(length)
        for share in (0.3, 0.5, 0.7):  # three ramps, of 40 % of the image each
            rising = np.clip((position / (length - 1) - share) / 0.4 + 0.5, 0, 1) * 255
            wanted = np.interp(where[..., axis], position, rising)
            inner = covered & (wanted > 20) & (wanted < 235)
            errors = []
            for ramp in (rising, 255 - rising):
                along = np.round(ramp).astype(np.uint8)
                grey = np.broadcast_to(along if axis == 0 else along[:, None], camera)
                found = seen(np.repeat(grey[..., None], 3, axis=2), size, *rule)[..., 0]
                errors.append((found - np.interp(where[..., axis], position, along))[inner])
            assert inner.sum() > 100 and max(np.abs(e).max() for e in errors) <= 2
            # Greys are rounded up on the way, by half a level: two opposite ramps cancel that.
            level = 255 / 0.4 / length * (where[3, 3] - where[2, 2])[axis]  # of an input's pixel
            assert abs((errors[0] - errors[1]).mean() / 2) <= 0.1 * level
    black = seen(np.full((*camera, 3), 255, np.uint8), size, *rule)[..., 0]
    assert np.array_equal(black > 0, covered)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [1, 4, 8])
def test_truth_is_what_the_network_is_shown(rule: tuple[str, float], scale: int) -> None:
    """Big squares of ids, resized as an image, are the ids of the map wherever no edge is near."""
    camera, size = (480, 640), (224, 224)
    ids = np.kron(np.arange(1, 49).reshape(6, 8), np.ones((80, 80))).astype(np.uint8)
    window = of(camera, size, *rule)
    small = (size[0] // scale, size[1] // scale)
    truth = window.truth(ids, small, 255)
    image = seen(np.repeat(ids[..., None], 3, axis=2), size, *rule)[..., 0]
    middle = (np.arange(small[0]) * scale + scale // 2, np.arange(small[1]) * scale + scale // 2)
    shown = image[np.ix_(*middle)]
    covered = window.covered(small)
    assert np.array_equal(truth == 255, ~covered) and truth.dtype == np.uint8
    same = truth == shown
    assert same[covered].mean() > 0.8
    # Only next to an edge may they differ: the resize mixes colours there.
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.dilate(truth, kernel) == cv2.erode(truth, kernel)
    assert same[flat & covered].all() and (flat & covered).sum() > 100


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("camera", CAMERAS)
def test_map_goes_to_the_camera_and_back(camera: tuple[int, int], rule: tuple[str, float]) -> None:
    """Each pixel of a coarse map is found again in the camera's size, and `none` is where no map is."""
    window = of(camera, (224, 224), *rule)
    size = (14, 14)
    numbers = np.arange(196, dtype=np.float32).reshape(size)
    there = window.to_camera(numbers, np.nan)
    assert there.shape == camera and there.dtype == np.float32
    top, left, height, width = window.region
    outside = np.ones(camera, bool)
    outside[top : top + height, left : left + width] = False
    assert np.array_equal(np.isnan(there), outside)
    back = window.truth(there, size, -1)
    covered = window.covered(size)
    assert np.array_equal(back[covered], numbers[covered]) and (back[~covered] == -1).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(224, 224), (56, 40), (7, 7)])
def test_scaled_matrix_sees_the_same_points_at_the_same_places(
    size: tuple[int, int], rule: tuple[str, float]
) -> None:
    """Projecting to the map is projecting to the camera, then looking up the pixel of the map there."""
    K = np.array([[520.0, 0, 310], [0, 505, 251], [0, 0, 1]])
    window = of((480, 640), (224, 320), *rule)
    scaled = window.intrinsics(K, size)
    pixels = window.pixels(size).reshape(-1, 2)
    rays = np.column_stack([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(pixels))])
    found = (rays * 3.0) @ scaled.T
    y, x = np.mgrid[: size[0], : size[1]]
    wanted = np.column_stack([x.ravel(), y.ravel()])
    assert np.allclose(found[:, :2] / found[:, 2:], wanted, atol=1e-9)
    assert K[0, 0] == 520 and scaled[2].tolist() == [0, 0, 1]


def test_camera_matrix_of_a_halved_image_is_known() -> None:
    """OpenCV's convention: pixel centres at whole numbers, so the centre moves by a quarter of a pixel."""
    K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    window = Window.of((480, 640), InputSpec(240, 320))
    assert np.allclose(
        window.intrinsics(K, (240, 320)), [[250, 0, 159.5], [0, 250, 119.5], [0, 0, 1]]
    )


def test_truth_of_another_size_is_refused_with_both_sizes() -> None:
    window = Window.of((480, 640), InputSpec())
    with pytest.raises(ValueError, match="320 x 240 pixels of truth.* of 640 x 480"):
        window.truth(np.zeros((240, 320)), (56, 56), 0)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(16, 64), st.integers(16, 64)),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.sampled_from(RULES),
)
def test_every_size_stays_within_the_image(
    camera: tuple[int, int],
    size: tuple[int, int],
    map_size: tuple[int, int],
    rule: tuple[str, float],
) -> None:
    window = of(camera, size, *rule)
    numbers = np.arange(camera[0] * camera[1], dtype=np.int64).reshape(camera)
    found = window.truth(numbers, map_size, -1)
    assert found.shape == map_size and found.max() < numbers.size
    top, left, height, width = window.region
    inside = np.isin(found, numbers[top : top + height, left : left + width])
    assert np.array_equal(inside, window.covered(map_size))
    coloured = window.to_camera(np.ones((*map_size, 3), np.uint8), 0)
    assert coloured.shape == (*camera, 3) and coloured.sum() == 3 * height * width
