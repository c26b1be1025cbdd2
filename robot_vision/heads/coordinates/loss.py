"""The loss of scene coordinates where depth is known: the distance, by a likelihood with learned scale."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.heads.coordinates.network import LOG_DEVIATION


class CoordinatesLoss(nn.Module):
    """Distances between said and true points, metres: `distance` times their mean, and their likelihood.

    With r the distance of a cell and b a learned scale the likelihood is that of a Laplace distribution in
    three dimensions, of density exp(-r / b) / (8 pi b^3): r / b + 3 log b. Each coordinate then has the
    deviation 2 b. True points follow from depth z, rays and pose: T_map_camera (z x, z y, z). Cells of all
    images count the same. The papers' loss of reprojection, for images without depth, is not here.

    Args:
        rays: (h, w, 2), x / z and y / z of the cells.
        centre: (3,), from which coordinates are counted, metres in the map.
        minimum: least depth that counts as truth, metres.
        maximum: largest depth that does.
        distance: weight of the mean distance, per metre.
    """

    rays: Tensor
    centre: Tensor

    def __init__(
        self,
        rays: Any,
        centre: Any = (0.0, 0.0, 0.0),
        minimum: float = 0.0,
        maximum: float = math.inf,
        distance: float = 5.0,
    ) -> None:
        super().__init__()
        require(0 <= distance < math.inf, "coordinates", "distance", distance, "at least 0")
        self.minimum, self.maximum, self.distance = minimum, maximum, distance
        self.register_buffer("rays", torch.tensor(rays, dtype=torch.float32), persistent=False)
        self.register_buffer(
            "centre", torch.as_tensor(centre, dtype=torch.float64), persistent=False
        )

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Returns the loss.

        Args:
            raw: `points` (N, 3, h, w) and `log_deviation` (N, h, w).
            batch: `image:depth` (N, h, w), metres, NaN where there is no truth; `T_map_camera` (N, 4, 4) and
                `has_pose` (N,).
        """
        said, log_deviation = (full_precision(raw[w]) for w in ("points", "log_deviation"))
        true, known = true_points(batch, self.rays, self.centre, self.minimum, self.maximum)
        if not known.any():
            return LossValue(zero_of(said, log_deviation), {})
        gap = said.permute(0, 2, 3, 1)[known] - true[known].to(said)
        r = (gap.square().sum(dim=1) + 1e-8).sqrt()
        log_b = log_deviation[known].clamp(*LOG_DEVIATION) - math.log(2)
        surprise = (r * (-log_b).exp() + 3 * log_b).mean()
        total = self.distance * r.mean() + surprise
        return LossValue(total, {"distance_m": r.mean().detach(), "surprise": surprise.detach()})


def true_points(
    batch: Tensors, rays: Tensor, centre: Tensor, minimum: float, maximum: float
) -> tuple[Tensor, Tensor]:
    """Returns the points (N, h, w, 3) that cells show, metres from the centre, and which are known (N, h, w).

    See `CoordinatesLoss`.
    """
    depth = batch["image:depth"].float()
    known = (depth >= minimum) & (depth <= maximum) & batch["has_pose"][:, None, None]
    z = torch.where(known, depth, 1.0)[..., None]
    seen = torch.cat([z * rays.to(z), z], dim=-1)  # (N, h, w, 3), in the camera's frame
    T = batch["T_map_camera"].double()
    origin = (T[:, :3, 3] - centre.to(T)).float()
    points = torch.einsum("nij,nhwj->nhwi", T[:, :3, :3].float(), seen)
    return points + origin[:, None, None], known
