"""The words of the demo bundle's model card, around the figures that the training script measured."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any


def card_text(
    m: Mapping[str, float], training: Mapping[str, Any], seeds: Mapping[str, tuple[int, ...]]
) -> str:
    """Returns the model card's introduction.

    Args:
        m: what was measured.
        training: what the manifest says of the training.
        seeds: of the drives, by the name of their set.
    """
    frames = training["frames"]
    listed = {name: ", ".join(map(str, numbers)) for name, numbers in seeds.items()}
    parts = [
        "Rooms, poses and places of the world of `make demo`, and something to try the nodes with. It "
        "knows the rendered world of `robot_vision/simulation/world` and nothing else: **on a real "
        "camera its answers mean nothing.**",
        "## Data",
        f"All frames are rendered by this repository. Training: {frames['training']} frames, from random "
        f"free places and from drives with seeds {listed['training']}, each under lamps, exposure, colour "
        "balance and noise of its own. Calibration of temperature, threshold and variances: "
        f"{frames['calibration']} frames of drives with seeds {listed['calibration']}. Test: "
        f"{frames['test']} frames of drives with seeds {listed['test']}, which neither training nor "
        f"calibration saw; the demo drives seed {seeds['test'][0]}. All drives go through the same five "
        "rooms, on other paths and with other views and light: this says nothing of rooms that were not "
        "trained on.",
        f"The first stages of the backbone keep their ImageNet weights ({training['backbone_weights']}). "
        "Two more stages were trained with the classifier for "
        f"{training['classifier_epochs']} epochs, and the pose head, on the frozen stages, for "
        f"{training['pose_epochs']}. The place head has k-means clusters and PCA whitening from "
        "training frames, and no further training. To train it again:",
        f"    {training['command']}",
        "## On the test drives",
        _table(m),
        "The covariance is honest where the normalised squared error of a pose's six numbers averages 6: "
        f"here it is {m['mean_nees_of_6']:.1f}, and {_percent(m['share_within_95_percent_ellipsoid'])} of "
        "the true poses lie in the 95 percent ellipsoid. The threshold for `unknown` keeps "
        f"{_percent(m['share_kept_as_known'])} of the test frames. The best room's probability averages "
        f"{m['mean_probability_of_best_room']:.3f}.",
        "## Limits",
        "A doorway shows two rooms, and the label is the one where the camera stands: most wrong rooms are "
        "there. A bare wall close by says little about where one is, and the covariance grows there.",
    ]
    kept = ("    ", "|", "#")
    return "\n\n".join(p if p.startswith(kept) else textwrap.fill(p, 108) for p in parts) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} percent"


def _table(m: Mapping[str, float]) -> str:
    image = "most similar mapped image"
    rows = [
        ("", "this model", "beside it"),
        ("---", "---", "---"),
        (
            "room accuracy",
            f"{m['room_accuracy']:.3f}",
            f"{m['baseline_most_frequent_room_accuracy']:.3f} always the most frequent room; "
            f"{m['baseline_nearest_image_room_accuracy']:.3f} room of the {image}",
        ),
        (
            "median position error",
            f"{m['median_position_error_m']:.2f} m",
            f"{m['baseline_mean_pose_median_error_m']:.2f} m always the mean position; "
            f"{m['baseline_nearest_image_median_error_m']:.2f} m pose of the {image}",
        ),
        ("90th percentile of it", f"{m['p90_position_error_m']:.2f} m", ""),
        (
            "median rotation error",
            f"{m['median_rotation_error_deg']:.1f} deg",
            f"{m['baseline_nearest_image_median_error_deg']:.1f} deg pose of the {image}",
        ),
        (
            f"recall@1 within {m['place_radius_m']:g} m and {m['place_heading_deg']:g} deg",
            f"{m['recall_at_1']:.3f}",
            f"{m['recall_at_1_possible']:.3f} is the most that the mapping drive allows",
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
