"""Segmentation head: decoders from maps of several strides to class ids and confidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.backbones.enlarging import enlarged
from robot_vision.contract.constants import Constants
from robot_vision.heads.segmentation.fitting import thinned, thinning
from robot_vision.heads.segmentation.spec import SegmentationSpec


class SegmentationModule(nn.Module):
    """A decoder, whose scores are enlarged to the answer's size; then the most probable class of each pixel.

    Args:
        spec: decoder, labels and size.
        shapes: (C, h, w) of the taps, in the order of `SegmentationSpec.strides`.

    Attributes:
        constants: `temperature` (), where the graph gives the confidence.
    """

    def __init__(self, spec: SegmentationSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        channels = [shape[0] for shape in shapes]
        self.size = spec.size
        self.decoder = (
            LiteRaspp(channels, spec) if spec.decoder == "lraspp" else Fcn(channels, spec)
        )
        self.confidence = spec.confidence
        if spec.confidence:
            self.constants = Constants(temperature=())
            self.constants["temperature"].fill_(spec.temperature)

    def forward(self, *taps: Tensor) -> dict[str, Tensor]:
        """Scores the classes.

        Args:
            taps: (N, C, h', w') each.

        Returns:
            `logits` (N, K, h, w), before the temperature, and of them `thin_logits`, those of some pixels, by
            which the temperature is fitted.
        """
        logits = enlarged(self.decoder(taps), self.size)
        return {"logits": logits, "thin_logits": thinned(logits, thinning(self.size))}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `class_ids` uint8 (N, h, w), and `class_confidence`, 255 times the class's probability."""
        logits = raw["logits"].float()
        found = {"class_ids": logits.argmax(dim=1).to(torch.uint8)}
        if self.confidence:
            best = logits.amax(dim=1, keepdim=True)
            scaled = (logits - best) / self.constants["temperature"]
            found["class_confidence"] = (255 / scaled.exp().sum(dim=1)).round().to(torch.uint8)
        return found


class Fcn(nn.Module):
    """The decoders of "Fully Convolutional Networks for Semantic Segmentation" (Long et al., CVPR 2015).

    Classes are scored on the last map; `fcn16s` and `fcn8s` enlarge the scores by two, and add those of the
    next finer map. What enlarges them is a transposed convolution that starts as bilinear interpolation and
    is learned; the last step is fixed, as in the paper. Scores of finer maps start at zero (section 4.2), so
    that training starts from the coarser network. Departs from the paper in the backbone, whose last map
    takes the place of VGG's `fc7`, and in that all strides are trained at once.

    Args:
        channels: of the maps, the coarsest first.
        spec: labels and dropout.
    """

    def __init__(self, channels: Sequence[int], spec: SegmentationSpec) -> None:
        super().__init__()
        classes = len(spec.labels)
        self.dropout = nn.Dropout(spec.dropout)
        scores = [nn.Conv2d(c, classes, 1) for c in channels]
        for score in scores[1:]:
            for parameter in score.parameters():
                nn.init.zeros_(parameter)
        self.scores = nn.ModuleList(scores)
        self.enlarge = nn.ModuleList(Doubled(classes) for _ in channels[1:])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns scores (N, K, h, w) in the size of the finest map."""
        scores = self.scores[0](self.dropout(maps[0]))
        for enlarge, score, finer in zip(
            self.enlarge, list(self.scores)[1:], maps[1:], strict=True
        ):
            rows, columns = finer.shape[2:]
            # A map of an odd size is enlarged by a row or column too many.
            scores = enlarge(scores)[:, :, :rows, :columns] + score(finer)
        return scores


class Doubled(nn.Module):
    """A transposed convolution that doubles both sides; it starts as bilinear interpolation.

    The kernel is 4 x 4 with stride 2; at the border, where interpolation would look outside, the outermost
    values are repeated.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 4, 4))
        ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            for i in range(channels):
                self.weight[i, i] = ramp[:, None] * ramp

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, 2 h, 2 w) of (N, C, h, w)."""
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.weight, stride=2, padding=3)


class LiteRaspp(nn.Module):
    """A decoder for CPUs, after LR-ASPP ("Searching for MobileNetV3", Howard et al. 2019, section 6.4).

    As there, the last map goes through a 1 x 1 convolution and is gated by one of its own average, so that
    what a pixel shows depends on the whole scene. The paper then adds scores of one finer map; here all maps
    down to the answer's stride are added as features, each followed by a depthwise 3 x 3 convolution, which
    keeps thin things. The finest has half of the channels.

    Args:
        channels: of the maps, the coarsest first.
        spec: labels, channels and dropout.
    """

    def __init__(self, channels: Sequence[int], spec: SegmentationSpec) -> None:
        super().__init__()
        width = spec.channels
        widths = [width if stride > 4 else width // 2 for stride in spec.strides]
        self.context = nn.Sequential(
            *_normed(nn.Conv2d(channels[0], width, 1, bias=False)), nn.ReLU()
        )
        self.gate = nn.Sequential(nn.Conv2d(channels[0], width, 1), nn.Sigmoid())
        self.lateral = nn.ModuleList(
            nn.Sequential(*_normed(nn.Conv2d(c, w, 1, bias=False)))
            for c, w in zip(channels[1:], widths[1:], strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Identity() if a == b else nn.Conv2d(a, b, 1, bias=False)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(*_normed(nn.Conv2d(w, w, 3, padding=1, groups=w, bias=False)), nn.ReLU())
            for w in widths[1:]
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.score = nn.Conv2d(widths[-1], len(spec.labels), 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns scores (N, K, h, w) in the size of the finest map."""
        coarse = maps[0]
        x = self.context(coarse) * self.gate(coarse.mean(dim=(2, 3), keepdim=True))
        for finer, lateral, narrow, smooth in zip(
            maps[1:], self.lateral, self.narrow, self.smooth, strict=True
        ):
            size = finer.shape[2], finer.shape[3]
            x = smooth(F.relu(enlarged(narrow(x), size) + lateral(finer)))
        scores: Tensor = self.score(self.dropout(x))
        return scores


def _normed(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)
