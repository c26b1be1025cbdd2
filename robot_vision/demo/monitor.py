"""The demo's subscriber: listens to a camera and to what the perception and the place node say of it.

Results are joined to their image by the stamp that both carry. Which frame of the bag an image is follows
from its pixels and not from its stamp, which a player may renew: so nothing is assumed of the player.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, Detection3D

from robot_vision.demo.relocalisation import PlacePose
from robot_vision.demo.scoring import FrameAnswer
from robot_vision.messages.serialized import read_image
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.ros.node.qos import profile

RESULTS: Mapping[str, Any] = {
    "classification": Classification,
    "pose": PoseWithCovarianceStamped,
    "descriptor": Image,
}
_KEPT = 512  # answers that still may be completed; older ones are given up


def fingerprint(pixels: Any) -> int:
    """Returns a number that tells a frame from all others of a bag, from its bytes."""
    return zlib.crc32(pixels)


class DemoMonitor(Node):
    """Joins results to frames and hands each complete answer on.

    Args:
        frames: fingerprint of each image of the bag to its index.
        on_answer: called with each answer once room, pose and descriptor are there.
        image_topic: of the camera.
        results_prefix: before `classification`, `pose` and `descriptor`.
        places_prefix: before the `places` and `pose` of the place node.

    Attributes:
        images_seen: of the bag's images, those that came.
        strangers: images that are not of the bag.
        places_asked: images that the place node answered, whatever it said.
    """

    def __init__(
        self,
        frames: Mapping[int, int],
        on_answer: Callable[[FrameAnswer], None],
        image_topic: str = "/camera/image_raw",
        results_prefix: str = "/perception/camera",
        places_prefix: str = "/places",
    ) -> None:
        super().__init__("demo_monitor")
        self.images_seen = 0
        self.strangers = 0
        self.places_asked = 0
        self._frames = frames
        self._on_answer = on_answer
        self._pending: dict[int, FrameAnswer] = {}
        self._image_topic = image_topic
        reliable = profile("reliable", 50)
        self.create_subscription(
            Image, image_topic, self._on_image, profile("best_effort", 10), raw=True
        )
        self._topics = {name: f"{results_prefix}/{name}" for name in RESULTS}
        take = {
            "classification": self._on_classification,
            "pose": self._on_pose,
            "descriptor": self._on_descriptor,
        }
        for name, kind in RESULTS.items():
            self.create_subscription(kind, self._topics[name], take[name], reliable)
        self._frame_of: dict[int, int] = {}
        self._place_poses: dict[int, PoseWithCovarianceStamped] = {}
        self._topics["places"] = f"{places_prefix}/places"
        self.create_subscription(Detection3D, self._topics["places"], self._on_places, reliable)
        self.create_subscription(
            PoseWithCovarianceStamped, f"{places_prefix}/pose", self._on_place_pose, reliable
        )

    def place_poses(self) -> list[PlacePose]:
        """Returns the poses that the place node accepted, of images that were seen here too."""
        found = []
        for stamp_ns, message in self._place_poses.items():
            frame = self._frame_of.get(stamp_ns)
            if frame is not None:
                p, q = message.pose.pose.position, message.pose.pose.orientation
                found.append(
                    PlacePose(frame, np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
                )
        return found

    def missing_publishers(self) -> list[str]:
        """Returns the result topics that nobody publishes yet."""
        return [t for t in self._topics.values() if self.count_publishers(t) == 0]

    def crowded(self) -> list[str]:
        """Returns the topics that others publish too: the camera's before it plays, results of two nodes."""
        found = [t for t in self._topics.values() if self.count_publishers(t) > 1]
        return found + [self._image_topic] * (self.count_publishers(self._image_topic) > 0)

    def _on_image(self, data: bytes) -> None:
        image = read_image(data)
        index = self._frames.get(fingerprint(image.data))
        if index is None:
            self.strangers += 1
            return
        self.images_seen += 1
        answer = self._answer(image.header)
        answer.frame = self._frame_of[answer.stamp_ns] = index
        self._finish(answer)

    def _on_classification(self, message: Classification) -> None:
        answer = self._received(message.header)
        if message.results:
            answer.label = str(message.results[0].class_id)
            answer.probability = float(message.results[0].score)
        self._finish(answer)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        answer = self._received(message.header)
        p, q = message.pose.pose.position, message.pose.pose.orientation
        answer.orientation_xyzw = np.array([q.x, q.y, q.z, q.w])
        answer.covariance = np.array(message.pose.covariance).reshape(6, 6)
        answer.position = np.array([p.x, p.y, p.z])
        self._finish(answer)

    def _on_descriptor(self, message: Image) -> None:
        answer = self._received(message.header)
        order = ">" if message.is_bigendian else "<"
        answer.descriptor = np.frombuffer(message.data, f"{order}f4").astype(np.float32)
        self._finish(answer)

    def _on_places(self, _message: Detection3D) -> None:
        self.places_asked += 1

    def _on_place_pose(self, message: PoseWithCovarianceStamped) -> None:
        self._place_poses[stamp_to_ns(message.header.stamp)] = message

    def _received(self, header: Any) -> FrameAnswer:
        answer = self._answer(header)
        answer.received_ns = time.time_ns()
        return answer

    def _answer(self, header: Any) -> FrameAnswer:
        key = stamp_to_ns(header.stamp)
        answer = self._pending.get(key)
        if answer is None:
            answer = self._pending[key] = FrameAnswer(key)
            if len(self._pending) > _KEPT:
                del self._pending[next(iter(self._pending))]
        return answer

    def _finish(self, answer: FrameAnswer) -> None:
        if answer.complete:
            self._pending.pop(answer.stamp_ns, None)
            self._on_answer(answer)
