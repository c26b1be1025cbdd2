"""Real nodes for tests: a node's process, and a client that talks to it over DDS."""

from __future__ import annotations

import array
import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot_vision.messages import making
from robot_vision.messages.stamps import set_stamp, stamp_to_ns
from robot_vision.ros import EXECUTABLES
from robot_vision.ros.node.dds import PROFILES_FILE, PROFILES_FILE_V2

ROOT = Path(__file__).resolve().parents[2]


def own_environment() -> dict[str, str]:
    """Returns the environment of a process that itself sees to the middleware's profile, as nodes do."""
    return {k: v for k, v in os.environ.items() if k not in (PROFILES_FILE, PROFILES_FILE_V2)}


def python_path(*folders: Path) -> str:
    """Returns PYTHONPATH with the sources, or these folders, before what a sourced ROS 2 put there."""
    before = [str(folder) for folder in folders or (ROOT,)]
    return os.pathsep.join(filter(None, (*before, os.environ.get("PYTHONPATH"))))


class NodeProcess:
    """A node in a process of its own, with what it prints in a file.

    Args:
        log: file for its output.
        module: run with `python -m`, or the name of one of our executables.
        arguments: after the module's name.
        prefix: command that runs the command after it in its own place, such as `nice`.
        parameters: of the node, if there are no arguments or they are those of ROS.
    """

    def __init__(
        self, log: Path, module: str, *arguments: str, prefix: Sequence[str] = (), **parameters: Any
    ) -> None:
        self._log = log
        if parameters:
            start = () if "--ros-args" in arguments else ("--ros-args",)
            given = (word for k, v in parameters.items() for word in ("-p", f"{k}:={v}"))
            arguments = (*start, *arguments, *given)
        environment = {
            **own_environment(),
            "PYTHONPATH": python_path(),
            "PYTHONUNBUFFERED": "1",
            "RCUTILS_COLORIZED_OUTPUT": "0",
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", EXECUTABLES.get(module, module), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        # A test that fails before it stops the node must not leave it behind in the tests' ROS domain.
        atexit.register(self.process.kill)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGINT, timeout_s: float = 20) -> int:
        """Sends a signal and returns the exit status."""
        if self.alive:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def wait_until(
    condition: Callable[[], Any],
    timeout_s: float = 60.0,  # on a busy machine; it costs nothing elsewhere
    what: str = "",
    each: Callable = lambda: None,
) -> Any:
    """Waits until `condition` is true and returns its value; calls `each` between the looks."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        each()
        time.sleep(0.02)


class Client:
    """A node that publishes, subscribes and calls services, spun by a thread of its own."""

    def __init__(self) -> None:
        from robot_vision.ros.node.dds import use_large_image_profile

        use_large_image_profile()  # the soak is no pytest, whose conftest does it
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        # A context of its own: several clients, and nodes of other tests, can live at once.
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("test_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._subscriptions: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def listen(self, kind: Any, topic: str, qos: Any = 10) -> list[Any]:
        """Subscribes once and returns the list that fills with messages."""
        if topic not in self._subscriptions:
            self._subscriptions[topic] = self.node.create_subscription(
                kind, topic, self.received[topic].append, qos
            )
        return self.received[topic]

    def ignore(self, topic: str) -> None:
        """Ends a subscription."""
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            self.node.destroy_subscription(subscription)
        self.received.pop(topic, None)

    def ignore_all(self) -> None:
        for topic in list(self._subscriptions):
            self.ignore(topic)

    def publisher(self, kind: Any, topic: str, qos: Any = 10) -> Any:
        """Returns a publisher of the topic, made once and matched with a subscriber."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, qos)
        return self._publishers[topic]

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = 20) -> Any:
        """Calls a service and returns its answer."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        assert client.wait_for_service(timeout_sec=timeout_s), f"no service {service}"
        future = client.call_async(request)
        wait_until(future.done, timeout_s, f"answer of {service}")
        return future.result()

    def change_state(self, node: str, transition: int) -> bool:
        """Asks a lifecycle node for a transition; says whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, f"{node}/change_state", request).success)

    def state(self, node: str) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def set_parameters(self, node: str, **values: Any) -> Any:
        """Sets parameters atomically and returns the result."""
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter

        request = SetParametersAtomically.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        return self.call(
            SetParametersAtomically, f"{node}/set_parameters_atomically", request
        ).result

    def diagnostics(self, part: str, newer_than: int = 0) -> tuple[int, str, dict[str, str]] | None:
        """Returns level, text and values of the newest status whose name has `part`."""
        for message in reversed(self.received["/diagnostics"]):
            if stamp_ns(message) < newer_than:
                break
            for status in message.status:
                if part in status.name:
                    level = int.from_bytes(status.level, "little")
                    return level, status.message, {v.key: v.value for v in status.values}
        return None

    def count(self, part: str, name: str) -> float:
        """Returns a number from the newest diagnostics; 0 if there are none."""
        found = self.diagnostics(part)
        return float(found[2].get(name, 0)) if found else 0.0


@contextlib.contextmanager
def running(
    folder: Path, node: str, *arguments: str, **parameters: Any
) -> Iterator[tuple[NodeProcess, Client]]:
    """Runs a node next to a client that hears /diagnostics; it has to end in order when it is interrupted."""
    from diagnostic_msgs.msg import DiagnosticArray

    client = Client()
    client.listen(DiagnosticArray, "/diagnostics")
    process = NodeProcess(folder / "log.txt", node, *arguments, **parameters)
    try:
        yield process, client
    finally:
        client.close()
        status = process.stop()
    assert status == 0 and "Traceback" not in process.output, process.output


def rgb_message(image: np.ndarray, stamp_ns: int, frame: str = "front_optical") -> Any:
    """Returns an RGB uint8 (H, W, 3) image as `sensor_msgs/Image`."""
    from sensor_msgs.msg import Image

    message = Image(height=image.shape[0], width=image.shape[1], encoding="rgb8")
    message.step = 3 * image.shape[1]
    message.data = array.array("B", np.ascontiguousarray(image).tobytes())
    set_header(message, stamp_ns, frame)
    return message


def jpeg_message(image: np.ndarray, stamp_ns: int, frame: str = "front_optical") -> Any:
    """Returns an RGB image as JPEG in `sensor_msgs/CompressedImage`."""
    from sensor_msgs.msg import CompressedImage

    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert ok
    message = CompressedImage(format="jpeg", data=array.array("B", data.tobytes()))
    set_header(message, stamp_ns, frame)
    return message


def set_header(message: Any, stamp_ns: int, frame: str) -> None:
    set_stamp(message.header.stamp, stamp_ns)
    message.header.frame_id = frame


def stamp_ns(message: Any) -> int:
    """Returns the stamp of a message's header in nanoseconds."""
    return stamp_to_ns(message.header.stamp)


def coloured_image(rgb: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Returns an image of one colour with a little texture, RGB uint8 (H, W, 3)."""
    noise = np.random.default_rng(0).integers(-5, 6, (*size, 3))
    return np.clip(np.array(rgb) + noise, 0, 255).astype(np.uint8)


def pixels_message(header: Any, values: np.ndarray, encoding: str) -> Any:
    """Returns an image under a header-like object."""
    from sensor_msgs.msg import Image

    message = Image()
    making.set_header(message.header, header)
    making.set_pixels(message, values, encoding)
    return message


def descriptor_message(header: Any, values: np.ndarray) -> Any:
    """Returns a descriptor (D,) as the perception node publishes it."""
    return pixels_message(header, np.asarray(values, np.float32)[None], "32FC1")
