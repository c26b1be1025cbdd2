"""Resizing: against Pillow's antialiased bilinear, and on every layout of memory that `to_rgb` gives."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_vision.errors import ConfigError
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import crop_to_aspect, letterbox_window, resize_into, source_size

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
RNG = np.random.default_rng(0)


def resized(image: np.ndarray, height: int, width: int, *rule: object) -> np.ndarray:
    out = np.full((height, width, 3), 77, np.uint8)
    resize_into(image, out, *rule)
    return out


def pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).astype(int)


def texture(height: int, width: int) -> np.ndarray:
    """Returns smooth noise with detail at several sizes, as photographs have (1/f)."""
    image = np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        noise = RNG.normal(size=(cells, cells, 3)) * 128 / cells**0.5
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 128, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> list[np.ndarray]:
    """Real frames: 640x480, and the 1280-wide ones of the recorded bags."""
    from robot_vision.images.decode import to_rgb
    from robot_vision.recordings import open_source

    files = [data_dir / "kitchen" / f"frame-{i:06d}.color.jpg" for i in (0, 300, 600)]
    bags = sorted((data_dir / "ros1_bags").glob("*.bag"))
    frames = [next(iter(open_source(p))) for p in (*files, *bags)]
    return [to_rgb(frame.message) for frame in frames]


def test_photographs_come_out_as_from_pillow(photographs: list[np.ndarray]) -> None:
    errors = [np.abs(resized(p, 224, 224) - pillow(p, 224, 224)).mean() for p in photographs]
    assert len(errors) == 6 and max(errors) <= 1.0, errors


def test_1080p_photographs_come_out_as_from_pillow(photographs: list[np.ndarray]) -> None:
    for photograph in photographs:
        # Side by side at their own sharpness, which is harder than an enlarged picture.
        repeats = (-(-1080 // photograph.shape[0]), -(-1920 // photograph.shape[1]), 1)
        full = np.ascontiguousarray(np.tile(photograph, repeats)[:1080, :1920])
        assert np.abs(resized(full, 224, 224) - pillow(full, 224, 224)).mean() <= 2.0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1440, 2560), (480, 640), (481, 643), (225, 300), (300, 2000)])
@pytest.mark.parametrize("target", [(224, 224), (96, 128), (120, 33)])
def test_every_size_is_near_pillow(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = texture(*size)
    assert np.abs(resized(image, *target) - pillow(image, *target)).mean() <= 1.5


@pytest.mark.parametrize("size", [(100, 50), (224, 100), (17, 33), (1, 1)])
def test_enlarging_is_plain_bilinear(size: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (*size, 3), np.uint8)
    assert np.abs(resized(image, 224, 224) - pillow(image, 224, 224)).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1080, 1920), (2161, 3843), (480, 640), (241, 250), (30, 900)])
def test_gradient_is_not_shifted(size: tuple[int, int]) -> None:
    # A ramp up and a ramp down: what both have in common is rounding, what they differ in is a shift.
    ramp = np.linspace(0, 250, size[1])[None, :, None] * np.ones((size[0], 1, 3))
    up, down = ramp.astype(np.uint8), (250 - ramp).astype(np.uint8)
    errors = [(resized(a, 60, 80) - pillow(a, 60, 80))[:, 8:-8].mean() for a in (up, down)]
    slope = 250 / 80  # gray levels per target pixel
    assert abs(errors[0] - errors[1]) / 2 / slope < 0.03


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    ours = resized(stripes, 224, 224)[10:-10, 10:-10].std()
    plain = cv2.resize(stripes, (224, 224), interpolation=cv2.INTER_LINEAR)
    assert ours < plain[10:-10, 10:-10].std() / 3


@pytest.mark.parametrize("rule", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, :-3],  # padded rows
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],  # BGR
        lambda a: a[:, 5:-5][..., ::-1],
        lambda a: a[::2, ::3],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.asfortranarray(a),
    ],
)
def test_layout_in_memory_does_not_matter(view: object, rule: str) -> None:
    image = view(texture(300, 400))  # type: ignore[operator]
    image.flags.writeable = False
    expected = resized(np.ascontiguousarray(image), 64, 96, rule, 0.9)
    np.testing.assert_array_equal(resized(image, 64, 96, rule, 0.9), expected)


def test_image_of_the_right_size_is_copied() -> None:
    image = texture(64, 96)
    np.testing.assert_array_equal(resized(image, 64, 96), image)
    np.testing.assert_array_equal(resized(image[..., ::-1], 64, 96), image[..., ::-1])


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black() -> None:
    out = resized(np.full((480, 640, 3), 200, np.uint8), 224, 224, "letterbox")
    assert letterbox_window((480, 640), (224, 224)) == (28, 0, 168, 224)
    assert (out[:28] == 0).all() and (out[196:] == 0).all() and (out[28:196] == 200).all()
    tall = resized(np.full((640, 480, 3), 200, np.uint8), 224, 224, "letterbox")
    np.testing.assert_array_equal(tall, out.transpose(1, 0, 2))


def test_letterbox_of_a_thin_image_keeps_a_row() -> None:
    assert letterbox_window((1, 4000), (224, 224)) == (111, 0, 1, 224)
    out = resized(np.full((1, 4000, 3), 200, np.uint8), 224, 224, "letterbox")
    assert (out.any(axis=(1, 2))).sum() == 1


def test_crop_takes_the_centre_of_the_resized_image() -> None:
    # torchvision's Resize(256) and CenterCrop(224), step by step: 640 x 480 becomes 341 x 256.
    image = texture(480, 640)
    expected = pillow(image, 256, 341)[16 : 16 + 224, 58 : 58 + 224]
    out = resized(image, 224, 224, "crop", 224 / 256)
    assert np.abs(out - expected).mean() <= 2.5  # its centre is rounded to a target pixel
    shifted = np.abs(out[:, :-3] - expected[:, 3:]).mean()
    assert shifted > 2 * np.abs(out - expected).mean()  # a wrong centre would be seen


def test_crop_region_has_the_target_aspect() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    assert crop_to_aspect(image, 224, 224, 1.0).shape == (480, 480, 3)
    assert crop_to_aspect(image, 224, 448, 0.5).shape == (160, 320, 3)
    assert crop_to_aspect(np.zeros((3, 3, 3), np.uint8), 224, 224, 0.01).shape == (1, 1, 3)


def test_source_size_leaves_nothing_to_enlarge() -> None:
    assert source_size(InputSpec(224, 320, "squash", 0.5)) == (224, 320)
    size = InputSpec(224, 224, "crop", 0.875)
    assert source_size(size) == (256, 256)
    for shape in ((256, 256), (256, 900), (900, 256)):
        region = crop_to_aspect(np.zeros((*shape, 3), np.uint8), 224, 224, 0.875)
        assert min(region.shape[:2]) >= 224


def test_jpeg_decoded_smaller_comes_out_as_from_pillow(data_dir: Path) -> None:
    from robot_vision.images.decode import to_rgb
    from robot_vision.recordings import open_source

    bags = sorted((data_dir / "ros1_bags").glob("*.bag"))
    for path in (*bags, data_dir / "kitchen" / "frame-000300.color.jpg"):
        message = next(iter(open_source(path))).message
        full, small = to_rgb(message), to_rgb(message, source_size(InputSpec(224, 224)))
        assert small.shape < full.shape
        assert np.abs(resized(small, 224, 224) - pillow(full, 224, 224)).mean() <= 2.0


def test_unknown_rule_is_named() -> None:
    with pytest.raises(ConfigError, match="stretch.*squash, crop, letterbox"):
        resized(np.zeros((4, 4, 3), np.uint8), 2, 2, "stretch")


def test_threads_do_not_share_scratch_memory() -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = [np.full((480, 640, 3), value, np.uint8) for value in range(0, 250, 25)] * 20
    with ThreadPoolExecutor(4) as pool:
        for image, out in zip(images, pool.map(lambda i: resized(i, 64, 64), images), strict=True):
            assert (out == image[0, 0, 0]).all()


@pytest.mark.skipif("CI" in os.environ, reason="timings of shared machines say nothing")
def test_1080p_takes_far_less_time_than_the_exact_average() -> None:
    image, out = texture(1080, 1920), np.empty((224, 224, 3), np.uint8)

    def fastest(call: object) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    ours = fastest(lambda: resize_into(image, out))
    area = fastest(lambda: cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA))
    assert ours < area / 2, (ours, area)
