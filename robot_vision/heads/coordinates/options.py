"""What can be set of how poses from scene coordinates are published: as those of the pose head."""

from __future__ import annotations

from robot_vision.heads.pose.options import PosePublishing

CoordinatesOptions = PosePublishing
OPTIONS = CoordinatesOptions
