"""Cameras in a process of their own: publish prepared frames at a rate, as read from standard input.

Each line in is a JSON object {"rate": Hz, "seconds": s}; each line out says how many were published.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
from typing import Any

import cv2
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from benchmarks import inputs
from robot_vision.ros.node.dds import use_large_image_profile

STAMP = struct.Struct("<iI")  # Header's first field, after the four bytes of CDR encapsulation
FRAME = "camera_optical_frame"


def topics(cameras: int) -> list[str]:
    """Returns the cameras' image topics."""
    names = ["camera"] if cameras == 1 else [f"camera_{i}" for i in range(1, cameras + 1)]
    return [f"/{name}/image_raw" for name in names]


def prepare(size: str, transport: str) -> list[bytearray]:
    """Returns serialised messages, so that publishing costs a copy and nothing else."""
    images, _ = inputs.frames()
    messages = []
    for image in inputs.enlarged(images, inputs.SIZES[size]):
        if transport == "raw":
            message = Image(height=image.shape[0], width=image.shape[1], encoding="rgb8")
            message.step = image.shape[1] * 3
            message.data.frombytes(image.tobytes())
        else:
            message = CompressedImage(format="jpeg")
            quality = [cv2.IMWRITE_JPEG_QUALITY, inputs.JPEG_QUALITY]
            jpeg = cv2.imencode(".jpg", image[..., ::-1], quality)[1]
            message.data.frombytes(jpeg.tobytes())
        message.header.frame_id = FRAME
        messages.append(bytearray(serialize_message(message)))
    return messages


def camera_info(size: str) -> CameraInfo:
    """Returns a lens without distortion that sees 62 degrees from left to right."""
    height, width = inputs.SIZES[size]
    f, x, y = 525.0 * width / 640, width / 2, height / 2
    message = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = [f, 0.0, x, 0.0, f, y, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [f, 0.0, x, 0.0, 0.0, f, y, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.header.frame_id = FRAME
    return message


def publish(publishers: list[Any], messages: list[bytearray], rate: float, seconds: float) -> int:
    """Publishes at a fixed rate without drift; a frame that is late is sent at once.

    All cameras send together, as synchronised ones do. It ends a period after the last frame, so that
    frames over seconds are the rate. Returns how many frames each has sent.
    """
    start = time.perf_counter()
    count = 0
    while count < rate * seconds:
        wait = start + count / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        message = messages[count % len(messages)]
        now = time.time_ns()
        STAMP.pack_into(message, 4, now // 10**9, now % 10**9)
        serialized = bytes(message)
        for publisher in publishers:
            publisher.publish(serialized)
        count += 1
        if time.perf_counter() - start > 1.5 * seconds:
            break  # cannot keep the rate: the count says so
    time.sleep(max(0.0, start + count / rate - time.perf_counter()))
    return count


def main() -> None:
    """Serves commands until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=inputs.SIZES, default="480p")
    parser.add_argument("--transport", choices=("raw", "compressed"), default="raw")
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument(
        "--calibrated", action="store_true", help="send camera_info before each command's frames"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # also amid publishing
    use_large_image_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("benchmark_camera")
    kind, suffix = (Image, "")
    if args.transport == "compressed":
        kind, suffix = CompressedImage, "/compressed"
    publishers = [
        node.create_publisher(kind, topic + suffix, qos_profile_sensor_data)
        for topic in topics(args.cameras)
    ]
    calibration = None
    if args.calibrated:
        calibration = node.create_publisher(CameraInfo, "/camera/camera_info", 1)
    messages = prepare(args.size, args.transport)
    print(json.dumps({"ready": True, "bytes": len(messages[0])}), flush=True)
    try:
        for line in sys.stdin:
            command = json.loads(line)
            if calibration:
                calibration.publish(camera_info(args.size))
            start = time.perf_counter()
            count = publish(publishers, messages, command["rate"], command["seconds"])
            elapsed = time.perf_counter() - start
            print(json.dumps({"published": count, "seconds": elapsed}), flush=True)
    finally:  # else its shared memory stays
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()
