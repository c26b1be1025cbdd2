"""The last images of the camera, kept as they came until a descriptor asks for the one that it is of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, ImageError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.decode import to_rgb
from robot_vision.messages.serialized import read_compressed_image, read_image
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.ros.node.image_topics import ImageTopic, InfoTopic
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.text.counts import counted

KEPT = 16  # images: the network answers within a few frames, or drops the image
THUMBNAIL = 160  # pixels of the longer side


class Images:
    """Subscribes to images and camera info.

    Args:
        node: owns the subscriptions.
        parameters: as at configure time.
        statistics: counts what was refused.
        warn: throttled log: a key and a line.
    """

    def __init__(
        self,
        node: Any,
        parameters: PlaceParameters,
        statistics: Statistics,
        warn: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._statistics = statistics
        self._warn = warn
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._why = ""  # the last image or camera info was of no use
        self._refused = ""  # the camera info, and why
        compressed = parameters.transport == "compressed"
        self._read = read_compressed_image if compressed else read_image
        self._topic = ImageTopic(node, parameters.images, parameters.transport)
        self._info = InfoTopic(node, parameters.camera_info, parameters.image_kind)

    @property
    def missing(self) -> str:
        """Which topic has sent nothing yet, and what may be wrong; empty where all came."""
        p, node = self._parameters, self._node
        if not self._kept:
            name = self._topic.name
            return (
                f"no image on {name} "
                f"({counted(node.count_publishers(name), 'publisher')}){self._topic.advice()}"
            )
        return self._info.missing if p.verify else ""

    @property
    def why(self) -> str:
        """Why the last image that was asked for, or its intrinsics, are not there."""
        return self.missing or self._why

    def intrinsics(self, image: NDArray[np.uint8]) -> Intrinsics | None:
        """Returns those of an image (H, W, 3); None where no CameraInfo of such images came."""
        height, width = image.shape[:2]
        try:
            return self._info.intrinsics(self._topic.name, (height, width))
        except ConfigError as error:
            self._why = str(error)
            if self._why != self._refused:
                self._refused = self._why
                total = self._statistics.count("camera_info_refused")
                self._warn("camera info", f"Camera info refused ({total} so far): {error}")
        return None

    def subscribe(self, on_incompatible_qos: Callable[[str], None]) -> None:
        """Starts to listen."""
        p = self._parameters
        self._topic.subscribe(
            self._on_image, profile(p.subscribe_reliability, 1), on_incompatible_qos
        )
        if p.verify:
            self._info.subscribe(profile(p.subscribe_reliability, 1))

    def follow(self) -> None:
        """Listens where the images are published; see `ImageTopic`."""
        if self._topic.follow():
            self._node.get_logger().info(f"Images: {self._topic.name}")

    def unsubscribe(self) -> None:
        """Stops listening and forgets the images; calling it again does nothing."""
        self._topic.unsubscribe()
        self._info.unsubscribe()
        with self._lock:
            self._kept.clear()

    def of(self, stamp_ns: int) -> NDArray[np.uint8] | None:
        """Returns the RGB image (H, W, 3) with exactly this stamp; None if there is none or it is corrupt."""
        with self._lock:
            data = self._kept.get(stamp_ns)
        if data is None:
            self._statistics.count("no_image")
            self._why = (
                "no image with the stamp of the descriptor: it was lost, or is another camera's"
            )
            return None
        try:
            return to_rgb(self._read(data))
        except ImageError as error:
            reason, text = error.reason, str(error)
        except Exception as error:  # a decoder failed in a way that nobody foresaw
            reason, text = "corrupt", f"{type(error).__name__}: {error}"
        total = self._statistics.count("images_refused")
        self._why = f"the image was refused ({reason}): {text}"
        self._warn("image", f"Image refused ({reason}, {total} so far): {text}")
        return None

    def _on_image(self, data: bytes) -> None:
        try:
            stamp_ns = stamp_to_ns(self._read(data).header.stamp)
        except Exception as error:
            total = self._statistics.count("images_refused")
            self._warn("image", f"Image refused ({total} so far): {type(error).__name__}: {error}")
            return
        with self._lock:
            self._kept[stamp_ns] = data
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def thumbnail(image: NDArray[np.uint8]) -> bytes | None:
    """Returns a small JPEG of an RGB image (H, W, 3)."""
    scale = THUMBNAIL / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes() if done else None
