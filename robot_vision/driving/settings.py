"""What all laws of motion keep to; the nodes that drive by them have the same as parameters."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.settings.parameters import LIVE, parameter


@dataclass(frozen=True)
class DriveSettings:
    """How fast a robot drives, and what stops it; each field's text is its documentation."""

    max_speed_m_s: float = parameter(0.6, "Largest speed, in m/s.", low=0.01, high=10, change=LIVE)
    max_turn_rad_s: float = parameter(
        1.0, "Largest turn rate, in rad/s.", low=0.01, high=20, change=LIVE
    )
    deceleration_m_s2: float = parameter(
        0.5, "With which the robot brakes, in m/s^2.", low=0.01, high=50, change=LIVE
    )
    blocked_above: float = parameter(
        0.75,
        "Probability of a collision above which the robot only turns; 1 never stops it.",
        low=0,
        high=1,
        change=LIVE,
    )
    free_below: float = parameter(
        0.35,
        "Probability of a collision down to which it only turns then.",
        low=0,
        high=1,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        if self.free_below > self.blocked_above:
            raise ConfigError(
                f"free_below is {self.free_below:g} and blocked_above {self.blocked_above:g}: set "
                "free_below to at most that"
            )
