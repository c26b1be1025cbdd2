"""Camera images in; class probabilities, place descriptors and camera poses out.

The core (errors, geometry, images, spec, bundle, predictions, engines, pipeline) needs neither torch nor
ROS; `robot_vision.networks` and `robot_vision.training` need torch, `robot_vision.ros` needs rclpy.
"""

import os as _os
import sys as _sys

# A robot's runtime talks to nobody without being asked, so each library that reports to its maker is silenced
# before it is loaded: the one side effect of importing this package. A choice of your own stays.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime's official builds
_os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# OpenVINO has no switch: importing it sends an event and writes ~/intel. Without this module it uses a stub.
_sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
