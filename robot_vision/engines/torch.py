"""torch: the network itself, built from the bundle's weights. For training machines and comparisons."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
from robot_vision.engines.base import EngineSettings
from robot_vision.errors import EngineError
from robot_vision.networks.checkpoint import load_network

PRECISIONS = ("float32", "float16", "bfloat16")


def devices() -> list[str]:
    """Returns torch's devices, GPUs first."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"]


class TorchEngine:
    """The bundle's network in torch, in channels-last layout and under autocast where asked."""

    name = "torch"

    def __init__(self, bundle: ModelBundle, settings: EngineSettings) -> None:
        """Builds the network and moves it to the device.

        Args:
            bundle: the verified bundle; it must hold its weights.
            settings: `threads` are of the whole process, 0 leaves them as they are; `precision` is what
                matrix products and convolutions are computed in.

        Raises:
            EngineError: the bundle has no weights, its program is a graph of its own, or the device has no
                memory for them.
        """
        if bundle.running.graph:
            raise EngineError(
                f"{bundle.program} of {bundle.name} is the graph {bundle.running.graph}, and the torch "
                "engine runs weights: use engine onnx or openvino, or precision float32"
            )
        if WEIGHTS not in bundle.files:
            raise EngineError(
                f"{bundle.name} has no {WEIGHTS}, which the torch engine needs: use onnx"
            )
        self.device = "cuda:0" if settings.device == "cuda" else settings.device
        self.precision = settings.precision
        self.streams = settings.streams
        if settings.threads or self.streams > 1:
            threads = settings.threads or torch.get_num_threads()
            torch.set_num_threads(max(1, threads // self.streams))
        self._dtype = getattr(torch, self.precision)
        # What a lower precision computes is given in the type that the bundle promises.
        self._types = {name: getattr(torch, o.dtype) for name, o in bundle.spec.outputs.items()}
        self._streams = threading.local()
        try:
            network = load_network(bundle.path / WEIGHTS)
            self._network: Any = (
                network.eval().to(self.device).to(memory_format=torch.channels_last)
            )
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EngineError(
                f"torch cannot load {bundle.name} on {self.device}: {first}"
            ) from error
        if network.spec.outputs != bundle.spec.outputs:
            raise EngineError(f"{bundle.name}: {WEIGHTS} and the graph are of different networks")

    @torch.inference_mode()
    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        try:
            images = torch.from_numpy(batch)
            kind = self.device.partition(":")[0]
            lower = torch.autocast(kind, self._dtype, enabled=self._dtype != torch.float32)
            with self._stream(), lower:
                if kind == "cuda":
                    # From pinned memory the copy needs no second one and waits for nobody.
                    images = images.pin_memory()
                outputs = self._network(images.to(self.device, non_blocking=True))
                # A copy to the CPU waits for this thread's stream alone.
                return {
                    name: value.to(self._types[name]).cpu().numpy()
                    for name, value in outputs.items()
                }
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
            raise EngineError(
                f"torch failed on {self.device}: {str(error).splitlines()[0]}"
            ) from error

    def _stream(self) -> Any:
        """Returns the context of the calling thread's own CUDA stream, so that threads do not queue up."""
        if not self.device.startswith("cuda"):
            return nullcontext()
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._streams.own)

    def close(self) -> None:
        self._network = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
