"""Starts a simulated robot, which drives by cmd_vel; with a model also what drives it by its camera.

    ros2 launch robot_vision drive.launch.py world_seed:=3
    ros2 launch robot_vision drive.launch.py model:=my_model law:=free_distance gate:=obstacle
    ros2 launch robot_vision drive.launch.py --show-args

Defaults stand in config/simulation.yaml alone: an argument that is empty was not given. A robot that a model
drives is in lock-step unless `lockstep` says otherwise. Its driver has the robot's limits as the arguments
give them; limits that stand in a params_file of your own are the simulator's alone.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from robot_vision.ros.node.launch_arguments import (
    LARGE_IMAGES,
    common_texts,
    declared,
    environment,
    given_parameters,
    node_keywords,
)
from robot_vision.ros.simulation.parameters import SimulatorParameters
from robot_vision.simulation.nodes import (
    NEAR,
    PERCEPTION,
    STEERING,
    WAYS_TO_DRIVE,
    driver_parameters,
    perception_parameters,
)

# Next to this file, in a source tree as in share/robot_vision.
CONFIG = Path(__file__).absolute().parents[1] / "config"
PARAMS_FILE = str(CONFIG / "simulation.yaml")
PLAIN = {
    "name": ("simulator", "Name of the simulator node; its events appear under it."),
    "namespace": ("", "Namespace of the nodes and of relative topics. Default: none."),
    "params_file": (PARAMS_FILE, "YAML file with the simulator's parameters."),
    "model": (
        "",
        "Model bundle with a steering head that drives by the camera: a directory, or the name of one of the "
        "installed models. Default: none, and somebody else sends commands.",
    ),
    "law": ("dronet", f"How the model drives: one of {', '.join(WAYS_TO_DRIVE)}; docs/driving.md."),
    "gate": (
        "",
        "Rules of a gate behind the driver: a YAML file, or the name of an installed one, obstacle or "
        "collision. Default: no gate.",
    ),
    **common_texts("simulator"),
    "large_images": LARGE_IMAGES,
}


def drivers(given, values):
    """Returns what drives the robot, and says where nothing does."""
    if not given("model"):
        if given("gate"):
            return [LogInfo(msg="gate is left out: it needs a model whose answers its rules read")]
        return [LogInfo(msg="No model is given: the robot waits for commands on cmd_vel")]
    # Only now: the simulator alone needs none of it.
    from robot_vision.bundle.bundle import answered_topics
    from robot_vision.bundle.installed import find_model
    from robot_vision.errors import ConfigError, unknown
    from robot_vision.gate.installed import rules_path

    path = find_model(given("model"))
    topics = answered_topics(path)
    if STEERING.rpartition("/")[2] not in topics:
        return [
            LogInfo(msg=f"{path} has no steering head: the robot waits for commands on cmd_vel")
        ]
    if given("law") not in WAYS_TO_DRIVE:
        raise ConfigError(unknown("law", given("law"), WAYS_TO_DRIVE))
    law, by_distance = WAYS_TO_DRIVE[given("law")]
    if by_distance and NEAR.rpartition("/")[2] not in topics:
        raise ConfigError(f"law is {given('law')}, and {path} has no depth head: use law:=dronet")
    robot = SimulatorParameters(**values).robot()
    values.setdefault("lockstep", True)
    values.setdefault("lockstep_timeout_s", 30.0)  # for perception to load the model
    commands = [("cmd_vel", "cmd_vel_in")] if given("gate") else []

    def of(name, config):
        own = {"name": name, "params_file": str(CONFIG / f"{config}.yaml"), "enclave": ""}
        return lambda argument: own[argument] if argument in own else given(argument)

    driver = driver_parameters(robot, law, by_distance)
    perception = {"model": str(path), **perception_parameters(robot)}
    found = [
        Node(**node_keywords("perception_node", of(PERCEPTION, "perception"), perception)),
        Node(**node_keywords("driver_node", of("driver", "driving"), driver), remappings=commands),
    ]
    if given("gate"):
        gate = {"rules": str(rules_path(given("gate"))), "use_sim_time": True}
        found.append(Node(**node_keywords("gate_node", of("gate", "gate"), gate)))
    return found


def launch_setup(context):
    """Returns the actions for the arguments as they were given."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    values = given_parameters(SimulatorParameters, given)
    others = drivers(given, values)
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment(given).items()),
        *others,
        Node(**node_keywords("simulator_node", given, values)),
    ]


def generate_launch_description():
    """Returns the declared arguments and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in declared(PLAIN, SimulatorParameters).items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_setup)])
