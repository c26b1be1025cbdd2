"""A Bayes filter over places: what earlier images and the motion since say of where the camera is.

A hidden Markov model whose states are the map's keyframes and "not in the map". A prediction moves the
belief by odometry, or spreads it as far as the camera can have moved; an image then multiplies it by its
likelihood (the forward algorithm; Cummins and Newman 2008 recognise places so).

*Likelihood*, relative to "not in the map": the image's matches are either about its place or (`miss`) not,

    L_j = (1 - miss) * ratio(s_1) * exp(slope * s_j) / sum_c prior_c exp(slope * s_c) + miss,

with `ratio` the calibrated likelihood ratio of the best match's similarity and `slope` how sharply
similarity tells right from wrong among one image's matches: for a first image, this gives the calibrated
probability again. With odometry it is how sharply similarity tells the nearest keyframe from the others.

*Another light* lowers all similarities, so that `ratio` takes right places for ones off the map. So the
session is unknown too: like the map's own, or one in which the right place stands out less (`contrast`),
each with its `ratio` and `slope`. All images of a sequence say together which; one image could not tell
another light from a place that the map does not hold, and nor can a sequence without odometry, which has only
the map's own session.

*Transition*: a keyframe is reached in proportion to its weight times a kernel of how far
it is from where the motion leads; where there is no keyframe the camera has left the map. With odometry
each keyframe's share remembers where in the place the camera is (`cameras`), so that steps add up.

*Just off the map* the images still look like the keyframes at its edge, and the best match is near where the
camera was. That is no evidence for being in the map: `nearby` is the part of "not in the map" that sees the
same matches, so that there only the similarity itself decides (`ratio`), whatever odometry says.

Images that follow too soon show the same and would be counted twice, so a belief is kept only from images
with news; each image is judged by the belief that was kept last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import inverse
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.places.recognition.cameras import Cameras, kernel, mixed
from robot_vision.places.recognition.contrast import MAX_LOG_RATIO, Contrast, View
from robot_vision.places.recognition.known_places import PlaceTable, Rows
from robot_vision.places.recognition.options import RecogniserOptions

Array = NDArray[np.float64]

# Reached instead of a keyframe: "off the map" weighs as much as this many places just where one is. Without
# odometry nobody knows which way the camera went, and where no keyframe is it may be off the map: with a
# twentieth there too, the filter carried its certainty 0.3 m past the edge of the kitchen's map.
LEAVE, LEAVE_BLIND = 0.01, 0.5
_BACK = 0.01  # of cameras just off the map, those that are in it again at the next image with news
# Sessions in another light have some share of the map's own contrast. Before the first image the map's own
# session is far more probable than these: where images are as like as the map's, its calibration decides.
SHARES = np.array([0.7, 0.45, 0.25])
SESSIONS = np.array([0.9, 0.04, 0.03, 0.03])
_LEAST_SESSION = 1e-4  # a lamp may be switched on
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
        nearby: the part of `off_map` that is just past the keyframes named; known with odometry only.
        cameras: where the camera is if it is at each of the keyframes.
        tracked: whether odometry tells where they are; otherwise they are at the keyframes themselves.
    """

    ids: NDArray[np.int64]
    mass: Array
    rest: float
    off_map: float
    nearby: float
    cameras: Cameras
    tracked: bool


@dataclass(frozen=True, eq=False)
class _Kept:
    """What the next image is judged by; `sessions` are the probabilities of the map's own and of `SHARES`."""

    belief: Belief
    stamp_ns: int
    odometry: Odometry | None
    descriptor: NDArray[np.float32] | None
    sessions: Array


class SequenceFilter:
    """The filter. Not thread safe.

    Attributes:
        restarts: how often a clock that went back restarted it.
        odometry_refused: how often odometry was old, not finite or jumped, and was not used.
        speed_m_s: how fast the camera may move where there is no odometry.
        sharpness: `slope` of the likelihood; None takes the calibration's slopes, which are smaller.
        fineness: the slope where odometry tells keyframes of one place apart; None takes `sharpness`.
        contrast: what sessions in another light are judged by; None knows the map's own session only.
    """

    def __init__(
        self,
        options: RecogniserOptions,
        probability: PlaceProbability,
        learned_speed_m_s: float | None = None,
        sharpness: float | None = None,
        fineness: float | None = None,
        contrast: Contrast | None = None,
    ) -> None:
        self.options = options
        self.probability = probability
        self.sharpness, self.fineness = sharpness, fineness
        self.contrast = contrast
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
        view = None
        # Without odometry nothing would tell another light from a place that the map does not hold.
        if self.contrast is not None and descriptor is not None and odometry is not None:
            view = self.contrast.view(descriptor)
        kept = self._kept
        if kept is not None and stamp_ns < kept.stamp_ns:
            self.restarts += 1
            kept = self._kept = None
        if kept is None:
            off_map = 1 - self.options.in_map
            before = self._nowhere(table, self.options.in_map, off_map)
            news = True
        else:
            step_s = (stamp_ns - kept.stamp_ns) / 1e9
            motion = self._motion(kept, odometry, step_s)
            before = self._predict(table, kept.belief, motion, step_s)
            news = self._has_news(kept, motion, step_s, descriptor)
        sessions = SESSIONS if kept is None else kept.sessions
        belief, sessions = self._update(
            table, before, rows, np.asarray(similarities, np.float64), view, sessions
        )
        if news:
            self._kept = _Kept(belief, stamp_ns, odometry, descriptor, sessions)
        return belief

    @property
    def _place(self) -> Array:
        """Variance (2,) of a camera that is at a keyframe."""
        return np.array([self.options.radius_m / 2, self.options.heading_deg / 2]) ** 2

    def _nowhere(self, table: PlaceTable, rest: float, off_map: float) -> Belief:
        none = Cameras.at(table, np.zeros(0, np.intp), self._place)
        return Belief(np.zeros(0, np.int64), np.zeros(0), rest, off_map, 0.0, none, False)

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
        far = belief.off_map - belief.nearby
        to_rest = rest + far * enter + kidnap * float(mass.sum())
        # None is nearby without odometry; a step beyond a place's radius leads away.
        step_m = np.inf if motion is None else float(np.linalg.norm(motion[:3, 3]))
        stays = float(np.exp(-((step_m / o.radius_m) ** 2)))
        nearby = belief.nearby * stays
        back = nearby * _BACK if mass.sum() > 0 else 0.0
        nearby, off_map = nearby - back, far * (1 - enter) + belief.nearby * (1 - stays)
        mass = mass * (1 - kidnap + back / max(float(mass.sum()), 1e-300))
        if not len(rows):
            return self._nowhere(table, to_rest, off_map + nearby)
        flat = np.zeros(2)
        if motion is None:
            flat = np.array([self.speed_m_s, o.max_turn_deg_s]) * step_s
            cameras = Cameras.at(table, rows, np.zeros(2))
        else:
            noise = step_m * np.array([o.odometry_noise, o.odometry_noise_deg_m])
            cameras = belief.cameras[there].moved(motion, noise**2)
        sigma = np.sqrt(cameras.variance + self._place)  # (A, 2)
        targets = table.near(cameras.positions, flat[0] + 3 * float(sigma[:, 0].max()))
        if targets is None or len(targets) * _LEAST > _PAIRS:
            # Too far to say where to: in the map, and nothing more.
            return self._nowhere(table, to_rest + float(mass.sum()), off_map + nearby)
        if not len(targets):
            return self._nowhere(table, to_rest, off_map + nearby + float(mass.sum()))
        if len(targets) * len(rows) > _PAIRS:
            some = np.argsort(-mass)[: _PAIRS // len(targets)]
            mass = mass[some] * mass.sum() / mass[some].sum()
            cameras, sigma = cameras[some], sigma[some]
        reached = kernel(cameras, table, targets, flat, sigma)  # (A, M)
        leave = LEAVE_BLIND if motion is None else LEAVE
        reach = reached @ table.weights[targets] + leave
        flow = (mass / reach)[:, None] * reached
        left = float((mass * leave / reach).sum())
        off_map += nearby + left
        nearby += left * stays
        moved = table.weights[targets] * flow.sum(axis=0)
        keyframes = Cameras.at(table, targets, self._place)
        if motion is None:
            return Belief(table.ids[targets], moved, to_rest, off_map, nearby, keyframes, False)
        cameras = cameras.gathered(flow, keyframes)
        return Belief(table.ids[targets], moved, to_rest, off_map, nearby, cameras, True)

    def _update(
        self,
        table: PlaceTable,
        before: Belief,
        rows: Rows,
        similarities: Array,
        view: View | None,
        sessions: Array,
    ) -> tuple[Belief, Array]:
        """Returns the belief after an image with these matches, and what it says of the session."""
        if not len(rows) or not len(table):
            return before, sessions
        o, p = self.options, self.probability
        prior = table.weights / table.places
        learned = self.sharpness
        if before.tracked and self.fineness is not None:
            learned = self.fineness
        slope = p.similarity + p.margin if learned is None else learned
        logs = np.clip(p.log_ratio(similarities[:1]), -MAX_LOG_RATIO, MAX_LOG_RATIO)
        behind = np.exp(slope * (similarities - similarities[0]))[None]  # (S, k)
        weights = np.ones(1)
        if view is not None and self.contrast is not None:
            c, weights = self.contrast, sessions
            levels = view.standard(similarities)
            logs = np.append(logs, c.log_ratio(float(levels[0]), SHARES))
            slopes = SHARES * (c.fineness if before.tracked else c.sharpness)
            behind = np.concatenate([behind, np.exp(slopes[:, None] * (levels - levels[0]))])
        ratios = np.exp(logs)
        # Every keyframe that the prediction or the image names gets a mass of its own.
        named = table.rows_of(before.ids)
        states = np.union1d(named, rows)
        mass = before.rest * prior[states]
        at = np.searchsorted(states, named)
        share = np.zeros((len(states), 1))
        share[at, 0] = before.mass / np.maximum(before.mass + mass[at], 1e-300)
        mass[at] += before.mass
        keyframes = Cameras.at(table, states, self._place)
        cameras = mixed(keyframes, keyframes.replaced(at, before.cameras), share)
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
        shares = np.where(there, behind[:, -1:], 0.0)  # (S, states)
        shares[:, found] = behind
        norm = shares @ prior[states] + unlisted.sum() * behind[:, -1]
        seen = (1 - o.miss) * ratios / norm  # (S,)
        factors = seen[:, None] * shares + o.miss
        factor = weights @ factors
        lasts = seen * behind[:, -1] + o.miss
        last = float(weights @ lasts)
        unseen = max(0.0, 1 - float(prior[states].sum()) - float(unlisted.sum()))
        if len(weights) > 1:
            elsewhere = before.rest * (float(unlisted.sum()) * lasts + unseen * o.miss)
            sessions = weights * (factors @ mass + elsewhere + before.off_map)
            sessions = np.maximum(sessions / sessions.sum(), _LEAST_SESSION)
        mass = mass * factor
        shown = (1 - o.miss / factor)[:, None]  # that the image shows the keyframe's place
        cameras = mixed(cameras, cameras.seen_at(keyframes), shown)
        mass[found] += before.rest * (unlisted / matches)[of_place] * last
        rest = before.rest * unseen * o.miss
        nearby = before.nearby
        if nearby > 0 and before.mass.sum() > 0:
            alike = (1 - o.miss) * shares[:, at] / norm[:, None] + o.miss
            nearby *= max(1.0, float(before.mass @ (weights @ alike)) / float(before.mass.sum()))
        off_map = before.off_map - before.nearby + nearby
        total = float(mass.sum()) + rest + off_map
        mass, rest, off_map, nearby = mass / total, rest / total, off_map / total, nearby / total
        if len(states) > _KEPT:
            kept = np.sort(np.argpartition(-mass, _KEPT)[:_KEPT])
            rest += float(mass.sum() - mass[kept].sum())
            states, mass, cameras = states[kept], mass[kept], cameras[kept]
        belief = Belief(table.ids[states], mass, rest, off_map, nearby, cameras, before.tracked)
        return belief, sessions
