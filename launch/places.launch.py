"""Starts the place node, alone or in one process with the perception node, the filter node or both.

    ros2 launch robot_vision places.launch.py map:=/maps/home.map pose_source:=odometry base_frame:=base_link
    ros2 launch robot_vision places.launch.py map:=/maps/home.map with_perception:=true model:=demo
    ros2 launch robot_vision places.launch.py map:=/maps/home.map with_perception:=true with_filters:=true
    ros2 launch robot_vision places.launch.py --show-args

Defaults stand in config/places.yaml (config/perception.yaml, config/filters.yaml) alone: an argument
that is empty was not given.
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
    node_arguments,
    node_keywords,
    process_arguments,
    program,
    supervision,
)
from robot_vision.ros.places.parameters import PlaceParameters

# Next to this file, in a source tree as in share/robot_vision.
CONFIG = Path(__file__).absolute().parents[1] / "config"
PLAIN = {
    "name": ("places", "Name of the place node; results appear under it."),
    "namespace": ("", "Namespace of the nodes and of relative topics. Default: none."),
    "params_file": (str(CONFIG / "places.yaml"), "YAML file with the place node's parameters."),
    "with_perception": ("false", "true runs the perception node too, in the same process."),
    "perception_name": ("perception", "Name of the perception node that with_perception starts."),
    "perception_params_file": (
        str(CONFIG / "perception.yaml"),
        "YAML file with the parameters of the perception node that with_perception starts; "
        "the arguments model and autostart replace its own.",
    ),
    "with_filters": ("false", "true runs the filter node too, in the same process."),
    "filters_name": ("filters", "Name of the filter node that with_filters starts."),
    "filters_params_file": (
        str(CONFIG / "filters.yaml"),
        "YAML file with the parameters of the filter node that with_filters starts; the argument autostart "
        "replaces its own.",
    ),
    **common_texts("places", "process"),
    "large_images": LARGE_IMAGES,
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(PlaceParameters, given)
    keywords = node_keywords("place_node", given, values)
    others = [n for n in ("perception", "filters") if given(f"with_{n}").lower() == "true"]
    if others:
        # Names, files and parameters are those of one node each.
        what, arguments = program("composed_nodes")
        namespace = given("namespace")
        arguments += ["--ros-args", *process_arguments(given), "--places"]
        arguments += node_arguments(given("name"), namespace, given("params_file"), values)
        for node in others:
            shared = ["use_sim_time", "autostart", *(["model"] if node == "perception" else [])]
            own = {key: values[key] for key in shared if key in values}
            file = given(f"{node}_params_file")
            arguments += [f"--{node}", *node_arguments(given(f"{node}_name"), namespace, file, own)]
        keywords = {**what, **supervision(given), "arguments": arguments}
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment(given).items()),
        Node(**keywords),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, PlaceParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
