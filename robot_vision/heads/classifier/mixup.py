"""Mixup: batches of mixed images with mixed labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robot_vision.errors import ConfigError


class Mixup:
    """Mixes pairs of labelled images: Zhang et al., "mixup" (ICLR 2018), eq. 1.

        x = l x_i + (1 - l) x_j,   y = l y_i + (1 - l) y_j,   l ~ Beta(alpha, alpha)

    A mixed image shows two places, so this is for classification alone.

    Args:
        classes: K.
        alpha: 0.2 to 0.4 in the paper.
        seed: of everything random.
    """

    def __init__(self, classes: int, alpha: float = 0.2, seed: int = 0) -> None:
        if alpha <= 0 or classes < 2:
            raise ConfigError(
                f"mixup alpha is {alpha} and classes {classes}: they must be positive, and at least 2"
            )
        self.classes, self.alpha, self.seed = classes, alpha, seed

    def __call__(self, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Returns the batch with mixed `images` (uint8) and `soft_label` (N, K).

        Args:
            batch: `images` uint8 (N, H, W, 3), `label` (N,), `index` (N,). Rows without a label stay as
                they are, with a soft label of zeros.
            epoch: with the batch's indices it determines the result.
        """
        label, images = batch["label"], batch["images"]
        rows = (label >= 0).nonzero().squeeze(1)
        soft = torch.zeros(len(label), self.classes, device=label.device)
        soft[rows, label[rows]] = 1.0
        if len(rows) < 2:
            return {**batch, "soft_label": soft}
        words = [self.seed, epoch, *(int(i) for i in batch["index"].tolist())]
        rng = np.random.default_rng(words)
        share = torch.from_numpy(rng.beta(self.alpha, self.alpha, len(rows)).astype(np.float32))
        share = torch.maximum(share, 1 - share).to(
            images.device
        )  # the first image stays the main one
        partner = rows[torch.from_numpy(rng.permutation(len(rows))).to(rows.device)]
        weight = share.view(-1, 1, 1, 1)
        mixed = images[rows] * weight + images[partner] * (1 - weight)
        images = images.clone()
        images[rows] = mixed.round().to(images.dtype)
        soft[rows] = soft[rows] * share[:, None] + soft[partner] * (1 - share[:, None])
        return {**batch, "images": images, "soft_label": soft}
