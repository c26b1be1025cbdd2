"""A depth image as colours, and its range as a line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.depth.answer import DepthAnswer

# Every 32nd colour of matplotlib's viridis (CC0), from near to far; between them they are mixed.
_VIRIDIS = np.array(
    [
        (253, 231, 37),
        (160, 218, 57),
        (74, 193, 109),
        (31, 161, 135),
        (39, 127, 142),
        (54, 92, 141),
        (70, 50, 126),
        (68, 1, 84),
    ],
    np.float64,
)


def colours(depth: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Returns viridis (h, w, 3) of the logarithm of depth, bright where near; black where nothing is said."""
    known = np.isfinite(depth)
    logs = np.log(np.where(known, np.maximum(depth, 1e-6), low))
    share = (logs - np.log(low)) / max(np.log(high) - np.log(low), 1e-6)
    at = np.clip(share, 0, 1) * (len(_VIRIDIS) - 1)
    levels = np.arange(len(_VIRIDIS))
    mixed = np.stack([np.interp(at, levels, channel) for channel in _VIRIDIS.T], axis=-1)
    mixed[~known] = 0
    return np.rint(mixed).astype(np.uint8)


def scale(low: float, high: float) -> NDArray[np.uint8]:
    """Returns colours (256, 3) of distances from low to high, metres, in equal steps of their logarithm."""
    return colours(np.geomspace(low, high, 256, dtype=np.float32)[None], low, high)[0]


def span(answer: DepthAnswer) -> tuple[float, float] | None:
    """Returns the nearest and the farthest twentieth of the depths, metres; None where there are none."""
    known = answer.depth[np.isfinite(answer.depth)]
    if not len(known):
        return None
    low, high = np.quantile(known, (0.05, 0.95))
    return float(low), float(high)


def line(answer: DepthAnswer) -> str:
    """Returns the range of the colours, and how sure the depth is."""
    ends = span(answer)
    if ends is None:
        return "depth: nothing is near enough"
    sigma = answer.sigma
    sure = "" if sigma is None else f", +-{100 * float(np.nanmedian(sigma)):.0f}%"
    return f"depth {ends[0]:.2f} m (bright) to {ends[1]:.2f} m (dark){sure}"
