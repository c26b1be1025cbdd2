"""Masks as messages, and back: what Nav2's semantic segmentation layer reads.

That layer (kiwicampus/semantic_segmentation_layer) walks over `data` by row times width, so rows may not be
padded; mask, confidence and point cloud need the image's stamp; it casts `class_id` to one byte, and passes
over ids that the LabelInfo does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from robot_vision.contract.dense_topics import camera_info_topic, image_topic
from robot_vision.contract.topics import ImageReader, Latched, Look, Topic
from robot_vision.messages.making import Maker
from robot_vision.messages.types import LABEL_INFO

MASK, CONFIDENCE, CALIBRATION = (
    "segmentation",
    "segmentation/confidence",
    "segmentation/camera_info",
)
LABELS = "segmentation_label_info"


def mask_topic(name: str, column: str) -> Topic:
    """Returns the topic of class ids.

    Args:
        name: of the topic.
        column: that it is read back to.
    """
    return image_topic(
        name,
        "mono8",
        f"class of each pixel of what the network saw: ids of `~/{LABELS}`",
        lambda answer, options: answer.class_ids,
        lambda: ImageReader(column, "uint8"),
        look=Look(labels=LABELS),
    )


def confidence_topic(name: str, column: str) -> Topic:
    """Returns the topic of how sure the model is of each class id."""
    return image_topic(
        name,
        "mono8",
        "how sure the model is of each pixel of the mask: 255 times the class's probability",
        lambda answer, options: answer.confidence,
        lambda: ImageReader(column, "uint8"),
    )


def calibration_topic(name: str) -> Topic:
    """Returns the topic of the mask's calibration."""
    return camera_info_topic(
        name,
        "the camera's calibration, for the mask's pixels",
        lambda answer, options: answer.class_ids.shape,
    )


def label_topic(name: str, labels: Sequence[str]) -> Latched:
    """Returns the latched topic of the class names by their ids."""

    def writer(make: Maker) -> Callable[[Any, Any], Any]:
        new, entry = make(LABEL_INFO), make("vision_msgs/msg/VisionClass")

        def write(stamp: Any, options: Any) -> Any:
            message = new()
            message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
            message.class_map = [
                entry(class_id=i, class_name=label) for i, label in enumerate(labels)
            ]
            return message

        return write

    return Latched(name, LABEL_INFO, "the classes of the mask", writer)
