"""What is published for one camera: made only where somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.topics import UNCERTAINTY, LeftOut, Shot, Topic
from robot_vision.messages.making import rclpy_maker, set_header, set_pixels
from robot_vision.messages.types import IMAGE
from robot_vision.ros.node.mailbox import RateLimiter
from robot_vision.ros.node.qos import Seldom, profile, publisher_events
from robot_vision.ros.perception.parameters import NodeSettings

ANNOTATED = "image_annotated"


class _Output:
    """A topic, what writes its messages, and its publisher; None for `/tf`, which all cameras share."""

    def __init__(self, topic: Topic, publisher: Any) -> None:
        self.topic, self.publisher = topic, publisher
        self.write = topic.writer(rclpy_maker)


class CameraOutputs:
    """The publishers of one camera.

    Args:
        node: owns them; `/tf` goes through its `tf`.
        camera: its name.
        spec: of the network.
        parameters: as at configure time.
        warn: logs a subscriber that cannot be served.
    """

    def __init__(
        self,
        node: LifecycleNode,
        camera: str,
        spec: NetworkSpec,
        parameters: NodeSettings,
        warn: Callable[[str], None],
    ) -> None:
        self.camera = camera
        self._node: Any = node
        self._spec = spec
        self._annotated_rate = RateLimiter()
        self._publishers: dict[str, Any] = {}
        qos = profile(parameters.publish_reliability, parameters.publish_depth)
        seldom = Seldom()

        def publisher(name: str, kind: str) -> Any:
            full = f"{node.get_fully_qualified_name()}/{camera}/{name}"
            self._publishers[name] = node.create_lifecycle_publisher(
                rclpy_maker(kind),
                f"~/{camera}/{name}",
                qos,
                callback_group=seldom,
                event_callbacks=publisher_events(full, warn),
            )
            return self._publishers[name]

        self._new_image = rclpy_maker(IMAGE)
        publisher(ANNOTATED, IMAGE)
        self._heads = [
            (
                head,
                settings,
                [
                    _Output(t, None if t.name.startswith("/") else publisher(t.name, t.kind))
                    for t in head.topics(settings)
                ],
            )
            for head, settings in spec.bound
        ]
        self._uncertainty = None
        if spec.epistemic:
            name, kind = UNCERTAINTY.name, UNCERTAINTY.kind
            self._uncertainty = _Output(UNCERTAINTY, publisher(name, kind))

    def listened(self, options: Mapping[str, Any]) -> bool:
        """Says whether somebody waits for any output; `options` are the heads' in force."""
        return any(p.get_subscription_count() > 0 for p in self._publishers.values()) or any(
            self._due(output, options[head.name])
            for head, _, outputs in self._heads
            for output in outputs
            if output.publisher is None
        )

    def wants_full_image(self, rate_hz: float) -> bool:
        """Says whether the next frame is to be drawn on, and so decoded at its full size."""
        listened = self._publishers[ANNOTATED].get_subscription_count() > 0
        return listened and self._annotated_rate.allows(rate_hz)

    def publish(
        self, shot: Shot, prediction: Prediction, options: Mapping[str, Any]
    ) -> tuple[bool, Sequence[LeftOut]]:
        """Publishes a prediction under the header of its image.

        Args:
            shot: the image.
            prediction: of the image.
            options: heads' names to their options in force.

        Returns:
            Whether a message went out or nobody waits for any, and what was left out.

        Raises:
            ValueError: a number of the prediction is not finite; nothing was published.
        """
        bad = prediction.not_finite()
        if bad:  # what a network that overflowed says is kept from everybody, not only from those who check
            raise ValueError(bad)
        done: list[bool] = []
        left: dict[str, LeftOut] = {}
        for head, settings, outputs in self._heads:
            answer, chosen = prediction.get(head.name), options[head.name]
            due = [output for output in outputs if self._due(output, chosen)]
            if answer is None or not due:
                continue
            shown = head.published(answer, shot, settings, chosen)
            for output in due:
                message = shown
                if not isinstance(shown, LeftOut):
                    message = output.write(shot, shown, chosen)
                if not isinstance(message, LeftOut):
                    message = self._send(output, message)
                if message is not None:
                    left[message.reason] = message
                done.append(message is None)
        if self._uncertainty and self._due(self._uncertainty, None):
            numbers = self._spec.doubts(prediction.answers)
            self._send(self._uncertainty, self._uncertainty.write(shot, numbers, None))
            done.append(True)
        return not done or any(done), list(left.values())

    def _due(self, output: _Output, options: Any) -> bool:
        if not output.topic.wanted(options):
            return False
        if output.publisher is None:
            return self._node.tf is not None and bool(self._node.tf.listened)
        return bool(output.publisher.get_subscription_count() > 0)

    def _send(self, output: _Output, message: Any) -> LeftOut | None:
        if output.publisher is not None:
            output.publisher.publish(message)
            return None
        other = self._node.tf.send(message, self.camera)
        if not other:
            return None
        return LeftOut(
            "frame_taken",
            f"its transform is left out, since camera {other} gives the frame {message.child_frame_id!r} "
            "already: give their drivers frame_ids that differ, or leave base_frame empty",
        )

    def publish_annotated(self, source_header: Any, image: NDArray[np.uint8]) -> None:
        """Publishes an RGB image (H, W, 3) that was drawn on."""
        message = self._new_image()
        set_header(message.header, source_header)
        set_pixels(message, image, "rgb8")
        self._publishers[ANNOTATED].publish(message)

    def destroy(self) -> None:
        """Ends the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
