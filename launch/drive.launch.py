"""Starts a simulated robot, which drives by cmd_vel.

    ros2 launch robot_vision drive.launch.py world_seed:=3
    ros2 launch robot_vision drive.launch.py --show-args

Defaults stand in config/simulation.yaml alone: an argument that is empty was not given.
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
from robot_vision.ros.simulation.parameters import SimulatorParameters

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "simulation.yaml")
PLAIN = {
    "name": ("simulator", "Name of the simulator node; its events appear under it."),
    "namespace": ("", "Namespace of the node and of relative topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    **common_texts("simulator"),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(SimulatorParameters, given)
    return [Node(**node_keywords("simulator_node", given, values))]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, SimulatorParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
