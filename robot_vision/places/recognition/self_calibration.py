"""A calibration from the map itself, for models that come without: its own keyframes as questions.

Some keyframes are looked up among all others, once without views that are nearer than a random part of a
place's radius (the answer may be right) and once without their whole place (every answer is wrong, as for a
robot that is off the map). It is a little optimistic: the keyframes are of the light and furniture of one
day. A calibration that was fitted on another drive, kept with the bundle, is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.place.probability import MIN_MATCHES, PlaceProbability, fit
from robot_vision.places.recognition.contrast import LEAST_REFERENCES, Contrast, standardised
from robot_vision.places.recognition.known_places import PlaceTable
from robot_vision.places.recognition.nearness import BESIDE, Nearness

# For no data at all: half sure at the similarity that unrelated views of one building often reach, and
# never quite sure.
DEFAULT = PlaceProbability(bias=-12.0, similarity=15.0)
_QUESTIONS = 300
_ANSWERS = 20_000
_MATCHES = 64
_REFERENCES = 256
_SEED = 0
_REACHES = 8  # for each question: the slope at its end rests on few of them


@dataclass(frozen=True, eq=False)
class SelfCalibration:
    """What a map's own keyframes say.

    Attributes:
        probability: that a best match is right.
        sharpness: how much likelier a keyframe is the right one than another of the same image's matches,
            in logits for each 1 of similarity more; None where there was too little to fit it on. It
            exceeds the slope of `probability`, since images differ in how similar anything is to them.
        fineness: the same for the nearest keyframe among all others, those of its place included: views side
            by side are less distinct than places. A filter that took `sharpness` for it counted a place's
            radius twice: the camera within it of a keyframe, and that within it of the best one.
        contrast: how far the right place stands out of the map, in units that another light leaves; None
            where there was too little to say it.
        nearness: how far a keyframe within two radii of the camera is, by its similarity: images of a
            sequence say which place it is, and err alike in how far away; None where the map has too few
            keyframes side by side.
    """

    probability: PlaceProbability
    sharpness: float | None
    fineness: float | None
    contrast: Contrast | None = None
    nearness: Nearness | None = None


def calibrate_on_map(
    table: PlaceTable,
    descriptors: NDArray[np.float32],
    radius_m: float,
    heading_deg: float,
) -> SelfCalibration:
    """Returns a calibration fitted on a map's keyframes, or `DEFAULT` where they say too little.

    Args:
        table: the keyframes.
        descriptors: (N, D), of them.
        radius_m: of a place.
        heading_deg: of a place.
    """
    n, rng = len(table), np.random.default_rng(_SEED)
    sideways = np.random.default_rng((_SEED, 1))
    if n < MIN_MATCHES:
        return SelfCalibration(DEFAULT, None, None)
    # Drawn evenly over places, not over keyframes.
    even = table.prior / table.prior.sum()
    asked = np.unique(rng.choice(n, size=min(_QUESTIONS, n), p=even))
    stored = np.sort(rng.choice(n, size=min(_ANSWERS, n), replace=False))
    kept = descriptors[stored].astype(np.float32)
    chosen = np.unique(rng.choice(n, size=min(_REFERENCES, n), p=even))
    references = np.unique(np.searchsorted(stored, chosen).clip(max=len(stored) - 1))
    stands: dict[bool, list[float]] = {True: [], False: []}
    found: list[tuple[float, float, bool]] = []
    beside: list[tuple[float, float]] = []
    choices: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    nearest_choices: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    standard: list[NDArray[np.float64]] = []
    for row in asked:
        similarity = kept @ descriptors[row].astype(np.float32)
        same = table.same_place(row, stored, radius_m, heading_deg)
        view = standardised(similarity[references])
        # A robot passes a keyframe at any distance, up to a place's radius.
        share = rng.random()
        near = table.same_place(row, stored, share * radius_m, share * heading_deg)
        for allowed in (~near, ~same):
            some = np.where(allowed, similarity, -np.inf)
            answer = _best(table, stored, some, radius_m, heading_deg)
            if answer is not None:
                best, top, margin = answer
                found.append((top, margin, bool(same[best])))
                stands[bool(same[best])].append(float(view.standard(np.array(top))))
        # A drive passes the map's own at any distance: the place's radius is no limit to that.
        for reach in BESIDE * (np.arange(_REACHES) + sideways.random()) / _REACHES:
            hidden = table.same_place(row, stored, reach * radius_m, reach * heading_deg)
            some = np.where(hidden, -np.inf, similarity)
            best = int(some.argmax())
            away = table.away(row, stored[best : best + 1], radius_m, heading_deg)
            if not hidden[best] and float(away[0]) <= BESIDE:
                beside.append((float(away[0]), float(some[best])))
        if np.any(same & ~near):
            some = np.where(near, -np.inf, similarity)
            top_rows = np.argsort(-some)[: min(_MATCHES, int((~near).sum()))]
            matches = stored[top_rows]
            away = table.away(row, matches, radius_m, heading_deg)
            weight = table.weights[matches]
            chances = similarity[top_rows].astype(np.float64)
            standard.append(view.standard(chances))
            choices.append((chances, np.stack([weight, weight * same[top_rows]])))
            nearest = away <= away.min() + 1e-9
            nearest_choices.append((chances, np.stack([weight, weight * nearest])))
    contrast = None
    if len(references) >= LEAST_REFERENCES and min(map(len, stands.values())) >= MIN_MATCHES // 2:
        spread = {k: (float(np.mean(v)), max(float(np.std(v)), 0.1)) for k, v in stands.items()}
        slope, fine = (
            _sharpness([(z, w) for z, (_, w) in zip(standard, c, strict=True)])
            for c in (choices, nearest_choices)
        )
        if slope is not None and fine is not None:
            contrast = Contrast(kept[references], spread[True], spread[False], slope, fine)
    right = np.array([r for _, _, r in found], bool)
    sharpness, fineness = _sharpness(choices), _sharpness(nearest_choices)
    nearness = Nearness.fit(*np.array(beside).reshape(-1, 2).T)
    # A margin or a similarity means nothing without examples of both outcomes.
    if len(found) < MIN_MATCHES or min(right.sum(), (~right).sum()) < MIN_MATCHES // 2:
        return SelfCalibration(DEFAULT, sharpness, fineness, contrast, nearness)
    probability = fit([s for s, _, _ in found], right, [m for _, m, _ in found])
    return SelfCalibration(probability, sharpness, fineness, contrast, nearness)


def _sharpness(
    choices: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> float | None:
    """Returns the slope of a conditional logit (McFadden 1974): which match of an image is right?

    Args:
        choices: of each question, similarities (k,) and rows of weights (2, k): of all, of right ones.
    """
    usable = [(s, w) for s, w in choices if 0 < w[1].sum() < w[0].sum() * (1 - 1e-9)]
    if len(usable) < MIN_MATCHES:
        return None

    def cost(log_slope: float) -> float:
        slope, value = math.exp(log_slope), 0.0
        for s, w in usable:
            share = np.exp(slope * (s - s.max()))
            value -= math.log(max(float(w[1] @ share), 1e-300)) - math.log(float(w[0] @ share))
        return value + log_slope**2 / 50  # so that choices that are all right have an end

    low, high = 0.0, math.log(300.0)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(30):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if cost(a) < cost(b) else (a, high)
    return math.exp((low + high) / 2)


def _best(
    table: PlaceTable,
    stored: NDArray[np.intp],
    similarity: NDArray[np.float32],
    radius_m: float,
    heading_deg: float,
) -> tuple[int, float, float] | None:
    """Returns the best match's column, its similarity and the margin; None where nothing is allowed."""
    best = int(similarity.argmax())
    if not np.isfinite(similarity[best]):
        return None
    elsewhere = ~table.same_place(stored[best], stored, 2 * radius_m, heading_deg)
    runner_up = similarity[elsewhere].max(initial=-np.inf)
    margin = float(similarity[best] - runner_up) if np.isfinite(runner_up) else float("nan")
    return best, float(similarity[best]), margin
