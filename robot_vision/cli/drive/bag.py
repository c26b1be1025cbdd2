"""`robot-vision drive bag`: the rosbag that a robot would record while it drives through a home."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from robot_vision.cli.arguments import number, progress
from robot_vision.cli.drive.worlds import (
    SEED,
    UNSEEN,
    add_camera,
    add_home,
    add_moving,
    made_mount,
)
from robot_vision.errors import SourceError
from robot_vision.simulation.drive_bag import DEPTHS, write_drive
from robot_vision.simulation.drivers import DRIVERS, EXPERT
from robot_vision.simulation.referee import StuckWatch
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.days import days_of_home

_NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="bag to write")
    add_home(parser, UNSEEN)
    parser.add_argument(
        "--day",
        type=number(int, 0, 1000),
        default=0,
        metavar="N",
        help="days after the first: furniture moved, other pictures, crates and light (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=SEED,
        default=0,
        help="seed of the start, the way, the camera's noise and the odometry's errors (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--metres",
        type=number(float, 1.0, 1e5),
        default=30.0,
        metavar="M",
        help="way to drive, in metres (default: %(default)s)",
    )
    parser.add_argument(
        "--depth",
        dest="encoding",
        choices=(*filter(None, DEPTHS), _NONE),
        default="16UC1",
        help="encoding of the depth images (default: %(default)s)",
    )
    parser.add_argument("--scan", action="store_true", help="record a laser scan, too")
    parser.add_argument(
        "--rear", action="store_true", help="record a camera that looks back, too: /rear/image_raw"
    )
    add_moving(parser)
    add_camera(parser)


def run(args: argparse.Namespace) -> int:
    """Drives and records; returns the exit status."""
    world = next(itertools.islice(days_of_home(args.world), args.day, None))
    simulator = Simulator(
        world,
        args.seed,
        mount=made_mount(args),
        walkers=args.walkers,
        moving_doors=args.moving_doors,
    )
    drive = DRIVERS[EXPERT](args.seed)
    encoding = "" if args.encoding == _NONE else args.encoding
    m = simulator.motion
    watch = StuckWatch(simulator.now_ns, np.array([m.x, m.y]))
    with progress() as bar:
        task = bar.add_task("metres", total=args.metres)

        def driver(now: Simulator) -> tuple[float, float]:
            bar.update(task, completed=now.way_m)
            if watch.is_stuck(now.now_ns, np.array([now.motion.x, now.motion.y])):
                raise SourceError(
                    f"the robot is stuck after {now.way_m:.1f} m, and no bag was written: choose another "
                    "--seed or fewer --walkers"
                )
            return drive(now)

        truth = write_drive(
            args.out,
            simulator,
            driver,
            None,
            encoding,
            args.scan,
            metres=args.metres,
            rear=args.rear,
        )
    print(
        f"{args.out}: {simulator.way_m:.1f} m through home {args.world} on day {args.day}, "
        f"{len(truth.free_m)} images"
    )
    return 0
