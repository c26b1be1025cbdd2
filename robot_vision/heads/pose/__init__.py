"""Where the camera is: PoseNet, with its covariance."""

from robot_vision.heads.pose.head import HEAD

__all__ = ["HEAD"]
