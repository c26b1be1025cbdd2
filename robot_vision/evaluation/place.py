"""Numbers on place recognition: is the most similar image one of the same place?

A query is a frame with a descriptor and a true pose. It is looked up in the map where one is given, else in
its own recording without the neighbours in time. An image shows the same place within a radius and a
heading. A query is answerable when there is such an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.evaluation.bootstrap import (
    Resampler,
    Statistic,
    Weights,
    group_sums,
    groups,
    mean,
)
from robot_vision.evaluation.scores import Scores
from robot_vision.evaluation.settings import EvaluationSettings
from robot_vision.geometry import canonical_xyzw, rotation_error_deg

RECALLS = (1, 5, 10, 20)
WORST = 12
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True, eq=False)
class Views:
    """Frames with what is needed to look them up.

    Attributes:
        descriptor: (N, D); rows that are not finite are not there.
        position: float64 (N, 3), true; NaN where there is none.
        xyzw: float64 (N, 4).
        stamps_ns: int64 (N,).
    """

    descriptor: NDArray[Any]
    position: NDArray[np.float64]
    xyzw: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which (N,) have both descriptor and pose."""
        return np.isfinite(self.descriptor).all(axis=1) & np.isfinite(self.position[:, 0])


def score_places(
    queries: Views, database: Views, settings: EvaluationSettings, same_recording: bool
) -> dict[str, NDArray[Any]]:
    """Returns the columns of `scores.COLUMNS` on places.

    Of images that are equally similar the first one counts as more similar.

    Args:
        queries: to look up.
        database: to look up in.
        settings: what the same place is.
        same_recording: whether neighbours in time are left out of the database.
    """
    n = len(queries.position)
    columns: dict[str, NDArray[Any]] = {
        name: np.full(n, -1, np.int64)
        for name in ("place_match", "place_rank", "place_positives", "place_database")
    }
    for name in (
        "place_similarity",
        "place_error_m",
        "place_error_deg",
        "nearest_error_m",
        "nearest_error_deg",
    ):
        columns[name] = np.full(n, np.nan)
    asked, stored = np.flatnonzero(queries.usable), np.flatnonzero(database.usable)
    if len(stored) == 0:
        return columns
    known = database.descriptor[stored].astype(np.float32)
    position, xyzw = database.position[stored], canonical_xyzw(database.xyzw[stored])
    stamps = database.stamps_ns[stored]
    half_angle = np.cos(np.radians(settings.place_heading_deg or 180.0) / 2) - 1e-12
    exclude_ns = round(settings.place_exclude_s * 1e9)
    size = max(1, _CHUNK_NUMBERS // len(stored))
    for begin in range(0, len(asked), size):
        rows = asked[begin : begin + size]
        similarity = queries.descriptor[rows].astype(np.float32) @ known.T  # (q, M)
        away = _distances(queries.position[rows], position)
        q = canonical_xyzw(queries.xyzw[rows])
        right = away <= settings.place_radius_m
        if settings.place_heading_deg is not None:
            right &= np.abs(q @ xyzw.T) >= half_angle
        if same_recording:
            out = np.abs(queries.stamps_ns[rows][:, None] - stamps) <= exclude_ns
            similarity[out], away[out] = -np.inf, np.inf
            right &= ~out
        _fill(columns, rows, similarity, right, away)
        there = columns["place_database"][rows] > 0
        for prefix, best in (
            ("place", similarity.argmax(axis=1)),
            ("nearest", away.argmin(axis=1)),
        ):
            best = best[there]
            # Anew from the coordinates: the matrix of distances has lost digits.
            gap = queries.position[rows[there]] - position[best]
            columns[f"{prefix}_error_m"][rows[there]] = np.linalg.norm(gap, axis=1)
            turn = rotation_error_deg(q[there], xyzw[best])
            columns[f"{prefix}_error_deg"][rows[there]] = turn
    match = columns["place_match"]
    match[match >= 0] = stored[match[match >= 0]]
    return columns


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    square = np.zeros((len(a), len(b)))
    for axis in range(3):  # not |a|^2 + |b|^2 - 2 ab, which loses digits far from the origin
        square += (a[:, axis, None] - b[None, :, axis]) ** 2
    return np.sqrt(square)


def _fill(
    columns: dict[str, NDArray[Any]],
    rows: NDArray[Any],
    similarity: NDArray[Any],
    right: NDArray[np.bool_],
    away: NDArray[np.float64],
) -> None:
    best = similarity.argmax(axis=1)
    each = np.arange(len(rows))
    in_database = np.isfinite(away).sum(axis=1)
    positives = right.sum(axis=1)
    # The first right image in the order of similarity, ties in the order of the database.
    only_right = np.where(right, similarity, -np.inf)
    first = only_right.argmax(axis=1)
    top = only_right[each, first][:, None]
    before = (similarity > top) | (
        (similarity == top) & (np.arange(similarity.shape[1]) < first[:, None])
    )
    columns["place_database"][rows] = in_database
    columns["place_positives"][rows] = positives
    columns["place_rank"][rows] = np.where(positives > 0, before.sum(axis=1), -1)
    columns["place_match"][rows] = np.where(in_database > 0, best, -1)
    columns["place_similarity"][rows] = np.where(in_database > 0, similarity[each, best], np.nan)


def matching(
    similarity: NDArray[Any], right: NDArray[np.bool_], answerable: NDArray[np.bool_]
) -> Statistic:
    """Average precision, and recall at 100 % precision, over thresholds on the best match's similarity.

    A query whose best match is at least as similar as the threshold is accepted. Precision is the share of
    right ones among the accepted, recall the share of right and accepted ones among the answerable.
    """
    order, starts = groups(np.asarray(similarity, np.float64), descending=True)
    hit, can = np.asarray(right, np.float64), np.asarray(answerable, np.float64)

    def statistic(w: Weights) -> NDArray[np.float64]:
        accepted = np.cumsum(group_sums(w, order, starts), axis=1)
        hits = group_sums(w * hit, order, starts)
        found = np.cumsum(hits, axis=1)
        total = w @ can
        precision = np.divide(found, accepted, out=np.zeros_like(found), where=accepted > 0)
        area = (hits * precision).sum(axis=1) / total
        pure = np.where((found == accepted), found, 0.0).max(axis=1) / total
        return np.stack([area, pure], axis=1)

    return statistic


def precision_recall(
    similarity: NDArray[Any],
    right: NDArray[np.bool_],
    answerable: NDArray[np.bool_],
    points: int = 200,
) -> dict[str, list[float]]:
    """Returns the curve, thinned to about so many points."""
    order, starts = groups(np.asarray(similarity, np.float64), descending=True)
    ends = np.append(starts[1:], len(order))[: len(starts)]
    if len(ends) > points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).round().astype(int))]
    found = np.cumsum(np.asarray(right, np.float64)[order])[ends - 1]
    return {
        "threshold": np.asarray(similarity, np.float64)[order][ends - 1].tolist(),
        "precision": (found / ends).tolist(),
        "recall": (found / max(int(answerable.sum()), 1)).tolist(),
    }


def chance_of_hit(
    positives: NDArray[np.int64], database: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """Returns the chance (n,) that k images drawn at random hold one of the same place.

    1 - C(M - p, k) / C(M, k), multiplied out.
    """
    miss = np.ones(len(positives))
    for i in range(k):
        left = np.maximum(database - i, 1)
        miss *= np.clip((database - positives - i) / left, 0.0, 1.0)
    return 1.0 - miss


def measure_places(scores: Scores, resampler: Resampler) -> dict[str, Any] | None:
    """Returns plain data on places; None where nothing was looked up."""
    rows = scores["place_match"] >= 0
    if not rows.any():
        return None
    rank, positives = scores["place_rank"], scores["place_positives"]
    answerable = rows & (positives > 0)
    right = answerable & (rank == 0)
    names = tuple(f"recall_at_{k}" for k in RECALLS)
    found: dict[str, Any] = {
        "queries": int(rows.sum()),
        "answerable": int(answerable.sum()),
        "looked_up_in": "map"
        if scores.has_map
        else "the same recording, neighbours in time left out",
    }
    hits = np.stack([rank[answerable] < k for k in RECALLS], axis=1)
    found.update(resampler.headlines({names: mean(hits)}, answerable))
    similarity = scores["place_similarity"][rows]
    pair = ("average_precision", "recall_at_100_precision")
    found.update(
        resampler.headlines({pair: matching(similarity, right[rows], answerable[rows])}, rows)
    )
    found["precision_recall"] = precision_recall(similarity, right[rows], answerable[rows])
    found["distance_error"] = _histogram(scores["place_error_m"][rows])
    found["matches"] = _matches(scores, rows, right)
    chances = np.stack(
        [
            chance_of_hit(positives[answerable], scores["place_database"][answerable], k)
            for k in RECALLS
        ],
        axis=1,
    )
    found["baselines"] = {
        "chance": {
            "text": "images at random instead of the most similar ones",
            **resampler.headlines({names: mean(chances)}, answerable),
        }
    }
    return found


def _histogram(error_m: NDArray[np.float64]) -> dict[str, Any]:
    """Returns counts of distances in bins that double, from 0.05 m on; the last one is open."""
    edges = [0.0, *(0.05 * 2.0**i for i in range(12))]
    counts = np.histogram(error_m, [*edges, np.inf])[0]
    return {"edges_m": edges, "counts": counts.tolist()}


def _matches(
    scores: Scores, rows: NDArray[np.bool_], right: NDArray[np.bool_]
) -> dict[str, list[dict[str, Any]]]:
    """Returns the surest right matches and the surest wrong ones, as rows of the scores."""
    owner = np.repeat(np.arange(len(scores.recordings)), [b - a for a, b in scores.bounds])
    lists = {}
    for name, mask in (("best", right), ("worst", rows & ~right)):
        index = np.flatnonzero(mask)
        order = np.argsort(-scores["place_similarity"][index], kind="stable")
        lists[name] = [
            {
                "recording": scores.recordings[owner[i]]["name"],
                "row": int(i - scores.bounds[owner[i]][0]),
                "match_row": int(scores["place_match"][i]),
                "similarity": float(scores["place_similarity"][i]),
                "error_m": float(scores["place_error_m"][i]),
                "error_deg": float(scores["place_error_deg"][i]),
                "answerable": bool(scores["place_positives"][i] > 0),
            }
            for i in index[order[:WORST]]
        ]
    return lists
