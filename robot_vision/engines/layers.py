"""How long each layer of a bundle's network takes, as the engine itself says."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.errors import EngineError


@dataclass(frozen=True)
class LayerTime:
    """A layer of the compiled network; several of the graph's may be fused into one.

    Attributes:
        name: of the layer.
        kind: of its operation, and of the kernel where the engine names it.
        seconds: median of the runs.
    """

    name: str
    kind: str
    seconds: float


def layer_times(bundle: ModelBundle, engine: str, precision: str, runs: int) -> list[LayerTime]:
    """Runs a batch of one on the CPU with the engine's own clocks on, in the order of the layers.

    The clocks cost some percent, so the sum is more than a run without them takes.

    Args:
        bundle: whose graph is run.
        engine: `openvino` or `onnx`.
        precision: `float32`, or `bfloat16` with OpenVINO.
        runs: of which medians are taken; with OpenVINO, which keeps no single runs, means.

    Raises:
        EngineError: another engine, or one that does not load the graph.
    """
    size = bundle.spec.input
    batch = np.zeros((1, size.height, size.width, 3), np.uint8)
    try:
        if engine == "openvino":
            return _openvino(bundle, precision, batch, runs)
        if engine == "onnx":
            return _onnx(bundle, batch, runs)
    except Exception as error:  # each engine raises kinds of its own
        raise EngineError(f"{engine} cannot time the layers of {bundle.name}: {error}") from error
    raise EngineError(f"engine {engine!r} times no layers: use openvino or onnx")


def _openvino(bundle: ModelBundle, precision: str, batch: np.ndarray, runs: int) -> list[LayerTime]:
    from robot_vision.engines.openvino import HINTS, core

    model = core().read_model(bundle.graph)
    model.reshape(list(batch.shape))
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERF_COUNT": True,
    }
    request = core().compile_model(model, "CPU", config).create_infer_request()
    request.infer([batch])
    first = [
        info
        for info in request.profiling_info
        if info.status == info.Status.EXECUTED and info.node_type != "Result"
    ]
    for _ in range(runs):
        request.infer([batch])
    # Each time is the mean of all runs so far, in whole microseconds; 0 counts as not executed.
    mean = {info.node_name: info.real_time.total_seconds() for info in request.profiling_info}
    return [
        LayerTime(
            info.node_name,
            f"{info.node_type} {info.exec_type}",
            max(0.0, mean[info.node_name] * (runs + 1) - info.real_time.total_seconds()) / runs,
        )
        for info in first
    ]


def _onnx(bundle: ModelBundle, batch: np.ndarray, runs: int) -> list[LayerTime]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "layers")
        session = onnxruntime.InferenceSession(
            bundle.graph, options, providers=["CPUExecutionProvider"]
        )
        for _ in range(runs + 1):
            session.run(None, {INPUT_NAME: batch})
        events = json.loads(Path(session.end_profiling()).read_text())
    taken: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        name, _, what = event["name"].rpartition("_kernel_time")
        if name and not what:
            taken.setdefault(name, []).append(event["dur"] / 1e6)
            kinds[name] = event["args"]["op_name"]
    return [LayerTime(n, kinds[n], float(np.median(t[1:]))) for n, t in taken.items()]
