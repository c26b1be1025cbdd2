"""Geometric loss: how far scene points move in the image when the predicted pose replaces the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, require, zero_of
from robot_vision.heads.pose.losses.regression import (
    HomoscedasticLoss,
    PosePairs,
    check_norm,
    length,
)
from robot_vision.heads.pose.losses.rotations import conjugate, rotate, unit

NEAR = 0.1  # of a point's true depth: what is nearer, or behind the predicted camera, is put there


class ReprojectionLoss(nn.Module):
    """Reprojection error: Kendall and Cipolla (CVPR 2017), eq. 7 to 9.

        L = 1/|G| sum_{g in G} || pi(x, q, g) - pi(x^, q^, g) ||,     pi(x, q, g) = (u/w, v/w)

    with (u, v, w) the point g in the camera's frame: K is the identity, as in the paper, so the loss is
    in focal lengths (the tangent of an angle) and needs no weight between metres and degrees.

    Scene points: `points_map` (N, P, 3) of the batch where the data have them (a reconstruction, a
    depth camera); NaN marks padding. Where none are known, points are put on rays of the true camera: a
    fixed low-discrepancy set over the image and over plausible depths (equal steps of log depth). Such
    points are no real surfaces, and need not be: any point in view says how well two poses agree; the
    depths say how much a metre counts against a degree.

    From a random start most points lie behind the predicted camera and the error says little, so the
    paper starts from a network trained by the homoscedastic loss. So does this one: for the first
    `warm_up_steps` training steps it is that loss. Points still behind or very near are moved to a tenth
    of their true depth, which bounds the error and keeps its direction.

    Args:
        camera_matrix: (fx, fy, cx, cy) in pixels of the network's input; it says which rays are in view.
            None: square pixels, 60 degrees of horizontal field of view, centred.
        depths_m: nearest and farthest plausible scene point.
        points: how many, where none are known.
        warm_up_steps: 0 starts with the reprojection error at once.
        norm: `l1` as in the paper, or `l2`.
    """

    step: Tensor
    unit_points: Tensor

    def __init__(
        self,
        camera_matrix: Sequence[float] | None = None,
        depths_m: Sequence[float] = (0.5, 5.0),
        points: int = 64,
        warm_up_steps: int = 500,
        norm: str = "l1",
    ) -> None:
        super().__init__()
        name = "reprojection"
        if camera_matrix is not None:
            ok = len(camera_matrix) == 4 and min(camera_matrix[:2]) > 0
            require(ok, name, "camera_matrix", camera_matrix, "fx, fy, cx, cy in pixels")
        ok = len(depths_m) == 2 and 0 < depths_m[0] < depths_m[1]
        require(ok, name, "depths_m", depths_m, "two positive metres, the nearer first")
        require(1 <= points <= 65536, name, "points", points, "from 1 to 65536")
        require(warm_up_steps >= 0, name, "warm_up_steps", warm_up_steps, "0 or more")
        self.camera_matrix = camera_matrix
        self.depths_m = (float(depths_m[0]), float(depths_m[1]))
        self.warm_up_steps = warm_up_steps
        self.norm = check_norm(norm)
        self.warm_up = HomoscedasticLoss(norm=norm)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        sobol = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(points)
        self.register_buffer("unit_points", sobol.double(), persistent=False)  # (P, 3) in [0, 1)

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `position` (N, 3), metres, and `quaternion_xyzw` (N, 4) of any length.
            batch: `images` (N, H, W, 3), for their size, if there are any; `T_map_camera` (N, 4, 4);
                `has_pose` bool (N,); optionally `points_map` (N, P, 3), metres; `camera_matrix` (N, 3,
                3), in pixels, which goes before the setting.
        """
        warming = int(self.step) < self.warm_up_steps
        if self.training:
            self.step += 1
        if warming:
            value: LossValue = self.warm_up(raw, batch)
            return value
        pairs = PosePairs(raw, batch)
        # The warm-up's weights stay in the graph, so that every parameter always has a gradient.
        nothing = zero_of(*(raw[k] for k in ("position", "quaternion_xyzw")), *self.parameters())
        if not len(pairs):
            return LossValue(nothing, {})
        points, valid = self._points(pairs, batch)  # (M, P, 3), (M, P)
        true = in_camera(points, pairs.true_position, pairs.true_quaternion)
        predicted = in_camera(points, pairs.position, unit(pairs.quaternion))
        nearest = NEAR * true[..., 2:].clamp(min=1e-3)
        error = _project(true, nearest) - _project(predicted, nearest)  # (M, P, 2)
        valid = valid & (true[..., 2] > 0)
        distances = length(error, self.norm) * valid
        loss = distances.sum() / valid.sum().clamp(min=1) + nothing
        return LossValue(loss, {**pairs.errors(), "reprojection": loss.detach()})

    def _points(self, pairs: PosePairs, batch: Tensors) -> tuple[Tensor, Tensor]:
        made = self._on_rays(pairs, batch)
        if "points_map" not in batch:
            return made, made.new_ones(made.shape[:2], dtype=torch.bool)
        given = batch["points_map"][pairs.keep].to(made)
        valid = given.isfinite().all(dim=2)
        none = ~valid.any(dim=1)  # frames without a single known point take those on rays
        if bool(none.any()):
            size = max(given.shape[1], made.shape[1])
            given, made = _padded(given, size), _padded(made, size)
            given = torch.where(none[:, None, None], made, given)
            valid = given.isfinite().all(dim=2)
        return torch.where(valid.unsqueeze(2), given, torch.zeros_like(given)), valid

    def _on_rays(self, pairs: PosePairs, batch: Tensors) -> Tensor:
        """Returns (M, P, 3), metres in the map frame: points that the true cameras see."""
        u, v, fraction = self.unit_points.to(pairs.position).unbind(dim=1)  # (P,) each
        near, far = (math.log(d) for d in self.depths_m)
        depth = (near + fraction * (far - near)).exp()
        # Without images (a step on cached features) the principal point is taken as the centre.
        size = batch["images"].shape[1:3] if "images" in batch else None
        if "camera_matrix" in batch:
            K = batch["camera_matrix"][pairs.keep].to(u)  # (M, 3, 3)
            fx, fy, cx, cy = (K[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        else:
            height, width = size or (1, 1)
            focal = 0.5 * width / math.tan(math.radians(30.0))
            numbers = self.camera_matrix or (focal, focal, 0.5 * width, 0.5 * height)
            fx, fy, cx, cy = (u.new_full((len(pairs), 1), number) for number in numbers)
        across, down = (2 * cx, 2 * cy) if size is None else (size[1], size[0])
        x, y = (u * across - cx) / fx, (v * down - cy) / fy  # (M, P)
        in_frame = torch.stack([x, y, torch.ones_like(x)], dim=2) * depth[:, None]  # (M, P, 3)
        q = pairs.true_quaternion.unsqueeze(1)
        return rotate(q, in_frame) + pairs.true_position.unsqueeze(1)


def in_camera(points_map: Tensor, position: Tensor, xyzw: Tensor) -> Tensor:
    """Returns map points (M, P, 3) in the frames of cameras at `position` (M, 3) and `xyzw` (M, 4)."""
    return rotate(conjugate(xyzw).unsqueeze(1), points_map - position.unsqueeze(1))


def _project(points: Tensor, nearest: Tensor) -> Tensor:
    return points[..., :2] / torch.maximum(points[..., 2:], nearest)


def _padded(points: Tensor, size: int) -> Tensor:
    missing = points.new_full((len(points), size - points.shape[1], 3), math.nan)
    return torch.cat([points, missing], dim=1)
