"""`python -m benchmarks.belief`: whether the pose filter believes what the evidence says, fault by fault."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.belief_world import FAULTS, ODOMETRY_HZ, POSE_HZ, Drive, S, Source, make_drive
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.errors import MeasurementError, SourceError
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.predict import runner
from robot_vision.evaluation.predict.cache import cache_file
from robot_vision.evaluation.predict.runner import Job
from robot_vision.filters.pose_filter import LOCALISED, PoseFilter, PoseFilterSettings
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse, pose_matrix
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry
from robot_vision.truth.reading import TruthRequest, read_truth

Array = NDArray[np.float64]
INSIDE = 12.591587243743977  # the 95 % quantile of chi squared with 6 degrees of freedom
FALSE_M, FALSE_SIGMA = 0.5, 3.0
BLOCK = 50  # frames
CARRIED_M = 2.0  # between two frames: no robot drives so far


@dataclass(frozen=True, eq=False)
class Belief:
    """What was believed of a drive, at each of its times.

    Attributes:
        seconds: (N,).
        localised: bool (N,).
        false: bool (N,), localised and wrong by more than 0.5 m and 3 of the stated standard deviations.
        error_m: (N,); NaN without an estimate.
        nees: (N,); NaN without an estimate.
        notes: what the filter said of the odometry.
    """

    seconds: Array
    localised: NDArray[np.bool_]
    false: NDArray[np.bool_]
    error_m: Array
    nees: Array
    notes: tuple[str, ...]

    @property
    def longest_false_s(self) -> float:
        """The longest time in one piece for which it was falsely localised."""
        longest, since = 0.0, None
        for t, wrong in zip(self.seconds, self.false, strict=True):
            since = (t if since is None else since) if wrong else None
            if since is not None:
                longest = max(longest, t - since + self.step_s)
        return longest

    @property
    def first(self) -> int:
        """Index of the first time at which it was localised; all of them if it never was."""
        return int(np.argmax(self.localised)) if self.localised.any() else len(self.localised)

    @property
    def since(self) -> float:
        """Share of the time localised, from the first time on."""
        return float(self.localised[self.first :].mean()) if self.localised.any() else 0.0

    @property
    def step_s(self) -> float:
        """Seconds between two times."""
        return float(np.median(np.diff(self.seconds)))

    @property
    def false_s(self) -> float:
        """All the time for which it was falsely localised."""
        return float(self.false.sum()) * self.step_s

    @property
    def flaps(self) -> int:
        """How often it stopped being localised."""
        return int((self.localised[:-1] & ~self.localised[1:]).sum())


def events(drive: Drive) -> Iterator[tuple[int, str, tuple]]:
    """Yields what comes in, in the order of the stamps: by which method of the filter; odometry first."""
    merged = [(s, 0, "add_odometry", (T,)) for s, T in drive.odometry]
    merged += [(s, 1, "add_pose", (T, C, source)) for s, T, C, source in drive.poses]
    merged += [(s, 2, "add_cells", (cells, "cells")) for s, cells in drive.cells]
    for stamp, _, method, values in sorted(merged, key=lambda e: (e[0], e[1])):
        yield stamp, method, values


def believe(drive: Drive, settings: PoseFilterSettings | None = None) -> Belief:
    """Runs the filter over a drive and judges it at each time of the odometry's rate."""
    filter_ = PoseFilter(settings)
    rows: list[tuple[float, bool, bool, float, float]] = []
    coming = list(events(drive))
    at, notes = 0, []
    for stamp in drive.stamps_ns.tolist():
        while at < len(coming) and coming[at][0] <= stamp:
            when, method, values = coming[at]
            at += 1
            try:
                getattr(filter_, method)(when, *values)
            except MeasurementError:
                continue
        note = filter_.odometry_fault
        if note and (not notes or notes[-1] != note):
            notes.append(note)
        estimate = filter_.estimate(stamp)
        if estimate is None:
            rows.append((stamp / S, False, False, np.nan, np.nan))
            continue
        localised = filter_.condition(estimate) == LOCALISED
        true = drive.true_at(stamp)
        error = true[:3, 3] - estimate.position
        distance = float(np.linalg.norm(error))
        along = error / max(distance, 1e-9)
        sigma = float(np.sqrt(along @ estimate.covariance[:3, :3] @ along))
        xi = se3.log(inverse(estimate.T) @ true)
        body = se3.body_covariance(estimate.T, estimate.covariance)
        nees = float(xi @ np.linalg.solve(body, xi))
        false = localised and distance > max(FALSE_M, FALSE_SIGMA * sigma)
        rows.append((stamp / S, localised, false, distance, nees))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Belief(columns[0], columns[1], columns[2], columns[3], columns[4], tuple(notes))


def row(name: str, beliefs: list[Belief]) -> list[str]:
    """Returns a line of the table."""
    localised = np.concatenate([b.localised for b in beliefs])
    nees = np.concatenate([b.nees for b in beliefs])[localised]
    per_drive = np.array([b.nees[b.localised].mean() / 6 for b in beliefs if b.localised.any()])
    spread = (
        1.96 * per_drive.std(ddof=1) / np.sqrt(len(per_drive)) if len(per_drive) > 1 else np.nan
    )
    error = np.concatenate([b.error_m[b.localised] for b in beliefs])
    return [
        name,
        f"{localised.mean():.3f}",
        f"{min(b.localised.mean() for b in beliefs):.3f}",
        f"{max(b.first * b.step_s for b in beliefs):.2f}",
        f"{np.mean([b.since for b in beliefs]):.3f}",
        f"{max(b.longest_false_s for b in beliefs):.2f}",
        f"{sum(b.false_s for b in beliefs):.2f}",
        f"{np.mean(nees <= INSIDE):.3f}",
        f"{per_drive.mean():.2f} ± {spread:.2f}",
        f"{np.mean([b.flaps for b in beliefs]):.1f}",
        f"{np.quantile(error, 0.95):.2f}",
    ]


def bound(drives: list[Drive]) -> tuple[float, float]:
    """Returns how long, in one piece and in all, poses mislead that are never grossly wrong.

    Each is taken as it is until the next, with its covariance, which is right. What is left lies beyond
    three stated deviations, and these are alike from one pose to the next.
    """
    longest, total = 0.0, 0.0
    for drive in drives:
        step_s = float(drive.stamps_ns[1] - drive.stamps_ns[0]) / S
        wrong = 0
        for stamp, T, C, _ in drive.poses:
            error = drive.true_at(stamp)[:3, 3] - T[:3, 3]
            distance = float(np.linalg.norm(error))
            sigma = float(np.sqrt(error @ C[:3, :3] @ error)) / max(distance, 1e-9)
            false = distance > max(FALSE_M, FALSE_SIGMA * sigma)
            wrong = wrong + 1 if false else 0
            held_s = ODOMETRY_HZ / POSE_HZ * step_s
            longest, total = max(longest, wrong * held_s), total + false * held_s
    return longest, total


HEADER = (
    "robot", "localised", "least of a drive", "longest start, s", "after the start",
    "longest false, s", "false, s", "coverage of 95 %",
    "NEES over ideal", "losses a drive", "95 % of errors, m",
)  # fmt: skip


def recorded(bag: str, models: list[str], seed: int, odometry: bool) -> Drive:
    """Returns what models say of a recording, with odometry that sees no carrying away.

    Of several, number k answers those blocks of 50 frames whose index modulo their number is k: the ones that
    `config/training/kitchen_pose.yaml` leaves out of its training with `test_remainder` k.
    """
    said, stamps, truth = [], np.zeros(0, np.int64), np.zeros((0, 4, 4))
    for number, model in enumerate(models):
        stamps, truth, poses = predicted(bag, model)
        said += [p for i, p in enumerate(poses) if i // BLOCK % len(models) == number]
    known = odometry_of(stamps, truth, seed) if odometry else []
    return Drive(stamps, truth, known, sorted(said, key=lambda p: p[0]))


def odometry_of(stamps: NDArray[np.int64], truth: Array, seed: int) -> list[tuple[int, Array]]:
    """Returns odometry made of true poses (N, 4, 4), which sees no carrying away."""
    driven = [truth[0]]
    for before, after in itertools.pairwise(truth):
        motion = inverse(before) @ after
        carried = np.linalg.norm(motion[:3, 3]) > CARRIED_M
        driven.append(driven[-1] @ (np.eye(4) if carried else motion))
    made = simulated_odometry(stamps, np.array(driven), OdometryErrors(), seed)
    return list(zip(stamps.tolist(), made, strict=True))


def predicted(
    bag: str, model: str
) -> tuple[NDArray[np.int64], Array, list[tuple[int, Array, Array, str]]]:
    """Returns the stamps (N,) of a recording's images, the true poses (N, 4, 4), and what a model says."""
    bundle = ModelBundle.load(find_model(model))
    folder = Path("out/belief") / bundle.path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        bag=str(Path(bag).expanduser().absolute()),
        name=Path(bag).name,
        cache=str(cache_file(folder, bag).absolute()),
        model=str(bundle.path.absolute()),
        topic="",
        threads=1,
    )
    outcome = next(iter(runner.run([job])))
    if outcome.error:
        raise SourceError(outcome.error)
    predictions = outcome.predictions()
    found = associate(
        predictions, read_truth(Path(job.bag), TruthRequest(), predictions.meta["frame_id"])
    )
    p = found.predictions
    assert p.position is not None and p.orientation_xyzw is not None and p.covariance is not None
    stamps = np.asarray(p.stamps_ns, np.int64)
    truth = np.array([pose_matrix(*row) for row in zip(found.positions, found.xyzw, strict=True)])
    said = [
        (int(stamp), pose_matrix(position, xyzw), np.asarray(covariance), "network")
        for stamp, position, xyzw, covariance in zip(
            stamps, p.position, p.orientation_xyzw, p.covariance, strict=True
        )
    ]
    return stamps, truth, said


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drives", type=int, default=8, help="of each fault (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=3000, help="(%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="(all)")
    parser.add_argument("--bag", action="append", help="judge recordings, in place of faults")
    parser.add_argument(
        "--model", action="append", help="bundle that sees them (demo); several: folds"
    )
    args = parser.parse_args()
    head = f"| {' | '.join(HEADER)} |\n| {' | '.join(['---'] * len(HEADER))} |"
    if args.bag:
        print(head)
        for name, odometry in (("recordings", True), ("recordings, no odometry", False)):
            beliefs = [
                believe(recorded(bag, args.model or ["demo"], seed, odometry))
                for seed, bag in enumerate(args.bag)
            ]
            print(f"| {' | '.join(row(name, beliefs))} |", flush=True)
        return
    seeds = range(args.first_seed, args.first_seed + args.drives)
    right = (Source(outliers=0.0),)
    longest, total = bound([make_drive(seed, "no odometry", right) for seed in seeds])
    print(
        f"poses alone, all right and their covariance too: false for {longest:.2f} s, {total:.2f} s in all"
    )
    print(head, flush=True)
    with ProcessPoolExecutor(args.processes) as pool:
        for fault in args.fault or FAULTS:
            beliefs = list(pool.map(_believed, [(seed, fault) for seed in seeds]))
            print(f"| {' | '.join(row(fault, beliefs))} |", flush=True)


def _believed(drive: tuple[int, str]) -> Belief:
    return believe(make_drive(*drive))


if __name__ == "__main__":
    main()
