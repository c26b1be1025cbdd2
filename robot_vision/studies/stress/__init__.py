"""What a model is worth where the camera's images get worse: `robot-vision stress`."""
