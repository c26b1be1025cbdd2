"""The homes and the camera's mount that verbs of `robot-vision drive` have in common."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

from robot_vision.cli.arguments import at_least_1, number
from robot_vision.simulation.robot import Mount
from robot_vision.simulation.world.homes import random_home
from robot_vision.simulation.world.world import World

SEED = number(int, 0, 2**31 - 1)
UNSEEN = 10_000  # where homes begin that nothing was trained in: recordings begin at 0


def add_worlds(parser: argparse.ArgumentParser, worlds: int, first: int, metres: float) -> None:
    """Declares the homes, the way in each and the camera."""
    parser.add_argument(
        "--worlds",
        type=at_least_1,
        default=worlds,
        metavar="N",
        help="number of homes (default: %(default)s)",
    )
    parser.add_argument(
        "--first-world",
        type=SEED,
        default=first,
        metavar="SEED",
        help="seed of the first home; the others follow (default: %(default)s)",
    )
    add_moving(parser)
    parser.add_argument(
        "--metres",
        type=number(float, 1.0, 1e6),
        default=metres,
        metavar="M",
        help="way in each home, in metres (default: %(default)s)",
    )
    add_camera(parser)


def add_home(parser: argparse.ArgumentParser, default: int) -> None:
    """Declares --world, one home."""
    parser.add_argument(
        "--world",
        type=SEED,
        default=default,
        metavar="SEED",
        help="seed of the home (default: %(default)s)",
    )


def add_moving(parser: argparse.ArgumentParser) -> None:
    """Declares --walkers and --moving-doors."""
    parser.add_argument(
        "--walkers",
        type=number(int, 0, 20),
        default=0,
        metavar="N",
        help="boxes of a person's size that walk about in the home (default: %(default)s)",
    )
    parser.add_argument(
        "--moving-doors",
        action="store_true",
        help="doors slide open and shut; one whose wall has no room for its leaf stays open",
    )


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Declares the camera's mount and its images."""
    mount = Mount()
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


def made_mount(args: argparse.Namespace) -> Mount:
    """Returns the camera's mount."""
    width, height = args.image_size
    return Mount(
        height_m=args.camera_height, field_deg=args.camera_field, width=width, height=height
    )


def world_makers(args: argparse.Namespace) -> dict[str, tuple[int, Callable[[], World]]]:
    """Returns what makes each world, and its seed, by name."""
    seeds = range(args.first_world, args.first_world + args.worlds)
    return {f"home-{seed}": (seed, functools.partial(random_home, seed)) for seed in seeds}
