"""Bundles whose network goes wrong on some images."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest


def make_fragile_bundle(path: Path, how: str) -> Path:
    """Writes a bundle whose network goes wrong on bright images.

    Args:
        path: the directory to make.
        how: `fails` looks up a row that is not there; `nan` takes the square root of a negative number.
    """
    make_tiny_bundle(path)
    spec = ModelBundle.load(path).spec
    model = onnx.load(str(path / GRAPH))
    nodes = model.graph.node
    at = next(i for i, n in enumerate(nodes) if n.output[0] == "probabilities")
    nodes[at].output[0] = "calm"
    extra = [
        helper.make_node("ReduceMax", ["colour"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "ten"], ["tens"]),
    ]
    if how == "fails":
        extra += [
            helper.make_node("Cast", ["tens"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["zeros", "row"], ["nothing"]),
        ]
    else:
        extra += [
            helper.make_node("Sub", ["six", "tens"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["root", "nought"], ["nothing"]),
        ]
    extra.append(helper.make_node("Add", ["calm", "nothing"], ["probabilities"]))
    for offset, node in enumerate(extra, start=1):
        nodes.insert(at + offset, node)
    constants = {"ten": 10.0, "six": 6.0, "nought": 0.0, "zeros": [0.0] * 6}
    used = {name for node in extra for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in constants.items()
        if name in used
    )
    onnx.checker.check_model(model, full_check=True)
    (path / GRAPH).write_bytes(model.SerializeToString())
    write_manifest(path, f"fragile_{how}", spec, {}, {})
    return path
