"""The protocol of an engine: a loaded network on a device that turns a batch into arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_THREADS = 256


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is to run, of which each takes what concerns it.

    Attributes:
        device: `cpu`, `cuda`, `tensorrt`, `gpu`, `npu`, with `:N` or `.N` for the N-th.
        precision: what the device computes in; `float32` is meant literally where the device's library can.
        threads: CPU threads, 0 for one a core.
        streams: threads that will call `run` at the same time, each on its share of the CPU threads; 0 is for
            as many as pay on this machine, see `OverlappingEngine`.
        max_batch: the largest batch that `run` will be given; TensorRT builds its engine for up to that.
    """

    device: str
    precision: str = "float32"
    threads: int = 0
    streams: int = 1
    max_batch: int = 16


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

    @property
    def streams(self) -> int:
        """See above."""
        ...

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Runs the network once.

        Args:
            batch: RGB uint8 (N, H, W, 3), C-contiguous, of the bundle's input size, N >= 1.

        Returns:
            The outputs that `NetworkSpec.outputs` names, each (N, ...) of its type; they stay valid
            after the next run.

        Raises:
            EngineError: the device failed (out of memory, lost).
        """
        ...

    def close(self) -> None:
        """Frees the device. The engine cannot be used afterwards; closing twice is allowed."""
        ...
