"""The processes of a benchmark: camera, listener and node, what they receive and what they use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks import inputs
from benchmarks.camera import topics

PERCEPTION, TODAYS = "/perception", "/todays_node"


class Peer:
    """A camera or listener process that is controlled by JSON lines."""

    def __init__(self, module: str, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=inputs.ROOT,
        )  # fmt: skip
        self.hello = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def ask(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


@dataclass(frozen=True)
class Bench:
    """A camera, a node and a listener at work.

    Attributes:
        cameras: how many topics the camera process publishes.
    """

    camera: Peer
    listener: Peer
    node: psutil.Popen
    cameras: int = 1

    def processes(self) -> dict[str, psutil.Process]:
        """Returns the three by name."""
        return {
            "node": self.node,
            "camera": psutil.Process(self.camera.process.pid),
            "listener": psutil.Process(self.listener.process.pid),
        }

    def wait_for_results(self, limit_s: float = 120.0) -> None:
        """Publishes slowly until the node answers.

        Raises:
            RuntimeError: it does not, in that time, or it has ended.
        """
        end = time.time() + limit_s
        self.listener.ask()
        while time.time() < end:
            self.camera.ask(rate=20, seconds=0.5)
            if (status := self.node.poll()) is not None:
                raise RuntimeError(f"the node ended with status {status}")
            if all(self.listener.ask()["ages_ns"].values()):
                return
        raise RuntimeError(f"no result within {limit_s} s")


def isolate() -> None:
    """Keeps the benchmark's topics on this machine and off other robots' domains."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def perception(
    bundle: str,
    transport: str,
    precision: str,
    engine: str = "auto",
    cameras: int = 1,
    streams: int = 1,
) -> list[str]:
    """Returns the command line of the perception node."""
    names = [topic.split("/")[1] for topic in topics(cameras)]
    parameters = {
        "model": bundle, "transport": transport, "precision": precision, "engine": engine,
        "streams": str(streams), "diagnostics_window_s": "2.0",
        "cameras": f"[{','.join(names)}]", "image_topics": f"[{','.join(topics(cameras))}]",
    }  # fmt: skip
    words = [w for name, value in parameters.items() for w in ("-p", f"{name}:={value}")]
    return [
        sys.executable, "-m", "robot_vision.ros.perception.node", "--ros-args",
        "--log-level", "warn", *words,
    ]  # fmt: skip


@contextmanager
def running(command: list[str]) -> Iterator[psutil.Popen]:
    """Runs a node and stops it as Ctrl-C does."""
    process = psutil.Popen(command, cwd=inputs.ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=15)
        except psutil.TimeoutExpired:
            process.kill()


@contextmanager
def bench(
    command: list[str],
    node: str = PERCEPTION,
    size: str = "480p",
    transport: str = "raw",
    cameras: int = 1,
) -> Iterator[Bench]:
    """Starts camera, listener and node, and waits for the first results."""
    names = [topic.split("/")[1] for topic in topics(cameras)]
    camera = Peer(
        "camera", "--size", size, "--transport", transport, "--cameras", str(cameras)
    )  # fmt: skip
    listener = Peer("listener", "--prefix", *(f"{node}/{name}" for name in names))
    try:
        with running(command) as process:
            made = Bench(camera, listener, process, cameras)
            made.wait_for_results()
            yield made
    finally:
        camera.close()
        listener.close()


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Returns the CPU time that each process has used."""
    return {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}


def memory_mib(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Returns the resident memory of each process."""
    return {name: round(p.memory_info().rss / 2**20, 1) for name, p in processes.items()}
