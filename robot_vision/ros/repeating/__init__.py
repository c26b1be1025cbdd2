"""The repeat node: where the robot is in, commands along a taught route out."""
