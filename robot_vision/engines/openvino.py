"""OpenVINO: the fastest engine on Intel and AMD CPUs, and Intel's GPUs and NPUs."""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.engines.base import EngineSettings
from robot_vision.errors import EngineError

PRECISIONS = ("float32", "float16", "bfloat16")
_ANY = 0  # the batch size of a graph whose batch is free
HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class _Compiled:
    """A compiled graph's idle requests, one a stream, and where its outputs are."""

    requests: SimpleQueue[Any]
    ports: dict[str, Any]


@functools.cache
def core() -> Any:
    """Returns the one `openvino.Core` of this process, which lives as long as it.

    Each core's CPU plugin gives its thread a stack for signals (with 2026.4), and takes it back with what was
    there before. Of two cores the first of which ends first that is memory of the first, long freed: the next
    signal, such as Ctrl-C, is then a segmentation fault.
    """
    return openvino.Core()


def devices() -> list[str]:
    """Returns this machine's OpenVINO devices in lower case, GPUs before the CPU."""
    found = [str(device).lower() for device in core().available_devices]
    return sorted(found, key=lambda device: (device == "cpu", device))


class OpenVinoEngine:
    """A bundle's graph compiled by OpenVINO.

    A run is an asynchronous request that is waited for: OpenVINO then computes on its own threads, which are
    bound to cores, and the calling one sleeps. A synchronous request takes the calling thread as one of them,
    where the image was resized and messages are made: a frame then takes 1.3 to 1.4 times as long.

    A graph compiled for one batch size is 3 percent (ResNet-18 in float32) to 20 percent (small networks,
    bfloat16) faster than one whose batch is free, so batches of one and of the first other size that comes
    (the node's and the replay's warm-up sends it) get their own; all other sizes share a third.
    """

    name = "openvino"

    def __init__(self, bundle: ModelBundle, settings: EngineSettings) -> None:
        """Compiles the graph for batches of one.

        Args:
            bundle: the verified bundle.
            settings: `float32` is meant literally (OpenVINO's own default is bfloat16 where the CPU has it).

        Raises:
            EngineError: the device cannot compile the graph.
        """
        self.device = settings.device
        self.precision = settings.precision
        self.streams = settings.streams
        self._bundle_name = bundle.name
        self._graph = bundle.graph
        self._outputs = dict(bundle.spec.outputs)
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[settings.precision],
        }
        if settings.threads and settings.device == "cpu":
            self._config["INFERENCE_NUM_THREADS"] = settings.threads
        if settings.streams > 1:
            # More requests than cores wait their turn: one lies ready whenever another is done.
            cores = settings.threads or len(os.sched_getaffinity(0))
            own = settings.streams if settings.device != "cpu" else min(settings.streams, cores)
            self._config["NUM_STREAMS"] = own
        self._compiling = threading.Lock()
        self._compiled: dict[int, _Compiled] = {}
        self._compiled[1] = self._compile(1)

    def _compile(self, size: int) -> _Compiled:
        """Compiles for batches of `size`, or of any size if that is `_ANY`."""
        try:
            model = core().read_model(self._graph)
            if size != _ANY:
                shape = model.input(0).get_partial_shape()
                shape[0] = size
                model.reshape(shape)
            compiled = core().compile_model(model, self.device.upper(), self._config)
        except Exception as error:  # OpenVINO raises RuntimeError and kinds of its own
            first = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
            raise EngineError(
                f"OpenVINO cannot compile {self._bundle_name} for {self.device}: {first}"
            ) from error
        ports = {name: compiled.output(name) for name in self._outputs}
        for name, port in ports.items():
            shape = port.get_partial_shape()
            actual = [d.get_length() if d.is_static else None for d in shape]
            kind = np.dtype(port.get_element_type().to_dtype())
            promised = self._outputs[name]
            if actual[1:] != list(promised.shape) or not actual or kind != promised.dtype:
                # Seen: an operator of which OpenVINO's reader ignored an attribute.
                raise EngineError(
                    f"OpenVINO misreads {self._bundle_name}: it gives {name} as {kind} {shape}, and not "
                    f"as {promised.text}; use engine onnx"
                )
        requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.streams):
            requests.put(compiled.create_infer_request())
        return _Compiled(requests, ports)

    def _graph_for(self, size: int) -> _Compiled:
        """Returns the graph that runs batches of `size`; compiles it if need be."""
        with self._compiling:
            if size not in self._compiled:
                if len(self._compiled) > 1:
                    size = _ANY
                if size not in self._compiled:
                    self._compiled[size] = self._compile(size)
            return self._compiled[size]

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        compiled = self._graph_for(len(batch))
        request = compiled.requests.get()
        try:
            # The input is viewed, not copied: it stays alive until this call returns. What is read-only
            # OpenVINO does not view.
            viewed = batch.flags.writeable
            request.set_input_tensor(openvino.Tensor(batch, shared_memory=viewed))
            request.start_async()
            request.wait()
            return {
                name: request.get_tensor(port).data.copy() for name, port in compiled.ports.items()
            }
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {self.device}: {error}") from error
        finally:
            compiled.requests.put(request)

    def close(self) -> None:
        self._compiled = {}
