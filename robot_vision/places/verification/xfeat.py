"""XFeat's features of an image, by ONNX Runtime: the graph that `robot-vision export --xfeat` makes of it.

G. Potje, F. Cadar, A. Araujo, R. Martins, E. Nascimento: XFeat: Accelerated Features for Lightweight Image
Matching. CVPR 2024, section 3.2. The graph says of each pixel how much of a corner it is; what is done with
that is here.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.networks.xfeat_graph import CELL, INPUT, MULTIPLE, OUTPUTS, SIZE

MIN_SIDE = 64  # pixels: two steps of the coarsest features
MIN_COSINE = 0.82  # of a match, as its authors match; see also options.XFEAT_RATIO
_CORNER, _WINDOW = 0.05, 5  # least value of a corner, and the window in which it is the largest
# Of descriptors of length 1 and 64 numbers; larger ones are rare. 0 is at 128.
_LARGEST = 0.5
_MAKE = "robot-vision export --xfeat --out xfeat.onnx makes one"
_MAX_BYTES = 256 << 20


class XFeatDetector:
    """Finds features. Not thread safe.

    Args:
        path: of the graph.

    Attributes:
        network: begins the graph's sha256: features of two networks cannot be compared.

    Raises:
        ConfigError: the file is absent, broken, or another graph.
    """

    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(f"{path} is too large to be XFeat's graph: {_MAKE}")
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"XFeat's graph {path} cannot be read ({error.strerror}): {_MAKE}"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cv2.getNumThreads()  # as SIFT has
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises a dozen kinds, all derived from Exception
            raise ConfigError(f"{path} is no ONNX file, or a damaged one: {_MAKE}") from error
        signature = (
            {i.name: (i.type, len(i.shape)) for i in self._session.get_inputs()},
            {o.name: (o.type, len(o.shape)) for o in self._session.get_outputs()},
        )
        wanted = (
            {INPUT: ("tensor(uint8)", 3)},
            {name: ("tensor(float)", axes) for name, axes in OUTPUTS.items()},
        )
        if signature != wanted:
            raise ConfigError(
                f"{path} is not XFeat's graph: it takes {', '.join(signature[0])} and gives "
                f"{', '.join(signature[1])}; {_MAKE}"
            )
        self._path = path
        self.network = sha256(content).hexdigest()[:12]

    def __call__(
        self, picture: NDArray[np.uint8], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Returns features, strongest first.

        Args:
            picture: RGB uint8 (H, W, 3), with H and W as `fitting` says.
            count: the most that are returned.

        Returns:
            Where they are (N, 2), pixels, and descriptors (N, 64), see `quantised`.

        Raises:
            ConfigError: the graph fails, or gives outputs of other sizes.
        """
        height, width = picture.shape[:2]
        try:
            corners, reliability, descriptors = self._session.run(
                list(OUTPUTS), {INPUT: np.ascontiguousarray(picture)}
            )
        except Exception as error:
            raise ConfigError(
                f"{self._path} fails on an image of {width} x {height} "
                f"({str(error).strip().splitlines()[0][:200]}): {_MAKE}"
            ) from error
        coarse = height // CELL, width // CELL
        shapes = (height, width), coarse, (SIZE, *coarse)
        if (corners.shape, reliability.shape, descriptors.shape) != shapes:
            raise ConfigError(
                f"{self._path} is not XFeat's graph: its outputs' sizes differ; {_MAKE}"
            )
        at = largest(corners)
        x, y = at[:, 0], at[:, 1]
        score = corners[y, x] * cv2.resize(reliability, (width, height))[y, x]
        at = at[np.argsort(-score, kind="stable")[:count]]
        # In the middle of a cell of 8 x 8 pixels, 0 to 7, is its coarse feature.
        found = bicubic(descriptors, (at + 0.5) / CELL - 0.5)
        return at.astype(np.float64), quantised(found)


def fitting(height: int, width: int) -> tuple[int, int]:
    """Returns the size (height, width) that an image is shrunk to, by less than 32 pixels a side.

    Raises:
        ConfigError: the image is too small.
    """
    if min(height, width) < MIN_SIDE:
        raise ConfigError(
            f"Image of {width} x {height} is too small for XFeat: it needs {MIN_SIDE} x {MIN_SIDE} pixels"
        )
    return height // MULTIPLE * MULTIPLE, width // MULTIPLE * MULTIPLE


def largest(corners: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns pixels (N, 2), as (x, y), that are corners and the largest of their window, row by row."""
    around = cv2.dilate(
        corners,
        np.ones((_WINDOW, _WINDOW), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    y, x = np.nonzero((corners == around) & (corners > _CORNER))
    return np.stack([x, y], axis=1)


def bicubic(values: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns values (C, H, W) at (N, 2), as (N, C): cubic convolution with a = -0.75, 0 outside.

    R. Keys: Cubic convolution interpolation for digital image processing. 1981. As XFeat was trained.
    """
    channels, height, width = values.shape
    padded = np.zeros((height + 4, width + 4, channels), np.float32)
    padded[2:-2, 2:-2] = values.transpose(1, 2, 0)
    corner = np.floor(at).astype(np.int64)
    weights = _cubic(at - corner)  # (N, 2, 4)
    result = np.zeros((len(at), channels), np.float32)
    for dy in range(4):
        for dx in range(4):
            # Of the neighbours -1 to 2 in a frame of two.
            taken = padded[corner[:, 1] + dy + 1, corner[:, 0] + dx + 1]
            result += (weights[:, 1, dy] * weights[:, 0, dx])[:, None] * taken
    return result


def _cubic(t: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns weights (..., 4) of the neighbours -1, 0, 1, 2 of a point at t (...) from 0 to 1."""
    a = -0.75
    near, far = (
        (lambda d: ((a + 2) * d - (a + 3)) * d * d + 1),
        (lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a),
    )
    return np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)], axis=-1).astype(np.float32)


def quantised(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns descriptors (N, 64) of any length, made 1, as bytes: 1 to 255 are -0.5 to 0.5."""
    length = np.linalg.norm(descriptors, axis=1, keepdims=True)
    unit = descriptors / np.maximum(length, 1e-12)
    return np.clip(np.rint(unit * (127 / _LARGEST)) + 128, 1, 255).astype(np.uint8)


def unit(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns descriptors (N, 64) of length 1 from those of `quantised`."""
    found = descriptors.astype(np.float32) - 128
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))
