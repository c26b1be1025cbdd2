"""Poses as messages and transforms, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from robot_vision.contract.topics import LeftOut, Row, Shot, Topic, stack
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.heads.pose.options import PoseOptions, PosePublishing
from robot_vision.messages.making import Maker, pose_writer, transform_writer
from robot_vision.messages.types import POSE_WITH_COVARIANCE_STAMPED, TRANSFORM_STAMPED

UNKNOWN_VIEW = "unknown view"
P = TypeVar("P", bound=CameraPose)


def pose_topics(name: str, key: Callable[[str], str]) -> tuple[Topic, Topic]:
    """Returns the topics of poses.

    Args:
        name: of the one below a camera's.
        key: of the columns that it is read back to.
    """
    text = "pose of the camera (or of `base_frame`) in the map, never with a zero covariance"
    return (
        Topic(
            name, POSE_WITH_COVARIANCE_STAMPED, text, _pose, lambda: _Reader(key), of_camera=False
        ),
        Topic(
            "/tf",
            TRANSFORM_STAMPED,
            "with `publish_tf`: the pose as a transform from the map to the frame with `tf_suffix`",
            _transform,
            wanted=lambda options: options.publish_tf,
        ),
    )


def of_base(pose: P, shot: Shot) -> P | CameraPose | LeftOut:
    """Returns the pose of `base_frame` where that is wanted, else the camera's own as it is."""
    if not shot.base_frame:
        return pose
    T_base_camera = shot.mounting(shot.frame_id)
    return _no_mounting(shot) if T_base_camera is None else base_pose(pose, T_base_camera)


def _no_mounting(shot: Shot) -> LeftOut:
    """Says that there is no pose of the robot, since it is not known where the camera is on it."""
    if shot.frame_id:
        return LeftOut(
            "no_transform",
            f"no fixed transform from {shot.base_frame!r} to {shot.frame_id!r} on /tf_static, so no pose: "
            "publish it, or set camera_to_base",
        )
    return LeftOut(
        "no_frame_id",
        f"its images name no frame, so where it is on {shot.base_frame!r} is not known and there is no "
        "pose: set the driver's frame_id, or camera_to_base",
    )


def unknown_view(answer: PoseAnswer, options: PoseOptions) -> LeftOut:
    """Says that a pose is withheld, since the image shows what was not trained on."""
    return LeftOut(
        UNKNOWN_VIEW.replace(" ", "_"),
        f"unknown view: its known-view score {answer.known_view:.3g} is below "
        f"{options.unknown_view_threshold:.3g}, so its pose is withheld; drive back to where the model was "
        "trained, train it with images of this place, or set unknown_view_threshold to 0 for poses with "
        "a wide covariance",
        fault=False,
    )


def _pose(make: Maker) -> Callable[[Shot, CameraPose, PosePublishing], Any]:
    write = pose_writer(make)
    return lambda shot, answer, options: write(
        shot, answer, options.map_frame, options.pose_covariance_scale, options.signed_covariance
    )


def _transform(make: Maker) -> Callable[[Shot, CameraPose, PosePublishing], Any]:
    write = transform_writer(make)

    def transform(shot: Shot, answer: CameraPose, options: PosePublishing) -> Any:
        frame = shot.base_frame or shot.frame_id
        if not frame:
            return LeftOut(
                "no_frame_id",
                "its images name no frame, so nothing goes to /tf: set the driver's frame_id",
            )
        return write(shot, answer, options.map_frame, frame.lstrip("/") + options.tf_suffix)

    return transform


class _Reader:
    def __init__(self, key: Callable[[str], str]) -> None:
        self._key = key
        self._rows: dict[Row, Any] = {}

    def add(self, row: Row, message: Any) -> None:
        p, q = message.pose.pose.position, message.pose.pose.orientation
        covariance = np.asarray(message.pose.covariance, np.float64).reshape(6, 6)
        self._rows[row] = ([p.x, p.y, p.z], [q.x, q.y, q.z, q.w], covariance)

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        names = ("position", "orientation_xyzw", "covariance") if self._rows else ()
        return {
            self._key(name): stack({row: values[i] for row, values in self._rows.items()}, rows)
            for i, name in enumerate(names)
        }
