"""Poses that are looked up among the training images: what a regressed pose is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robot_vision.contract.pooling import poolings
from robot_vision.contract.training import Features, Targets, poses_of


def most_similar(seen: Features, asked: Features) -> dict[str, dict[str, Any]]:
    """Returns the pose of the most similar training image, for each way of pooling."""
    has = seen.targets["has_pose"]
    position, xyzw = poses_of(seen.targets)
    position, xyzw = position[has.numpy()], xyzw[has.numpy()]
    stored, wanted = poolings(seen.first()[has]), poolings(asked.first())
    found = {}
    for name in stored:
        best = (wanted[name] @ stored[name].T).argmax(dim=1).numpy()
        found[f"most similar image, {name}"] = {
            "position": position[best],
            "orientation_xyzw": xyzw[best],
        }
    return found


def nearest(train: Targets, targets: Targets) -> dict[str, Any]:
    """Returns the best that retrieval could do: the pose of the nearest training position."""
    position, xyzw = poses_of(train)
    has = np.isfinite(position[:, 0])
    # In float64: cdist multiplies matrices, and at 300 m float32 leaves it decimetres.
    asked = targets["T_map_camera"][:, :3, 3].double()
    best = torch.cdist(asked, torch.from_numpy(position[has])).argmin(dim=1).numpy()
    return {"position": position[has][best], "orientation_xyzw": xyzw[has][best]}
