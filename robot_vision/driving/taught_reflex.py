"""What the reflex says along a way while it is taught."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.heads.dronet.head import DronetHead


def steering_head(bundle: ModelBundle) -> str:
    """Returns the name of the head that says collisions; empty where the bundle has none."""
    return next((head.name for head, _ in bundle.spec.bound if head.kind == DronetHead.kind), "")


def collisions(
    look: Callable[[NDArray[np.uint8]], Any],
    head: str,
    images: Iterable[NDArray[np.uint8] | None],
    at: NDArray[np.intp],
    points: int,
) -> tuple[NDArray[np.float64], int]:
    """Returns the largest probability of a collision (m,) that is said at each point, and how many are None.

    Args:
        look: the reflex's pipeline.
        head: that says it.
        images: RGB uint8 (H, W, 3), of the drive; None where one cannot be read, which says 0 as where no
            reflex looked.
        at: (n,) the point of the route that each image is at; see `thinned`.
        points: m, how many there are.
    """
    found, unread = np.zeros(points), 0
    for image, point in zip(images, at, strict=True):
        unread += image is None
        if image is not None:
            found[point] = max(found[point], look(image)[head].collision)
    return found, unread
