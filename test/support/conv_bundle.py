"""A tiny bundle whose colours pass through a layer that is named as a backbone's, so that int8 has work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest


def make_conv_bundle(path: Path, **changes: object) -> Path:
    """Writes a bundle into the directory `path` and returns it; it says what the tiny bundle says."""
    spec = ModelBundle.load(make_tiny_bundle(path, **changes)).spec
    model = onnx.load(path / GRAPH)
    graph = model.graph
    weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    graph.initializer.extend(
        [
            numpy_helper.from_array(weights, "w_conv"),
            numpy_helper.from_array(np.zeros(3, np.float32), "b_conv"),
        ]
    )
    old = list(graph.node)
    mean = next(node for node in old if node.output[0] == "mean")
    del mean.attribute[:], mean.input[:]
    mean.input.append("/backbone/relu")
    mean.attribute.extend(
        [helper.make_attribute("axes", [2, 3]), helper.make_attribute("keepdims", 0)]
    )
    layers = [
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "w_conv", "b_conv"], ["/backbone/conv"], "/backbone/Conv"
        ),
        helper.make_node("Relu", ["/backbone/conv"], ["/backbone/relu"], "/backbone/Relu"),
    ]
    first = next(i for i, node in enumerate(old) if node.output[0] == "float") + 1
    del graph.node[:]
    graph.node.extend([*old[:first], *layers, *old[first:]])
    onnx.checker.check_model(model, full_check=True)
    (path / GRAPH).write_bytes(model.SerializeToString())
    write_manifest(path, "conv", spec, {}, {})
    return path
