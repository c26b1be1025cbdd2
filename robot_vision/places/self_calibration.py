"""A calibration from the map itself, for models that come without: its own keyframes as questions.

Some keyframes are looked up among all others, once without their nearest views (the answer may be right) and
once without their whole place (every answer is wrong, as for a robot that is off the map). It is a little
optimistic: the keyframes are of the light and furniture of one day. A calibration that was fitted on another
drive, kept with the bundle, is better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.places.place_probability import MIN_MATCHES, PlaceProbability, fit
from robot_vision.places.recogniser_places import PlaceTable

# For no data at all: half sure at the similarity that unrelated views of one building often reach, and
# never quite sure.
DEFAULT = PlaceProbability(bias=-12.0, similarity=15.0)
_QUESTIONS = 300
_ANSWERS = 20_000
_SEED = 0


def probability_of_map(
    table: PlaceTable,
    descriptors: NDArray[np.float32],
    radius_m: float,
    heading_deg: float,
) -> PlaceProbability:
    """Returns a calibration fitted on a map's keyframes, or `DEFAULT` where they say too little.

    Args:
        table: the keyframes.
        descriptors: (N, D), of them.
        radius_m: of a place.
        heading_deg: of a place.
    """
    n, rng = len(table), np.random.default_rng(_SEED)
    if n < MIN_MATCHES:
        return DEFAULT
    # Drawn evenly over places, not over keyframes.
    share = table.prior / table.prior.sum()
    asked = np.unique(rng.choice(n, size=min(_QUESTIONS, n), p=share))
    stored = np.sort(rng.choice(n, size=min(_ANSWERS, n), replace=False))
    kept = descriptors[stored].astype(np.float32)
    found: list[tuple[float, float, bool]] = []
    for row in asked:
        similarity = kept @ descriptors[row].astype(np.float32)
        same = table.same_place(row, stored, radius_m, heading_deg)
        near = table.same_place(row, stored, radius_m / 4, heading_deg / 4)
        for allowed in (~near, ~same):
            answer = _best(
                table, stored, np.where(allowed, similarity, -np.inf), radius_m, heading_deg
            )
            if answer is not None:
                best, top, margin = answer
                found.append((top, margin, bool(same[best])))
    right = np.array([r for _, _, r in found], bool)
    # A margin or a similarity means nothing without examples of both outcomes.
    if len(found) < MIN_MATCHES or min(right.sum(), (~right).sum()) < MIN_MATCHES // 2:
        return DEFAULT
    return fit([s for s, _, _ in found], right, [m for _, m, _ in found])


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
