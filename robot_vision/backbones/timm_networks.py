"""Networks of the package timm by name (`timm/NAME`): what they look like inside, and how they are tapped.

timm says of each network which tensors inside are worth having (`feature_info`) and gives them as feature
maps, also a transformer's. The last ones have names here, which are the same for all networks:

- `feature_map`: the last map (C, h, w); a transformer's last tokens of the patches, normalised;
- `class_token`: (C,) its last class token, normalised, where it has one;
- `features`: (C,) what timm's classification layer reads.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError

PREFIX = "timm/"
MAP, TOKEN, FEATURES = "feature_map", "class_token", "features"
Shape = tuple[int, ...]


def is_timm(name: str) -> bool:
    """Whether a backbone's name is one of timm's."""
    return name.startswith(PREFIX)


def package() -> Any:
    """Imports timm.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"backbones that begin with {PREFIX} need timm ({error}): pip install 'robot_vision[timm]'"
        ) from error
    return timm


def check_name(name: str) -> None:
    """Raises ConfigError with the nearest names when timm has no such network."""
    timm = package()
    own = name.removeprefix(PREFIX)
    if "/" not in own and ":" not in own and timm.is_model(own):
        return
    import difflib

    near = difflib.get_close_matches(own.lower(), timm.list_models(), n=4, cutoff=0.5)
    shown = ", ".join(PREFIX + other for other in near or ["resnet18", "vit_small_patch14_dinov2"])
    raise ConfigError(f"Unknown backbone {name!r}: use one of timm's networks, such as {shown}")


def create(
    name: str, size: tuple[int, int] | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Builds a network of timm, with random weights or with timm's download.

    Args:
        name: `timm/NAME`.
        size: (height, width) of its input, for networks whose weights depend on it: a transformer's
            position embeddings, which timm resamples where it reads weights; None for timm's own.
        pretrained: download timm's weights.
        options: of `timm.create_model`.
    """
    timm, own = package(), name.removeprefix(PREFIX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # networks whose names have changed
        if size is not None:
            sized, dynamic = _sized(name)
            options |= {"img_size": size} if sized else {}
            # A graph has one size, and no operator for the resampling.
            options |= {"dynamic_img_size": False} if dynamic else {}
        model: nn.Module = timm.create_model(own, pretrained=pretrained, **options)
    return model


@functools.lru_cache(maxsize=32)
def _sized(name: str) -> tuple[bool, bool]:
    """Returns whether weights depend on the input's size, and whether they are resampled at every image."""
    with torch.device("meta"):
        model = create(name)
    return hasattr(model, "set_input_size"), bool(getattr(model, "dynamic_img_size", False))


def tapped(name: str, size: tuple[int, int], taps: Sequence[str]) -> nn.Module:
    """Builds the part of a network that some of its taps need, with random weights.

    Raises:
        ConfigError: the network cannot take images of this size.
    """
    model: Any = create(name, size, num_classes=0)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch and any(side % step for side, step in zip(size, patch, strict=True)):
        high, wide = ((side // step or 1) * step for side, step in zip(size, patch, strict=True))
        raise ConfigError(
            f"{name} cannot take an input of {size[0]} x {size[1]} pixels: it cuts the image into patches of "
            f"{patch[0]} x {patch[1]}; use {high}x{wide} for instance"
        )
    last = not {MAP, TOKEN, FEATURES}.isdisjoint(taps)
    if FEATURES not in taps and hasattr(model, "prune_intermediate_layers"):
        # Weights that no tap needs are left out of the graph, and of training on several machines.
        stages = _stages(model)
        indices = [len(stages) - 1] if last else _indices(model, taps)
        model.prune_intermediate_layers(indices, prune_norm=not last, prune_head=True)
    return model


@functools.lru_cache(maxsize=64)
def shapes_at(name: str, taps: tuple[str, ...], size: Shape) -> Mapping[str, Shape]:
    """Returns the taps' shapes, without the batch axis, for images (channels, height, width)."""
    with torch.device("meta"):
        model = tapped(name, (size[1], size[2]), taps).eval()
        found = run(model, torch.empty(1, *size), taps)
    return {tap: tuple(found[tap].shape[1:]) for tap in taps}


def run(model: Any, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """Returns the tensors at some taps.

    Args:
        model: what `tapped` gave for these taps.
        images: normalised (N, 3, H, W).
        taps: their names.
    """
    found = {}
    stages = [tap for tap in taps if tap not in (MAP, TOKEN, FEATURES)]
    last = None
    if stages:
        indices = sorted(_indices(model, stages))
        only = len(stages) == len(taps)
        result = model.forward_intermediates(
            images, indices=indices, output_fmt="NCHW", intermediates_only=only, stop_early=only
        )
        last, maps = (None, result) if only else result
        names = _stages(model)
        found = {names[i]: features for i, features in zip(indices, maps, strict=True)}
    elif taps:
        last = model.forward_features(images)
    if last is not None:
        if MAP in taps:
            found[MAP] = _as_map(model, last, images)
        if TOKEN in taps:
            found[TOKEN] = last[:, 0]
        if FEATURES in taps:
            found[FEATURES] = model.forward_head(last, pre_logits=True)
    return found


def _as_map(model: Any, last: Tensor, images: Tensor) -> Tensor:
    """Returns (N, C, h, w) of what `forward_features` gave: that, channels last, or tokens."""
    if last.dim() == 3:
        patches = last[:, getattr(model, "num_prefix_tokens", 0) :]
        high, wide = model.patch_embed.dynamic_feat_size(tuple(int(s) for s in images.shape[2:]))
        return patches.reshape(-1, high, wide, last.shape[2]).permute(0, 3, 1, 2)
    if last.shape[1] != model.num_features and last.shape[3] == model.num_features:
        return last.permute(0, 3, 1, 2)
    return last


def _stages(model: Any) -> list[str]:
    """Returns the names of the tensors inside that timm gives, in their order."""
    if not hasattr(model, "forward_intermediates"):
        return []
    return [str(info["module"]) for info in model.feature_info]


def _indices(model: Any, taps: Sequence[str]) -> list[int]:
    stages = _stages(model)
    return [stages.index(tap) for tap in taps]


def facts(name: str) -> dict[str, Any]:
    """Returns what a network of timm looks like inside: the attributes of an `Architecture`.

    Raises:
        ConfigError: timm is absent or has no such network, or it is no network of images.
    """
    check_name(name)
    with torch.device("meta"):
        model: Any = create(name).eval()
    size = tuple(model.pretrained_cfg["input_size"])
    try:
        nodes, keys = _shapes(name, model, size)
    except (NotImplementedError, RuntimeError) as error:
        # What is no classifier of images of one size, or looks at the pixels before it knows its shapes.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{name} has no features that can be tapped ({first})") from error
    classifier = model.pretrained_cfg.get("classifier")
    layer = model.get_classifier() if isinstance(classifier, str) else None
    linear = None
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        linear = (layer.in_features,)
    return {
        "nodes": nodes,
        "taps": {node: node for node in nodes},
        "stages": tuple(nodes),
        "features": FEATURES,
        "feature_map": MAP if MAP in nodes else "",
        "last_layer": classifier if isinstance(classifier, str) else "",
        "linear_end": nodes[FEATURES] == linear,
        "keys": keys,
        "input": size,
        "says": "classes",
        "class_token": TOKEN if TOKEN in nodes else "",
    }


def _shapes(name: str, model: Any, size: Shape) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Returns the shapes of what can be tapped, in the order of computation, and of the weights.

    Raises:
        ConfigError: the last features are no map, and nothing says where they lie in the image.
    """
    taps = [*_stages(model), MAP, FEATURES]
    prefixed = getattr(model, "num_prefix_tokens", 0) > 0
    if getattr(model, "cls_token", None) is not None and prefixed:
        taps.insert(-1, TOKEN)
    with torch.device("meta"), torch.no_grad():
        images = torch.empty(1, *size)
        last = model.forward_features(images)
        patches = getattr(model, "patch_embed", None)
        if not isinstance(last, Tensor):
            raise ConfigError(
                f"{name} has no features that can be tapped (its last ones are {len(last)} tensors)"
            )
        if last.dim() == 3 and patches is None:
            taps.remove(MAP)
        elif last.dim() == 3 and not hasattr(patches, "dynamic_feat_size"):
            raise ConfigError(
                f"{name} has no features that can be tapped (timm does not say where its tokens lie)"
            )
        found = run(model, images, taps)
    nodes = {tap: tuple(found[tap].shape[1:]) for tap in taps}
    return nodes, {key: tuple(value.shape) for key, value in model.state_dict().items()}


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of the pixels (0 to 1) on which timm's weights were trained."""
    with torch.device("meta"):
        model: Any = create(name)
    return tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])


def resampled(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with position embeddings resampled to the grid of `model`'s input, as timm does."""
    found, wanted = dict(state), getattr(model, "pos_embed", None)
    given = found.get("pos_embed")
    if given is None or not isinstance(wanted, Tensor) or given.shape == wanted.shape:
        return found
    if given.dim() != 3 or wanted.dim() != 3 or given.shape[2] != wanted.shape[2]:
        return found
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    # A square, as trained
    if round((given.shape[1] - prefix) ** 0.5) ** 2 == given.shape[1] - prefix:
        found["pos_embed"] = package().layers.resample_abs_pos_embed(
            given, new_size=list(model.patch_embed.grid_size), num_prefix_tokens=prefix
        )
    return found
