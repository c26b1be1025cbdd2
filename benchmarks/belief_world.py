"""Robots for judging the pose filter: a drive, poses that err as those of networks do, faulty odometry.

NumPy alone, and the same for the same seed. A fault is the name of one entry of `FAULTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry

Array = NDArray[np.float64]
S = 1_000_000_000
ODOMETRY_HZ, POSE_HZ, SECONDS = 20, 10, 40
FAULT_S = 15.0  # when what happens once happens


@dataclass(frozen=True, eq=False)
class Drive:
    """What a robot does, and what is said of it.

    Attributes:
        stamps_ns: of the odometry, int64 (N,).
        truth: true poses (N, 4, 4) of the robot in the map.
        odometry: (stamp, pose (4, 4)), in order.
        poses: (stamp, pose (4, 4), covariance (6, 6) about the map's axes, source), in order.
        cells: (stamp, where the robot may be), in order.
    """

    stamps_ns: NDArray[np.int64]
    truth: Array
    odometry: list[tuple[int, Array]]
    poses: list[tuple[int, Array, Array, str]]
    cells: list[tuple[int, PositionCells]] = field(default_factory=list)

    def true_at(self, stamp_ns: int) -> Array:
        """Returns the true pose (4, 4) at one of the stamps, or the next after a time."""
        i = int(np.searchsorted(self.stamps_ns, stamp_ns))
        return np.asarray(self.truth[min(i, len(self.truth) - 1)])


@dataclass(frozen=True)
class Source:
    """How a source of poses errs: as its covariance says, alike from view to view, and at times grossly.

    Attributes:
        name: of the source.
        sigma_m: along each axis.
        sigma_deg: about each axis.
        alike_m: way after which its errors are others; 0 for errors that are independent.
        alike_deg: turn after which they are.
        outliers: share of grossly wrong poses, which come in bursts.
        burst: mean number of poses of a burst.
    """

    name: str = "network"
    sigma_m: float = 0.2
    sigma_deg: float = 3.0
    alike_m: float = 0.4
    alike_deg: float = 25.0
    outliers: float = 0.03
    burst: float = 2.0


def true_drive(rng: np.random.Generator, seconds: float = SECONDS) -> Array:
    """Returns poses (N, 4, 4) of a robot on a floor: straight on, round corners, and standing at times."""
    count = int(seconds * ODOMETRY_HZ)
    T = np.eye(4)
    T[:3, 3] = *rng.uniform(-3, 3, 2), 0.3
    T = T @ se3.exp(np.array([0, 0, 0, 0, 0, rng.uniform(-3, 3)]))
    speed, turn, goal, goal_turn, left = 0.0, 0.0, 0.6, 0.0, 0
    poses = []
    for _ in range(count):
        if left == 0:
            left = int(rng.integers(1, 5) * ODOMETRY_HZ)
            stands = rng.random() < 0.15
            goal = 0.0 if stands else rng.uniform(0.4, 1.0)
            goal_turn = 0.0 if stands or rng.random() < 0.4 else rng.uniform(-0.8, 0.8)
        left -= 1
        speed += np.clip(goal - speed, -1.0 / ODOMETRY_HZ, 1.0 / ODOMETRY_HZ)
        turn += np.clip(goal_turn - turn, -2.0 / ODOMETRY_HZ, 2.0 / ODOMETRY_HZ)
        poses.append(T)
        T = se3.orthonormal(T @ se3.exp(np.array([speed, 0, 0, 0, 0, turn]) / ODOMETRY_HZ))
    return np.array(poses)


def measured(
    rng: np.random.Generator, stamps_ns: NDArray[np.int64], truth: Array, source: Source
) -> list[tuple[int, Array, Array, str]]:
    """Returns what a source says of a drive."""
    sigma = np.repeat([source.sigma_m, np.radians(source.sigma_deg)], 3)
    error, found, wrong, gross = rng.normal(size=6), [], 0, np.zeros(6)
    for i in range(0, len(truth), ODOMETRY_HZ // POSE_HZ):
        if i and source.alike_m > 0:
            motion = se3.log(inverse(truth[i - ODOMETRY_HZ // POSE_HZ]) @ truth[i])
            metres, radians = np.linalg.norm(motion[:3]), np.linalg.norm(motion[3:])
            away = metres / source.alike_m + np.degrees(radians) / source.alike_deg + 0.01
            rho = np.exp(-away)
        else:
            rho = 0.0
        error = rho * error + np.sqrt(1 - rho**2) * rng.normal(size=6)
        if wrong == 0 and rng.random() < source.outliers / source.burst:
            wrong = 1 + rng.poisson(source.burst - 1)
            gross = rng.normal(size=6) * np.repeat([1.2, np.radians(20.0)], 3)
        xi = sigma * error + (gross if wrong else 0.0)
        wrong = max(0, wrong - 1)
        T = truth[i] @ se3.exp(xi)
        covariance = se3.map_covariance(T, np.diag(sigma**2))
        found.append((int(stamps_ns[i]), T, covariance, source.name))
    return found


# Faults. Each takes the drive and a random generator and returns another drive.

Fault = Callable[[Drive, np.random.Generator], Drive]


def _with_odometry(change: Callable[[Array], Array]) -> Fault:
    def fault(drive: Drive, rng: np.random.Generator) -> Drive:
        poses = change(np.array([T for _, T in drive.odometry]))
        odometry = [(stamp, T) for (stamp, _), T in zip(drive.odometry, poses, strict=True)]
        return Drive(drive.stamps_ns, drive.truth, odometry, drive.poses)

    return fault


def _turned(poses: Array, R: Array) -> Array:
    """As the pose of a body whose axes are turned by R (3, 3), about its own point."""
    turn = np.eye(4)
    turn[:3, :3] = R
    return np.array([turn @ T @ turn.T for T in poses])


def _rescaled(poses: Array, factor: float) -> Array:
    result = poses.copy()
    result[:, :3, 3] *= factor
    return result


def _reset(drive: Drive, rng: np.random.Generator) -> Drive:
    """The odometry is set to zero while it runs."""
    at = int(FAULT_S * S)
    zero = next(T for stamp, T in drive.odometry if stamp >= at)
    odometry = [(s, T if s < at else inverse(zero) @ T) for s, T in drive.odometry]
    return Drive(drive.stamps_ns, drive.truth, odometry, drive.poses)


def _restart(drive: Drive, rng: np.random.Generator) -> Drive:
    """The driver is away for 0.3 to 3 s and begins at zero again."""
    away = rng.uniform(0.3, 3.0)
    begin, end = int(FAULT_S * S), int((FAULT_S + away) * S)
    zero = next(T for stamp, T in drive.odometry if stamp >= end)
    odometry = [
        (s, T if s < begin else inverse(zero) @ T)
        for s, T in drive.odometry
        if not begin <= s < end
    ]
    return Drive(drive.stamps_ns, drive.truth, odometry, drive.poses)


def _frozen(drive: Drive, rng: np.random.Generator) -> Drive:
    """The odometry goes on with one pose."""
    at = int(FAULT_S * S)
    last = next(T for stamp, T in drive.odometry if stamp >= at)
    odometry = [(s, T if s < at else last) for s, T in drive.odometry]
    return Drive(drive.stamps_ns, drive.truth, odometry, drive.poses)


def _silent(drive: Drive, rng: np.random.Generator) -> Drive:
    """The odometry stops for 8 s."""
    begin, end = FAULT_S * S, (FAULT_S + 8) * S
    odometry = [(s, T) for s, T in drive.odometry if not begin <= s < end]
    return Drive(drive.stamps_ns, drive.truth, odometry, drive.poses)


def _kidnapped(drive: Drive, rng: np.random.Generator) -> Drive:
    """The robot is carried 4 m away and turned; its odometry does not see it."""
    at = int(FAULT_S * S)
    angle = rng.uniform(-np.pi, np.pi)
    carried = se3.exp(np.array([0, 0, 0, 0, 0, rng.uniform(-1, 1)]))
    carried[:2, 3] = 4 * np.cos(angle), 4 * np.sin(angle)
    here = next(T for stamp, T in zip(drive.stamps_ns, drive.truth, strict=True) if stamp >= at)
    move = here @ carried @ inverse(here)
    late = drive.stamps_ns >= at
    truth = drive.truth.copy()
    truth[late] = move @ truth[late]
    poses = []
    for stamp, T, C, source in drive.poses:
        if stamp < at:
            poses.append((stamp, T, C, source))
        else:
            moved = move @ T
            body = se3.body_covariance(T, C)
            poses.append((stamp, moved, se3.map_covariance(moved, body), source))
    return Drive(drive.stamps_ns, truth, drive.odometry, poses)


def _gap(drive: Drive, rng: np.random.Generator) -> Drive:
    """Nothing is said for 8 s; then the first pose is 5 m off."""
    begin, end = FAULT_S * S, (FAULT_S + 8) * S
    odometry = [(s, T) for s, T in drive.odometry if not begin <= s < end]
    poses = [p for p in drive.poses if not begin <= p[0] < end]
    first = next(i for i, p in enumerate(poses) if p[0] >= end)
    stamp, T, C, source = poses[first]
    wrong = T.copy()
    wrong[0, 3] += 5.0
    poses[first] = (stamp, wrong, C, source)
    return Drive(drive.stamps_ns, drive.truth, odometry, poses)


def _without(drive: Drive, rng: np.random.Generator) -> Drive:
    return Drive(drive.stamps_ns, drive.truth, [], drive.poses)


_HALF_TURN = np.diag([-1.0, -1.0, 1.0])
_NED = np.diag([1.0, -1.0, -1.0])
_QUARTER = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

FAULTS: dict[str, Fault] = {
    "none": lambda drive, rng: drive,
    "no odometry": _without,
    "kidnapped": _kidnapped,
    "gap, then one wrong pose": _gap,
    "odometry silent for 8 s": _silent,
    "odometry reset to zero": _reset,
    "driver restarted": _restart,
    "odometry frozen midway": _frozen,
    "odometry static": _with_odometry(lambda poses: np.array([poses[0]] * len(poses))),
    "odometry turned by 180 deg": _with_odometry(lambda poses: _turned(poses, _HALF_TURN)),
    "odometry turned by 90 deg": _with_odometry(lambda poses: _turned(poses, _QUARTER)),
    "odometry inverted": _with_odometry(lambda poses: np.array([inverse(T) for T in poses])),
    "odometry in NED": _with_odometry(lambda poses: _turned(poses, _NED)),
    "odometry x 1.5": _with_odometry(lambda poses: _rescaled(poses, 1.5)),
    "odometry x 0.5": _with_odometry(lambda poses: _rescaled(poses, 0.5)),
}


def make_drive(
    seed: int,
    fault: str = "none",
    sources: tuple[Source, ...] = (Source(),),
    errors: OdometryErrors | None = None,
    seconds: float = SECONDS,
) -> Drive:
    """Returns the drive of a seed, with a fault."""
    rng = np.random.default_rng(seed)
    truth = true_drive(rng, seconds)
    stamps = np.arange(len(truth), dtype=np.int64) * (S // ODOMETRY_HZ)
    odometry = simulated_odometry(stamps, truth, errors or OdometryErrors(), seed)
    poses = sorted(
        (p for source in sources for p in measured(rng, stamps, truth, source)),
        key=lambda p: p[0],
    )
    drive = Drive(stamps, truth, list(zip(stamps.tolist(), odometry, strict=True)), poses)
    return FAULTS[fault](drive, rng)
