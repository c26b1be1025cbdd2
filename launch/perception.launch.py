"""Starts the perception node.

    ros2 launch robot_vision perception.launch.py model:=demo cameras:=front,rear
    ros2 launch robot_vision perception.launch.py --show-args

Defaults stand in config/perception.yaml alone: an argument that is left empty overrides nothing.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.node.dds import large_image_environment
from robot_vision.ros.node.launch_arguments import (
    argument_texts,
    given_parameters,
    parameter_sources,
    process_arguments,
    program,
)
from robot_vision.ros.perception.parameters import PerceptionParameters

# Next to this file, in a source tree as in share/robot_vision.
PARAMS_FILE = str(Path(__file__).absolute().parents[1] / "config" / "perception.yaml")
PLAIN = {
    "name": ("perception", "Name of the node; results appear under it."),
    "namespace": ("", "Namespace of the node and of relative image topics."),
    "params_file": (PARAMS_FILE, "YAML file with the node's parameters."),
    "use_sim_time": ("", "true takes the time from /clock. Empty: as in params_file."),
    "log_level": (
        "info",
        "Lowest level of the messages that are logged: debug, info, warn, error or fatal.",
    ),
    "enclave": (
        "",
        "SROS 2 enclave of the node, such as /perception; see docs/security.md. Empty: none.",
    ),
    "respawn": ("false", "true restarts the node if its process dies."),
    "large_images": (
        "true",
        "true lets Fast DDS carry large images; false leaves its settings alone.",
    ),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(PerceptionParameters, given)
    actions = []
    if given("large_images").lower() == "true":
        environment = large_image_environment(os.environ)
        actions = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    what, module = program("perception_node")
    node = Node(
        **what,
        name=given("name"),
        namespace=given("namespace"),
        parameters=parameter_sources(given("params_file"), values),
        arguments=module,
        ros_arguments=process_arguments(given),
        output="screen",
        emulate_tty=True,
        respawn=given("respawn").lower() == "true",
        respawn_delay=2.0,
    )
    return [*actions, node]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in PLAIN.items()
    ]
    declared += [
        DeclareLaunchArgument(name, default_value="", description=text)
        for name, text in argument_texts(PerceptionParameters).items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
