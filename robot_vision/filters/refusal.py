"""Why a filter does not take a measurement."""

from __future__ import annotations

from robot_vision.errors import RobotVisionError


class MeasurementError(RobotVisionError):
    """A measurement that a filter cannot use.

    Attributes:
        reason: a short fixed word for counters, one of `MeasurementError.REASONS`.
    """

    REASONS = (
        "non_finite", "out_of_range", "quaternion", "shape", "covariance", "stamp", "out_of_order",
        "too_old", "jump", "frame",
    )  # fmt: skip

    def __init__(self, reason: str, message: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(message)
        self.reason = reason
