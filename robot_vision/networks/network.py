"""MultiHeadNetwork: one backbone, several heads, camera pixels in and final values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.backbones.architectures import look_inside
from robot_vision.backbones.backbone import Backbone
from robot_vision.contract.several import join_answers
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.network import ClassifierHead
from robot_vision.heads.classifier.spec import FEATURE_SCORES
from robot_vision.heads.place.gem import GemHead
from robot_vision.heads.place.netvlad import NetVladHead
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.images.input import GREY

_SAMPLED = ("classifier", "pose")  # heads that may answer several times


class MultiHeadNetwork(nn.Module):
    """Built from a `NetworkSpec`; `forward` is what the exported graph computes.

    Training code calls `raw(images)` (logits, regressed numbers, descriptors) and puts a loss on
    it; `forward` is `decode(raw(images))`.

    Args:
        spec: backbone, input and heads.
        backbone_weights: None, `torchvision` or a file; see `Backbone`. Where it holds
            torchvision's classification layer and the classifier has as many labels on the default
            tap, that layer becomes the classifier.

    Attributes:
        spec: the given one, with taps and `descriptor_size` filled in.
        backbone: the `Backbone`.
        heads: name to head, in the fixed order of `NetworkSpec.heads`.
        members: the further heads of an ensemble: for each member name to head.
        classifier_is_pretrained: whether torchvision's classification layer became the classifier.

    Raises:
        ConfigError: an unknown backbone or tap, or sizes that do not fit together.
        BundleError: a weights file that cannot be used.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, spec: NetworkSpec, backbone_weights: str | None = None) -> None:
        super().__init__()
        self._taps = _taps(spec)
        size = (spec.input.height, spec.input.width)
        taps = tuple(self._taps.values())
        self.backbone = Backbone(spec.backbone, taps, backbone_weights, size)
        channels, height, width = self.backbone.architecture.input
        if channels != spec.input.channels:
            raise ConfigError(
                f"{spec.backbone} takes {'grey' if channels == 1 else 'RGB'} images: set input.channels to "
                f"{channels} (it was made for {height} x {width} pixels)"
            )
        shapes = {head: self.backbone.shapes[tap] for head, tap in self._taps.items()}
        self.heads = nn.ModuleDict()
        for name in _SAMPLED:
            if name in shapes:
                self.heads[name] = sampled_head(spec, name, shapes[name])
        if spec.place:
            place: NetVladHead | GemHead
            if spec.place.pooling == "netvlad":
                place = NetVladHead(spec.place, shapes["place"])
            else:
                place = GemHead(spec.place, shapes["place"])
            self.heads["place"] = place
            spec = spec.with_heads(place=replace(spec.place, descriptor_size=place.size))
        if spec.classifier and spec.classifier.score in FEATURE_SCORES:
            width = shapes["classifier"][0]
            spec = spec.with_heads(classifier=replace(spec.classifier, feature_size=width))
        self.spec = spec
        self._set_normalisation()
        self.classifier_is_pretrained = self._take_classification_layer()
        self.members = nn.ModuleList()
        self.build_epistemic()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predicts final values.

        Args:
            images: RGB uint8 (N, H, W, 3), of the spec's input size.

        Returns:
            float32 tensors with the names and shapes of `NetworkSpec.outputs`, N first.
        """
        return self.decode(self.raw(images))

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """Computes what losses are computed on.

        Args:
            images: RGB uint8 (N, H, W, 3).

        Returns:
            Of the heads that are there: `logits` (N, K); `position` (N, 3), `quaternion_xyzw` (N,
            4), `log_variance` (N, 6), and with a full covariance `correlation` (N, 15);
            `descriptor` (N, D). The heads' docstrings say what each is. After training, with several
            answers (`NetworkSpec.epistemic`), also those of classifier and pose head (N, S, ...).
        """
        return self.raw_from_features(self.forward_features(images))

    def forward_features(self, images: Tensor) -> dict[str, Tensor]:
        """Runs the backbone alone.

        Args:
            images: RGB uint8 (N, H, W, 3).

        Returns:
            Head's name to its tap's features, (N, C) or (N, C, h, w). A head that trains alone on a
            frozen backbone can keep them.
        """
        taps = self.backbone(self.normalise(images))
        return {head: taps[tap] for head, tap in self._taps.items()}

    def raw_from_features(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs the heads whose features are given, as `raw` does."""
        raw: dict[str, Tensor] = {}
        for name, feature in features.items():
            answers = [self.heads[name](feature)]
            if not self.training:
                answers += [head(feature) for head in self.every(name)[1:]]
            raw.update(join_answers(answers) if len(answers) > 1 else answers[0])
        return raw

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns what `raw` returned into final values, in the order of `NetworkSpec.outputs`."""
        outputs: dict[str, Tensor] = {}
        head: Any  # ModuleDict knows modules only, and not that heads decode
        for head in self.heads.values():
            outputs.update(head.decode(raw))
        return outputs

    def build_epistemic(self) -> None:
        """Makes what `spec.epistemic` asks for: masks, and further members, whose weights are random."""
        wanted = self.spec.epistemic
        while len(self.members) < (wanted.members - 1 if wanted else 0):
            member = nn.ModuleDict()
            for name in _SAMPLED:
                if name in self.heads:
                    shape = self.backbone.shapes[self._taps[name]]
                    member[name] = sampled_head(self.spec, name, shape)
            device = next(self.heads.parameters()).device
            # Without data, constants stay where they have some.
            self.members.append(member if device.type == "meta" else member.to(device))
        self.members = self.members[: wanted.members - 1 if wanted else 0]
        passes, seed = (wanted.passes, wanted.seed) if wanted else (0, 0)
        for number, heads in enumerate([self.heads, *self.members]):
            for place, name in enumerate(_SAMPLED):
                if name in heads:  # type: ignore[operator]
                    head: Any = heads[name]  # type: ignore[index]
                    head.set_passes(passes, seed + 2 * number + place)

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

    @property
    def taps(self) -> dict[str, str]:
        """Head's name to the backbone's tap that it reads."""
        return dict(self._taps)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters of `backbone` and of each head by name."""
        groups = {"backbone": list(self.backbone.parameters())}
        groups.update({name: list(head.parameters()) for name, head in self.heads.items()})
        return {name: [p for p in group if p.requires_grad] for name, group in groups.items()}

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

    def _take_classification_layer(self) -> bool:
        layer = self.backbone.classification_layer
        self.backbone.classification_layer = None  # taken or not, it need not be kept
        if layer is None or "classifier" not in self.heads:
            return False
        head = self.heads["classifier"]
        assert isinstance(head, ClassifierHead)
        at_default = self._taps["classifier"] == self.backbone.architecture.features
        if not at_default or head.linear.weight.shape != layer[0].shape:
            return False
        head.linear.load_state_dict({"weight": layer[0], "bias": layer[1]})
        return True


def sampled_head(spec: NetworkSpec, name: str, shape: tuple[int, ...]) -> nn.Module:
    """Builds a `classifier` or `pose` head with random weights, for a tap of that shape."""
    if name == "classifier":
        assert spec.classifier
        return ClassifierHead(spec.classifier, shape[0])
    assert spec.pose
    return PoseNetHead(spec.pose, shape)


def _taps(spec: NetworkSpec) -> dict[str, str]:
    inside = look_inside(spec.backbone)
    taps = {}
    for name in spec.heads:
        wanted = spec.heads[name].tap
        if not wanted:
            wanted = inside.features if name == "classifier" else inside.require_feature_map()
        taps[name] = wanted
    return taps
