"""How DroNet is judged: steering and collision, each compared with a constant and a random answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    Part,
    Section,
    Shown,
    Statistics,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.heads.dronet.answer import COLLIDES, WORDS
from robot_vision.heads.dronet.evaluation import (
    Numbers,
    collision_statistics,
    random_collision,
    random_steering,
    steering_statistics,
)
from robot_vision.heads.dronet.figures import over_time
from robot_vision.statistics.bootstrap import root_mean_square
from robot_vision.statistics.paired import Bound, PairedEvidence

ERRORS_RATIO, LOST = 1.03, 0.02  # of a program against float32
ROWS = {
    "steering": RowColumn("<f8", 1, "said, from -1 to 1", identity=True),
    "true_steering": RowColumn("<f8", 1, "from -1 to 1", identity=True),
    "collision": RowColumn("<f8", 1, "probability said", identity=True),
    "true_collision": RowColumn("<f8", 1, "0 or 1", identity=True),
}

Measure = Callable[[Numbers, Numbers], Statistics]


def _usable(word: str) -> Callable[[Rows], Mask]:
    return lambda rows: np.isfinite(rows[word]) & np.isfinite(rows[f"true_{word}"])


def _part(word: str, measure: Measure) -> Part:
    return Part(
        _usable(word), lambda rows, mask: measure(rows[word][mask], rows[f"true_{word}"][mask])
    )


def _baseline(
    word: str, words: str, text: str, measure: Measure, say: Callable[[Numbers], Numbers]
) -> Baseline:
    def statistics(rows: Rows, mask: Mask) -> Statistics:
        true = rows[f"true_{word}"][mask]
        return measure(say(true) if len(true) else true, true)

    return Baseline(words, text, statistics)


def _largest_errors(word: str) -> Gallery:
    def frames(rows: Rows) -> list[Shown]:
        said, true = rows[word], rows[f"true_{word}"]
        usable = _usable(word)(rows)
        order = np.argsort(-np.where(usable, np.abs(said - true), -np.inf), kind="stable")
        return [
            Shown(i, (f"said {said[i]:.2f}", f"is {true[i]:.2f}"))
            for i in rows.apart(order[: int(usable.sum())], 6)
        ]

    return Gallery(f"Largest errors of {word}", frames)


STEERING = Section(
    "steering",
    "Steering",
    "How far the steering, from -1 to 1, is from the true one, and which share of its variance is explained.",
    (
        Metric("rmse", "Root mean square error", "", False),
        Metric("explained_variance", "Explained variance", "%"),
    ),
    (_part("steering", steering_statistics),),
    {
        "constant": _baseline(
            "steering",
            "constant",
            "always the mean of these very frames",
            steering_statistics,
            lambda true: np.full(len(true), true.mean()),
        ),
        "random": _baseline(
            "steering",
            "random",
            "drawn from a normal distribution with the mean and deviation of these very frames, seed 0",
            steering_statistics,
            lambda true: random_steering(true, len(true)),
        ),
    },
    figures=lambda rows, numbers: over_time(rows, "steering", -1.0),
    galleries=(_largest_errors("steering"),),
    headline="steering RMSE {rmse}",
)

COLLISION = Section(
    "collision",
    "Collision",
    "Whether a collision is said, from a probability of one half on, where there is one; and how well the "
    "probability tells images with one from those without.",
    (
        Metric("accuracy", "Accuracy", "%"),
        Metric("f1", "F1 score", "%"),
        Metric("auroc", "AUROC", "%"),
    ),
    (_part("collision", collision_statistics),),
    {
        "constant": _baseline(
            "collision",
            "constant",
            "always what is more frequent in these very frames",
            collision_statistics,
            lambda true: np.full(len(true), float(true.mean() > 0.5)),
        ),
        "random": _baseline(
            "collision",
            "random",
            "a coin, seed 0",
            collision_statistics,
            lambda true: random_collision(len(true)),
        ),
    },
    figures=lambda rows, numbers: over_time(rows, "collision", 0.0),
    galleries=(_largest_errors("collision"),),
    headline="collision accuracy {accuracy}",
)


class DronetJudge(Judge):
    """Judges steering and collision by true numbers of these names."""

    truth: ClassVar[frozenset[str]] = frozenset(f"number:{word}" for word in WORDS)
    needs: ClassVar[tuple[str, ...]] = WORDS
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        none = np.full(len(frames.stamps_ns), np.nan)
        numbers = frames.truth.numbers
        said = {word: np.asarray(frames.columns[word], np.float64) for word in WORDS}
        return said | {f"true_{word}": numbers.get(word, none) for word in WORDS}

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds how much larger the error of steering is, and which right words on collision are lost."""
        steered, warned = (_usable(word)(float32) for word in WORDS)
        found = {}
        if steered.any():
            errors = [
                root_mean_square((rows["steering"] - rows["true_steering"])[steered])
                for rows in (program, float32)
            ]
            found["steering_rmse_ratio"] = evidence.ratio(
                errors, steered, ERRORS_RATIO, "steering error {:.3f} times"
            )
        if warned.any():
            true = float32["true_collision"] >= COLLIDES
            right, still = ((r["collision"] >= COLLIDES) == true for r in (float32, program))
            found["collision_lost"] = evidence.at_most(right & ~still, warned, LOST)
        return found

    def sections(self) -> Sequence[Section]:
        return (STEERING, COLLISION)
