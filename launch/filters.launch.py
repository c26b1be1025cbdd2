"""Starts the filter node next to a running perception node.

    ros2 launch robot_vision filters.launch.py cameras:=front base_frame:=base_link odometry_topic:=/odom
    ros2 launch robot_vision filters.launch.py --show-args

Defaults stand in config/filters.yaml alone: an argument that is empty was not given.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.node.launch_arguments import (
    common_texts,
    declared,
    given_parameters,
    node_keywords,
)

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "filters.yaml")
PLAIN = {
    "name": ("filters", "Name of the node; results appear under it."),
    "namespace": ("", "Namespace of the node and of relative topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    **common_texts("filters"),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(FilterParameters, given)
    return [Node(**node_keywords("filter_node", given, values))]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, FilterParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
