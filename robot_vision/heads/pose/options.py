"""What can be set of how poses are published."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.settings.parameters import LIVE, parameter

# The option `map_frame` of all heads that have one.
MAP_FRAME = ("", "Frame of the poses; empty takes the one in the model.")


@dataclass(frozen=True)
class PosePublishing:
    """Settings of the perception node for heads of poses; each field's text is its documentation."""

    map_frame: str = parameter(*MAP_FRAME)
    pose_covariance_scale: float = parameter(
        1.0, "Factor applied to the network's pose covariance.", low=1e-6, high=1e6, change=LIVE
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances unchanged. Nav2's AMCL refuses a pose that has one; by "
        "default they are raised to zero and the variances are increased to match.",
        change=LIVE,
    )
    publish_tf: bool = parameter(
        False,
        "Also broadcast each pose on /tf, with tf_suffix added to the frame's name. If several "
        "cameras give the pose of the same frame, as all do with base_frame, the first one is "
        "broadcast while it delivers.",
        change=LIVE,
    )
    tf_suffix: str = parameter(
        "_estimated",
        "Suffix of the child frame's name on /tf, where a frame can have only one parent. Set it to"
        " empty if nothing else gives the frame a parent.",
    )


@dataclass(frozen=True)
class PoseOptions(PosePublishing):
    """Settings of the perception node for the pose head."""

    unknown_view_threshold: float = parameter(
        -1.0,
        "Poses of images whose known-view score, from 0 to 1, is below this are withheld and "
        "counted as unknown_view. -1 takes the model's own threshold; 0 withholds none: their "
        "covariance grows with the distance from what was trained on.",
        low=-1.0,
        high=1.0,
        change=LIVE,
    )


OPTIONS = PoseOptions
