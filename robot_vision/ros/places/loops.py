"""Loop closures of the running session, from views to messages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.places.map.keyframe_policy import KeyframeSelector
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.keyframes import KeyframeView
from robot_vision.ros.places.messages import LoopEnd
from robot_vision.ros.places.outputs import PlaceOutputs
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.places.session import LoopRule, Session

Array = NDArray[np.float64]


class Loops:
    """Keeps the session's keyframes and publishes when a view comes back to one.

    Args:
        outputs: publishers.
        statistics: counts them.
    """

    def __init__(self, outputs: PlaceOutputs, statistics: Statistics) -> None:
        self.frame = ""
        self.closed: list[tuple[Array, Array]] = []
        self._outputs = outputs
        self._statistics = statistics
        self._session: Session | None = None
        self._selector: KeyframeSelector | None = None

    def __len__(self) -> int:
        return 0 if self._session is None else len(self._session)

    @property
    def positions(self) -> Array:
        """Of the session's keyframes (N, 3), in `frame`."""
        return np.zeros((0, 3)) if self._session is None else self._session.positions

    def forget(self) -> None:
        """Starts again: poses of before have nothing to do with those that come."""
        self._session = self._selector = None
        self.closed = []

    def look(self, view: KeyframeView, p: PlaceParameters) -> None:
        """Compares a view with the session, and adds it where it is worth a keyframe."""
        T = view.located.T_fixed_camera
        if self._session is None or self._session.dimension != len(view.descriptor):
            self.forget()
        if self._session is None:
            self._session = Session(len(view.descriptor))
        if self._selector is None or self._selector.policy != p.keyframes:
            self._selector = KeyframeSelector(p.keyframes)
        self.frame = view.located.frame
        self._session.move(T)
        options = p.recogniser
        rule = LoopRule(
            p.loop_exclude_s,
            p.loop_exclude_m,
            p.loop_min_probability,
            options.radius_m,
            options.heading_deg,
        )
        loop = self._session.find(view.stamp_ns, view.descriptor, rule)
        if self._selector.wants(T, view.descriptor):
            self._selector.added(T, view.descriptor)
            self._session.add(view.stamp_ns, T, view.descriptor)
        if loop is None:
            return
        self._statistics.count("loop_closures")
        self.closed.append((loop.T_fixed_camera[:3, 3].copy(), T[:3, 3].copy()))
        # Without more than descriptors the views are the same, give or take what lies between keyframes.
        sigma = np.repeat([p.keyframe_distance_m, np.radians(p.keyframe_angle_deg)], 3)
        covariance = np.diag(sigma**2)
        self._outputs.loop_closure(
            self.frame,
            LoopEnd(loop.stamp_ns, str(loop.number), _pose(loop.T_fixed_camera, np.zeros((6, 6)))),
            LoopEnd(view.stamp_ns, "now", _pose(loop.T_fixed_camera, covariance)),
            loop.probability,
            p,
        )


def _pose(T: Array, covariance: Array) -> CameraPose:
    return CameraPose(T[:3, 3].copy(), xyzw_from_matrix(T[:3, :3]), covariance)
