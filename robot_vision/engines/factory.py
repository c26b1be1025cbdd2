"""Which engines and devices this machine has, and the choice among them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.programs import PRECISIONS
from robot_vision.engines.base import MAX_THREADS, Engine, EngineSettings
from robot_vision.engines.machine import has_gpu_driver
from robot_vision.errors import EngineError, is_whole, refuse_fork, unknown

ENGINES = {"onnx": "OnnxEngine", "openvino": "OpenVinoEngine", "torch": "TorchEngine"}
_NEEDS = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
_EXTRAS = {
    "onnx": "onnxruntime",
    "openvino": "robot_vision[openvino]",
    "torch": "robot_vision[train]",
}

_log = logging.getLogger(__name__)
# That has loaded an engine, or 0. Engines' threads are not in a fork of it: with torch and OpenVINO another
# engine would wait for them, too.
_process = 0


def available_engines() -> dict[str, list[str]]:
    """Returns the installed engines and the devices of each, fastest first."""
    return {name: _devices(name) for name in ENGINES if _installed(name)}


def create_engine(
    bundle: ModelBundle,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    streams: int = 1,
    max_batch: int = 16,
) -> Engine:
    """Loads a bundle's network into an engine.

    `auto` tries in the order of speed: ONNX Runtime on TensorRT, then CUDA, OpenVINO, ONNX Runtime on
    the CPU; torch only where nothing else is installed or when it is named. A log line says which.

    Args:
        bundle: the verified bundle.
        engine: `auto` or one of `ENGINES`.
        device: `auto`, or one of the engine's devices; `cuda` means the first GPU.
        precision: one of `PRECISIONS`.
        threads: CPU threads, 0 for one a core.
        streams: how many threads will call `run` at the same time. One has the whole device and answers
            soonest; several, each on its share of the cores, wait less for each other and answer more.
            0: as `OverlappingEngine` says on a CPU of several cores, elsewhere 1.
        max_batch: the largest batch that `run` will be given. TensorRT builds an engine for up to that.

    Raises:
        EngineError: not installed, no such device (the message lists those that are there), or the
            engine does not have the precision there, or it gives other answers than the bundle has of it.
    """
    if precision not in PRECISIONS:
        raise EngineError(unknown("precision", precision, PRECISIONS))
    global _process
    refuse_fork(_process or os.getpid(), "a model that was loaded", EngineError)
    found = places(engine, device)
    if not is_whole(threads) or threads > MAX_THREADS:
        raise EngineError(
            f"threads is {threads!r}: use 0 for one per core, or a positive number, {MAX_THREADS} at most"
        )
    if not is_whole(streams) or streams > MAX_THREADS:
        raise EngineError(
            f"streams is {streams!r}: use 0 for as many as pay, 1, or one for each thread that calls the "
            "engine"
        )
    problems = []
    for name, place in found:
        if not _has_precision(name, place, precision):
            problems.append(f"{name} on {place} does not compute in {precision}")
            continue
        try:
            made = getattr(_module(name), ENGINES[name])
            settings = EngineSettings(place, precision, threads, streams or 1, max_batch)
            created: Engine = made(bundle, settings)
            try:
                if not created.device.startswith("cpu"):
                    # A GPU compiles at the first run: what it or its libraries cannot do shows only then.
                    size = bundle.spec.input
                    created.run(np.zeros((1, size.height, size.width, 3), np.uint8))
                if bundle.probes:
                    from robot_vision.engines.probes import check_probes

                    check_probes(bundle, created)
            except EngineError:
                created.close()  # or it would keep the memory that the next one needs
                raise
            if streams == 0 and _may_overlap(created, threads):
                from robot_vision.engines.overlapping import OverlappingEngine

                again = functools.partial(_again, made, bundle, settings)
                created = OverlappingEngine(created, again)
        except EngineError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            _log.warning("%s", problem)
        _process = os.getpid()
        _log.info("engine %s on %s, %s", created.name, created.device, created.precision)
        return created
    raise EngineError("; ".join(problems))


def _again(made: Any, bundle: ModelBundle, settings: EngineSettings, streams: int) -> Engine:
    engine: Engine = made(bundle, replace(settings, streams=streams))
    return engine


def _may_overlap(engine: Engine, threads: int) -> bool:
    """Says whether frames may overlap: not measured on GPUs, and torch's threads are of the process."""
    cores = threads or len(os.sched_getaffinity(0))
    return engine.device == "cpu" and engine.name != "torch" and cores > 1


def places(engine: str, device: str) -> list[tuple[str, str]]:
    """Returns (engine, device) pairs to try in order.

    Raises:
        EngineError: an unknown engine, one that is not installed, or none that has the device; the message
            lists those that are there.
    """
    if engine != "auto" and engine not in ENGINES:
        raise EngineError(unknown("engine", engine, ["auto", *ENGINES]))
    if engine != "auto" and not _installed(engine):
        have = ", ".join(name for name in ENGINES if _installed(name))
        raise EngineError(
            f"Engine {engine!r} is not installed (there are {have}): pip install '{_EXTRAS[engine]}'"
        )
    names = [engine] if engine != "auto" else [n for n in ("onnx", "openvino") if _installed(n)]
    found = {name: _devices(name) for name in names}
    if engine == "auto" and device != "auto" and not _offers(found, device) and _installed("torch"):
        found["torch"] = _devices("torch")
    if device != "auto":
        pairs = _offers(found, device)
        if not pairs:
            have = "; ".join(f"{name}: {', '.join(places)}" for name, places in found.items())
            raise EngineError(
                f"Device {device!r} is not there for engine {engine!r}: there are {have}"
                f"{_why_no_gpu(found, device)}"
            )
        return sorted(pairs, key=_speed_order)
    return sorted(((n, d) for n, places in found.items() for d in places), key=_speed_order)


def _devices(name: str) -> list[str]:
    if name == "torch" and not has_gpu_driver():
        return ["cpu"]  # as torch would say, whose import takes seconds
    found: list[str] = _module(name).devices()
    return found


def _why_no_gpu(found: dict[str, list[str]], device: str) -> str:
    if device.partition(":")[0] not in ("cuda", "tensorrt") or "onnx" not in found:
        return ""
    from robot_vision.engines import nvidia

    return f"; {nvidia.why_absent()}"


def _offers(found: dict[str, list[str]], device: str) -> list[tuple[str, str]]:
    kind, _, index = device.partition(":")
    pairs = []
    for name, places in found.items():
        # ONNX Runtime names the kind alone: whether there is an N-th GPU shows when it starts.
        numbered = name == "onnx" and index.isdecimal() and kind != "cpu" and kind in places
        first = name == "torch" and device == "cuda" and "cuda:0" in places
        if device in places or numbered or first:
            pairs.append((name, device))
    return pairs


def _speed_order(pair: tuple[str, str]) -> int:
    name, device = pair
    kind = device.partition(":")[0].partition(".")[0]
    order = [
        ("onnx", "tensorrt"),
        ("onnx", "cuda"),
        ("torch", "cuda"),
        ("openvino", "cpu"),
        ("openvino", "gpu"),  # integrated graphics: rarely faster than the CPU's AVX-512 at batch 1
        ("openvino", "npu"),
        ("onnx", "cpu"),
        ("torch", "cpu"),
    ]
    return order.index((name, kind)) if (name, kind) in order else len(order)


def _has_precision(name: str, device: str, precision: str) -> bool:
    allowed = _module(name).PRECISIONS
    kind = device.partition(":")[0]
    return precision in (allowed[kind] if isinstance(allowed, dict) else allowed)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(_NEEDS[name]) is not None


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"robot_vision.engines.{name}")
