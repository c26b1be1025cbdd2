"""Cross-entropy of cells whose labels are soft: part of each belongs to the neighbours of its cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.geometry.squares import PLANES

_LEAST = 1e-12  # of the Gaussian that must lie in cells


class SoftCells(nn.Module):
    """Cross-entropy with the share of a Gaussian about the true position that lies in each cell.

    With one label a neighbouring cell is as wrong as one on the other side of the building. Here the label of
    an image is, for a Gaussian of standard deviation sigma about the true position p, in the plane of cells,

        q_k = G_k / sum_j G_j,    G_k = the integral of N(x; p, sigma^2 I) over cell k

    It is a difference of two error functions along each axis, so that large and small cells count as their
    areas do. An image so far from all cells that none of its Gaussian lies in them teaches nothing. PlaNet
    has one label an image; for sigma = 0 so has this.

    Args:
        cells: (K, 4), metres: low corner and high corner of each.
        plane: axes of the map along which they lie.
        sigma_m: standard deviation, metres.
    """

    cells: Tensor

    def __init__(self, cells: Tensor, plane: str = "xy", sigma_m: float = 0.1) -> None:
        super().__init__()
        ok = sigma_m >= 0 and math.isfinite(sigma_m)
        require(ok, "soft_cells", "sigma_m", sigma_m, "at least 0, in metres")
        self.register_buffer("cells", cells.double(), persistent=False)
        self.axes, self.sigma_m = list(PLANES[plane]), float(sigma_m)

    def labels(self, T_map_camera: Tensor, has_pose: Tensor) -> Tensor:
        """Returns q, float64 (N, K), whose rows sum to 1, or are 0 where an image teaches nothing.

        Args:
            T_map_camera: (N, 4, 4).
            has_pose: bool (N,).
        """
        p = T_map_camera[:, :3, 3][:, self.axes].to(self.cells).unsqueeze(1)  # (N, 1, 2)
        low, high = self.cells[:, :2], self.cells[:, 2:]  # (K, 2)
        if self.sigma_m:
            above, below = (torch.special.ndtr((end - p) / self.sigma_m) for end in (high, low))
            shares = (above - below).prod(dim=-1)  # (N, K)
        else:
            shares = ((p >= low) & (p < high)).all(dim=-1).to(self.cells)
        shares = shares * has_pose.unsqueeze(1)
        total = shares.sum(dim=1, keepdim=True)
        return torch.where(
            total > _LEAST, shares / total.clamp(min=_LEAST), torch.zeros_like(shares)
        )

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `cell_logits` (N, K).
            batch: `T_map_camera` (N, 4, 4), `has_pose` (N,).
        """
        logits = full_precision(raw["cell_logits"])
        labels = self.labels(batch["T_map_camera"], batch["has_pose"])
        known = labels.sum(dim=1) > 0
        if not bool(known.any()):
            return LossValue(zero_of(logits), {})
        logits, labels = logits[known], labels[known].to(logits)
        loss = F.cross_entropy(logits, labels)
        hits = (logits.argmax(dim=1) == labels.argmax(dim=1)).to(loss.dtype).mean()
        return LossValue(loss, {"cross_entropy": loss.detach(), "accuracy": hits})
