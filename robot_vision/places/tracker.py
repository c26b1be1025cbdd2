"""Where a robot is in a place map, from images and odometry, as the place and the filter node say together.

A place is recognised by the sequence of images, its keyframes are compared with the image, and the pose that
they give corrects the odometry. Without ROS, one call an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.pose_filter import LOCALISED, PoseFilter, PoseFilterSettings
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.index.index_cache import open_index
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.recognition.recogniser import Odometry, Recogniser, Recognition
from robot_vision.places.verification.verifier import (
    COMPARED,
    Verifier,
    candidates_of,
)


class PlaceTracker:
    """Tracks one robot. Not thread safe.

    Args:
        places: the map, with structure.
        pipeline: of the model that made it.
        intrinsics: of the camera.
        T_base_camera: (4, 4) the camera's optical frame on the robot.
        settings: of the filter.

    Attributes:
        filter: what odometry and verified poses say together.
    """

    def __init__(
        self,
        places: PlaceMap,
        pipeline: Pipeline,
        intrinsics: Intrinsics,
        T_base_camera: NDArray[np.float64],
        settings: PoseFilterSettings | None = None,
    ) -> None:
        self._places, self._pipeline = places, pipeline
        self._intrinsics, self._T_base_camera = intrinsics, T_base_camera
        self._recogniser = Recogniser(places, open_index(places))
        self._verifier = Verifier()
        self._T_odom_base = np.eye(4)
        self.filter = PoseFilter(settings)

    def move(self, stamp_ns: int, T_odom_base: NDArray[np.float64]) -> None:
        """Takes the odometry (4, 4) of a time.

        Raises:
            MeasurementError: see `PoseFilter.add_odometry`.
        """
        self.filter.add_odometry(stamp_ns, T_odom_base)
        self._T_odom_base = T_odom_base

    def see(self, stamp_ns: int, image: NDArray[np.uint8]) -> tuple[Recognition, CameraPose | None]:
        """Takes an image (H, W, 3), RGB uint8, of the time of the last odometry.

        Returns:
            The places that look like it, and the camera's pose in the map where geometry verifies one.
        """
        descriptor = self._pipeline(image)["place"].values
        odometry = Odometry(stamp_ns, self._T_odom_base @ self._T_base_camera)
        found = self._recogniser.observe(descriptor, stamp_ns, odometry)
        ids = [candidate.keyframe_id for candidate in found.candidates[:COMPARED]]
        said = self._verifier.verify(image, candidates_of(self._places, ids), self._intrinsics)
        if not said.accepted or said.pose is None:
            return found, None
        base = base_pose(said.pose, self._T_base_camera)
        T = pose_matrix(base.position, base.orientation_xyzw)
        self.filter.add_pose(stamp_ns, T, base.covariance)
        return found, said.pose

    @property
    def localised(self) -> bool:
        """Whether it is known where the robot is."""
        return self.filter.condition() == LOCALISED
