"""Whether odometry and measured poses tell of one motion over some seconds, and in what they differ."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.hypothesis import Measurement
from robot_vision.filters.odometry import OdometryBuffer
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse, symmetrised
from robot_vision.messages.stamps import nanoseconds

Array = NDArray[np.float64]

_LARGEST = 5.0  # standard deviations: one gross outlier is no lag


@dataclass(frozen=True, eq=False)
class Lag:
    """How far measured poses lie, on average of late, from an estimate: by noise alone near zero.

    Attributes:
        memory_s: over which they are averaged.
        explained: squared distance of three numbers that is taken for noise.
        stamp_ns: of the last residual.
        weight: of all residuals.
        independent: how many independent ones they are worth.
        total: sum (6,) of residuals in units of the measurement's standard deviations.
        root: of the last measurement's covariance (6, 6): what a unit is.
        prior: covariance of the estimate (6, 6) in such units.
    """

    memory_s: float
    explained: float
    stamp_ns: int = 0
    weight: float = 0.0
    independent: float = 0.0
    total: Array = field(default_factory=lambda: np.zeros(6))
    root: Array = field(default_factory=lambda: np.eye(6))
    prior: Array = field(default_factory=lambda: np.zeros((6, 6)))

    def added(self, m: Measurement, residual: Array, P: Array, share: float) -> Lag:
        """Returns it with a residual (6,), worth `share` of one, of an estimate of covariance P (6, 6)."""
        root = np.linalg.cholesky(m.covariance)
        white = np.linalg.solve(root, residual)
        white = white * min(1.0, _LARGEST / max(float(np.linalg.norm(white)), 1e-12))
        kept = math.exp(-max(0, m.stamp_ns - self.stamp_ns) * 1e-9 / self.memory_s)
        prior = symmetrised(np.linalg.solve(root, np.linalg.solve(root, P).T))
        return Lag(
            self.memory_s,
            self.explained,
            m.stamp_ns,
            kept * self.weight + 1.0,
            kept * self.independent + share,
            np.asarray(kept * self.total + white),
            np.asarray(root),
            prior,
        )

    def _distance(self, part: slice) -> float:
        mean = self.total[part] / max(self.weight, 1e-12)
        S = np.eye(len(mean)) / max(1.0, self.independent) + self.prior[part, part]
        return float(mean @ np.linalg.solve(S, mean))

    @property
    def distance(self) -> float:
        """Squared Mahalanobis distance of the mean; of the order of chi squared with 6 degrees."""
        return self._distance(slice(0, 6))

    def excess(self) -> Array:
        """Returns the variances (6, 6) that the noise alone does not explain, in the robot's frame."""
        found = np.zeros((6, 6))
        if self.weight < _FEW:
            return found
        for part in (slice(0, 3), slice(3, 6)):
            distance = self._distance(part)
            if distance > self.explained:
                vector = self.root[:, part] @ (self.total[part] / self.weight)
                found += (1 - self.explained / distance) * np.outer(vector, vector)
        return found


_FEW = 2.0  # measurements: fewer are no lag


@dataclass(frozen=True, eq=False)
class _Pair:
    """Motions between two measured poses of one source, by the poses and by the odometry."""

    said: Array  # (6,) by the poses
    odometry: Array  # (6,)
    inverted: Array  # (6,) by the inverse of the odometry's poses
    sigma: Array  # (6,) of `said`, by its covariance
    turn: Array  # (3, 3) from axes of the earlier pose to the map


class OdometryCheck:
    """Compares motions by odometry with motions by the measured poses over the last seconds.

    Args:
        window_s: what is compared.
        stride_s: of one motion: short enough to be one, long enough to stand out of the poses' noise.
    """

    def __init__(self, window_s: float = 8.0, stride_s: float = 2.0) -> None:
        self._window_ns, self._stride_ns = nanoseconds(window_s), nanoseconds(stride_s)
        self._poses: deque[Measurement] = deque()

    def clear(self) -> None:
        """Forgets everything."""
        self._poses.clear()

    def add(self, m: Measurement) -> None:
        """Takes a measured pose that agrees with the others; one that is late is left out."""
        if not self._poses or m.stamp_ns >= self._poses[-1].stamp_ns:
            self._poses.append(m)
            while self._poses[0].stamp_ns < m.stamp_ns - self._window_ns - self._stride_ns:
                self._poses.popleft()

    def _pairs(self, buffer: OdometryBuffer) -> list[_Pair]:
        by_source: dict[str, list[Measurement]] = {}
        for m in self._poses:
            by_source.setdefault(m.source, []).append(m)
        pairs = []
        for poses in by_source.values():
            stamps = [m.stamp_ns for m in poses]
            every = max(1, len(poses) // 40)
            for later in poses[::every]:
                i = bisect_left(stamps, later.stamp_ns - self._stride_ns)
                earlier = poses[i]
                if later.stamp_ns - earlier.stamp_ns < self._stride_ns // 2:
                    continue
                found = buffer.between(earlier.stamp_ns, later.stamp_ns)
                if found is None:
                    continue
                A, B = found
                variances = np.diagonal(earlier.covariance) + np.diagonal(later.covariance)
                pairs.append(
                    _Pair(
                        se3.log(inverse(earlier.T) @ later.T),
                        se3.log(inverse(A) @ B),
                        se3.log(A @ inverse(B)),
                        np.sqrt(variances),
                        earlier.T[:3, :3],
                    )
                )
        return pairs

    def judge(self, buffer: OdometryBuffer) -> OdometryVerdict:
        """Says whether the two agree, over what is kept, and in what they differ."""
        pairs = self._pairs(buffer)
        if len(pairs) < 5:
            return OdometryVerdict()
        said = np.array([p.said for p in pairs])
        odometry = np.array([p.odometry for p in pairs])
        sigma = np.array([p.sigma for p in pairs])
        moved = float(np.median(np.linalg.norm(said[:, :3], axis=1)))
        turned = float(np.median(np.linalg.norm(said[:, 3:], axis=1)))
        by_odometry = float(np.median(np.linalg.norm(odometry[:, :3], axis=1)))
        noise = float(np.median(np.linalg.norm(sigma[:, :3], axis=1)))
        error = _misfit(said - odometry, sigma)
        seen = max(moved, by_odometry) > 1.5 * noise or turned > 3 * float(np.median(sigma[:, 3:]))
        R = _turn(said, odometry, sigma)
        turned_odometry = np.concatenate([odometry[:, :3] @ R.T, odometry[:, 3:] @ R.T], axis=1)
        inverted = np.array([p.inverted for p in pairs])
        others = {
            "frame": _misfit(said - turned_odometry, sigma),
            "inverse": _misfit(said - inverted, sigma),
        }
        best = min(others, key=lambda name: others[name])
        length = float((odometry[:, :3] ** 2).sum())
        scale = float((said[:, :3] * odometry[:, :3]).sum()) / length if length > 0 else math.nan
        # The motions overlap: of a window's all are worth as many as do not, four.
        spread = noise / math.sqrt(3) / math.sqrt(max(length / len(pairs) * 4, 1e-12))
        spread *= max(1.0, math.sqrt(error))
        whole = self._poses[-1].stamp_ns - self._poses[0].stamp_ns >= 2 * self._stride_ns
        verdict = OdometryVerdict(
            error=error, seen=seen, moved_m=moved, scale=scale, scale_sigma=spread
        )
        if not seen:
            return verdict
        text = ""
        if error > _DISAGREES:
            if by_odometry < 0.2 * moved and moved > 1.5 * noise:
                text = f"it says {by_odometry:.2g} m where the poses say {moved:.2g} m: it stands still"
            elif (
                others[best] < 0.5 * error
                and not whole
                and (best == "inverse" or _angle(R) > 2 * _TURNED)
            ):
                text = UNNAMED
            elif others[best] < 0.5 * error and best == "inverse":
                text = "it is inverted: its poses are those of its frame in the robot's"
            elif others[best] < 0.5 * error and whole and _angle(R) > _TURNED:
                text = _frame_words(R)
        if not text and abs(scale - 1) > max(_SCALE_RIGHT, 3.0 * spread):
            text = (
                f"its distances are {1 / scale:.2g} times those of the poses"
                if scale > 0.05
                else ""
            )
        if not text and error > 1.5 * _DISAGREES and whole:
            text = (
                f"over {self._stride_ns * 1e-9:g} s it says {by_odometry:.2g} m where the poses say "
                f"{moved:.2g} m, elsewhere"
            )
        return replace(verdict, text=text)


UNNAMED = "its frame is another"  # as long as too little moved to say which
_SCALE_KNOWN, _SCALE_RIGHT = 0.2, 0.2  # deviation and error of a scale that is trusted again
_TURNED = math.radians(25.0)  # less is no wrong convention
_AGREES = 1.5  # times the variance that the poses' own errors explain
_DISAGREES = 2.0


@dataclass(frozen=True)
class OdometryVerdict:
    """What the comparison of odometry and poses says.

    Attributes:
        text: in what they differ; empty if they do not, or if too little moved.
        error: squared difference over what the poses' own noise explains; NaN without a comparison.
        seen: enough moved for a comparison.
        moved_m: what the poses say of a stride.
        scale: of the poses' ways over the odometry's.
        scale_sigma: of that.
    """

    text: str = ""
    error: float = math.nan
    seen: bool = False
    moved_m: float = 0.0
    scale: float = math.nan
    scale_sigma: float = math.nan

    @property
    def doubt_m(self) -> float:
        """By how much the odometry may mislead along the way, in m; 0 while its length is as likely right."""
        if not self.seen or not abs(self.scale - 1) > 1.5 * self.scale_sigma:
            return 0.0
        return abs(self.scale - 1) * self.moved_m / 2

    @property
    def agrees(self) -> bool:
        """Whether enough moved to say that the odometry and the poses tell of one motion."""
        known = self.scale_sigma < _SCALE_KNOWN
        right = known and abs(self.scale - 1) < _SCALE_RIGHT
        return self.seen and not self.text and self.error < _AGREES and right


def _misfit(difference: Array, sigma: Array) -> float:
    """Returns the median squared difference in units of the noise: 1 for noise alone."""
    return float(np.median(((difference / sigma) ** 2).mean(axis=1))) / 0.89


def _turn(said: Array, odometry: Array, sigma: Array) -> Array:
    """Returns the rotation (3, 3) that best turns the odometry's motions into those said (Kabsch 1976)."""
    H = np.zeros((3, 3))
    for part in (slice(0, 3), slice(3, 6)):
        H += (said[:, part] / sigma[:, part] ** 2).T @ odometry[:, part]
    U, _, Vt = np.linalg.svd(H)
    return np.asarray(U @ np.diag([1.0, 1.0, np.linalg.det(U) * np.linalg.det(Vt)]) @ Vt)


def _vector(R: Array) -> Array:
    T = np.eye(4)
    T[:3, :3] = R
    return se3.log(T)[3:]


def _angle(R: Array) -> float:
    return float(np.linalg.norm(_vector(R)))


def _frame_words(R: Array) -> str:
    """Says how the odometry's axes are turned."""
    vector, angle = _vector(R), _angle(R)
    axis = vector / max(angle, 1e-9)
    near = {"x": abs(axis[0]), "y": abs(axis[1]), "z": abs(axis[2])}
    name = max(near, key=lambda n: near[n])
    degrees = math.degrees(angle)
    if name == "x" and near["x"] > 0.9 and degrees > 150:
        return (
            "its axes are those of NED, x forward, y right, z down: turned by 180 degrees about x"
        )
    if near[name] > 0.9:
        return f"its frame is turned by {degrees:.0f} degrees about {name}"
    return f"its frame is turned by {degrees:.0f} degrees"
