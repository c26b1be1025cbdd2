"""What classification networks look like inside, found by looking and not from a table.

These are torchvision's, a few small ones of this package (`OWN`), and timm's (`timm_networks`).

A network is built and run once on torch's `meta` device, which has shapes and no data, so that the
size of every intermediate tensor is known in a second and without memory.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torchvision import models, ops
from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor

from robot_vision.backbones import timm_networks
from robot_vision.backbones.small import LeNet, PulpResNet8, ResNet8
from robot_vision.errors import ConfigError, unknown

Shape = tuple[int, ...]

# Both were trained on pixels scaled to [-1, 1]; torchvision converts inside the network when asked
# to (transform_input), and we do so in the normalisation, where it costs nothing. Both have
# auxiliary classifiers, which only serve torchvision's own training from scratch: they are never
# built here.
INCEPTIONS = ("googlenet", "inception_v3")
# (channels, height, width): every network of torchvision accepts it, and those with fixed positions no other.
_LOOK = (3, 224, 224)
# Networks of this package: what builds them, and the input for which they were made.
OWN: Mapping[str, tuple[Callable[[], nn.Module], Shape]] = {
    "lenet": (LeNet, (1, 28, 28)),
    "pulp_resnet8": (PulpResNet8, (1, 200, 200)),
    "resnet8": (ResNet8, (1, 200, 200)),
}


@dataclass(frozen=True)
class Architecture:
    """The inside of one network.

    Attributes:
        name: torchvision's name, or `timm/` and timm's.
        nodes: every tensor (N, C) or (N, C, H, W) inside, in the order in which it is computed,
            with its shape without the batch axis for `input`.
        taps: names by which a tensor can be tapped (a layer's or stage's name) to the node.
        stages: the taps worth listing: the top level and its numbered parts.
        features: the tap before the classification layer, behind which classifier = linear layer.
        feature_map: the last tensor (C, H, W) before pooling; empty where there is none.
        last_layer: name of torchvision's classification layer, e.g. `fc`.
        linear_end: whether that is a linear layer with bias directly on `features` (false for SqueezeNet
            and MaxViT).
        keys: names of every parameter and buffer of the whole network to their shapes.
        input: (channels, height, width) of the images for which it was made.
        says: what the numbers of the last layer are.
        class_token: the tap of a transformer's class token; empty where `features` is the nearest to it.
    """

    name: str
    nodes: Mapping[str, Shape]
    taps: Mapping[str, str]
    stages: tuple[str, ...]
    features: str
    feature_map: str
    last_layer: str
    linear_end: bool
    keys: Mapping[str, Shape]
    input: Shape
    says: str
    class_token: str = ""

    @property
    def token(self) -> str:
        """The tap of a vector that stands for the whole image."""
        return self.class_token or self.features

    def resolve(self, tap: str) -> str:
        """Returns the node of a tap.

        Raises:
            ConfigError: the network has no such tap; the message lists those that it has.
        """
        if tap in self.taps:
            return self.taps[tap]
        raise ConfigError(f"{self.name}: {unknown('tap', tap, self.stages)}")

    def require_feature_map(self) -> str:
        """Returns the default tap of a head that needs a feature map (C, H, W)."""
        if self.feature_map:
            return self.feature_map
        raise ConfigError(
            f"{self.name} ends in tokens and not in a feature map: use a convolutional backbone for this "
            f"head, or name one of its taps: {', '.join(self.stages)}"
        )

    def of_stride(self, stride: int) -> str:
        """Returns the last stage whose feature map has one pixel for `stride` of the input's, each way.

        Raises:
            ConfigError: there is none; the message names the strides that there are.
        """
        strides = {}
        for stage in self.stages:
            shape = self.nodes[self.taps[stage]]
            if len(shape) == 3:
                strides[round(self.input[1] / shape[1])] = stage
        if stride not in strides:
            raise ConfigError(
                f"{self.name} has no feature map of stride {stride}: use one of "
                f"{', '.join(map(str, strides))}"
            )
        return strides[stride]


def names() -> list[str]:
    """Returns the classification networks by name: this package's, then torchvision's."""
    return [*OWN, *models.list_models(module=models)]


def check_name(name: str) -> None:
    """Raises ConfigError with the nearest names when there is no such network."""
    if timm_networks.is_timm(name):
        timm_networks.check_name(name)
        return
    if name in names():
        return
    import difflib

    near = difflib.get_close_matches(name.lower(), names(), n=4, cutoff=0.5)
    raise ConfigError(
        f"Unknown backbone {name!r}: use {', '.join(OWN)} or one of torchvision's classification networks, "
        f"{'such as' if near else 'for example'} {', '.join(near or ['resnet18', 'mobilenet_v2'])}"
    )


def build(name: str, initialise: bool = True) -> nn.Module:
    """Builds a whole network without weights (auxiliary classifiers left out).

    Args:
        name: of the network.
        initialise: false skips GoogLeNet's and Inception's slow initialisation.
    """
    check_name(name)
    if name in OWN:
        return OWN[name][0]()
    options = {"aux_logits": False, "init_weights": initialise} if name in INCEPTIONS else {}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def skeleton(name: str) -> nn.Module:
    """Builds a network whose tensors have shapes and no data (torch's `meta` device), in eval mode."""
    try:
        with torch.device("meta"):
            return build(name, initialise=False).eval()
    except NotImplementedError:  # RegNet computes its widths with tensors that it reads
        with torch.device("cpu"), _WeightsOnMeta():
            return build(name, initialise=False).eval().to("meta")


class _WeightsOnMeta(TorchFunctionMode):
    """Lets layers make their weights without data, which also makes their initialisation cost nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def tapped(name: str, nodes: tuple[str, ...], initialise: bool = True) -> nn.Module:
    """Builds the part of a network of torchvision or this package that some of its nodes need.

    Args:
        name: of the network.
        nodes: names of `Architecture.nodes`.
        initialise: see `build`.

    Returns:
        Without weights, a module that takes images and returns each node's tensor by its name. On torch's
        `meta` device, where that is the default, in eval mode; a caller fills it in later.
    """
    cut = _cut(name, nodes)
    if torch.get_default_device().type == "meta":
        return copy.deepcopy(cut)
    full = build(name, initialise)
    state = full.state_dict()
    # A table that arises on the way, and is no weight
    if not cut.state_dict().keys() <= state.keys():
        return create_feature_extractor(full, list(nodes), suppress_diff_warning=True)
    body = copy.deepcopy(cut)
    body.load_state_dict({key: state[key] for key in body.state_dict()}, assign=True)
    return body.train()


@functools.lru_cache(maxsize=64)
def shapes_at(name: str, nodes: tuple[str, ...], size: Shape) -> Mapping[str, Shape]:
    """Returns the shapes of nodes, without the batch axis, for images of (channels, height, width).

    Raises:
        RuntimeError, AssertionError, ValueError: the network cannot take them.
    """
    with torch.device("meta"):
        outputs = _cut(name, nodes)(torch.empty(1, *size))
    return {node: tuple(outputs[node].shape[1:]) for node in nodes}


@functools.lru_cache(maxsize=64)
def _cut(name: str, nodes: tuple[str, ...]) -> nn.Module:
    """What `tapped` returns on the `meta` device: following a network's steps takes up to seconds."""
    with torch.device("meta"):
        model = skeleton(name)
        return create_feature_extractor(model, list(nodes), suppress_diff_warning=True).eval()


@functools.lru_cache(maxsize=32)
def look_inside(name: str) -> Architecture:
    """Returns what a network looks like inside.

    Raises:
        ConfigError: there is no classification network of that name.
    """
    check_name(name)
    if timm_networks.is_timm(name):
        return Architecture(name=name, **timm_networks.facts(name))
    look = OWN[name][1] if name in OWN else _LOOK
    model = skeleton(name)
    # The steps as `create_feature_extractor` names them, followed once.
    tracer = NodePathTracer(autowrap_modules=(math, ops), leaf_modules=_LEAVES)
    steps = fx.GraphModule(model, tracer.trace(model))
    run = _Recorder(steps, tracer.node_to_qualname)
    with torch.device("meta"):
        run.run(torch.empty(1, *look))
    tensors = run.found
    modules = dict(model.named_modules())
    last_layer = [node for node in tensors if any(True for _ in _parameters(modules.get(node)))][-1]
    before = list(tensors)[: list(tensors).index(last_layer)]
    nodes = {n: tuple(tensors[n].shape[1:]) for n in before if tensors[n].dim() in (2, 4)}
    features = next(n for n in reversed(nodes) if not isinstance(modules.get(n), nn.Dropout))
    taps = {part: node for node in nodes for part in _prefixes(node)}
    linear = (
        isinstance(modules[last_layer], nn.Linear)
        and f"{last_layer}.bias" in model.state_dict()
        and len(nodes[features]) == 1
    )
    return Architecture(
        name=name,
        nodes=nodes,
        taps=taps,
        stages=_stages(model, taps),
        features=features,
        feature_map=_feature_map(tensors, before, modules),
        last_layer=last_layer,
        linear_end=linear and list(tensors)[-1] == last_layer,
        keys={key: tuple(value.shape) for key, value in model.state_dict().items()},
        input=look,
        says=getattr(model, "says", "classes"),
    )


# torchvision's own functions and layers are one step each, as in `create_feature_extractor`.
_LEAVES = [
    part for part in vars(ops).values() if isinstance(part, type) and issubclass(part, nn.Module)
]


class _Recorder(fx.Interpreter):
    """Keeps the tensor of each step by its name; the input is none."""

    def __init__(self, module: fx.GraphModule, names: Mapping[fx.Node, str]) -> None:
        super().__init__(module)
        self._names = names
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op != "placeholder" and n in self._names:
            self.found[self._names[n]] = result
        return result


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())


def _prefixes(node: str) -> list[str]:
    """`layer4.1.relu_1` can be tapped as layer4, layer4.1 and by its full name: the last one wins."""
    parts = node.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _stages(model: nn.Module, taps: Mapping[str, str]) -> tuple[str, ...]:
    stages: list[str] = []
    for name, child in model.named_children():
        parts = [f"{name}.{i}" for i, _ in child.named_children()]
        # Flat networks: the parts are the stages
        split = name in ("features", "layers", "classifier")
        stages += [s for s in (parts if split else [name]) if s in taps]
    return tuple(stages)


def _feature_map(
    tensors: Mapping[str, Tensor], before: list[str], modules: Mapping[str, nn.Module]
) -> str:
    """The last (C, H, W) that is neither pooled to a fixed size nor followed by tokens (N, T, C)."""
    for node in reversed(before):
        shape = tensors[node].shape
        if len(shape) == 3:
            return ""
        pooled = isinstance(modules.get(node), (nn.AdaptiveAvgPool2d, nn.Dropout))
        if len(shape) == 4 and min(shape[2:]) > 1 and not pooled:
            return node
    return ""
