"""Starts the safety gate between the driver and the robot's base.

    ros2 launch robot_vision gate.launch.py rules:=rules.yaml commands_in:=/cmd_vel_smoothed
    ros2 launch robot_vision gate.launch.py --show-args

Defaults stand in config/gate.yaml alone: an argument that is empty was not given.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.launch_arguments import (
    common_texts,
    declared,
    given_parameters,
    node_keywords,
)

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "gate.yaml")
PLAIN = {
    "name": ("gate", "Name of the node; its reason appears under it."),
    "namespace": ("", "Namespace of the node and of relative topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    "commands_in": ("cmd_vel_in", "Topic of the commands to let through."),
    "commands_out": ("cmd_vel", "Topic of the commands that the robot's base takes."),
    **common_texts("gate"),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(GateParameters, given)
    topics = [("cmd_vel_in", given("commands_in")), ("cmd_vel", given("commands_out"))]
    return [Node(**node_keywords("gate_node", given, values), remappings=topics)]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, GateParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
