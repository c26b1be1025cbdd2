"""The stages of a frame in one process: resize, engine, pipeline, heads."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import inputs, models
from benchmarks.timing import ratio, side_by_side
from robot_vision.engines import create_engine
from robot_vision.engines.factory import ENGINES
from robot_vision.errors import EngineError
from robot_vision.images.resizing import resize_into
from robot_vision.pipeline import Pipeline

Images = list[NDArray[np.uint8]]


def resizing(images: Images, seconds: float) -> dict[str, Any]:
    """1080p and 480p to 224 x 224 on one core: ours, OpenCV's and Pillow's, and how far from Pillow's."""
    results: dict[str, Any] = {}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for name, size in inputs.SIZES.items():
            sized = inputs.enlarged(images, size)
            image, out = sized[0], np.empty((224, 224, 3), np.uint8)
            pillow = Image.fromarray(image)
            times = side_by_side(
                {
                    "ours": lambda i=image, o=out: resize_into(i, o, "squash", 1.0),
                    "bilinear, aliased": lambda i=image: cv2.resize(i, (224, 224)),
                    "INTER_AREA": lambda i=image: cv2.resize(
                        i, (224, 224), interpolation=cv2.INTER_AREA
                    ),
                    "Pillow bilinear": lambda p=pillow: p.resize((224, 224), Image.BILINEAR),
                },
                seconds,
            )
            results[name] = {"times": times, "error_grey_levels": _resize_errors(sized)}
    finally:
        cv2.setNumThreads(threads)
    return results


def _resize_errors(images: Images) -> dict[str, float]:
    """Mean absolute difference to Pillow's antialiased bilinear resize, worst image."""
    errors: dict[str, list[float]] = {"ours": [], "bilinear, aliased": [], "INTER_AREA": []}
    for image in images:
        expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.BILINEAR), np.float32)
        ours = np.empty((224, 224, 3), np.uint8)
        resize_into(image, ours, "squash", 1.0)
        for name, actual in (
            ("ours", ours),
            ("bilinear, aliased", cv2.resize(image, (224, 224))),
            ("INTER_AREA", cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)),
        ):
            errors[name].append(float(np.abs(actual.astype(np.float32) - expected).mean()))
    return {name: round(max(values), 3) for name, values in errors.items()}


def engines(images: Images, seconds: float) -> dict[str, Any]:
    """The bare engines side by side, batch 1 and 4; what does not run here is listed with its reason."""
    bundle = models.bundle("three_heads", images)
    batch = inputs.network_batch(bundle, images[:4])
    runs, absent = {}, {}
    for name, device, precision in itertools.product(
        ENGINES, ("cpu", "cuda", "tensorrt"), ("float32", "float16", "bfloat16")
    ):
        label = f"{name} {device} {precision}"
        try:
            runs[label] = create_engine(bundle, name, device, precision)
        except EngineError as error:
            absent[label] = str(error)
    for kind, name, device in (
        *itertools.product(("int8", "int8-vnni", "float16"), ("onnx", "openvino"), ("cpu",)),
        ("float16", "onnx", "cuda"),
        ("int8-tensorrt", "onnx", "tensorrt"),
    ):
        label = f"{name} {device}, {kind} bundle"
        try:
            runs[label] = create_engine(models.variant(kind, images), name, device)
        except EngineError as error:
            absent[label] = str(error)
    results: dict[str, Any] = {"left_out": absent}
    for size in (1, 4):
        results[f"batch_{size}"] = side_by_side(
            {label: lambda e=e, b=batch[:size]: e.run(b) for label, e in runs.items()}, seconds, 3
        )
    for engine in runs.values():
        engine.close()
    return results


def pipeline(images: Images, seconds: float, precision: str) -> dict[str, Any]:
    """RGB array in, predictions out, and the bare engine on a ready batch; 480p and 1080p."""
    bundle, computed = models.ready("three_heads", precision, images)
    engine = create_engine(bundle, precision=computed)
    whole = Pipeline(bundle, engine)
    batch = inputs.network_batch(bundle, images[:1])
    big = inputs.enlarged(images[:1], inputs.SIZES["1080p"])
    times = side_by_side(
        {
            "bare engine": lambda: engine.run(batch),
            "pipeline 480p": lambda: whole(images[:1]),
            "pipeline 1080p": lambda: whole(big),
        },
        seconds,
    )
    label = f"{engine.name} {engine.device} {precision}"
    whole.close()
    return {
        "engine": label,
        "times": times,
        "pipeline_over_engine_480p": ratio(times, "pipeline 480p", "bare engine"),
        "pipeline_over_engine_1080p": ratio(times, "pipeline 1080p", "bare engine"),
    }


def heads(images: Images, seconds: float, precision: str) -> dict[str, Any]:
    """What three heads cost over the backbone with the classifier alone."""
    names = models.SPECS if precision == "float32" else ("three_heads", "classifier_alone")
    ready = {name: models.ready(name, precision, images) for name in names}
    loaded = {name: create_engine(b, precision=computed) for name, (b, computed) in ready.items()}
    batch = inputs.network_batch(ready["three_heads"][0], images[:1])
    times = side_by_side({n: lambda e=e: e.run(batch) for n, e in loaded.items()}, seconds)
    label = loaded["three_heads"]
    return {
        "engine": f"{label.name} {label.device} {precision}",
        "times": times,
        "three_heads_over_one": ratio(times, "three_heads", "classifier_alone"),
    }
