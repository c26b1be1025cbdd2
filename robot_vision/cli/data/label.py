"""`robot-vision data label SOURCE`: labels of a recording, from what was measured and driven in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.cli.arguments import add_data_options, at_least_1, data_options, number, progress
from robot_vision.datasets import DATASETS
from robot_vision.datasets.registry import kinds_of
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.folders import refuse_source
from robot_vision.geometry.rigid import matrix_from_rpy
from robot_vision.labelling.drives import AHEAD, Request, open_drives
from robot_vision.labelling.label import (
    COLLISION,
    CORRIDORS,
    LABELS,
    STEERING,
    TRAVERSABLE,
    Report,
    Rules,
    counted_pixels,
    label_drives,
)
from robot_vision.labelling.outline import Outline
from robot_vision.text.counts import counted

_RULES = Rules(frozenset(), None)
_FAR = 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="rosbag, folder of rosbags, or data set with depth and poses",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    labels = {
        COLLISION: "label whether something is in the way, and how far away and how soon it is",
        STEERING: "label how it was steered: the turn rate that followed, in [-1, 1], positive to the left",
        TRAVERSABLE: "write label images of what the robot drove over next, and of obstacles",
    }
    for name, text in labels.items():
        parser.add_argument(
            f"--{name}", dest="labels", action="append_const", const=name, help=text
        )
    parser.add_argument(
        "--kind", choices=tuple(DATASETS), help="format of SOURCE, if it does not show it"
    )
    add_data_options(parser)
    parser.add_argument(
        "--scan",
        default="",
        metavar="TOPIC",
        help="measure by this scan of a bag (default: by depth, or by the only scan of a bag without depth)",
    )
    robot = parser.add_argument_group("the robot")
    robot.add_argument(
        "--robot-width",
        type=number(float, 0.01, 100.0),
        metavar="M",
        help="width of the robot, and of its corridor, in metres; required but for steering",
    )
    robot.add_argument(
        "--robot-front",
        type=number(float, 0.0, 100.0),
        metavar="M",
        help="distance from the robot's frame to its flat front, in metres (default: the robot is round, and "
        "its frame in the middle)",
    )
    robot.add_argument(
        "--obstacle-height",
        nargs=2,
        type=number(float, -100.0, 100.0),
        default=[0.1, 1.0],
        metavar=("LOW", "HIGH"),
        help="heights above the robot's frame between which something is an obstacle, in metres (default: "
        "0.1 1.0)",
    )
    robot.add_argument(
        "--camera-to-base",
        nargs=6,
        type=number(float, -1e6, 1e6),
        metavar=("X", "Y", "Z", "ROLL", "PITCH", "YAW"),
        help="pose of the camera's optical frame in the robot's frame, as a URDF gives it, in metres and "
        f"radians; {AHEAD} looks along x (default: from /tf_static)",
    )
    parser.add_argument(
        "--corridor",
        choices=CORRIDORS,
        default=_RULES.corridor,
        help="where the way has to be free: straight ahead, or on the way that was driven until the robot "
        "stood, and straight on from there (default: %(default)s)",
    )
    parser.add_argument(
        "--blocked",
        type=number(float, 0.01, _FAR),
        default=_RULES.blocked_m,
        metavar="M",
        help="something is in the way if it is nearer than this to the robot's front, in metres (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--blocked-within",
        type=number(float, 0.0, _FAR),
        default=_RULES.blocked_s,
        metavar="S",
        help="or if the robot would hit it sooner than this at the speed that was driven, in seconds "
        "(default: 0, only the distance counts)",
    )
    parser.add_argument(
        "--reach",
        type=number(float, 0.1, _FAR),
        default=_RULES.reach_m,
        metavar="M",
        help="farther is not looked, in metres (default: %(default)s)",
    )
    parser.add_argument(
        "--pixels",
        type=at_least_1,
        default=_RULES.pixels,
        metavar="N",
        help="number of pixels of a depth image that must be as near as an obstacle; single ones are often "
        "wrong (default: %(default)s)",
    )
    parser.add_argument(
        "--max-turn",
        type=number(float, 0.01, 100.0),
        default=_RULES.max_turn_rad_s,
        metavar="RAD_S",
        help="turn rate that is a steering of 1, in rad/s (default: %(default)s)",
    )
    parser.add_argument(
        "--turn-over",
        type=number(float, 0.01, 60.0),
        default=_RULES.steering_s,
        metavar="S",
        help="time from an image on over which its turn rate is averaged, in seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=number(float, 0.0, 1e4),
        default=0.0,
        metavar="HZ",
        help="frame rate of images without stamps, in Hz; without it they have no speed and no steering",
    )


def run(args: argparse.Namespace) -> int:
    """Labels; returns 0, or 1 if images or measurements could not be read."""
    labels = frozenset(args.labels or ())
    if not labels:
        raise ConfigError(f"nothing to label: give {', '.join('--' + name for name in LABELS)}")
    rules = Rules(
        labels,
        None if labels == {STEERING} else _outline(args),
        args.corridor,
        args.blocked,
        args.blocked_within,
        args.pixels,
        args.reach,
        args.max_turn,
        args.turn_over,
    )
    if args.blocked > args.reach:
        raise ConfigError(f"--blocked is {args.blocked:g} m, beyond --reach of {args.reach:g} m")
    refuse_source(args.out, "--out", [args.source])
    if args.out.exists():
        raise SourceError(f"{args.out} exists already: remove it or choose another folder")
    path = Path(args.source).expanduser().absolute()
    if not path.exists():
        raise SourceError(
            f"{path} does not exist: give a rosbag, a folder of rosbags or a data set"
        )
    kind = args.kind or next(iter(kinds_of(path)), "")
    if not kind:
        raise ConfigError(f"{path} looks like no data set: give its --kind ({', '.join(DATASETS)})")
    request = Request(_mount(args), args.scan, args.rate, rules.outline is not None)
    drives, notes = open_drives(kind, path, data_options(args.option), request, rules.eyes)
    with progress() as bar:
        task = bar.add_task("labelling", total=sum(len(drive.samples) for drive in drives))
        report = label_drives(drives, rules, args.out, lambda: bar.advance(task))
    for note in [*notes, *report.notes]:
        print(f"note: {note}", file=sys.stderr)
    for problem in report.problems:
        print(f"warning: left out: {problem}", file=sys.stderr)
    _show(args.out, rules, report, len(drives))
    return 1 if report.problems else 0


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    return f"nothing was written to {args.out}; --option every=N takes fewer images of a bag"


def _outline(args: argparse.Namespace) -> Outline:
    low, high = args.obstacle_height
    if args.robot_width is None:
        raise ConfigError("how wide is the robot? Give --robot-width, in metres")
    if low >= high:
        raise ConfigError(
            f"--obstacle-height is {low:g} {high:g}: the second must be the higher one"
        )
    return Outline(args.robot_width, low, high, args.robot_front)


def _mount(args: argparse.Namespace) -> NDArray[np.float64] | None:
    if args.camera_to_base is None:
        return None
    T = np.eye(4)
    T[:3, 3] = args.camera_to_base[:3]
    T[:3, :3] = matrix_from_rpy(np.array(args.camera_to_base[3:]))
    return T


def _show(out: Path, rules: Rules, report: Report, drives: int) -> None:
    print(f"{out}: {counted(report.images, 'image')} of {counted(drives, 'recording')}")
    if COLLISION in rules.labels:
        blocked, free = report.collisions[True], report.collisions[False]
        where = "straight ahead" if rules.corridor == CORRIDORS[0] else "on the driven way"
        share = blocked / max(blocked + free, 1)
        print(
            f"  {blocked} blocked nearer than {rules.blocked_m:g} m {where} ({share:.1%}), {free} free"
        )
    if STEERING in rules.labels:
        turns = np.array(report.turns or [np.nan])
        print(
            f"  {len(report.turns)} with steering, {turns.min():.2f} (right) to {turns.max():.2f} (left) of "
            f"{rules.max_turn_rad_s:g} rad/s"
        )
    if TRAVERSABLE in rules.labels:
        shares = ", ".join(f"{share:.1%} {name}" for name, share in counted_pixels(report))
        print(
            f"  {counted(report.masks, 'label image')}: {shares} of the pixels, the others say nothing"
        )
        print(f"look: robot-vision data inspect mask_folder {out}")
    if numbers := [f"number:{name}" for name in LABELS if name in rules.labels - {TRAVERSABLE}]:
        print(
            f"look: robot-vision data inspect labels_csv {out} --option truth={','.join(numbers)}"
        )
