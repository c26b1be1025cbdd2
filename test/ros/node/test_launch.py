"""Launch files: their arguments, and that what they start also starts as plain processes."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ros_helpers import own_environment

from robot_vision.bundle.installed import package_executable
from robot_vision.errors import ConfigError
from robot_vision.ros.node.dds import (
    PROFILES_FILE,
    PROFILES_FILE_V2,
    find_profile,
    large_image_environment,
)
from robot_vision.ros.node.launch_arguments import (
    argument_texts,
    given_parameters,
    node_arguments,
    overrides,
    parameter_sources,
    program,
)
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.settings.parameters import settings

ROOT = Path(__file__).resolve().parents[3]
LAUNCH_FILES = [
    ROOT / "launch" / name
    for name in (
        "perception.launch.py",
        "places.launch.py",
        "filters.launch.py",
        "gate.launch.py",
        "localising.launch.py",
        "demo.launch.py",
        "drive.launch.py",
        "repeat.launch.py",
        "view.launch.py",
        "record.launch.py",
        "turtlebot.launch.py",
    )
]
HAS_LAUNCH = importlib.util.find_spec("launch") and importlib.util.find_spec("launch_ros")
needs_launch = pytest.mark.skipif(
    not HAS_LAUNCH,
    reason="launch and launch_ros are not there: they come with an installed ROS 2 only",
)


# What launch arguments become


def test_empty_arguments_override_nothing() -> None:
    assert (
        overrides(PerceptionParameters, dict.fromkeys(argument_texts(PerceptionParameters), ""))
        == {}
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model", "123", "123"),
        ("cameras", "front,rear", ["front", "rear"]),
        ("cameras", "[front, rear]", ["front", "rear"]),
        ("cameras", "on, null,1", ["on", "null", "1"]),
        ("cameras", "[front, rear,]", ["front", "rear"]),
        ("cameras", "front, rear, ", ["front", "rear"]),
        ("image_topics", "['']", [""]),
        ("image_topics", "['', \"/b\"]", ["", "/b"]),
        ("image_topics", "/a/image_raw", ["/a/image_raw"]),
        ("camera_to_base", "0,0,1.5,0,0,3.1", [0.0, 0.0, 1.5, 0.0, 0.0, 3.1]),
        ("camera_to_base", "0 0 1.5  0 0 -3.1", [0.0, 0.0, 1.5, 0.0, 0.0, -3.1]),
        ("camera_to_base", "[1e-3, 0, 0, 0, 0, 0]", [0.001, 0, 0, 0, 0, 0]),
        ("max_rate_hz", "10", 10.0),
        ("max_rate_hz", "1e2", 100.0),
        ("top_k", " 5 ", 5),
        ("publish_tf", "true", True),
        ("unknown_threshold", "-.inf", float("-inf")),
    ],
)
def test_arguments_become_typed_overrides(name: str, text: str, value: Any) -> None:
    got = overrides(PerceptionParameters, {name: text})
    assert got == {name: value} and type(got[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("top_k", "0"),
        ("top_k", "many"),
        ("engine", "caffe"),
        ("camera_to_base", "[1, 2"),
        ("cameras", "["),
    ],
)
def test_bad_arguments_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name):
        overrides(PerceptionParameters, {name: text})


def test_every_parameter_has_a_described_argument() -> None:
    texts = argument_texts(PerceptionParameters)
    assert all(len(text) > 20 and "\n" not in text for text in texts.values())


def test_descriptions_end_with_the_default_as_it_is_typed() -> None:
    texts = argument_texts(PerceptionParameters)
    defaults = {s.name: s.default for s in settings(PerceptionParameters)}
    for name, text in texts.items():
        shown = re.search(r"Default: (\S+), unless params_file says otherwise\.$", text)
        assert shown, text
        typed = "" if shown[1] == "empty" else shown[1]
        value = overrides(PerceptionParameters, {name: typed}).get(name, ())
        default = defaults[name]
        default = list(default) if isinstance(default, tuple) else default
        same = repr(value) == repr(default)  # NaN is no equal of itself
        assert same or (not typed and default in ("", [], [""])), name
    alone = argument_texts(PerceptionParameters, of_file=False)
    assert alone["cameras"].endswith(" Default: camera.")


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_an_argument_that_defaults_to_empty_says_what_holds_then(path: Path) -> None:
    """Read from the file's tables of arguments, since `launch` may not be there."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(value, ast.Tuple) and isinstance(key, ast.Constant):
                    default, text = (ast.unparse(part) for part in value.elts)
                    assert ("Default: " in text) == (default == "''"), key.value
                    assert "Empty" not in text, key.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", {}), ("true", {"use_sim_time": True}), ("no", {"use_sim_time": False})],
)
def test_simulated_time_is_given_on_only_where_it_was_given(text: str, expected: dict) -> None:
    typed = {"use_sim_time": text, "top_k": "5", "name": "eyes"}
    values = given_parameters(PerceptionParameters, lambda name: typed.get(name, ""))
    assert values == {"top_k": 5, **expected}
    assert parameter_sources("/p.yaml", values) == ["/p.yaml", values]
    assert parameter_sources("/p.yaml", {}) == ["/p.yaml"]


def test_program_is_the_installed_one_or_else_a_module_of_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    names = ("perception_node", "place_node", "composed_nodes", "filter_node")
    for name in (*names, "camera_player"):
        what, begin = program(name)
        assert what == {"executable": sys.executable} and begin[0] == "-m"
        assert importlib.util.find_spec(begin[1]) is not None
    installed = tmp_path / "lib" / "robot_vision" / "place_node"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert program("place_node") == ({"package": "robot_vision", "executable": "place_node"}, [])


def test_arguments_of_nodes_in_one_process_reach_each_as_they_were_typed() -> None:
    pytest.importorskip("rclpy")
    from robot_vision.ros.composed_nodes import sections

    values = {"map": "123", "top_k": 7, "camera_to_base": [0.0, 0.5], "verify": True}
    arguments = node_arguments("spots", "/robot1", "/my places.yaml", values)
    everyone, found = sections(
        ["--ros-args", "--log-level", "warn", "--perception", "--ros-args", "-p", "model:=demo"]
        + ["--filters", "--places", *arguments]
    )
    assert everyone == ["--ros-args", "--log-level", "warn"]
    places = found.pop("--places")
    assert found == {"--perception": ["--ros-args", "-p", "model:=demo"], "--filters": []}
    assert places[:5] == ["--ros-args", "-r", "__node:=spots", "-r", "__ns:=/robot1"]
    read = dict(a.split(":=", 1) for a in places if ":=" in a and not a.startswith("__"))
    assert {key: yaml.safe_load(text) for key, text in read.items()} == values


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no node is named"),
        (["--ros-args", "-p", "model:=demo"], "no node is named"),
        (["--places", "--filters", "--places"], "--places is given twice"),
    ],
)
def test_nodes_of_one_process_are_named_once_each(args: list[str], said: str, capsys: Any) -> None:
    pytest.importorskip("rclpy")
    from robot_vision.ros.composed_nodes import main

    assert main(args) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# The DDS profile


def test_profile_is_that_of_the_middleware_and_never_over_the_users_choice() -> None:
    profile = str(find_profile({}))
    assert large_image_environment({"ROS_DISTRO": "kilted"}) == {PROFILES_FILE: profile}
    assert large_image_environment({"ROS_DISTRO": "jazzy"}) == {PROFILES_FILE_V2: profile}
    cyclone = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    assert list(large_image_environment(cyclone)) == ["CYCLONEDDS_URI"]
    assert large_image_environment({**cyclone, "CYCLONEDDS_URI": "file:///my.xml"}) == {}
    assert large_image_environment({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}) == {}
    assert large_image_environment({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}) != {}
    assert large_image_environment({PROFILES_FILE: "/my.xml"}) == {}
    assert large_image_environment({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}) == {}


_LISTEN = """
import time
from robot_vision.ros.node.dds import use_large_image_profile
use_large_image_profile()
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("listener")
got = []
node.create_subscription(Image, "/large", got.append, qos_profile_sensor_data, raw=True)
print("ready", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end and len(got) < 20: rclpy.spin_once(node, timeout_sec=0.1)
print(len(got))
"""
_TALK = """
import array, time
from robot_vision.ros.node.dds import use_large_image_profile
use_large_image_profile()
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("talker")
publisher = node.create_publisher(Image, "/large", 5)
message = Image(height=1080, width=1920, encoding="rgb8", step=5760, data=array.array("B", bytes(6220800)))
while publisher.get_subscription_count() < 1: time.sleep(0.02)
time.sleep(0.3)
for _ in range(40):
    publisher.publish(message)
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.ros
def test_large_images_reach_a_best_effort_subscriber() -> None:
    run = [sys.executable, "-c"]
    with subprocess.Popen(
        [*run, _LISTEN], stdout=subprocess.PIPE, text=True, env=own_environment()
    ) as listener:
        assert listener.stdout is not None
        talker = subprocess.Popen([*run, _TALK], env=own_environment())
        try:
            lines = listener.communicate(timeout=60)[0].split()
        finally:
            talker.kill()
            talker.wait()
    assert lines[0] == "ready" and int(lines[1]) >= 20, "at most half of the images may be lost"


# The launch files


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_launch_file_parses_and_says_how_to_use_it(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert "ros2 launch robot_vision " + path.name in (ast.get_docstring(tree) or "")
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in names


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_launch_file_needs_nothing_that_a_virtual_environment_adds(path: Path) -> None:
    """`ros2 launch` runs under the system's Python, which sees none of these."""
    lines = [
        ast.unparse(node)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robot_vision")
    ]
    absent = ("onnxruntime", "openvino", "rosbags", "faiss", "torch", "cv2", "rich")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n" + "\n".join(lines)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert lines and run.returncode == 0, run.stderr


@pytest.mark.slow
def test_all_results_are_recorded_where_python_has_only_numpy() -> None:
    """A head that cannot be imported has no topics, and nobody would say that they are missing."""
    absent = ("onnxruntime", "openvino", "rosbags", "faiss", "torch", "cv2", "rich")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]))\n"
        "from robot_vision.ros.perception.recorded_topics import topic_pattern\n"
        "print(topic_pattern('/perception'))"
    )
    patterns = [
        subprocess.run(
            [sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT
        ).stdout
        for names in ((), absent)
    ]
    assert "classification" in patterns[0] and patterns[0] == patterns[1]


def _description(path: Path) -> Any:
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    return PythonLaunchDescriptionSource(str(path)).get_launch_description(LaunchContext())


@needs_launch
@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_argument_is_declared_and_described(path: Path) -> None:
    arguments = {a.name: a for a in _description(path).get_launch_arguments()}
    assert all(a.description for a in arguments.values())
    if path.name == "perception.launch.py":
        assert set(argument_texts(PerceptionParameters)) <= set(arguments)
        empty = [a for n, a in arguments.items() if n in argument_texts(PerceptionParameters)]
        assert all("".join(s.text for s in a.default_value) == "" for a in empty)
    # --show-args shows a default itself, but for one that is empty, which the description has to name.
    for name, argument in arguments.items():
        shown = "".join(s.text for s in argument.default_value or ()) or None
        says = argument.description.count("Default: ")
        needed = argument.default_value is not None and shown is None
        assert says == needed, (name, argument.description)


_SERVICE = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *arguments = sys.argv[1:]
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(path), launch_arguments=[tuple(a.split(":=", 1)) for a in arguments])]))
sys.exit(service.run())
"""


@contextlib.contextmanager
def _launched(tmp_path: Path, name: str, *arguments: str) -> Iterator[Any]:
    """Runs a launch file meanwhile, with a client next to it; it has to end well."""
    from ros_helpers import Client

    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVICE, str(ROOT / "launch" / name), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    client = Client()
    try:
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(20)
        finally:
            process.kill()
    assert status == 0, log.read_text()


def _values(client: Any, node: str, *names: str) -> list[Any]:
    """Returns the values of parameters of a running node."""
    from rcl_interfaces.srv import GetParameters
    from rclpy.parameter import parameter_value_to_python

    request = GetParameters.Request(names=names)
    answer = client.call(GetParameters, f"{node}/get_parameters", request)
    return [parameter_value_to_python(value) for value in answer.values]


def _enclaves(client: Any) -> dict[str, str]:
    """Returns the security enclave of each node that is seen, by its full name."""
    found = client.node.get_node_names_and_namespaces_with_enclaves()
    return {f"{space.rstrip('/')}/{name}": enclave for name, space, enclave in found}


@needs_launch
@pytest.mark.ros
def test_perception_launch_brings_the_node_to_active(tmp_path: Path) -> None:
    from ros_helpers import wait_until
    from tiny_bundle import make_tiny_bundle

    arguments = [
        f"model:={make_tiny_bundle(tmp_path / 'b')}",
        "namespace:=robot1",
        "cameras:=front,rear",
    ]
    arguments += ["engine:=onnx", "top_k:=2", "name:=eyes", "use_sim_time:=true"]
    arguments += ["enclave:=/perception"]
    with _launched(tmp_path, "perception.launch.py", *arguments) as client:
        wait_until(lambda: client.state("/robot1/eyes") == "active", 30)
        names = ("top_k", "cameras", "use_sim_time", "stale_after_s")
        assert _values(client, "/robot1/eyes", *names) == [2, ["front", "rear"], True, 2.0]
        assert client.node.count_subscribers("/robot1/front/image_raw") == 1
        assert _enclaves(client)["/robot1/eyes"] == "/perception"


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_places_launch_brings_the_node_to_active(tmp_path: Path) -> None:
    from ros_helpers import wait_until

    arguments = ["namespace:=robot1", "name:=spots", "map:=123", "pose_source:=odometry"]
    arguments += ["camera:=front", "top_k:=7", "use_sim_time:=true", "enclave:=/places"]
    with _launched(tmp_path, "places.launch.py", *arguments) as client:
        wait_until(lambda: client.state("/robot1/spots") == "active", 30)
        names = ("map", "top_k", "use_sim_time", "stale_after_s")
        assert _values(client, "/robot1/spots", *names) == ["123", 7, True, 2.0]
        topics = ("perception/front/descriptor", "odom")
        assert [client.node.count_subscribers(f"/robot1/{t}") for t in topics] == [1, 1]
        assert _enclaves(client)["/robot1/spots"] == "/places"


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_places_launch_brings_three_nodes_to_active_in_one_process(tmp_path: Path) -> None:
    from ros_helpers import wait_until
    from tiny_bundle import make_tiny_bundle

    params = tmp_path / "eyes.yaml"
    params.write_text("/**:\n  ros__parameters:\n    engine: onnx\n    top_k: 2\n")
    arguments = [f"model:={make_tiny_bundle(tmp_path / 'b')}", f"map:={tmp_path / 'home.map'}"]
    arguments += ["with_perception:=true", "perception_name:=eyes", "name:=spots", "top_k:=7"]
    arguments += [f"perception_params_file:={params}", "namespace:=robot1", "use_sim_time:=true"]
    arguments += ["descriptor_topic:=eyes/camera/descriptor", "enclave:=/both"]
    calm = tmp_path / "calm.yaml"
    calm.write_text("/**:\n  ros__parameters:\n    cameras: [camera]\n    top_k: 3\n")
    arguments += ["with_filters:=true", "filters_name:=calm", f"filters_params_file:={calm}"]
    with _launched(tmp_path, "places.launch.py", *arguments) as client:
        nodes = ("/robot1/eyes", "/robot1/spots", "/robot1/calm")
        for node in nodes:
            wait_until(lambda node=node: client.state(node) == "active", 30)
        names = ("top_k", "use_sim_time", "model")
        model = str(tmp_path / "b")
        assert _values(client, "/robot1/eyes", *names) == [2, True, model]
        assert _values(client, "/robot1/spots", *names) == [7, True, model]
        assert _values(client, "/robot1/calm", "top_k", "use_sim_time") == [3, True]
        descriptors = "/robot1/eyes/camera/descriptor"
        wait_until(lambda: client.node.count_subscribers(descriptors) == 1)
        wait_until(lambda: client.node.count_publishers(descriptors) == 1)
        assert [_enclaves(client)[node] for node in nodes] == ["/both"] * 3


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_the_example_of_a_robot_brings_three_nodes_to_active(tmp_path: Path) -> None:
    from ros_helpers import wait_until
    from tiny_bundle import make_tiny_bundle

    arguments = ["namespace:=robot1", f"model:={make_tiny_bundle(tmp_path / 'b')}"]
    arguments += [f"map:={tmp_path / 'home.map'}", "respawn:=false"]
    with _launched(tmp_path, "turtlebot.launch.py", *arguments) as client:
        for node in ("perception", "places", "filters"):
            wait_until(lambda node=node: client.state(f"/robot1/{node}") == "active", 60)
        assert _values(client, "/robot1/perception", "cameras") == [["front", "rear"]]
        assert _values(client, "/robot1/places", "camera", "base_frame") == ["front", "base_link"]
        assert _values(client, "/robot1/filters", "cameras") == [["front", "rear"]]
        heard = ("front/image_raw", "rear/image_raw", "perception/front/descriptor", "odom")
        assert [client.node.count_subscribers(f"/robot1/{t}") for t in heard] == [1, 1, 1, 1]


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_filters_launch_brings_the_node_to_active(tmp_path: Path) -> None:
    from ros_helpers import wait_until

    arguments = ["namespace:=robot1", "name:=calm", "cameras:=front,rear", "labels:=hall,lab"]
    arguments += ["odometry_topic:=wheels", "top_k:=2", "use_sim_time:=true"]
    arguments += ["enclave:=/filters"]
    with _launched(tmp_path, "filters.launch.py", *arguments) as client:
        wait_until(lambda: client.state("/robot1/calm") == "active", 30)
        names = ("top_k", "cameras", "use_sim_time", "stale_after_s")
        assert _values(client, "/robot1/calm", *names) == [2, ["front", "rear"], True, 2.0]
        topics = ("/robot1/perception/rear/classification", "/robot1/wheels")
        assert [client.node.count_subscribers(t) for t in topics] == [1, 1]
        assert _enclaves(client)["/robot1/calm"] == "/filters"


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_gate_launch_brings_the_node_to_active_between_the_topics_given(tmp_path: Path) -> None:
    from ros_helpers import wait_until

    arguments = ["namespace:=robot1", f"rules:={ROOT / 'config' / 'gate_rules.yaml'}"]
    arguments += [
        "commands_in:=/cmd_vel_smoothed",
        "commands_out:=wheels",
        "stamped_cmd_vel:=false",
    ]
    with _launched(tmp_path, "gate.launch.py", *arguments) as client:
        wait_until(lambda: client.state("/robot1/gate") == "active", 30)
        assert _values(client, "/robot1/gate", "stamped_cmd_vel", "rate_hz") == [False, 20.0]
        assert client.node.count_subscribers("/cmd_vel_smoothed") == 1
        assert client.node.count_publishers("/robot1/wheels") == 1
        assert client.node.count_subscribers("/robot1/filters/belief") == 1


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_drive_launch_closes_the_loop_with_a_model_and_a_gate(tmp_path: Path) -> None:
    from ros_helpers import wait_until
    from std_msgs.msg import Float64
    from steering_bundle import make_steering_bundle

    model = make_steering_bundle(tmp_path / "b", depth_m=4.0)
    arguments = [f"model:={model}", "law:=free_distance", "gate:=obstacle", "max_speed_m_s:=0.4"]
    arguments += ["world_seed:=7", "real_time_factor:=0"]
    with _launched(tmp_path, "drive.launch.py", *arguments) as client:
        way = client.listen(Float64, "/simulator/distance")
        for node in ("perception", "driver", "gate", "simulator"):
            wait_until(lambda node=node: client.state(f"/{node}") == "active", 60)
        assert _values(client, "/driver", "max_speed_m_s", "law") == [0.4, "free_distance"]
        assert _values(client, "/simulator", "lockstep") == [True]
        wait_until(lambda: way and way[-1].data > 0.3, 120, "the robot drives")


@needs_launch
@pytest.mark.ros
@pytest.mark.slow
def test_a_taught_route_is_launched_to_be_repeated_and_a_lost_robot_to_look_round(
    tmp_path: Path,
) -> None:
    from ros_helpers import wait_until

    from robot_vision.cli import main

    drive, route = tmp_path / "drive", tmp_path / "route"
    assert main(["drive", "bag", "--metres", "1", "--depth", "none", "--out", str(drive)]) == 0
    taught = ["--output", str(route), "--option", "pose_topic=/odom", "--reflex", "steer"]
    assert main(["teach", str(drive), "--model", "demo", *taught]) == 0
    arguments = [f"route:={route}", "use_sim_time:=true", "max_speed_m_s:=0.3"]
    with _launched(tmp_path, "repeat.launch.py", *arguments) as client:
        for node in ("repeat", "perception", "places", "filters", "reflex"):
            wait_until(lambda node=node: client.state(f"/{node}") == "active", 60, node)
        names = ("route", "max_speed_m_s", "use_sim_time", "collision_topic")
        wanted = [str(route), 0.3, True, "reflex/camera/collision"]
        assert _values(client, "/repeat", *names) == wanted
        assert _values(client, "/places", "map", "verify") == [str(route / "places.map"), True]
    arguments = [f"map:={route / 'places.map'}", "drive_m:=0.0"]
    arguments += ["camera_to_base:=[0.1, 0.0, 0.4, -1.5708, 0.0, -1.5708]"]
    with _launched(tmp_path, "localising.launch.py", *arguments) as client:
        wait_until(lambda: client.state("/localiser") == "active", 60)
        assert _values(client, "/localiser", "drive_m", "camera_to_base") == [
            0.0,
            [0.1, 0.0, 0.4, -1.5708, 0.0, -1.5708],
        ]


# The same things as plain processes


def _frames(folder: Path) -> Path:
    import cv2
    import numpy as np

    folder.mkdir()
    for i in range(40):
        image = np.full((48, 64, 3), (20, 20, 220), np.uint8)  # BGR: red
        assert cv2.imwrite(str(folder / f"{i:03}.png"), image)
    return folder


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.skipif(
    importlib.util.find_spec("robot_vision.ros.player.node") is None,
    reason="no camera player yet",
)
def test_what_the_demo_starts_also_starts_as_plain_processes(tmp_path: Path) -> None:
    pytest.importorskip("vision_msgs")
    from ros_helpers import NodeProcess, running, wait_until
    from tiny_bundle import make_tiny_bundle
    from vision_msgs.msg import Classification

    words = ("--ros-args", "--params-file", str(ROOT / "config" / "perception.yaml"))
    given = {"model": make_tiny_bundle(tmp_path / "b"), "engine": "onnx"}
    played = {"source": _frames(tmp_path / "frames"), "rate_hz": 20, "loop": "true"}
    played |= {"output_topics": "[camera/image_raw]", "transport": "raw"}
    with running(tmp_path, "perception_node", *words, **given) as (node, client):
        answers = client.listen(Classification, "/perception/camera/classification")
        player = NodeProcess(
            tmp_path / "player.txt", "camera_player", wait_for_subscribers=1, **played
        )
        start = time.monotonic()
        wait_until(lambda: len(answers) >= 10, 30, "answers; " + node.output + player.output)
        assert time.monotonic() - start < 30
        assert answers[-1].results[0].class_id == "red"
        assert player.stop() == 0, player.output


@pytest.mark.skipif(not HAS_LAUNCH, reason="only an installed ROS 2 has its executables in lib")
def test_executable_is_found_where_launch_looks() -> None:
    found = package_executable("perception_node")
    assert found is None or os.access(found, os.X_OK)


# Layouts and profile: their topics are those that the node has


def test_layouts_show_topics_that_the_node_publishes() -> None:
    import json
    import re

    import yaml

    rviz = yaml.safe_load((ROOT / "config" / "perception.rviz").read_text())
    displays = rviz["Visualization Manager"]["Displays"]
    topics = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    layout = (ROOT / "config" / "perception.foxglove.json").read_text()
    assert {"configById", "layout"} <= set(json.loads(layout))
    topics |= set(re.findall(r"/perception/\w+/\w+", layout))
    names = {"classification", "descriptor", "pose", "image_annotated"}
    assert topics and topics <= {f"/perception/camera/{name}" for name in names}


def test_profile_is_valid_xml_with_a_segment_for_several_1080p_images() -> None:
    from xml.etree import ElementTree

    path = find_profile({})
    assert path is not None
    tags = {e.tag.split("}")[1]: e.text for e in ElementTree.parse(path).iter()}
    assert int(tags["segment_size"]) >= 32 << 20
    assert tags["useBuiltinTransports"] == "false"
