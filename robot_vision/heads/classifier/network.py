"""Classifier head: calibrated class probabilities and a score for "none of these"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.constants import Constants
from robot_vision.contract.several import dropout_masks, join_answers
from robot_vision.heads.classifier.spec import FEATURE_SCORES, ClassifierSpec


class ClassifierHead(nn.Module):
    """Pooled features, dropout, a linear layer; softmax with a temperature.

    Temperature scaling is Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), eq.
    9: p = softmax(z / T). T changes which class is most probable only where several answers
    are averaged. The energy score is Liu et al., "Energy-based Out-of-distribution Detection" (NeurIPS
    2020), eq. 4: T logsumexp(z / T), here with the sign by which known images score high.

    Args:
        spec: labels, dropout, temperature and score.
        channels: C of the tap.

    Attributes:
        constants: `temperature` ().
        masks: buffer (S, C) of Monte Carlo dropout, or None.
    """

    masks: Tensor | None

    def __init__(self, spec: ClassifierSpec, channels: int) -> None:
        super().__init__()
        self.score = spec.score
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(channels, len(spec.labels))
        self.constants = Constants(temperature=())
        self.constants["temperature"].fill_(spec.temperature)
        self.register_buffer("masks", None)

    def set_passes(self, passes: int, seed: int) -> None:
        """Draws the masks of Monte Carlo dropout; 0 passes take them away."""
        units, rate = self.linear.in_features, self.dropout.p
        self.masks = None
        if passes:
            self.masks = dropout_masks(passes, units, rate, seed).to(self.linear.weight.device)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Computes the logits, on which a classifier is trained.

        Args:
            features: (N, C), or a feature map (N, C, H, W), which is averaged over H and W.

        Returns:
            `logits` (N, K), before the temperature; the pooled `features` (N, C); after training, with
            Monte Carlo dropout, also `logit_samples` (N, S, K).
        """
        if features.dim() == 4:
            features = features.mean(dim=(2, 3))  # (N, C)
        raw = {"logits": self.linear(self.dropout(features)), "features": features}
        if self.masks is not None and not self.training:
            raw["logit_samples"] = self.linear(features.unsqueeze(1) * self.masks)
        return raw

    def join(self, answers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Brings the answers of an ensemble's heads together: all of them, and their mean."""
        raw = join_answers(answers, {"logits": "logit_samples"})
        return {**raw, "logits": torch.stack([a["logits"] for a in answers]).mean(dim=0)}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns logits into final values.

        Args:
            raw: `logits` (N, K), `features` (N, C), and `logit_samples` (N, S, K) where the head answers
                several times.

        Returns:
            `probabilities` (N, K), which sum to 1, and `known_score` (N,), higher for known images; of
            several answers the mean, and their `mutual_information` (N,). A score of features is computed
            outside the graph (`known_scores`): then `features` (N, C) in place of `known_score`.
        """
        logits, temperature = raw["logits"].float(), self.constants["temperature"]
        scaled = logits / temperature
        probabilities = F.softmax(scaled, dim=1)
        outputs: dict[str, Tensor] = {}
        if "logit_samples" in raw:
            each = F.softmax(raw["logit_samples"].float() / temperature, dim=2)
            probabilities, outputs["mutual_information"] = mean_probabilities(each)
        if self.score in FEATURE_SCORES:
            outputs["features"] = raw["features"].float()
            return {"probabilities": probabilities, **outputs}
        if self.score == "max_probability":
            known = probabilities.amax(dim=1)
        elif self.score == "max_logit":
            known = logits.amax(dim=1)
        else:
            # Written out: OpenVINO 2026.4 reads ONNX's ReduceLogSumExp as one over all axes.
            largest = scaled.amax(dim=1)  # (N,)
            logsumexp = largest + (scaled - largest[:, None]).exp().sum(dim=1).log()
            known = temperature * logsumexp
        return {"probabilities": probabilities, "known_score": known, **outputs}


def mean_probabilities(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Averages class probabilities and measures the disagreement.

    The mutual information of class and answer, `H(mean p) - mean H(p)` (Houlsby et al. 2011, eq. 2): zero
    where all answers are alike, however unsure each is; at most log S and log K.

    Args:
        probabilities: (N, S, K).

    Returns:
        The mean (N, K), and the mutual information (N,) in nats.
    """
    mean = probabilities.mean(dim=1)
    information = entropy(mean) - entropy(probabilities).mean(dim=1)
    return mean, information.clamp(min=0.0)


def entropy(probabilities: Tensor) -> Tensor:
    """Returns the entropy in nats over the last axis; 0 log 0 is 0."""
    return -(probabilities * probabilities.clamp(min=1e-30).log()).sum(dim=-1)
