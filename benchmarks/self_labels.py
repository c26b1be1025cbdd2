"""How true the labels are that a recording gives itself: `python -m benchmarks.self_labels`.

The simulator's expert drives through homes; the bags label themselves by `robot-vision data label`, and the
labels are held to what the simulator knows. Depth is exact, or that of a structured-light camera: noise of
1.425 mm times the squared distance in metres (Khoshelham and Elberink 2012, "Accuracy and Resolution of
Kinect Depth Data"), and nothing nearer than 0.5 m.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.cli import main as robot_vision
from robot_vision.simulation.drive_bag import Truth, write_drive
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.homes import random_home

_FIRST = 10_000
_BLOCKED_M, _REACH_M, _TURN_RAD_S, _TURN_S, _RATE_HZ = 0.5, 5.0, 1.5, 0.5, 10
_SENSORS = ("depth", "structured light", "scan")


@dataclass
class Found:
    """Labels of one sensor next to the truth, NaN where an image has none."""

    free_m: list[float]
    true_m: list[float]
    collision: list[float]
    steering: list[float]
    turned: list[float]


def structured_light(i: int, metres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns what such a camera measures."""
    noise = np.random.default_rng(i).normal(0, 1.425e-3, metres.shape) * metres**2
    return np.where(metres < 0.5, 0, metres + noise).astype(np.float32)


def measure(sensor: str, seed: int, images: int, found: Found) -> None:
    """Drives through one home and adds what its bag says of itself."""
    simulator = Simulator(random_home(seed), seed)
    with tempfile.TemporaryDirectory() as folder:
        bag, out = Path(folder) / "bag", Path(folder) / "out"
        scan = sensor == "scan"
        options = {"change": structured_light} if sensor == "structured light" else {}
        truth = write_drive(
            bag, simulator, Expert(seed), images, "" if scan else "32FC1", scan, **options
        )
        words = ["data", "label", str(bag), "--out", str(out), "--collision", "--steering"]
        words += ["--robot-width", "0.4", "--obstacle-height", "0.05", "0.5"]
        words += ["--max-turn", str(_TURN_RAD_S), "--option", "split=train"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = robot_vision(words)
        assert status == 0, said.getvalue()
        with (out / "labels.csv").open() as file:
            rows = {int(Path(row["image"]).stem): row for row in csv.DictReader(file)}
    _add(rows, truth, found)


def _add(rows: dict[int, dict[str, str]], truth: Truth, found: Found) -> None:
    ahead = round(_TURN_S * _RATE_HZ)
    for i, free in enumerate(truth.free_m):
        row = rows.get(i, {})
        numbers = [float(row.get(k) or "nan") for k in ("free_m", "collision", "steering")]
        found.free_m.append(numbers[0])
        found.collision.append(numbers[1])
        found.steering.append(numbers[2])
        found.true_m.append(min(free, _REACH_M))
        later = truth.yaw[i + ahead] if i + ahead < len(truth.yaw) else np.nan
        found.turned.append(float((later - truth.yaw[i]) / _TURN_S / _TURN_RAD_S))


def line(sensor: str, found: Found) -> str:
    """Returns a row of the table."""
    free, true, said = (np.array(v) for v in (found.free_m, found.true_m, found.collision))
    known, is_true = np.isfinite(said), np.array(found.true_m) < _BLOCKED_M
    error = np.abs(free - true)[known]
    right = (said == is_true)[known]
    missed = known & is_true & (said == 0)
    turn = np.abs(np.array(found.steering) - np.array(found.turned))
    turn = turn[np.isfinite(turn)]
    return (
        f"| {sensor} | {known.sum()} of {len(known)} | {int((~known & is_true).sum())} | {is_true.sum()} | "
        f"{np.median(error) * 100:.1f} / {np.percentile(error, 95) * 100:.1f} / "
        f"{np.percentile(error, 99) * 100:.1f} cm | {right.mean():.4f} | {missed.sum()} | "
        f"{np.sqrt((turn**2).mean()):.3f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=int, default=10, help="number of homes (default: 10)")
    parser.add_argument("--images", type=int, default=300, help="images in each (default: 300)")
    args = parser.parse_args()
    print(
        "| measured by | labelled | blocked, left out | blocked | error of the free distance: median / p95 / "
        "p99 | collision right | collisions missed | steering RMSE |"
    )
    print("| --- " * 8 + "|")
    for sensor in _SENSORS:
        found = Found([], [], [], [], [])
        for seed in range(_FIRST, _FIRST + args.homes):
            measure(sensor, seed, args.images, found)
        print(line(sensor, found), flush=True)


if __name__ == "__main__":
    main()
