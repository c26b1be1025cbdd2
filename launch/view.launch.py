"""Starts the viewer node: what the robot sees and says, on a web page.

    ros2 launch robot_vision view.launch.py map:=house.map
    ros2 launch robot_vision view.launch.py --show-args

Defaults stand in config/viewer.yaml alone: an argument that is left empty overrides nothing.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.node.launch_arguments import (
    common_texts,
    declared,
    given_parameters,
    node_keywords,
)
from robot_vision.ros.viewer.parameters import ViewerParameters

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "viewer.yaml")
PLAIN = {
    "name": ("viewer", "Name of the node."),
    "namespace": ("", "Namespace of the node. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    **common_texts("viewer"),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(ViewerParameters, given)
    return [Node(**node_keywords("viewer_node", given, values))]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, ViewerParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
