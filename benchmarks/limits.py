"""The physical limit: what the cores and the memory could do at best, measured with the engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks import inputs, models
from benchmarks.timing import side_by_side
from robot_vision.engines import create_engine

_MATRIX = 1536
_COPY_BYTES = 256 * 2**20  # far more than any cache


def operations(graph: onnx.ModelProto) -> int:
    """Returns the floating-point operations of one image: 2 for each multiply-add of Conv, Gemm, MatMul.

    What else a network does (activations, pooling, norms) is below one percent of these.

    Raises:
        ValueError: the shape of such a node cannot be inferred.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output, *inferred.input)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        out, weight = shapes.get(node.output[0]), shapes.get(node.input[1])
        if not out or not weight or 0 in out:
            raise ValueError(f"no shape known of {node.op_type} {node.name}: {out}, {weight}")
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv":
            inner = math.prod(weight[1:])  # input channels of a group x kernel
        elif node.op_type == "Gemm":
            inner = weight[1] if attributes.get("transB") else weight[0]
        else:
            inner = weight[-2]
        total += 2 * math.prod(out) * inner
    return total


def limits(images: list[NDArray[np.uint8]], seconds: float) -> dict[str, Any]:
    """Returns the engine's share of the measured peak of a matrix product, and of the memory's bandwidth.

    The peak is that of a float32 product in NumPy's BLAS on all cores, in turns with the engine; the
    bandwidth that of a large copy, counting reads and writes.
    """
    bundle = models.bundle("three_heads", images)
    engine = create_engine(bundle)
    batch = inputs.network_batch(bundle, images[:1])
    random = np.random.default_rng(0)
    a, b = (random.random((_MATRIX, _MATRIX), np.float32) for _ in range(2))
    out = np.empty_like(a)
    source = np.ones(_COPY_BYTES // 2 // 8)
    target = np.empty_like(source)
    times = side_by_side(
        {
            "engine": lambda: engine.run(batch),
            "matrix product": lambda: np.matmul(a, b, out=out),
            "memory copy": lambda: np.copyto(target, source),
        },
        seconds,
    )
    flops = operations(onnx.load_from_string(bundle.graph))
    peak = 2 * _MATRIX**3 / times["matrix product"]["p50_ms"] * 1e3
    bandwidth = _COPY_BYTES / times["memory copy"]["p50_ms"] * 1e3
    weights = len(bundle.graph)
    engine.close()
    return {
        "engine": f"{engine.name} {engine.device} {engine.precision}",
        "times": times,
        "giga_operations": round(flops / 1e9, 3),
        "peak_gflops": round(peak / 1e9, 1),
        "bandwidth_gb_s": round(bandwidth / 1e9, 2),
        "engine_limit_ms": round(flops / peak * 1e3, 3),
        "engine_over_limit": round(times["engine"]["p50_ms"] / (flops / peak * 1e3), 2),
        "weights_once_ms": round(weights / bandwidth * 1e3, 3),
        # A frame is written by the camera's process and read by ours, once each.
        "frame_480p_ms": round(2 * 480 * 640 * 3 / bandwidth * 1e3, 4),
        "frame_1080p_ms": round(2 * 1080 * 1920 * 3 / bandwidth * 1e3, 4),
    }
