"""Parameters: one declaration, and everything made from it agrees."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from robot_vision.bundle.installed import find_model, installed_models
from robot_vision.errors import ConfigError
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.gate.parameters import DrivingParameters, GateParameters
from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.ros.node.parameters import NodeParameters
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.player.parameters import PlayerParameters
from robot_vision.ros.repeating.parameters import RepeatParameters
from robot_vision.ros.simulation.parameters import SimulatorParameters
from robot_vision.ros.viewer.parameters import ViewerParameters
from robot_vision.settings.parameters import CONFIGURE, LIVE, NEVER, build, parameter, settings
from tools.parameter_files import FILES, markdown_table, yaml_text

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", FILES)
def test_parameter_file_is_what_the_dataclass_gives_and_its_defaults(name: str) -> None:
    _, cls = FILES[name]
    text = (ROOT / "config" / f"{name}.yaml").read_text()
    assert text == yaml_text(name), "run python -m tools.parameter_files"
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert repr(build(cls, values)) == repr(cls())  # NaN is not equal to itself
    for setting in settings(cls):
        assert setting.text[-1] in ".," and len(setting.text) > 10, setting.name
        number = setting.kind in ("int", "float") and setting.default == setting.default  # no NaN
        assert not number or setting.low is not None, setting.name


def test_a_node_s_own_parameters_come_before_those_of_its_base() -> None:
    @dataclasses.dataclass(frozen=True)
    class Base:
        period: float = parameter(1.0, "Text.", low=0, high=10)
        depth: int = parameter(5, "Text.", low=0, high=10)

    @dataclasses.dataclass(frozen=True)
    class Own(Base):
        model: str = parameter("", "Text.")
        depth: int = parameter(7, "Another text.", low=0, high=10)
        engine: str = parameter("", "Text.")

    found = settings(Own)
    assert [s.name for s in found] == ["model", "engine", "period", "depth"]
    assert (found[3].default, found[3].text) == (7, "Another text.")
    common = {f.name for f in dataclasses.fields(ManagedParameters)}
    for cls in (
        PerceptionParameters,
        PlaceParameters,
        FilterParameters,
        GateParameters,
        DriverParameters,
    ):
        assert common == {s.name for s in settings(cls)[-len(common) :]}, cls


def test_every_parameter_is_documented_and_its_default_allowed() -> None:
    for setting in settings(PerceptionParameters):
        assert setting.text.endswith(".") and setting.text[0].isalpha(), setting.name
        assert setting.coerce(setting.default) is not None or setting.default is None
        if setting.kind in ("int", "float") and setting.name != "unknown_threshold":
            assert setting.low is not None, f"{setting.name} has no range"


def test_markdown_table_has_a_row_for_each_parameter() -> None:
    rows = markdown_table(PerceptionParameters).splitlines()
    assert len(rows) == 2 + len(dataclasses.fields(PerceptionParameters))
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert any(
        row.startswith("| `top_k` | int | `3` |") and row.endswith("| live |") for row in rows
    )


@pytest.mark.parametrize(
    ("cls", "shared"),
    [
        (ManagedParameters, ()),
        (DrivingParameters, (ManagedParameters,)),
        *((cls, (ManagedParameters,)) for cls in (PerceptionParameters, PlaceParameters)),
        *((cls, (ManagedParameters,)) for cls in (FilterParameters, ViewerParameters)),
        *((cls, (ManagedParameters,)) for cls in (SimulatorParameters, PlayerParameters)),
        *(
            (cls, (ManagedParameters, DrivingParameters))
            for cls in (GateParameters, DriverParameters)
        ),
        *(
            (cls, (ManagedParameters, DrivingParameters))
            for cls in (LocaliserParameters, RepeatParameters)
        ),
    ],
)
def test_the_reference_has_the_table_of_the_code(cls: type, shared: tuple[type, ...]) -> None:
    page = (ROOT / "docs/reference/parameters.md").read_text()
    assert f"\n\n{markdown_table(cls, *shared)}" in page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"camera": "front left"}, ["camera", "front left"]),
        ({"camera_to_base": (1.0,)}, ["camera_to_base", "1 numbers", "six"]),
        ({"pose_source": "odom"}, ["odom", "did you mean 'odometry'"]),
        ({"accept_probability": 1.5}, ["accept_probability", "1.5", "from 0 to 1"]),
        ({"map_frame": " "}, ["map_frame", "empty"]),
    ],
)
def test_bad_place_parameters_are_refused(values: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build(PlaceParameters, values)
    assert all(word in str(error.value) for word in words), error.value


def test_calibration_of_each_camera_is_next_to_its_images_unless_it_is_named() -> None:
    p = PerceptionParameters(
        cameras=("a", "b", "c"),
        image_topics=("", "/rear/jpeg/compressed", "/x/image_rect"),
        camera_info_topics=("", "", "/lens"),
    )
    assert [p.info_topic(c) for c in p.cameras] == ["a/camera_info", "/rear/camera_info", "/lens"]


def test_place_topics_follow_the_camera_and_the_perception_node() -> None:
    p = PlaceParameters(camera="front")
    assert p.descriptors == "perception/front/descriptor"
    assert p.vision_info == "perception/vision_info"
    assert (p.images, p.camera_info) == ("front/image_raw", "front/camera_info")
    p = PlaceParameters(descriptor_topic="/a/eyes/rear/descriptor", transport="compressed")
    assert p.vision_info == "/a/eyes/vision_info"
    assert (p.images, p.camera_info) == ("camera/image_raw", "camera/camera_info")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_k": 0}, ["top_k", "0", "from 1 to 1000"]),
        ({"top_k": 2.5}, ["top_k", "2.5", "whole number"]),
        ({"top_k": True}, ["top_k", "True", "whole number"]),
        ({"max_rate_hz": float("nan")}, ["max_rate_hz", "nan", "from 0 to 1000"]),
        ({"max_rate_hz": "fast"}, ["max_rate_hz", "fast"]),
        ({"engine": "onx"}, ["onx", "did you mean 'onnx'"]),
        ({"topk": 3}, ["topk", "did you mean 'top_k'"]),
        ({"cameras": "front"}, ["cameras", "front", "list of strings"]),
        ({"cameras": ()}, ["cameras", "empty"]),
        ({"cameras": ("front/left",)}, ["front/left"]),
        ({"cameras": ("a", "a")}, ["differ"]),
        ({"cameras": ("a", "b"), "image_topics": ("/x",)}, ["image_topics", "1", "2 cameras"]),
        (
            {"cameras": ("a", "b"), "camera_info_topics": ("/x",)},
            ["camera_info_topics", "2 cameras"],
        ),
        ({"image_kind": "rect"}, ["image_kind", "rect", "did you mean 'rectified'"]),
        ({"camera_to_base": (1.0, 2.0)}, ["camera_to_base", "2 numbers"]),
        ({"camera_to_base": (float("inf"),) * 6}, ["camera_to_base", "inf"]),
    ],
)
def test_bad_values_are_refused_with_value_and_remedy(values: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build(PerceptionParameters, values)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_are_taken_as_people_write_them() -> None:
    built = build(PerceptionParameters, {"max_rate_hz": 10, "camera_to_base": "0 0 0.5  0 -1.5 0"})
    assert built.max_rate_hz == 10.0 and isinstance(built.max_rate_hz, float)
    assert built.camera_to_base == (0.0, 0.0, 0.5, 0.0, -1.5, 0.0)
    with pytest.raises(ConfigError, match="one two"):
        build(PerceptionParameters, {"camera_to_base": "one two"})


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({}, "camera/image_raw"),
        ({"image_topics": ("/usb_cam/image",)}, "/usb_cam/image"),
        ({"cameras": ("a", "camera"), "image_topics": ("/a", "")}, "camera/image_raw"),
    ],
)
def test_topic_follows_name_and_list(settings_: dict, expected: str) -> None:
    assert PerceptionParameters(**settings_).topic("camera") == expected


def test_mounting_numbers_for_all_or_for_each_camera() -> None:
    six, other = (1.0,) * 6, (2.0,) * 6
    cameras = ("a", "b")
    assert PerceptionParameters(cameras=cameras).transform_numbers("b") == ()
    assert PerceptionParameters(cameras=cameras, camera_to_base=six).transform_numbers("b") == six
    both = PerceptionParameters(cameras=cameras, camera_to_base=six + other)
    assert (both.transform_numbers("a"), both.transform_numbers("b")) == (six, other)


@dataclasses.dataclass(frozen=True)
class Small:
    fixed: str = parameter("a", "Text.", change=NEVER)
    rate: float = parameter(1.0, "Text.", low=0, high=10, change=LIVE)
    low: int = parameter(1, "Text.", low=0, high=10, change=LIVE)
    high: int = parameter(2, "Text.", low=0, high=10, change=LIVE)
    model: str = parameter("", "Text.", change=CONFIGURE)
    numbers: tuple[float, ...] = parameter((), "Text.", change=LIVE)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low {self.low} exceeds high {self.high}: lower it")


@pytest.fixture
def node_with_parameters():  # noqa: ANN201
    rclpy = pytest.importorskip("rclpy")
    rclpy.init(args=["--ros-args", "-p", "rate:=3", "-p", "numbers:=[]"])
    node = rclpy.create_node("small")
    configured = [False]
    seen: list[Small] = []
    parameters = NodeParameters(
        node, Small, lambda: configured[0], lambda before, after: seen.append(after)
    )
    yield node, parameters, configured, seen
    node.destroy_node()
    rclpy.try_shutdown()


def _set(node, **values):  # noqa: ANN001, ANN003, ANN202
    from rclpy.parameter import Parameter

    return node.set_parameters_atomically([Parameter(k, value=v) for k, v in values.items()])


@pytest.mark.ros
def test_changes_on_a_node_are_checked_together_and_atomic(node_with_parameters) -> None:  # noqa: ANN001
    node, parameters, configured, seen = node_with_parameters
    assert parameters.current == Small(rate=3.0)
    before = parameters.current

    refused = _set(node, rate=4.0, low=9)
    assert not refused.successful and "low 9 exceeds high 2" in refused.reason
    assert parameters.current is before and node.get_parameter("rate").value == 3 and not seen

    assert _set(node, low=5, high=7, rate=0).successful
    assert parameters.current == Small(low=5, high=7, rate=0.0)
    assert before == Small(rate=3.0), "a snapshot must never change"
    assert seen == [parameters.current]

    out_of_range = _set(node, rate=11.0)
    assert (
        not out_of_range.successful and "11" in out_of_range.reason and "10" in out_of_range.reason
    )
    assert not _set(node, rate=11).successful
    assert not _set(node, fixed="b").successful
    assert _set(node, numbers=[1.0, 2.0]).successful
    assert parameters.current.numbers == (1.0, 2.0)

    assert _set(node, model="x").successful
    configured[0] = True
    refused = _set(node, model="y")
    assert not refused.successful and "cleanup" in refused.reason
    assert parameters.current.model == "x"
    assert _set(node, model="x", low=6).successful, "unchanged values are no change"


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("written", ["[]", "null", "'0 0 1 0 0 0'", "[0, 0, 1, 0, 0, 0]"])
@pytest.mark.parametrize(
    "cls",
    [
        PerceptionParameters,
        PlaceParameters,
        FilterParameters,
        GateParameters,
        DriverParameters,
        PlayerParameters,
    ],
)
def test_dumped_parameters_can_be_loaded_again(cls: type, written: str, tmp_path: Path) -> None:
    """As by `ros2 param dump` and `--params-file`; a list that is empty stays one."""
    rclpy = pytest.importorskip("rclpy")
    lists = [s.name for s in settings(cls) if s.kind == "tuple[float, ...]"][:1]
    arguments = [f"{name}:={written}" for name in lists]
    given = ["--ros-args", *(word for a in arguments for word in ("-p", a))]
    found = []
    for _ in range(2):
        rclpy.init(args=given)
        try:
            node = rclpy.create_node("dumped")
            found.append(NodeParameters(node, cls).current)
            names = [s.name for s in settings(cls)]
            dump = {p.name: p.value for p in node.get_parameters(names)}
            assert None not in dump.values()
            plain = (bool, int, float, str)
            dump = {k: v if isinstance(v, plain) else list(v) for k, v in dump.items()}
            node.destroy_node()
        finally:
            rclpy.try_shutdown()
        file = tmp_path / "dump.yaml"
        file.write_text(yaml.safe_dump({"/dumped": {"ros__parameters": dump}}))
        given = ["--ros-args", "--params-file", str(file)]
    assert repr(found[0]) == repr(found[1])  # nan is not equal to itself
    for name in lists:
        numbers = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0) if "0" in written else ()
        assert getattr(found[0], name) == numbers


@pytest.mark.ros
def test_list_that_is_emptied_does_not_keep_its_default() -> None:
    rclpy = pytest.importorskip("rclpy")
    rclpy.init(args=["--ros-args", "-p", "cameras:=[]"])
    try:
        node = rclpy.create_node("emptied")
        with pytest.raises(ConfigError, match="cameras is empty"):
            NodeParameters(node, PerceptionParameters)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.mark.ros
def test_descriptors_carry_text_range_and_read_only(node_with_parameters) -> None:  # noqa: ANN001
    node, *_ = node_with_parameters
    rate, fixed = node.describe_parameter("rate"), node.describe_parameter("fixed")
    assert "Text." in rate.description and "while running" in rate.description
    assert rate.floating_point_range[0].to_value == 10.0
    assert fixed.read_only and not rate.read_only


def _fake_models(root: Path) -> Path:
    for name in ("demo", "kitchen"):
        folder = root / "share" / "robot_vision" / "models" / name
        folder.mkdir(parents=True)
        (folder / "bundle.yaml").write_text("")
    return root


def test_model_is_found_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = _fake_models(tmp_path / "ws")
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join((str(overlay), "/opt/ros/none")))
    assert find_model("kitchen") == overlay / "share/robot_vision/models/kitchen"
    assert find_model(str(tmp_path)) == tmp_path
    assert installed_models()["demo"] == overlay / "share/robot_vision/models/demo"
    with pytest.raises(ConfigError, match="did you mean 'kitchen'"):
        find_model("kitchn")
    with pytest.raises(ConfigError, match="model is empty.*kitchen"):
        find_model(" ")
    with pytest.raises(ConfigError, match="no such directory"):
        find_model(str(tmp_path / "absent"))
