"""`robot-vision demo`: a camera drives through a small rendered world, and the real nodes see it.

Four processes over DDS, as on a robot: the camera player publishes a rosbag that is rendered first, the
perception node answers, the place node finds its descriptors in a map, and this process listens and compares
each answer with the truth in the bag. Once, about halfway, the camera is carried into another room.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robot_vision.bundle.installed import find_model
from robot_vision.bundle.programs import FLOAT32
from robot_vision.cli.arguments import add_engine, add_output, number
from robot_vision.contract.metrics import image_words
from robot_vision.demo.play import play, start_node
from robot_vision.demo.processes import ENDING, MAX_DOMAIN, DemoError, Processes, free_domain
from robot_vision.demo.recorded import DriveTruth, read_truth, record_drive
from robot_vision.demo.report import draw
from robot_vision.demo.scoring import Drive, KnownPlaces
from robot_vision.demo.wheels import Wheels
from robot_vision.errors import BundleError, ConfigError
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.drive import (
    DriveFrame,
    evaluation_drive,
    kidnapped_drive,
    mapping_drive,
)
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.simulation.world.world import World
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted

LEAST_ANSWERED = 0.5  # share of the frames below which the demo has failed
MAP = "places.map"
_MARK = "robot_vision_demo.json"  # by which an output folder is known as one that may be replaced


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--model",
        default="demo",
        help="model bundle: a directory, or the name of an installed model (default: %(default)s)",
    )
    add_engine(parser, precision=False)
    parser.add_argument(
        "--rate",
        type=number(float, 1, 60),
        default=10.0,
        metavar="HZ",
        help="frame rate of the camera, in Hz (default: %(default)s)",
    )
    parser.add_argument(
        "--duration",
        type=number(float, 1, 600),
        metavar="S",
        help="length of the drive, in seconds (default: the whole drive, 30 s)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0),
        default=2,
        help="random seed of the drive and its lighting (default: %(default)s)",
    )
    add_output(parser, "demo")
    parser.add_argument(
        "--keep", action="store_true", help="keep the output of earlier runs and number this one"
    )
    parser.add_argument(
        "--headless", action="store_true", help="print plain lines, even on a terminal"
    )
    parser.add_argument(
        "--domain",
        type=number(int, 0, MAX_DOMAIN),
        metavar="ID",
        help="ROS domain id (default: a free one)",
    )


def run(args: argparse.Namespace) -> int:
    """Renders, plays, listens, reports. Raises `DemoError` where few frames were answered."""
    console = plain_console()
    started = time.monotonic()
    model = find_model(args.model)
    environment = own_network(args.domain)
    with terminated_like_interrupted(), contextlib.ExitStack() as stack:
        # Maps are built in float32, whichever program the node runs.
        pipeline = stack.enter_context(Pipeline.load(model, args.engine, args.device, FLOAT32))
        missing = {"classifier", "pose", "place"} - set(pipeline.bundle.spec.heads)
        if missing:
            raise BundleError(
                f"{model} lacks the heads {', '.join(sorted(missing))}: the demo shows all three"
            )
        output = stack.enter_context(output_folder(args.output, args.keep))
        processes = stack.enter_context(Processes(output / "logs", environment))
        _say(
            console,
            f"model {pipeline.bundle.name} from {model}; ROS domain {environment['ROS_DOMAIN_ID']}",
        )
        if pipeline.bundle.programs:
            # Timed while nothing else runs; the node finds it remembered.
            with Pipeline.load(model, args.engine, args.device) as chosen:
                _say(console, chosen.said)
        parameters = {"model": str(model), "engine": args.engine, "device": args.device}
        start_node(processes, output, "perception", "perception_node", parameters)
        # The place node waits for the map, which does not exist yet.
        parameters = {"model": str(model), "map": str(output / MAP), "retry_period_s": 0.5}
        start_node(processes, output, "places", "place_node", parameters)
        world = default_world()
        drive = _prepare(console, world, pipeline, args, output)
        score, seen, places = play(console, world, drive, processes, output, args.headless)
        if not score.judged:
            raise DemoError(
                f"The node gave no complete answer to {counted(len(drive.truth), 'frame')} (logs: "
                f"{output / 'logs'})"
            )
        summary = score.summary(seen)
        lines = [*summary.lines(), *places.lines()]
        picture = output / "demo.png"
        title = f"robot-vision demo: a drive as model {pipeline.bundle.name} saw it"
        draw(picture, world, drive, score, lines, title, pipeline)
        figures = {**summary.to_dict(), "places": places.to_dict()}
        (output / _MARK).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for line in lines:
        console.print(line, style="bold", soft_wrap=True)
    console.print(
        f"wrote {drive.bag} (rosbag2), {output / 'results.jsonl'} and {picture} "
        f"after {time.monotonic() - started:.0f} s in all",
        soft_wrap=True,
    )
    if summary.answered < LEAST_ANSWERED * summary.sent:
        raise DemoError(
            f"Only {summary.answered} of {counted(summary.sent, 'frame')} were answered: the machine "
            "is too busy for "
            f"{args.rate:g} Hz, or the network drops images; try --rate {max(args.rate / 2, 1):g}"
        )
    if places.asked < LEAST_ANSWERED * summary.answered:
        raise DemoError(
            f"The place node answered {places.asked} of {summary.answered} descriptors: "
            f"{processes.last_words('places')}"
        )
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", soft_wrap=True)


def own_network(domain: int | None) -> dict[str, str]:
    """Returns environment variables that keep the demo out of any robot's network, and sets them here."""
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"The demo needs ROS 2 ({error}): run `make demo`, which brings it, or source a ROS 2"
        ) from error
    environment = {
        "ROS_DOMAIN_ID": str(free_domain() if domain is None else domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    if os.environ.get("ROS_DISTRO") == "humble":  # which does not know the other variable yet
        environment["ROS_LOCALHOST_ONLY"] = "1"
    os.environ.update(environment)
    return environment


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the demo as Ctrl-C does: with all its processes."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def output_folder(wanted: Path, keep: bool) -> Iterator[Path]:
    """Gives an empty folder, which replaces that of an earlier demo and nothing else.

    Its mark is locked as long as the block lasts: another demo leaves the folder alone meanwhile.
    """
    first = path = wanted.expanduser().resolve()  # a link stays, and what it leads to is replaced
    number = 2
    while keep and path.exists():
        path = first.with_name(f"{first.name}-{number}")
        number += 1
    with contextlib.ExitStack() as stack:
        try:
            if path.exists():
                mark = path / _MARK
                if not path.is_dir() or (any(path.iterdir()) and not mark.is_file()):
                    raise ConfigError(
                        f"--output {path} exists and holds other things: name another folder"
                    )
                if mark.is_file():
                    _lock(stack.enter_context(mark.open("r+")), path)
                shutil.rmtree(path)
            path.mkdir(parents=True)
            made = stack.enter_context((path / _MARK).open("w", encoding="utf-8"))
            _lock(made, path)
            print("{}", file=made, flush=True)
        except OSError as error:
            raise ConfigError(
                f"--output {path} cannot be made: {error.strerror or error}: name another folder"
            ) from error
        yield path


def _lock(mark: IO[str], path: Path) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"--output {path} belongs to a demo that is still running: wait for it, name another folder, "
            "or give --keep"
        ) from None


def _prepare(
    console: Console, world: World, pipeline: Pipeline, args: argparse.Namespace, output: Path
) -> Drive:
    """Renders both drives: one into the bag, the other into a map of places."""
    from robot_vision.demo.monitor import fingerprint

    camera, workers = Camera(), min(os.cpu_count() or 1, 4)
    bag = output / "bag"
    count = math.ceil(args.duration * args.rate) if args.duration else None
    whole = evaluation_drive(world, args.rate, args.seed)
    frames, kidnapped_at = kidnapped_drive(whole, world, args.rate, count)
    mapped = mapping_drive(world)
    begin = time.monotonic()
    with console.status(
        f"rendering {len(frames)} frames of a drive and {len(mapped)} of a mapping drive"
    ):
        images = render_frames(world, frames, Sensor(seed=args.seed), camera, workers)
        start_ns = time.time_ns()
        of_pixels = any(image_words(head) for head, _ in pipeline.bundle.spec.bound)
        renderer = Renderer(world, camera) if of_pixels else None
        written = record_drive(
            bag, frames, images, camera, start_ns, renderer, Wheels(frames, args.seed)
        )
        fingerprints: dict[int, int] = {}
        for index, image in enumerate(written):
            fingerprints[fingerprint(image)] = index
        descriptors = _descriptors(world, pipeline, mapped, camera, workers)
    _say(
        console,
        f"rendered {len(frames)} frames of a drive into {bag} and mapped {len(mapped)} places on another "
        f"drive, in {time.monotonic() - begin:.1f} s",
    )
    places = KnownPlaces(descriptors, DriveTruth.of(mapped))
    _write_map(output / MAP, pipeline, places)
    return Drive(bag, read_truth(bag), places, fingerprints, kidnapped_at)


def _write_map(path: Path, pipeline: Pipeline, places: KnownPlaces) -> None:
    """Writes the mapping drive as a place map; it appears under its name when it is whole."""
    from robot_vision.places.map.keyframe import Keyframe
    from robot_vision.places.map.opening import create_map_for

    spec, truth = pipeline.bundle.spec, places.truth
    frame_id = spec.heads["pose"].map_frame if "pose" in spec.heads else "map"
    with create_map_for(path.with_suffix(".draft"), pipeline.bundle, frame_id) as target:
        target.add_many(
            Keyframe.checked(
                stamp_ns=int(stamp),
                camera="camera",
                source="mapping drive",
                T_map_camera=pose_matrix(position, orientation),
                descriptor=descriptor,
            )
            for stamp, position, orientation, descriptor in zip(
                truth.stamps_ns,
                truth.positions,
                truth.orientations_xyzw,
                places.descriptors,
                strict=True,
            )
        )
    path.with_suffix(".draft").rename(path)


def _descriptors(
    world: World, pipeline: Pipeline, frames: list[DriveFrame], camera: Camera, workers: int
) -> NDArray[np.float32]:
    """Returns the descriptors (N, D) of a mapping drive."""
    found: list[NDArray[np.float32]] = []
    batch: list[NDArray[np.uint8]] = []
    for i, image in enumerate(render_frames(world, frames, Sensor(seed=1), camera, workers)):
        batch.append(image)
        if len(batch) == pipeline.max_batch or i == len(frames) - 1:
            found += [p["place"].values for p in pipeline(batch) if p.get("place")]
            batch = []
    return np.stack(found)


if __name__ == "__main__":
    from robot_vision.cli import main

    sys.exit(main(["demo", *sys.argv[1:]]))
