"""Large matrices of heads are stored in 8 bits and computed with in float32."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from robot_vision.bundle.bundle import GRAPH
from robot_vision.bundle.installed import find_model
from robot_vision.optimising.quantise import _store_small, variant_graph


@pytest.fixture
def stored(tmp_path):
    """x (N, 300) times a Gemm's (320, 300), then a MatMul's (320, 256), then a small one (256, 4)."""
    rng = np.random.default_rng(0)
    constants = {
        "gemm": rng.normal(size=(320, 300)) * rng.uniform(0.01, 10, (320, 1)),
        "matmul": rng.normal(size=(320, 256)),
        "small": rng.normal(size=(256, 4)),
        "bias": rng.normal(size=320),
    }
    constants["matmul"][:, 7] = 0
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "gemm", "bias"], ["a"], transB=1),
        helper.make_node("MatMul", ["a", "matmul"], ["b"]),
        helper.make_node("MatMul", ["b", "small"], ["c"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 300), ("a", 320), ("b", 256), ("c", 4))
    ]
    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "heads", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = tmp_path / "heads.onnx"
    onnx.save(model, path)
    before = path.stat().st_size
    _store_small(path)
    onnx.checker.check_model(str(path), full_check=True)
    return path, constants, before


def test_the_file_is_a_quarter_and_what_is_small_stays(stored):
    path, constants, before = stored
    assert path.stat().st_size < 0.3 * before
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    assert found["gemm.int8"].dtype == found["matmul.int8"].dtype == np.int8
    np.testing.assert_array_equal(found["small"], constants["small"])
    for name, axis in (("gemm", 1), ("matmul", 0)):
        # Rounded by at most half a step, which is a 127th of the largest number of the output.
        step = np.abs(constants[name]).max(axis=axis, keepdims=True) / 127
        scale = np.expand_dims(found[f"{name}.scale"], axis)
        off = np.abs(found[f"{name}.int8"] * scale - constants[name])
        assert (off <= step / 2 + 1e-6).all()


def test_what_it_computes_is_the_product_in_float32(stored):
    path, constants, _ = stored
    x = np.random.default_rng(1).normal(size=(5, 300)).astype(np.float32)
    a, b, c = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    gemm = found["gemm.int8"].astype(np.float64) * found["gemm.scale"][:, None]
    np.testing.assert_allclose(a, x @ gemm.T + constants["bias"], rtol=1e-4, atol=1e-3)
    exact = x @ constants["gemm"].T + constants["bias"]
    assert np.abs(a - exact).max() < 0.02 * np.abs(exact).max()
    assert not b[:, 7].any() and np.isfinite(c).all()


@pytest.mark.slow
def test_openvino_compiles_a_variant_for_cpus_without_avx_512(tmp_path):
    """It could not when the scales were on the matrix itself: "could not create a primitive"."""
    images = np.random.default_rng(0).integers(0, 256, (4, 120, 160, 3), dtype=np.uint8)
    graph = tmp_path / GRAPH
    graph.write_bytes(variant_graph((find_model("demo") / GRAPH).read_bytes(), "int8", [images]))
    code = (
        "import openvino, sys; core = openvino.Core(); model = core.read_model(sys.argv[1]); "
        "model.reshape([1, 120, 160, 3]); "
        "core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})"
    )
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", code, str(graph)], env=env, check=True)
