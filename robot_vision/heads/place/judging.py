"""How places are judged: whether the most similar image shows the same place. See `evaluation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.metrics import (
    Baseline,
    Columns,
    Frames,
    Gallery,
    Judge,
    Mask,
    Metric,
    Numbers,
    Part,
    Reference,
    Section,
    Shown,
    Statistics,
    never,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.errors import ConfigError
from robot_vision.heads.place import figures
from robot_vision.heads.place.evaluation import (
    RECALLS,
    WORST,
    PlaceViews,
    SamePlace,
    chance_of_hit,
    matching,
    precision_recall,
    score_places,
)
from robot_vision.heads.pose.evaluation import statistics as pose_statistics
from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.statistics.paired import Bound, PairedEvidence

ROWS = {
    "place_match": RowColumn("<i8", 1, "the most similar image: row here, or of the map"),
    "place_similarity": RowColumn("<f8", 1, "cosine of the most similar image"),
    "place_rank": RowColumn(
        "<i8", 1, "how many images come before the first that shows the same place"
    ),
    "place_positives": RowColumn("<i8", 1, "images that show the same place"),
    "place_database": RowColumn("<i8", 1, "images that were looked up in"),
    "place_error_m": RowColumn("<f8", 1, "true distance of the most similar image's camera"),
    "place_error_deg": RowColumn("<f8", 1, "true rotation to it"),
    "nearest_error_m": RowColumn(
        "<f8", 1, "distance of the nearest image's pose: what retrieval could do at best"
    ),
    "nearest_error_deg": RowColumn("<f8", 1, "rotation to it"),
}

LOST = 0.02  # of right answers, by a program against float32
_KEYS = tuple(f"recall_at_{k}" for k in RECALLS)


def _asked(rows: Rows) -> Mask:
    return np.asarray(rows["place_match"] >= 0)


def _answerable(rows: Rows) -> Mask:
    return _asked(rows) & (rows["place_positives"] > 0)


def _right(rows: Rows) -> Mask:
    return _answerable(rows) & (rows["place_rank"] == 0)


def _recalls(rows: Rows, mask: Mask) -> Statistics:
    rank = rows["place_rank"][mask]
    return {_KEYS: mean(np.stack([rank < k for k in RECALLS], axis=1))}


def _matching(rows: Rows, mask: Mask) -> Statistics:
    each = (rows["place_similarity"], _right(rows), _answerable(rows))
    statistic = matching(each[0][mask], each[1][mask], each[2][mask])
    return {("average_precision", "recall_at_100_precision"): statistic}


def _at_random(rows: Rows, mask: Mask) -> Statistics:
    there = rows["place_positives"][mask], rows["place_database"][mask]
    return {_KEYS: mean(np.stack([chance_of_hit(*there, k) for k in RECALLS], axis=1))}


def _counts(rows: Rows, mask: Mask) -> dict[str, Any]:
    return {
        "queries": int(_asked(rows).sum()),
        "answerable": int(_answerable(rows).sum()),
        "looked_up_in": "map"
        if rows.scores.has_map
        else "the same recording, neighbours in time left out",
    }


def _details(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    mask, right = _asked(rows), _right(rows)
    each = (rows["place_similarity"], right, _answerable(rows))
    metres, degrees = rows["place_error_m"][mask], rows["place_error_deg"][mask]
    # Bins that double; the last one is open.
    edges = [0.0, *(0.05 * 2.0**i for i in range(12))]
    return {
        "precision_recall": precision_recall(each[0][mask], each[1][mask], each[2][mask]),
        "distance_error": {
            "edges_m": edges,
            "counts": np.histogram(metres, [*edges, np.inf])[0].tolist(),
        },
        "matches": {"best": _surest(rows, right), "worst": _surest(rows, mask & ~right)},
        "retrieved_pose": {
            "text": "the true pose of the most similar image as the answer",
            "frames": int(mask.sum()),
            **resampler.headlines(pose_statistics(metres, degrees), mask),
        },
    }


def _surest(rows: Rows, mask: Mask) -> list[dict[str, Any]]:
    owner, bounds = rows.scores.owner, rows.scores.bounds
    index = np.flatnonzero(mask)
    order = np.argsort(-rows["place_similarity"][index], kind="stable")
    return [
        {
            "recording": rows.scores.recordings[owner[i]]["name"],
            "row": int(i - bounds[owner[i]][0]),
            "match_row": int(rows["place_match"][i]),
            "similarity": float(rows["place_similarity"][i]),
            "error_m": float(rows["place_error_m"][i]),
            "error_deg": float(rows["place_error_deg"][i]),
            "answerable": bool(rows["place_positives"][i] > 0),
        }
        for i in index[order[:WORST]]
    ]


def _meaning(settings: Numbers, numbers: Numbers) -> str:
    where = numbers["looked_up_in"]
    return (
        "Whether the most similar image shows the same place: its camera was at most "
        f"{settings['place_radius_m']:g} m away and turned by at most "
        f"{settings['place_heading_deg'] or 180:g} deg. Of {numbers['queries']} queries "
        f"{numbers['answerable']} have such an image in {'the map' if where == 'map' else where}."
    )


def _gallery(good: bool, count: int) -> Gallery:
    def frames(rows: Rows) -> list[Shown]:
        right, similarity = _right(rows), rows["place_similarity"]
        wanted = _asked(rows) & (right if good else ~right)
        order = np.argsort(-np.where(wanted, similarity, -np.inf), kind="stable")
        shown = []
        for i in rows.apart(order[: int(wanted.sum())], count):
            lines = [
                f"similarity {similarity[i]:.3f}",
                f"{rows['place_error_m'][i]:.2f} m, {rows['place_error_deg'][i]:.0f} deg away",
            ]
            if not good and rows["place_positives"][i] == 0:
                lines.append("there is no image of this place")
            shown.append(Shown(i, tuple(lines), int(rows["place_match"][i]), good))
        return shown

    which = "Surest right" if good else "Most confident wrong"
    title = f"{which} matches (the query, then its match)"
    return Gallery(title, frames)


PLACE = Section(
    "place",
    "Place recognition",
    _meaning,
    (
        *(Metric(f"recall_at_{k}", f"Recall@{k}", "%") for k in RECALLS),
        Metric("average_precision", "Average precision", "%"),
        Metric("recall_at_100_precision", "Recall at 100 % precision", "%"),
    ),
    # Answerable queries alone can be paired: both evaluations ask the same questions then.
    (Part(_answerable, _recalls), Part(_asked, _matching, never)),
    {"chance": Baseline("chance", "images at random instead of the most similar ones", _at_random)},
    _counts,
    shown=lambda numbers: f"{numbers['answerable']} of {numbers['queries']} queries have an answer",
    details=_details,
    figures=figures.places,
    galleries=(_gallery(False, 6), _gallery(True, 2)),
    headline="recall@1 {recall_at_1}",
)


def _views(frames: Frames) -> PlaceViews:
    truth = frames.truth
    return PlaceViews(frames.columns["descriptor"], truth.positions, truth.xyzw, frames.stamps_ns)


class _LookUp:
    """Keeps one descriptor a frame, and looks them up when all are there."""

    def __init__(self, settings: SamePlace, reference: Reference | None) -> None:
        self._settings, self._reference, self._parts = settings, reference, list[PlaceViews]()

    def add(self, frames: Frames) -> None:
        self._parts.append(_views(frames))

    def finish(self) -> Columns:
        own = PlaceViews.joined(self._parts)
        if self._reference is None:
            return score_places(own, own, self._settings, True)
        database = _views(self._reference.frames)
        if database.descriptor.shape[1] != own.descriptor.shape[1]:
            raise ConfigError(
                f"The recording's descriptors have {own.descriptor.shape[1]} numbers, those of the map "
                f"{database.descriptor.shape[1]}: use one model for both"
            )
        return score_places(own, database, self._settings, False)


class PlaceJudge(Judge):
    """Judges descriptors by what they retrieve, which true poses tell."""

    truth: ClassVar[frozenset[str]] = frozenset({"pose"})
    needs: ClassVar[tuple[str, ...]] = ("descriptor",)
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS
    reference: ClassVar[bool] = True
    Settings: ClassVar[type[Any]] = SamePlace

    def begin(
        self, facts: Mapping[str, Any], settings: Any, reference: Reference | None
    ) -> _LookUp:
        return _LookUp(settings, reference)

    def sections(self) -> Sequence[Section]:
        return (PLACE,)

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds which right answers are lost when the program looks up in a map that float32 made."""
        lost = _right(float32) & ~_right(program)
        return {
            "recall_at_1_lost": evidence.at_most(
                lost, _answerable(float32), LOST, "recall@1 loses {:.3f}"
            )
        }

    def why_not(self, settings: Numbers) -> str:
        return (
            f"nothing could be scored: beyond {settings['place_exclude_s']:g} s around each image there is "
            "none to look it up in (lower --place-exclude, or give --map-bag)"
        )
