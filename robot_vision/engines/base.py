"""The protocol of an engine: a loaded network on a device that turns a batch into arrays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A network on a device, ready to run.

    Attributes:
        name: `onnx`, `openvino` or `torch`.
        device: where it runs, e.g. `cpu`, `cuda:0`, `tensorrt:0`.
        precision: `float32`, `float16` or `bfloat16`.
        streams: how many threads may call `run` at the same time, each with its share of the device.
    """

    name: str
    device: str
    precision: str
    streams: int

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Runs the network once.

        Args:
            batch: RGB uint8 (N, H, W, 3), C-contiguous, of the bundle's input size, N >= 1.

        Returns:
            The outputs that `NetworkSpec.outputs` names, each float32 (N, ...); they stay valid
            after the next run.

        Raises:
            EngineError: the device failed (out of memory, lost).
        """
        ...

    def close(self) -> None:
        """Frees the device. The engine cannot be used afterwards; closing twice is allowed."""
        ...
