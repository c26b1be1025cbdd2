"""Metrics and the evaluation of recordings. Needs no ROS."""
