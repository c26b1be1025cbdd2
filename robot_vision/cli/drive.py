"""`robot-vision drive VERB`: lets drivers drive through simulated homes, judges and records them."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robot_vision.cli.arguments import add_output, at_least_1, number, progress
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.labelling.table import TABLE
from robot_vision.simulation import report
from robot_vision.simulation.drivers import DRIVERS
from robot_vision.simulation.recording import EXPERT, FolderRecording, Way
from robot_vision.simulation.referee import evaluate
from robot_vision.simulation.robot import Mount, Robot
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home
from robot_vision.simulation.world.world import World
from robot_vision.text.counts import counted

_UNSEEN = 10_000  # evaluations begin here, recordings at 0
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
    judged.add_argument(
        "--driver",
        nargs="+",
        choices=tuple(DRIVERS),
        default=["expert"],
        help="drivers to compare: expert sees the geometry, straight and random see nothing (default: "
        "expert)",
    )
    judged.add_argument(
        "--demo-home", action="store_true", help="also drive through the home of the demo"
    )
    _add_worlds(judged, 20, _UNSEEN, 200.0)
    add_output(judged, "drive", ("table", "markdown", "json"))

    recorded = verbs.add_parser(
        "record",
        help="record images with the expert's steering and whether something is in the way",
        description="Records images with the steering of the expert, which sees the geometry, and whether "
        f"something is in the way: a folder with {TABLE}, which `train` takes as labels_csv. The same "
        "command goes on with a recording that was cut off; another driver or other homes are added to it.",
    )
    _add_worlds(recorded, 20, 0, 40.0)
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


def _add_worlds(parser: argparse.ArgumentParser, worlds: int, first: int, metres: float) -> None:
    mount = Mount()
    parser.add_argument(
        "--worlds",
        type=at_least_1,
        default=worlds,
        metavar="N",
        help="number of homes (default: %(default)s)",
    )
    parser.add_argument(
        "--first-world",
        type=number(int, 0, 2**31 - 1),
        default=first,
        metavar="SEED",
        help="seed of the first home; the others follow (default: %(default)s)",
    )
    parser.add_argument(
        "--walkers",
        type=number(int, 0, 20),
        default=0,
        metavar="N",
        help="boxes of a person's size that walk about in each home (default: %(default)s)",
    )
    parser.add_argument(
        "--metres",
        type=number(float, 1.0, 1e6),
        default=metres,
        metavar="M",
        help="way in each home, in metres (default: %(default)s)",
    )
    parser.add_argument(
        "--camera-height",
        type=number(float, 0.05, 2.3),
        default=mount.height_m,
        metavar="M",
        help="height of the camera, in metres (default: %(default)s)",
    )
    parser.add_argument(
        "--camera-field",
        type=number(float, 10.0, 150.0),
        default=mount.field_deg,
        metavar="DEG",
        help="field of view from left to right, in degrees (default: %(default)s)",
    )
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=number(int, 32, 1920),
        default=[mount.width, mount.height],
        metavar=("WIDTH", "HEIGHT"),
        help=f"size of the images, in pixels (default: {mount.width} {mount.height})",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb; returns the exit status."""
    return _record(args) if args.drive_verb == "record" else _evaluate(args)


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    if args.drive_verb == "evaluate" or not (args.out / TABLE).is_file():
        return "nothing was written; fewer --worlds or --metres take less time"
    return (
        f"{args.out / TABLE} has the images so far, and can be trained on; the same command goes on, and "
        "drives through the home again that was cut off"
    )


def _mount(args: argparse.Namespace) -> Mount:
    width, height = args.image_size
    return Mount(
        height_m=args.camera_height, field_deg=args.camera_field, width=width, height=height
    )


def _worlds(args: argparse.Namespace) -> dict[str, tuple[int, Callable[[], World]]]:
    """Returns what makes each world, and its seed, by name."""
    seeds = range(args.first_world, args.first_world + args.worlds)
    return {f"home-{seed}": (seed, functools.partial(random_home, seed)) for seed in seeds}


def _evaluate(args: argparse.Namespace) -> int:
    make_folder(args.output)
    robot, mount = Robot(), _mount(args)
    makers = _worlds(args)
    if args.demo_home:
        makers["demo home"] = (0, default_world)
    worlds = {name: make() for name, (_, make) in makers.items()}
    simulators = [
        (
            name,
            functools.partial(
                Simulator, world, makers[name][0], robot, mount, walkers=args.walkers
            ),
        )
        for name, world in worlds.items()
    ]
    verdicts = []
    with progress() as bar:
        for driver in dict.fromkeys(args.driver):
            task = bar.add_task(driver, total=len(simulators))
            verdicts.append(
                evaluate(
                    DRIVERS[driver],
                    driver,
                    simulators,
                    args.metres,
                    functools.partial(bar.advance, task),
                )
            )
    about = {
        "command": " ".join(["robot-vision", *sys.argv[1:]]),
        "first_world": args.first_world,
        "worlds": len(worlds),
        "walkers": args.walkers,
        "metres_a_world": args.metres,
        "robot": asdict(robot),
        "mount": asdict(mount),
    }
    found = report.document(verdicts, about)
    write_whole(args.output / "driving.json", json.dumps(found, indent=1) + "\n")
    write_whole(args.output / "report.html", report.page(verdicts, worlds, about, robot.height_m))
    rows = [report.row(verdict.figures()) for verdict in verdicts]
    if args.format == "json":
        print(json.dumps([verdict.figures() for verdict in verdicts], indent=1))
    elif args.format == "markdown":
        for cells in (report.HEADER, ["---"] * len(report.HEADER), *rows):
            print("| " + " | ".join(cells) + " |")
    else:
        columns = [report.HEADER, *rows]
        table = Table(*(column[0] for column in columns))
        for cells in zip(*(column[1:] for column in columns), strict=True):
            table.add_row(*cells)
        Console().print(table)
    print(
        f"written: {args.output / 'driving.json'}, {args.output / 'report.html'}", file=sys.stderr
    )
    return 0


def _record(args: argparse.Namespace) -> int:
    make_folder(args.out, "--out")
    mount, robot = _mount(args), Robot()
    disturbed = _DISTURBED if args.disturbed is None else args.disturbed
    way = Way(args.metres, disturbed, args.walkers)
    with FolderRecording(args.out, mount, args.blocked) as recording, progress() as bar:
        homes = _worlds(args)
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
