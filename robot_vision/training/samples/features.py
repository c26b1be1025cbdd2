"""A frozen backbone's features of every image, computed once: a probe then trains in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.samples.data import Advance, Batch, SampleSet, batches, chunk_of


class FeatureCache:
    """Features of a sample set, on the CPU; heads with the same tap share them.

    Attributes:
        features: head's name to those of its taps, (N, C) or (N, C, h, w), as the backbone gave them.
    """

    def __init__(self, features: dict[str, list[Tensor]]) -> None:
        self.features = features

    @classmethod
    def compute(
        cls,
        network: MultiHeadNetwork,
        samples: SampleSet,
        heads: tuple[str, ...],
        device: torch.device,
        threads: int = 2,
        advance: Advance = lambda n: None,
    ) -> FeatureCache:
        """Runs the backbone over all samples, in evaluation mode.

        `no_grad` and not `inference_mode`: a loss may later save the features for its backward pass.
        """
        network.eval()
        stores: dict[str, Tensor] = {}  # by tap
        order = list(torch.arange(len(samples)).split(chunk_of(samples.input)))
        with torch.no_grad():
            for batch in batches(samples, order, threads):
                features = network.forward_features(batch["images"].to(device))
                found = {
                    tap: value
                    for head in heads
                    for tap, value in zip(network.taps[head], features[head], strict=True)
                }
                for tap, value in found.items():
                    if tap not in stores:
                        stores[tap] = torch.empty(len(samples), *value.shape[1:], dtype=value.dtype)
                    stores[tap][batch["index"]] = value.cpu()
                advance(len(batch["index"]))
        if not stores:
            return cls({})
        return cls({head: [stores[tap] for tap in network.taps[head]] for head in heads})

    def batch(self, samples: SampleSet, index: Tensor) -> Batch:
        """Returns targets, and `feature:<head>:<tap's number>` in place of images."""
        batch = {key: value[index] for key, value in samples.truth.items()}
        batch["index"] = index
        for head, values in self.features.items():
            batch.update({f"feature:{head}:{i}": value[index] for i, value in enumerate(values)})
        return batch


def feature_bytes(network: MultiHeadNetwork, heads: tuple[str, ...], count: int) -> int:
    """Returns how much memory the features of `count` images take."""
    taps = {tap for head in heads for tap in network.taps[head]}
    return sum(4 * count * math.prod(network.backbone.shapes[tap]) for tap in taps)
