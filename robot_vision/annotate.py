"""Draws what the network says onto the image, for people to watch."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.prediction import Prediction
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.heads.classifier.answer import UNKNOWN, Hypothesis

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
_BARS = ((80, 200, 120), (90, 150, 220), (150, 150, 170))  # RGB: first, second, other labels
_UNKNOWN_BAR = (230, 150, 60)
_STRIP_CELLS = 256
_MIN_HEIGHT = 160
_MAX_WIDTH = 2048


def annotate(
    image: NDArray[np.uint8],
    prediction: Prediction,
    top_k: int = 3,
    unknown_threshold: float | None = None,
    footer: str = "",
) -> NDArray[np.uint8]:
    """Draws the best labels with bars, the pose, and the descriptor as a strip of colours.

    Args:
        image: RGB uint8 (H, W, 3); not altered.
        prediction: heads that are None are left out.
        top_k: labels to show.
        unknown_threshold: below this known score `unknown` comes first, as on the topic.
        footer: a line more, such as the place.

    Returns:
        RGB uint8 (H, W, 3); crops of less than 160 rows come back enlarged by a whole factor.
    """
    canvas = _roomy_copy(image)
    height, width = canvas.shape[:2]
    scale = min(max(height / 480, 0.75), width / 320, 4.0) * 0.55
    line = round(36 * scale) + 4
    if prediction.classification is not None:
        best = prediction.classification.top_k(top_k, unknown_threshold)
        fits = max(1, (height // 2) // line)
        _labels(canvas, best[:fits], line, scale)
    lines = _pose_lines(prediction.pose) if prediction.pose is not None else []
    lines += [footer] if footer else []
    strip = max(4, line // 3) if prediction.descriptor is not None else 0
    _text_block(canvas, lines, height - strip, line, scale)
    if prediction.descriptor is not None:
        canvas[height - strip :] = _strip(prediction.descriptor, strip, width)
    return canvas


def _roomy_copy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = min(-(-_MIN_HEIGHT // image.shape[0]), max(1, _MAX_WIDTH // image.shape[1]))
    if factor > 1:
        return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    return np.array(image, np.uint8, order="C", copy=True)


def _shade(canvas: NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> None:
    """Darkens a region so that white text on it can be read on any image."""
    region = canvas[max(top, 0) : bottom, left:right]
    if region.size:
        region[:] = cv2.convertScaleAbs(region, alpha=0.35).reshape(region.shape)


def _labels(canvas: NDArray[np.uint8], best: list[Hypothesis], line: int, scale: float) -> None:
    width = canvas.shape[1]
    panel = min(width, round(300 * scale / 0.55))
    _shade(canvas, 0, line * len(best) + line // 4, 0, panel)
    for i, hypothesis in enumerate(best):
        top = i * line + line // 4
        colour = _UNKNOWN_BAR if hypothesis.label == UNKNOWN else _BARS[min(i, len(_BARS) - 1)]
        share = min(max(hypothesis.score, 0.0), 1.0)
        right = round(share * (panel - 1))
        cv2.rectangle(canvas, (0, top), (right, top + line - 4), colour, cv2.FILLED)
        text = f"{100 * share:3.0f}% {plain(hypothesis.label)}"
        _put(canvas, text, top + line - 4 - line // 4, panel, scale)


def _text_block(
    canvas: NDArray[np.uint8], lines: list[str], bottom: int, line: int, scale: float
) -> None:
    if not lines:
        return
    _shade(canvas, bottom - line * len(lines) - line // 4, bottom, 0, canvas.shape[1])
    for i, text in enumerate(reversed(lines)):
        _put(canvas, text, bottom - line // 3 - i * line, canvas.shape[1], scale)


def _put(canvas: NDArray[np.uint8], text: str, baseline: int, width: int, scale: float) -> None:
    thickness = max(1, round(scale * 1.6))
    left = max(2, round(6 * scale))
    (needed, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    if needed > width - 2 * left:  # smaller down to a limit, then cut
        scale = max(scale * (width - 2 * left) / needed, scale * 0.7)
        while (
            len(text) > 4
            and cv2.getTextSize(text, _FONT, scale, thickness)[0][0] > width - 2 * left
        ):
            text = text[:-4] + "..." if text.endswith("...") else text[:-3] + "..."
    cv2.putText(canvas, text, (left, baseline), _FONT, scale, _WHITE, thickness, cv2.LINE_AA)


def _pose_lines(pose: CameraPose) -> list[str]:
    x, y, z = pose.position
    deviation_m = float(np.sqrt(np.trace(pose.covariance[:3, :3])))
    deviation_deg = float(np.degrees(np.sqrt(np.trace(pose.covariance[3:, 3:]))))
    # Degrees about the map's axes: the rotation vector, which needs no choice of an order of axes.
    qx, qy, qz, qw = pose.orientation_xyzw
    norm = float(np.linalg.norm((qx, qy, qz)))
    angle = np.degrees(2 * np.arctan2(norm, qw)) / norm if norm > 1e-12 else 0.0
    return [
        f"x {x:+.2f}  y {y:+.2f}  z {z:+.2f} m  (sd {deviation_m:.2f} m)",
        f"rot {qx * angle:+.0f} {qy * angle:+.0f} {qz * angle:+.0f} deg  (sd {deviation_deg:.1f} deg)",
    ]


def _strip(descriptor: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Colours of the descriptor's first numbers: like places look alike."""
    values = descriptor[:_STRIP_CELLS]
    spread = float(np.abs(values).max()) or 1.0
    cells = np.round(127.5 + 127.5 * values / spread).astype(np.uint8)[None]
    colours = cv2.cvtColor(cv2.applyColorMap(cells, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    strip = cv2.resize(colours, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(strip, np.uint8)


def plain(text: str) -> str:
    """Returns text in the letters that OpenCV's built-in font has: accents are dropped."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"
