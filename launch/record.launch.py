"""Records what the perception node publishes, for `robot-vision evaluate --predictions`.

    ros2 launch robot_vision record.launch.py output:=/tmp/results bag:=/path/to/recording

With `bag` it plays that recording with `ros2 bag play` and ends when it ends; without, it records until
Ctrl-C what the robot's own node publishes. Start the node as well (perception.launch.py) with
`top_k:=` the number of classes, so that probabilities are recorded whole.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration

from robot_vision.ros.perception.recorded_topics import play_command, record_command

ARGUMENTS = {
    "output": (
        None,
        "Directory of the rosbag2 to write; it must not exist yet.",
    ),  # has to be given
    "node": ("/perception", "Name of the perception node, with its namespace."),
    "bag": ("", "Bag to play while recording. Default: none."),
    "rate": (
        "1.0",
        "Factor on the speed at which the bag is played; take less than 1 if frames are dropped.",
    ),
    "delay_s": (
        "3.0",
        "Time to wait before playing, until all nodes have discovered each other, in seconds.",
    ),
    "storage": ("mcap", "Storage format of the bag: mcap or sqlite3."),
    "extra_topics": (
        "",
        "More topics to record, separated by commas, such as true poses. Default: none.",
    ),
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    extra = [t.strip() for t in given("extra_topics").split(",") if t.strip()]
    record = ExecuteProcess(
        cmd=record_command(given("output"), given("node"), given("storage"), extra),
        output="screen",
    )
    if not given("bag"):
        return [record]
    play = ExecuteProcess(cmd=play_command(given("bag"), float(given("rate"))), output="screen")
    failed = EmitEvent(event=Shutdown(reason="the recorder has ended, see what it said above"))
    # The last results are still on their way when the last image was played.
    end = TimerAction(period=2.0, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))])
    return [
        record,
        TimerAction(period=float(given("delay_s")), actions=[play]),
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=[end])),
        # Nobody shall watch a bag to its end and find that nothing was recorded.
        RegisterEventHandler(OnProcessExit(target_action=record, on_exit=[failed])),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
