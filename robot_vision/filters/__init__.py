"""Filters over time: class probabilities (`class_filter`) and the robot's pose (`pose_filter`).

NumPy alone: neither ROS nor torch, so that what runs in the node is what a recording is filtered with.
"""
