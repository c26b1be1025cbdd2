"""A frozen backbone's features of every image, computed once: a probe then trains in seconds."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.samples.data import Advance, Batch, SampleSet, batches

_CHUNK = 64


class FeatureCache:
    """Features of a sample set, on the CPU; heads with the same tap share them.

    Attributes:
        features: head's name to (N, C) or (N, C, h, w), in the type that the backbone gave.
    """

    def __init__(self, features: dict[str, Tensor]) -> None:
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
        stores: dict[str, Tensor] = {}
        order = list(torch.arange(len(samples)).split(_CHUNK))
        with torch.no_grad():
            for batch in batches(samples, order, threads):
                features = network.forward_features(batch["images"].to(device))
                shared: dict[int, Tensor] = {}
                for head in heads:
                    value = features[head]
                    if head not in stores:
                        twin = shared.get(id(value))
                        empty = torch.empty(len(samples), *value.shape[1:], dtype=value.dtype)
                        stores[head] = empty if twin is None else twin
                    if id(value) not in shared:
                        stores[head][batch["index"]] = value.cpu()
                    shared[id(value)] = stores[head]
                advance(len(batch["index"]))
        return cls(stores)

    def batch(self, samples: SampleSet, index: Tensor) -> Batch:
        """Returns targets, and `feature:<head>` in place of images."""
        batch = {key: value[index] for key, value in samples.targets.items()}
        batch["index"] = index
        batch.update({f"feature:{head}": value[index] for head, value in self.features.items()})
        return batch


def feature_bytes(network: MultiHeadNetwork, heads: tuple[str, ...], count: int) -> int:
    """Returns how much memory the features of `count` images take."""
    shapes = {network.taps[h]: network.backbone.shapes[network.taps[h]] for h in heads}
    return sum(4 * count * int(torch.Size(shape).numel()) for shape in shapes.values())
