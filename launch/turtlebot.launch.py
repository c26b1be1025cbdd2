"""Starts perception, places and filters in one process, for a robot with two cameras.

    ros2 launch robot_vision turtlebot.launch.py namespace:=robot1 model:=/models/home map:=/maps/home.map
    ros2 launch robot_vision turtlebot.launch.py --show-args

An example to copy. In config/turtlebot: cameras, frames (robot_vision.yaml), what Nav2 takes from the nodes
(nav2.yaml), a systemd unit (robot_vision.service).
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from robot_vision.ros.node.launch_arguments import LOG_LEVEL

HERE = Path(__file__).absolute().parent
PARAMS_FILE = str(HERE.parent / "config" / "turtlebot" / "robot_vision.yaml")
ARGUMENTS = {
    "model": ("demo", "Model bundle: a directory, or the name of one of the installed models."),
    "map": ("", "Place map: a file or a server's address. Default: none."),
    "namespace": ("", "Namespace of the robot. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the parameters of all three nodes."),
    "autostart": ("true", "false leaves starting the nodes to a lifecycle manager."),
    "use_sim_time": ("false", "true takes the time from /clock."),
    "respawn": ("true", "true restarts a process that dies."),
    "log_level": LOG_LEVEL,
}


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    files = ("params_file", "perception_params_file", "filters_params_file")
    arguments = {
        **{name: given[name] for name in given if name != "params_file"},
        **dict.fromkeys(files, given["params_file"]),
        "with_perception": "true",
        "with_filters": "true",
    }
    source = PythonLaunchDescriptionSource(str(HERE / "places.launch.py"))
    included = IncludeLaunchDescription(source, launch_arguments=arguments.items())
    return LaunchDescription([*declared, included])
