"""Pose regression losses: PoseNet's fixed weight, and learned weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.errors import ConfigError, unknown
from robot_vision.heads.pose.losses.rotations import (
    aligned,
    conjugate,
    multiply,
    rotation_vector,
    unit,
    xyzw_of,
)

NORMS = ("l1", "l2")


class PosePairs:
    """Predicted and true poses of the samples that have one.

    Attributes:
        keep: bool (N,), which samples these are.
        position, true_position: (M, 3), metres, in the map frame.
        quaternion: (M, 4), as regressed, of any length.
        true_quaternion: (M, 4), unit, on the same side as the prediction: q and -q are one rotation,
            and no loss may depend on which one a data set happens to hold.
    """

    def __init__(self, raw: Tensors, batch: Tensors) -> None:
        self.keep = batch["has_pose"].bool()
        self.position = full_precision(raw["position"])[self.keep]
        self.quaternion = full_precision(raw["quaternion_xyzw"])[self.keep]
        T_map_camera = batch["T_map_camera"][self.keep].to(self.position)
        self.true_position = T_map_camera[:, :3, 3]
        self.true_quaternion = aligned(xyzw_of(T_map_camera[:, :3, :3]), self.quaternion.detach())

    def __len__(self) -> int:
        return len(self.position)

    def errors(self) -> dict[str, Tensor]:
        """Returns the mean errors `position_m` and `rotation_deg`, detached, for the log."""
        with torch.no_grad():
            distance = torch.linalg.vector_norm(self.position - self.true_position, dim=1)
            angle = torch.linalg.vector_norm(self.residual()[:, 3:], dim=1)
            return {"position_m": distance.mean(), "rotation_deg": angle.rad2deg().mean()}

    def residual(self) -> Tensor:
        """Returns (M, 6): truth minus prediction, in metres, and a rotation about the map's axes.

        The rotation is the vector `delta`, radians, of `R_true = exp(delta) R_predicted`: the
        convention of `pose_covariance`.
        """
        between = multiply(self.true_quaternion, conjugate(unit(self.quaternion)))
        return torch.cat([self.true_position - self.position, rotation_vector(between)], dim=1)


def length(x: Tensor, norm: str) -> Tensor:
    """Returns the L1 or L2 norms (...) of vectors (..., D)."""
    return torch.linalg.vector_norm(x, ord=1 if norm == "l1" else 2, dim=-1)


def check_norm(norm: str) -> str:
    """Returns `norm` if it is known; else raises ConfigError."""
    if norm not in NORMS:
        raise ConfigError(unknown("norm of a pose loss", norm, NORMS))
    return norm


class BetaLoss(nn.Module):
    """PoseNet's loss: Kendall, Grimes and Cipolla (ICCV 2015), eq. 2.

        L = || x - x^ ||  +  beta || q - q^ / ||q^|| ||

    averaged over the batch, x^ and q^ predicted. As in eq. 3 of Kendall and Cipolla (CVPR 2017) the
    prediction is normalised, and q is taken with the sign nearer to it.

    Args:
        beta: weight of the rotation: 120 to 750 in the paper's rooms, 250 to 2000 outdoors.
        norm: `l2` as in the paper, or `l1`.
    """

    def __init__(self, beta: float = 500.0, norm: str = "l2") -> None:
        super().__init__()
        require(beta > 0, "beta", "beta", beta, "positive")
        self.beta = beta
        self.norm = check_norm(norm)

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `position` (N, 3), metres, and `quaternion_xyzw` (N, 4) of any length.
            batch: `T_map_camera` (N, 4, 4) and `has_pose` bool (N,).
        """
        pairs = PosePairs(raw, batch)
        if not len(pairs):
            return LossValue(zero_of(raw["position"], raw["quaternion_xyzw"]), {})
        position, rotation = pose_terms(pairs, self.norm)
        return LossValue(position + self.beta * rotation, pairs.errors())


class HomoscedasticLoss(nn.Module):
    """Learned weights: Kendall and Cipolla, "Geometric loss functions" (CVPR 2017), eq. 5.

        L = L_x exp(-s_x) + s_x + L_q exp(-s_q) + s_q

    with `L_x = ||x - x^||` and `L_q = ||q - q^ / ||q^|| ||` averaged over the batch. s is the log variance
    of the task's noise, learned with the network.

    Args:
        s_x: where s_x starts: 0 in the paper.
        s_q: where s_q starts: -3 in the paper.
        norm: `l1`, which the paper found best, or `l2`.

    Attributes:
        s_x, s_q: parameters ().
    """

    def __init__(self, s_x: float = 0.0, s_q: float = -3.0, norm: str = "l1") -> None:
        super().__init__()
        self.s_x = nn.Parameter(torch.tensor(float(s_x)))
        self.s_q = nn.Parameter(torch.tensor(float(s_q)))
        self.norm = check_norm(norm)

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `position` (N, 3), metres, and `quaternion_xyzw` (N, 4) of any length.
            batch: `T_map_camera` (N, 4, 4) and `has_pose` bool (N,).
        """
        pairs = PosePairs(raw, batch)
        weights = {"s_x": self.s_x.detach().clone(), "s_q": self.s_q.detach().clone()}
        if not len(pairs):
            nothing = zero_of(raw["position"], raw["quaternion_xyzw"], self.s_x, self.s_q)
            return LossValue(nothing, weights)
        total = weighted(*pose_terms(pairs, self.norm), self.s_x, self.s_q)
        return LossValue(total, {**pairs.errors(), **weights})


def pose_terms(pairs: PosePairs, norm: str) -> tuple[Tensor, Tensor]:
    """Returns the batch's mean distances of positions and of unit quaternions."""
    position = length(pairs.true_position - pairs.position, norm).mean()
    rotation = length(pairs.true_quaternion - unit(pairs.quaternion), norm).mean()
    return position, rotation


def weighted(position: Tensor, rotation: Tensor, s_x: Tensor, s_q: Tensor) -> Tensor:
    """Returns eq. 5 of Kendall and Cipolla (2017)."""
    return position * (-s_x).exp() + s_x + rotation * (-s_q).exp() + s_q
