"""Graphs of several programs have their large constants in one file, and run as before."""

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from robot_vision.bundle.bundle import SHARED
from robot_vision.bundle.programs import Program
from robot_vision.optimising.run import _files

RNG = np.random.default_rng(0)
LARGE = RNG.normal(size=(300, 200)).astype(np.float32)


def graph(own):
    """x (N, 300) times what all have, plus what is this graph's own."""
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["a"]),
        helper.make_node("Add", ["a", "own"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 300), ("y", 200))
    ]
    constants = {"large": LARGE, "own": np.full(200, own, np.float32)}
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "program", values[:1], values[1:], stored)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model.SerializeToString()


def test_a_graph_and_what_is_shared_are_the_graph_in_every_engine():
    programs = {name: Program(name, f"model.{name}.onnx") for name in ("int8", "int8-vnni")}
    graphs = {"int8": graph(1), "int8-vnni": graph(2)}
    files = _files(programs, graphs)
    assert set(files) == {"model.int8.onnx", "model.int8-vnni.onnx", SHARED}
    assert sum(map(len, files.values())) < LARGE.nbytes + 3000
    x = RNG.normal(size=(2, 300)).astype(np.float32)
    for name, own in (("int8", 1), ("int8-vnni", 2)):
        whole = files[f"model.{name}.onnx"] + files[SHARED]
        onnx.checker.check_model(onnx.load_model_from_string(whole), full_check=True)
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(whole), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        (said,) = onnxruntime.InferenceSession(whole).run(None, {"x": x})
        for found in (said, *compiled({"x": x}).values()):
            np.testing.assert_allclose(found, x @ LARGE + own, rtol=1e-4, atol=1e-3)


def test_one_program_has_one_file():
    alone = {"int8": graph(1)}
    assert _files({"int8": Program("int8", "model.int8.onnx")}, alone) == {
        "model.int8.onnx": alone["int8"]
    }
