"""Published checkpoints as networks of this package: SALAD, MegaLoc, BoQ, CosPlace and EigenPlaces.

Names and shapes are those of the public code: serizba/salad, gmberton/MegaLoc,
amaralibey/Bag-of-Queries, gmberton/CosPlace and gmberton/EigenPlaces (which has the same network).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robot_vision.contract.training import Published
from robot_vision.errors import ConfigError
from robot_vision.heads.place.spec import PlaceSpec

# Their names begin with this, ours with that; BACKBONE and HEAD are followed by the name of a weight.
BACKBONE, HEAD = Published.BACKBONE, Published.HEAD
Pairs = tuple[tuple[str, str], ...]
_PATCH = 14
_DINO = {384: "small", 768: "base", 1024: "large"}
_OFFSET = 0.1  # that DINOv2 adds to the size of the grid to which it resamples positions
_RESNET_STAGES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_BOTTLENECKS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
_TRANSPORT: Pairs = (
    ("token_features.", HEAD + "token."),
    ("cluster_features.", HEAD + "reduce."),
    ("score.", HEAD + "score."),
    ("dust_bin", HEAD + "dustbin"),
)
_QUERIES: Pairs = (
    ("aggregator.proj_c.", HEAD + "reduce."),
    ("aggregator.norm_input.", HEAD + "norm."),
    ("aggregator.fc.", HEAD + "over_queries."),
)
_BLOCK: Pairs = (
    ("encoder.", "encoder."),
    ("queries", "queries"),
    ("self_attn.", "self_attention."),
    ("norm_q.", "norm_queries."),
    ("cross_attn.", "cross_attention."),
    ("norm_out.", "norm_out."),
)


def recognise(state: Mapping[str, Tensor], size: tuple[int, int] | None) -> Published | None:
    """Returns the network that tensors of a file are, or None where they are no network known here.

    Args:
        state: names to tensors.
        size: (height, width) of the input; None for the one that its authors evaluate with.

    Raises:
        ConfigError: they are nearly such a network.
    """
    if "aggregator.agg.dust_bin" in state:
        return _salad(state, size, "MegaLoc", "aggregator.agg.", "backbone.")
    if "aggregator.dust_bin" in state:
        return _salad(state, size, "SALAD", "aggregator.", "backbone.model.")
    if "aggregator.boqs.0.queries" in state:
        return _boq(state, size)
    if "aggregation.1.p" in state:
        return _cosplace(state, size)
    return None


def _salad(
    state: Mapping[str, Tensor], size: Any, name: str, theirs: str, backbone: str
) -> Published:
    clusters, hidden = _shape(state, f"{theirs}score.3.weight")[:2]
    projected = _shape(state, "aggregator.linear.bias")[0] if name == "MegaLoc" else 0
    spec = PlaceSpec(
        pooling="salad",
        clusters=clusters,
        channels=_shape(state, f"{theirs}cluster_features.3.bias")[0],
        token_size=_shape(state, f"{theirs}token_features.2.bias")[0],
        hidden=hidden,
        whitened_size=projected,
    )
    pairs = tuple((theirs + a, b) for a, b in _TRANSPORT)
    if projected:
        pairs += (("aggregator.linear.", HEAD + "projection."),)
    return _dino(name, spec, state, size or (322, 322), backbone, pairs)


def _boq(state: Mapping[str, Tensor], size: Any) -> Published:
    depth = sum(key.startswith("aggregator.boqs.") and key.endswith(".queries") for key in state)
    rows, queries = _shape(state, "aggregator.fc.weight")[:2]
    blocks = [(f"aggregator.boqs.{i}.", f"{HEAD}blocks.{i}.") for i in range(depth)]
    pairs = _QUERIES + tuple((a + x, b + y) for a, b in blocks for x, y in _BLOCK)
    settings: dict[str, Any] = {
        "pooling": "boq",
        "clusters": queries // depth,
        "channels": _shape(state, "aggregator.proj_c.bias")[0],
        "rows": rows,
        "depth": depth,
    }
    if "backbone.dino.cls_token" in state:
        last = _depth(state, "backbone.dino.blocks.") - 1
        spec = PlaceSpec(tap=f"blocks.{last}", **settings)  # without the last normalisation
        return _dino("BoQ", spec, state, size or (322, 322), "backbone.dino.", pairs)
    spec = PlaceSpec(tap="layer3", **settings)
    pairs += _resnet("backbone.net.")
    return Published("BoQ", _which_resnet(state, "backbone.net."), spec, size or (384, 384), pairs)


def _cosplace(state: Mapping[str, Tensor], size: Any) -> Published:
    name = "CosPlace or EigenPlaces"
    numbers = _shape(state, "aggregation.3.bias")[0]
    pairs: Pairs = (("aggregation.1.p", HEAD + "power"), ("aggregation.3.", HEAD + "linear."))
    if "backbone.28.weight" in state:  # the last convolution of VGG-16
        spec = PlaceSpec(tap="features.28", pooling="cosplace", channels=numbers)
        pairs += (("backbone.", BACKBONE + "features."),)
        return Published(name, "vgg16", spec, size or (512, 512), pairs)
    spec = PlaceSpec(tap="layer4", pooling="cosplace", channels=numbers)
    pairs += _resnet("backbone.")
    return Published(name, _which_resnet(state, "backbone."), spec, size or (512, 512), pairs)


def _dino(
    name: str, spec: PlaceSpec, state: Mapping[str, Tensor], size: Any, prefix: str, pairs: Pairs
) -> Published:
    channels = _shape(state, f"{prefix}cls_token")[-1]
    if channels not in _DINO:
        raise ConfigError(
            f"{name}: its transformer has {channels} channels; known are those of "
            f"{', '.join(map(str, _DINO))}"
        )
    backbone = f"timm/vit_{_DINO[channels]}_patch{_PATCH}_dinov2"
    key = f"{prefix}pos_embed"
    grid = (size[0] // _PATCH, size[1] // _PATCH)
    changed = {key: resampled_positions(_tensor(state, key), grid)}
    # The mask stands for patches that are left out in DINOv2's own training.
    unused = (f"{prefix}mask_token", *([f"{prefix}norm."] if spec.tap else []))
    return Published(name, backbone, spec, size, (*pairs, (prefix, BACKBONE)), changed, unused)


def resampled_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns DINOv2's position embeddings for another grid of patches, by its own rule.

    Args:
        positions: (1, 1 + M M, C), the class token's first, then row by row.
        grid: (rows, columns) of patches.

    Returns:
        (1, 1 + rows columns, C).
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions
    first, square = positions[:, :1].float(), positions[:, 1:].float()
    square = square.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = tuple((count + _OFFSET) / side for count in grid)
    resampled = F.interpolate(square, scale_factor=scale, mode="bicubic")
    return torch.cat([first, resampled.flatten(2).transpose(1, 2)], dim=1)


def _resnet(prefix: str) -> Pairs:
    return tuple((f"{prefix}{i}.", f"{BACKBONE}{name}.") for i, name in enumerate(_RESNET_STAGES))


def _which_resnet(state: Mapping[str, Tensor], prefix: str) -> str:
    blocks = _depth(state, f"{prefix}6.")
    found = _BOTTLENECKS if f"{prefix}6.0.conv3.weight" in state else {2: "resnet18", 6: "resnet34"}
    if blocks not in found:
        raise ConfigError(
            f"{prefix}6 has {blocks} blocks: no ResNet that is known here has as many"
        )
    return found[blocks]


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    return tuple(_tensor(state, key).shape)


def _tensor(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state or not state[key].dim():
        raise ConfigError(f"{key} is missing, or a single number")
    return state[key]
