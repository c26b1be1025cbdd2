"""Where is the camera? Ranked places for one image, with probabilities, from a map and its index.

    recogniser = Recogniser(places, index, RecogniserOptions(), probability)
    found = recogniser.observe(descriptor, stamp_ns, Odometry(stamp_ns, T_odom_camera))
    if found.accepted:
        found.candidates[0].position

Each image is looked up by similarity. With `sequence`, a Bayes filter (`sequence_filter`) adds what earlier
images and the motion say; without, the most similar place is the answer, with its calibrated probability.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.keyframe import check_descriptors
from robot_vision.places.recognition.known_places import PlaceTable, Rows, learned_speed
from robot_vision.places.recognition.nearness import BESIDE
from robot_vision.places.recognition.options import RecogniserOptions
from robot_vision.places.recognition.self_calibration import (
    DEFAULT,
    SelfCalibration,
    calibrate_on_map,
)
from robot_vision.places.recognition.sequence_filter import Belief, Odometry, SequenceFilter

__all__ = ["Candidate", "Odometry", "Recogniser", "RecogniserOptions", "Recognition"]

# Nearly as similar: the runner-up in another place is more than a third as probable.
_ALIAS_LOG_ODDS = float(np.log(3.0))
_CALIBRATION_KEYFRAMES = 5000
_DEEP_SEARCH = 2048  # where all matches are of one place


@dataclass(frozen=True, eq=False)
class Candidate:
    """A keyframe that the image may be near to.

    Attributes:
        keyframe_id: in the map.
        similarity: cosine similarity of the descriptors.
        probability: that its place (all keyframes within radius and heading) is right.
        position: float64 (3,), of the keyframe's camera in the map, metres.
        quaternion_xyzw: float64 (4,).
    """

    keyframe_id: int
    similarity: float
    probability: float
    position: NDArray[np.float64]
    quaternion_xyzw: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recognition:
    """What is known after an image.

    Attributes:
        stamp_ns: of the image.
        candidates: keyframes, most probable first; empty for an empty map.
        probability_in_map: that the camera is anywhere in the map.
        aliased: another place looks nearly as similar as the first candidate's; this has lowered its
            probability, but for what earlier images say of it.
        accepted: the first candidate is more probable than `accept_probability`.
    """

    stamp_ns: int
    candidates: tuple[Candidate, ...]
    probability_in_map: float
    aliased: bool
    accepted: bool

    @property
    def probability(self) -> float:
        """That the first candidate's place is right."""
        return self.candidates[0].probability if self.candidates else 0.0


class Recogniser:
    """Recognises places. Not thread safe.

    Args:
        places: the map; read at the start and by `refresh`.
        index: of its descriptors.
        options: settings.
        probability: the bundle's calibration; None fits one on the map's own keyframes.

    Attributes:
        probability: the calibration in use.
        filter: the sequence filter, with its counters; unused where `sequence` is off.
    """

    def __init__(
        self,
        places: PlaceMap,
        index: PlaceIndex,
        options: RecogniserOptions | None = None,
        probability: PlaceProbability | None = None,
    ) -> None:
        if index.dimension != places.info.dimension:
            raise ConfigError(
                f"The index is of {index.dimension} numbers and the map's descriptors are of "
                f"{places.info.dimension}: build the index from this map"
            )
        self.options = options or RecogniserOptions()
        self._places, self._index = places, index
        self._revision = places.revision
        self._given = probability
        self._load()

    def _load(self) -> None:
        poses = self._places.poses()
        self._table = PlaceTable(
            poses.ids, poses.positions, poses.quaternions_xyzw, self.options.radius_m
        )
        streams = np.array([f"{c}\0{s}" for c, s in zip(poses.cameras, poses.sources, strict=True)])
        speed = learned_speed(poses.stamps_ns, poses.positions, streams)
        self.filter = SequenceFilter(self.options, DEFAULT, speed)
        self._calibrate()

    def _calibrate(self) -> None:
        self._calibrated_for = len(self._table)
        found = self._of_map()
        self.probability = self._given or found.probability
        self.filter.probability = self.probability
        self.filter.sharpness, self.filter.fineness = found.sharpness, found.fineness
        self.filter.contrast = found.contrast
        self._nearness = found.nearness
        self._passed = self._nearness.start if self._nearness else None

    def _of_map(self) -> SelfCalibration:
        count = len(self._table)
        some = np.linspace(0, max(count - 1, 0), min(count, _CALIBRATION_KEYFRAMES)).astype(np.intp)
        some = np.unique(some)
        ids, descriptors = self._places.descriptors(self._table.ids[some])
        rows = self._table.rows_of(ids)
        rows, descriptors = rows[rows >= 0], descriptors[rows >= 0]
        table = PlaceTable(
            self._table.ids[rows],
            self._table.positions[rows],
            self._table.quaternions_xyzw[rows],
            self.options.radius_m,
        )
        o = self.options
        return calibrate_on_map(table, descriptors, o.radius_m, o.heading_deg)

    def __len__(self) -> int:
        return len(self._table)

    def refresh(self) -> None:
        """Takes over what was added to the map and removed from it, by this process or another.

        The index follows by itself (`PlaceIndex.add`, `index_cache.refresh`). What the filter knows stays.
        """
        if self._places.revision == self._revision:
            return
        changes = self._places.changes(self._revision)
        self._revision = changes.revision
        new = changes.added[self._table.rows_of(changes.added) < 0]
        later = not len(self._table) or (len(new) > 0 and new[0] > self._table.ids[-1])
        few = len(new) <= 64 and not self._table.full_tail and len(self._table) > 0
        # A map that has doubled tells more of what its places look like.
        enough = 2 * max(self._calibrated_for, 10)
        few = few and len(self._table) + len(new) < enough
        if len(changes.removed) == 0 and (len(new) == 0 or (later and few)):
            keyframes = list(self._places.keyframes(new)) if len(new) else []
            if keyframes:
                positions = np.stack([k.position for k in keyframes])
                q = np.stack([k.quaternion_xyzw for k in keyframes])
                self._table.append(new, positions, q)
            return
        poses = self._places.poses()
        self._table = PlaceTable(
            poses.ids, poses.positions, poses.quaternions_xyzw, self.options.radius_m
        )
        if len(self._table) >= enough:
            self._calibrate()

    def reset(self) -> None:
        """Forgets earlier images, as after the robot was carried."""
        self.filter.reset()
        self._passed = self._nearness.start if self._nearness else None

    def observe(
        self,
        descriptor: NDArray[Any],
        stamp_ns: int,
        odometry: Odometry | None = None,
        exclude: Collection[int] = (),
    ) -> Recognition:
        """Recognises an image.

        Args:
            descriptor: (D,), L2 norm 1.
            stamp_ns: of the image. One that goes back begins a new sequence.
            odometry: at about this stamp, or None.
            exclude: keyframes that may not be answers, such as the last ones of a drive that looks for
                loops.

        Raises:
            ConfigError: a descriptor of another length than the map's, not finite or not of unit norm.
        """
        query = check_descriptors(
            np.asarray(descriptor)[None], self._places.info.dimension, "Query"
        )[0]
        rows, similarities = self._look_up(query, exclude)
        if not len(rows):
            return Recognition(int(stamp_ns), (), 0.0, False, False)
        margin = similarities[0] - self._runner_up(query, rows, similarities, exclude)
        aliased = bool(self.sharpness > 0 and self.sharpness * margin < _ALIAS_LOG_ODDS)
        if self.options.sequence:
            belief = self.filter.observe(
                self._table, rows, similarities, int(stamp_ns), odometry, query
            )
            order, probabilities = self._rank_belief(belief, rows, similarities)
            in_map = 1 - belief.off_map
        else:
            order = np.arange(min(len(rows), self.options.top_k))
            probabilities, in_map = self._alone(rows, similarities, margin)
        candidates = tuple(
            Candidate(
                int(self._table.ids[rows[i]]),
                float(similarities[i]),
                float(p),
                self._table.positions[rows[i]].copy(),
                self._table.quaternions_xyzw[rows[i]].copy(),
            )
            for i, p in zip(order, probabilities, strict=True)
        )
        accepted = candidates[0].probability >= self.options.accept_probability
        return Recognition(int(stamp_ns), candidates, float(in_map), aliased, accepted)

    @property
    def sharpness(self) -> float:
        """How much likelier the more similar of two matches is right, in logits for 1 of similarity."""
        p, learned = self.probability, self.filter.sharpness
        return p.similarity + p.margin if learned is None else learned

    def _look_up(
        self, query: NDArray[np.float32], exclude: Collection[int], count: int = 0
    ) -> tuple[Rows, NDArray[np.float64]]:
        """Returns rows and similarities of matches, the most similar first."""
        if not len(self._index):
            return np.zeros(0, np.intp), np.zeros(0)
        k = max(count or self.options.search_k, self.options.top_k) + len(exclude)
        ids, similarities = self._index.search(query, min(k, len(self._index)))
        rows = self._table.rows_of(ids[0])
        if np.any((rows < 0) & (ids[0] >= 0)):  # the index is ahead of the table
            self.refresh()
            rows = self._table.rows_of(ids[0])
        kept = (rows >= 0) & (ids[0] >= 0)
        if len(exclude):
            kept &= ~np.isin(ids[0], np.fromiter(exclude, np.int64, len(exclude)))
        return rows[kept], similarities[0][kept].astype(np.float64)

    def _runner_up(
        self,
        query: NDArray[np.float32],
        rows: Rows,
        similarities: NDArray[np.float64],
        exclude: Collection[int],
    ) -> float:
        """Returns the similarity of the best match in another place; NaN where none is known."""
        o = self.options
        for count in (0, _DEEP_SEARCH):
            if count:  # all are of one place: those of others lie behind its many keyframes
                if len(rows) >= len(self._table):
                    break
                rows, similarities = self._look_up(query, exclude, count)
            same = self._table.same_place(rows[0], rows, 2 * o.radius_m, o.heading_deg)
            if not same.all():
                return float(similarities[~same][0])
        return float("nan")

    def _alone(
        self, rows: Rows, similarities: NDArray[np.float64], margin: float
    ) -> tuple[NDArray[np.float64], float]:
        """Returns the first candidates' probabilities, and that of being in the map, from one image."""
        o, p = self.options, self.probability
        best = float(p(similarities[0], margin))
        if np.isfinite(margin):  # two places that look alike share what there is
            best = min(best, 1 / (1 + float(np.exp(-self.sharpness * margin))))
        in_map = max(best, float(p(similarities[0])))
        first = rows[: o.top_k]
        same = self._table.same_place(rows[0], first, o.radius_m, o.heading_deg)
        behind = np.exp(self.sharpness * (similarities[: len(first)] - similarities[0]))
        others = np.minimum(best * behind, in_map - best)
        return np.where(same, best, np.maximum(others, 0.0)), in_map

    def _rank_belief(
        self, belief: Belief, rows: Rows, similarities: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Returns which matches come first, and the probability of each one's place.

        With odometry the belief knows where in a place the camera is, and says which keyframe is near.
        Without, it says about where that is, and the image which keyframe of it: belief spreads with
        motion, and knows no more of views that lie side by side. Whether the camera is within a place's
        radius of it, or outside it, only the similarity says (`nearness`).
        """
        o, table = self.options, self._table
        states = table.rows_of(belief.ids)
        if belief.tracked:
            near = belief.mass @ belief.cameras.within(table, rows, o.radius_m, o.heading_deg)
            order = np.lexsort((-similarities, -np.round(near, 2)))[: o.top_k]
            return order, np.minimum(near[order], 1.0)
        mass = dict(zip(states.tolist(), belief.mass.tolist(), strict=True))
        weights, prior = table.weights, table.prior
        density = np.array([mass.get(int(r), belief.rest * prior[r]) / weights[r] for r in rows])
        first = rows[int(np.lexsort((-similarities, -density))[0])]
        elsewhere = ~table.same_place(first, rows, o.radius_m, o.heading_deg)
        within = np.where(elsewhere, density, 0.0)
        order = np.lexsort((-similarities, -within, elsewhere))[: o.top_k]
        if self._nearness is None:
            return order, np.minimum(self._around(belief, states, rows[order], 1.0), 1.0)
        assert self._passed is not None
        shares = self._nearness.shares(similarities[order], self._passed)
        around = self._around(belief, states, rows[order], BESIDE)
        self._passed = self._passed + around[0] * shares[0]
        return order, np.minimum(self._nearness.within(shares) * around, 1.0)

    def _around(self, belief: Belief, states: Rows, rows: Rows, reach: float) -> Any:
        """Returns the probability (n,) that the camera is at keyframes within radii of rows (n,)."""
        o = self.options
        away = [self._table.away(row, states, o.radius_m, o.heading_deg) for row in rows]
        return (np.array(away) <= reach) @ belief.mass
