"""Camera images in; class probabilities, place descriptors and camera poses out.

The core (errors, geometry, images, spec, bundle, predictions, engines, pipeline) needs neither torch nor
ROS; `robot_vision.networks` and `robot_vision.training` need torch, `robot_vision.ros` needs rclpy.
"""

__version__ = "0.1.0"
