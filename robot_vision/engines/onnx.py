"""ONNX Runtime: TensorRT, CUDA or CPU, whichever execution provider the installed build has."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.engines import nvidia
from robot_vision.engines.base import EngineSettings
from robot_vision.engines.bound import BoundSession
from robot_vision.errors import EngineError

_PROVIDERS = {  # fastest first
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PRECISIONS = {
    "tensorrt": ("float32", "float16", "bfloat16"),
    "cuda": ("float32",),
    "cpu": ("float32",),
}

_log = logging.getLogger(__name__)


def devices() -> list[str]:
    """Returns the device kinds that the installed build was made for, fastest first.

    Those of a GPU are among them where its driver is installed; whether its libraries and the GPU itself
    are there too shows when the engine is created.
    """
    built = onnxruntime.get_available_providers()
    return [
        device
        for device, provider in _PROVIDERS.items()
        if provider in built and (device == "cpu" or nvidia.has_driver())
    ]


class OnnxEngine:
    """A bundle's graph in an ONNX Runtime session."""

    name = "onnx"

    def __init__(self, bundle: ModelBundle, settings: EngineSettings) -> None:
        """Creates the session.

        Args:
            bundle: the verified bundle.
            settings: `float16` and `bfloat16` are TensorRT's alone.

        Raises:
            EngineError: the provider is not built in, or did not start on this machine.
        """
        device = settings.device
        kind, _, index = device.partition(":")
        gpu = int(index or 0)
        self.precision = settings.precision
        self.device = device if kind == "cpu" or index else f"{kind}:0"
        self.streams = settings.streams
        self._names = list(bundle.spec.outputs)
        missing = "" if kind == "cpu" else nvidia.load_libraries(kind)
        providers: list[Any] = ["CPUExecutionProvider"]  # and for the few nodes that a GPU leaves
        options = _options(settings.threads, kind, settings.streams)
        try:
            if kind != "cpu":
                providers = nvidia.providers(
                    kind, gpu, settings.precision, bundle, settings.max_batch
                )
            try:
                self._session = _session(bundle.graph, options, providers)
            except Exception as error:
                if not nvidia.refuses_profiles(error):
                    raise
                self._session = _session(bundle.graph, options, nvidia.without_profiles(providers))
        except Exception as error:  # ONNX Runtime raises a dozen kinds, all derived from Exception
            raise EngineError(
                f"ONNX Runtime cannot load {bundle.name} on {device}: {_first(error)}"
            ) from error
        # Without its libraries or its GPU a provider is dropped silently; the user asked for it by name.
        active = self._session.get_providers()[0]
        if active != _PROVIDERS[kind]:
            raise EngineError(
                f"ONNX Runtime has no working {kind} here (it offers {active}): "
                f"{missing or 'no such GPU, or a driver that is too old'}; use device cpu, or "
                f"{nvidia.INSTALL}{_two_builds()}"
            )
        # On the CPU the session reads the batch where it lies: there is nothing to bind.
        self._bound = (
            None
            if kind == "cpu"
            else BoundSession(self._session, INPUT_NAME, self._names, "cuda", gpu)
        )

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        try:
            if self._bound:
                outputs = self._bound.run(batch)
            else:
                outputs = self._session.run(self._names, {INPUT_NAME: batch})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on {self.device}: {_first(error)}") from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._session = self._bound = None


def _options(threads: int, kind: str, streams: int) -> Any:
    options = onnxruntime.SessionOptions()
    if streams > 1:
        # The session's threads help the caller, and each caller computes too.
        threads = max(1, (threads or len(os.sched_getaffinity(0))) - streams + 1)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; a dropped provider is reported above
    if kind == "cpu":
        # Threads that spin between frames take the cores that the camera driver and DDS need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Smaller blocks, handed out as threads come free: a thread that has to share its core with a camera
        # driver then holds the others up for less long (2 to 5 percent less time under such load).
        options.add_session_config_entry("session.dynamic_block_base", "8")
    return options


def _session(graph: bytes, options: Any, providers: list[Any]) -> Any:
    with _silence():
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=providers,
            # Else a device that fails is replaced by a slower one, now or in the middle of a run.
            enable_fallback=0,
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps what ONNX Runtime prints of a provider that does not start out of the log: an error says it."""
    if _log.isEnabledFor(logging.DEBUG):
        yield
        return
    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # ONNX Runtime's own default


def _two_builds() -> str:
    """Returns a warning when both builds are installed: whichever came last overwrote the other."""
    from importlib import metadata  # not before it is needed: importing it takes 10 ms

    installed = {d.metadata["Name"] for d in metadata.distributions() if d.metadata["Name"]}
    if {"onnxruntime", "onnxruntime-gpu"} <= installed:
        return "; both are installed, and overwrite each other"
    return ""


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
