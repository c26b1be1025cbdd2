"""Poses from scene coordinates as messages: those of the pose head, under topics of their own."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.dense_topics import NO_WINDOW
from robot_vision.contract.topics import LeftOut, Shot
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.heads.coordinates.answer import CoordinatesAnswer
from robot_vision.heads.coordinates.solving import solve
from robot_vision.heads.coordinates.spec import CoordinatesSpec
from robot_vision.heads.pose.topics import of_base

if TYPE_CHECKING:  # it needs OpenCV, which a launch file need not have
    from robot_vision.images.window import Window

REFUSED = "few inliers"
_SAME = 1e-6  # of rays: cameras that differ by less give one pose


def published_pose(
    answer: CoordinatesAnswer, shot: Shot, spec: CoordinatesSpec
) -> CoordinatesAnswer | LeftOut:
    """Returns the answer with the pose of the camera, or of `base_frame`; or why there is none.

    The answer's own pose is that of a camera like the one of the training images; for another one it is
    solved for again.
    """
    lens = shot.intrinsics()
    if isinstance(lens, LeftOut):
        return lens
    if shot.window is None:
        return NO_WINDOW
    rays = _rays(lens, shot.window, tuple(spec.size))
    if not np.allclose(rays, spec.rays(), rtol=0, atol=_SAME):
        found = solve(answer.points, answer.deviation, rays, spec)
        pose = CameraPose(found.position, found.xyzw, found.covariance)
        answer = dataclasses.replace(_with(answer, pose), inliers=found.inliers)
    if answer.is_refused:
        return LeftOut(
            REFUSED.replace(" ", "_"),
            f"{REFUSED}: {answer.inliers:.1%} of its cells agree on a pose, and {spec.least_inliers:.0%} "
            "must; the view is new, hidden, blurred or in another light: drive back to where the model was "
            "trained, or train it with images of this place",
            fault=False,
        )
    of_frame = of_base(answer, shot)
    if of_frame is answer or isinstance(of_frame, LeftOut):
        return of_frame
    return _with(answer, of_frame)


def _with(answer: CoordinatesAnswer, pose: CameraPose) -> CoordinatesAnswer:
    return dataclasses.replace(
        answer,
        position=pose.position,
        orientation_xyzw=pose.orientation_xyzw,
        covariance=pose.covariance,
    )


@functools.lru_cache(maxsize=16)
def _rays(lens: Intrinsics, window: Window, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns x / z and y / z (h, w, 2) of a map's cells, NaN where the network saw padding."""
    height, width = size
    rays = lens.rays(window.pixels((height, width)).reshape(-1, 2)).reshape(height, width, 2)
    rays[~window.covered((height, width))] = np.nan
    rays.flags.writeable = False
    return rays
