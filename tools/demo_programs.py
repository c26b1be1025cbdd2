#!/usr/bin/env python3
"""Adds certified programs to the demo bundle, by rendered drives that nothing was trained on.

    python tools/demo_programs.py

Frames are two seconds apart, so that each counts as one. About ten minutes on two cores; Ctrl-C leaves the
bundle as it is. On another machine it adds certificates for that one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_dense import record  # noqa: E402

from robot_vision.simulation.drive import evaluation_drive  # noqa: E402
from robot_vision.simulation.world.home import default_world  # noqa: E402
from robot_vision.simulation.world.sensor import Sensor  # noqa: E402
from robot_vision.simulation.world.surfaces import SURFACES  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 600  # of drives; training, calibration and tests have others
STEP_S = 2.0
OPTIONS = (
    "image_topic=/camera/image_raw",
    "label_topic=/truth/room",
    "truth_images=segmentation=/truth/segmentation, depth=/truth/depth",
    f"classes={', '.join(SURFACES)}",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Renders and optimises."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo_programs")
    parser.add_argument(
        "--drives", type=int, default=80, help="number of drives, about 18 frames each"
    )
    parser.add_argument("--programs", default="int8,int8-vnni")
    parser.add_argument("--more", default="", help="further arguments of optimise")
    args = parser.parse_args(argv)
    world = default_world()
    frames = [
        frame
        for seed in range(FIRST_SEED, FIRST_SEED + args.drives)
        for frame in evaluation_drive(world, rate_hz=1 / STEP_S, seed=seed)
    ]
    drives = args.out / "drives"
    record(drives, frames, Sensor(seed=FIRST_SEED), STEP_S)
    command = [sys.executable, "-m", "robot_vision.cli", "optimise", str(args.bundle)]
    command += ["--bag", str(drives), "--programs", args.programs, *args.more.split()]
    for option in OPTIONS:
        command += ["--option", option]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
