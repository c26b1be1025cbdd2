"""Rigid transforms, rotations as quaternions (x, y, z, w), trajectories and camera intrinsics."""

from robot_vision.geometry.rigid import (
    canonical_xyzw,
    compose_with_covariance,
    inverse,
    matrix_from_rpy,
    matrix_from_xyzw,
    orthonormalised,
    pose_matrix,
    rotation_error_deg,
    skew,
    symmetrised,
    xyzw_from_matrix,
)

__all__ = [
    "canonical_xyzw",
    "compose_with_covariance",
    "inverse",
    "matrix_from_rpy",
    "matrix_from_xyzw",
    "orthonormalised",
    "pose_matrix",
    "rotation_error_deg",
    "skew",
    "symmetrised",
    "xyzw_from_matrix",
]
