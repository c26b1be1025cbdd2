"""A planner in a process of its own: receives results and reports their ages, as read from standard input.

A line in asks for what came since the last one; the line out holds, for each result topic, the ages in
nanoseconds at reception, and of the last topic the times of reception. Several cameras are kept
together. It takes the messages serialised and reads their stamps: a planner in Python would spend several
times that on building message objects, on the cores that are measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import struct
import sys
import threading
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from robot_vision.messages.making import rclpy_maker
from robot_vision.ros.node.dds import use_large_image_profile

STAMP = struct.Struct("<iI")  # Header's first field, after the four bytes of CDR encapsulation
TYPES = {"classification": "vision_msgs/msg/Classification", "descriptor": "sensor_msgs/msg/Image",
         "pose": "geometry_msgs/msg/PoseWithCovarianceStamped"}  # fmt: skip


class Listener(Node):
    """Keeps the age of every result, one list a topic."""

    def __init__(self, prefixes: list[str], types: dict[str, str]) -> None:
        super().__init__("benchmark_listener")
        self.lock = threading.Lock()
        self.ages: dict[str, list[int]] = {name: [] for name in types}
        self.timed = list(types)[-1]
        self.received: list[int] = []
        self.first_ns = 0
        self.status: dict[str, str] = {}
        for prefix, (name, kind) in itertools.product(prefixes, types.items()):
            self.create_subscription(
                rclpy_maker(kind), f"{prefix}/{name}", lambda m, n=name: self.keep(n, m),
                QoSProfile(depth=50), raw=True,
            )  # fmt: skip
        self.create_subscription(DiagnosticArray, "/diagnostics", self.diagnose, 10)

    def keep(self, name: str, message: bytes) -> None:
        now = time.time_ns()
        seconds, nanoseconds = STAMP.unpack_from(message, 4)
        with self.lock:
            self.first_ns = self.first_ns or now
            self.ages[name].append(now - seconds * 10**9 - nanoseconds)
            if name == self.timed:
                self.received.append(now)

    def diagnose(self, message: DiagnosticArray) -> None:
        with self.lock:
            for status in message.status:
                self.status.update({f"{status.name}/{v.key}": v.value for v in status.values})

    def take(self) -> dict[str, object]:
        with self.lock:
            taken = {
                "ages_ns": self.ages, "received_ns": self.received, "first_ns": self.first_ns,
                "diagnostics": self.status,
            }  # fmt: skip
            self.ages, self.received = {name: [] for name in self.ages}, []
            self.first_ns = 0
        return taken


def main() -> None:
    """Serves commands until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", nargs="+", default=["/perception/camera"])
    parser.add_argument(
        "--types", type=json.loads, default=TYPES, help="JSON: topics to their types"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    use_large_image_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Listener(args.prefix, args.types)
    thread = threading.Thread(target=rclpy.spin, args=(node,), daemon=True)
    thread.start()
    print(json.dumps({"ready": True}), flush=True)
    try:
        for _ in sys.stdin:
            print(json.dumps(node.take()), flush=True)
    finally:
        rclpy.shutdown()
        thread.join(timeout=5)


if __name__ == "__main__":
    main()
