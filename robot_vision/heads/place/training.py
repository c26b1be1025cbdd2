"""The place head's own steps: k-means before training, mined tuples during it, whitening after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.samples.data import batches
from robot_vision.training.ship.evaluate import Views

_COLUMNS = 50_000  # descriptors for k-means: the authors' code takes as many
_CHUNK = 64


@torch.no_grad()
def place_features(
    network: MultiHeadNetwork, views: Views, device: torch.device, index: Tensor
) -> Tensor:
    """Returns the place head's feature maps of some samples, on the CPU."""
    if views.cache is not None:
        return views.cache.features["place"][index]
    network.eval()
    found = []
    for batch in batches(views.samples, list(index.split(_CHUNK))):
        found.append(network.forward_features(batch["images"].to(device))["place"].cpu())
    return torch.cat(found)


@torch.no_grad()
def initialise_place(
    network: MultiHeadNetwork, train: Views, config: TrainingConfig, device: torch.device
) -> None:
    """Sets NetVLAD's centres and assignment by k-means on training features; GeM needs none.

    Whitening, where there is one, is fitted too, so that validation during training means something.
    """
    head: Any = network.heads["place"]
    if hasattr(head, "initialise"):
        generator = torch.Generator().manual_seed(config.loop.seed)
        some = torch.randperm(len(train), generator=generator)[: config.place.kmeans_images]
        maps = place_features(network, train, device, some)  # (n, C, h, w)
        columns = maps.permute(0, 2, 3, 1).flatten(0, 2)  # (n h w, C)
        chosen = torch.randperm(len(columns), generator=generator)[:_COLUMNS]
        head.initialise(
            columns[chosen].to(device), config.loop.seed, ratio=config.place.kmeans_ratio
        )
    fit_whitening(network, train, config, device)


@torch.no_grad()
def fit_whitening(
    network: MultiHeadNetwork, train: Views, config: TrainingConfig, device: torch.device
) -> None:
    """Fits PCA whitening on the descriptors of the training images, where the head has one."""
    place = network.spec.place
    if "place" not in config.heads or place is None or not place.whitened_size:
        return
    descriptors = unwhitened(network, train, torch.arange(len(train)))
    head: Any = network.heads["place"]
    head.fit_whitening(descriptors.to(device))


@torch.no_grad()
def unwhitened(network: MultiHeadNetwork, views: Views, index: Tensor) -> Tensor:
    """Returns descriptors of some samples as they are before whitening, on the CPU."""
    head: Any = network.heads["place"]
    device, mode = head_device(network), network.training
    network.eval()
    parts = [
        head.aggregate(place_features(network, views, device, part).to(device)).cpu()
        for part in index.split(_CHUNK)
    ]
    network.train(mode)
    return torch.cat(parts)


def head_device(network: MultiHeadNetwork) -> torch.device:
    """Returns where the network is."""
    return network.pixel_scale.device
