"""What a network says about a split's samples, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robot_vision.heads.pose.measures import Array, Metrics, measure
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import PlaceConfig
from robot_vision.training.samples.data import Advance, SampleSet, batches
from robot_vision.training.samples.features import FeatureCache

_CHUNK = 64


@dataclass(frozen=True)
class Views:
    """One split with what is needed to predict it: its samples, and cached features where there are any."""

    samples: SampleSet
    cache: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.samples)


@torch.no_grad()
def predict(
    network: MultiHeadNetwork,
    views: Views,
    heads: tuple[str, ...],
    device: torch.device,
    threads: int = 2,
    advance: Advance = lambda n: None,
) -> dict[str, Tensor]:
    """Returns raw and decoded outputs of some heads for every sample, on the CPU in float32."""
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    order = list(torch.arange(len(views)).split(_CHUNK))

    def raw_outputs() -> Any:
        if views.cache is not None:
            for index in order:
                features = {h: views.cache.features[h][index].to(device) for h in heads}
                yield network.raw_from_features(features), len(index)
        else:
            for batch in batches(views.samples, order, threads):
                features = network.forward_features(batch["images"].to(device))
                kept = {h: features[h] for h in heads}
                yield network.raw_from_features(kept), len(batch["index"])

    for raw, count in raw_outputs():
        outputs = dict(raw)
        for head in heads:
            part: Any = network.heads[head]
            outputs.update(part.decode(raw))
        for key, value in outputs.items():
            parts.setdefault(key, []).append(value.float().cpu())
        advance(count)
    return {key: torch.cat(values) for key, values in parts.items()}


def evaluate(
    network: MultiHeadNetwork,
    views: Views,
    database: Views | None,
    heads: tuple[str, ...],
    place: PlaceConfig,
    device: torch.device,
    threads: int = 2,
    each: dict[str, Array] | None = None,
) -> dict[str, Metrics]:
    """Measures heads on a split.

    Args:
        network: on `device`.
        views: the split.
        database: where places are looked up: the training images.
        heads: to measure.
        place: what counts as the same place.
        device: of the network.
        threads: that read images.
        each: see `measure`.

    Returns:
        Head to its metrics.
    """
    outputs = predict(network, views, heads, device, threads)
    stored = None
    if "place" in heads and database is not None:
        stored = predict(network, database, ("place",), device, threads)["descriptor"]
    labels = network.spec.classifier.labels if network.spec.classifier else ()
    return measure(
        outputs,
        views.samples.targets,
        stored,
        None if database is None else database.samples.targets,
        labels,
        heads,
        place,
        each,
    )
