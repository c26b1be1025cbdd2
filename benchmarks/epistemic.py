"""What several answers of the heads cost over one: dropout passes and an ensemble, in turns in one run."""

from __future__ import annotations

from typing import Any

from benchmarks import inputs, models
from benchmarks.stages import Images
from benchmarks.timing import ratio, side_by_side
from robot_vision.engines import create_engine
from robot_vision.errors import EngineError

ONE, PASSES, ENSEMBLE = "one answer", "8 passes of Monte Carlo dropout", "ensemble of 4 heads"
NAMES = {
    ONE: "three_heads_dropout",
    PASSES: "three_heads_8_passes",
    ENSEMBLE: "three_heads_ensemble_of_4",
}


def cost(images: Images, seconds: float) -> dict[str, Any]:
    """The same network with one answer, 8 passes and 4 members; batch 1, float32, on each CPU engine."""
    bundles = {label: models.bundle(name, images) for label, name in NAMES.items()}
    batch = inputs.network_batch(bundles[ONE], images[:1])
    results: dict[str, Any] = {}
    for name in ("onnx", "openvino"):
        try:
            loaded = {
                label: create_engine(bundle, name, "cpu", "float32")
                for label, bundle in bundles.items()
            }
        except EngineError as error:
            results[name] = {"left_out": str(error)}
            continue
        times = side_by_side({n: lambda e=e: e.run(batch) for n, e in loaded.items()}, seconds)
        for engine in loaded.values():
            engine.close()
        results[name] = {
            "times": times,
            "passes_over_one": ratio(times, PASSES, ONE),
            "ensemble_over_one": ratio(times, ENSEMBLE, ONE),
        }
    return results
