"""The frames of the accuracy of places, and what counts as right of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import Sample
from robot_vision.geometry.rigid import orthonormalised, rotation_error_deg, xyzw_from_matrix

RADIUS_M, HEADING_DEG = 0.25, 20.0  # as the bundle was trained
FRAME_NS = 33_333_333  # the Kinect's 30 frames a second
SEED = 0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Views:
    """Frames with poses."""

    samples: tuple[Sample, ...]
    stamps_ns: NDArray[np.int64]
    T_map_camera: Array

    @classmethod
    def of(cls, samples: tuple[Sample, ...]) -> Views:
        stamps = [int(s.name.split("-")[-1]) * FRAME_NS for s in samples]
        poses = []
        for s in samples:
            assert s.T_map_camera is not None
            T = np.array(s.T_map_camera)
            T[:3, :3] = orthonormalised(T[:3, :3])
            poses.append(T)
        return cls(samples, np.array(stamps, np.int64), np.stack(poses))

    @property
    def xyzw(self) -> Array:
        return np.stack([xyzw_from_matrix(T[:3, :3]) for T in self.T_map_camera])


def right_matches(queries: Views, stored: Views) -> NDArray[np.bool_]:
    """Returns (Q, M): which stored frames show a query's place."""
    gap = queries.T_map_camera[:, None, :3, 3] - stored.T_map_camera[None, :, :3, 3]
    near = np.linalg.norm(gap, axis=-1) <= RADIUS_M
    turn = rotation_error_deg(queries.xyzw[:, None], stored.xyzw[None])
    return np.asarray(near & (turn <= HEADING_DEG))
