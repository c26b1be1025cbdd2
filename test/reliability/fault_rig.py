"""A perception node between a camera that can be broken and a listener that counts, over real DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from ros_helpers import Client, NodeProcess, python_path, wait_until

NODE = "/perception"
TOPIC = "/front/image_raw"


class Camera:
    """A `fault_camera` process.

    Args:
        namespace: the network namespace that it runs in, as if on another machine; "" for ours.
    """

    def __init__(self, namespace: str = "") -> None:
        command = [sys.executable, str(Path(__file__).with_name("fault_camera.py")), TOPIC]
        if namespace:
            command = ["ip", "netns", "exec", namespace, *command, "--udp"]
        environment = {**os.environ, "PYTHONPATH": python_path()}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the camera ended with status {self.process.poll()}"
        return line

    def tell(self, **told: Any) -> int:
        """Changes what it does; returns how many frames it has sent."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return int(self._read())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Rig:
    """The node, its camera and who listens.

    Args:
        folder: for logs.
        bundle: the model.
        options: parameters of the node beside those set here.
    """

    def __init__(self, folder: Path, bundle: Path, **options: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from vision_msgs.msg import Classification

        self.folder, self.bundle, self.options = folder, bundle, options
        self.starts = 0
        self.lock = threading.Lock()
        self.answers = 0
        self.ages: deque[float] = deque(maxlen=100_000)
        self.last_answer = 0.0
        self.client = Client()
        self.client.node.create_subscription(
            Classification, f"{NODE}/front/classification", self._answered, 50
        )
        newest: deque[Any] = deque(maxlen=50)
        self.client.received["/diagnostics"] = newest  # type: ignore[assignment]
        self.client.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda message: newest.append(message), 10
        )
        self.camera = Camera()
        self.node = self.start()

    def start(self, prefix: Sequence[str] = (), **options: Any) -> NodeProcess:
        """Starts the node's process (again), with options of this process alone."""
        self.starts += 1
        options = {
            "model": self.bundle, "cameras": "[front]", "diagnostics_period_s": 0.2,
            "diagnostics_window_s": 2.0, **self.options, **options,
        }  # fmt: skip
        words = [w for key, value in options.items() for w in ("-p", f"{key}:={value}")]
        log = self.folder / f"node_{self.starts}.txt"
        module = "robot_vision.ros.perception.node"
        return NodeProcess(log, module, "--ros-args", *words, prefix=prefix)

    def _answered(self, message: Any) -> None:
        now = time.time_ns()
        stamp = message.header.stamp
        with self.lock:
            self.answers += 1
            self.last_answer = time.monotonic()
            self.ages.append((now - stamp.sec * 10**9 - stamp.nanosec) / 1e9)

    def take_ages(self) -> list[float]:
        """Returns the ages (s) of the answers since the last call."""
        with self.lock:
            ages = list(self.ages)
            self.ages.clear()
        return ages

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.node.process.pid)

    def resources(self) -> dict[str, float]:
        """Returns the node's memory (MiB), open files and threads."""
        with self.process.oneshot():
            return {
                "memory_mib": self.process.memory_info().rss / 2**20,
                "files": self.process.num_fds(),
                "threads": self.process.num_threads(),
            }

    def counters(self) -> dict[str, float]:
        """Returns the numbers of the node's diagnostics, of the camera and of itself."""
        numbers = {}
        for part in ("perception", "camera front"):
            found = self.client.diagnostics(part)
            for key, value in (found[2] if found else {}).items():
                try:
                    numbers[key] = float(value)
                except ValueError:
                    continue
        return numbers

    def heal(self, limit_s: float = 60.0) -> float:
        """Sends good frames; returns how long it took until they were answered.

        Raises:
            AssertionError: they are not, in that time, or the node is dead.
        """
        assert self.node.alive, f"the node died:\n{self.node.output[-3000:]}"
        if self.camera.process.poll() is not None:
            self.camera = Camera()
        self.camera.tell(rate=20, size=[480, 640], encoding="rgb8", offset_s=0, vary=False)
        return self.answered(limit_s)

    def answered(self, limit_s: float = 60.0) -> float:
        """Returns how long the next ten answers took to come."""
        start = time.monotonic()
        with self.lock:
            before = self.answers
        wait_until(
            lambda: self.answers >= before + 10, limit_s,
            f"answers to good frames; the node said:\n{self.node.output[-3000:]}",
        )  # fmt: skip
        return time.monotonic() - start

    def close(self) -> int:
        """Stops everything; returns the node's exit status."""
        self.camera.close()
        status = self.node.stop()
        self.client.close()
        return status


def kill(process: NodeProcess) -> None:
    """What a power cut does to it."""
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
