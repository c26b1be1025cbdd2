"""What is published for one camera: made only where somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification

from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.ros.node.mailbox import RateLimiter
from robot_vision.ros.node.qos import profile, publisher_events
from robot_vision.ros.node.status import (
    classification_message,
    descriptor_message,
    header_message,
    image_message,
    pose_message,
    transform_message,
    uncertainty_message,
)
from robot_vision.ros.perception.parameters import PerceptionParameters

# Returns `T_base_camera` of an optical frame; None while it is not known.
Mounting = Callable[[str], "NDArray[np.float64] | None"]


@dataclass(frozen=True)
class Sent:
    """What became of a prediction.

    Attributes:
        anything: whether some message went out, or nobody waits for any.
        left_out: `no_transform` if the camera's mounting is not known and so the pose was left out,
            `no_frame_id` if its image names no frame and so the pose or the transform was, `frame_taken` if
            the transform was since another camera gives that frame, else empty.
    """

    anything: bool = True
    left_out: str = ""


class CameraOutputs:
    """The publishers of one camera.

    Args:
        node: owns them.
        camera: its name.
        spec: of the network; heads that it lacks get no topic.
        parameters: as at configure time.
        warn: logs a subscriber that cannot be served.
    """

    def __init__(
        self,
        node: LifecycleNode,
        camera: str,
        spec: NetworkSpec,
        parameters: PerceptionParameters,
        warn: Callable[[str], None],
    ) -> None:
        self.camera = camera
        self._node = node
        self._base_frame = parameters.base_frame
        self._tf_suffix = parameters.tf_suffix
        self._map_frame = parameters.map_frame or (spec.pose.map_frame if spec.pose else "map")
        self._annotated_rate = RateLimiter()
        qos = profile(parameters.publish_reliability, parameters.publish_depth)
        kinds: dict[str, Any] = {"image_annotated": Image}
        if spec.classifier:
            kinds["classification"] = Classification
        if spec.place:
            kinds["descriptor"] = Image
        if spec.pose:
            kinds["pose"] = PoseWithCovarianceStamped
        if spec.epistemic:
            kinds["uncertainty"] = DiagnosticArray
        self._publishers: dict[str, Any] = {}
        for name, kind in kinds.items():
            topic = f"~/{camera}/{name}"
            full = f"{node.get_fully_qualified_name()}/{camera}/{name}"
            self._publishers[name] = node.create_lifecycle_publisher(
                kind, topic, qos, event_callbacks=publisher_events(full, warn)
            )

    def listened(self, name: str | None = None) -> bool:
        """Says whether somebody subscribes to one output, or to any."""
        names = self._publishers if name is None else (name,)
        return any(
            self._publishers[n].get_subscription_count() > 0 for n in names if n in self._publishers
        )

    def wants_full_image(self, parameters: PerceptionParameters) -> bool:
        """Says whether the next frame shall be drawn on, and so be decoded at its full size."""
        return self.listened("image_annotated") and self._annotated_rate.allows(
            parameters.annotated_rate_hz
        )

    def publish(
        self,
        source_header: Any,
        prediction: Prediction,
        parameters: PerceptionParameters,
        threshold: float | None,
        mounting: Mounting,
        broadcast: Callable[[Any], bool] | None,
    ) -> Sent:
        """Publishes a prediction under the header of its image.

        Args:
            source_header: of the image.
            prediction: of the image.
            parameters: the current snapshot.
            threshold: below this known score the class is `unknown`.
            mounting: where the camera is on the robot.
            broadcast: takes a transform for `/tf`, and says whether it went out; None for none.

        Raises:
            ValueError: a number of the prediction is not finite; nothing was published.
        """
        bad = prediction.not_finite()
        if bad:  # what a network that overflowed says is kept from everybody, not only from those who check
            raise ValueError(bad)
        header = header_message(source_header)
        others = [name for name in self._publishers if name not in ("pose", "image_annotated")]
        others = [name for name in others if self.listened(name)]
        if prediction.classification is not None and "classification" in others:
            hypotheses = prediction.classification.top_k(parameters.top_k, threshold)
            self._send("classification", classification_message(header, hypotheses))
        if prediction.descriptor is not None and "descriptor" in others:
            self._send("descriptor", descriptor_message(header, prediction.descriptor))
        if "uncertainty" in others:
            self._send("uncertainty", uncertainty_message(header, self.camera, prediction))
        if prediction.pose is None or not (broadcast or self.listened("pose")):
            return Sent()
        pose, frame = self._located(prediction.pose, header.frame_id, mounting)
        if pose is None:
            return Sent(bool(others), "no_transform" if header.frame_id else "no_frame_id")
        message = pose_message(
            header,
            pose,
            self._map_frame,
            parameters.pose_covariance_scale,
            parameters.signed_covariance,
        )
        self._send("pose", message)
        if broadcast and not frame:
            return Sent(bool(others) or self.listened("pose"), "no_frame_id")
        if broadcast:
            child = frame.lstrip("/") + self._tf_suffix
            if not broadcast(transform_message(header, pose, self._map_frame, child)):
                return Sent(bool(others) or self.listened("pose"), "frame_taken")
        return Sent()

    def _located(
        self, pose: CameraPose, frame: str, mounting: Mounting
    ) -> tuple[CameraPose | None, str]:
        if not self._base_frame:
            return pose, frame
        T_base_camera = mounting(frame)
        return (None if T_base_camera is None else base_pose(pose, T_base_camera)), self._base_frame

    def publish_annotated(self, source_header: Any, image: NDArray[np.uint8]) -> None:
        """Publishes an RGB image (H, W, 3) that was drawn on."""
        self._send("image_annotated", image_message(header_message(source_header), image))

    def _send(self, name: str, message: Any) -> None:
        self._publishers[name].publish(message)

    def destroy(self) -> None:
        """Ends the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}
