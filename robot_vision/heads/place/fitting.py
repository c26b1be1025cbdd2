"""The curve from the similarity of a best match to the probability that it shows the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone, poses_of
from robot_vision.errors import ConfigError
from robot_vision.heads.place.evaluation import PlaceViews, SamePlace, score_places
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.heads.place.probability import fit as fit_curve
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.statistics.judging import cross_fit, judge, log_loss
from robot_vision.statistics.reliability import calibration_error, reliability

# Ten events for each of the two numbers that are fitted (Peduzzi et al. 1996), of the rarer kind.
MIN_OF_EACH_OUTCOME = 20


class PlaceFitter(Fitter[PlaceSpec]):
    """See `Fitter`; without a curve of its own, a bundle's similarities are taken for probabilities."""

    parts: ClassVar[tuple[str, ...]] = ("place",)
    titles: ClassVar[dict[str, str]] = {
        "ece": "expected calibration error",
        "nll": "negative log likelihood",
        "brier": "Brier score",
    }

    def truth(self, part: str) -> str:
        return "pose"

    def compares(self, part: str, options: Any) -> bool:
        return True

    def _views(self, outputs: Mapping[str, Any], truth: Sequence[Any], stamps: Any) -> PlaceViews:
        return PlaceViews(outputs[self.key("descriptor")], *poses_of(truth)[1:], stamps)

    def fit(self, part: str, material: Fit[PlaceSpec], options: Any) -> Fitted:
        """Fits the probability that the best match shows the same place."""
        settings: SamePlace = material.settings.of(self.head.kind)
        resampler, folds = material.resampler, material.folds
        stamps = material.times(settings.place_exclude_s)
        queries = self._views(material.outputs, material.truth, stamps)
        if material.reference is not None and any(t is not None for t in material.reference[1]):
            none = np.zeros(len(material.reference[1]), np.int64)  # stamps: another recording
            stored, where = self._views(*material.reference, none), "training images"
        else:
            stored, where = queries, "these images, without neighbours in time"
        columns = score_places(queries, stored, settings, same_recording=stored is queries)
        similarity = columns["place_similarity"]
        rows = np.isfinite(similarity)
        heading = settings.place_heading_deg
        right = columns["place_error_m"] <= settings.place_radius_m
        if heading is not None:
            right &= columns["place_error_deg"] <= heading
        rarer = int(min(right[rows].sum(), (~right[rows]).sum()))
        if rarer < MIN_OF_EACH_OUTCOME:
            raise ConfigError(
                f"{self.key(part)}: of {int(rows.sum())} best matches {int(right[rows].sum())} are right: at "
                f"least {MIN_OF_EACH_OUTCOME} right and {MIN_OF_EACH_OUTCOME} wrong ones are needed to tell "
                "them apart; give more images, or leave it out with --heads"
            )
        known = material.record.get("probability")
        before = np.clip(similarity, 0.0, 1.0)
        if known is not None:
            before = PlaceProbability.from_dict(known)(similarity)
        after = np.zeros(len(rows))
        for asked, curve in cross_fit(
            folds, rows, lambda seen: fit_curve(similarity[seen], right[seen])
        ):
            after[asked] = curve(similarity[asked])
        numbers = (
            match_numbers(before[rows], right[rows], resampler, rows),
            match_numbers(after[rows], right[rows], resampler, rows),
        )
        losses = [log_loss(np.where(right, p, 1 - p)[rows]) for p in (before, after)]
        judgement = judge(losses[0], losses[1], material.units[rows])
        curve = fit_curve(similarity[rows], right[rows])
        text = f"1 / (1 + exp(-({curve.bias:.3f} + {curve.similarity:.3f} similarity)))"
        text = f"P(same place) = {text}"
        left = left_alone(judgement, numbers, text, "P(same place) stays as it is")
        found = Fitted(
            {
                "probability": curve.to_dict(),
                "looked_up_in": where,
                "radius_m": settings.place_radius_m,
                "heading_deg": heading,
                "reliability": reliability_rows(after[rows], right[rows]),
            },
            *numbers,
            int(rows.sum()),
            left,
        )
        found.said = [text]
        return found


def match_numbers(
    probability: NDArray[np.float64],
    right: NDArray[np.bool_],
    resampler: Resampler,
    rows: NDArray[np.bool_],
) -> Numbers:
    """Returns `ece`, `nll` and `brier` of the probabilities (n,) that matches are right."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    of_truth = np.where(right, p, 1 - p)
    return resampler.headlines(
        {
            "ece": calibration_error(np.clip(probability, 0, 1), right),
            ("nll", "brier"): mean(np.stack([-np.log(of_truth), (p - right) ** 2], axis=1)),
        },
        rows,
    )


def reliability_rows(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Any]:
    """Returns the filled bins of a reliability diagram: mean probability, share right, images."""
    return [
        [round(row["confidence"], 4), round(row["accuracy"], 4), row["frames"]]
        for row in reliability(np.clip(probability, 0, 1), right)
        if row["frames"]
    ]
