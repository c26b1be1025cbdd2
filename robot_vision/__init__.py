"""Camera images in; class probabilities, place descriptors and camera poses out.

Three names are imported from here: `Pipeline.load(path)(image)`, `PlaceMap.open(path).query(descriptor)` and
`evaluate(bag, model)`. Each loads what it needs when it is first asked for.

The core (errors, geometry, images, spec, bundle, predictions, engines, pipeline) needs neither torch nor
ROS; `robot_vision.networks` and `robot_vision.training` need torch, `robot_vision.ros` needs rclpy.
"""

import importlib as _importlib
import os as _os
import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from robot_vision.evaluation.evaluate import evaluate
    from robot_vision.pipeline import Pipeline
    from robot_vision.places.place_map import PlaceMap

# A robot's runtime talks to nobody without being asked, so each library that reports to its maker is silenced
# before it is loaded: the one side effect of importing this package. A choice of your own stays.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime's official builds
_os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# OpenVINO has no switch: importing it sends an event and writes ~/intel. Without this module it uses a stub.
_sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"

__all__ = ["Pipeline", "PlaceMap", "evaluate"]
_HOMES = {
    "Pipeline": "robot_vision.pipeline",
    "PlaceMap": "robot_vision.places.place_map",
    "evaluate": "robot_vision.evaluation.evaluate",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first asked for, so that importing the package stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
