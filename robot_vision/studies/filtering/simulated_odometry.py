"""Odometry as wheels would give it, made of true poses: for recordings that have none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.filters.odometry import OdometryNoise
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse


@dataclass(frozen=True)
class OdometryErrors:
    """What is wrong with the odometry.

    Attributes:
        noise: independent from step to step.
        scale: standard deviation of the factor by which all distances are wrong, one for a recording: wheels
            that are larger than was thought.
        turn_scale: the same for all rotations.
    """

    noise: OdometryNoise = OdometryNoise(0.02, 0.5, 1.0, 0.0, 0.05)
    scale: float = 0.02
    turn_scale: float = 0.02

    def __post_init__(self) -> None:
        for name in ("scale", "turn_scale"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be from 0 to below 1")

    def words(self) -> str:
        """Says it in one line."""
        n = self.noise
        return (
            f"{n.position_per_m:g} m and {n.rotation_per_m_deg:g} deg per root metre, "
            f"{n.rotation_per_rad_deg:g} deg per root radian, {n.rotation_per_s_deg:g} deg per root second, "
            f"scales wrong by {100 * self.scale:g} and {100 * self.turn_scale:g} %"
        )


def simulated_odometry(
    stamps_ns: NDArray[np.int64],
    T_map_base: NDArray[np.float64],
    errors: OdometryErrors,
    seed: int,
) -> NDArray[np.float64]:
    """Returns odometry (N, 4, 4) of true poses (N, 4, 4) at increasing stamps (N,).

    It begins at the origin. Each true motion is scaled, and what `errors.noise` says is added to it.
    """
    rng = np.random.default_rng(seed)
    scale = 1 + errors.scale * rng.normal()
    turn = 1 + errors.turn_scale * rng.normal()
    result = [np.eye(4)]
    for i in range(1, len(stamps_ns)):
        dt_s = float(stamps_ns[i] - stamps_ns[i - 1]) * 1e-9
        motion = se3.log(inverse(T_map_base[i - 1]) @ T_map_base[i])
        noise = np.sqrt(errors.noise.variances(motion, dt_s)) * rng.normal(size=6)
        motion = motion * np.repeat([scale, turn], 3) + noise
        result.append(se3.orthonormal(result[-1] @ se3.exp(motion)))
    assert all(math.isfinite(float(T.sum())) for T in result)
    return np.array(result).reshape(-1, 4, 4)
