"""Weights of 8 bits whose products no CPU adds wrongly, and which answer as the network did."""

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from robot_vision.engines.machine import instructions
from robot_vision.optimising.rounding import LARGEST, PAIR, blocks_of, round_weights

SHAPES = {  # of (outputs, inputs of each, kh, kw) and the number of groups
    "1x1": ((32, 64, 1, 1), 1),
    "3x3": ((32, 16, 3, 3), 1),
    "colours": ((32, 3, 3, 3), 1),
    "many": ((8, 256, 3, 3), 1),  # whose moments are in blocks
    "grouped": ((32, 8, 3, 3), 4),
    "depthwise": ((64, 1, 3, 3), 64),
}


def weights_of(shape, seed=0):
    """Weights whose channels differ, with large ones side by side: one sign, and both."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=shape) * rng.uniform(0.1, 10, (shape[0], 1, 1, 1))
    weights[::4] = np.abs(weights[::4]).max()
    weights[1::4] = -np.abs(weights[1::4]).max()
    return weights


def rounded(shape, groups, pairs):
    weights = weights_of(shape)
    split = weights.reshape(groups, -1, *shape[1:])
    length = int(np.prod(shape[2:]))
    counts = [length * (end - start) for start, end in blocks_of(shape[1], length)]
    moments = [np.broadcast_to(np.eye(count), (groups, count, count)) for count in counts]
    found, scale = round_weights(split, moments, np.zeros(split.shape[:2]), pairs)
    assert found.dtype == np.int8 and np.abs(found).max() <= LARGEST
    return weights, found.reshape(shape), scale.reshape(-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "depthwise"])
def test_no_two_weights_that_a_kernel_may_add_overflow(name):
    shape, groups = SHAPES[name]
    _, found, _ = rounded(shape, groups, pairs=True)
    for order in ((0, 2, 3, 1), (0, 1, 2, 3)):  # a window written as a row, channels last or first
        row = found.transpose(order).reshape(shape[0], -1).astype(int)
        row = np.pad(row, ((0, 0), (0, -row.shape[1] % 4))).reshape(shape[0], -1, 4)
        for signed in (row, -row):
            assert np.sort(np.maximum(signed, 0))[..., 2:].sum(axis=-1).max() <= PAIR
    assert np.abs(found).max() > 64  # more than 7 bits


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("zero", [0, 114])
def test_engines_add_exactly_what_is_to_be_added(name, zero):
    """At the ends of the inputs' range, where 8 bits that know nothing of pairs overflow without VNNI."""
    shape, groups = SHAPES[name]
    pairs = name != "depthwise"  # has none
    _, found, _ = rounded(shape, groups, pairs)
    assert max(_off(found, groups, zero)) < 0.51  # rounded to a step
    if pairs and instructions() in ("avx2", "avx512"):
        most = (LARGEST * np.sign(found)).astype(np.int8)
        assert min(_off(most, groups, zero)) > 12


def _off(weights, groups, zero):
    """Returns how many of 127 steps ONNX Runtime and OpenVINO are from the exact answer."""
    outputs, inputs, height, width = weights.shape
    whole = weights.reshape(groups, -1, inputs, height, width).astype(np.float64)
    # For each output and sign an image that has 255 where its weights have that sign, and else 0.
    pixels = np.zeros((2, outputs, groups, inputs, height, width))
    owner = np.repeat(np.arange(groups), outputs // groups)
    for i, sign in enumerate((1, -1)):
        pixels[i, np.arange(outputs), owner] = 255 * (sign * weights.astype(int) > 0)
    x = pixels.reshape(-1, groups * inputs, height, width) - zero
    x = np.tile(x, (1, 1, 3, 3)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(2, 3))
    windows = windows.reshape(len(x), groups, inputs, *windows.shape[2:])
    exact = np.einsum("ngcijhw,gochw->ngoij", windows, whole, optimize=True)
    exact = exact.reshape(len(x), outputs, *exact.shape[3:])
    step = np.abs(exact).max() / 127
    constants = {
        "x.scale": np.float32(1),
        "x.zero": np.uint8(zero),
        "w": weights,
        "w.scale": np.ones(outputs, np.float32),
        "w.zero": np.zeros(outputs, np.int8),
        "b": np.zeros(outputs, np.int32),
        "b.scale": np.ones(outputs, np.float32),
        "b.zero": np.zeros(outputs, np.int32),
        "y.scale": np.float32(step),
        "y.zero": np.uint8(128),
    }

    def quantised(kind, name, entry, output):
        return helper.make_node(kind, [entry, f"{name}.scale", f"{name}.zero"], [output])

    nodes = [
        quantised("QuantizeLinear", "x", "x", "x.whole"),
        quantised("DequantizeLinear", "x", "x.whole", "x.float"),
        helper.make_node("DequantizeLinear", ["w", "w.scale", "w.zero"], ["w.float"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b.scale", "b.zero"], ["b.float"], axis=0),
        helper.make_node(
            "Conv",
            ["x.float", "w.float", "b.float"],
            ["c"],
            group=groups,
            kernel_shape=[height, width],
        ),
        quantised("QuantizeLinear", "y", "c", "c.whole"),
        quantised("DequantizeLinear", "y", "c.whole", "y"),
    ]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "layer", values[:1], values[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    file = model.SerializeToString()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x}),
        list(compiled({"x": x}).values()),
    ]
    return [float(np.abs(answer[0] - exact).max() / step) for answer in answers]


def test_what_one_weight_loses_those_with_like_inputs_give_back():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(4000, 8)) @ rng.normal(size=(8, 64)) + 0.1 * rng.normal(
        size=(4000, 64)
    )
    weights = rng.normal(size=(1, 32, 64, 1, 1))
    moments = [(inputs.T @ inputs / len(inputs))[None]]
    flat = weights.reshape(32, 64)

    def error(integers, scale):
        return np.square(inputs @ (integers * scale[:, None] - flat).T).mean()

    found, scale = round_weights(weights, moments, np.zeros((1, 32)), pairs=True)
    step = np.abs(flat).max(axis=1) / 64
    seven = error(np.rint(flat / step[:, None]), step)
    assert error(found.reshape(32, 64), scale.reshape(-1)) < 0.2 * seven


def test_a_channel_without_weights_keeps_room_for_its_bias():
    """Its scale is the step of its bias, which has 32 bits."""
    weights = np.zeros((1, 2, 4, 1, 1))
    found, scale = round_weights(weights, [np.eye(4)[None]], np.array([[0, 1e-3]]), pairs=True)
    assert not found.any() and scale.tolist() == [[1, 1e-3]]
