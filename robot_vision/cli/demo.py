"""`robot-vision demo`: a camera drives through a small rendered world, and the real node sees it.

Three processes over DDS, as on a robot: the camera player publishes a rosbag that is rendered first, the
perception node answers, and this process listens and compares each answer with the truth in the bag.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console

from robot_vision.cli.demo_processes import MAX_DOMAIN, DemoError, Processes, free_domain
from robot_vision.cli.demo_view import LiveView, PlainView, View
from robot_vision.errors import BundleError, ConfigError
from robot_vision.images import to_rgb
from robot_vision.pipeline import Pipeline
from robot_vision.ros.models import find_model
from robot_vision.simulation.drive import Frame, evaluation_drive, mapping_drive
from robot_vision.simulation.home import default_world
from robot_vision.simulation.picture import Plan, Shot, compose
from robot_vision.simulation.recorded import IMAGE_TOPIC, Truth, read_truth, record_drive
from robot_vision.simulation.renderer import Camera
from robot_vision.simulation.scoring import Answer, Judged, PlaceMap, Score, Summary
from robot_vision.simulation.sensor import Sensor, render_frames
from robot_vision.simulation.world import World
from robot_vision.sources import open_source

START_TIMEOUT_S = 30.0  # for the node to load its model and to be found
SILENCE_S = 2.0  # without a result, after which the last frames are given up
LEAST_ANSWERED = 0.5  # share of the frames below which the demo has failed
_MARK = "robot_vision_demo.json"  # by which an output folder is known as one that may be replaced


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--model", default="demo", help="bundle: a directory or a name (%(default)s)"
    )
    parser.add_argument(
        "--engine", default="auto", help="auto, onnx, openvino or torch (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda:0, ... (%(default)s)")
    parser.add_argument(
        "--rate", type=_number(1, 60), default=10.0, metavar="HZ", help="of the camera (10)"
    )
    parser.add_argument(
        "--duration", type=_number(1, 600), metavar="S", help="of the drive (all, 34 s)"
    )
    parser.add_argument(
        "--seed", type=int, default=2, help="of the drive and its light (%(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the output of earlier runs, number this"
    )
    parser.add_argument("--headless", action="store_true", help="plain lines, also on a terminal")
    parser.add_argument(
        "--domain",
        type=int,
        choices=range(MAX_DOMAIN + 1),
        metavar="ID",
        help="ROS domain (a free one)",
    )


def _number(low: float, high: float) -> Any:
    def check(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value:g}: it must be from {low:g} to {high:g}")
        return value

    check.__name__ = "number"  # argparse names it in its message
    return check


@dataclass(frozen=True)
class _Drive:
    """What is played, and against what the answers are judged."""

    bag: Path
    truth: Truth
    places: PlaceMap
    fingerprints: dict[int, int]


def run(args: argparse.Namespace) -> int:
    """Renders, plays, listens, reports. Exit status: 0 if the node answered most frames, else 1 or 2."""
    console = Console()
    started = time.monotonic()
    model = find_model(args.model)
    environment = _own_network(args.domain)
    with _terminated_like_interrupted(), contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(Pipeline.load(model, args.engine, args.device))
        missing = {"classifier", "pose", "place"} - set(pipeline.bundle.spec.heads)
        if missing:
            raise BundleError(
                f"{model} lacks the heads {', '.join(sorted(missing))}: the demo shows all three"
            )
        output = _output_folder(args.output, args.keep)
        processes = stack.enter_context(Processes(output / "logs", environment))
        _say(
            console,
            f"model {pipeline.bundle.name} from {model}; ROS domain {environment['ROS_DOMAIN_ID']}",
        )
        parameters = {"model": str(model), "engine": args.engine, "device": args.device}
        _start(processes, output, "perception", "perception_node", parameters)
        world = default_world()
        drive = _prepare(console, world, pipeline, args, output / "bag")
        score, seen = _play(console, world, drive, processes, output, args.headless)
    if not score.judged:
        raise DemoError(
            f"The node gave no complete answer to {len(drive.truth)} frames (logs: {output / 'logs'})"
        )
    summary = score.summary(seen)
    picture = output / "demo.png"
    _draw(picture, world, drive, score, summary, pipeline.bundle.name)
    (output / _MARK).write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
    for line in summary.lines():
        console.print(line, style="bold", highlight=False, soft_wrap=True)
    console.print(
        f"wrote {drive.bag} (rosbag2), {output / 'results.jsonl'} and {picture} "
        f"after {time.monotonic() - started:.0f} s in all",
        highlight=False,
        soft_wrap=True,
    )
    if summary.answered < LEAST_ANSWERED * summary.sent:
        raise DemoError(
            f"Only {summary.answered} of {summary.sent} frames were answered: the machine is too busy for "
            f"{args.rate:g} Hz, or the network drops images; try --rate {max(args.rate / 2, 1):g}"
        )
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _own_network(domain: int | None) -> dict[str, str]:
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
def _terminated_like_interrupted() -> Iterator[None]:
    """Lets SIGTERM end the demo as Ctrl-C does: with all its processes."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _output_folder(wanted: Path, keep: bool) -> Path:
    """Returns an empty folder, which replaces that of an earlier demo and nothing else."""
    path = wanted.expanduser().absolute()
    number = 2
    while keep and path.exists():
        path = wanted.expanduser().absolute().with_name(f"{wanted.name}-{number}")
        number += 1
    if path.exists():
        if not path.is_dir() or (any(path.iterdir()) and not (path / _MARK).is_file()):
            raise ConfigError(
                f"--output {path} is there and is no demo's output: name another folder"
            )
        shutil.rmtree(path)
    path.mkdir(parents=True)
    (path / _MARK).write_text("{}\n", encoding="utf-8")
    return path


def _start(
    processes: Processes, output: Path, node: str, module: str, parameters: dict[str, Any]
) -> None:
    """Starts a node with its parameters in a file, in which text stays text."""
    file = output / f"{node}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}), encoding="utf-8")
    arguments = ["--ros-args", "--params-file", str(file)]
    processes.start(node, f"robot_vision.ros.{module}", arguments)


def _prepare(
    console: Console, world: World, pipeline: Pipeline, args: argparse.Namespace, bag: Path
) -> _Drive:
    """Renders both drives: one into the bag, the other into descriptors of known places."""
    from robot_vision.ros.demo_monitor import fingerprint

    camera, workers = Camera(), min(os.cpu_count() or 1, 4)
    frames = evaluation_drive(world, args.rate, args.seed)
    if args.duration:
        frames = [frame for frame in frames if frame.stamp_s < args.duration]
    mapped = mapping_drive(world)
    begin = time.monotonic()
    with console.status(
        f"rendering {len(frames)} frames of a drive and {len(mapped)} of a mapping drive"
    ):
        images = render_frames(world, frames, Sensor(seed=args.seed), camera, workers)
        start_ns = time.time_ns()
        fingerprints: dict[int, int] = {}
        for index, image in enumerate(record_drive(bag, frames, images, camera, start_ns)):
            fingerprints[fingerprint(image)] = index
        descriptors = _descriptors(world, pipeline, mapped, camera, workers)
    _say(
        console,
        f"rendered {len(frames)} frames of a drive into {bag} and mapped {len(mapped)} places on another "
        f"drive, in {time.monotonic() - begin:.1f} s",
    )
    return _Drive(bag, read_truth(bag), PlaceMap(descriptors, Truth.of(mapped)), fingerprints)


def _descriptors(
    world: World, pipeline: Pipeline, frames: list[Frame], camera: Camera, workers: int
) -> NDArray[np.float32]:
    """Returns the descriptors (N, D) of a mapping drive."""
    found: list[NDArray[np.float32]] = []
    batch: list[NDArray[np.uint8]] = []
    for i, image in enumerate(render_frames(world, frames, Sensor(seed=1), camera, workers)):
        batch.append(image)
        if len(batch) == pipeline.max_batch or i == len(frames) - 1:
            found += [p.descriptor for p in pipeline(batch) if p.descriptor is not None]
            batch = []
    return np.stack(found)


def _play(
    console: Console,
    world: World,
    drive: _Drive,
    processes: Processes,
    output: Path,
    headless: bool,
) -> tuple[Score, int]:
    """Plays the bag to the node and listens; returns the score and how many images were seen."""
    from robot_vision.ros.dds import use_large_image_profile

    use_large_image_profile()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from robot_vision.ros.demo_monitor import DemoMonitor

    score = Score(drive.truth, drive.places)
    live = console.is_terminal and not headless
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with (
            (output / "results.jsonl").open("w", encoding="utf-8") as results,
            contextlib.ExitStack() as stack,
        ):
            view: View | None = None
            last = time.monotonic()

            def take(answer: Answer) -> None:
                nonlocal view, last
                last = time.monotonic()
                if view is None:
                    view = (
                        LiveView(console, world, drive.truth, drive.places)
                        if live
                        else PlainView(console, drive.truth, drive.places)
                    )
                    stack.callback(view.close)
                judged = score.add(answer)
                _write(results, answer, judged)
                view.show(answer, judged)

            monitor = DemoMonitor(drive.fingerprints, take)
            executor = SingleThreadedExecutor()
            executor.add_node(monitor)
            deadline = time.monotonic() + START_TIMEOUT_S
            while missing := monitor.missing_publishers():
                processes.require("perception")
                if time.monotonic() > deadline:
                    words = processes.last_words("perception")
                    raise DemoError(
                        f"No publisher of {', '.join(missing)} after {START_TIMEOUT_S:g} s: {words}"
                    )
                executor.spin_once(timeout_sec=0.1)
            parameters = {
                "source": str(drive.bag),
                "topics": [IMAGE_TOPIC],
                "stamps": "now",
                "wait_for_subscribers": 2,  # the node and this process
            }
            _start(processes, output, "player", "camera_player", parameters)
            _listen(
                executor, processes, lambda: last, lambda: len(score.judged) == len(drive.truth)
            )
            seen = monitor.images_seen
            monitor.destroy_node()
    finally:
        rclpy.try_shutdown()
    return score, seen


def _listen(executor: Any, processes: Processes, last: Any, everything: Any) -> None:
    """Listens until every frame is answered, or the player has ended and nothing more comes."""
    ended: float | None = None
    check = 0.0
    started = time.monotonic()
    while not everything():
        executor.spin_once(timeout_sec=0.1)
        now = time.monotonic()
        if now < check:
            continue
        check = now + 0.2
        processes.require("perception")
        if ended is None and processes.ended("player"):
            ended = now
        if ended is not None and now - max(ended, last()) > SILENCE_S:
            return
        if ended is None and now - max(started, last()) > START_TIMEOUT_S:
            raise DemoError(
                f"No result for {START_TIMEOUT_S:g} s while the player runs: {processes.last_words('player')}"
            )


def _write(file: IO[str], answer: Answer, judged: Judged) -> None:
    """Writes one answer beside the truth as a line of JSON."""
    assert answer.position is not None and answer.orientation_xyzw is not None
    assert answer.covariance is not None
    line = {
        **vars(judged),
        "stamp_ns": answer.stamp_ns,
        "position": answer.position.tolist(),
        "orientation_xyzw": answer.orientation_xyzw.tolist(),
        "variances": np.diagonal(answer.covariance).tolist(),
    }
    print(json.dumps(line), file=file)


def _draw(
    path: Path, world: World, drive: _Drive, score: Score, summary: Summary, model: str
) -> None:
    """Draws both paths on the plan, and one frame of each room and the worst pose beside it."""
    estimates = {}
    for line in (path.parent / "results.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        estimates[record["frame"]] = np.array(record["position"])
    judged = {j.frame: j for j in score.judged}
    chosen = _chosen(judged, drive.truth)
    images = {}
    with open_source(str(drive.bag)) as source:
        for index, frame in enumerate(source):
            if index in chosen:
                images[index] = to_rgb(frame.message)
    shots = []
    for index in chosen:
        j = judged[index]
        right = j.label == j.true_label
        said = f"{j.label} {j.probability:.2f}" + ("" if right else f" (is {j.true_label})")
        worst = "worst pose: " if index == chosen[-1] else ""
        detail = f"{worst}{j.error_m:.2f} m, {j.error_deg:.1f} deg off; like place {j.place}"
        shots.append(Shot(images[index], said, detail, right, drive.truth.positions[index]))
    plan = Plan(world)
    plan.path(drive.truth.positions)
    frames = sorted(estimates)
    plan.estimates(drive.truth.positions[frames], np.array([estimates[f] for f in frames]))
    page = compose(
        plan,
        shots,
        f"robot-vision demo: what the node said of a drive (model {model})",
        summary.lines(),
    )
    if not cv2.imwrite(
        str(path), cv2.cvtColor(page, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    ):
        raise ConfigError(f"{path} cannot be written")


def _chosen(judged: dict[int, Judged], truth: Truth) -> list[int]:
    """Returns the middle answered frame of each room, in the order of the drive, and the worst pose."""
    by_room: dict[str, list[int]] = {}
    for index in sorted(judged):
        by_room.setdefault(truth.rooms[index], []).append(index)
    middle = sorted(frames[len(frames) // 2] for frames in by_room.values())
    worst = max(judged, key=lambda index: judged[index].error_m)
    return [index for index in middle if index != worst] + [worst]


if __name__ == "__main__":
    from robot_vision.cli import main

    sys.exit(main(["demo", *sys.argv[1:]]))
