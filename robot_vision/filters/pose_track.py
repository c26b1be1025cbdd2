"""One hypothesis of where the robot is: a pose and its covariance, moved by odometry, drawn by measurements.

An error-state Kalman filter on SE(3) whose error is in the robot's own frame, `T_true = T @ exp(xi)`. The
error then moves by `xi' = Ad(exp(-motion)) xi`, whatever the pose is, and a measured pose shows the error
itself: neither depends on the estimate (the left-invariant filter of Barrau and Bonnabel 2017). Where nothing
is known of the motion, the velocity is a state too, which persists for about a second (an
Ornstein-Uhlenbeck process).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.odometry import SPEED_M_S, TURN_DEG_S, USUAL_NOISE, OdometryNoise, Step
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse, skew, symmetrised
from robot_vision.messages.stamps import nanoseconds

Array = NDArray[np.float64]

_ALONE = (
    1.2  # variance of one view over what it says: networks err grossly more often than a Gaussian
)
_ROUNDING = 1e-12  # m^2
VELOCITY_TIME_S = 1.0  # over which people and robots keep their velocity


@dataclass(frozen=True)
class MotionModel:
    """How the robot moves.

    Attributes:
        odometry: how it drifts.
        speed_m_s: standard deviation of the velocity along each axis, where odometry says nothing.
        turn_deg_s: the same about each axis.
    """

    odometry: OdometryNoise = USUAL_NOISE
    speed_m_s: float = SPEED_M_S
    turn_deg_s: float = TURN_DEG_S

    @property
    def velocity_variances(self) -> Array:
        """Of the unknown velocity (6,), in m^2/s^2 and rad^2/s^2."""
        return np.repeat([self.speed_m_s**2, math.radians(self.turn_deg_s) ** 2], 3)


@dataclass(frozen=True, eq=False)
class Innovation:
    """How a measured pose differs from the predicted one.

    Attributes:
        residual: tangent vector (6,) from the predicted pose to the measured one.
        distance: squared Mahalanobis distance; chi squared with 6 degrees of freedom if all is as assumed.
    """

    residual: Array
    distance: float


@dataclass(frozen=True, eq=False)
class Track:
    """A pose at one time. Tracks are never altered: each step makes a new one.

    Attributes:
        stamp_ns: the time.
        T: `T_map_base` (4, 4).
        covariance: of pose and velocity (12, 12), in the robot's frame.
        velocity: (6,), m/s and rad/s in the robot's frame; used where odometry says nothing.
        path: motion (4, 4) since the beginning without any measurement: how far two times are apart.
    """

    stamp_ns: int
    T: Array
    covariance: Array
    velocity: Array
    path: Array

    @classmethod
    def begin(
        cls,
        stamp_ns: int,
        T: NDArray[np.float64],
        covariance: NDArray[np.float64],
        model: MotionModel,
    ) -> Track:
        """Begins with a measured pose (4, 4) and its covariance (6, 6) in the robot's frame."""
        whole = np.zeros((12, 12))
        whole[:6, :6] = covariance
        whole[6:, 6:] = np.diag(model.velocity_variances)
        return cls(stamp_ns, np.array(T, np.float64), whole, np.zeros(6), np.eye(4))

    @property
    def pose_covariance(self) -> Array:
        """Of the pose (6, 6), in the robot's frame."""
        return self.covariance[:6, :6]

    def moved(self, step: Step, model: MotionModel) -> Track:
        """Returns the track after a step."""
        stamp_ns = self.stamp_ns + nanoseconds(step.dt_s)
        if step.motion is not None:
            return self._by_odometry(stamp_ns, step.motion, step.dt_s, model)
        return self._coasting(stamp_ns, step.dt_s, model)

    def _by_odometry(
        self, stamp_ns: int, motion: NDArray[np.float64], dt_s: float, model: MotionModel
    ) -> Track:
        delta = se3.exp(motion)
        moved = se3.adjoint(inverse(delta))
        covariance = np.zeros((12, 12))
        noise = model.odometry.covariance(motion, dt_s)
        covariance[:6, :6] = symmetrised(moved @ self.pose_covariance @ moved.T + noise)
        # Should odometry stop, the robot goes on as it went: to within what is usual.
        velocity = motion / dt_s if dt_s > 1e-3 else self.velocity
        covariance[6:, 6:] = np.diag(model.velocity_variances) * 0.1
        return Track(stamp_ns, self.T @ delta, covariance, velocity, self.path @ delta)

    def _coasting(self, stamp_ns: int, dt_s: float, model: MotionModel) -> Track:
        tau = VELOCITY_TIME_S
        kept = math.exp(-dt_s / tau)
        reach = tau * (1 - kept)  # seconds for which the velocity counts
        motion = self.velocity * reach
        delta = se3.exp(motion)
        F = np.zeros((12, 12))
        F[:6, :6] = se3.adjoint(inverse(delta))
        F[:6, 6:] = se3.right_jacobian(motion) * reach
        F[6:, 6:] = np.eye(6) * kept
        variance = model.velocity_variances
        Q = np.zeros((12, 12))
        Q[:6, :6] = np.diag(variance * tau**2 * max(0.0, 2 * dt_s / tau - 3 + 4 * kept - kept**2))
        Q[:6, 6:] = Q[6:, :6] = np.diag(variance * tau * (1 - kept) ** 2)
        Q[6:, 6:] = np.diag(variance * (1 - kept**2))
        covariance = symmetrised(F @ self.covariance @ F.T + Q)
        return Track(stamp_ns, self.T @ delta, covariance, self.velocity * kept, self.path @ delta)

    def innovation(self, T: NDArray[np.float64], covariance: NDArray[np.float64]) -> Innovation:
        """Returns how a measured pose (4, 4) with its covariance (6, 6) in its own frame differs.

        Raises:
            numpy.linalg.LinAlgError: the covariances are not positive definite.
        """
        residual = se3.log(inverse(self.T) @ T)
        factor = np.linalg.cholesky(symmetrised(self.pose_covariance + covariance))
        white = np.linalg.solve(factor, residual)
        return Innovation(residual, float(white @ white))

    def corrected(
        self, residual: NDArray[np.float64], covariance: NDArray[np.float64], inflation: float = 1.0
    ) -> Track:
        """Returns the track drawn towards a measurement of covariance (6, 6), by its `residual` (6,).

        Args:
            residual: from the track to the measurement.
            covariance: of the measurement.
            inflation: factor on it that accounts for errors which the track already holds (`alike.py`). A
                direction in which the measurement alone is surer than the two together is taken from it
                alone: what the track holds of the last one is worth no more than this one.
        """
        P = self.covariance
        used = noise = inflation * covariance
        if inflation > 1.0:
            factor = np.linalg.cholesky(covariance)
            white = np.linalg.solve(factor, np.linalg.solve(factor, P[:6, :6]).T)
            variances, axes = np.linalg.eigh(symmetrised(white))
            alone = variances * inflation > _ALONE * (variances + inflation)
            root = factor @ axes
            # Used as if it had no noise, its gain is one.
            used = (root * np.where(alone, 0.0, inflation)) @ root.T
            root = root * np.sqrt(np.where(alone, _ALONE, inflation))
            if P[:6, 6:].any():
                # Without odometry: views alone give the rotation there, and it is what they say.
                root[3:, alone] /= math.sqrt(_ALONE)
            noise = root @ root.T
        S = symmetrised(P[:6, :6] + used)
        gain = np.linalg.solve(S, P[:6]).T  # (12, 6)
        change = gain @ residual
        # Joseph's form stays positive definite, whatever the rounding.
        A = np.eye(12)
        A[:, :6] -= gain
        return self._changed(change, A @ P @ A.T + gain @ noise @ gain.T)

    def point(self, point: NDArray[np.float64]) -> tuple[Array, Array]:
        """Returns where a point (3,) of the robot is in the map (3,), and by the error: Jacobian (3, 6)."""
        R = self.T[:3, :3]
        return R @ point + self.T[:3, 3], np.hstack([R, -R @ skew(point)])

    def conditioned(self, H: Array, V: Array, moved: Array, covariance: Array) -> Track:
        """Returns the track of which some linear functions of the error are believed to be otherwise.

        Args:
            H: the functions (n, 6), of the pose's error.
            V: their covariance (n, n) before.
            moved: their mean (n,), from what it was.
            covariance: (n, n).
        """
        P = self.covariance
        gain = np.linalg.solve(V + _ROUNDING * np.eye(len(V)), H @ P[:6]).T  # (12, n)
        return self._changed(gain @ moved, P + gain @ (covariance - V) @ gain.T)

    def _changed(self, change: Array, updated: Array) -> Track:
        """Returns the track with its error (12,) put right; `updated` (12, 12) is of what is left."""
        # The error is now about the new pose (Sola 2017, "reset").
        reset = np.eye(12)
        reset[:6, :6] = se3.right_jacobian(change[:6])
        return replace(
            self,
            T=se3.orthonormal(self.T @ se3.exp(change[:6])),
            covariance=symmetrised(reset @ updated @ reset.T),
            velocity=self.velocity + change[6:],
        )
