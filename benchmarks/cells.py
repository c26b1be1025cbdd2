"""`python -m benchmarks.cells`: robots carried away in the demo's world, by poses with and without cells.

    python tools/cells_study.py     # trains the cells
    python -m benchmarks.cells

Each robot is carried into another room halfway through a drive, which its odometry does not see. Poses are
those of the demo's bundle, of each image or of one in ten. What was rendered and predicted is used again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.belief import Belief, believe, odometry_of
from benchmarks.belief_world import Drive, S
from robot_vision.bundle.installed import find_model
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.drive import evaluation_drive, kidnapped_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

Array = NDArray[np.float64]
RATE_HZ = 10.0
MISLED_M = 1.0
RESAMPLES = 2000
EVERY = {"each image": 1, "one image in ten": 10}
HEADER = (
    "poses", "cells", "localised", "misled, s", "false, s", "stopped after, s",
    "found after, s", "not found", "median error, m",
)  # fmt: skip


def predicted(folder: Path, seed: int, cells: Path) -> tuple[Drive, int]:
    """Returns what both bundles say of a drive, and the stamp of the first frame after it is carried away."""
    file = folder / f"{seed}.npz"
    if not file.is_file():
        world, camera = default_world(), Camera()
        frames, jump = kidnapped_drive(evaluation_drive(world, RATE_HZ, seed), world, RATE_HZ)
        assert jump is not None
        images = list(render_frames(world, frames, Sensor(seed=seed), camera, workers=1))
        where = [answer["cells"] for answer in Pipeline.load(cells)(images)]
        poses = [answer["pose"] for answer in Pipeline.load(find_model("demo"))(images)]
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            file,
            truth=np.array([frame.T_map_camera for frame in frames]),
            jump=jump,
            corners=where[0].cells,
            probabilities=np.array([answer.probabilities for answer in where]),
            position=np.array([pose.position for pose in poses]),
            xyzw=np.array([pose.orientation_xyzw for pose in poses]),
            covariance=np.array([pose.covariance for pose in poses]),
        )
    with np.load(file) as found:
        data = dict(found)
    stamps = np.arange(1, len(data["truth"]) + 1, dtype=np.int64) * int(S / RATE_HZ)
    said = [
        (stamp, pose_matrix(position, xyzw), covariance, "network")
        for stamp, position, xyzw, covariance in zip(
            stamps.tolist(), data["position"], data["xyzw"], data["covariance"], strict=True
        )
    ]
    answers = [
        (stamp, PositionCells(data["corners"], p / p.sum(), (0, 1)))
        for stamp, p in zip(stamps.tolist(), data["probabilities"].astype(float), strict=True)
    ]
    odometry = odometry_of(stamps, data["truth"], seed)
    return Drive(stamps, data["truth"], odometry, said, answers), int(stamps[int(data["jump"])])


def misled_s(belief: Belief) -> float:
    """Returns for how long it was localised more than a metre off, whatever covariance it stated."""
    return float((belief.localised & (belief.error_m > MISLED_M)).sum()) * belief.step_s


def measures(belief: Belief, carried_s: float) -> list[float]:
    """Returns the numbers of a drive, in the order of the table."""
    after = belief.seconds >= carried_s
    stopped = after & ~belief.localised
    stopped_s = belief.seconds[stopped][0] - carried_s if stopped.any() else np.nan
    found = after & (belief.seconds >= carried_s + stopped_s) & belief.localised & ~belief.false
    return [
        float(belief.localised.mean()),
        misled_s(belief),
        belief.false_s,
        float(stopped_s),
        float(belief.seconds[found][0] - carried_s) if found.any() else np.nan,
        float(not found.any()),
        float(np.median(belief.error_m[belief.localised])),
    ]


def shown(values: Array) -> str:
    """Returns the mean over drives with its interval of 95 %, by bootstrap over drives; NaN are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drives", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--first-seed", type=int, default=3100, help="(%(default)s)")
    parser.add_argument(
        "--study", type=Path, default=Path("out/cells_study"), help="of the cells (%(default)s)"
    )
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.drives)
    drives = [
        predicted(args.study / "carried", seed, args.study / "demo_cells" / "bundle")
        for seed in seeds
    ]
    print(f"| {' | '.join(HEADER)} |\n| {' | '.join(['---'] * len(HEADER))} |", flush=True)
    for name, every in EVERY.items():
        for used in (False, True):
            rows = []
            for seed, (drive, carried_ns) in zip(seeds, drives, strict=True):
                seen = replace(
                    drive,
                    poses=drive.poses[seed % every :: every],
                    cells=drive.cells if used else [],
                )
                rows.append(measures(believe(seen), carried_ns / S))
            numbers = [shown(column) for column in np.array(rows).T]
            print(f"| {' | '.join([name, 'yes' if used else 'no', *numbers])} |", flush=True)


if __name__ == "__main__":
    main()
