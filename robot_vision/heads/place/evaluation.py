"""Numbers on place recognition: is the most similar image one of the same place?

A query is a frame with a descriptor and a true pose. It is looked up in the map where one is given, else in
its own recording without the neighbours in time. An image shows the same place within a radius and a
heading. A query is answerable when there is such an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import canonical_xyzw, rotation_error_deg
from robot_vision.heads.place.sketch import Sketch
from robot_vision.messages.stamps import nanoseconds
from robot_vision.statistics.bootstrap import Statistic, Weights, group_sums, groups

RECALLS = (1, 5, 10, 20)
WORST = 12
_CHUNK_NUMBERS = 32_000_000
_BLOCK = 64  # neighbours in time
_FEW = 0.02  # share of the pairs up to which they are multiplied one by one
_PAIRS = 4096  # at a time

_MOST_M = 1e8  # more than the earth's diameter


@dataclass(frozen=True)
class SamePlace:
    """What the same place is.

    Attributes:
        place_radius_m: two images show the same place where their cameras were at most this far apart
        place_heading_deg: and turned by at most this; None for any rotation.
        place_exclude_s: without a map, images of the same recording this close in time are not looked up in.
    """

    place_radius_m: float = 1.0
    place_heading_deg: float | None = 45.0
    place_exclude_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.place_radius_m <= _MOST_M:
            raise ConfigError(
                f"Setting place_radius_m is {self.place_radius_m}: it must be above 0 and at most "
                f"{_MOST_M:g}"
            )
        if not 0 <= self.place_exclude_s < float("inf"):
            raise ConfigError(f"Setting place_exclude_s is {self.place_exclude_s}: use at least 0")
        if self.place_heading_deg is not None and not 0 < self.place_heading_deg <= 180:
            raise ConfigError(
                f"Setting place_heading_deg is {self.place_heading_deg}: use up to 180, or None"
            )


@dataclass(frozen=True, eq=False)
class PlaceViews:
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

    @classmethod
    def joined(cls, parts: Sequence[PlaceViews]) -> PlaceViews:
        """Returns the frames of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        names = ("descriptor", "position", "xyzw", "stamps_ns")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which (N,) have both descriptor and pose."""
        return np.isfinite(self.descriptor).all(axis=1) & np.isfinite(self.position[:, 0])


def score_places(
    queries: PlaceViews, database: PlaceViews, settings: SamePlace, same_recording: bool
) -> dict[str, NDArray[Any]]:
    """Returns the columns of `judging.ROWS` on places.

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
    known = np.asarray(database.descriptor[stored], np.float32)  # one copy: it may be gigabytes
    position, xyzw = database.position[stored], canonical_xyzw(database.xyzw[stored])
    centre = position.mean(axis=0)
    near_to, space = _Distances(position - centre), _Balls(position - centre)
    sketch = Sketch.of(known) if len(asked) >= len(stored) // 8 else None
    looks = _Balls(known)
    stamps = database.stamps_ns[stored]
    exclude_ns = nanoseconds(settings.place_exclude_s)
    # Enough rows that a product is worth reading the database for it.
    size = int(np.clip(_CHUNK_NUMBERS // len(stored), 16, 256))
    for begin in range(0, len(asked), size):
        rows = asked[begin : begin + size]
        low = high = np.zeros(len(rows), np.int64)  # of the neighbours in time, which are left out
        if same_recording:
            low = np.searchsorted(stamps, queries.stamps_ns[rows] - exclude_ns, side="left")
            high = np.searchsorted(stamps, queries.stamps_ns[rows] + exclude_ns, side="right")
        count = len(stored) - (high - low)
        there = count > 0
        place = queries.position[rows] - centre
        near = space.columns(_blocks_near(space, place, low, high, settings.place_radius_m))
        square = near_to(place, near)
        _leave_out(square, near, low, high, np.inf)
        q = canonical_xyzw(queries.xyzw[rows])
        row, column = _same_place(square, q, xyzw[near], settings)
        nearest = near[square.argmin(axis=1)]
        x = queries.descriptor[rows].astype(np.float32)
        found = None
        if sketch is not None:
            found = _most_alike_of_few(x, known, sketch, low, high, row, near[column])
        if found is None:
            found = _most_alike(x, known, looks, low, high, row, near[column])
        alike, similarity = found
        match = np.where(there, alike[similarity.argmax(axis=1)], -1)
        columns["place_database"][rows] = count
        columns["place_match"][rows] = np.where(there, stored[match], -1)
        columns["place_similarity"][rows] = np.where(there, similarity.max(axis=1), np.nan)
        _fill_ranks(columns, rows, similarity, row, np.searchsorted(alike, near[column]))
        for prefix, other in (("place", match), ("nearest", nearest)):
            other = other[there]
            # Again from the coordinates: the matrix of squares has lost digits.
            gap = queries.position[rows[there]] - position[other]
            columns[f"{prefix}_error_m"][rows[there]] = np.linalg.norm(gap, axis=1)
            turn = rotation_error_deg(q[there], xyzw[other])
            columns[f"{prefix}_error_deg"][rows[there]] = turn
    return columns


class _Balls:
    """Rows (M, D) in blocks of neighbours, which video has near to each other; a ball around each block.

    What lies in a ball is bounded by its centre and radius, so whole blocks need no look.
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        self.count = len(rows)
        self.starts = np.arange(0, len(rows), _BLOCK)
        self.ends = np.minimum(self.starts + _BLOCK, len(rows))
        pairs = list(zip(self.starts, self.ends, strict=True))
        self.centre = np.stack([rows[a:b].mean(axis=0) for a, b in pairs])
        self.radius = np.array(
            [
                np.sqrt(((rows[a:b] - c) ** 2).sum(axis=1).max())
                for (a, b), c in zip(pairs, self.centre, strict=True)
            ]
        )

    def columns(self, blocks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns the rows of blocks, in their order."""
        return np.flatnonzero(np.repeat(blocks, self.ends - self.starts))

    def runs(self, blocks: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Returns first row and end of each run of blocks."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], blocks.astype(np.int8), [0]])))
        return [(int(self.starts[a]), int(self.ends[b - 1])) for a, b in edges.reshape(-1, 2)]

    def touched(self, low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns which (q, blocks) hold some of the rows from low to high (q,)."""
        return (self.starts < high[:, None]) & (self.ends > low[:, None])


def _blocks_near(
    space: _Balls, place: NDArray[np.float64], low: Any, high: Any, radius_m: float
) -> NDArray[np.bool_]:
    """Returns which blocks can hold what is within a radius of some place (q, 3), or nearest to it."""
    away = np.linalg.norm(place[:, None] - space.centre, axis=2)
    most = np.where(space.touched(low, high), np.inf, away + space.radius).min(axis=1)
    limit = np.maximum(most, radius_m) * (1 + 1e-6) + 1e-6
    return np.asarray((away - space.radius <= limit[:, None]).any(axis=0))


def _most_alike(
    x: NDArray[np.float32],
    known: NDArray[np.float32],
    looks: _Balls,
    low: NDArray[Any],
    high: NDArray[Any],
    row: NDArray[np.int64],
    right: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns rows (c,) of the database and the similarities (q, c) to them.

    They hold, for each query, whatever is at least as similar as the most similar right image; of a query
    without one, the most similar. Rows that are left out have -inf.

    Args:
        x: (q, D), to look up.
        known: (M, D), the database.
        looks: its blocks.
        low: (q,), first of the rows that are left out.
        high: (q,), their end.
        row: (n,), queries of the right images.
        right: (n,), their rows in the database.
    """
    found = np.empty((len(x), len(known)), np.float32)
    length = np.linalg.norm(x, axis=1)
    # No row of the block is more similar
    most = x @ looks.centre.T + length[:, None] * looks.radius
    open_ = (high - low) < len(known)
    done = np.zeros(len(looks.starts), bool)
    done[:1] = not open_.any()  # so that there is something to return
    done[right // _BLOCK] = True
    untouched = np.where(looks.touched(low, high), -np.inf, most)
    done[untouched.argmax(axis=1)[open_]] = True
    _multiply(x, known, looks.runs(done), found)
    least = np.full(len(x), -np.inf, np.float32)
    np.maximum.at(least, row, found[row, right])
    alone = np.setdiff1d(np.arange(len(x)), row)
    if len(alone):
        columns = looks.columns(done)
        part = found[np.ix_(alone, columns)]
        _leave_out(part, columns, low[alone], high[alone], -np.inf)
        least[alone] = part.max(axis=1)
    slack = 1e-4 * length * max(1.0, float(np.abs(looks.centre).max()))  # of float32
    more = ((most >= (least - slack)[:, None]) & open_[:, None]).any(axis=0) & ~done
    _multiply(x, known, looks.runs(more), found)
    done |= more
    columns = looks.columns(done)
    similarity = found if done.all() else found[:, columns]
    _leave_out(similarity, columns, low, high, -np.inf)
    return columns, similarity


def _most_alike_of_few(
    x: NDArray[np.float32],
    known: NDArray[np.float32],
    sketch: Sketch,
    low: NDArray[Any],
    high: NDArray[Any],
    row: NDArray[np.int64],
    right: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Returns what `_most_alike` does, by pairs that a sketch leaves open; None where they are many.

    What is ruled out has -inf.
    """
    most = sketch.most(x)
    every = np.arange(len(known))
    _leave_out(most, every, low, high, -np.inf)
    # At least as similar as the image that may be most similar, of the right ones where there are some.
    first = most.argmax(axis=1)
    if len(row):
        starts = np.concatenate([[0], np.flatnonzero(np.diff(row)) + 1])
        bound = most[row, right]
        top = np.maximum.reduceat(bound, starts)
        best = bound == np.repeat(top, np.diff(np.append(starts, len(row))))
        first[row[best]] = right[best]
    least = np.einsum("ij,ij->i", x, known[first])
    query, column = np.nonzero(most >= np.where(high - low < len(known), least, np.inf)[:, None])
    if len(query) > _FEW * most.size:
        return None
    columns = np.unique(np.append(column, right)) if len(query) + len(right) else every[:1]
    similarity = np.full((len(x), len(columns)), -np.inf, np.float32)
    at = np.searchsorted(columns, column)
    for begin in range(0, len(query), _PAIRS):
        q, c = query[begin : begin + _PAIRS], column[begin : begin + _PAIRS]
        # Row by row, so that equal images are equally similar.
        similarity[q, at[begin : begin + _PAIRS]] = np.einsum("ij,ij->i", x[q], known[c])
    return columns, similarity


def _multiply(
    x: NDArray[np.float32],
    known: NDArray[np.float32],
    runs: list[tuple[int, int]],
    out: NDArray[np.float32],
) -> None:
    for a, b in runs:
        out[:, a:b] = x @ known[a:b].T


def _leave_out(
    values: NDArray[Any], columns: NDArray[np.int64], low: Any, high: Any, value: float
) -> None:
    """Puts a value where the columns, which rise, are from low to high (q,)."""
    begin, end = np.searchsorted(columns, low), np.searchsorted(columns, high)
    for i, (a, b) in enumerate(zip(begin, end, strict=True)):
        values[i, a:b] = value


class _Distances:
    """Squared distances to points (M, 3) that are about the origin."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self._minus_two = np.ascontiguousarray(-2.0 * points.T)
        self._squares = (points**2).sum(axis=1)

    def __call__(
        self, points: NDArray[np.float64], columns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        square = points @ self._minus_two[:, columns]
        square += self._squares[columns]
        square += (points**2).sum(axis=1)[:, None]
        return square


def _same_place(
    square: NDArray[np.float64],
    q: NDArray[np.float64],
    xyzw: NDArray[np.float64],
    settings: SamePlace,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows and columns of the pairs that show the same place, row by row."""
    # A hair more than the radius: poses on a grid may lie just on it.
    limit = settings.place_radius_m**2 * (1 + 1e-9)
    row, column = np.nonzero(square <= limit)
    if settings.place_heading_deg is not None:
        cosine = np.abs((q[row] * xyzw[column]).sum(axis=1))
        ahead = cosine >= np.cos(np.radians(settings.place_heading_deg) / 2) - 1e-12
        row, column = row[ahead], column[ahead]
    return row, column


def _fill_ranks(
    columns: dict[str, NDArray[Any]],
    rows: NDArray[Any],
    similarity: NDArray[Any],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
) -> None:
    """Fills in how many right images each query has, and how many wrong ones come before the first."""
    columns["place_positives"][rows] = np.bincount(row, minlength=len(rows))
    columns["place_rank"][rows] = -1
    if len(row) == 0:
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(row)) + 1])
    query = row[starts]
    of_right = similarity[row, column]
    top = np.maximum.reduceat(of_right, starts)
    is_top = of_right == np.repeat(top, np.diff(np.append(starts, len(row))))
    first = np.minimum.reduceat(np.where(is_top, column, similarity.shape[1]), starts)
    asked = similarity if len(query) == len(similarity) else similarity[query]
    before = np.count_nonzero(asked > top[:, None], axis=1)
    equal = np.count_nonzero(asked >= top[:, None], axis=1) - before
    for i in np.flatnonzero(equal > 1):  # ties in the order of the database
        before[i] += np.count_nonzero(asked[i, : first[i]] == top[i])
    columns["place_rank"][rows[query]] = before


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
    """Returns the curve, thinned to about this many points."""
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
