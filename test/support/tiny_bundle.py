"""A real bundle that is made in milliseconds without torch: its answers depend on the image's mean colour.

It stands for a network where a test is about the path around the network. Every engine runs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robot_vision.bundle.bundle import GRAPH, write_manifest
from robot_vision.contract.spec import NetworkSpec
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec

LABELS = ("red", "green", "blue")
DESCRIPTOR_SIZE = 8
CORNERS = (0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 1.0, 0.5, 0.0, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 1.0)


def make_tiny_bundle(
    path: Path,
    size: tuple[int, int] = (32, 48),
    heads: tuple[str, ...] = ("classifier", "pose", "place"),
    name: str = "tiny",
    unknown_threshold: float | None = None,
    labels: tuple[str, ...] = LABELS,
    cells_frame: str = "map",
) -> Path:
    """Writes a bundle into the directory `path` (made if absent) and returns it.

    probabilities: softmax of 20 x the mean colour; position: the mean colour in metres (0 to 1);
    orientation: turned about z by the mean red; covariance: 0.01 on the diagonal plus the mean blue;
    descriptor: a fixed random projection of the colour, L2-normalised; cells: four of 0.5 m, sure of the one
    in which the position is unless it is near an edge.
    """
    path.mkdir(parents=True, exist_ok=True)
    spec = NetworkSpec(
        backbone="resnet18",
        input=InputSpec(*size),
        heads={
            "classifier": ClassifierSpec(labels, unknown_threshold=unknown_threshold)
            if "classifier" in heads
            else None,
            "pose": PoseSpec() if "pose" in heads else None,
            "place": PlaceSpec(clusters=1, descriptor_size=DESCRIPTOR_SIZE)
            if "place" in heads
            else None,
            "cells": CellsSpec(CORNERS, (1,) * 4, cells_frame) if "cells" in heads else None,
        },
    )
    (path / GRAPH).write_bytes(_graph(spec).SerializeToString())
    (path / "README.md").write_text("Test bundle: answers depend on the mean colour.\n")
    write_manifest(path, name, spec, training={"data": "none"}, metrics={})
    return path


def expected_colour(image: np.ndarray) -> np.ndarray:
    """Returns the mean colour in [0, 1] (3,) that the bundle sees, for an image of the input's size."""
    return image.reshape(-1, 3).mean(axis=0) / 255.0


def _graph(spec: NetworkSpec) -> onnx.ModelProto:
    nodes, outputs = [], []
    constants: dict[str, np.ndarray] = {}

    def const(name: str, value: object, dtype: type = np.float32) -> str:
        constants[name] = np.asarray(value, dtype)
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    node("Cast", ["images"], "float", to=TensorProto.FLOAT)
    node("ReduceMean", ["float"], "mean", axes=[1, 2], keepdims=0)
    node("Div", ["mean", const("c255", 255.0)], "colour")
    if "classifier" in spec.heads:
        count = len(spec.heads["classifier"].labels)
        weights = np.zeros((3, count))
        weights[np.arange(min(3, count)), np.arange(min(3, count))] = 20.0
        node("MatMul", ["colour", const("w_class", weights)], "logits")
        node("Softmax", ["logits"], "probabilities", axis=1)
        node("ReduceMax", ["probabilities"], "known_score", axes=[1], keepdims=0)
    if "pose" in spec.heads:
        node("Identity", ["colour"], "position")
        node("MatMul", ["colour", const("w_red", [[1.0], [0.0], [0.0]])], "red")
        node("Sin", ["red"], "sin")
        node("Cos", ["red"], "cos")
        node("Mul", ["red", const("c0", 0.0)], "zero")
        node("Concat", ["zero", "zero", "sin", "cos"], "orientation_xyzw", axis=1)
        node("MatMul", ["colour", const("w_blue", [[0.0], [0.0], [1.0]])], "blue")
        node("Add", ["blue", const("c001", 0.01)], "variance")
        node("Reshape", ["variance", const("to_matrix", [-1, 1, 1], np.int64)], "variance3")
        node("Mul", ["variance3", const("eye", np.eye(6))], "pose_covariance")
    if "place" in spec.heads:
        rng = np.random.default_rng(0)
        node("MatMul", ["colour", const("w_place", rng.normal(size=(3, DESCRIPTOR_SIZE)))], "proj")
        node("Add", ["proj", const("b_place", rng.normal(size=DESCRIPTOR_SIZE))], "shifted")
        node("LpNormalization", ["shifted"], "descriptor", axis=1, p=2)
    if "cells" in spec.heads:
        signs = 20.0 * np.array([[-1.0, 1, -1, 1], [-1, -1, 1, 1], [0, 0, 0, 0]])
        node("MatMul", ["colour", const("w_cells", signs)], "cells_raw")
        node("Sub", ["cells_raw", const("b_cells", signs.sum(axis=0) / 2)], "cell_logits")
        node("Softmax", ["cell_logits"], "cell_probabilities", axis=1)
    for name, output in spec.outputs.items():
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *output.shape]))
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["N", spec.input.height, spec.input.width, 3]
    )
    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def two_classifiers(path: Path) -> Path:
    """Writes a bundle of two classifiers, one of them named lights, and returns it."""
    from toy_heads import graph

    rooms, lights = ClassifierSpec(LABELS), ClassifierSpec(("stop", "wait", "go"))
    spec = NetworkSpec(input=InputSpec(32, 48), heads={"classifier": rooms, "lights": lights})
    path.mkdir()
    (path / GRAPH).write_bytes(graph(spec))
    (path / "README.md").write_text("Test bundle.\n")
    write_manifest(path, "two", spec, {}, {})
    return path
