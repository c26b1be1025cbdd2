"""Draws a pose as two lines of text."""

from __future__ import annotations

import numpy as np

from robot_vision.geometry.camera_pose import CameraPose


def pose_lines(pose: CameraPose) -> list[str]:
    """Returns position and rotation vector about the map's axes, each with its standard deviation."""
    x, y, z = pose.position
    deviation_m = float(np.sqrt(np.trace(pose.covariance[:3, :3])))
    deviation_deg = float(np.degrees(np.sqrt(np.trace(pose.covariance[3:, 3:]))))
    # The rotation vector needs no choice of an order of axes.
    qx, qy, qz, qw = pose.orientation_xyzw
    norm = float(np.linalg.norm((qx, qy, qz)))
    angle = np.degrees(2 * np.arctan2(norm, qw)) / norm if norm > 1e-12 else 0.0
    return [
        f"x {x:+.2f}  y {y:+.2f}  z {z:+.2f} m  (sd {deviation_m:.2f} m)",
        f"rot {qx * angle:+.0f} {qy * angle:+.0f} {qz * angle:+.0f} deg  (sd {deviation_deg:.1f} deg)",
    ]
