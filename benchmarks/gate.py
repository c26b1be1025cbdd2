"""From the image to the stop: how long until a command is zero, through the perception node and the gate.

    python -m benchmarks.gate

A camera sends images of the demo's corridor and a driver drives; then images of its kitchen, in which a rule
stops the robot. Camera, driver and base are one process, the perception node (the demo's model) and the gate
one each. Times are from before the first such image is published until the base has the zero.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine, peers
from benchmarks.timing import positive
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.errors import RobotVisionError
from robot_vision.messages.stamps import set_stamp
from robot_vision.pipeline import Pipeline
from robot_vision.ros import EXECUTABLES
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Renderer

GO, STOP = "corridor", "kitchen"
RULES = (
    f"rules:\n  stop: {{kind: class, topic: perception/camera/classification, label: {STOP}, "
    "probability: 0.5, max_age_s: 1.0}\n"
)
_WAIT_S = 60.0


def pictures() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns an image of each room of which the demo's model is sure: RGB uint8 (H, W, 3)."""
    world = default_world()
    renderer = Renderer(world)
    pipeline = Pipeline.load(find_model("demo"))
    found: dict[str, NDArray[np.uint8]] = {}
    for frame in evaluation_drive(world, rate_hz=1.0):
        if frame.room in (GO, STOP) and frame.room not in found:
            image = renderer.render(frame.T_map_camera)
            best = pipeline([image])[0].answers["classifier"].top_k(1)[0]
            if best.label == frame.room and best.score > 0.95:
                found[frame.room] = image
        if len(found) == 2:
            return found[GO], found[STOP]
    raise RobotVisionError("the demo's model is sure of no image of each room")


@contextlib.contextmanager
def running(name: str, *parameters: str) -> Iterator[None]:
    """Runs a node in its own process."""
    words = [word for p in parameters for word in ("-p", p)]
    command = [sys.executable, "-m", EXECUTABLES[name], "--ros-args", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Robot:
    """Camera, driver and base."""

    def __init__(self, rate: float) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import TwistStamped
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Classification

        from robot_vision.ros.node.dds import use_large_image_profile

        use_large_image_profile()
        rclpy.init()
        self._period_s = 1 / rate
        self._node = rclpy.create_node("robot")
        self._image_type, self._twist_type = Image, TwistStamped
        self._images = self._node.create_publisher(Image, "/camera/image_raw", 1)
        self._commands = self._node.create_publisher(TwistStamped, "/cmd_vel_in", 1)
        self.speed, self.speed_at = float("nan"), 0.0
        self.label, self.label_at = "", 0.0
        self.stages: dict[str, str] = {}
        self._node.create_subscription(TwistStamped, "/cmd_vel", self._on_command, 10)
        topic = "/perception/camera/classification"
        self._node.create_subscription(Classification, topic, self._on_class, 10)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        threading.Thread(target=executor.spin, daemon=True).start()

    def _on_command(self, message: Any) -> None:
        if message.twist.linear.x != self.speed:
            self.speed, self.speed_at = message.twist.linear.x, time.monotonic()

    def _on_class(self, message: Any) -> None:
        if message.results[0].class_id != self.label:
            self.label, self.label_at = message.results[0].class_id, time.monotonic()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.endswith(": gate"):
                self.stages = {v.key: v.value for v in status.values if "_ms_" in v.key}

    def show(self, image: NDArray[np.uint8], until: Callable[[], bool]) -> float:
        """Sends an image and a command at the rate until something is so; returns when the first was sent."""
        begin = next_at = time.monotonic()
        while not until():
            if time.monotonic() > begin + _WAIT_S:
                raise RobotVisionError(f"nothing within {_WAIT_S:g} s: do the nodes start?")
            if time.monotonic() >= next_at:
                next_at += self._period_s
                message = self._image_type(height=image.shape[0], width=image.shape[1])
                message.encoding, message.step = "rgb8", 3 * image.shape[1]
                message.data.frombytes(image.tobytes())
                command = self._twist_type()
                for each in (message, command):
                    set_stamp(each.header.stamp, time.time_ns())
                message.header.frame_id = "camera"
                command.twist.linear.x = 0.5
                self._images.publish(message)
                self._commands.publish(command)
            time.sleep(0.0005)
        return begin


def measure(stops: int, rate: float) -> dict[str, Any]:
    """Returns milliseconds from the image to its answer and to the stop: median, 95th percentile, largest."""
    go, stop = pictures()
    robot = Robot(rate)
    answers, zeros = [], []
    rng = np.random.default_rng(0)
    for _ in range(stops):
        robot.show(go, lambda: robot.speed == 0.5 and robot.label == GO)
        time.sleep(float(rng.uniform(0, 1 / rate)))
        begin = robot.show(stop, lambda: robot.speed == 0.0 and robot.label == STOP)
        answers.append(1e3 * (robot.label_at - begin))
        zeros.append(1e3 * (robot.speed_at - begin))
    # Diagnostics come once a second.
    robot.show(stop, lambda: robot.stages.get("answer_to_command_ms_p50", "nan") != "nan")
    found = {"image_to_answer_ms": answers, "image_to_stop_ms": zeros}
    found["answer_to_stop_ms"] = [z - a for z, a in zip(zeros, answers, strict=True)]
    shown = {
        name: [round(float(np.percentile(values, q)), 1) for q in (50, 95, 100)]
        for name, values in found.items()
    }
    return {"stops": stops, "rate_hz": rate, **shown, "of_the_gate": robot.stages}


def main() -> None:
    """Prints the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--stops", type=int, default=100, choices=range(1, 10_000), metavar="N",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--rate", type=positive, default=15.0, help="Hz (default: %(default)s)")
    args = parser.parse_args()
    bundle = ModelBundle.load(find_model("demo"))
    peers.isolate()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.yaml"
        rules.write_text(RULES)
        with (
            running("perception_node", f"model:={bundle.path}"),
            running("gate_node", f"rules:={rules}"),
        ):
            print(
                json.dumps(
                    {**measure(args.stops, args.rate), "machine": machine.describe()}, indent=1
                )
            )


if __name__ == "__main__":
    main()
