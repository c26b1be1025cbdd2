"""Cross-entropy of cells whose labels are soft: part of each belongs to the neighbours of its cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.geometry.earth import EARTH, RADIUS_M
from robot_vision.geometry.squares import PLANES
from robot_vision.heads.cells.ground import Earth, earth_normals

_LEAST = 1e-12  # of the Gaussian that must lie in cells
SIGMA_M, EARTH_SIGMA_M = 0.1, 25.0  # by default


class SoftCells(nn.Module):
    """Cross-entropy with the share of a Gaussian about the true position that lies in each cell.

    With one label a neighbouring cell is as wrong as one on the other side of the building. Here the label of
    an image is, for a Gaussian of standard deviation sigma about the true position p, in the plane of cells,

        q_k = G_k / sum_j G_j,    G_k = the integral of N(x; p, sigma^2 I) over cell k

    It is a difference of two error functions along each axis, so that large and small cells count as their
    areas do. On the earth (plane `earth`) the distances along the two axes are great-circle distances from
    the four edges, which are great circles too: the same integral where cells are small.

    An image so far from all cells that none of its Gaussian lies in them teaches nothing. PlaNet has one
    label an image; for sigma = 0 so has this.

    Args:
        cells: (K, 4), metres: low corner and high corner of each; on the earth face, level, column and row.
        plane: axes of the map along which they lie, or `earth`.
        sigma_m: standard deviation, metres; None for 0.1, on the earth 25.
    """

    cells: Tensor
    edges: Tensor
    centres: Tensor

    def __init__(self, cells: Tensor, plane: str = "xy", sigma_m: float | None = None) -> None:
        super().__init__()
        if sigma_m is None:
            sigma_m = EARTH_SIGMA_M if plane == EARTH else SIGMA_M
        ok = sigma_m >= 0 and math.isfinite(sigma_m)
        require(ok, "soft_cells", "sigma_m", sigma_m, "at least 0, in metres")
        self.register_buffer("cells", cells.double(), persistent=False)
        self.plane, self.sigma_m = plane, float(sigma_m)
        if plane == EARTH:
            squares = Earth(cells.double().cpu().numpy()).squares
            for name in ("edges", "centres"):
                values = torch.from_numpy(getattr(squares, name))
                self.register_buffer(name, values, persistent=False)

    def labels(self, T_map_camera: Tensor, has_pose: Tensor) -> Tensor:
        """Returns q, float64 (N, K), whose rows sum to 1, or are 0 where an image teaches nothing.

        Args:
            T_map_camera: (N, 4, 4).
            has_pose: bool (N,).
        """
        positions = T_map_camera[:, :3, 3].to(self.cells)
        if self.plane == EARTH:
            from_low, to_high = self._on_earth(positions, has_pose)
        else:
            p = positions[:, list(PLANES[self.plane])].unsqueeze(1)  # (N, 1, 2)
            from_low, to_high = p - self.cells[:, :2], self.cells[:, 2:] - p  # (N, K, 2)
        if self.sigma_m:
            above, below = (
                torch.special.ndtr(away / self.sigma_m) for away in (to_high, -from_low)
            )
            shares = (above - below).clamp(min=0).prod(dim=-1)  # (N, K)
        else:
            shares = ((from_low >= 0) & (to_high > 0)).all(dim=-1).to(self.cells)
        shares = shares * has_pose.unsqueeze(1)
        total = shares.sum(dim=1, keepdim=True)
        return torch.where(
            total > _LEAST, shares / total.clamp(min=_LEAST), torch.zeros_like(shares)
        )

    def _on_earth(self, positions: Tensor, has_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how far positions (N, 3) are within the low and the high edges (N, K, 2), metres."""
        normals = torch.full_like(positions, torch.nan)
        known = has_pose.to(normals.device)
        normals[known] = torch.from_numpy(earth_normals(positions[known].cpu().numpy())).to(normals)
        normals = normals.nan_to_num()  # without a pose it teaches nothing
        depth = torch.einsum("ni,kei->nke", normals, self.edges).clamp(-1, 1).asin() * RADIUS_M
        # Great circles go round the earth: on its other side one is between the same edges.
        other_side = (normals @ self.centres.T < 0).unsqueeze(-1)
        # Edges: low row, high column, high row, low column
        low, high = (depth[..., [3, 0]], depth[..., [1, 2]])
        far = torch.full_like(low, -torch.inf)
        return torch.where(other_side, far, low), torch.where(other_side, -far, high)

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
