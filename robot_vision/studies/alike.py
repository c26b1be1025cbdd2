"""Which images of a data set are most like what an answer rests on, pixel by pixel: evidence by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.calibration.folds import units_of
from robot_vision.charts import lettering
from robot_vision.contract.calibration import FOLDS
from robot_vision.contract.training import Asked, Dense, Evidence
from robot_vision.datasets.sample import Sample, true_values
from robot_vision.errors import ImageError
from robot_vision.images.window import Window
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.studies.explain import Image, Trace, network_input, outline, trace

SHOWN, _TILE = 6, 320
_INK = (30, 30, 30)


@dataclass(frozen=True)
class Example:
    """An image, or the pixel of it, that is like what was asked about.

    Attributes:
        sample: of the data set.
        image: RGB uint8, as the network sees it.
        similarity: from -1 to 1.
        region: the pixel of the head's map, bool (h, w); None where the head answers for the image.
        said: what the head says of it, in a line.
        true: what is true of it; empty where that is not known.
    """

    sample: Sample
    image: Image
    similarity: float
    region: NDArray[np.bool_] | None
    said: str
    true: str


class Alike(NamedTuple):
    """What was asked about, examples of it, the most alike first, and how many images could not be read."""

    evidence: Evidence
    examples: list[Example]
    unread: int


def most_alike(
    network: MultiHeadNetwork,
    name: str,
    image: Image,
    asked: Asked,
    samples: Sequence[Sample],
    shown: int = SHOWN,
) -> Alike | None:
    """Finds the images, and the pixel in each, that a head takes for most like what was asked about.

    What is compared is the input of the head's last layer, each channel times the size of its gradient: what
    a feature adds to the answer. Two pixels with the same of it have the same answer for the same reasons
    (after Yeh et al., "Representer Point Selection for Explaining Deep Neural Networks", NeurIPS 2018, whose
    examples are alike in the last layer's input). A head that sums the scores of several layers, such as an
    FCN, has the maps that it reads compared in this way. With a and b these numbers of two pixels, the
    similarity is 2 a.b / (a.a + b.b).

    Args:
        network: in evaluation mode.
        name: of the head.
        image: RGB uint8, of the network's input size; where it is among the samples it is passed over.
        asked: what is to be explained.
        samples: images that are looked through; of a stretch of alike neighbours the best is kept.
        shown: how many are returned at most.

    Returns:
        None where the head cannot be asked.

    Raises:
        ConfigError: as `explain` does.
    """
    found = trace(network, name, image, asked)
    if found is None:
        return None
    evidence, read = found.evidence, _read(network, name, found, asked)
    weights = [gradient.abs().sum(dim=(0, 2, 3)) for gradient in read.gradients]  # (C,) each
    wanted = [_mean(m, evidence.region) * w for m, w in zip(read.maps, weights, strict=True)]
    best: dict[int, tuple[float, int, int]] = {}
    unread = 0
    for number, unit in enumerate(units_of(samples, FOLDS).tolist()):
        seen = _seen(samples[number], network)
        unread += seen is None
        if seen is None or np.array_equal(seen[0], image):
            continue
        alike = torch.zeros(1 if evidence.region is None else evidence.region.size)
        for value, weight, wish in zip(read.of(seen[0]), weights, wanted, strict=True):
            if evidence.region is None:
                value = value.mean(dim=(2, 3), keepdim=True)
            own, asked_for = value * weight[None, :, None, None], wish[None, :, None, None]
            squares = own.square().sum(dim=1) + asked_for.square().sum(dim=1)
            each = 2 * (own * asked_for).sum(dim=1) / squares.clamp(min=1e-12)  # (1, h, w)
            if evidence.region is not None:
                each = F.interpolate(each[None], size=evidence.region.shape, mode="bilinear")[0]
            alike += each.flatten() / len(weights)
        if evidence.region is not None:
            alike[~torch.from_numpy(seen[1].covered(evidence.region.shape)).flatten()] = -1
        at = int(alike.argmax())
        if unit not in best or float(alike[at]) > best[unit][0]:
            best[unit] = float(alike[at]), number, at
    order = sorted(best.values(), reverse=True)[:shown]
    examples = [
        _example(network, name, samples[number], similarity, at, evidence)
        for similarity, number, at in order
    ]
    return Alike(evidence, examples, unread)


class _Read(NamedTuple):
    """What of a head is compared: maps (1, C, h, w) of the image asked about, and how others have them."""

    maps: list[Tensor]
    gradients: list[Tensor]
    of: Callable[[Image], list[Tensor]]


def _read(network: MultiHeadNetwork, name: str, found: Trace, asked: Asked) -> _Read:
    """Returns the input of the head's last layer, or its maps where not all goes through that layer."""
    head, spec = next(pair for pair in network.spec.bound if pair[0].name == name)
    module, taps = network.heads[name], network.taps[name]

    def features(image: Image) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(found.backbone(network.normalise(torch.from_numpy(image[None]))))

    layers: list[nn.Module] = []
    hooks = [
        m.register_forward_pre_hook(lambda m, _: layers.append(m))
        for m in module.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(*(found.taps[tap] for tap in taps))
    for hook in hooks:
        hook.remove()
    inputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs.append(given[0].detach().requires_grad_())
        return (inputs[-1],)

    def last(image: Image) -> list[Tensor]:
        inputs.clear()
        with torch.no_grad(), layers[-1].register_forward_pre_hook(keep):
            of = features(image)
            module(*(of[tap] for tap in taps))
        return [_as_map(inputs[-1])]

    if layers:
        leaves = [found.taps[tap].detach().requires_grad_() for tap in taps]
        with torch.enable_grad(), layers[-1].register_forward_pre_hook(keep):
            again = head.trainer().evidence(module, module(*leaves), spec, asked)
        assert again is not None
        own, *others = torch.autograd.grad(again.value, [inputs[-1], *leaves], allow_unused=True)
        if own is not None and not any(other is not None for other in others):
            return _Read([_as_map(inputs[-1].detach())], [_as_map(own)], last)
    tapped = list(found.gradients)
    return _Read(
        [found.features[tap] for tap in tapped],
        list(found.gradients.values()),
        lambda image: [features(image)[tap] for tap in tapped],
    )


def _as_map(value: Tensor) -> Tensor:
    return (value if value.dim() == 4 else value.reshape(1, -1, 1, 1)).detach()


def _mean(features: Tensor, region: NDArray[np.bool_] | None) -> Tensor:
    """Returns the mean (C,) of features (1, C, h, w) over the pixels asked about."""
    if region is None:
        return features.mean(dim=(2, 3))[0]
    share = torch.from_numpy(region.astype(np.float32))[None, None]
    share = F.interpolate(share, size=features.shape[2:], mode="area")
    return (features * share).sum(dim=(2, 3))[0] / share.sum()


def _seen(sample: Sample, network: MultiHeadNetwork) -> tuple[Image, Window] | None:
    try:
        whole = sample.source.load()
    except ImageError:
        return None
    spec = network.spec.input
    return network_input(whole, spec), Window.of(whole.shape[:2], spec)


def _example(
    network: MultiHeadNetwork,
    name: str,
    sample: Sample,
    similarity: float,
    at: int,
    evidence: Evidence,
) -> Example:
    """Reads an image again, and what is said and true of its pixel."""
    head, spec = next(pair for pair in network.spec.bound if pair[0].name == name)
    seen = _seen(sample, network)
    assert seen is not None
    image, window = seen
    trainer: Any = head.trainer()
    if evidence.region is None:
        found = trace(network, name, image, Asked(window))
        label = sample.of(trainer.word())
        true = label if isinstance(label, str) else ""
        return Example(sample, image, similarity, None, found.evidence.text if found else "", true)
    size = evidence.region.shape
    row, column = divmod(at, size[1])
    x, y = window.pixels((size[0], size[1]))[row, column].round().astype(int).tolist()
    height, width = window.camera
    box = (min(max(x, 0), width - 1), min(max(y, 0), height - 1), 1, 1)
    found = trace(network, name, image, Asked(window, "", box))
    region = np.zeros(size, bool)
    region[row, column] = True
    true = _true(sample, window, trainer.dense(spec), (row, column), getattr(spec, "labels", ()))
    return Example(sample, image, similarity, region, found.evidence.text if found else "", true)


def _true(
    sample: Sample,
    window: Window,
    dense: dict[str, Dense],
    at: tuple[int, int],
    labels: Sequence[str],
) -> str:
    """Returns what is true of a pixel of a map: its class, or its number."""
    for word, of in dense.items():
        truth = sample.of(word)
        if truth is None:
            continue
        try:
            values = true_values(truth, of.dtype, of.none)
        except ImageError:
            continue
        if values.shape[:2] != window.camera:
            continue
        value = window.truth(values, of.size, of.none)[at]
        if value == of.none or not np.isfinite(value):
            return ""
        if of.dtype != "uint8":
            return f"{float(value):.2f}" + " m" * of.along_axis
        return labels[value] if value < len(labels) else ""
    return ""


def draw_examples(image: Image, found: Alike, name: str, data: str) -> Image:
    """Draws what was asked about, and next to it the examples with what is said and true of them.

    Args:
        image: RGB uint8, of the network's input size.
        found: as `most_alike` returns it.
        name: of the head.
        data: what the examples are of, for people.
    """
    tiles = [_tile(image, found.evidence.region, ["asked about", found.evidence.text])]
    for one in found.examples:
        lines = [f"{one.similarity:.3f}  {one.sample.name[-28:]}", f"says {one.said}"]
        tiles.append(
            _tile(one.image, one.region, [*lines, *([f"true: {one.true}"] if one.true else [])])
        )
    tall = max(tile.shape[0] for tile in tiles)
    padded = [
        np.pad(t, ((0, tall - t.shape[0]), (0, 8), (0, 0)), constant_values=255) for t in tiles
    ]
    while len(padded) % 4:
        padded.append(np.full_like(padded[0], 255))
    rows = [np.concatenate(padded[i : i + 4], axis=1) for i in range(0, len(padded), 4)]
    top = np.full((30, rows[0].shape[1], 3), 255, np.uint8)
    lettering.put(top, f"{name}: what is most like it among {data}", (6, 20), 0.5, _INK)
    return np.concatenate([top, *rows])


def _tile(image: Image, region: NDArray[np.bool_] | None, lines: Sequence[str]) -> Image:
    height = round(_TILE * image.shape[0] / image.shape[1])
    picture = np.asarray(cv2.resize(image, (_TILE, height)), np.uint8)
    if region is not None:
        outline(picture, region)
    under = np.full((3 * 20 + 6, _TILE, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        lettering.put(under, line, (2, 16 + 20 * i), 0.45, _INK)
    return np.concatenate([picture, under])
