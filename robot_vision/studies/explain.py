"""What an answer rests on, and what each stage of a network sees, as pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robot_vision.backbones.backbone import Backbone
from robot_vision.charts import lettering
from robot_vision.contract.training import Asked, Evidence
from robot_vision.errors import ConfigError
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import network_inputs
from robot_vision.networks.network import MultiHeadNetwork

TILE, GAP, LABEL_WIDTH, COLUMNS = 72, 4, 230, 12
_INK, _PAPER = (30, 30, 30), 255

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Layer:
    """The output of a stage for one image.

    Attributes:
        name: of the tap.
        values: (C, h, w) or (C,).
    """

    name: str
    values: Tensor


def network_input(image: Image, spec: InputSpec) -> Image:
    """Returns the image as the network sees it: RGB uint8 (height, width, 3)."""
    return network_inputs([image], spec)[0]


def all_stages(network: MultiHeadNetwork) -> MultiHeadNetwork:
    """Returns a network with the same weights, whose backbone has a tap at every stage."""
    size = (network.spec.input.height, network.spec.input.width)
    old = network.backbone
    names = [name for name, _ in old.body.named_modules()]
    built = [
        s for s in old.architecture.stages if any(n == s or n.startswith(s + ".") for n in names)
    ]
    wide = Backbone(old.architecture.name, tuple(dict.fromkeys((*built, *old.taps))), None, size)
    state = old.body.state_dict()
    wide.body.load_state_dict({k: v for k, v in state.items() if k in wide.body.state_dict()})
    other = MultiHeadNetwork(network.spec)
    other.heads.load_state_dict(network.heads.state_dict())
    other.backbone = wide
    return other.eval()


@torch.no_grad()
def layers(network: MultiHeadNetwork, image: Image) -> list[Layer]:
    """Returns every stage's output for an image.

    Args:
        network: what `all_stages` returned.
        image: RGB uint8, of the network's input size.
    """
    batch = torch.from_numpy(image[None])
    features = network.backbone(network.normalise(batch))
    return [Layer(name, value[0]) for name, value in features.items()]


class Trace(NamedTuple):
    """What an answer is computed from.

    Attributes:
        evidence: the number that is explained.
        features: of the maps that the head reads, (1, C, h, w) by their taps.
        gradients: of the evidence by them, of those that it depends on.
        taps: what the head is given, by its taps.
        backbone: with all of these taps.
    """

    evidence: Evidence
    features: dict[str, Tensor]
    gradients: dict[str, Tensor]
    taps: dict[str, Tensor]
    backbone: Backbone


def trace(network: MultiHeadNetwork, name: str, image: Image, asked: Asked) -> Trace | None:
    """Returns what an answer is computed from; arguments and errors are those of `explain`."""
    (head, spec) = next(pair for pair in network.spec.bound if pair[0].name == name)
    old, taps = network.backbone, network.taps[name]
    maps = [t if len(old.shapes[t]) == 3 else old.architecture.require_feature_map() for t in taps]
    wanted = tuple(dict.fromkeys(maps))
    backbone = old
    if not set(wanted) <= set(old.taps):
        size = (network.spec.input.height, network.spec.input.width)
        backbone = Backbone(old.architecture.name, (*wanted, *taps), None, size).eval()
        own, weights = backbone.body.state_dict(), old.body.state_dict()
        backbone.body.load_state_dict({k: v for k, v in weights.items() if k in own})
    with torch.enable_grad():
        pixels = network.normalise(torch.from_numpy(image[None])).requires_grad_()
        features = backbone(pixels)
        module = network.heads[name]
        raw = module(*(features[tap] for tap in taps))
        evidence = head.trainer().evidence(module, raw, spec, asked)
        if evidence is None:
            return None
        read = {tap: features[tap] for tap in wanted}
        found = torch.autograd.grad(evidence.value, list(read.values()), allow_unused=True)
    gradients = {
        tap: gradient for tap, gradient in zip(wanted, found, strict=True) if gradient is not None
    }
    if not gradients:  # a transformer's class token is not made of its last map
        raise ConfigError(
            f"{old.architecture.name}: the {name} head's answer is not computed from a feature map, so there "
            "is nothing to show it on: use a convolutional backbone for this head"
        )
    given = {tap: features[tap].detach() for tap in taps}
    return Trace(evidence, {t: v.detach() for t, v in read.items()}, gradients, given, backbone)


def explain(
    network: MultiHeadNetwork, name: str, image: Image, asked: Asked
) -> tuple[NDArray[np.float32], Evidence] | None:
    """Computes which parts of an image an answer rests on.

    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations" (2020), eq. 3: the feature
    maps, each number weighted by its own gradient, summed over the channels. Behind average pooling and a
    linear layer that is Grad-CAM. A head that reads several maps has the sum of what each says, in the finest
    one's size; a coarser map's share is spread over the pixels that it covers.

    Args:
        network: in evaluation mode.
        name: of the head.
        image: RGB uint8, of the network's input size.
        asked: what is to be explained.

    Returns:
        float32 (height, width) in [0, 1], all zero where nothing speaks for the answer; and what it speaks
        for. None where the head cannot be asked that.

    Raises:
        ConfigError: the answer is not computed from feature maps, or the network does not see the pixel.
    """
    found = trace(network, name, image, asked)
    if found is None:
        return None
    evidence, features, gradients = found.evidence, found.features, found.gradients
    finest = max((value.shape[2:] for value in features.values()), key=lambda shape: shape.numel())
    total = torch.zeros(1, 1, *finest)
    for tap, gradient in gradients.items():
        said = (gradient * features[tap]).sum(dim=1, keepdim=True).detach()  # (1, 1, h, w)
        share = said.shape[2:].numel() / finest.numel()
        total += share * F.interpolate(said, size=finest, mode="bilinear", align_corners=False)
    cam = (total.abs() if evidence.both else total.clamp(min=0))[0, 0].numpy()
    largest = float(cam.max())
    if largest > 0:
        cam = cam / largest
    heat = cv2.resize(cam, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(heat, 0, 1), evidence


def draw_cam(image: Image, heat: NDArray[np.float32], evidence: Evidence, name: str = "") -> Image:
    """Draws the input, with the outline of the pixels that are explained, next to the input under the heat.

    Args:
        image: RGB uint8.
        heat: as `explain` returns it.
        evidence: as `explain` returns it.
        name: of the head.

    Returns:
        RGB uint8, with a scale of the heat's colours at the bottom.
    """
    mixed = _heated(image, heat)
    scale = max(1, round(256 / image.shape[0]))
    plain, warm = (
        np.asarray(
            cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.uint8
        )
        for part in (image, mixed)
    )
    if evidence.region is not None:
        outline(plain, evidence.region)
    pair = np.concatenate([plain, warm], axis=1)
    top = np.full((30, pair.shape[1], 3), _PAPER, np.uint8)
    _write(top, f"{name}: {evidence.text}" if name else evidence.text, (6, 20))
    return np.concatenate([top, pair, _scale(pair.shape[1], evidence.both)])


def outline(picture: Image, region: NDArray[np.bool_]) -> None:
    """Draws the outline of the pixels of a map (h, w), which covers the picture."""
    size = (picture.shape[1], picture.shape[0])
    whole = cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(whole, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, width in ((_INK, 3), ((255, 255, 255), 1)):
        cv2.drawContours(picture, outlines, -1, colour, width)


def _heated(image: Image, heat: NDArray[np.float32]) -> Image:
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.55 * heat[..., None]
    return np.asarray(image * (1 - share) + colours * share, np.uint8)


def _scale(width: int, both: bool) -> Image:
    """Returns what the heat's colours mean, on a grey image, for the right half of a picture."""
    band = np.full((42, width, 3), _PAPER, np.uint8)
    left, steps = width // 2 + 6, width // 2 - 12
    heat = np.linspace(0, 1, steps, dtype=np.float32)[None].repeat(12, axis=0)
    band[4:16, left : left + steps] = _heated(np.full((12, steps, 3), 128, np.uint8), heat)
    _write(band, "0", (left, 34))
    what = "1: changes it most" if both else "1: speaks for it most"
    _write(band, what, (max(left + 20, width - 6 - lettering.width(what, 0.5)), 34))
    return band


def draw_layers(found: list[Layer], image: Image) -> Image:
    """Draws one row a stage: its name and shape, then its most active channels, RGB uint8."""
    width = LABEL_WIDTH + COLUMNS * (TILE + GAP) + GAP
    small = np.asarray(cv2.resize(image, (TILE, TILE)), np.uint8)
    rows = [_row("input", (3, *image.shape[:2]), [small], width)]
    _write(rows[0], "the most active channels of each stage, each in its own range:", (330, 28))
    _bar(rows[0], (330, 38), cv2.COLORMAP_VIRIDIS, "least", "greatest")
    for layer in found:
        shape = tuple(layer.values.shape)
        rows.append(_row(layer.name, shape, _tiles(layer.values), width))
    return np.concatenate(rows)


def _tiles(values: Tensor) -> list[Image]:
    """The channels with the largest mean, each in its own range; a vector as one strip of bars."""
    if values.dim() == 1:
        return [_strip(values.numpy())]
    order = values.mean(dim=(1, 2)).argsort(descending=True, stable=True)[:COLUMNS]
    tiles = []
    for channel in values[order].numpy():
        low, high = float(channel.min()), float(channel.max())
        grey = ((channel - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        grey = cv2.resize(grey, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        tiles.append(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[..., ::-1])
    return tiles


def _strip(values: NDArray[np.float32]) -> Image:
    """A vector as bars over its numbers, from 0 up or down."""
    columns = COLUMNS * (TILE + GAP) - GAP
    picture = np.full((TILE, columns, 3), _PAPER, np.uint8)
    edges = np.linspace(0, len(values), min(columns, len(values)) + 1).astype(int)
    bars = np.array(
        [values[a:b][np.abs(values[a:b]).argmax()] for a, b in zip(edges, edges[1:], strict=False)]
    )
    low, high = min(0.0, float(bars.min())), max(0.0, float(bars.max()))
    scale = (TILE - 1) / max(high - low, 1e-12)
    zero = round(high * scale)
    for x, bar in enumerate(bars):
        a = x * columns // len(bars)
        b = max(a + 1, (x + 1) * columns // len(bars))
        top, bottom = sorted((zero, round((high - float(bar)) * scale)))
        picture[top : bottom + 1, a:b] = (60, 90, 140)
    return picture


def _row(name: str, shape: tuple[int, ...], tiles: list[Image], width: int) -> Image:
    row = np.full((TILE + GAP, width, 3), _PAPER, np.uint8)
    _write(row, name, (6, 28))
    _write(row, " x ".join(map(str, shape)), (6, 50))
    x = LABEL_WIDTH
    for tile in tiles:
        row[GAP // 2 : GAP // 2 + TILE, x : x + tile.shape[1]] = tile
        x += tile.shape[1] + GAP
    return row


def _write(picture: Image, text: str, at: tuple[int, int]) -> None:
    lettering.put(picture, text, at, 0.5, _INK)


def _bar(
    picture: Image, at: tuple[int, int], colours: int, low: str, high: str, length: int = 140
) -> None:
    """Draws a bar of a colour map with what its ends stand for."""
    x, y = at
    _write(picture, low, (x, y + 12))
    x += lettering.width(low, 0.5) + 8
    steps = np.linspace(0, 255, length).astype(np.uint8)[None]
    bar = cv2.applyColorMap(np.repeat(steps, 14, axis=0), colours)[..., ::-1]
    picture[y : y + 14, x : x + length] = bar[:, : max(picture.shape[1] - x, 0)]
    _write(picture, high, (x + length + 8, y + 12))


def backbone_alone(name: str, weights: str | None, size: tuple[int, int]) -> MultiHeadNetwork:
    """Returns a torchvision network whose stages can be looked at without a bundle.

    Args:
        name: torchvision's name.
        weights: `torchvision`, a file, or None.
        size: (height, width) of the input.
    """
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.heads.classifier.spec import ClassifierSpec

    spec = NetworkSpec(name, InputSpec(*size), heads={"classifier": ClassifierSpec(("a", "b"))})
    network = MultiHeadNetwork(spec, weights)
    network.spec = replace(network.spec)
    return network.eval()
