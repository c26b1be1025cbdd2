"""What ONNX Runtime needs on an NVIDIA GPU: the driver, CUDA's and TensorRT's libraries, their settings."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
from typing import Any

import onnxruntime

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.engines.machine import can_load
from robot_vision.errors import EngineError

TENSORRT_VARIANT = "int8-tensorrt"  # of a bundle: int8 as TensorRT takes it
# Both builds, one of which may not be there: they have the same files, and to pip the other would still be.
INSTALL = (
    "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
_TENSORRT_MAJORS = range(8, 21)

_log = logging.getLogger(__name__)


@functools.cache
def has_driver() -> bool:
    """Returns whether a GPU's driver is installed; without it no build of ONNX Runtime finds a GPU."""
    return can_load("libcuda.so.1")


def why_absent() -> str:
    """Returns why ONNX Runtime has no GPU here, with the remedy."""
    if not has_driver():
        return "no NVIDIA driver (libcuda.so.1) is installed"
    return f"the installed ONNX Runtime is not built for GPUs: {INSTALL}"


def load_libraries(kind: str) -> str:
    """Loads CUDA's libraries, and TensorRT's for `tensorrt`, where pip installed them.

    Returns:
        What of CUDA is missing, as ONNX Runtime says it; empty where all is there.

    Raises:
        EngineError: TensorRT was asked for and is not installed.
    """
    said = io.StringIO()
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints, which would stand among the answers of `robot-vision infer`.
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()
    if kind == "tensorrt":
        # Of pip's tensorrt-cu*: importing it loads them.
        if importlib.util.find_spec("tensorrt_libs"):
            importlib.import_module("tensorrt_libs")
        if not any(can_load(f"libnvinfer.so.{major}") for major in _TENSORRT_MAJORS):
            raise EngineError(
                "TensorRT (libnvinfer) is not installed: pip install the tensorrt-cu* of your CUDA in the "
                "version that your ONNX Runtime is built for, or use device cuda"
            )
    return next((line for line in said.getvalue().splitlines() if "Failed to load" in line), "")


def providers(
    kind: str, index: int, precision: str, bundle: ModelBundle, max_batch: int
) -> list[Any]:
    """Returns ONNX Runtime's execution providers with their options, the wanted one first.

    Source: ONNX Runtime's pages on the CUDA and TensorRT execution providers.

    Args:
        kind: `cuda` or `tensorrt`.
        index: of the GPU.
        precision: what TensorRT computes in.
        bundle: whose graph is to run.
        max_batch: the largest batch that will be asked for.

    Raises:
        OSError: there is no folder for the engine that TensorRT builds.
    """
    rest: list[Any] = [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
    if kind == "cuda":
        return rest
    # An engine is of one precision and one range of batches. ONNX Runtime names its file after the graph's
    # operators, the GPU and the versions, and not after the weights: they are in the bundle's folder's name.
    cache = bundle.cache / f"tensorrt-{precision}-{max_batch}"
    cache.mkdir(parents=True, exist_ok=True)
    if not any(cache.glob("*.engine")):
        _log.warning(
            "TensorRT builds its engine for this GPU now: this takes minutes, once (%s)", cache
        )
    size = bundle.spec.input
    shape = f"{size.height}x{size.width}x3"
    tensorrt = {
        "device_id": index,
        "trt_fp16_enable": precision == "float16",
        "trt_int8_enable": TENSORRT_VARIANT in (bundle.program, bundle.training.get("variant")),
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache),
        # Otherwise each batch that is larger than all before it stops the robot's eyes for a build.
        "trt_profile_min_shapes": f"{INPUT_NAME}:1x{shape}",
        "trt_profile_opt_shapes": f"{INPUT_NAME}:{max_batch}x{shape}",
        "trt_profile_max_shapes": f"{INPUT_NAME}:{max_batch}x{shape}",
    }
    if precision == "bfloat16":
        tensorrt["trt_bf16_enable"] = True  # older versions do not know it, and refuse even False
    return [("TensorrtExecutionProvider", tensorrt), *rest]


def refuses_profiles(error: Exception) -> bool:
    """Returns whether TensorRT takes only parts of a graph, whose inputs have names that nobody knows here.

    So it is with graphs of earlier versions, which transpose pixels before they cast them.
    """
    return "associated profiles" in str(error)


def without_profiles(options: list[Any]) -> list[Any]:
    """Returns `providers` such that TensorRT builds for the batches that come, and again for larger ones."""
    (name, tensorrt), *rest = options
    _log.warning(
        "TensorRT takes this graph in parts and builds its engines at the first run: export the bundle again"
    )
    return [(name, {k: v for k, v in tensorrt.items() if "_profile_" not in k}), *rest]
