"""A camera process that does what it is told, right or wrong: one JSON object a line on standard input.

`{"rate": 30, "size": [480, 640], "encoding": "rgb8", "offset_s": 0, "vary": false}` changes what it sends
from now on; keys that are left out stay as they are. With `vary` every frame has another size and encoding.
Each line is answered with how many frames were sent so far.
"""

from __future__ import annotations

import array
import itertools
import json
import os
import sys
import threading
import time

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from robot_vision.ros.node.dds import use_large_image_profile

BYTES = {"rgb8": 3, "bgr8": 3, "mono8": 1, "rgba8": 4, "16UC1": 2, "bayer_rggb8": 1, "nonsense": 5}
SIZES = ((480, 640), (1, 1), (1080, 1920), (37, 1001), (240, 320))


def image(size: tuple[int, int], encoding: str) -> Image:
    """Returns a message with random pixels."""
    height, width = size
    step = width * BYTES[encoding]
    pixels = np.random.default_rng(0).integers(0, 256, height * step, np.uint8)
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data = array.array("B", pixels.tobytes())
    return message


class FaultCamera:
    """Publishes until standard input ends."""

    def __init__(self, topic: str) -> None:
        self.told = {"rate": 0.0, "size": [480, 640], "encoding": "rgb8", "offset_s": 0.0}
        self.sent = 0
        self.ended = False
        self._node = rclpy.create_node("fault_camera")
        self._publisher = self._node.create_publisher(Image, topic, qos_profile_sensor_data)
        self._made: dict[tuple[tuple[int, int], str], Image] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.told = {**self.told, **json.loads(line)}
            print(self.sent, flush=True)
        self.ended = True

    def run(self) -> None:
        """Publishes at the rate that is told, without catching up what it missed."""
        varied = itertools.cycle(itertools.product(SIZES, BYTES))
        due = time.monotonic()
        while not self.ended:
            told = self.told
            if not told["rate"]:
                time.sleep(0.01)
                due = time.monotonic()
                continue
            key = next(varied) if told.get("vary") else (tuple(told["size"]), told["encoding"])
            if key not in self._made:
                self._made[key] = image(*key)
            message = self._made[key]
            stamp = time.time_ns() + int(told["offset_s"] * 1e9)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            message.header.frame_id = "front_optical"
            self._publisher.publish(message)
            self.sent += 1
            due = max(due + 1 / told["rate"], time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Runs a camera on the topic given; with `--udp` as on another machine, without shared memory."""
    if "--udp" in sys.argv:
        os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
    else:
        use_large_image_profile()
    rclpy.init()
    camera = FaultCamera(sys.argv[1])
    print("ready", flush=True)
    camera.run()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
