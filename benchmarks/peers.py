"""The processes of a benchmark: camera, listener and node, what they receive and what they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import inputs
from benchmarks.camera import topics
from benchmarks.interrupts import held
from robot_vision.demo.processes import free_domain
from robot_vision.files.processes import die_with_parent

PERCEPTION, TODAYS = "/perception", "/todays_node"


_started: list[psutil.Popen] = []


def start(command: list[str], cwd: Path = inputs.ROOT, **options: Any) -> psutil.Popen:
    """Starts a process that `end_all` ends.

    It has a session of its own, so that Ctrl-C at the terminal reaches us alone.
    """
    with held():
        process = psutil.Popen(
            command, cwd=cwd, start_new_session=True,
            preexec_fn=die_with_parent,  # where this one is killed and can end nobody
            **options,
        )  # fmt: skip
        _started.append(process)
    return process


def end(process: psutil.Popen, limit_s: float = 15.0) -> None:
    """Asks a process to end, and kills it if it does not in that time.

    SIGTERM and not SIGINT, with which a Python that is still importing prints a traceback.
    """
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=limit_s)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    if process in _started:
        _started.remove(process)


def end_all() -> None:
    """Ends what was started and has not been ended."""
    for process in list(_started):
        if process.poll() is None:
            process.terminate()  # all at once, since some take seconds
    for process in list(_started):
        end(process)


class Peer:
    """A process that is controlled by JSON lines, such as the camera's."""

    def __init__(
        self, *arguments: str, cwd: Path = inputs.ROOT, env: dict[str, str] | None = None
    ) -> None:
        """Starts Python with these arguments and waits until it is ready."""
        self.process = start(
            [sys.executable, *arguments],
            cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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
        """Ends the process, also one that is at work on a command."""
        end(self.process)


def camera_peer(*arguments: str, env: dict[str, str] | None = None) -> Peer:
    """Starts `benchmarks.camera`."""
    return Peer("-m", "benchmarks.camera", *arguments, env=env)


def listener_peer(
    *prefixes: str, types: Mapping[str, str] | None = None, env: dict[str, str] | None = None
) -> Peer:
    """Starts `benchmarks.listener` for topics below these prefixes: those of `types`, or the usual ones."""
    more = ("--types", json.dumps(dict(types))) if types else ()
    return Peer("-m", "benchmarks.listener", "--prefix", *prefixes, *more, env=env)


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
    os.environ.setdefault("ROS_DOMAIN_ID", str(free_domain()))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def perception(
    bundle: str,
    transport: str,
    precision: str,
    engine: str = "auto",
    cameras: int = 1,
    streams: int = 1,
    module: str = "robot_vision.ros.perception.node",
) -> list[str]:
    """Returns the command line of the perception node."""
    names = [topic.split("/")[1] for topic in topics(cameras)]
    parameters = {
        "model": bundle, "transport": transport, "precision": precision, "engine": engine,
        "streams": str(streams), "diagnostics_window_s": "2.0", "stale_after_s": "600.0",
        "cameras": f"[{','.join(names)}]", "image_topics": f"[{','.join(topics(cameras))}]",
    }  # fmt: skip
    words = [w for name, value in parameters.items() for w in ("-p", f"{name}:={value}")]
    return [
        sys.executable, "-m", module, "--ros-args",
        "--log-level", "warn", *words,
    ]  # fmt: skip


@contextmanager
def running(
    command: list[str], cwd: Path = inputs.ROOT, env: dict[str, str] | None = None
) -> Iterator[psutil.Popen]:
    """Runs a node and ends it afterwards."""
    process = start(command, cwd, env=env)
    try:
        yield process
    finally:
        end(process)


@contextmanager
def bench(
    command: list[str],
    node: str = PERCEPTION,
    size: str = "480p",
    transport: str = "raw",
    cameras: int = 1,
    cwd: Path = inputs.ROOT,
    env: dict[str, str] | None = None,
    types: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """Starts camera, listener and node, and waits for the first results.

    Args:
        command: of the node.
        node: its full name.
        size: of the camera's images.
        transport: of them.
        cameras: how many.
        cwd: where the node is run.
        env: the environment of all three.
        types: topics of each camera that are heard, to their types, and the camera then sends camera_info;
            None for the usual ones.
    """
    calibrated = ("--calibrated",) if types else ()
    names = [topic.split("/")[1] for topic in topics(cameras)]
    with (
        closing(camera_peer("--size", size, "--transport", transport,
                            "--cameras", str(cameras), *calibrated, env=env)) as camera,
        closing(listener_peer(*(f"{node}/{name}" for name in names), types=types, env=env)) as listener,
        running(command, cwd, env) as process,
    ):  # fmt: skip
        made = Bench(camera, listener, process, cameras)
        made.wait_for_results()
        yield made


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Returns the CPU time that each process has used."""
    return {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}


def memory_mib(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Returns the resident memory of each process."""
    return {name: round(p.memory_info().rss / 2**20, 1) for name, p in processes.items()}
