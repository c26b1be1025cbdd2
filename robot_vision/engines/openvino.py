"""OpenVINO: the fastest engine on Intel and AMD CPUs, and Intel's GPUs and NPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from robot_vision.bundle import ModelBundle
from robot_vision.errors import EngineError

PRECISIONS = ("float32", "float16", "bfloat16")
_HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def devices() -> list[str]:
    """Returns this machine's OpenVINO devices in lower case, GPUs before the CPU."""
    found = [str(device).lower() for device in openvino.Core().available_devices]
    return sorted(found, key=lambda device: (device == "cpu", device))


class OpenVinoEngine:
    """A bundle's graph compiled by OpenVINO; one request, run synchronously."""

    name = "openvino"

    def __init__(self, bundle: ModelBundle, device: str, precision: str, threads: int) -> None:
        """Compiles the graph.

        Args:
            bundle: the verified bundle.
            device: `cpu`, `gpu`, `gpu.0`, `npu`.
            precision: what the device computes in; `float32` is meant literally (OpenVINO's own
                default is bfloat16 where the CPU has it).
            threads: CPU threads, 0 for one a core.

        Raises:
            EngineError: the device cannot compile the graph.
        """
        self.device = device
        self.precision = precision
        self._names = list(bundle.spec.outputs)
        core = openvino.Core()
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }
        if threads and device == "cpu":
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(bundle.graph)
            compiled = core.compile_model(model, device.upper(), config)
        except Exception as error:  # OpenVINO raises RuntimeError and kinds of its own
            first = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
            raise EngineError(
                f"OpenVINO cannot compile {bundle.name} for {device}: {first}"
            ) from error
        self._ports = [compiled.output(name) for name in self._names]
        for name, port in zip(self._names, self._ports, strict=True):
            shape = port.get_partial_shape()
            actual = [d.get_length() if d.is_static else None for d in shape]
            if actual[1:] != list(bundle.spec.outputs[name]) or not actual:
                # Seen: an operator of which OpenVINO's reader ignored an attribute.
                raise EngineError(
                    f"OpenVINO misreads {bundle.name}: it gives {name} the shape {shape}; use engine onnx"
                )
        self._request: Any = compiled.create_infer_request()

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See `Engine.run`."""
        try:
            # The input is viewed, not copied: it stays alive until this call returns.
            results = self._request.infer([batch], share_inputs=True, share_outputs=False)
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {self.device}: {error}") from error
        return {name: results[port] for name, port in zip(self._names, self._ports, strict=True)}

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None
        self._ports = []
