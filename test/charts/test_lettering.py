"""Letters on pictures: plain zeros, measured widths, and readable on bright and dark alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from robot_vision.charts import lettering

INK = (0, 0, 0)


def drawn(text: str, **how: object) -> np.ndarray:
    image = np.full((60, 400, 3), 255, np.uint8)
    lettering.put(image, text, (10, 44), 1.5, INK, **how)  # type: ignore[arg-type]
    return image


def _holes(image: np.ndarray) -> int:
    """Counts the areas that ink encloses: a plain zero has one, a slashed one two."""
    paper = (image[..., 0] > 127).astype(np.uint8)
    return cv2.connectedComponents(paper, connectivity=4)[0] - 2  # but ink and what is around it


def test_zero_has_no_slash() -> None:
    assert _holes(drawn("0")) == 1
    assert _holes(drawn("O")) == 1 and _holes(drawn("8")) == 2


@pytest.mark.parametrize("text", ["1", "10.0 m", "a longer line of text"])
def test_width_is_that_of_what_is_drawn(text: str) -> None:
    columns = np.flatnonzero((drawn(text) < 128).any(axis=(0, 2)))
    width = lettering.width(text, 1.5)
    assert width - 12 <= columns[-1] - 10 + 1 <= width + 3


def test_bold_has_more_ink_and_an_outline_is_seen_on_paper_of_the_letters_colour() -> None:
    assert (drawn("demo", bold=True) < 128).sum() > 1.2 * (drawn("demo") < 128).sum()
    image = np.full((60, 400, 3), 255, np.uint8)
    lettering.put(image, "demo", (10, 44), 1.5, (255, 255, 255), outline=(0, 0, 0))
    assert (image < 100).sum() > 200


def test_letters_that_the_font_lacks_are_no_error() -> None:
    assert (drawn("Küche ± 2²") < 128).any() and (drawn("\U0001f916 x") < 128).any()
