"""Plays the demo's bag to the real nodes, each in a process of its own, and listens to the answers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from rich.console import Console

from robot_vision.demo.processes import ENDING, DemoError, Processes
from robot_vision.demo.recorded import IMAGE_TOPIC
from robot_vision.demo.relocalisation import Relocalisation, relocalisation
from robot_vision.demo.report import write_answer
from robot_vision.demo.scoring import Drive, FrameAnswer, Score
from robot_vision.demo.view import DemoView, LiveView, PlainView
from robot_vision.ros import EXECUTABLES
from robot_vision.simulation.world.world import World
from robot_vision.text.counts import counted

START_TIMEOUT_S = 60.0  # to time programs, load one and be found, on a busy machine too
NODES = ("perception", "places")  # processes that have to run as long as the player does
SILENCE_S = 2.0  # without a result, after which the last frames are given up


def start_node(
    processes: Processes,
    output: Path,
    node: str,
    executable: str,
    parameters: dict[str, Any],
    remapped: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Starts a node with its parameters in a file, in which text stays text, and topics by other names."""
    file = output / f"{node}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}), encoding="utf-8")
    arguments = ["--ros-args", "--params-file", str(file)]
    for topic, name in remapped.items():
        arguments += ["-r", f"{topic}:={name}"]
    processes.start(node, EXECUTABLES[executable], arguments)


def play(
    console: Console,
    world: World,
    drive: Drive,
    processes: Processes,
    output: Path,
    headless: bool,
) -> tuple[Score, int, Relocalisation]:
    """Plays the bag to the nodes and listens.

    Returns:
        The score of the perception node, how many images were seen, and how the place node did.
    """
    from robot_vision.ros.node.dds import use_large_image_profile

    use_large_image_profile()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from robot_vision.demo.monitor import DemoMonitor

    score = Score(drive.truth, drive.places)
    live = console.is_terminal and not headless
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with (
            (output / "results.jsonl").open("w", encoding="utf-8") as results,
            contextlib.ExitStack() as stack,
        ):
            view: DemoView | None = None
            last = time.monotonic()

            def take(answer: FrameAnswer) -> None:
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
                write_answer(results, answer, judged)
                view.show(answer, judged)

            monitor = DemoMonitor(drive.fingerprints, take)
            executor = SingleThreadedExecutor()
            # In this order: an executor that outlives the context complains when it is collected.
            stack.callback(executor.shutdown)
            executor.add_node(monitor)
            deadline = time.monotonic() + START_TIMEOUT_S
            while missing := monitor.missing_publishers():
                for name in NODES:
                    processes.require(name)
                if time.monotonic() > deadline:
                    words = "; ".join(f"{name}: {processes.last_words(name)}" for name in NODES)
                    raise DemoError(
                        f"No publisher of {', '.join(missing)} after {START_TIMEOUT_S:g} s: {words}"
                    )
                spin(executor)
            if crowded := monitor.crowded():
                raise DemoError(
                    f"Another process publishes {', '.join(crowded)} in ROS domain "
                    f"{os.environ['ROS_DOMAIN_ID']}: leave --domain out, which takes a free one"
                )
            parameters = {
                "source": str(drive.bag),
                "topics": [IMAGE_TOPIC],
                "stamps": "now",
                "wait_for_subscribers": 2,  # the node and this process
            }
            start_node(processes, output, "player", "camera_player", parameters)
            count = len(drive.truth)
            _listen(
                executor,
                processes,
                lambda: last,
                lambda: score.answered == count and monitor.places_asked >= count,
            )
            if monitor.strangers:
                console.print(
                    f"warning: {counted(monitor.strangers, 'image')} of another camera came on "
                    f"{IMAGE_TOPIC}, and "
                    "took their share of the nodes: the figures are not those of this drive alone",
                    style="yellow",
                    soft_wrap=True,
                )
            seen = monitor.images_seen
            found = relocalisation(
                drive.truth, drive.kidnapped_at, monitor.places_asked, monitor.place_poses()
            )
            monitor.destroy_node()
    finally:
        rclpy.try_shutdown()
    return score, seen, found


def spin(executor: Any) -> None:
    """Spins once, and lets what is to end the demo do so afterwards: rclpy's objects are then whole."""
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in ENDING}
    try:
        executor.spin_once(timeout_sec=0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for which in came:
        signal.raise_signal(which)


def _listen(executor: Any, processes: Processes, last: Any, everything: Any) -> None:
    """Listens until both nodes answered every frame, or the player has ended and nothing more comes."""
    ended: float | None = None
    check = 0.0
    started = time.monotonic()
    while not everything():
        spin(executor)
        now = time.monotonic()
        if now < check:
            continue
        check = now + 0.2
        for name in NODES:
            processes.require(name)
        if ended is None and processes.ended("player"):
            ended = now
        if ended is not None and now - max(ended, last()) > SILENCE_S:
            return
        if ended is None and now - max(started, last()) > START_TIMEOUT_S:
            raise DemoError(
                f"No result for {START_TIMEOUT_S:g} s while the player runs: {processes.last_words('player')}"
            )
