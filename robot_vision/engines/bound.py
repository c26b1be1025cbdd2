"""Runs of an ONNX Runtime session with buffers that stay on the device from run to run."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class BoundSession:
    """A session whose input of each batch size has its place in the device's memory.

    `session.run` allocates the input on the device and binds every name again at each run. Here that is
    done once for each batch size and each thread that runs at the same time; a run is a copy into that
    place, the network, and a copy of the results.

    Source: "I/O Binding" of ONNX Runtime's documentation.

    Args:
        session: an `onnxruntime.InferenceSession`.
        input_name: of its only input, uint8 (N, ...).
        output_names: what to return, in this order.
        device: where the input lies: ONNX Runtime's `cuda` or `cpu`.
        index: of the device among those of its kind.
    """

    def __init__(
        self, session: Any, input_name: str, output_names: list[str], device: str, index: int = 0
    ) -> None:
        self._session = session
        self._input_name = input_name
        self._output_names = output_names
        self._place = (device, index)
        self._lock = threading.Lock()
        self._idle: dict[tuple[int, ...], list[tuple[Any, Any]]] = {}

    def run(self, batch: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Returns the outputs for a C-contiguous batch; they are the caller's own."""
        with self._lock:
            idle = self._idle.setdefault(batch.shape, [])
            ready = idle.pop() if idle else None
        place, binding = ready or self._bind(batch.shape)
        place.update_inplace(batch)
        self._session.run_with_iobinding(binding)
        outputs: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        with self._lock:  # not after a failure: what the device is out of is then freed
            idle.append((place, binding))
        return outputs

    def _bind(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, *self._place)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input_name, place)
        for name in self._output_names:
            binding.bind_output(name, "cpu")
        return place, binding
