"""MapNet's relative term: frames that follow each other must also be right relative to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.heads.pose.losses.regression import check_norm, length, weighted
from robot_vision.heads.pose.losses.rotations import aligned, conjugate, multiply, unit, xyzw_of


class RelativePoseLoss(nn.Module):
    """Adds relative poses of neighbouring frames to any pose loss.

    Brahmbhatt et al., "MapNet: Geometry-Aware Learning of Maps for Camera Localization" (CVPR 2018),
    eq. 2 and 3: `L = sum_i h(p_i, p_i*) + alpha sum_ij h(v_ij, v_ij*)` with `v_ij = (x_i - x_j, w_i - w_j)`
    and `h` with learned weights.

    Departure from the paper: the relative rotation is the quaternion `q_i^-1 q_j` and not the difference
    of log quaternions, which depends on the map's axes and jumps at half a turn.

    Pairs are rows of the batch that stand next to each other, come from one sequence and are at most
    `max_gap` samples apart (`index`); a batch of `clips.ClipSampler` has many, a shuffled one none.

    Args:
        absolute: the loss to add to.
        weight: alpha; 1 in the paper.
        max_gap: in samples.
        s_x: where the learned weight of the relative positions starts.
        s_q: where that of the relative rotations starts.
        norm: `l1` as in the paper, or `l2`.
    """

    def __init__(
        self,
        absolute: nn.Module,
        weight: float = 1.0,
        max_gap: int = 30,
        s_x: float = 0.0,
        s_q: float = -3.0,
        norm: str = "l1",
    ) -> None:
        super().__init__()
        require(weight > 0, "relative", "weight", weight, "positive")
        require(max_gap >= 1, "relative", "max_gap", max_gap, "at least 1")
        self.absolute = absolute
        self.weight = weight
        self.max_gap = max_gap
        self.s_x = nn.Parameter(torch.tensor(float(s_x)))
        self.s_q = nn.Parameter(torch.tensor(float(s_q)))
        self.norm = check_norm(norm)

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `position` (N, 3), metres, `quaternion_xyzw` (N, 4), and what `absolute` needs.
            batch: `T_map_camera` (N, 4, 4), `has_pose` bool (N,), and, int64 (N,), `sequence` and
                `index`.
        """
        value: LossValue = self.absolute(raw, batch)
        parts = {
            **value.parts,
            "relative_s_x": self.s_x.detach().clone(),
            "relative_s_q": self.s_q.detach().clone(),
        }
        i = self._pairs(batch)
        if not len(i):
            nothing = zero_of(raw["position"], raw["quaternion_xyzw"], self.s_x, self.s_q)
            return LossValue(value.total + nothing, parts)
        x, q = full_precision(raw["position"]), unit(full_precision(raw["quaternion_xyzw"]))
        true = batch["T_map_camera"].to(x)
        true_x, true_q = true[:, :3, 3], xyzw_of(true[:, :3, :3])
        position = length(_moved(x, i) - _moved(true_x, i), self.norm).mean()
        turned, true_turned = _turned(q, i), _turned(true_q, i)
        rotation = length(turned - aligned(true_turned, turned.detach()), self.norm).mean()
        relative = weighted(position, rotation, self.s_x, self.s_q)
        parts["relative_position"] = position.detach()
        parts["relative_quaternion"] = rotation.detach()
        return LossValue(value.total + self.weight * relative, parts)

    def _pairs(self, batch: Tensors) -> Tensor:
        """Returns int64 (P,): rows i such that i and i + 1 are neighbours."""
        posed, sequence, index = batch["has_pose"].bool(), batch["sequence"], batch["index"]
        gap = (index[1:] - index[:-1]).abs()
        near = (gap > 0) & (gap <= self.max_gap) & (sequence[1:] == sequence[:-1])
        return (near & posed[1:] & posed[:-1]).nonzero().squeeze(1)


def _moved(x: Tensor, i: Tensor) -> Tensor:
    return x[i] - x[i + 1]


def _turned(q: Tensor, i: Tensor) -> Tensor:
    return multiply(conjugate(q[i]), q[i + 1])
