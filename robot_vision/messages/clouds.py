"""What a `sensor_msgs/PointCloud2` says: its points' fields, and cells with their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.geometry.squares import PLANES
from robot_vision.messages.incoming import MAX_POSITION_M

Array = NDArray[np.float64]

MOST_CELLS = 100_000
_FLOAT32 = 7  # of sensor_msgs/PointField
_SUM = 0.01  # by which probabilities may miss 1, for rounding


def point_fields(message: Any, names: str) -> Array:
    """Returns fields (N, F) of the points of a PointCloud2, by their names.

    Raises:
        MeasurementError: they are not there, of another type than float32, or not within a point.
    """
    wanted, step = names.split(), int(message.point_step)
    places = {f.name: (f.offset, f.datatype) for f in message.fields}
    if any(places.get(name, (0, 0))[1] != _FLOAT32 for name in wanted):
        raise MeasurementError("shape", f"its points have no {names} of float32")
    offsets = [places[name][0] for name in wanted]
    if max(offsets) + 4 > step:
        raise MeasurementError(
            "shape", f"a point has {step} bytes, and a field begins at byte {max(offsets)}"
        )
    kind = np.dtype(
        {
            "names": wanted,
            "formats": [">f4" if message.is_bigendian else "<f4"] * len(wanted),
            "offsets": offsets,
            "itemsize": step,
        }
    )
    data = np.frombuffer(message.data, np.uint8)
    rows = np.frombuffer(data[: len(data) // step * step], kind)
    return np.stack([rows[name].astype(np.float64) for name in wanted], axis=1)


def checked_cells(message: Any) -> tuple[Array, Array, tuple[int, int]]:
    """Returns the cells of a cloud `x y z size probability`.

    The plane of the cells is that of the two axes along which they are somewhere else than at 0.

    Returns:
        Corners (K, 4) in metres, low and high, along the two axes; probabilities (K,), which sum to 1; and
        the axes, numbers of x, y or z.

    Raises:
        MeasurementError: there are none or too many, they are not cells of a plane, or the probabilities
            are none.
    """
    count = len(message.data) // max(1, int(message.point_step))
    if not 0 < count <= MOST_CELLS:
        raise MeasurementError(
            "shape", f"it has {count} cells: at least 1 and at most {MOST_CELLS} are taken"
        )
    points = point_fields(message, "x y z size probability")
    if not np.all(np.isfinite(points)):
        raise MeasurementError("non_finite", "a cell's place, size or probability is not finite")
    place, side, probability = points[:, :3], points[:, 3], points[:, 4]
    if np.abs(place).max() > MAX_POSITION_M or not (
        0 < side.min() and side.max() <= MAX_POSITION_M
    ):
        raise MeasurementError(
            "out_of_range",
            f"a cell's place or size is not within {MAX_POSITION_M:g} m, or its size is 0",
        )
    total = float(probability.sum())
    if probability.min() < 0 or abs(total - 1) > _SUM:
        raise MeasurementError(
            "out_of_range",
            f"its probabilities sum to {total:g}, the least of them {probability.min():g}: they must be at "
            "least 0 and sum to 1",
        )
    flat = [axes for axes in PLANES.values() if not place[:, 3 - sum(axes)].any()]
    if len(flat) != 1:
        raise MeasurementError(
            "shape",
            "its cells must lie in one plane: x, y or z, and one of them only, is 0 for all",
        )
    middle = place[:, list(flat[0])]
    corners = np.concatenate([middle - side[:, None] / 2, middle + side[:, None] / 2], axis=1)
    return corners, probability / total, flat[0]
