"""`robot-vision drive VERB`: lets drivers drive through simulated homes, judges and records them."""

from __future__ import annotations

import argparse

from robot_vision.cli.drive import bag, evaluate, live, record, repeat
from robot_vision.labelling.table import TABLE


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

    lived = verbs.add_parser(
        "live",
        help="let the nodes drive a robot through a home by its camera, in processes of their own",
        description="Starts simulator, perception, driver and, if wanted, gate, each in a process of its "
        "own, lets the robot drive through a home by its camera alone, and writes a table, a picture of its "
        "path with views of the camera, and a page.",
    )
    live.add_arguments(lived)

    repeated = verbs.add_parser(
        "repeat",
        help="teach routes in homes and repeat them by sight when the homes have changed",
        description="Teaches a route in each home by one drive, with odometry alone, and lets a robot repeat "
        "it in lock-step from other starts, on another day, with furniture moved, other pictures, crates and "
        "light: how many arrive, how far they are from the way, and how many images were verified.",
    )
    repeat.add_arguments(repeated)

    recorded = verbs.add_parser(
        "record",
        help="record images with the steering to the free way and whether something is in the way",
        description="Records images with the steering to where the way is free, by the geometry in front "
        f"of the robot, and whether something is in the way: a folder with {TABLE}, which `train` takes as "
        "labels_csv. The same command goes on with a recording that was cut off; another driver or other "
        "homes are added to it.",
    )
    record.add_arguments(recorded)

    bagged = verbs.add_parser(
        "bag",
        help="record the rosbag that a robot would record while it drives through a home",
        description="Records a drive through a home as a rosbag: camera, camera_info, depth, odometry with "
        "its errors, /tf_static, and below /ground_truth where the robot is in truth and in which room.",
    )
    bag.add_arguments(bagged)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb; returns the exit status."""
    verbs = {
        "evaluate": evaluate.run,
        "live": live.run,
        "repeat": repeat.run,
        "record": record.run,
        "bag": bag.run,
    }
    return verbs[args.drive_verb](args)


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    if args.drive_verb == "record":
        return record.interrupted(args)
    if args.drive_verb == "live":
        return "no figures were written; fewer --metres take less time"
    if args.drive_verb == "repeat":
        return f"{args.output / 'repeats.json'} has the starts so far, if there were any"
    if args.drive_verb == "bag":
        return "nothing was written; fewer --metres take less time"
    return "nothing was written; fewer --worlds or --metres take less time"
