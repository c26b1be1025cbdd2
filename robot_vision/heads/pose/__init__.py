"""Where the camera is: PoseNet, with its covariance."""
