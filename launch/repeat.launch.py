"""Repeats a taught route by sight: perception, places and filters in one process, and the repeat node.

    ros2 launch robot_vision repeat.launch.py route:=$PWD/route model:=demo
    ros2 launch robot_vision repeat.launch.py route:=$PWD/route model:=demo reflex:=none
    ros2 launch robot_vision repeat.launch.py --show-args

Defaults stand in config/repeating.yaml alone: an argument that is empty was not given.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.driving.route import read_route
from robot_vision.errors import ConfigError
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
from robot_vision.ros.repeating.parameters import RepeatParameters, localising_parameters

# Next to this file, in a source tree as in share/robot_vision.
CONFIG = Path(__file__).absolute().parents[1] / "config"
PLAIN = {
    "name": ("repeat", "Name of the repeat node; its reason and progress appear under it."),
    "namespace": ("", "Namespace of the nodes and of relative topics. Default: none."),
    "params_file": (str(CONFIG / "repeating.yaml"), "YAML file with the repeat node's parameters."),
    "model": ("demo", "Model bundle that made the route's map: a directory, or an installed one."),
    "reflex": (
        "",
        "Model bundle with a steering head, whose probability of a collision slows and stops the robot; none "
        "for none. Default: the one that the route was taught with, unless its topic is given or the robot "
        "drives backwards without rear_image_topic.",
    ),
    "image_topic": ("camera/image_raw", "Topic of the camera's images."),
    "rear_image_topic": (
        "",
        "Topic of the images of a camera that looks back, by which the reflex sees when the robot drives "
        "backwards. Default: none.",
    ),
    "odometry_topic": ("odom", "Topic of the odometry, nav_msgs/Odometry."),
    "verify_rate_hz": ("5.0", "Largest rate at which images are compared with the map, in Hz."),
    **common_texts("repeat"),
    "large_images": LARGE_IMAGES,
}


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(RepeatParameters, given)
    where = Path(given("route")).expanduser()
    route = read_route(where)
    folder = where if where.is_dir() else where.parent
    namespace, images = given("namespace"), given("image_topic")
    shared = {key: values[key] for key in ("use_sim_time", "autostart") if key in values}
    rate_hz = float(given("verify_rate_hz"))
    nodes = localising_parameters(
        route, folder, given("model"), images, given("odometry_topic"), rate_hz
    )
    what, arguments = program("composed_nodes")
    arguments += ["--ros-args", *process_arguments(given)]
    for name, own in nodes.items():
        file = str(CONFIG / f"{name}.yaml")
        arguments += [f"--{name}", *node_arguments(name, namespace, file, own | shared)]
    found = [Node(**what, **supervision(given), arguments=arguments)]
    back, rear = values.get("backwards"), given("rear_image_topic")
    name, topic = ("rear", "rear_collision_topic") if back else ("camera", "collision_topic")
    if rear and not back:
        found.append(LogInfo(msg="rear_image_topic is not used: backwards is false"))
    reads_another = values.get(topic) or (back and not rear)
    model = given("reflex") or ("" if reads_another else route.reflex)
    if model and model != "none":
        if back and not rear:
            raise ConfigError("reflex is given and backwards true: give rear_image_topic, too")
        values.setdefault(topic, f"reflex/{name}/collision")
        own = {"name": "reflex", "params_file": str(CONFIG / "perception.yaml"), "enclave": ""}
        reflex = {"model": model, "cameras": [name], **shared}
        reflex["image_topics"] = [rear if back else images]

        def of(argument):
            return own[argument] if argument in own else given(argument)

        found.append(Node(**node_keywords("perception_node", of, reflex)))
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment(given).items()),
        *found,
        Node(**node_keywords("repeat_node", given, values)),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, RepeatParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
