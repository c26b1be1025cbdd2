"""The environment without apt: interface packages as released, found with nothing sourced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "tools" / "ros_env" / "build.py"

# The fields of the released packages (vision_msgs 4.1.1, tf2_msgs and bond of Humble and newer), in order.
# No field has a default value. Wire format and type hash follow from type, name and order alone.
RELEASED = {
    "vision_msgs/msg/Point2D": ["float64 x", "float64 y"],
    "vision_msgs/msg/Pose2D": ["vision_msgs/Point2D position", "float64 theta"],
    "vision_msgs/msg/BoundingBox2D": [
        "vision_msgs/Pose2D center",
        "float64 size_x",
        "float64 size_y",
    ],
    "vision_msgs/msg/BoundingBox2DArray": [
        "std_msgs/Header header",
        "vision_msgs/BoundingBox2D[] boxes",
    ],
    "vision_msgs/msg/BoundingBox3D": ["geometry_msgs/Pose center", "geometry_msgs/Vector3 size"],
    "vision_msgs/msg/BoundingBox3DArray": [
        "std_msgs/Header header",
        "vision_msgs/BoundingBox3D[] boxes",
    ],
    "vision_msgs/msg/ObjectHypothesis": ["string class_id", "float64 score"],
    "vision_msgs/msg/ObjectHypothesisWithPose": [
        "vision_msgs/ObjectHypothesis hypothesis",
        "geometry_msgs/PoseWithCovariance pose",
    ],
    "vision_msgs/msg/Classification": [
        "std_msgs/Header header",
        "vision_msgs/ObjectHypothesis[] results",
    ],
    "vision_msgs/msg/Detection2D": [
        "std_msgs/Header header",
        "vision_msgs/ObjectHypothesisWithPose[] results",
        "vision_msgs/BoundingBox2D bbox",
        "string id",
    ],
    "vision_msgs/msg/Detection2DArray": [
        "std_msgs/Header header",
        "vision_msgs/Detection2D[] detections",
    ],
    "vision_msgs/msg/Detection3D": [
        "std_msgs/Header header",
        "vision_msgs/ObjectHypothesisWithPose[] results",
        "vision_msgs/BoundingBox3D bbox",
        "string id",
    ],
    "vision_msgs/msg/Detection3DArray": [
        "std_msgs/Header header",
        "vision_msgs/Detection3D[] detections",
    ],
    "vision_msgs/msg/VisionClass": ["uint16 class_id", "string class_name"],
    "vision_msgs/msg/LabelInfo": [
        "std_msgs/Header header",
        "vision_msgs/VisionClass[] class_map",
        "float32 threshold",
    ],
    "vision_msgs/msg/VisionInfo": [
        "std_msgs/Header header",
        "string method",
        "string database_location",
        "int32 database_version",
    ],
    "bond/msg/Status": [
        "std_msgs/Header header",
        "string id",
        "string instance_id",
        "bool active",
        "float32 heartbeat_timeout",
        "float32 heartbeat_period",
    ],
    "tf2_msgs/msg/TFMessage": ["geometry_msgs/TransformStamped[] transforms"],
    "tf2_msgs/msg/TF2Error": [
        "uint8 NO_ERROR=0",
        "uint8 LOOKUP_ERROR=1",
        "uint8 CONNECTIVITY_ERROR=2",
        "uint8 EXTRAPOLATION_ERROR=3",
        "uint8 INVALID_ARGUMENT_ERROR=4",
        "uint8 TIMEOUT_ERROR=5",
        "uint8 TRANSFORM_ERROR=6",
        "uint8 error",
        "string error_string",
    ],
}


def _released_typestore():
    """Return rosbags' types (with its own tf2_msgs) and, from above, vision_msgs."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for name, lines in RELEASED.items():
        if name not in store.fielddefs:
            types.update(get_types_from_msg("\n".join(lines), name))
    store.register(types)
    return store


def _class_of(name: str):
    package, _, message = name.split("/")
    module = pytest.importorskip(f"{package}.msg", reason=f"{package} is not installed: make test")
    return getattr(module, message)


def _clean_environment() -> dict[str, str]:
    """Return an environment in which nothing of ROS has been sourced or started."""
    return {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}


@pytest.mark.parametrize("name", RELEASED)
def test_fields_match_those_of_the_released_package(name):
    fields = _class_of(name).get_fields_and_field_types()

    # rclpy spells package/Type[] as sequence<package/Type>, and float64 as double.
    spelled = {"float64": "double", "float32": "float", "bool": "boolean"}
    expected = {}
    for line in RELEASED[name]:
        kind, field = line.split()
        if "=" in field:
            continue
        base = kind.removesuffix("[]")
        base = spelled.get(base, base)
        expected[field] = f"sequence<{base}>" if kind.endswith("[]") else base
    assert list(fields.items()) == list(expected.items())


@pytest.mark.parametrize("name", RELEASED)
def test_new_messages_are_empty_as_the_released_ones(name):
    message = _class_of(name)()

    for line in RELEASED[name]:
        kind, field = line.split()
        if "=" in field:
            constant, value = field.split("=")
            assert getattr(message, constant) == int(value)
        elif kind.endswith("[]"):
            assert len(getattr(message, field)) == 0
        elif "/" not in kind:
            assert not getattr(message, field)


@pytest.mark.parametrize("name", RELEASED)
def test_type_hash_is_that_of_the_released_definition(name):
    package, _, message = name.split("/")
    _class_of(name)
    from ament_index_python.packages import get_package_share_directory

    file = Path(get_package_share_directory(package)) / "msg" / f"{message}.json"
    if not file.exists():
        pytest.skip("ROS 2 has had hashes of types since Iron")
    built = {h["type_name"]: h["hash_string"] for h in json.loads(file.read_text())["type_hashes"]}

    # rosbags computes the hash by itself, from the definitions above.
    assert built[name] == _released_typestore().hash_rihs01(name)


def test_messages_read_back_what_an_independent_library_wrote():
    pytest.importorskip("rclpy", reason="messages of ROS 2 need it")
    classification = _class_of("vision_msgs/msg/Classification")
    from rclpy.serialization import deserialize_message, serialize_message
    from vision_msgs.msg import ObjectHypothesis

    ours = classification()
    ours.header.frame_id = "camera"
    ours.header.stamp.sec = 7
    ours.results = [ObjectHypothesis(class_id="kitchen", score=0.75)]
    store = _released_typestore()

    theirs = store.deserialize_cdr(serialize_message(ours), "vision_msgs/msg/Classification")
    assert theirs.header.frame_id == "camera"
    assert [(r.class_id, r.score) for r in theirs.results] == [("kitchen", 0.75)]

    theirs.results[0].score = 0.25
    raw = bytes(store.serialize_cdr(theirs, "vision_msgs/msg/Classification"))
    back = deserialize_message(raw, classification)
    assert back.header.stamp.sec == 7
    assert back.results == [ObjectHypothesis(class_id="kitchen", score=0.25)]


@pytest.mark.ros
def test_publishers_announce_the_released_type_hash():
    import rclpy

    kind = _class_of("vision_msgs/msg/Classification")
    context = rclpy.Context()  # what init returns is none in Jazzy
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("hash_probe", context=context)
        publisher = node.create_publisher(kind, "probe", 1)
        deadline = time.monotonic() + 10
        infos = []
        while not infos and time.monotonic() < deadline:
            infos = node.get_publishers_info_by_topic("probe")
        if not hasattr(infos[0], "topic_type_hash"):
            pytest.skip("ROS 2 has had hashes of types since Iron")
        announced = infos[0].topic_type_hash
        node.destroy_publisher(publisher)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)

    released = _released_typestore().hash_rihs01("vision_msgs/msg/Classification")
    assert str(announced) == released


def test_packages_are_found_with_nothing_sourced():
    _class_of("vision_msgs/msg/Classification")
    if not (Path(sys.prefix) / "share" / "vision_msgs").is_dir():
        pytest.skip("ROS comes from outside this environment and has to be sourced")
    code = (
        "import vision_msgs.msg, tf2_msgs.msg\n"
        "from ament_index_python.packages import get_package_share_directory as share\n"
        "for name in ('vision_msgs', 'tf2_msgs', 'sensor_msgs', 'robot_vision'):\n"
        "    print(share(name))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_clean_environment()
    )

    assert done.returncode == 0, done.stderr
    for folder in done.stdout.split():
        assert (Path(folder) / "package.xml").is_file(), folder


def test_path_hook_keeps_what_was_sourced():
    if not (Path(sysconfig.get_path("purelib")) / "robot_vision_prefix.pth").is_file():
        pytest.skip("this environment was not made by make")
    environment = _clean_environment() | {"AMENT_PREFIX_PATH": "/opt/ros/x:/opt/overlay"}

    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ['AMENT_PREFIX_PATH'])"],
        capture_output=True,
        text=True,
        env=environment,
    )

    assert done.stdout.strip() == f"{sys.prefix}:/opt/ros/x:/opt/overlay"


@pytest.mark.parametrize(
    ("sourced", "workspaces", "expected"),
    [
        ("", "", "ENV"),
        ("/opt/ros/x", "", "ENV:/opt/ros/x"),
        ("/ws/install/robot_vision:/opt/ros/x", "/ws/install", "/ws/install/robot_vision:ENV:/opt/ros/x"),
        ("/ws/install:/opt/ros/x", "/ws/install", "/ws/install:ENV:/opt/ros/x"),
        ("/b/install/p:/a/install/q:/opt/x", "/b/install:/a/install", "/b/install/p:/a/install/q:ENV:/opt/x"),
        ("/opt/ros/x:/ws/install/p", "/ws/install", "ENV:/opt/ros/x:/ws/install/p"),
        ("/ws/install/p:ENV:/opt/ros/x", "/ws/install", "/ws/install/p:ENV:/opt/ros/x"),
    ],
)  # fmt: skip
def test_the_environment_stands_behind_sourced_workspaces(tmp_path, sourced, workspaces, expected):
    """The hook as it lies in the sources, in an environment of its own."""
    prefix = tmp_path / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    (site,) = prefix.glob("lib/python*/site-packages")
    shutil.copyfile(BUILD.with_name("path_hook.py"), site / "_robot_vision_prefix.py")
    (site / "robot_vision_prefix.pth").write_text("import _robot_vision_prefix\n")
    environment = _clean_environment()
    environment["AMENT_PREFIX_PATH"] = sourced.replace("ENV", str(prefix))
    environment["COLCON_PREFIX_PATH"] = workspaces

    code = "import os; print(os.environ['AMENT_PREFIX_PATH'])"
    for _ in range(2):  # a child inherits it, and changes nothing
        done = subprocess.run(
            [str(prefix / "bin" / "python"), "-c", code],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.stdout.strip().replace(str(prefix), "ENV") == expected
        environment["AMENT_PREFIX_PATH"] = done.stdout.strip()


@pytest.fixture
def build_module():
    sys.path.insert(0, str(BUILD.parent))
    try:
        import build

        yield build
    finally:
        sys.path.remove(str(BUILD.parent))
        sys.modules.pop("build", None)


def test_repair_points_exported_files_at_this_python(build_module, tmp_path):
    import numpy

    folder = tmp_path / "share" / "some_msgs" / "cmake"
    folder.mkdir(parents=True)
    exported = folder / "export_some_msgsExport.cmake"
    exported.write_text(
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"\n'
    )
    cached = tmp_path / "cached"
    os.link(exported, cached)
    before = cached.read_text()

    assert build_module.repair_exported_cmake(tmp_path) == 1
    listed = re.search(r'DIRECTORIES "(.*)"', exported.read_text()).group(1)
    assert listed == f"{sysconfig.get_path('include')};{numpy.get_include()}"
    assert cached.read_text() == before, "a hard link into a cache was written through"
    assert build_module.repair_exported_cmake(tmp_path) == 0


def test_environment_has_no_path_of_the_build_machine_left(build_module):
    if not (Path(sys.prefix) / "share" / "vision_msgs").is_dir():
        pytest.skip("ROS comes from outside this environment")

    assert build_module.repair_exported_cmake(Path(sys.prefix)) == 0


def _run_build(arguments, python=sys.executable, **environment):
    return subprocess.run(
        [python, str(BUILD), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )


def test_missing_compiler_is_one_line_that_says_what_to_install(tmp_path):
    done = _run_build(["--log", str(tmp_path / "log")], CXX="no-such-compiler")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "no-such-compiler" in line and "apt install g++" in line


def test_missing_headers_name_the_package_that_has_them(build_module, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module.sysconfig, "get_path", lambda _: str(tmp_path))

    with pytest.raises(build_module.SetupError, match=r"Python\.h.*apt install python3-dev"):
        build_module.require_toolchain()


@pytest.mark.slow
def test_failed_build_names_its_log(tmp_path):
    compiler = tmp_path / "broken-compiler"
    compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    pytest.importorskip("vision_msgs.msg")
    log = tmp_path / "log"

    done = _run_build(["--log", str(log)], CC=str(compiler), CXX=str(compiler))

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "CMake Error" in line and str(log) in line
    assert "this compiler is broken" in log.read_text()


def test_build_refuses_to_write_into_an_installation_of_python():
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not base.is_file():
        pytest.skip(f"no {base} to try it with")

    done = _run_build(["--hook-only"], python=str(base))

    assert done.returncode == 1
    assert "virtual environment" in done.stderr and len(done.stderr.splitlines()) == 1


def test_editable_package_is_linked_into_the_index(tmp_path):
    prefix = tmp_path / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    stale = prefix / "share" / "robot_vision" / "launch"
    stale.mkdir(parents=True)
    (stale / "old.launch.py").write_text("")
    nodes = (
        "perception_node",
        "place_node",
        "filter_node",
        "composed_nodes",
        "camera_player",
        "simulator_node",
        "viewer_node",
    )
    lines = ["robot-vision = robot_vision.cli:main", "pip = pip._internal.cli.main:main"]
    lines += [f"{name} = robot_vision.ros.start:{name}" for name in nodes]
    (site,) = prefix.glob("lib/python*/site-packages")
    (site / "robot_vision-0.1.0.dist-info").mkdir()
    (site / "robot_vision-0.1.0.dist-info" / "entry_points.txt").write_text(
        "\n".join(["[console_scripts]", *lines])
    )
    command = [str(prefix / "bin" / "python"), str(BUILD.with_name("link_package.py"))]

    for _ in range(2):
        subprocess.run(command, check=True, env=_clean_environment(), timeout=60)

    assert (prefix / "share/ament_index/resource_index/packages/robot_vision").is_file()
    assert (prefix / "share/robot_vision/package.xml").samefile(ROOT / "package.xml")
    found = {  # as `ros2 launch robot_vision NAME.launch.py` searches
        file: os.readlink(os.path.join(folder, file))
        for folder, _, files in os.walk(prefix / "share" / "robot_vision")
        for file in files
        if file.endswith(".launch.py")
    }
    assert found == {path.name: str(path) for path in (ROOT / "launch").glob("*.launch.py")}
    linked = prefix / "lib" / "robot_vision"
    assert {path.name for path in linked.iterdir()} == {*nodes, "robot-vision"}
    for name in nodes:
        assert os.readlink(linked / name) == str(prefix / "bin" / name)


@pytest.mark.slow
def test_two_test_processes_get_different_ros_domains():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'test')!r})\n"
        "from pathlib import Path; import conftest; print(Path(conftest._claim_ros_domain().name).name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() != os.environ["ROS_DOMAIN_ID"]
    assert 0 <= int(done.stdout) <= 101
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
