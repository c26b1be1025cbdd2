"""From places that look alike to poses with a covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.rigid import rotation_error_deg
from robot_vision.ros.places.messages import PlaceHypothesis
from robot_vision.ros.places.parameters import PlaceParameters

if TYPE_CHECKING:
    from robot_vision.places.recognition.recogniser import Candidate


def hypotheses_of(
    candidates: Sequence[Candidate], p: PlaceParameters
) -> tuple[PlaceHypothesis, ...]:
    """Returns candidates with the covariance of a pose that is only "as near as a keyframe".

    How far the camera is from its keyframe is known from the others that look like the same place: their
    spread about it. Where there are none, all that is known is the radius and the heading of a place.
    """
    if not candidates:
        return ()
    options = p.recogniser
    radius_m, heading = options.radius_m, np.radians(options.heading_deg)
    positions = np.array([c.position for c in candidates])
    orientations = np.array([c.quaternion_xyzw for c in candidates])
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    turns = np.radians(rotation_error_deg(orientations[:, None], orientations[None]))
    same = (gaps <= radius_m) & (turns <= heading)
    np.fill_diagonal(same, False)
    least_m, least = p.keyframe_distance_m / 2, np.radians(p.keyframe_angle_deg) / 2
    result = []
    for best, near, gap, turn in zip(candidates, same, gaps, turns, strict=True):
        # Of each axis: a third of the mean square.
        alone = not near.any()
        sigma_m = radius_m / 2 if alone else np.sqrt(np.mean(gap[near] ** 2) / 3)
        sigma = heading / 2 if alone else np.sqrt(np.mean(turn[near] ** 2) / 3)
        variances = [max(sigma_m, least_m) ** 2] * 3 + [max(sigma, least) ** 2] * 3
        pose = CameraPose(best.position, best.quaternion_xyzw, np.diag(variances))
        result.append(PlaceHypothesis(best.keyframe_id, best.probability, pose))
    return tuple(result)
