"""The curve from the similarity of a best match to the probability that it shows the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.folds import (
    left_alone,
    match_numbers,
    reliability_rows,
    times_of,
)
from robot_vision.contract.calibration import (
    Calibration,
    Fitted,
    Material,
    Options,
    true_poses,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.place.evaluation import Views, score_places
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.heads.place.probability import fit as fit_place_probability
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.judging import cross_fit, judge, log_loss

# Ten events for each of the two numbers that are fitted (Peduzzi et al. 1996), of the rarer kind.
MIN_OF_EACH_OUTCOME = 20


def fit_place(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    reference: Material | None,
    folds: NDArray[np.int64],
    units: NDArray[np.int64],
    resampler: Resampler,
    options: Options,
) -> None:
    """Fits the probability that the best match shows the same place.

    Args:
        found: gets the result.
        bundle: as it is; without a curve of its own, its similarities are taken for probabilities.
        material: held out, looked up.
        reference: looked up in, or None for the recording itself without neighbours in time.
        folds: (N,).
        units: (N,), which samples count as one.
        resampler: over the samples.
        options: what the same place is.

    Raises:
        ConfigError: too few right or too few wrong matches.
    """
    exclude_s = options.settings.place_exclude_s
    queries = _views(material, exclude_s)
    if reference is not None and reference.posed.any():
        stored = _views(reference, exclude_s)
        columns = score_places(queries, stored, options.settings, same_recording=False)
        where = "training images"
    else:
        columns = score_places(queries, queries, options.settings, same_recording=True)
        where = "these images, without neighbours in time"
    similarity = columns["place_similarity"]
    rows = np.isfinite(similarity)
    heading = options.settings.place_heading_deg
    right = columns["place_error_m"] <= options.settings.place_radius_m
    if heading is not None:
        right &= columns["place_error_deg"] <= heading
    rarer = int(min(right[rows].sum(), (~right[rows]).sum()))
    if rarer < MIN_OF_EACH_OUTCOME:
        raise ConfigError(
            f"place: of {int(rows.sum())} best matches {int(right[rows].sum())} are right: at least "
            f"{MIN_OF_EACH_OUTCOME} right and {MIN_OF_EACH_OUTCOME} wrong ones are needed to tell them "
            "apart; give more images, or leave it out with --heads"
        )
    known = (bundle.calibration.get("place") or {}).get("probability")
    before = np.clip(similarity, 0.0, 1.0)
    if known is not None:
        before = PlaceProbability.from_dict(known)(similarity)
    after = np.zeros(len(rows))
    for asked, curve in cross_fit(
        folds, rows, lambda seen: fit_place_probability(similarity[seen], right[seen])
    ):
        after[asked] = curve(similarity[asked])
    numbers = (
        match_numbers(before[rows], right[rows], resampler, rows),
        match_numbers(after[rows], right[rows], resampler, rows),
    )
    losses = [log_loss(np.where(right, p, 1 - p)[rows]) for p in (before, after)]
    judgement = judge(losses[0], losses[1], units[rows])
    curve = fit_place_probability(similarity[rows], right[rows])
    found.heads["place"] = Fitted(
        {
            "probability": curve.to_dict(),
            "looked_up_in": where,
            "radius_m": options.settings.place_radius_m,
            "heading_deg": heading,
            "reliability": reliability_rows(after[rows], right[rows]),
        },
        *numbers,
        int(rows.sum()),
        left_alone(
            judgement,
            numbers,
            f"P(same place) = 1 / (1 + exp(-({curve.bias:.3f} + {curve.similarity:.3f} similarity)))",
            "P(same place) stays as it is",
        ),
    )


def _views(material: Material, exclude_s: float) -> Views:
    rows = material.posed
    count = len(rows)
    position, xyzw = np.full((count, 3), np.nan), np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
    position[rows], xyzw[rows] = true_poses(material, rows)
    stamps = times_of(material.samples, exclude_s)
    return Views(material.outputs["descriptor"], position, xyzw, stamps)
