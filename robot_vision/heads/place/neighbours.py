"""Which training images show the same place, and which certainly do not: from their poses alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import canonical_xyzw

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
CHUNK = 4096


@dataclass(frozen=True)
class PlaceRelation:
    """When two images count as the same place, and when as different ones.

    Between the two lie pairs of which nothing is said: near, yet perhaps seeing other things. NetVLAD
    trains with 10 m and 25 m outdoors; a kitchen may want 0.25 m and 20 degrees.

    Attributes:
        positive_m: positives are at most so far apart,
        positive_deg: and turned by at most so much. None: whatever the heading (then it is not used,
            as for places that are known by UTM coordinates only).
        negative_m: definite negatives are farther apart than this,
        negative_deg: or turned by more than this. None: being turned makes no negative.
    """

    positive_m: float = 10.0
    positive_deg: float | None = None
    negative_m: float = 25.0
    negative_deg: float | None = None

    def __post_init__(self) -> None:
        ok = 0 < self.positive_m <= self.negative_m < math.inf
        if not ok:
            raise ConfigError(
                f"positive_m is {self.positive_m} and negative_m {self.negative_m}: they must be "
                "positive, and negative_m at least positive_m"
            )
        for name in ("positive_deg", "negative_deg"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 180:
                raise ConfigError(f"{name} is {value}: it must be in (0, 180], or null")
        if self.negative_deg is not None and not (self.positive_deg or 180) <= self.negative_deg:
            raise ConfigError(
                f"negative_deg is {self.negative_deg} and positive_deg {self.positive_deg}: an image "
                "cannot be both positive and negative; negative_deg must be at least positive_deg"
            )

    @property
    def uses_heading(self) -> bool:
        """Whether orientations matter at all."""
        return self.positive_deg is not None or self.negative_deg is not None


class PoseNeighbours:
    """Answers who is near whom among the training images, by a KD-tree.

    The angle between two images is that of the rotation between them, which for a robot on a floor is
    the difference of headings.

    Args:
        positions: (N, 2) or (N, 3), metres; NaN for images without one, which are nobody's neighbour.
        relation: what is near and what far.
        xyzw: (N, 4) orientations; needed if the relation has angles.

    Raises:
        ConfigError: the relation has angles and no orientations are given, or shapes disagree.
    """

    def __init__(
        self,
        positions: NDArray[Any],
        relation: PlaceRelation,
        xyzw: NDArray[Any] | None = None,
    ) -> None:
        self.relation = relation
        self.positions = np.asarray(positions, np.float64)
        if self.positions.ndim != 2 or self.positions.shape[1] not in (2, 3):
            raise ConfigError(
                f"positions have shape {self.positions.shape}: it must be (N, 2 or 3)"
            )
        self.known: NDArray[np.bool_] = np.asarray(np.isfinite(self.positions).all(axis=1))
        self.xyzw: Array | None = None
        if relation.uses_heading:
            if xyzw is None or np.shape(xyzw) != (len(self.positions), 4):
                raise ConfigError(
                    "positive_deg and negative_deg need an orientation for each image: set them to "
                    "null for places that are known by position only"
                )
            self.known = np.asarray(self.known & np.isfinite(xyzw).all(axis=1))
            self.xyzw = np.tile([0.0, 0.0, 0.0, 1.0], (len(self.positions), 1))
            self.xyzw[self.known] = canonical_xyzw(np.asarray(xyzw)[self.known])
        self._ids = np.flatnonzero(self.known)
        if not len(self._ids):
            raise ConfigError("no training image has a position: places cannot be distinguished")
        self._tree = cKDTree(self._coordinates(self._ids))

    def __len__(self) -> int:
        return len(self.positions)

    def positives(self, index: int, most: int | None = None) -> Indices:
        """Returns the images of the same place as image `index`, without itself, nearest first.

        Args:
            index: of the image.
            most: how many at most; a robot that stands still has thousands.
        """
        if not self.known[index]:
            return np.empty(0, np.int64)
        # Within both limits means within sqrt(2) in their common units; rounding is left a little.
        radius = 1.0001 if self.relation.positive_deg is None else 1.4143
        near: list[Any] = []
        for point in self._both_signs(index):  # q and -q: one rotation, two points of the tree
            if most is None:
                near.append(np.array(self._tree.query_ball_point(point, radius), np.int64))
                continue
            k = min(len(self._ids), 2 * most + 1)  # some of them are filtered out again
            distance, found = self._tree.query(point, k=k, distance_upper_bound=radius)
            near.append(np.atleast_1d(found)[np.isfinite(np.atleast_1d(distance))])
        candidates = self._ids[np.unique(np.concatenate(near))]
        candidates = candidates[candidates != index]
        distance, angle = self.differences(index, candidates)
        keep = self._is_positive(distance, angle)
        limit = self.relation.positive_deg
        order = np.hypot(distance / self.relation.positive_m, 0 if limit is None else angle / limit)
        ranked = candidates[keep][np.argsort(order[keep], kind="stable")]
        return ranked if most is None else ranked[:most]

    def is_negative(self, queries: NDArray[Any], candidates: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns bool (Q, C): which candidates are definite negatives of which queries."""
        queries = np.asarray(queries, np.int64)[:, None]
        distance, angle = self.differences(queries, np.asarray(candidates, np.int64)[None])
        far = distance > self.relation.negative_m
        if self.relation.negative_deg is not None:
            far = far | (angle > self.relation.negative_deg)
        known = self.known[queries] & self.known[np.asarray(candidates)][None]
        return np.asarray(far & known)

    def is_positive(self, queries: NDArray[Any], candidates: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns bool (Q, C): which candidates show the same place (an image is its own positive)."""
        queries = np.asarray(queries, np.int64)[:, None]
        distance, angle = self.differences(queries, np.asarray(candidates, np.int64)[None])
        return self._is_positive(distance, angle)

    def differences(self, a: Any, b: Any) -> tuple[Array, Array]:
        """Returns distances in metres and angles in degrees between images, which broadcast."""
        distance = np.linalg.norm(self.positions[a] - self.positions[b], axis=-1)
        if self.xyzw is None:
            return distance, np.zeros_like(distance)
        p, q = self.xyzw[a], self.xyzw[b]
        near = np.minimum(np.linalg.norm(p - q, axis=-1), np.linalg.norm(p + q, axis=-1))
        return distance, np.degrees(4 * np.arcsin(np.clip(near / 2, 0.0, 1.0)))

    def with_positives(self) -> Indices:
        """Returns the images that have at least one positive, ascending: the possible queries."""
        found = np.zeros(len(self), bool)
        for start in range(0, len(self._ids), CHUNK):
            ids = self._ids[start : start + CHUNK]
            # A few nearest decide for nearly every image; the rest are asked one by one.
            k = min(len(self._ids), 9)
            _, nearest = self._tree.query(self._coordinates(ids), k=k)
            candidates = self._ids[nearest.reshape(len(ids), k)]
            distance, angle = self.differences(ids[:, None], candidates)
            hit = self._is_positive(distance, angle) & (candidates != ids[:, None])
            found[ids] = hit.any(axis=1)
            for i in ids[~hit.any(axis=1)]:
                found[i] = len(self.positives(int(i))) > 0
        return np.flatnonzero(found)

    def _is_positive(self, distance: Array, angle: Array) -> NDArray[np.bool_]:
        near = distance <= self.relation.positive_m
        if self.relation.positive_deg is not None:
            near = near & (angle <= self.relation.positive_deg)
        return np.asarray(near)

    def _coordinates(self, ids: Indices) -> Array:
        """Positions and quaternions in units of their limits, in which both limits are 1."""
        position = self.positions[ids] / self.relation.positive_m
        if self.relation.positive_deg is None:
            return position
        assert self.xyzw is not None
        chord = 2 * math.sin(math.radians(self.relation.positive_deg) / 4)
        return np.concatenate([position, self.xyzw[ids] / chord], axis=1)

    def _both_signs(self, index: int) -> list[Array]:
        point = self._coordinates(np.array([index]))[0]
        if self.relation.positive_deg is None:
            return [point]
        size = self.positions.shape[1]
        return [point, np.concatenate([point[:size], -point[size:]])]


def cover(neighbours: PoseNeighbours, seed: int = 0, reach: float = 0.5) -> Indices:
    """Groups images into places by greedy cover.

    In a seeded order each image that has no place yet becomes the centre of one, and takes along all
    of its free positives within `reach` times the limits. With a half, any two images of a place are
    positives of each other; with 1, each is one of the centre's.

    Returns:
        int64 (N,): the place of each image, -1 for those without a pose.
    """
    angle = neighbours.relation.positive_deg
    relation = PlaceRelation(
        positive_m=neighbours.relation.positive_m * reach,
        positive_deg=None if angle is None else angle * reach,
        negative_m=neighbours.relation.negative_m,
    )
    tight = PoseNeighbours(neighbours.positions, relation, neighbours.xyzw)
    place = np.full(len(neighbours), -1, np.int64)
    count = 0
    for index in np.random.default_rng(seed).permutation(np.flatnonzero(neighbours.known)):
        if place[index] >= 0:
            continue
        members = tight.positives(int(index))
        place[members[place[members] < 0]] = count
        place[index] = count
        count += 1
    return place
