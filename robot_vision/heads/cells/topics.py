"""Probabilities of cells as a grid for planners and RViz, as points with all numbers, and as a fix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.topics import HIDDEN, Row, Shot, Topic, stack
from robot_vision.errors import SourceError
from robot_vision.heads.cells.answer import CellsAnswer
from robot_vision.heads.cells.fix import fix_of
from robot_vision.heads.cells.options import CellsOptions
from robot_vision.heads.cells.partition import Grid
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.messages.making import Maker, sequence_of, set_header
from robot_vision.messages.types import POINT_CLOUD

OCCUPANCY_GRID = "nav_msgs/msg/OccupancyGrid"
NAV_SAT_FIX = "sensor_msgs/msg/NavSatFix"
FIELDS = ("x", "y", "z", "size", "probability")
_FLOAT32 = 7  # of sensor_msgs/PointField
_APPROXIMATED = 1  # COVARIANCE_TYPE_APPROXIMATED of NavSatFix
_UP_M2 = 1e8  # of the altitude, which nobody knows: (10 km)^2
_TURNS = {  # quaternions that turn a grid's x and y to the plane's axes
    "xy": (0.0, 0.0, 0.0, 1.0),
    "xz": (0.5**0.5, 0.0, 0.0, 0.5**0.5),
    "yz": (0.5, 0.5, 0.5, 0.5),
}


def grid_topic(name: str, spec: CellsSpec | None) -> Topic:
    """Returns the topic of the density of the camera's position, as a grid.

    Args:
        name: of the topic.
        spec: of the head; None where only the topic's name and type are asked for.
    """

    def writer(make: Maker) -> Callable[[Shot, CellsAnswer, CellsOptions], Any]:
        assert spec is not None
        new, grid = make(OCCUPANCY_GRID), Grid(spec.cells)
        corner = np.zeros(3)
        corner[list(spec.axes)] = grid.origin
        turn = _TURNS[spec.plane]

        def write(shot: Shot, answer: CellsAnswer, options: CellsOptions) -> Any:
            message = new()
            set_header(message.header, shot, options.map_frame)
            info = message.info
            info.map_load_time.sec, info.map_load_time.nanosec = shot.stamp.sec, shot.stamp.nanosec
            info.resolution, (info.height, info.width) = grid.resolution_m, grid.shape
            p, q = info.origin.position, info.origin.orientation
            p.x, p.y, p.z = corner.tolist()
            q.x, q.y, q.z, q.w = turn
            message.data = sequence_of(
                grid.occupancy(answer.probabilities).reshape(-1), message.data
            )
            return message

        return write

    return Topic(
        name,
        OCCUPANCY_GRID,
        "density of the camera's position in the map: 100 in the densest square, others in proportion to it, "
        "-1 where there is no cell",
        writer,
        of_camera=False,
        look=HIDDEN,  # the points say more
    )


def points_topic(name: str, spec: CellsSpec | None, column: str) -> Topic:
    """Returns the topic of the cells' probabilities: a point in the centre of each.

    Args:
        name: of the topic.
        spec: as above.
        column: that it is read back to.
    """

    def writer(make: Maker) -> Callable[[Shot, CellsAnswer, CellsOptions], Any]:
        assert spec is not None
        new, field = make(POINT_CLOUD), make("sensor_msgs/msg/PointField")
        points = np.zeros((len(spec.images), len(FIELDS)), "<f4")
        points[:, :3], points[:, 3] = spec.ground.points, spec.ground.sides_m
        fields = [
            field(name=word, offset=4 * i, datatype=_FLOAT32, count=1)
            for i, word in enumerate(FIELDS)
        ]

        def write(shot: Shot, answer: CellsAnswer, options: CellsOptions) -> Any:
            numbers = points.copy()
            numbers[:, 4] = answer.probabilities
            message = new()
            set_header(message.header, shot, options.map_frame)
            message.height, message.width = 1, len(numbers)
            message.fields = fields
            message.is_bigendian, message.is_dense = False, True
            message.point_step, message.row_step = 4 * len(FIELDS), numbers.nbytes
            message.data = sequence_of(numbers.reshape(-1).view(np.uint8), message.data)
            return message

        return write

    return Topic(
        name,
        POINT_CLOUD,
        "the cells: a point in the centre of each, with its side in metres and the probability that the "
        "camera is in it",
        writer,
        lambda: _Reader(column),
        form=f"`{' '.join(FIELDS)}`",
        of_camera=False,
    )


def fix_topic(name: str, spec: CellsSpec | None) -> Topic:
    """Returns the topic of the most probable cell's latitude and longitude.

    Args:
        name: of the topic.
        spec: as above.
    """

    def writer(make: Maker) -> Callable[[Shot, CellsAnswer, CellsOptions], Any]:
        assert spec is not None
        new, datum = make(NAV_SAT_FIX), spec.datum

        def write(shot: Shot, answer: CellsAnswer, options: CellsOptions) -> Any:
            fix = fix_of(answer, datum)
            assert fix is not None
            message = new()
            set_header(message.header, shot)
            message.status.status = 0 if fix.sure else -1  # STATUS_FIX, STATUS_NO_FIX
            message.status.service = 0  # of no satellites
            message.latitude, message.longitude = fix.lat_deg, fix.lon_deg
            message.altitude = math.nan  # by its definition where there is none
            covariance = np.diag([0.0, 0.0, _UP_M2])
            covariance[:2, :2] = fix.covariance
            message.position_covariance = covariance.reshape(-1)
            message.position_covariance_type = _APPROXIMATED
            return message

        return write

    return Topic(
        name,
        NAV_SAT_FIX,
        "latitude and longitude of the most probable cell's centre, with the covariance of all cells about "
        "it; of cells on the earth, and of a map whose `datum` is known",
        writer,
    )


class _Reader:
    def __init__(self, column: str) -> None:
        self._column = column
        self._rows: dict[Row, NDArray[np.float32]] = {}

    def add(self, row: Row, message: Any) -> None:
        order = ">" if message.is_bigendian else "<"
        numbers = np.frombuffer(bytes(message.data), f"{order}f4")
        self._rows[row] = numbers.reshape(-1, len(FIELDS))[:, -1].astype(np.float32)

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        sizes = sorted({v.size for v in self._rows.values()})
        if len(sizes) > 1:
            raise SourceError(
                f"images have {' and '.join(map(str, sizes))} cells: give one model's"
            )
        return {self._column: stack(self._rows, rows, np.float32)} if sizes else {}
