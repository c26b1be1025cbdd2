"""`robot-vision drive record`: images to learn to drive from, of where the way is free."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from robot_vision.cli.arguments import number, progress
from robot_vision.cli.drive.worlds import add_worlds, made_mount, world_makers
from robot_vision.driving.law import DRONET
from robot_vision.files.folders import make_folder
from robot_vision.labelling.table import TABLE
from robot_vision.simulation.drivers import FREE_WAY
from robot_vision.simulation.free_way import BLOCKED_M
from robot_vision.simulation.recording import FolderRecording, Way
from robot_vision.simulation.referee import Verdict
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import ModelDriver
from robot_vision.text.counts import counted

_DISTURBED = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    add_worlds(parser, 20, 0, 40.0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="a model bundle with a steering head drives: images of where it gets to, to train it again on "
        "all of them (DAgger); a directory, or the name of an installed model (default: what sees the "
        "geometry drives)",
    )
    parser.add_argument(
        "--blocked",
        type=number(float, 0.01, 5.0),
        default=BLOCKED_M,
        metavar="M",
        help="something is in the way if it is nearer than this straight ahead, in metres (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--disturbed",
        type=number(float, 0.0, 0.9),
        metavar="SHARE",
        help="share of the time in which the robot does not obey its driver; the labels stay "
        f"(default: {_DISTURBED}; 0 with --model, which errs by itself)",
    )


def run(args: argparse.Namespace) -> int:
    """Records each home that is not there yet; returns the exit status."""
    mount, robot = made_mount(args), Robot()
    disturbed = args.disturbed
    if disturbed is None:
        disturbed = 0.0 if args.model else _DISTURBED
    way = Way(args.metres, disturbed, args.walkers, args.moving_doors)
    with contextlib.ExitStack() as stack:
        name, driver = FREE_WAY, None
        if args.model:
            sight = Sight(stack.enter_context(open_pipeline(args.model)), robot)
            name = sight.sha256[:12]
            driver = name, ModelDriver(sight, robot, DRONET)
        make_folder(args.out, "--out")
        recording = stack.enter_context(FolderRecording(args.out, mount, args.blocked))
        bar = stack.enter_context(progress())
        homes = world_makers(args)
        left = {home: how for home, how in homes.items() if not recording.has(home, name, way)}
        task = bar.add_task("homes", total=len(homes), completed=len(homes) - len(left))
        before, drives = recording.images, []
        for home, (seed, make) in left.items():
            simulator = Simulator(
                make(), seed, robot, mount, walkers=way.walkers, moving_doors=way.moving_doors
            )
            drives.append(recording.add(seed, home, simulator, way, driver))
            bar.advance(task)
    there = counted(len(homes) - len(left), "home was", "homes were")
    count = recording.images - before
    print(
        f"{counted(count, 'image')} of {counted(len(left), 'home')} added"
        f"{f', {there} there already' if len(left) < len(homes) else ''}: {args.out} has "
        f"{recording.images}, something in the way on {recording.blocked}; train on "
        f"{{kind: labels_csv, path: {args.out / TABLE}}}"
    )
    if args.model and drives:
        found = Verdict(name, tuple(drives)).figures()
        rate, low, high = found["collisions_per_km"]
        print(
            f"{args.model} hit something {counted(found['collisions'], 'time')} in {found['km']:.2f} km: "
            f"{rate:.1f} ({low:.1f} to {high:.1f}) a kilometre"
        )
    return 0


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    if not (args.out / TABLE).is_file():
        return "nothing was written; fewer --worlds or --metres take less time"
    return (
        f"{args.out / TABLE} has the images so far, and can be trained on; the same command goes on, and "
        "drives through the home again that was cut off"
    )
