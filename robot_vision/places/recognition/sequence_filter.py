"""A Bayes filter over places: what earlier images and the motion since say of where the camera is.

A hidden Markov model whose states are the map's keyframes and "not in the map". A prediction moves the
belief by odometry, or spreads it as far as the camera can have moved; an image then multiplies it by its
likelihood (the forward algorithm; Cummins and Newman 2008 recognise places so).

*Likelihood*, relative to "not in the map": the image's matches are either about its place or (`miss`) not,

    L_j = (1 - miss) * ratio(s_1) * exp(slope * s_j) / sum_c prior_c exp(slope * s_c) + miss,

with `ratio` the calibrated likelihood ratio of the best match's similarity and `slope` how sharply
similarity tells right from wrong among one image's matches: for a first image, this gives the calibrated
probability again. *Transition*: a keyframe is reached in proportion to its weight times a kernel of how far
it is from where the motion leads; where there is no keyframe the camera has left the map.

Images that follow too soon show the same and would be counted twice, so a belief is kept only from images
with news; each image is judged by the belief that was kept last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import inverse, matrix_from_xyzw, xyzw_from_matrix
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.places.recognition.known_places import PlaceTable, Rows
from robot_vision.places.recognition.options import RecogniserOptions

Array = NDArray[np.float64]

# Reached instead of a keyframe: "off the map" weighs as much as this many places just where one is. Without
# odometry nobody knows which way the camera went, and where no keyframe is it may be off the map: with a
# twentieth there too, the filter carried its certainty 0.3 m past the edge of the kitchen's map.
LEAVE, LEAVE_BLIND = 0.1, 0.5
MAX_LOG_RATIO = 5.0  # one image alone is never surer: calibrations rest on hundreds of matches
_KEPT = 128  # keyframes with a belief of their own; the rest share what is left
_PAIRS = (
    2_000_000  # transitions that are computed at most, by leaving out the least probable starts
)
_LEAST = 8
_DEFAULT_SPEED_M_S = 1.5
_JUMP = 3.0  # times the fastest: odometry that says so has been reset


@dataclass(frozen=True, eq=False)
class Odometry:
    """Where odometry says the camera is.

    Attributes:
        stamp_ns: of this pose.
        T_odom_camera: (4, 4), pose of the camera's optical frame in any frame that stays put.
    """

    stamp_ns: int
    T_odom_camera: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Belief:
    """Probabilities that sum to one.

    Attributes:
        ids: keyframes (n,) that have a probability of their own.
        mass: float64 (n,) of each.
        rest: of all keyframes, spread as the map's prior is.
        off_map: of not being in the map.
    """

    ids: NDArray[np.int64]
    mass: Array
    rest: float
    off_map: float


@dataclass(frozen=True, eq=False)
class _Kept:
    belief: Belief
    stamp_ns: int
    odometry: Odometry | None
    descriptor: NDArray[np.float32] | None


class SequenceFilter:
    """The filter. Not thread safe.

    Attributes:
        restarts: how often a clock that went back restarted it.
        odometry_refused: how often odometry was old, not finite or jumped, and was not used.
        speed_m_s: how fast the camera may move where there is no odometry.
        sharpness: `slope` of the likelihood; None takes the calibration's slopes, which are smaller.
    """

    def __init__(
        self,
        options: RecogniserOptions,
        probability: PlaceProbability,
        learned_speed_m_s: float | None = None,
        sharpness: float | None = None,
    ) -> None:
        self.options = options
        self.probability = probability
        self.sharpness = sharpness
        self.speed_m_s = options.max_speed_m_s or learned_speed_m_s or _DEFAULT_SPEED_M_S
        self.restarts = 0
        self.odometry_refused = 0
        self._kept: _Kept | None = None

    def reset(self) -> None:
        """Forgets all images."""
        self._kept = None

    def observe(
        self,
        table: PlaceTable,
        rows: Rows,
        similarities: NDArray[Any],
        stamp_ns: int,
        odometry: Odometry | None = None,
        descriptor: NDArray[np.float32] | None = None,
    ) -> Belief:
        """Returns the belief after an image.

        Args:
            table: the map's keyframes.
            rows: of the image's matches (k,), each once.
            similarities: of them (k,), the highest first.
            stamp_ns: of the image.
            odometry: nearest to the image in time, or None.
            descriptor: of the image, (D,): one that differs from the last has news.
        """
        odometry = self._usable(odometry, stamp_ns)
        kept = self._kept
        if kept is not None and stamp_ns < kept.stamp_ns:
            self.restarts += 1
            kept = self._kept = None
        if kept is None:
            off_map = 1 - self.options.in_map
            before = Belief(np.zeros(0, np.int64), np.zeros(0), self.options.in_map, off_map)
            news = True
        else:
            step_s = (stamp_ns - kept.stamp_ns) / 1e9
            motion = self._motion(kept, odometry, step_s)
            before = self._predict(table, kept.belief, motion, step_s)
            news = self._has_news(kept, motion, step_s, descriptor)
        belief = self._update(table, before, rows, np.asarray(similarities, np.float64))
        if news:
            self._kept = _Kept(belief, stamp_ns, odometry, descriptor)
        return belief

    def _usable(self, odometry: Odometry | None, stamp_ns: int) -> Odometry | None:
        if odometry is None:
            return None
        T = np.asarray(odometry.T_odom_camera, np.float64)
        late = abs(stamp_ns - odometry.stamp_ns) > self.options.odometry_timeout_s * 1e9
        if late or T.shape != (4, 4) or not np.all(np.isfinite(T)):
            self.odometry_refused += 1
            return None
        return odometry

    def _motion(self, kept: _Kept, odometry: Odometry | None, step_s: float) -> Array | None:
        """Returns `T_before_now` (4, 4) of the camera; None where odometry does not tell."""
        if odometry is None or kept.odometry is None:
            return None
        motion = inverse(kept.odometry.T_odom_camera) @ odometry.T_odom_camera
        # Robots are driven faster than their maps were made: at least a brisk walk is no jump.
        fastest = _JUMP * max(self.speed_m_s, _DEFAULT_SPEED_M_S)
        if np.linalg.norm(motion[:3, 3]) > fastest * step_s + self.options.radius_m:
            self.odometry_refused += 1
            return None
        return np.asarray(motion)

    def _has_news(
        self,
        kept: _Kept,
        motion: Array | None,
        step_s: float,
        descriptor: NDArray[np.float32] | None,
    ) -> bool:
        if descriptor is not None and kept.descriptor is not None:
            # Less like the last image than a match that is as likely wrong as right.
            odds = self.probability.log_ratio(float(descriptor @ kept.descriptor))
            if odds < 0:
                return True
        if motion is None:
            return step_s >= self.options.interval_s
        turned = np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1)))
        return bool(
            np.linalg.norm(motion[:3, 3]) >= self.options.radius_m / 2
            or turned >= self.options.heading_deg / 2
        )

    def _predict(
        self, table: PlaceTable, belief: Belief, motion: Array | None, step_s: float
    ) -> Belief:
        """Returns the belief before the next image."""
        o = self.options
        rows = table.rows_of(belief.ids)
        there = rows >= 0
        rows, mass = rows[there], belief.mass[there]
        rest = belief.rest + float(belief.mass[~there].sum())
        kidnap, enter = -np.expm1(-np.array([o.kidnap_per_s, o.enter_per_s]) * step_s)
        to_rest = rest + belief.off_map * enter + kidnap * mass.sum()
        off_map = belief.off_map * (1 - enter)
        mass = mass * (1 - kidnap)
        empty = Belief(np.zeros(0, np.int64), np.zeros(0), to_rest, off_map)
        if not len(rows):
            return empty
        positions, q = table.positions[rows], table.quaternions_xyzw[rows]
        flat_m = flat_deg = 0.0
        sigma_m, sigma_deg = o.radius_m / 2, o.heading_deg / 2
        if motion is None:
            flat_m, flat_deg = self.speed_m_s * step_s, o.max_turn_deg_s * step_s
        else:
            rotation = matrix_from_xyzw(q)
            positions = positions + rotation @ motion[:3, 3]
            q = _turned(q, motion[:3, :3])
            distance = float(np.linalg.norm(motion[:3, 3]))
            sigma_m = float(np.hypot(sigma_m, o.odometry_noise * distance))
            sigma_deg = float(np.hypot(sigma_deg, o.odometry_noise_deg_m * distance))
        targets = table.near(positions, flat_m + 3 * sigma_m)
        if targets is None or len(targets) * _LEAST > _PAIRS:
            # Too far to say where to: in the map, and nothing more.
            return Belief(empty.ids, empty.mass, to_rest + float(mass.sum()), off_map)
        if not len(targets):
            return Belief(empty.ids, empty.mass, to_rest, off_map + float(mass.sum()))
        if len(targets) * len(rows) > _PAIRS:
            some = np.argsort(-mass)[: _PAIRS // len(targets)]
            mass, positions, q = (
                mass[some] * mass.sum() / mass[some].sum(),
                positions[some],
                q[some],
            )
        kernel = _kernel(
            positions, q, table, targets, (flat_m, sigma_m), (flat_deg, sigma_deg)
        )  # (A, M)
        leave = LEAVE_BLIND if motion is None else LEAVE
        reach = kernel @ table.weights[targets] + leave
        moved = table.weights[targets] * ((mass / reach) @ kernel)
        off_map += float((mass * leave / reach).sum())
        return Belief(table.ids[targets], moved, to_rest, off_map)

    def _update(self, table: PlaceTable, before: Belief, rows: Rows, similarities: Array) -> Belief:
        """Returns the belief after an image with these matches."""
        if not len(rows) or not len(table):
            return before
        o, p = self.options, self.probability
        prior = table.weights / table.places
        slope = p.similarity + p.margin if self.sharpness is None else self.sharpness
        ratio = np.exp(np.clip(p.log_ratio(similarities[0]), -MAX_LOG_RATIO, MAX_LOG_RATIO))
        share = np.exp(slope * (similarities - similarities[0]))  # (k,)
        # Every keyframe that the prediction or the image names gets a mass of its own.
        named = table.rows_of(before.ids)
        states = np.union1d(named, rows)
        mass = before.rest * prior[states]
        mass[np.searchsorted(states, named)] += before.mass
        found = np.searchsorted(states, rows)
        # Of a place with more keyframes than are looked up, the others are as similar as the last match,
        # at most; matches of the place stand in for those without a mass of their own.
        places, of_place, matches = np.unique(
            table.views[rows], return_inverse=True, return_counts=True
        )
        slot = np.minimum(np.searchsorted(places, table.views[states]), len(places) - 1)
        there = places[slot] == table.views[states]
        listed = np.bincount(slot[there], prior[states][there], len(places))
        unlisted = np.maximum(1 / table.places - listed, 0.0)
        shares = np.where(there, share[-1], 0.0)
        shares[found] = share
        norm = float(prior[states] @ shares) + float(unlisted.sum()) * share[-1]
        factor = (1 - o.miss) * float(ratio) * shares / norm + o.miss
        mass = mass * factor
        last = (1 - o.miss) * float(ratio) * share[-1] / norm + o.miss
        mass[found] += before.rest * (unlisted / matches)[of_place] * last
        unseen = max(0.0, 1 - float(prior[states].sum()) - float(unlisted.sum()))
        rest = before.rest * unseen * o.miss
        total = float(mass.sum()) + rest + before.off_map
        mass, rest, off_map = mass / total, rest / total, before.off_map / total
        if len(states) > _KEPT:
            kept = np.sort(np.argpartition(-mass, _KEPT)[:_KEPT])
            rest += float(mass.sum() - mass[kept].sum())
            states, mass = states[kept], mass[kept]
        return Belief(table.ids[states], mass, rest, off_map)


def _turned(q: Array, rotation: Array) -> Array:
    """Returns quaternions (A, 4) after a rotation on their right."""
    x, y, z, w = xyzw_from_matrix(rotation)
    right = np.array([[w, z, -y, x], [-z, w, x, y], [y, -x, w, z], [-x, -y, -z, w]])
    return np.asarray(q @ right.T)


def _kernel(
    positions: Array,
    q: Array,
    table: PlaceTable,
    targets: Rows,
    metres: tuple[float, float],
    degrees: tuple[float, float],
) -> Array:
    """Returns (A, M): 1 within the flat reach, falling off as a normal beyond it, in place and heading."""
    there = table.positions[targets]
    centre = there.mean(axis=0)
    a, b = positions - centre, there - centre
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    gap = np.maximum(np.sqrt(np.maximum(square, 0)) - metres[0], 0) / metres[1]
    turn = 2 * np.degrees(np.arccos(np.clip(np.abs(q @ table.quaternions_xyzw[targets].T), 0, 1)))
    turn = np.maximum(turn - degrees[0], 0) / degrees[1]
    return np.asarray(np.exp(-(gap**2 + turn**2) / 2))
