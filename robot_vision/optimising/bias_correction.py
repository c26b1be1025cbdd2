"""Corrects what rounding weights shifts: the mean of each channel, which a bias can give back.

Rounded weights and activations move the mean of a layer's output; the error adds up over a network's depth
and hurts most with 7-bit weights. Layer by layer, from the input on, each channel's mean over images is
compared with that of the network before it was quantised, and the difference goes into the bias.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
appendix D (empirical bias correction).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from robot_vision.bundle.signature import INPUT_NAME

Batches = Sequence[NDArray[np.uint8]]


def correct_biases(quantised: Path, original: Path, images: Batches) -> None:
    """Corrects the biases of the quantised convolutions, in place.

    Args:
        quantised: graph with QuantizeLinear and DequantizeLinear; its convolutions have the original's names.
        original: the graph that it was made of.
        images: batches for the graph's input.
    """
    model = onnx.load(str(quantised))
    dequantised = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node  # sorted: what a layer reads was made before it
        if node.op_type == "Conv" and node.input[1] in dequantised and len(node.input) == 3
    ]
    names = [node.name for node in layers]
    before = onnx.load(str(original))
    made = {node.name: node.output[0] for node in before.graph.node}
    means = _means(before, [made[name] for name in names], images)
    for node, mean in zip(layers, means, strict=True):
        shift = mean - _means(model, [node.output[0]], images)[0]
        bias = node.input[2]
        if bias in dequantised:  # int32, with one scale a channel
            tensor, scale = (stored[name] for name in dequantised[bias].input[:2])
            shift = np.rint(shift / numpy_helper.to_array(scale))
        else:
            tensor = stored[bias]
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((values + shift).astype(values.dtype), tensor.name))
    onnx.save(model, str(quantised))


def _means(
    model: onnx.ModelProto, outputs: Sequence[str], images: Batches
) -> list[NDArray[np.float64]]:
    """Returns the mean of each channel of convolutions' outputs (N, C, h, w), over all images and pixels."""
    import onnxruntime

    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:], part.graph.node[:]
    part.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    )
    # Only what leads there: ONNX Runtime fuses a convolution with what comes after it, output or not.
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    part.graph.node.extend(reversed(nodes))
    del part.graph.initializer[:]  # ONNX Runtime would warn of each that is not needed
    part.graph.initializer.extend(i for i in model.graph.initializer if i.name in needed)
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sums: list[Any] = [0.0] * len(outputs)
    for batch in images:
        found = session.run(list(outputs), {INPUT_NAME: batch})
        for i, value in enumerate(found):
            sums[i] = sums[i] + value.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
    count = sum(len(batch) for batch in images)
    return [total / count for total in sums]
