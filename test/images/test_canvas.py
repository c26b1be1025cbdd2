"""Pictures for people: where overlays come to lie."""

from __future__ import annotations

import numpy as np
import pytest

from robot_vision.images.canvas import Canvas
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window


def laid(image: np.ndarray, spec: InputSpec, colours: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    canvas = Canvas(image, Window.of(image.shape[:2], spec))
    canvas.overlay(colours, alpha)
    return canvas.finish()


@pytest.mark.parametrize("rule", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(480, 640), (60, 100)])
def test_overlay_lies_on_what_the_network_saw(rule: str, size: tuple[int, int]) -> None:
    """A map that says what its pixel's colour is, laid over the image, is the image again."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([x * 255 // size[1], y * 255 // size[0], 0 * x], -1).astype(np.uint8)
    spec = InputSpec(64, 48, rule, 0.875)
    window = Window.of(size, spec)
    colours = window.truth(image, (32, 24), 77)
    picture = laid(image, spec, colours)
    factor = picture.shape[0] // size[0]
    assert picture.shape[0] >= 160 and picture.shape[1] == factor * size[1]
    shown = picture[factor // 2 :: factor, factor // 2 :: factor]
    top, left, height, width = window.region
    seen = np.zeros(size, bool)
    seen[top : top + height, left : left + width] = True
    assert np.array_equal(shown[~seen], image[~seen])
    step = 255 * max(window._pitch(0, 32)[0] / size[0], window._pitch(1, 24)[0] / size[1])
    far = np.abs(shown.astype(int) - image)[seen]
    assert far.max() <= step and far.max() > 0  # no further than half a pixel of the map, rounded


def test_overlay_without_a_window_covers_the_image_and_is_mixed() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    canvas = Canvas(image)
    canvas.overlay(np.full((4, 4, 3), 200, np.uint8), 0.25)
    assert (canvas.finish() == 125).all() and (image == 100).all()


def test_several_overlays_lie_side_by_side_with_what_they_mean() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    canvas = Canvas(image)
    canvas.lines("of all")
    reds, blues = (np.full((4, 4, 3), c, np.uint8) for c in ((240, 0, 0), (0, 0, 240)))
    canvas.overlay(reds, 1.0).bars([("a class", 0.5, (0, 200, 0))])
    scale = np.linspace(0, 255, 256).astype(np.uint8)[:, None].repeat(3, 1)
    canvas.overlay(blues, 1.0).strip(scale)
    picture = canvas.finish()
    assert picture.shape == (200, 900, 3)
    plain, mask, depth = np.split(picture, 3, axis=1)
    middle = slice(90, 110)
    assert (plain[middle] == 100).all() and (plain[-20:] != 100).any()
    assert (mask[middle] == (240, 0, 0)).all() and (mask[-20:] == (240, 0, 0)).all()
    assert (mask == (0, 200, 0)).all(axis=2).any() and not (plain == (0, 200, 0)).all(axis=2).any()
    assert (depth[middle] == (0, 0, 240)).all()
    assert depth[-1, 0, 0] < 5 and depth[-1, -1, 0] > 250  # the scale


def test_legend_of_one_overlay_is_on_the_picture() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    alone, apart = Canvas(image), Canvas(image)
    row = [("a class", 0.5, (0, 200, 0))]
    alone.overlay(image[:4, :4], 0.5).bars(row)
    apart.bars(row)
    apart.overlay(image[:4, :4], 0.5)
    np.testing.assert_array_equal(alone.finish(), apart.finish())
    assert alone.finish().shape == image.shape
