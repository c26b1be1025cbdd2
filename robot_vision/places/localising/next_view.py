"""What would a robot see after a turn, and would that make its pose sure? By the map's own keyframes.

For each hypothesis of where the camera is, the keyframe nearest to the turned camera says what it would
see. A view makes the pose sure where it can be verified (a keyframe is near and looks the same way) and
where it tells this hypothesis from the others (their keyframes look different): the posterior of the right
hypothesis after the view, by the similarities of the map's own keyframes. What no hypothesis names may be
anywhere in the map, looking anywhere; there a view shows a keyframe as often as the map's places have one
that looks so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import apart, pose_matrix, xyzw_from_matrix
from robot_vision.places.map.base import MapError, PlaceMap
from robot_vision.places.recognition.known_places import PlaceTable, turns_deg
from robot_vision.places.recognition.options import RecogniserOptions
from robot_vision.places.recognition.self_calibration import calibrate_on_map

Array = NDArray[np.float64]

TURNS = np.radians(np.arange(-180.0, 180.0, 15.0))
# Of a view's distance and turn from a keyframe's, at which verification begins to fail.
_NEAR_M, _NEAR_DEG = 0.7, 20.0
_NO_KEYFRAME = 0.02  # how well a view without a keyframe fits one that has one
_SAMPLED = 200  # keyframes that say how often a place has a view to a side
_CALIBRATED = 5000
_SHARPNESS = 15.0  # of a map that is too small to say


class MapViews:
    """The views that a map holds. Not thread safe.

    Args:
        places: the map, read once; its descriptors are read when they are needed.
        options: what one place is.

    Attributes:
        revision: of the map when it was read.
        coverage: probability that a camera at a place of the map, turned anyhow, sees a keyframe.
    """

    def __init__(self, places: PlaceMap, options: RecogniserOptions | None = None) -> None:
        self._places, self.options = places, options or RecogniserOptions()
        self.revision = places.revision
        poses, o = places.poses(), self.options
        self._table = PlaceTable(poses.ids, poses.positions, poses.quaternions_xyzw, o.radius_m)
        n = len(self._table)
        self.coverage, self._sharpness = 0.0, _SHARPNESS
        if not n:
            return
        rows = np.unique(np.linspace(0, n - 1, min(n, _CALIBRATED)).astype(np.intp))
        t = self._table
        some = PlaceTable(t.ids[rows], t.positions[rows], t.quaternions_xyzw[rows], o.radius_m)
        _, descriptors = places.descriptors(some.ids)
        learned = calibrate_on_map(some, descriptors, o.radius_m, o.heading_deg).sharpness
        self._sharpness = _SHARPNESS if learned is None else learned
        sampled = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED)).astype(np.intp))
        self.coverage = float(np.mean([self._near(self._pose(i))[0] for i in sampled]))

    def _pose(self, row: Any) -> Array:
        return pose_matrix(self._table.positions[row], self._table.quaternions_xyzw[row])

    def hypotheses(self, found: Sequence[tuple[Array, float]]) -> tuple[list[Array], Array]:
        """Returns poses (4, 4) and probabilities (n,) of the different places among those found.

        Keyframes of one place share its probability, so the first of each stands for it.
        """
        o, poses, mass = self.options, list[Array](), list[float]()
        for T, probability in found:
            gaps = [apart(T, other) for other in poses]
            if all(m > o.radius_m or deg > o.heading_deg for m, deg in gaps):
                poses.append(T)
                mass.append(probability)
        weights = np.array(mass, np.float64)
        return poses, weights / max(float(weights.sum()), 1.0)

    def chances(self, poses: Sequence[Array], mass: Array) -> Array:
        """Returns for each of `TURNS` the probability (m,) that a view after it makes the right place sure.

        Args:
            poses: hypotheses (4, 4) of the camera.
            mass: (n,) their probabilities; what is missing to 1 is anywhere in the map.

        Raises:
            MapError: the map cannot be read, or keyframes were removed since it was.
        """
        unknown = max(0.0, 1 - float(mass.sum()))
        total = np.full(len(TURNS), unknown * self.coverage)
        if not poses:
            return total
        seen = [self._near(T) for T in poses]  # each: (m,), (m,)
        shown, rows = np.stack([s for s, _ in seen]), np.stack([r for _, r in seen])  # (n, m)
        ids = np.unique(self._table.ids[rows])
        found, descriptors = self._places.descriptors(ids)
        if len(found) < len(ids):
            raise MapError(
                f"{self._places.info.uri}: keyframes were removed since its views were read"
            )
        place = {int(i): k for k, i in enumerate(found)}
        at = np.vectorize(lambda row: place[int(self._table.ids[row])])(rows)
        for turn in range(len(TURNS)):
            views = descriptors[at[:, turn]]
            alike = np.exp(self._sharpness * (views @ views.T - 1))
            alike = np.where(shown[None, :, turn] > _NO_KEYFRAME, alike, _NO_KEYFRAME)
            np.fill_diagonal(alike, 1.0)
            right = mass / np.maximum(alike @ mass + unknown * _NO_KEYFRAME, 1e-12)
            total[turn] += float(mass @ (shown[:, turn] * right))
        return total

    def _near(self, T_map_camera: Array) -> tuple[Array, NDArray[np.intp]]:
        """Returns for each of `TURNS` how surely a view can be verified (m,), and by which keyframe (m,)."""
        t = self._table
        gap = np.linalg.norm(t.positions - T_map_camera[:3, 3], axis=1)
        near = np.flatnonzero(gap <= 2 * self.options.radius_m)
        if not len(near):
            return np.zeros(len(TURNS)), np.zeros(len(TURNS), np.intp)
        turned = np.stack([xyzw_from_matrix(T_map_camera[:3, :3] @ left(a)) for a in TURNS])
        turns = turns_deg(turned, t.quaternions_xyzw[near])  # (m, k)
        fits = np.exp(-((gap[near] / _NEAR_M) ** 2 + (turns / _NEAR_DEG) ** 2) / 2)
        best = fits.argmax(axis=1)
        return fits[np.arange(len(TURNS)), best], near[best]


def left(angle: float) -> Array:
    """Returns the rotation (3, 3) of a camera that turns left about its own vertical; y is down."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
