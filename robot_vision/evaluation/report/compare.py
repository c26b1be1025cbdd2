"""What changed since an earlier evaluation, and whether it is more than noise.

Where both have the same frames (recording and stamp), each number's difference is bootstrapped on these
frames: what makes a frame hard is then the same on both sides and cancels. Otherwise the two confidence
intervals are all there is: the difference counts when it exceeds the root of the sum of their squared
half widths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import numbers
from robot_vision.contract.rows import Scores, what_ran
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import sections_of
from robot_vision.evaluation.merge import scores_of
from robot_vision.evaluation.report.headlines import Headline, Number, headlines
from robot_vision.statistics.bootstrap import Resampler, difference

_LEAST_SHARED = 0.5  # of the frames of the smaller evaluation


@dataclass(frozen=True)
class Change:
    """One number before and after. Where the frames are the same, all three are of the shared frames.

    Attributes:
        headline: what it is.
        old: its old value.
        new: its new value.
        difference: new minus old, with its interval.
        paired: whether the frames are the same.
        verdict: `better`, `worse`, `same` (not more than noise) or `unknown` (no intervals).
    """

    headline: Headline
    old: Number
    new: Number
    difference: Number
    paired: bool
    verdict: str


def compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[list[Change], list[str]]:
    """Returns the changes of all numbers that both documents have, and notes on what may not be compared.

    Raises:
        SourceError: the rows of a document cannot be read.
    """
    before = {(h.section, h.key): h.number for h in headlines(old)}
    a, b = scores_of(dict(new)), scores_of(dict(old))
    notes = _notes(new, old)
    rows_new, rows_old = shared_rows(a, b)
    paired: dict[tuple[str, str], tuple[Number, Number, Number]] = {}
    least = min(len(a), len(b))
    if len(rows_new) and len(rows_new) >= _LEAST_SHARED * least:
        notes.append(
            f"{len(rows_new)} of {len(a)} frames are those of the earlier evaluation: paired"
        )
        settings = EvaluationSettings.from_dict(dict(new["settings"]))
        paired = _paired(a, b, rows_new, rows_old, settings)
    else:
        notes.append("the frames are others: only the confidence intervals are compared")
    changes = []
    for headline in headlines(new):
        key = headline.section, headline.key
        if key not in before:
            continue
        if key in paired:
            was, now, difference = paired[key]
        else:
            was, now = before[key], headline.number
            difference = _unpaired(now, was)
        verdict = _verdict(difference, headline.metric.more_is_better)
        changes.append(Change(headline, was, now, difference, key in paired, verdict))
    return changes, notes


def shared_rows(new: Scores, old: Scores) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows of the same frames in both, in the order of `new`."""
    index: dict[tuple[str, int], int] = {}
    for recording, (start, end) in zip(old.recordings, old.bounds, strict=True):
        for i in range(start, end):
            index[recording["name"], int(old["stamps_ns"][i])] = i
    pairs = []
    for recording, (start, end) in zip(new.recordings, new.bounds, strict=True):
        for i in range(start, end):
            j = index.get((recording["name"], int(new["stamps_ns"][i])))
            if j is not None:
                pairs.append((i, j))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def taken(scores: Scores, rows: NDArray[np.int64]) -> Scores:
    """Returns some rows, in their order, with the recordings that they belong to."""
    recordings = []
    for recording, (start, end) in zip(scores.recordings, scores.bounds, strict=True):
        count = int(((rows >= start) & (rows < end)).sum())
        recordings.append({**recording, "frames": count})
    columns = {name: column[rows] for name, column in scores.columns.items()}
    return replace(scores, columns=columns, recordings=tuple(recordings))


def _paired(
    new: Scores,
    old: Scores,
    rows_new: NDArray[np.int64],
    rows_old: NDArray[np.int64],
    settings: EvaluationSettings,
) -> dict[tuple[str, str], tuple[Number, Number, Number]]:
    """Returns old, new and difference of each number, of the shared frames."""
    a = taken(new, rows_new)
    b = replace(a, columns={n: c[rows_old] for n, c in old.columns.items()}, labels=old.labels)
    resampler = Resampler(a["stamps_ns"], a.bounds, settings)
    without = Resampler(a["stamps_ns"], a.bounds, replace(settings, resamples=0))
    found: dict[tuple[str, str], tuple[Number, Number, Number]] = {}
    then = sections_of(b)
    for key, given in sections_of(a).items():
        for (ours, section), (theirs, _) in zip(given, then.get(key, ()), strict=False):
            for part in section.parts:
                mask = part.usable(ours) & part.usable(theirs)
                if not mask.any() or not part.paired(ours, theirs):
                    continue
                now, was = part.statistics(ours, mask), part.statistics(theirs, mask)
                values = [numbers(each, mask, without) for each in (was, now)]
                differences = {
                    name: difference(mine, other)
                    for name, mine in now.items()
                    if callable(mine) and callable(other := was.get(name))
                }
                for name, value in resampler.headlines(differences, mask).items():
                    if value["value"] is not None:
                        before, after = (Number.of(each[name]) for each in values)
                        found[key, name] = before, after, Number.of(value)
    return found


def _unpaired(new: Number, old: Number) -> Number:
    if new.value is None or old.value is None:
        return Number(None)
    delta = new.value - old.value
    if None in (new.low, new.high, old.low, old.high):
        return Number(delta)
    # Towards each other: the side on which the two could meet.
    down = math.hypot(new.value - (new.low or 0.0), (old.high or 0.0) - old.value)
    up = math.hypot((new.high or 0.0) - new.value, old.value - (old.low or 0.0))
    return Number(delta, delta - down, delta + up)


def _verdict(difference: Number, more_is_better: bool) -> str:
    if difference.low is None or difference.high is None or difference.value is None:
        return "same" if difference.value == 0 else "unknown"
    if difference.low <= 0 <= difference.high:
        return "same"
    return "better" if (difference.value > 0) == more_is_better else "worse"


def _notes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    notes = []
    for key, value in new["settings"].items():
        if old["settings"].get(key) != value:
            notes.append(f"setting {key} was {old['settings'].get(key)!r} and is {value!r}")
    if list(new.get("labels", [])) != list(old.get("labels", [])):
        notes.append("the classes are others: class numbers are not compared frame by frame")
    was, now = (_ran(document) for document in (old, new))
    if was and now and was != now:
        notes.append(f"the program was {was} and is {now}")
    return notes


def _ran(document: Mapping[str, Any]) -> str:
    return " and ".join(sorted({what_ran(r) for r in document["recordings"]} - {""}))


def change_lines(changes: list[Change], notes: list[str]) -> list[list[str]]:
    """Returns rows of a table: words, old, new, difference and verdict."""
    rows = []
    for change in changes:
        h = change.headline.metric
        sign = "+" if (change.difference.value or 0) > 0 else ""
        rows.append(
            [
                h.words,
                change.old.text(h.unit, interval=False),
                change.new.text(h.unit, interval=False),
                sign + change.difference.text(h.unit),
                VERDICTS[change.verdict],
            ]
        )
    return rows


VERDICTS = {
    "better": "better",
    "worse": "WORSE",
    "same": "within noise",
    "unknown": "no interval",
}
