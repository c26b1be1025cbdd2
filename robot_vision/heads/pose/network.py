"""Pose head: position, orientation and covariance of the camera in the map, by regression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.constants import Constants
from robot_vision.contract.several import dropout_masks, join_answers
from robot_vision.errors import ConfigError
from robot_vision.heads.pose.covariance_layer import (
    CORRELATIONS,
    below_diagonal,
    correlation_factor,
    log_variance_bounds,
)
from robot_vision.heads.pose.known_views import KnownViews
from robot_vision.heads.pose.several import mean_pose
from robot_vision.heads.pose.spec import PoseSpec

MAX_POSITION = 1e6  # m
# What the head computes, to the name of the same of several answers (N, S, ...).
SAMPLES = {
    "position": "position_samples",
    "quaternion_xyzw": "quaternion_samples",
    "log_variance": "log_variance_samples",
    "correlation": "correlation_samples",
}


class PoseNetHead(nn.Module):
    """Regresses `T_map_camera`: position, unit quaternion, and the variance of both.

    Kendall, Grimes and Cipolla, "PoseNet" (ICCV 2015), section 3.2: pooled features, a fully
    connected layer with ReLU and dropout, and two linear regressors; the quaternion is normalised
    when testing. q and -q are one rotation: the one with w >= 0 is given. The variances are the
    heteroscedastic uncertainty of Kendall and Gal (NeurIPS 2017), eq. 8: the network gives s = log
    sigma^2 of each axis.

    Departures from the paper: the position is regressed in units of the training set's spread
    (`position_mean`, `position_scale`), so that one learning rate serves a desk and a campus; and
    `reduce_channels` keeps where in the image a feature was, which pooling forgets.

    Args:
        spec: layer sizes and dropout.
        shape: the tap's shape, (C,) or (C, H, W).

    Attributes:
        position_mean: buffer (3,), metres: the centre of the training positions.
        position_scale: buffer (), metres: their spread; one number, so that distances keep their
            ratio.
        constants: `covariance_factor` (6, 6), which multiplies the covariance of each answer, so that the
            spread of several is left as it is.
            With views also `view_growth` (6,): how variances grow with the distance to known views
            (`variance_scales.py`).
        views: `KnownViews` of what the hidden layer reads, or None.
        masks: buffer (S, hidden) of Monte Carlo dropout, or None.

    Raises:
        ConfigError: `reduce_channels` is asked of a tap that is no feature map.
    """

    position_mean: Tensor
    position_scale: Tensor
    position_axes: Tensor
    identity: Tensor
    diagonal: Tensor
    log_variance_low: Tensor
    log_variance_high: Tensor
    below_diagonal: Tensor
    masks: Tensor | None

    def __init__(self, spec: PoseSpec, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels = shape[0]
        self.reduce: nn.Module | None = None
        if spec.reduce_channels:
            if len(shape) != 3:
                raise ConfigError(
                    f"pose reduce_channels is {spec.reduce_channels}, which needs a feature map: "
                    f"the tap {spec.tap!r} has shape {shape}; use 0, or another tap"
                )
            self.reduce = nn.Conv2d(channels, spec.reduce_channels, kernel_size=1)
            channels = spec.reduce_channels * shape[1] * shape[2]
        self.hidden = nn.Linear(channels, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.position = nn.Linear(spec.hidden, 3)
        self.quaternion = nn.Linear(spec.hidden, 4)
        self.log_variance = nn.Linear(spec.hidden, 6)
        self.correlation: nn.Linear | None = None
        if spec.covariance == "cholesky":
            self.correlation = nn.Linear(spec.hidden, CORRELATIONS)
            nn.init.zeros_(self.correlation.weight)  # axes are independent until a loss says else
            nn.init.zeros_(self.correlation.bias)
        # Start at the identity rotation (away from the zero quaternion, which has no direction) and
        # at a variance of one, which a loss then shrinks.
        with torch.no_grad():
            self.quaternion.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
            self.log_variance.weight.zero_()
            self.log_variance.bias.zero_()
        self.register_buffer("position_mean", torch.zeros(3))
        self.register_buffer("position_scale", torch.ones(()))
        self.register_buffer("masks", None)
        self.views = KnownViews(spec.views, channels) if spec.views else None
        growth = {"view_growth": (6,)} if spec.views else {}
        self.constants = Constants(covariance_factor=(6, 6), **growth)
        # What never changes: on the CPU even when the rest is built without data, and not saved.
        low, high = log_variance_bounds()
        unchanging = {
            "position_axes": torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], device="cpu"),
            "identity": torch.tensor([0.0, 0.0, 0.0, 1.0], device="cpu"),
            "diagonal": torch.eye(6, device="cpu"),
            "log_variance_low": low,
            "log_variance_high": high,
            "below_diagonal": below_diagonal(),
        }
        for name, value in unchanging.items():
            self.register_buffer(name, value, persistent=False)

    def set_passes(self, passes: int, seed: int) -> None:
        """Draws the masks of Monte Carlo dropout; 0 passes take them away."""
        units, rate = self.hidden.out_features, self.dropout.p
        self.masks = None
        if passes:
            self.masks = dropout_masks(passes, units, rate, seed).to(self.hidden.weight.device)

    def set_position_statistics(self, positions: Tensor) -> None:
        """Sets mean and scale from the training positions.

        Args:
            positions: (N, 3), metres, in the map frame.
        """
        positions = positions.double()
        mean = positions.mean(dim=0)
        scale = (positions - mean).square().mean().sqrt()
        self.position_mean.copy_(mean)
        self.position_scale.copy_(scale.clamp(min=1e-3))  # a camera that never moved still trains

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Regresses what a pose loss is computed on.

        Args:
            features: (N, C), or a feature map (N, C, H, W).

        Returns:
            `position` (N, 3), metres in the map frame; `quaternion_xyzw` (N, 4), not normalised;
            `log_variance` (N, 6), of x, y, z (log m^2) and of the rotation about X, Y, Z (log
            rad^2); with a full covariance also `correlation` (N, 15), from which
            `covariance.correlation_factor` makes the Cholesky factor of the axes' correlations.
            After training, with Monte Carlo dropout, the same of S passes (N, S, ...) under the names
            that `SAMPLES` gives them.
        """
        features = self.read(features)
        hidden = F.relu(self.hidden(features))  # (N, hidden)
        raw = self._regress(self.dropout(hidden))
        if self.masks is not None and not self.training:
            each = self._regress(hidden.unsqueeze(1) * self.masks)  # (N, S, hidden)
            raw.update({SAMPLES[name]: value for name, value in each.items()})
        if self.views is not None and not self.training:
            raw["distance"] = self.views(features)
        return raw

    def read(self, features: Tensor) -> Tensor:
        """Returns what the hidden layer reads (N, D) of the tap's features."""
        if self.reduce is not None:
            return self.reduce(features).flatten(1)  # (N, R * H * W)
        return features.mean(dim=(2, 3)) if features.dim() == 4 else features  # (N, C)

    def _regress(self, hidden: Tensor) -> dict[str, Tensor]:
        """The regressors alone, on (..., hidden)."""
        scale = self.position_scale
        position = self.position_mean + scale * self.position(hidden)
        # The position's variance is regressed in the same units: log (scale^2 v) = log v + 2 log scale.
        log_variance = self.log_variance(hidden) + 2 * scale.log() * self.position_axes
        raw = {
            "position": position,
            "quaternion_xyzw": self.quaternion(hidden),
            "log_variance": log_variance,
        }
        if self.correlation is not None:
            raw["correlation"] = self.correlation(hidden)
        return raw

    def join(self, answers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Brings the answers of an ensemble's heads together."""
        return join_answers(answers, SAMPLES)

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns the regressed numbers into final values, which are finite for any finite input.

        Args:
            raw: what `forward` returned.

        Returns:
            `position` (N, 3), metres; `orientation_xyzw` (N, 4), unit, w >= 0 (the identity for the
            zero quaternion); `pose_covariance` (N, 6, 6), positive definite, and diagonal unless
            the spec asks for a full one. Of several answers the mean pose with the total covariance,
            and `pose_spread` (N, 6, 6), the part of it by which the answers differ. With views, `known_view`
            (N,), from 0 to 1: 1 - d^2 / 4, with d the distance to the nearest.
        """
        decoded = self._decode_all(raw)
        if "distance" in raw:
            squared = raw["distance"].float().unsqueeze(1)  # (N, 1)
            growth = squared.square().square() * self.constants["view_growth"]  # (N, 6), d^8
            root = (1 + growth).sqrt()
            spread = decoded.get("pose_spread", torch.zeros(1).to(squared))
            inside = (decoded["pose_covariance"] - spread) * root.unsqueeze(2) * root.unsqueeze(1)
            decoded["pose_covariance"] = inside + spread
            decoded["known_view"] = 1 - squared.squeeze(1) / 4
        return decoded

    def _decode_all(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Brings several answers together, without what views say."""
        if SAMPLES["position"] not in raw:
            return self._decode_one(raw)
        # (N, S, ...) as (N * S, ...), through the same arithmetic, and back. The sizes are written into the
        # graph as numbers: OpenVINO finds no output shapes through computed ones.
        samples = {name: raw[sample] for name, sample in SAMPLES.items() if sample in raw}
        count = int(samples["position"].shape[1])
        flat = {name: v.reshape(-1, int(v.shape[2])) for name, v in samples.items()}
        each = {
            name: v.reshape(-1, count, *(int(size) for size in v.shape[1:]))
            for name, v in self._decode_one(flat).items()
        }
        position, orientation, covariance, spread = mean_pose(
            each["position"], each["orientation_xyzw"], each["pose_covariance"]
        )
        return {
            "position": position,
            "orientation_xyzw": orientation,
            "pose_covariance": covariance,
            "pose_spread": spread,
        }

    def _decode_one(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        position = raw["position"].float().clamp(-MAX_POSITION, MAX_POSITION)
        q = raw["quaternion_xyzw"].float()
        # (N, 1); dividing by it, squares cannot overflow
        largest = q.abs().amax(dim=1, keepdim=True)
        tiny = torch.finfo(torch.float32).tiny
        q = torch.where(largest >= tiny, q / largest.clamp(min=tiny), self.identity.float())
        q = q / q.square().sum(dim=1, keepdim=True).sqrt()
        q = torch.where(q[:, 3:] < 0, -q, q)
        # min(max()) and not clamp(): tensors as bounds have no ONNX operator of their own.
        bounded = torch.minimum(
            torch.maximum(raw["log_variance"].float(), self.log_variance_low.float()),
            self.log_variance_high.float(),
        )
        if "correlation" in raw:
            factor = correlation_factor(raw["correlation"].float(), self.below_diagonal.float())
            factor = factor * (0.5 * bounded).exp().unsqueeze(2)  # D U
            covariance = factor @ factor.transpose(1, 2)
        else:
            covariance = bounded.exp().unsqueeze(2) * self.diagonal.float()  # (N, 6, 6)
        covariance = covariance * self.constants["covariance_factor"]
        return {"position": position, "orientation_xyzw": q, "pose_covariance": covariance}
