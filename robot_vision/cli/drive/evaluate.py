"""`robot-vision drive evaluate`: drivers side by side in the same homes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.table import Table

from robot_vision.bundle.programs import FLOAT32
from robot_vision.cli.arguments import add_engine, add_output, progress
from robot_vision.cli.drive.worlds import UNSEEN, add_worlds, made_mount, world_makers
from robot_vision.errors import ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.gate.installed import find_rules, installed_rules
from robot_vision.gate.rules import Rules
from robot_vision.simulation import report
from robot_vision.simulation.drivers import DRIVERS, EXPERT, Driver
from robot_vision.simulation.nodes import NEAR, WAYS_TO_DRIVE
from robot_vision.simulation.referee import evaluate
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import Gated, ModelDriver
from robot_vision.simulation.world.home import default_world
from robot_vision.text.console import plain_console

Make = Callable[[int], Driver]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--driver",
        nargs="*",
        choices=tuple(DRIVERS),
        help="drivers to compare: expert plans by the geometry, free_way steers by what is in front of the "
        "robot, in_view by what of it is in the camera's field, straight and random see nothing (default: "
        "expert; with --model all five; --driver with no name after it: the model alone)",
    )
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="also drive by what a model bundle with a steering head says of the camera's images: a "
        "directory, or the name of an installed model",
    )
    parser.add_argument(
        "--law",
        nargs="+",
        choices=tuple(WAYS_TO_DRIVE),
        help="how the model drives: dronet by steering and the probability of a collision, free_distance "
        "by steering and the lower end of the nearest obstacle's distance, dronet+distance by all three "
        "(default: all for which the model has the heads)",
    )
    parser.add_argument(
        "--gate",
        nargs="+",
        default=[],
        metavar="RULES",
        help="also drive each driver behind a gate, whose rules read the model's answers: YAML files, or "
        f"names of installed ones ({', '.join(installed_rules())})",
    )
    add_engine(parser)
    parser.set_defaults(precision=FLOAT32)
    parser.add_argument(
        "--demo-home", action="store_true", help="also drive through the home of the demo"
    )
    add_worlds(parser, 20, UNSEEN, 200.0)
    add_output(parser, "drive", ("table", "markdown", "json"))


def run(args: argparse.Namespace) -> int:
    """Lets each driver drive through each home; returns the exit status."""
    if not args.model and (args.law or args.gate):
        option = "--law" if args.law else "--gate"
        raise ConfigError(f"{option} needs --model: name the bundle whose answers it reads")
    if args.driver == [] and not args.model:
        raise ConfigError("--driver names nobody: name a driver, or a model by --model")
    rules = {name: find_rules(name) for name in dict.fromkeys(args.gate)}
    robot, mount = Robot(), made_mount(args)
    with contextlib.ExitStack() as stack:
        sight = None
        if args.model:
            opened = open_pipeline(args.model, args.engine, args.device, args.precision)
            sight = Sight(stack.enter_context(opened), robot)
        drivers = dict(_drivers(args, sight, robot, rules))
        make_folder(args.output)
        makers = world_makers(args)
        if args.demo_home:
            makers["demo home"] = (0, default_world)
        worlds = {name: make() for name, (_, make) in makers.items()}
        simulators = [
            (
                name,
                functools.partial(
                    Simulator,
                    world,
                    makers[name][0],
                    robot,
                    mount,
                    walkers=args.walkers,
                    moving_doors=args.moving_doors,
                ),
            )
            for name, world in worlds.items()
        ]
        verdicts = []
        with progress() as bar:
            for name, make in drivers.items():
                task = bar.add_task(name, total=len(simulators))
                advance = functools.partial(bar.advance, task)
                verdicts.append(evaluate(make, name, simulators, args.metres, advance))
    about = {
        "command": " ".join(["robot-vision", *sys.argv[1:]]),
        "first_world": args.first_world,
        "worlds": len(worlds),
        "walkers": args.walkers,
        "moving_doors": args.moving_doors,
        "metres_a_world": args.metres,
        "robot": asdict(robot),
        "mount": asdict(mount),
    }
    if sight is not None:
        about["model"] = {"name": sight.model, "sha256": sight.sha256, "program": sight.program}
    found = report.document(verdicts, about)
    write_whole(args.output / "driving.json", json.dumps(found, indent=1) + "\n")
    write_whole(args.output / "report.html", report.page(verdicts, worlds, about, robot.height_m))
    print_figures(args.format, report.figures(verdicts))
    print(
        f"written: {args.output / 'driving.json'}, {args.output / 'report.html'}", file=sys.stderr
    )
    return 0


def _drivers(
    args: argparse.Namespace, sight: Sight | None, robot: Robot, rules: dict[str, Rules]
) -> Iterator[tuple[str, Make]]:
    """Gives each driver by name: without a gate, then behind each.

    Raises:
        ConfigError: the model does not say what a driver or a gate reads.
    """
    names = args.driver
    if names is None:
        names = list(DRIVERS) if sight else [EXPERT]
    makers: dict[str, Make] = {name: DRIVERS[name] for name in dict.fromkeys(names)}
    if sight is not None:
        laws = args.law or [
            n for n, (_, by) in WAYS_TO_DRIVE.items() if not by or NEAR in sight.topics
        ]
        for law in dict.fromkeys(laws):
            makers[law] = functools.partial(_by_model, sight, robot, law)
            makers[law](0)  # what the model lacks is said before anything drives
    yield from makers.items()
    for gate, its_rules in rules.items():
        assert sight is not None
        for name, make in makers.items():
            gated = functools.partial(_gated, make, sight, its_rules)
            gated(0)
            yield f"{name}, gate {gate}", gated


def _by_model(sight: Sight, robot: Robot, law: str, _seed: int) -> Driver:
    return ModelDriver(sight, robot, *WAYS_TO_DRIVE[law])


def _gated(make: Make, sight: Sight, rules: Rules, seed: int) -> Driver:
    return Gated(make(seed), sight, rules)


def print_figures(form: str, figures: list[dict]) -> None:
    """Prints a row a driver, as a table, Markdown or JSON."""
    if form == "json":
        print(json.dumps(figures, indent=1))
        return
    rows = [report.row(found) for found in figures]
    if form == "markdown":
        for cells in (report.HEADER, ["---"] * len(report.HEADER), *rows):
            print("| " + " | ".join(cells) + " |")
        return
    columns = [report.HEADER, *rows]
    table = Table(*(column[0] for column in columns))
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*cells)
    plain_console().print(table)
