"""Ranges of activations, narrower than what was seen where finer steps gain more than cutting off loses."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.optimising.graph import Batches, Graph

_ACTIVATIONS = ("Clip", "Relu")
_SHARES = np.linspace(1, 0.5, 6)
_STEPS = 255
_IMAGES = 8  # whose values are held at once


def best_ranges(
    file: Path, layers: Collection[str], images: Batches
) -> dict[str, list[dict[str, Any]]]:
    """Returns ranges of what goes into layers and comes out, with the least mean square error.

    Args:
        file: the graph, float32.
        layers: names of the nodes that are quantised.
        images: batches for the graph's input.

    Returns:
        `TensorQuantOverrides` of ONNX Runtime's quantiser. What an activation bounds has no entry.
    """
    graph = Graph(onnx.load(str(file)))
    chosen = [node for node in graph.nodes if node.name in layers]
    # A layer's output that goes into an activation is not rounded, only what comes out.
    inside = {node.input[0] for node in chosen if node.op_type in _ACTIVATIONS}
    bounded = {node.output[0] for node in chosen if node.op_type == "Clip"}
    seen = {name for node in chosen for name in (node.input[0], node.output[0])}
    names = sorted(name for name in seen - inside - bounded if name in graph.made_by)
    few = [batch[i : i + _IMAGES] for batch in images for i in range(0, len(batch), _IMAGES)]
    ends = np.zeros((2, len(names)))  # zero is in each range
    for values in graph.values(names, {INPUT_NAME: few}):
        found = np.array([(value.min(), value.max()) for value in values]).T
        ends = np.stack([np.minimum(ends[0], found[0]), np.maximum(ends[1], found[1])])
    errors = np.zeros((len(names), len(_SHARES)))
    for values in graph.values(names, {INPUT_NAME: few}):
        for i, value in enumerate(values):
            errors[i] += [_error(value, *(share * ends[:, i])) for share in _SHARES]
    best = _SHARES[errors.argmin(axis=1)] * ends
    return {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, low, high in zip(names, *best, strict=True)
        if high > low
    }


def _error(value: NDArray[np.float32], low: float, high: float) -> float:
    """Returns the summed square error of rounding to a range."""
    step = np.float32((high - low) / _STEPS or 1)
    zero = np.rint(-low / step)
    rounded = np.clip(np.rint(value / step), -zero, _STEPS - zero) * step
    return float(np.square(rounded - value).sum(dtype=np.float64))
