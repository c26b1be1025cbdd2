"""Camera images in; class probabilities, place descriptors and camera poses out.

The core (errors, geometry, images, spec, bundle, predictions, engines, pipeline) needs neither torch nor
ROS; `robot_vision.networks` and `robot_vision.training` need torch, `robot_vision.ros` needs rclpy.
"""

import os as _os

# ONNX Runtime's official builds report to their maker unless they are told not to before they are loaded. A
# robot's runtime talks to nobody without being asked. The one side effect of importing this package.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
