"""Plays a recording as camera topics to the perception node.

    ros2 launch robot_vision demo.launch.py source:=drive.mcap
    ros2 launch robot_vision demo.launch.py source:=frames/ model:=my_model rate_hz:=10 loop:=false

Watch the results with RViz (config/perception.rviz) or `ros2 topic echo /perception/camera/classification`.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.node.dds import large_image_environment
from robot_vision.ros.node.launch_arguments import LOG_LEVEL, argument_texts, overrides, program
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.ros.player.parameters import PlayerParameters

HERE = Path(__file__).absolute().parent
PLAYER = ("source", "stamps", "rate_hz", "speed", "start_s", "duration_s", "loop", "clock_hz")
PERCEPTION = ("engine", "device", "always_infer", "publish_tf")
PLAIN = {
    "model": ("demo", "Model bundle: a directory, or the name of one of the installed models."),
    "namespace": ("", "Namespace of both nodes. Default: none."),
    "log_level": LOG_LEVEL,
    "topics": ("", "Image topic to play, if the bag has several. Default: the only one."),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    player = overrides(PlayerParameters, {name: given(name) for name in PLAYER})
    # One topic in, one camera out: the perception node listens to camera/image_raw in its namespace.
    player.update(transport="raw", output_topics=["camera/image_raw"], wait_for_subscribers=1)
    if given("topics"):
        player["topics"] = [given("topics")]
    sim_time = player.get("clock_hz", 0.0) > 0
    what, module = program("camera_player")
    environment = large_image_environment(os.environ)
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(HERE / "perception.launch.py")),
            launch_arguments={
                "model": given("model"),
                "namespace": given("namespace"),
                "log_level": given("log_level"),
                "use_sim_time": "true" if sim_time else "",
                **{name: given(name) for name in PERCEPTION},
            }.items(),
        ),
        Node(
            **what,
            name="camera_player",
            namespace=given("namespace"),
            parameters=[player],
            arguments=module,
            ros_arguments=["--log-level", given("log_level")],
            output="screen",
            emulate_tty=True,
            on_exit=Shutdown(reason="the recording has been played"),
        ),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    texts = {
        **{name: argument_texts(PlayerParameters, False)[name] for name in PLAYER},
        **{name: argument_texts(PerceptionParameters, False)[name] for name in PERCEPTION},
    }
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in PLAIN.items()
    ]
    source = texts.pop("source").partition(" Default:")[0]
    declared.append(DeclareLaunchArgument("source", description=source))  # it has to be given
    for name, text in texts.items():
        declared.append(DeclareLaunchArgument(name, default_value="", description=text))
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
