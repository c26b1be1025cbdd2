"""Starts the perception node.

    ros2 launch robot_vision perception.launch.py model:=demo cameras:=front,rear
    ros2 launch robot_vision perception.launch.py --show-args

Defaults stand in config/perception.yaml alone: an argument that is empty was not given.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.node.launch_arguments import (
    LARGE_IMAGES,
    common_texts,
    declared,
    environment,
    given_parameters,
    node_keywords,
)
from robot_vision.ros.perception.parameters import PerceptionParameters

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "perception.yaml")
PLAIN = {
    "name": ("perception", "Name of the node; results appear under it."),
    "namespace": ("", "Namespace of the node and of relative image topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    **common_texts("perception"),
    "large_images": LARGE_IMAGES,
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(PerceptionParameters, given)
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment(given).items()),
        Node(**node_keywords("perception_node", given, values)),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, PerceptionParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
