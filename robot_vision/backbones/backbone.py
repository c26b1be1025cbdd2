"""Backbone: a classification network of torchvision, of timm or of `small`, cut at named taps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from robot_vision.backbones import architectures, timm_networks
from robot_vision.backbones.pretrained import read_weights
from robot_vision.errors import ConfigError
from robot_vision.images.input import IMAGENET_MEAN, IMAGENET_STD


class Backbone(nn.Module):
    """A network that returns the tensors at its taps, and has nothing behind the last.

    A tap is named like the layer or stage whose output it is (`layer4`, `features.18`,
    `inception4d`); `architectures.look_inside(name).stages` lists them. Auxiliary classifiers
    (GoogLeNet, Inception) are left out, and so is torchvision's classification layer: with a linear
    classifier on the default tap the network has exactly torchvision's parameters.

    Args:
        name: e.g. `resnet18`; `architectures.names()` lists them.
        taps: which tensors to return; empty means the default tap of a classifier.
        weights: None (random), `torchvision` or `timm` (downloaded by that package into its own cache), or
            a file: `.safetensors`, or a `.pth`, which is read without running pickled code.
        input_size: (height, width) in pixels, from which the taps' shapes follow.

    Attributes:
        shapes: tap to its shape for that input size, without the batch axis: (C,) or (C, H, W).
        classification_layer: weight and bias of torchvision's own classifier, when weights were
            read and its last layer is linear; else None.
        weight_notes: where in their file the weights were, and what else is there, if anything.

    Raises:
        ConfigError: an unknown name, tap or an input size that the network cannot take.
        BundleError: a weights file that is absent, broken or of another network.
    """

    def __init__(
        self,
        name: str,
        taps: Sequence[str] = (),
        weights: str | None = None,
        input_size: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        self.architecture = architectures.look_inside(name)
        self.taps = tuple(dict.fromkeys(taps)) or (self.architecture.features,)
        self._nodes = {tap: self.architecture.resolve(tap) for tap in self.taps}
        nodes = tuple(sorted(set(self._nodes.values())))
        self.shapes = self._measure(nodes, input_size)
        self._of_timm = timm_networks.is_timm(name)
        if self._of_timm:
            # Never on the meta device, where it would lose tables that are no weights and stand in no file.
            with torch.device("cpu"):
                self.body = timm_networks.tapped(name, input_size, self.taps)
        else:
            self.body = architectures.tapped(name, nodes, initialise=weights is None)
        self.classification_layer: tuple[Tensor, Tensor] | None = None
        self.weight_notes: list[str] = []
        self._frozen: tuple[str, ...] = ()
        if weights is not None:
            self._load(weights)

    @property
    def input_affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel scale and shift from ImageNet-normalised pixels to what this network expects.

        The identity, but for GoogLeNet's and Inception's weights, which expect (pixel - 0.5) / 0.5
        (torchvision's `transform_input`), and for those of timm's that were trained on others. Apply it
        before `forward`; `MultiHeadNetwork` folds it into its normalisation, where it costs nothing.
        """
        if self._of_timm:
            means, stds = timm_networks.normalisation(self.architecture.name)
            own = list(zip(means, stds, IMAGENET_MEAN, IMAGENET_STD, strict=True))
            scale = tuple(std / s for _, s, _, std in own)
            return scale, tuple((mean - m) / s for m, s, mean, _ in own)
        if self.architecture.name not in architectures.INCEPTIONS:
            channels = self.architecture.input[0]
            return (1.0,) * channels, (0.0,) * channels
        scale = tuple(std / 0.5 for std in IMAGENET_STD)
        shift = tuple((mean - 0.5) / 0.5 for mean in IMAGENET_MEAN)
        return scale, shift

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Runs the network up to its last tap.

        Args:
            images: normalised (N, 3, H, W), or (N, 1, H, W) where the network takes grey ones.

        Returns:
            For each tap a tensor (N, C) or (N, C, h, w).
        """
        if self._of_timm:
            return timm_networks.run(self.body, images, self.taps)
        features = self.body(images)
        return {tap: features[node] for tap, node in self._nodes.items()}

    def freeze(self, stages: Iterable[str]) -> None:
        """Stops training of some stages: no gradients, and batch norm and dropout as in evaluation.

        Args:
            stages: names of stages or layers; replaces what was frozen before; `()` thaws
                everything.

        Raises:
            ConfigError: the part of the network that is built has no such stage.
        """
        stages = tuple(stages)
        for stage in stages:
            if not any(_within(name, (stage,)) for name, _ in self.body.named_modules() if name):
                built = [s for s in self.architecture.stages if self._has(s)]
                raise ConfigError(
                    f"{self.architecture.name}: unknown stage {stage!r}: use one of {', '.join(built)}"
                )
        self._frozen = stages
        for name, parameter in self.body.named_parameters():
            # What belongs to no layer, such as a transformer's class token, comes before the first.
            first = bool(stages) and "." not in name
            parameter.requires_grad_(not (first or _within(name, stages)))
        self.train(self.training)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The stages that are frozen."""
        return self._frozen

    def train(self, mode: bool = True) -> Backbone:
        """Sets training mode, in which frozen stages stay in evaluation mode."""
        super().train(mode)
        for name, module in self.body.named_modules():
            if name and _within(name, self._frozen):
                module.eval()
        return self

    def _has(self, stage: str) -> bool:
        return any(_within(name, (stage,)) for name, _ in self.body.named_modules())

    def _measure(
        self, nodes: tuple[str, ...], input_size: tuple[int, int]
    ) -> dict[str, tuple[int, ...]]:
        name = self.architecture.name
        size = (self.architecture.input[0], *input_size)
        measure = (
            timm_networks.shapes_at if timm_networks.is_timm(name) else architectures.shapes_at
        )
        try:
            shapes = measure(name, nodes, size)
        except (RuntimeError, AssertionError, ValueError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            channels, *own = self.architecture.input
            grey = " and channels 1" if channels == 1 else ""
            raise ConfigError(
                f"{name} cannot take an input of {input_size[0]} x {input_size[1]} pixels "
                f"({first}): use {'x'.join(map(str, own))}{grey} for instance"
            ) from error
        return {tap: shapes[node] for tap, node in self._nodes.items()}

    def _load(self, weights: str) -> None:
        needed = self.body.state_dict()
        state, self.weight_notes = read_weights(
            self.architecture, weights, {k: tuple(v.shape) for k, v in needed.items()}, self.body
        )
        self.body.load_state_dict({k: v for k, v in state.items() if k in needed})
        layer = [state.get(f"{self.architecture.last_layer}.{part}") for part in ("weight", "bias")]
        if self.architecture.linear_end and layer[0] is not None and layer[1] is not None:
            self.classification_layer = (layer[0], layer[1])


def _within(name: str, stages: tuple[str, ...]) -> bool:
    return any(name == stage or name.startswith(stage + ".") for stage in stages)
