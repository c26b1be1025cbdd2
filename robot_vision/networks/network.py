"""MultiHeadNetwork: one backbone, several heads, camera pixels in and final values out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.backbones.architectures import look_inside
from robot_vision.backbones.backbone import Backbone
from robot_vision.contract import registry
from robot_vision.contract.head import Head, Tap
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.images.input import GREY

Raw = dict[str, dict[str, Tensor]]  # head's name to what its module computes


class MultiHeadNetwork(nn.Module):
    """Built from a `NetworkSpec`; `forward` is what the exported graph computes.

    Training code calls `raw(images)` (logits, regressed numbers, descriptors) and puts a loss on
    it; `forward` is `decode(raw(images))`.

    Args:
        spec: backbone, input and heads.
        backbone_weights: None, `torchvision` or a file; see `Backbone`. Where it holds
            torchvision's classification layer, a head on the default tap may take it.

    Attributes:
        spec: the given one, with the sizes filled in that follow from the backbone.
        backbone: the `Backbone`.
        heads: name to head, in the order of `NetworkSpec.heads`.
        members: the further heads of an ensemble: for each member name to head.
        taps: head's name to the backbone's taps that it reads.
        pretrained: the heads that took torchvision's classification layer.

    Raises:
        ConfigError: an unknown backbone or tap, or sizes that do not fit together.
        BundleError: a weights file that cannot be used.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, spec: NetworkSpec, backbone_weights: str | None = None) -> None:
        super().__init__()
        self.taps = {h.name: _resolved(spec.backbone, h.taps(own)) for h, own in spec.bound}
        size = (spec.input.height, spec.input.width)
        taps = tuple(tap for taps in self.taps.values() for tap in taps)
        self.backbone = Backbone(spec.backbone, taps, backbone_weights, size)
        channels, height, width = self.backbone.architecture.input
        if channels != spec.input.channels:
            raise ConfigError(
                f"{spec.backbone} takes {'grey' if channels == 1 else 'RGB'} images: set input.channels to "
                f"{channels} (it was made for {height} x {width} pixels)"
            )
        self.spec = spec
        self.heads = nn.ModuleDict()
        built = {}
        for head, own in spec.bound:
            if hasattr(self.heads, head.name):
                raise ConfigError(f"A head cannot be called {head.name!r}: choose another name")
            self.heads[head.name] = self.new_head(head.name)
            built[head.name] = head.trainer().built(own, self.heads[head.name])
        self.spec = spec = spec.with_heads(**built)
        self._set_normalisation()
        self.pretrained = self._take_last_layer()
        self.members = nn.ModuleList()
        self.build_epistemic()

    def new_head(self, name: str) -> nn.Module:
        """Builds a head of the spec with random weights."""
        (head,) = (head for head, _ in self.spec.bound if head.name == name)
        shapes = [self.backbone.shapes[tap] for tap in self.taps[name]]
        module: nn.Module = head.trainer().module(self.spec.heads[name], shapes)
        return module

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predicts final values.

        Args:
            images: RGB uint8 (N, H, W, 3), of the spec's input size.

        Returns:
            float32 tensors with the names and shapes of `NetworkSpec.outputs`, N first.
        """
        return self.decode(self.raw(images))

    def raw(self, images: Tensor) -> Raw:
        """Computes what losses are computed on.

        Args:
            images: RGB uint8 (N, H, W, 3).

        Returns:
            For each head what its module says, such as `logits` (N, K) of a classifier; the modules'
            docstrings say what each is. After training, with several answers (`NetworkSpec.epistemic`), also
            those of the heads that give them (N, S, ...).
        """
        return self.raw_from_features(self.forward_features(images))

    def forward_features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Runs the backbone alone.

        Args:
            images: RGB uint8 (N, H, W, 3).

        Returns:
            Head's name to its taps' features, each (N, C) or (N, C, h, w). A head that trains alone on a
            frozen backbone can keep them.
        """
        found = self.backbone(self.normalise(images))
        return {name: [found[tap] for tap in taps] for name, taps in self.taps.items()}

    def raw_from_features(self, features: Mapping[str, list[Tensor]]) -> Raw:
        """Runs the heads whose features are given, as `raw` does."""
        raw: Raw = {}
        for name, tensors in features.items():
            head: Any = self.heads[name]
            raw[name] = head(*tensors)
            others = [] if self.training else self.every(name)[1:]
            if others:
                raw[name] = head.join([raw[name], *(other(*tensors) for other in others)])
        return raw

    def decode(self, raw: Raw) -> dict[str, Tensor]:
        """Turns what `raw` returned into final values, by the names of `NetworkSpec.outputs`."""
        outputs: dict[str, Tensor] = {}
        for head, _ in self.spec.bound:
            if head.name in raw:
                module: Any = self.heads[head.name]
                decoded = module.decode(raw[head.name])
                outputs.update({head.key(word): value for word, value in decoded.items()})
        return outputs

    def build_epistemic(self) -> None:
        """Makes what `spec.epistemic` asks for: masks, and further members, whose weights are random."""
        wanted = self.spec.epistemic
        sampled = [head for head, _ in self.spec.bound if head.sampled]
        while len(self.members) < (wanted.members - 1 if wanted else 0):
            member = nn.ModuleDict({head.name: self.new_head(head.name) for head in sampled})
            device = next(self.heads.parameters()).device
            # Without data, constants stay where they have some.
            self.members.append(member if device.type == "meta" else member.to(device))
        self.members = self.members[: wanted.members - 1 if wanted else 0]
        passes, seed = (wanted.passes, wanted.seed) if wanted else (0, 0)
        for head in sampled:
            module: Any
            for number, module in enumerate(self.every(head.name)):
                module.set_passes(passes, (seed + 2 * number + _offset(head)) % 2**32)

    def every(self, name: str) -> list[nn.Module]:
        """Returns a head and those of the same name in an ensemble's other members."""
        others = [m[name] for m in self.members if name in m]  # type: ignore[operator,index]
        return [self.heads[name], *others]

    def normalise(self, images: Tensor) -> Tensor:
        """Turns RGB uint8 (N, H, W, 3) into what the backbone expects, (N, 3, H, W) or (N, 1, H, W)."""
        # The cast comes first: TensorRT takes uint8 for an input alone, not for what a transposition gives.
        pixels = images.to(self.pixel_scale.dtype).permute(0, 3, 1, 2)
        pixels = pixels * self.pixel_scale
        if self.spec.input.channels == 1:
            pixels = pixels.sum(1, keepdim=True)
        return pixels + self.pixel_shift

    def _set_normalisation(self) -> None:
        # (pixel / 255 - mean) / std, then the backbone's own affine, as one multiplication and
        # addition. It follows from the spec, so it is not saved.
        with torch.device("cpu"):
            mean, std = torch.tensor(self.spec.input.mean), torch.tensor(self.spec.input.std)
            own_scale, own_shift = (torch.tensor(v) for v in self.backbone.input_affine)
            scale = own_scale / (255.0 * std)
            shift = own_shift - own_scale * mean / std
            if self.spec.input.channels == 1:
                scale = scale * torch.tensor(GREY)
        self.register_buffer("pixel_scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_shift", shift.view(1, -1, 1, 1), persistent=False)

    def _take_last_layer(self) -> frozenset[str]:
        """Puts the backbone's last layer into heads that say the same by it; returns their names."""
        layer = self.backbone.classification_layer
        self.backbone.classification_layer = None  # taken or not, it need not be kept
        if layer is None:
            return frozenset()
        inside, taken = self.backbone.architecture, set[str]()
        for head, _ in self.spec.bound:
            if self.taps[head.name] == (inside.features,) and head.trainer().takes == inside.says:
                linear: Any = self.heads[head.name].linear
                if linear.weight.shape == layer[0].shape:
                    linear.load_state_dict(dict(zip(("weight", "bias"), layer, strict=True)))
                    taken.add(head.name)
        return frozenset(taken)


def _offset(head: Head[Any, Any]) -> int:
    """Returns what tells the seeds of a network's heads apart."""
    if head.name in registry.BUILT_IN:
        return list(registry.BUILT_IN).index(head.name)
    return zlib.crc32(head.name.encode())


def _resolved(backbone: str, taps: tuple[Tap, ...]) -> tuple[str, ...]:
    inside = look_inside(backbone)
    names = []
    for tap in taps:
        if tap.stride is not None:
            names.append(inside.of_stride(tap.stride))
        elif tap.kind == "map":
            names.append(tap.name or inside.require_feature_map())
        elif tap.kind == "token":
            names.append(tap.name or inside.token)
        else:
            names.append(tap.name or inside.features)
    return tuple(names)
