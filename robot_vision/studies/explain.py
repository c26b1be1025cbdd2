"""What a class rests on (Grad-CAM), and what each stage of a network sees, as pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.backbones.backbone import Backbone
from robot_vision.errors import ConfigError, unknown
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


def grad_cam(
    network: MultiHeadNetwork, image: Image, label: str | None = None
) -> tuple[NDArray[np.float32], str, float]:
    """Computes where the evidence for a class is.

    Selvaraju et al., "Grad-CAM" (ICCV 2017), eq. 1 and 2: channels of the last feature map A, weighted by
    the mean gradient of the class's logit, summed, and cut off at zero.

    Args:
        network: in evaluation mode, with a classifier.
        image: RGB uint8, of the network's input size.
        label: the class; the most probable one when None.

    Returns:
        float32 (height, width) in [0, 1], all zero where nothing speaks for the class; the class; and its
        probability.

    Raises:
        ConfigError: no classifier, an unknown label, or a backbone without feature maps.
    """
    if "classifier" not in network.spec.heads:
        raise ConfigError("Grad-CAM needs a classifier, which this model does not have")
    labels = network.spec.heads["classifier"].labels
    if label is not None and label not in labels:
        raise ConfigError(unknown("label", label, labels))
    (tap,) = network.taps["classifier"]
    wanted = (
        tap
        if len(network.backbone.shapes[tap]) == 3
        else network.backbone.architecture.require_feature_map()
    )
    size = (network.spec.input.height, network.spec.input.width)
    backbone = Backbone(network.backbone.architecture.name, (wanted, tap), None, size).eval()
    backbone.body.load_state_dict(
        {
            k: v
            for k, v in network.backbone.body.state_dict().items()
            if k in backbone.body.state_dict()
        }
    )
    with torch.enable_grad():
        pixels = network.normalise(torch.from_numpy(image[None])).requires_grad_()
        features = backbone(pixels)
        raw = network.heads["classifier"](features[tap])
        probabilities = network.heads["classifier"].decode(raw)["probabilities"][0]  # type: ignore
        chosen = int(probabilities.argmax()) if label is None else labels.index(label)
        maps = features[wanted]  # (1, C, h, w)
        (gradient,) = torch.autograd.grad(raw["logits"][0, chosen], maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * maps).sum(dim=1).clamp(min=0)[0].detach().numpy()
    largest = float(cam.max())
    if largest > 0:
        cam = cam / largest
    heat = cv2.resize(cam, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(heat, 0, 1), labels[chosen], float(probabilities[chosen].detach())


def draw_cam(image: Image, heat: NDArray[np.float32], label: str, probability: float) -> Image:
    """Draws the input next to the input under the heat, RGB uint8."""
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.55 * heat[..., None]
    mixed = (image * (1 - share) + colours * share).astype(np.uint8)
    scale = max(1, round(256 / image.shape[0]))
    pair = np.concatenate([image, mixed], axis=1)
    pair = cv2.resize(pair, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    head = np.full((30, pair.shape[1], 3), _PAPER, np.uint8)
    _write(head, f"{label}  {probability:.3f}", (6, 20))
    return np.concatenate([head, pair])


def draw_layers(found: list[Layer], image: Image) -> Image:
    """Draws one row a stage: its name and shape, then its most active channels, RGB uint8."""
    width = LABEL_WIDTH + COLUMNS * (TILE + GAP) + GAP
    small = np.asarray(cv2.resize(image, (TILE, TILE)), np.uint8)
    rows = [_row("input", (3, *image.shape[:2]), [small], width)]
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
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    cv2.putText(picture, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)


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
