"""Mixup: batches of mixed images with mixed labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from robot_vision.errors import ConfigError


class Mixup:
    """Mixes pairs of labelled images: Zhang et al., "mixup" (ICLR 2018), eq. 1.

        x = l x_i + (1 - l) x_j,   y = l y_i + (1 - l) y_j,   l ~ Beta(alpha, alpha)

    A mixed image shows two places, so this is for classification alone.

    Args:
        classes: names of the targets that are classes, to how many there are.
        alpha: 0.2 to 0.4 in the paper.
        seed: of everything random.
    """

    def __init__(self, classes: Mapping[str, int], alpha: float = 0.2, seed: int = 0) -> None:
        if alpha <= 0 or any(count < 2 for count in classes.values()):
            raise ConfigError(
                f"mixup alpha is {alpha} and classes {', '.join(map(str, classes.values()))}: they must be "
                "positive, and at least 2"
            )
        self.classes, self.alpha, self.seed = classes, alpha, seed

    def __call__(self, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Returns the batch with mixed `images` (uint8) and, for `label`, `soft_label` (N, K).

        Args:
            batch: `images` uint8 (N, H, W, 3), the classes (N,), `index` (N,). Rows without one of the labels
                stay as they are, with a soft label of zeros in place of the one that is not there.
            epoch: with the batch's indices it determines the result.
        """
        images = batch["images"]
        known = torch.stack([batch[name] >= 0 for name in self.classes])
        rows = known.all(dim=0).nonzero().squeeze(1)
        soft = {}
        for name, count in self.classes.items():
            label = batch[name]
            given = (label >= 0).nonzero().squeeze(1)
            key = "".join((*name.rpartition(".")[:2], "soft_", name.rpartition(".")[2]))
            soft[key] = torch.zeros(len(label), count, device=label.device)
            soft[key][given, label[given]] = 1.0
        if len(rows) < 2:
            return {**batch, **soft}
        words = [self.seed, epoch, *(int(i) for i in batch["index"].tolist())]
        rng = np.random.default_rng(words)
        share = torch.from_numpy(rng.beta(self.alpha, self.alpha, len(rows)).astype(np.float32))
        # The first image stays the main one
        share = torch.maximum(share, 1 - share).to(images.device)
        partner = rows[torch.from_numpy(rng.permutation(len(rows))).to(rows.device)]
        weight = share.view(-1, 1, 1, 1)
        mixed = images[rows] * weight + images[partner] * (1 - weight)
        images = images.clone()
        images[rows] = mixed.round().to(images.dtype)
        for value in soft.values():
            value[rows] = value[rows] * share[:, None] + value[partner] * (1 - share[:, None])
        return {**batch, "images": images, **soft}
