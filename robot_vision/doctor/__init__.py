"""Checks of a machine for `robot-vision doctor`; those of ROS and its graph are in `ros/graph_checks.py`."""
