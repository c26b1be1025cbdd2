"""Results of one frame, as the rest of the world sees them: plain NumPy, no engine, no ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Hypothesis:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class Classification:
    """Calibrated class probabilities.

    Attributes:
        labels: class names (K).
        probabilities: float32 (K,), sums to 1.
        known_score: high for images like those trained on (`ClassifierSpec.score`).
        mutual_information: nats by which the head's several answers disagree (`EpistemicSpec`); None
            where it answers once.
        rarity: share of known images with a higher `known_score`, from the bundle's calibration; None
            where it has none.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    known_score: float
    mutual_information: float | None = None
    rarity: float | None = None

    @property
    def entropy(self) -> float:
        """Entropy of the probabilities in nats: all uncertainty, of whichever cause."""
        p = self.probabilities.astype(np.float64)
        return float(-(p * np.log(np.maximum(p, 1e-300))).sum())

    def top_k(self, k: int, unknown_threshold: float | None = None) -> list[Hypothesis]:
        """Returns the k most probable labels, most probable first; ties in the order of the labels.

        Below the threshold the first is `unknown` and k labels follow, as one distribution: whether a
        subscriber reads the first result or sorts by score, it gets `unknown`. Its score is the share of
        known images that look more familiar than this one (`rarity`), and at least one half: with a
        threshold that keeps 95 % of them it is at least 0.95. The labels share what that leaves of 1, by
        their probabilities given that it is one of them. Without a calibration `unknown` has what the best
        label leaves. Above the threshold its score is taken for zero.
        """
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 1)]
        best = [Hypothesis(self.labels[i], float(self.probabilities[i])) for i in order]
        if unknown_threshold is None or not self.known_score < unknown_threshold:
            return best
        rarity = 1.0 - best[0].score if self.rarity is None else self.rarity
        score, factor = score_of_unknown(rarity, 1.0)
        return [Hypothesis(UNKNOWN, score), *(Hypothesis(h.label, h.score * factor) for h in best)]


def score_of_unknown(score: float, others: float) -> tuple[float, float]:
    """Returns the score of `unknown` where it is the answer, and the factor of all other scores.

    Nothing that follows it may have a higher score, and all of them together are at most 1.

    Args:
        score: that it should have.
        others: sum of the scores of all others.
    """
    score = min(max(score, 0.5), 1.0)
    return score, min(1.0, (1.0 - score) / others) if others > 0 else 1.0


@dataclass(frozen=True)
class CameraPose:
    """`T_map_camera`: pose of the camera's optical frame (z forward, x right, y down) in the map.

    Attributes:
        position: float64 (3,), metres.
        orientation_xyzw: float64 (4,), unit quaternion with w >= 0.
        covariance: float64 (6, 6), x y z in m^2, then rotation about the map's fixed X, Y, Z in rad^2
            (the order of geometry_msgs/PoseWithCovariance); symmetric positive definite.
        spread: float64 (6, 6), the part of the covariance by which the head's several answers differ
            (`EpistemicSpec`); None where it answers once.
    """

    position: NDArray[np.float64]
    orientation_xyzw: NDArray[np.float64]
    covariance: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image; a head that the bundle lacks is None.

    Attributes:
        descriptor: float32 (D,), L2 norm 1.
    """

    classification: Classification | None = None
    pose: CameraPose | None = None
    descriptor: NDArray[np.float32] | None = None

    def not_finite(self) -> str:
        """Returns why nobody may be given this: an answer with NaN or infinity, of a network that overflowed.

        Empty where all is well. Covariances are not looked at: messages say "unknown" for them.
        """
        parts: dict[str, NDArray[np.floating] | float | None] = {"descriptor": self.descriptor}
        if self.classification is not None:
            parts["probabilities"] = self.classification.probabilities
            parts["known_score"] = self.classification.known_score
        if self.pose is not None:
            parts["position"] = self.pose.position
            parts["orientation"] = self.pose.orientation_xyzw
        for name, values in parts.items():
            if values is not None and not np.isfinite(values).all():
                return f"the network's {name} is not finite"
        return ""

    def several_answers(self) -> dict[str, float]:
        """Returns what a network that answers several times says of its own answers, as named numbers.

        `entropy` and `mutual_information` (nats) of the classes; `position_sigma_m` and
        `rotation_sigma_rad`, the roots of the traces of both blocks of the pose's covariance, and
        `position_spread_m` and `rotation_spread_rad`, those of the part by which the answers differ. Empty
        for a network that answers once.
        """
        values: dict[str, float] = {}
        classes, pose = self.classification, self.pose
        if classes is not None and classes.mutual_information is not None:
            values["entropy"] = classes.entropy
            values["mutual_information"] = classes.mutual_information
        if pose is not None and pose.spread is not None:
            for name, matrix in (("sigma", pose.covariance), ("spread", pose.spread)):
                variances = np.maximum(np.diagonal(matrix), 0.0)
                values[f"position_{name}_m"] = float(np.sqrt(variances[:3].sum()))
                values[f"rotation_{name}_rad"] = float(np.sqrt(variances[3:].sum()))
        return values
