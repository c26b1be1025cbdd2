"""Starts the place node, or the perception node and the place node in one process.

    ros2 launch robot_vision places.launch.py map:=/maps/home.map pose_source:=odometry base_frame:=base_link
    ros2 launch robot_vision places.launch.py map:=/maps/home.map with_perception:=true model:=demo
    ros2 launch robot_vision places.launch.py --show-args

Defaults stand in config/places.yaml (and config/perception.yaml) alone: an argument that is left empty
overrides nothing.
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
    node_arguments,
    parameter_sources,
    process_arguments,
    program,
)
from robot_vision.ros.places.parameters import PlaceParameters

# Next to this file, in a source tree as in share/robot_vision.
CONFIG = Path(__file__).absolute().parents[1] / "config"
PLAIN = {
    "name": ("places", "Name of the place node; results appear under it."),
    "namespace": ("", "Namespace of the nodes and of relative topics."),
    "params_file": (str(CONFIG / "places.yaml"), "YAML file with the place node's parameters."),
    "with_perception": ("false", "true runs the perception node too, in the same process."),
    "perception_name": ("perception", "Name of the perception node that with_perception starts."),
    "perception_params_file": (
        str(CONFIG / "perception.yaml"),
        "YAML file with the parameters of the perception node that with_perception starts; "
        "the argument model replaces its model.",
    ),
    "use_sim_time": ("", "true takes the time from /clock. Empty: as in params_file."),
    "enclave": (
        "",
        "SROS 2 enclave of the process, such as /places; see docs/security.md. Empty: none.",
    ),
    "log_level": (
        "info",
        "Lowest level of the messages that are logged: debug, info, warn, error or fatal.",
    ),
    "respawn": ("false", "true restarts the process if it dies."),
    "large_images": (
        "true",
        "true lets Fast DDS carry large images; false leaves its settings alone.",
    ),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(PlaceParameters, given)
    actions = []
    if given("large_images").lower() == "true":
        environment = large_image_environment(os.environ)
        actions = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    composed = given("with_perception").lower() == "true"
    what, arguments = program("perception_and_places" if composed else "place_node")
    if composed:
        # Names, files and parameters are those of one node each.
        namespace = given("namespace")
        perception = {key: values[key] for key in ("model", "use_sim_time") if key in values}
        file = given("perception_params_file")
        named = {}
        arguments += ["--ros-args", *process_arguments(given), "--perception"]
        arguments += node_arguments(given("perception_name"), namespace, file, perception)
        arguments += ["--places"]
        arguments += node_arguments(given("name"), namespace, given("params_file"), values)
    else:
        named = {
            "name": given("name"),
            "namespace": given("namespace"),
            "parameters": parameter_sources(given("params_file"), values),
            "ros_arguments": process_arguments(given),
        }
    node = Node(
        **what,
        **named,
        arguments=arguments,
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
        for name, text in argument_texts(PlaceParameters).items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
