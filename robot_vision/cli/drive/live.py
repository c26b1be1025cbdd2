"""`robot-vision drive live`: the real nodes drive a robot through a home by its camera."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict

from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import add_output, number
from robot_vision.cli.demo import output_folder, own_network, terminated_like_interrupted
from robot_vision.cli.drive.evaluate import print_figures
from robot_vision.cli.drive.worlds import SEED, UNSEEN, add_home
from robot_vision.demo.processes import MAX_DOMAIN, Processes
from robot_vision.demo.self_driving import Ride, draw, watch
from robot_vision.driving.law import FREE_DISTANCE
from robot_vision.files.whole import write_whole
from robot_vision.gate.installed import installed_rules, rules_path
from robot_vision.gate.rules import read_rules
from robot_vision.simulation import report
from robot_vision.simulation.drivers import Straight
from robot_vision.simulation.nodes import NEAR, WAYS_TO_DRIVE
from robot_vision.simulation.referee import Verdict
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import Gated, ModelDriver
from robot_vision.simulation.world.homes import random_home
from robot_vision.text.console import plain_console

_HOME = UNSEEN + 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--model",
        default="steer",
        metavar="BUNDLE",
        help="model bundle with a steering head: a directory, or the name of an installed model "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--law",
        choices=tuple(WAYS_TO_DRIVE),
        help="how the model drives, as for `drive evaluate` (default: free_distance where the model "
        "has a depth head, else dronet)",
    )
    parser.add_argument(
        "--gate",
        default="",
        metavar="RULES",
        help="put the gate node behind the driver: a YAML file of rules, or the name of an installed one: "
        f"{', '.join(installed_rules())} (default: none)",
    )
    add_home(parser, _HOME)
    parser.add_argument(
        "--seed",
        type=SEED,
        default=0,
        help="seed of the start, the camera's noise and the odometry's errors (default: %(default)s)",
    )
    parser.add_argument(
        "--metres",
        type=number(float, 1.0, 1e6),
        default=40.0,
        metavar="M",
        help="way to drive, in metres (default: %(default)s)",
    )
    add_output(parser, "drive-live", ("table", "markdown", "json"))
    parser.add_argument(
        "--keep", action="store_true", help="keep the output of earlier runs and number this one"
    )
    parser.add_argument(
        "--domain",
        type=number(int, 0, MAX_DOMAIN),
        metavar="ID",
        help="ROS domain id (default: a free one)",
    )


def run(args: argparse.Namespace) -> int:
    """Drives, and writes a table, a picture and a page; returns the exit status."""
    console = plain_console(stderr=True)
    model = find_model(args.model)
    rules = rules_path(args.gate) if args.gate else None
    robot = Robot()
    with open_pipeline(model) as pipeline:
        sight = Sight(pipeline, robot)
        name = args.law or (FREE_DISTANCE if NEAR in sight.topics else next(iter(WAYS_TO_DRIVE)))
        law, by_distance = WAYS_TO_DRIVE[name]
        # What the model lacks is said before anything starts.
        ModelDriver(sight, robot, law, by_distance)
        if rules:
            Gated(Straight(), sight, read_rules(rules))
    environment = own_network(args.domain)
    ride = Ride(model, law, by_distance, rules, args.world, args.seed, args.metres)
    simulator = Simulator(random_home(args.world), args.seed, robot)
    with terminated_like_interrupted(), contextlib.ExitStack() as stack:
        output = stack.enter_context(output_folder(args.output, args.keep))
        processes = stack.enter_context(Processes(output / "logs", environment))
        started = time.monotonic()
        gate = f", behind gate {args.gate}" if args.gate else ""
        console.print(
            f"model {sight.model} from {model} drives by {name}{gate} through home {args.world}; ROS domain "
            f"{environment['ROS_DOMAIN_ID']}",
            style="dim",
            soft_wrap=True,
        )
        drive, views, took_s = watch(console, processes, output, ride, simulator)
        verdict = Verdict(f"{name}, gate {args.gate}" if args.gate else name, (drive,))
        (figures,) = report.figures([verdict])
        about = {
            "command": " ".join(["robot-vision", *sys.argv[1:]]),
            "model": {"name": sight.model, "sha256": sight.sha256},
            "world": args.world,
            "seed": args.seed,
            "robot": asdict(robot),
            "mount": asdict(simulator.mount),
            "simulated_s": drive.time_s,
            "took_s": took_s,
        }
        found = json.dumps(report.document([verdict], about), indent=1) + "\n"
        write_whole(output / "driving.json", found)
        worlds = {drive.world: simulator.world}
        page = report.page([verdict], worlds, about, robot.height_m)
        write_whole(output / "report.html", page)
        lines = [
            f"{drive.way_m:.0f} m in {drive.time_s:.0f} s of simulated time ({took_s:.0f} s here), "
            f"{len(drive.hits)} collisions, stuck {drive.stuck} times, {drive.visited:.0%} of the places "
            "visited",
            "stops: " + (", ".join(f"{k} {v}" for k, v in drive.stops.items()) or "none"),
        ]
        title = f"home {args.world}: model {sight.model}, {verdict.driver}"
        draw(output / "drive.png", simulator, drive, views, lines, title)
    print_figures(args.format, [figures])
    print(
        f"written: {output / 'drive.png'}, {output / 'report.html'}, {output / 'driving.json'} after "
        f"{time.monotonic() - started:.0f} s in all",
        file=sys.stderr,
    )
    return 0
