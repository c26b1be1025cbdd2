"""A small bundle that steers, made without torch: a linear function of the image, and a depth map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robot_vision.bundle.bundle import GRAPH, write_manifest
from robot_vision.contract.spec import NetworkSpec
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.heads.dronet.spec import DronetSpec
from robot_vision.images.input import InputSpec

SIZE = (24, 32)
DEPTH_SIZE = (12, 16)


def make_steering_bundle(
    path: Path,
    weights: np.ndarray | None = None,
    collision: float = 0.1,
    steering: float = 0.0,
    depth_m: float | None = None,
    sigma: float = 0.0,
) -> Path:
    """Writes a bundle into the directory `path` and returns it.

    Args:
        path: of the bundle.
        weights: (24 * 32 * 3 + 1, 2), as `random_weights` makes them; None for constant answers.
        collision: probability.
        steering: in [-1, 1].
        depth_m: of each pixel, for a depth head; None for none.
        sigma: of its logarithm.
    """
    path.mkdir(parents=True, exist_ok=True)
    heads: dict = {"dronet": DronetSpec()}
    if depth_m is not None:
        heads["depth"] = DepthSpec(size=DEPTH_SIZE)
    spec = NetworkSpec(backbone="resnet18", input=InputSpec(*SIZE), heads=heads)
    if weights is None:
        weights = np.zeros((SIZE[0] * SIZE[1] * 3 + 1, 2))
        weights[-1] = steering, np.log(collision / (1 - collision))
    model = _graph(spec, np.asarray(weights, np.float32), depth_m, sigma)
    (path / GRAPH).write_bytes(model.SerializeToString())
    (path / "README.md").write_text("Test bundle: a linear function of the image.\n")
    write_manifest(path, "steers", spec, training={"data": "none"}, metrics={})
    return path


def random_weights(seed: int = 0) -> np.ndarray:
    """Returns weights by which answers depend on the image: steering about 0, collision below 0.5."""
    weights = np.random.default_rng(seed).normal(0, 0.015, (SIZE[0] * SIZE[1] * 3 + 1, 2))
    weights[-1] = -weights[:-1].sum(axis=0) / 2 - (0, 1)
    return weights


def _graph(
    spec: NetworkSpec, weights: np.ndarray, depth_m: float | None, sigma: float
) -> onnx.ModelProto:
    nodes: list = []
    constants: dict[str, np.ndarray] = {}

    def const(name: str, value: object, dtype: type = np.float32) -> str:
        constants[name] = np.asarray(value, dtype)
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    node("Cast", ["images"], "float", to=TensorProto.FLOAT)
    node("Div", ["float", const("c255", 255.0)], "scaled")
    node("Reshape", ["scaled", const("flat", [-1, len(weights) - 1], np.int64)], "pixels")
    for index, word in enumerate(("steering", "risk")):
        node("MatMul", ["pixels", const(f"w_{word}", weights[:-1, index])], f"{word}_sum")
        out = word if word == "steering" else "logit"
        node("Add", [f"{word}_sum", const(f"b_{word}", weights[-1, index])], out)
    node("Sigmoid", ["logit"], "collision")
    if depth_m is not None:
        node("ReduceMean", ["scaled"], "mean", axes=[1, 2, 3], keepdims=1)
        node("Mul", ["mean", const("zeros", np.zeros((1, 1, 1, 1)))], "zero4")
        node("Reshape", ["zero4", const("three", [-1, 1, 1], np.int64)], "zero")
        node("Add", ["zero", const("d", np.full((1, *DEPTH_SIZE), depth_m))], "depth")
        node("Add", ["zero", const("s", np.full((1, *DEPTH_SIZE), sigma))], "depth_sigma")
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *output.shape])
        for name, output in spec.outputs.items()
    ]
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["N", spec.input.height, spec.input.width, 3]
    )
    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "steers", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model
