"""What the pose filter assumes, and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.filters.odometry import SPEED_M_S, TURN_DEG_S, USUAL_NOISE, OdometryNoise
from robot_vision.filters.pose_track import MotionModel
from robot_vision.geometry.rigid import xyzw_from_matrix

Array = NDArray[np.float64]

WAITING, INITIALISING = "waiting", "initialising"
LOCALISED, UNCERTAIN, CONTRADICTED = "localised", "uncertain", "contradicted"
ACCEPTED, REJECTED, PENDING = "accepted", "rejected", "pending"
INITIALISED, REINITIALISED = "initialised", "reinitialised"
CELLS_USED, CELLS_AGAINST = "cells_used", "cells_against"
CELLS_ELSEWHERE, CELLS_EARLY = "cells_elsewhere", "cells_early"


@dataclass(frozen=True)
class PoseFilterSettings:
    """What is assumed, and when a measurement is believed.

    Attributes:
        noise: of the odometry.
        speed_m_s: standard deviation of the velocity along each axis where there is no odometry. Odometry
            five times as fast, and twice as fast as it was of late, has jumped.
        turn_deg_s: the same about each axis.
        gate_probability: share of good measurements that are to pass the gate.
        initialise_count: measurements that must agree before there is an estimate.
        reinitialise_count: refused measurements in a row that must agree with each other,
        reinitialise_after_s: and for how long, before they replace the estimate.
        correlation_m: way after which a source's errors are others.
        correlation_deg: turn after which they are.
        correlation_s: time after which they are, standing still.
        localised_m: largest standard deviation of the position, along its worst axis, of a robot that knows
            where it is.
        localised_deg: the same for the rotation.
        history_s: how late a measurement may come.
        odometry_timeout_s: how long a measurement waits for the odometry of its time.
        odometry_unproven: probability that odometry is wrong, until measured poses have shown it to be right.
        reset_after_s: odometry whose stamp goes back by more than this restarts the filter: all is forgotten.
    """

    noise: OdometryNoise = USUAL_NOISE
    speed_m_s: float = SPEED_M_S
    turn_deg_s: float = TURN_DEG_S
    gate_probability: float = 0.99
    initialise_count: int = 3
    reinitialise_count: int = 5
    reinitialise_after_s: float = 2.0
    correlation_m: float = 0.5
    correlation_deg: float = 30.0
    correlation_s: float = 10.0
    localised_m: float = 0.5
    localised_deg: float = 10.0
    history_s: float = 5.0
    odometry_timeout_s: float = 0.5
    odometry_unproven: float = 0.5
    reset_after_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.gate_probability < 1:
            raise ConfigError(
                f"gate_probability is {self.gate_probability}: use one between 0 and 1, such as 0.99"
            )
        if self.odometry_unproven > 1:
            raise ConfigError(f"odometry_unproven is {self.odometry_unproven}: use 1 or less")
        for name in ("initialise_count", "reinitialise_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}: it must be above 0 and finite")

    @property
    def motion(self) -> MotionModel:
        """How the robot moves."""
        return MotionModel(self.noise, self.speed_m_s, self.turn_deg_s)


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """Where the robot is at one time.

    Attributes:
        stamp_ns: the time.
        T: `T_map_base` (4, 4).
        covariance: (6, 6), x y z in m^2, then rotation about the map's axes in rad^2.
    """

    stamp_ns: int
    T: Array
    covariance: Array

    @property
    def position(self) -> Array:
        """Metres in the map (3,)."""
        return np.array(self.T[:3, 3])

    @property
    def orientation_xyzw(self) -> Array:
        """Unit quaternion (4,), w >= 0."""
        return xyzw_from_matrix(self.T[:3, :3])

    @property
    def sigma_m(self) -> float:
        """Standard deviation of the position along its worst axis."""
        return math.sqrt(max(0.0, float(np.linalg.eigvalsh(self.covariance[:3, :3])[-1])))

    @property
    def sigma_deg(self) -> float:
        """Standard deviation of the rotation about its worst axis."""
        return math.degrees(
            math.sqrt(max(0.0, float(np.linalg.eigvalsh(self.covariance[3:, 3:])[-1])))
        )


@dataclass(frozen=True)
class MeasurementOutcome:
    """What became of a measurement.

    Attributes:
        verdict: `accepted`, `rejected`, `pending`, `initialising`, `initialised` or `reinitialised`; of cells
            `cells_used`, `cells_against` (they say that the robot is not where it is believed to be),
            `cells_elsewhere` (no cell is near) or `cells_early` (there is no estimate).
        source: of the measurement.
        distance: squared Mahalanobis distance from the estimate; NaN without one.
    """

    verdict: str
    source: str = ""
    distance: float = math.nan
