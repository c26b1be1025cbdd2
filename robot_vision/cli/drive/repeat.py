"""`robot-vision drive repeat`: routes that are taught in homes, and repeated when the homes have changed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import teach
from robot_vision.cli.arguments import add_output, at_least_1, number, progress
from robot_vision.cli.drive.worlds import SEED, UNSEEN, add_moving
from robot_vision.driving.route import read_route
from robot_vision.errors import ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.places.map.opening import descriptor_size, open_map
from robot_vision.simulation.nodes import COLLISION
from robot_vision.simulation.repeating import (
    BACK,
    BOXES,
    ODOMETRY,
    SIGHT,
    WATCHED_BACK,
    WAYS,
    Repeat,
    figures,
    plain,
    repeat,
)
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.teaching import Taught, changed, start_of, taught_drive
from robot_vision.simulation.world.homes import random_home
from robot_vision.text.console import plain_console

FORMAT = "robot_vision.repeats/1"
_HEADER = (
    "by",
    "starts",
    "arrived; stood before the box (95 %)",
    "km",
    "cross-track: median, p95",
    "collisions/km (95 %)",
    "verified",
    "wrong",
    "ends",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--model",
        default="demo",
        metavar="BUNDLE",
        help="model bundle with a place head that localises (default: %(default)s)",
    )
    parser.add_argument(
        "--reflex",
        default="",
        metavar="BUNDLE",
        help="model bundle with a steering head, whose probability of a collision slows the robot and stops "
        "it (default: none)",
    )
    parser.add_argument(
        "--worlds",
        type=at_least_1,
        default=5,
        metavar="N",
        help="number of homes, with one route each (default: %(default)s)",
    )
    parser.add_argument(
        "--first-world",
        type=SEED,
        default=UNSEEN,
        metavar="SEED",
        help="seed of the first home; the others follow (default: %(default)s)",
    )
    parser.add_argument(
        "--starts",
        type=at_least_1,
        default=4,
        metavar="N",
        help="starts on each route, each on another day (default: %(default)s)",
    )
    parser.add_argument(
        "--metres",
        type=number(float, 1.0, 1000.0),
        default=12.0,
        metavar="M",
        help="about how long a route is, in metres (default: %(default)s)",
    )
    add_moving(parser)
    parser.add_argument(
        "--by",
        nargs="+",
        choices=WAYS,
        default=(SIGHT, ODOMETRY),
        help="how routes are repeated; sight, odometry and nearest from the same starts. odometry looks "
        "until it knows where it is, and then no more; nearest steers by the nearest taught image; backwards "
        "is by sight in reverse, and rear the same with the reflex on a camera that looks back; box and "
        "rear_box have a crate on the way, before which the robot is to stand; these three need --reflex "
        "(default: sight and odometry)",
    )
    add_output(parser, "drive-repeat", ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Teaches and repeats; returns the exit status."""
    needy = [by for by in args.by if by in (*BOXES, *WATCHED_BACK)]
    if needy and not args.reflex:
        raise ConfigError(f"--by {needy[0]} needs a reflex that sees the way: give --reflex steer")
    make_folder(args.output)
    seeds = range(args.first_world, args.first_world + args.worlds)
    for seed in seeds:
        if _folder(args, seed).exists():
            raise ConfigError(f"{_folder(args, seed)} is there already: choose another --output")
    found: dict[str, list[Repeat]] = {by: [] for by in dict.fromkeys(args.by)}
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(open_pipeline(args.model))
        descriptor_size(pipeline.bundle)  # before the minutes of work
        reflexes: dict[bool, Sight] = {}  # by whether they look back
        if args.reflex:
            steering = stack.enter_context(open_pipeline(args.reflex))
            for back in (False, True):
                reflexes[back] = Sight(steering, Robot(), back)
                reflexes[back].read([("--reflex", COLLISION)])
        bar = stack.enter_context(progress())
        task = bar.add_task("starts", total=args.worlds * args.starts * len(found))
        for seed in seeds:
            folder = _folder(args, seed)
            taught = _taught(args, folder, seed)
            route = read_route(folder / "route")
            with open_map(folder / "route" / route.map, "read") as places:
                for start in range(args.starts):
                    day = 1000 * (seed + 1) + start
                    world = changed(taught, np.random.default_rng((day, 28)))
                    for by, repeats in found.items():
                        robot = start_of(
                            taught,
                            world,
                            day,
                            args.walkers,
                            args.moving_doors,
                            by in BOXES,
                            by in BACK,
                        )
                        reflex = reflexes.get(by in WATCHED_BACK)
                        repeats.append(
                            repeat(folder.name, taught, route, places, pipeline, robot, by, reflex)
                        )
                        _write(args, pipeline.bundle, found)
                        bar.advance(task)
    _print(args.format, [figures(repeats) for repeats in found.values()])
    print(f"written: {args.output / 'repeats.json'}", file=sys.stderr)
    return 0


def _folder(args: argparse.Namespace, seed: int) -> Path:
    output: Path = args.output
    return output / f"home-{seed}"


def _taught(args: argparse.Namespace, folder: Path, seed: int) -> Taught:
    """Drives the way and teaches it."""
    make_folder(folder)
    rear = any(by in WATCHED_BACK for by in args.by)
    taught = taught_drive(folder / "bag", random_home(seed), seed, args.metres, rear)
    parser = argparse.ArgumentParser()
    teach.add_arguments(parser)
    words = [str(folder / "bag"), "--model", args.model, "--output", str(folder / "route")]
    words += ["--option", "pose_topic=/odom"]  # not the truth, which is there, too
    if rear:
        words += ["--option", "image_topic=/camera/image_raw", "--rear-topic", "/rear/image_raw"]
    words += ["--reflex", args.reflex] if args.reflex else []
    with contextlib.redirect_stdout(sys.stderr):
        teach.run(parser.parse_args(words))
    return taught


def _write(args: argparse.Namespace, bundle: ModelBundle, found: dict[str, list[Repeat]]) -> None:
    document = {
        "format": FORMAT,
        "command": " ".join(["robot-vision", *sys.argv[1:]]),
        "model": {"name": bundle.name, "sha256": bundle.sha256},
        "by": [figures(repeats) for repeats in found.values() if repeats],
        "repeats": [row for repeats in found.values() for row in plain(repeats)],
    }
    write_whole(args.output / "repeats.json", json.dumps(document, indent=1) + "\n")


def _print(form: str, rows: list[dict[str, Any]]) -> None:
    if form == "json":
        print(json.dumps(rows, indent=1))
        return
    table = Table(*_HEADER)
    for row in rows:
        share, low, high = row["well_share"]
        rate, least, most = row["collisions_per_km"]
        table.add_row(
            row["by"],
            str(row["starts"]),
            f"{share:.0%} ({low:.0%} to {high:.0%})",
            f"{row['km']:.3f}",
            f"{row['cross_track_median_m']:.3f} m, {row['cross_track_p95_m']:.3f} m",
            f"{rate:.1f} ({least:.1f} to {most:.1f})",
            f"{row['verified']} of {row['looks']}",
            str(row["wrong"]),
            ", ".join(f"{name} {count}" for name, count in row["ends"].items()),
        )
    plain_console().print(table)
