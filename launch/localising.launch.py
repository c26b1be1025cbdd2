"""Starts the localiser node next to running perception and place nodes.

    ros2 launch robot_vision localising.launch.py map:=/maps/home.map drive_m:=0.0
    ros2 launch robot_vision localising.launch.py --show-args

Defaults stand in config/localising.yaml alone: an argument that is empty was not given.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.node.launch_arguments import (
    common_texts,
    declared,
    given_parameters,
    node_keywords,
)

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "localising.yaml")
PLAIN = {
    "name": ("localiser", "Name of the node; its service appears under it."),
    "namespace": ("", "Namespace of the node and of relative topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    "commands_out": ("cmd_vel", "Topic of its commands, such as cmd_vel_in before the gate."),
    **common_texts("localiser"),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(LocaliserParameters, given)
    topics = [("cmd_vel", given("commands_out"))]
    return [Node(**node_keywords("localiser_node", given, values), remappings=topics)]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, LocaliserParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
