"""A frozen backbone's features of every image, computed once: a probe then trains in seconds.

With augmentation, a few copies of each image are augmented once too, and an epoch takes one of each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.samples.augmentation import BatchAugmentation as Augment
from robot_vision.training.samples.data import Advance, Batch, SampleSet, batches, chunk_of


class FeatureCache:
    """Features of a sample set, on the CPU; heads with the same tap share them.

    Attributes:
        features: head's name to those of its taps, (N, C) or (N, C, h, w), as the backbone gave them; where
            there are copies, N of each follow.
        truth: what a batch of copies has in place of images, N rows of each copy.
        copies: how many augmented copies there are of each image.
    """

    def __init__(
        self,
        features: dict[str, list[Tensor]],
        truth: Batch | None = None,
        copies: int = 0,
    ) -> None:
        self.features, self.truth, self.copies = features, truth or {}, copies

    @classmethod
    def compute(
        cls,
        network: MultiHeadNetwork,
        samples: SampleSet,
        heads: tuple[str, ...],
        device: torch.device,
        threads: int = 2,
        advance: Advance = lambda n: None,
        augment: Augment | None = None,
        copies: int = 0,
    ) -> FeatureCache:
        """Runs the backbone over all samples, in evaluation mode, and over augmented copies of them.

        `no_grad` and not `inference_mode`: a loss may later save the features for its backward pass.
        """
        network.eval()
        stores: dict[str, Tensor] = {}  # by tap
        truth: Batch = {}
        order = list(torch.arange(len(samples)).split(chunk_of(samples.input, device)))
        count = len(samples)

        def keep(place: Batch, key: str, times: int, at: Tensor, value: Tensor) -> None:
            if key not in place:
                place[key] = torch.empty(times * count, *value.shape[1:], dtype=value.dtype)
            place[key][at] = value.cpu()

        with torch.no_grad():
            for copy in range(1 + copies):
                change = augment if copy else None
                for batch in batches(samples, order, threads, change, copy):
                    at = copy * count + batch["index"]
                    features = network.forward_features(batch["images"].to(device))
                    found = {
                        tap: value
                        for head in heads
                        for tap, value in zip(network.taps[head], features[head], strict=True)
                    }
                    for tap, value in found.items():
                        keep(stores, tap, 1 + copies, at, value)
                    for word in batch.keys() - {"images", "index"} if copy else ():
                        keep(truth, word, copies, at - count, batch[word])
                    advance(len(at))
        if not stores:
            return cls({})
        features = {head: [stores[tap] for tap in network.taps[head]] for head in heads}
        return cls(features, truth, copies)

    def batch(
        self, samples: SampleSet, index: Tensor, epoch: int = 0, draw: Tensor | None = None
    ) -> Batch:
        """Returns targets, and `feature:<head>:<tap's number>` in place of images.

        Args:
            samples: whose features these are.
            index: int64 (n,).
            epoch: its number: each takes the next one of a sample's copies.
            draw: int64 (n,), how often the epoch had the sample before.
        """
        batch, at = {key: value[index] for key, value in samples.truth.items()}, index
        if self.copies:
            turn = epoch + index + (0 if draw is None else draw)
            row = turn % self.copies * len(samples) + index
            batch |= {key: value[row] for key, value in self.truth.items()}
            at = len(samples) + row
        batch["index"] = index
        for head, values in self.features.items():
            batch.update({f"feature:{head}:{i}": value[at] for i, value in enumerate(values)})
        return batch

    def part(self, index: Tensor, count: int) -> FeatureCache:
        """Returns the features of some of the `count` samples, with their copies."""
        at = torch.cat([copy * count + index for copy in range(1 + self.copies)])
        features = {head: [v[at] for v in values] for head, values in self.features.items()}
        of_copies = at[len(index) :] - count
        truth = {word: value[of_copies] for word, value in self.truth.items()}
        return FeatureCache(features, truth, self.copies)


def feature_bytes(network: MultiHeadNetwork, heads: tuple[str, ...], count: int) -> int:
    """Returns how much memory the features of `count` images take."""
    taps = {tap for head in heads for tap in network.taps[head]}
    return sum(4 * count * math.prod(network.backbone.shapes[tap]) for tap in taps)
