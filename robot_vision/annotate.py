"""Draws what the network says onto the image, for people to watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.images.canvas import Canvas
from robot_vision.images.window import Window


def annotate(
    image: NDArray[np.uint8],
    prediction: Prediction,
    spec: NetworkSpec,
    options: Mapping[str, Any],
    footer: str = "",
) -> NDArray[np.uint8]:
    """Draws each head's answer.

    Args:
        image: RGB uint8 (H, W, 3); not altered.
        prediction: heads that are absent are left out.
        spec: of the network.
        options: heads' names to their options, as `ModelBundle.options` gives them.
        footer: a line more, such as the place.

    Returns:
        RGB uint8 (H, W, 3); crops of less than 160 rows come back enlarged by a whole factor.
    """
    height, width = image.shape[:2]
    canvas = Canvas(image, Window.of((height, width), spec.input))
    for head, settings in spec.bound:
        if (answer := prediction.get(head.name)) is not None:
            head.draw(canvas, answer, settings, options[head.name])
    if footer:
        canvas.lines(footer)
    return canvas.finish()
