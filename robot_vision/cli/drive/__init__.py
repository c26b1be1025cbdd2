"""`robot-vision drive VERB`: lets drivers drive through simulated homes, judges and records them."""

from __future__ import annotations

import argparse
from pathlib import Path

from robot_vision.cli.arguments import number, progress
from robot_vision.cli.drive import evaluate
from robot_vision.cli.drive.worlds import add_worlds, made_mount, world_makers
from robot_vision.files.folders import make_folder
from robot_vision.labelling.table import TABLE
from robot_vision.simulation.drivers import EXPERT
from robot_vision.simulation.recording import FolderRecording, Way
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.simulator import Simulator
from robot_vision.text.counts import counted

_DISTURBED = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    verbs = parser.add_subparsers(dest="drive_verb", metavar="verb", required=True)
    judged = verbs.add_parser(
        "evaluate",
        help="let drivers drive through homes and count collisions, stops and what they visited",
        description="Lets drivers drive through homes in lock-step, and counts collisions and times stuck "
        "per kilometre, with Poisson intervals, mean speed and the share of places visited.",
    )
    evaluate.add_arguments(judged)

    recorded = verbs.add_parser(
        "record",
        help="record images with the expert's steering and whether something is in the way",
        description="Records images with the steering of the expert, which sees the geometry, and whether "
        f"something is in the way: a folder with {TABLE}, which `train` takes as labels_csv. The same "
        "command goes on with a recording that was cut off; another driver or other homes are added to it.",
    )
    add_worlds(recorded, 20, 0, 40.0)
    recorded.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    recorded.add_argument(
        "--blocked",
        type=number(float, 0.01, 5.0),
        default=0.5,
        metavar="M",
        help="something is in the way if it is nearer than this straight ahead, in metres (default: "
        "%(default)s)",
    )
    recorded.add_argument(
        "--disturbed",
        type=number(float, 0.0, 0.9),
        metavar="SHARE",
        help="share of the time in which the robot does not obey its driver; the labels stay the expert's "
        f"(default: {_DISTURBED}; 0 with --model, which errs by itself)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb; returns the exit status."""
    return _record(args) if args.drive_verb == "record" else evaluate.run(args)


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    if args.drive_verb == "evaluate" or not (args.out / TABLE).is_file():
        return "nothing was written; fewer --worlds or --metres take less time"
    return (
        f"{args.out / TABLE} has the images so far, and can be trained on; the same command goes on, and "
        "drives through the home again that was cut off"
    )


def _record(args: argparse.Namespace) -> int:
    make_folder(args.out, "--out")
    mount, robot = made_mount(args), Robot()
    disturbed = _DISTURBED if args.disturbed is None else args.disturbed
    way = Way(args.metres, disturbed, args.walkers)
    with FolderRecording(args.out, mount, args.blocked) as recording, progress() as bar:
        homes = world_makers(args)
        left = {name: home for name, home in homes.items() if not recording.has(name, EXPERT, way)}
        task = bar.add_task("homes", total=len(homes), completed=len(homes) - len(left))
        count = 0
        for name, (seed, make) in left.items():
            simulator = Simulator(make(), seed, robot, mount, walkers=way.walkers)
            count += recording.add(seed, name, simulator, way)
            bar.advance(task)
    there = counted(len(homes) - len(left), "home was", "homes were")
    print(
        f"{counted(count, 'image')} of {counted(len(left), 'home')} added"
        f"{f', {there} there already' if len(left) < len(homes) else ''}: {args.out} has "
        f"{recording.images}, something in the way on {recording.blocked}; train on "
        f"{{kind: labels_csv, path: {args.out / TABLE}}}"
    )
    return 0
