"""Rounds a quantised graph's convolutions again, and corrects their biases, layer by layer.

Each layer sees what the quantised layers before it make of some images. Its weights are rounded for these
inputs (`rounding`), and then each channel's mean is compared with that of the network before it was
quantised: the difference, which would add up over a network's depth, goes into the bias.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
appendix D (empirical bias correction).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.optimising.graph import Batches, Graph
from robot_vision.optimising.rounding import Array, blocks_of, round_weights

_PIXELS = 64  # of each image, by whose neighbourhoods weights are rounded
_LARGEST_BIAS = 1 << 30


def refine(quantised: Path, original: Path, images: Batches, pairs: bool) -> None:
    """Rounds weights of the quantised convolutions again and corrects their biases, in place.

    Args:
        quantised: graph with QuantizeLinear and DequantizeLinear; its convolutions have the original's names.
        original: the graph that it was made of.
        images: batches for the graph's input.
        pairs: whether pairs of products must fit into 16 bits.
    """
    graph = Graph(onnx.load(str(quantised)))
    before = Graph(onnx.load(str(original)))
    layers = [
        node
        for node in graph.nodes  # sorted: what a layer reads was made before it
        if node.op_type == "Conv" and len(node.input) == 3 and graph.dequantised(node.input[1])
    ]
    names = {node.name: node for node in before.nodes}
    sources = [names[node.name] for node in layers]
    means = before.means([node.output[0] for node in sources], {INPUT_NAME: images})
    # What goes into a layer is kept, in 8 bits as it was quantised, until no later layer needs it.
    entries = [graph.quantised_of(node.input[0]) for node in layers]
    needs = [graph.reached(e, {INPUT_NAME, *entries[:i]}) for i, e in enumerate(entries)]
    kept: dict[str, Batches] = {INPUT_NAME: images}
    for i, (node, source, mean) in enumerate(zip(layers, sources, means, strict=True)):
        entry = entries[i]
        if entry not in kept:
            kept[entry] = [value for (value,) in graph.values([entry], kept)]
        fed = {entry: kept[entry]}
        weight, bias = (before.constant(name) for name in source.input[1:])
        _round(graph, node, weight, bias, fed, pairs)
        _shift(graph, node, mean - graph.means([node.output[0]], fed)[0])
        later = set[str]().union(*needs[i + 1 :])
        kept = {name: batches for name, batches in kept.items() if name in later}
    onnx.save(graph.model, str(quantised))


def _round(
    graph: Graph,
    node: onnx.NodeProto,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    fed: Mapping[str, Batches],
    pairs: bool,
) -> None:
    """Rounds a convolution's weights (O, C, kh, kw), where they are stored as integers."""
    dequantise = graph.dequantised(node.input[1])
    entry, shift = graph.dequantised(node.input[0]), graph.dequantised(node.input[2])
    if dequantise is None or entry is None or shift is None:
        return
    whole, scales = dequantise.input[:2]
    how = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    shared = sum(whole in other.input or scales in other.input for other in graph.nodes) > 1
    if whole not in graph.stored or shared or how.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    groups = how.get("group", 1)
    split = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    step = graph.constant(entry.input[1]).astype(np.float64)
    least = np.abs(bias.astype(np.float64)) / (step * _LARGEST_BIAS)
    moments = _moments(how, split.shape, (x for (x,) in graph.values([node.input[0]], fed)))
    # Kernels for depthwise convolutions multiply in 32 bits.
    pairs = pairs and (groups == 1 or split.shape[1:3] != (1, 1))
    rounded, scale = round_weights(split, moments, least.reshape(groups, -1), pairs)
    scale = scale.reshape(-1).astype(np.float32)
    graph.store(whole, rounded.reshape(weight.shape))
    graph.store(scales, scale)
    steps = (scale * step).astype(np.float32)
    graph.store(shift.input[1], steps)
    graph.store(shift.input[0], np.rint(bias / steps.astype(np.float64)).astype(np.int32))


def _moments(
    how: Mapping[str, Any], shape: tuple[int, ...], batches: Iterable[NDArray[np.float32]]
) -> list[Array]:
    """Returns mean products (G, k, k) of what a convolution's weights (G, R, C, kh, kw) multiply, by blocks.

    Args:
        how: the convolution's attributes.
        shape: of the weights.
        batches: of its input (N, G * C, h, w).
    """
    groups, _, inputs, *window = shape
    strides, steps = how.get("strides", [1, 1]), how.get("dilations", [1, 1])
    top, left, bottom, right = how.get("pads", [0, 0, 0, 0])
    rng = np.random.default_rng(0)
    length = window[0] * window[1]
    blocks = blocks_of(inputs, length)
    totals: list[Any] = [0.0] * len(blocks)
    count = 0
    for batch in batches:
        padded = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)))
        starts = [
            stride * np.arange((size - step * (side - 1) - 1) // stride + 1)
            for size, side, stride, step in zip(
                padded.shape[2:], window, strides, steps, strict=True
            )
        ]
        at = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
        at = rng.choice(at, min(_PIXELS, len(at)), replace=False)
        rows, columns = (
            at[:, [i]] + step * np.arange(size)
            for i, (size, step) in enumerate(zip(window, steps, strict=True))
        )
        seen = padded[:, :, rows[:, :, None], columns[:, None, :]]  # (N, G * C, pixels, kh, kw)
        seen = seen.reshape(len(batch), groups, inputs, len(at), -1).transpose(1, 0, 3, 2, 4)
        seen = seen.reshape(groups, len(batch) * len(at), -1)
        for i, (start, end) in enumerate(blocks):
            part = seen[:, :, start * length : end * length]
            totals[i] = totals[i] + (part.transpose(0, 2, 1) @ part).astype(np.float64)
        count += seen.shape[1]
    return [total / count for total in totals]


def _shift(graph: Graph, node: onnx.NodeProto, shift: Array) -> None:
    """Adds to a convolution's bias."""
    dequantise = graph.dequantised(node.input[2])
    name = node.input[2]
    if dequantise is not None:  # int32, with one scale a channel
        name, scale = dequantise.input[:2]
        shift = np.rint(shift / graph.constant(scale))
    values = graph.constant(name)
    graph.store(name, (values + shift).astype(values.dtype))
