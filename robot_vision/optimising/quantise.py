"""Variants of a bundle's graph: int8 (static, by ranges of some images) and float16.

- `int8`, for every CPU: 8 bits for weights, no two of which overflow together, since CPUs without VNNI add
  pairs of products in 16 bits; 7 bits where layers are no convolutions.
- `int8-vnni`, for CPUs with VNNI and ARM with dot products: 8 bits for all weights.
- `int8-tensorrt`, for TensorRT, which refuses the others: zero is zero, so numbers are signed, which costs a
  bit of what is never negative; weights and biases are stored in float32 and quantised by the engine.
- `float16`, for GPUs.

The backbone alone computes in int8; the heads stay float32, and so do their constants and what calibration
needs. Large matrices of heads are stored in 8 bits a number, which makes files smaller by half: engines make
float32 of them when they load the graph, and they cost no time.

Source: ONNX Runtime's page on quantisation, "Explicit quantization" in TensorRT's documentation.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.onnx_graph import constant_name, inner_name
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.engines.nvidia import TENSORRT_VARIANT
from robot_vision.errors import ConfigError

VARIANTS = ("int8", "int8-vnni", "int8-tensorrt", "float16")
RANGE_IMAGES = 128
_LARGE = 1 << 16  # numbers of a matrix

Batches = Sequence[NDArray[np.uint8]]


def variant_graph(graph: bytes, variant: str, images: Batches) -> bytes:
    """Returns the graph of a variant.

    Args:
        graph: of the bundle, float32.
        variant: one of `VARIANTS`.
        images: batches (N, H, W, 3) for the graph's input, by which ranges are chosen and biases corrected;
            float16 needs none.

    Raises:
        ConfigError: the graph cannot be converted, or the package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401 (what follows needs it)
    except ImportError as error:
        raise ConfigError(
            f"{variant} needs onnx, which is not installed: pip install 'robot_vision[optimise]'"
        ) from error
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
            source.write_bytes(graph)
            if variant == "float16":
                _float16(source, target)
            else:
                _int8(source, target, images, variant)
            return target.read_bytes()
    except ConfigError:
        raise
    except Exception as error:  # the converters raise whatever their graph rewriting ran into
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{variant}: the graph cannot be converted ({first})") from error


def caution(graph: bytes, variant: str) -> str:
    """Returns a sentence where int8 is known to lose much of a graph's accuracy, or nothing."""
    import onnx

    nodes = onnx.load_model_from_string(graph).graph.node
    if variant == "float16" or not any(
        node.op_type == "Softmax" and "/backbone/" in node.name for node in nodes
    ):
        return ""
    return (
        f"{variant}: the backbone is a transformer, which may lose much of its accuracy in int8: compare it "
        "with float32 before a robot runs it, or use bfloat16 (OpenVINO) or float16 (GPUs)"
    )


def _int8(source: Path, target: Path, images: Batches, variant: str) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from robot_vision.optimising.layerwise import refine
    from robot_vision.optimising.ranges import best_ranges

    class Images(quantization.CalibrationDataReader):
        """Images, in batches."""

        def __init__(self) -> None:
            self.waiting = list(images)

        def get_next(self) -> dict[str, Any] | None:
            return {INPUT_NAME: self.waiting.pop()} if self.waiting else None

    with tempfile.TemporaryDirectory() as folder:
        ready, kept = Path(folder) / "ready.onnx", Path(folder) / "kept.onnx"
        outputs = _keep_named(source, kept)
        # Symbolic shape inference is for transformers; folding constants is what the quantiser needs.
        with _quiet():
            quant_pre_process(str(kept), str(ready), skip_symbolic_shape=True)
        _free_named(ready, outputs)
        for_tensorrt = variant == TENSORRT_VARIANT
        layers = ["Conv", "Gemm", "MatMul"]
        # What goes into an activation is not rounded, only what comes out: no range is wasted on negative
        # numbers, and engines fuse the two. Where zero is zero, the range of the layer's output cannot do
        # the activation's work, so that it is left out.
        quantised = layers if for_tensorrt else [*layers, "Clip", "Relu"]
        nodes = onnx.load(str(ready)).graph.node
        backbone = [n.name for n in nodes if n.op_type in quantised and "/backbone/" in n.name]
        if not backbone:
            raise ConfigError("int8: the graph has no layers that are named as the backbone's")
        signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
        ranges = {} if for_tensorrt else best_ranges(ready, backbone, images)
        symmetric = {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": layers,
        }
        quantization.quantize_static(
            str(ready),
            str(target),
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            # The backbone alone, where the time goes: NetVLAD divides small sums by smaller ones, and its
            # descriptors came out as zeros; poses are decoded from few numbers.
            op_types_to_quantize=quantised,
            nodes_to_quantize=backbone,
            per_channel=True,
            reduce_range=variant == "int8",
            activation_type=signed if for_tensorrt else unsigned,
            weight_type=signed,
            extra_options=symmetric if for_tensorrt else {"TensorQuantOverrides": ranges},
        )
        refine(target, ready, images, pairs=variant == "int8")
        if not for_tensorrt:
            _store_small(target)


def _store_small(file: Path) -> None:
    """Stores large matrices that are left in float32 as int8, with a scale for each output.

    A cast makes float32 of them, which engines do once, and what comes of the product is multiplied by the
    scales. Scales on the matrix itself would be computed in each run (ONNX Runtime, DequantizeLinear), or
    be taken for weights that OpenVINO cannot compile on CPUs without AVX-512.
    """
    import onnx

    model = onnx.load(str(file))
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    make = onnx.helper.make_node
    casts, nodes = [], []
    for node in graph.node:
        nodes.append(node)
        tensor = stored.get(node.input[1]) if node.op_type in ("Gemm", "MatMul") else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        how = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        plain = how.get("alpha", 1) == how.get("beta", 1) == 1
        if np.prod(tensor.dims) < _LARGE or readers[tensor.name] != 1 or not plain:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        scale = np.abs(values).max(axis=1 if how.get("transB") else 0, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        small, whole, scales = (f"{tensor.name}.{word}" for word in ("int8", "float", "scale"))
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(np.rint(values / scale).astype(np.int8), small),
                onnx.numpy_helper.from_array(scale.reshape(-1), scales),
            ]
        )
        casts.append(make("Cast", [small], [whole], to=onnx.TensorProto.FLOAT))
        output, bias = node.output[0], list(node.input[2:])
        del node.input[1:]
        node.input.append(whole)
        node.output[0] = f"{output}.product"
        scaled = f"{output}.scaled" if bias else output
        nodes.append(make("Mul", [node.output[0], scales], [scaled]))
        if bias:
            nodes.append(make("Add", [scaled, *bias], [output]))
    nodes = [*casts, *nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(file))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ONNX Runtime from warning of constants that it may not fold: that is what is wanted."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # ONNX Runtime's own default


def _keep_named(source: Path, target: Path) -> list[str]:
    """Writes a graph whose named constants and inner values no optimiser may fold away or rename.

    Calibration finds them by their names. A constant that is an input too may change at each run, and a value
    that is an output is wanted as it is.

    Returns:
        The outputs that the graph really has.
    """
    import onnx

    model = onnx.load(str(source))
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name.startswith(constant_name("", "").rstrip(".")):
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    outputs = [output.name for output in graph.output]
    inner = inner_name("", "").rstrip(".")
    for node in graph.node:
        for name in node.output:
            if name.startswith(f"{inner}.") and name not in outputs:
                graph.output.append(
                    onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                )
    onnx.save(model, str(target))
    return outputs


def _free_named(file: Path, outputs: list[str]) -> None:
    """Takes back what `_keep_named` added."""
    import onnx

    model = onnx.load(str(file))
    for field, names in (
        (model.graph.input, [INPUT_NAME]),
        (model.graph.output, outputs),
    ):
        for value in [v for v in field if v.name not in names]:
            field.remove(value)
    onnx.save(model, str(file))


def _float16(source: Path, target: Path) -> None:
    import onnx

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ConfigError("float16 needs onnxruntime with its transformers tools") from error
    model = onnx.load(str(source))
    # Outputs stay float32, and so does what squares or divides small numbers.
    blocked = ["Div", "ReduceL2", "ReduceSum", "Sqrt", "Pow", "Exp", "Log", "Softmax", "Max", "Min"]
    blocked += ["ReduceMax", "ReduceLogSumExp", "Where", "GreaterOrEqual", "Less", "Clip"]
    half = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=blocked, disable_shape_infer=False
    )
    # A value that two blocked nodes read gets the same cast twice, which no engine takes.
    made: set[str] = set()
    for node in list(half.graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            half.graph.node.remove(node)
        made.update(node.output)
    onnx.save(half, str(target))
