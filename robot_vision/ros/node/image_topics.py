"""Subscriptions to a camera's images, raw or compressed, under their driver's name; and its calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics, camera_of
from robot_vision.ros.node.qos import subscription_events
from robot_vision.text.counts import counted

KINDS: dict[str, Any] = {"raw": Image, "compressed": CompressedImage}  # by transport
TYPES = {transport: f"sensor_msgs/msg/{kind.__name__}" for transport, kind in KINDS.items()}
SUFFIX = "/compressed"  # that image_transport adds


class ImageTopic:
    """The images of a camera.

    image_transport publishes compressed images of TOPIC on TOPIC/compressed, which is subscribed for the
    transport `compressed`. Some drivers publish them on TOPIC itself: that is subscribed as soon as it is
    seen, while nobody publishes the other.

    Args:
        node: owns the subscription.
        topic: with or without `/compressed`.
        transport: `raw` or `compressed`.

    Attributes:
        name: that is subscribed, in full.
    """

    def __init__(self, node: Any, topic: str, transport: str) -> None:
        self._node = node
        self._transport = transport
        self._plain = node.resolve_topic_name(topic)
        self._usual = self._plain
        if transport == "compressed" and not topic.endswith(SUFFIX):
            self._usual = node.resolve_topic_name(topic + SUFFIX)
        self.name = self._usual
        self._subscription: Any = None
        self._again: Callable[[], Any] | None = None

    def subscribe(
        self,
        callback: Callable[[bytes], None],
        qos: Any,
        on_incompatible_qos: Callable[[str], None],
        **options: Any,
    ) -> None:
        """Gives each image to the callback as it came, serialised; options are those of the node's method."""

        def subscribe() -> Any:
            return self._node.create_subscription(
                KINDS[self._transport],
                self.name,
                callback,
                qos,
                event_callbacks=subscription_events(self.name, on_incompatible_qos),
                raw=True,
                **options,
            )

        self._again = subscribe
        self.name = self._found()
        self._subscription = subscribe()

    def unsubscribe(self) -> None:
        """Ends the subscription; calling it again does nothing."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._again = None

    def follow(self) -> bool:
        """Subscribes the other name if the images are published there; returns whether it is so."""
        name = self._found()
        if self._again is None or name == self.name:
            return False
        self._node.destroy_subscription(self._subscription)
        self.name = name
        self._subscription = self._again()
        return True

    def _types(self, topic: str) -> set[str]:
        return {i.topic_type for i in self._node.get_publishers_info_by_topic(topic)}

    def _found(self) -> str:
        wanted = TYPES[self._transport]
        if self._plain == self._usual or wanted in self._types(self._usual):
            return self._usual
        if wanted in self._types(self._plain):
            return self._plain
        return self.name

    def advice(self) -> str:
        """Returns what is wrong with the publishers' type, which DDS does not tell a subscriber."""
        found = {name: self._types(name) for name in (self._usual, self._plain)}
        if any(TYPES[self._transport] in types for types in found.values()):
            return ""
        for name, types in found.items():
            fitting = [t for t, kind in TYPES.items() if kind in types]
            remedy = f"set transport to {fitting[0]}" if fitting else "set image_topics"
            if types:
                where = "there" if name == self.name else f"on {name}"
                return f"; {', '.join(sorted(types))} is published {where}: {remedy}"
        # image_transport's raw topic is silent while only its compressed one is published.
        packed = f"{self._plain}{SUFFIX}"
        if self._transport == "raw" and TYPES["compressed"] in self._types(packed):
            return f"; {TYPES['compressed']} is published on {packed}: set transport to compressed"
        return ""


class InfoTopic:
    """The calibration that comes along with a camera's images.

    Args:
        node: owns the subscription.
        topic: of its sensor_msgs/CameraInfo.
        kind: of the images, see `intrinsics.KINDS`.

    Attributes:
        name: of the topic, in full.
    """

    def __init__(self, node: Any, topic: str, kind: str) -> None:
        self._node = node
        self.name = node.resolve_topic_name(topic)
        self._kind = kind
        self._subscription: Any = None
        self._info: CameraInfo | None = None
        self._said: tuple[Any, ...] = ()
        self._found: Intrinsics | ConfigError | None = None

    def subscribe(self, qos: Any) -> None:
        """Starts to listen."""
        self._subscription = self._node.create_subscription(
            CameraInfo, self.name, self._on_info, qos
        )

    def unsubscribe(self) -> None:
        """Stops listening and forgets what came; calling it again does nothing."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._info = None

    @property
    def missing(self) -> str:
        """Says that nothing has come yet, and how many publish; empty where something came."""
        if self._info is not None:
            return ""
        publishers = counted(self._node.count_publishers(self.name), "publisher")
        return f"no camera_info on {self.name} ({publishers})"

    def intrinsics(self, images: str, size: tuple[int, int]) -> Intrinsics | None:
        """Returns those of images of a size (height, width); the same object while nothing changes.

        Args:
            images: the topic of the images.
            size: of the image.

        Returns:
            None where no CameraInfo came.

        Raises:
            ConfigError: it is not of such images, or no camera has such numbers.
        """
        info = self._info
        if info is None:
            return None
        r = info.roi
        said = (
            *(images, size, info.width, info.height, info.binning_x, info.binning_y),
            *(r.x_offset, r.y_offset, r.width, r.height),
            *(*info.k, *info.p, *info.d, info.distortion_model),
        )
        if said != self._said:
            try:
                self._found = camera_of(info, images, self._kind, (size[1], size[0]))
            except ConfigError as error:
                self._found = error
            self._said = said
        if isinstance(self._found, ConfigError):
            raise self._found
        return self._found

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
