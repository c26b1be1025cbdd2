"""The filter node's parameters: one declaration, and the files that are made from it."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from robot_vision.errors import ConfigError
from robot_vision.filters.class_file import read_class_file
from robot_vision.filters.class_filter import ClassModel
from robot_vision.filters.pose_filter import PoseFilterSettings
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.settings.parameters import build

ROOT = Path(__file__).resolve().parents[3]


def test_launch_file_has_the_node_and_no_defaults_of_its_own() -> None:
    text = (ROOT / "launch" / "filters.launch.py").read_text()
    assert "generate_launch_description" in {
        node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    }
    assert "declared(PLAIN, FilterParameters)" in text


def test_defaults_of_node_and_filters_are_the_same() -> None:
    p, model = FilterParameters(), ClassModel(("a",))
    assert p.pose_settings() == PoseFilterSettings()
    assert (p.class_dwell_s, p.class_correlation_s) == (model.dwell_s, model.correlation_time_s)
    assert p.class_memory == model.memory
    for name in ("camera_correlation", "unknown_prior", "refused_known", "refused_unknown"):
        assert getattr(p, name) == getattr(model, name)


def test_topics_follow_the_perception_node() -> None:
    p = FilterParameters(cameras=("front", "rear"), perception_node="/eyes")
    assert p.classification_topic("rear") == "/eyes/rear/classification"
    assert p.poses() == ("/eyes/front/pose", "/eyes/rear/pose", "places/pose")
    assert FilterParameters().poses() == ("perception/camera/pose", "places/pose")
    assert FilterParameters(pose_topics=("/gps",)).poses() == ("/gps",)
    assert FilterParameters(pose_frames=("lens",)).pose_frame(1) == "lens"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"cameras": ()}, "cameras"),
        ({"cameras": ("a/b",)}, "a/b"),
        ({"cameras": ("a", "b"), "classification_topics": ("/x",)}, "classification_topics"),
        ({"pose_topics": ("/a", "/b", "/c"), "pose_frames": ("x", "y")}, "pose_frames"),
        ({"class_file": "x.yaml", "class_prior": (1.0,)}, "class_prior"),
        ({"odometry_source": "tf"}, "base_frame"),
        ({"odometry_source": "wheel"}, "odometry_source"),
        ({"labels": ("a", "b"), "class_rates": (1.0,)}, "class_rates"),
        ({"filter_classes": False, "filter_pose": False}, "filter_pose"),
        ({"gate_probability": 1.0}, "gate_probability"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        build(FilterParameters, values)
    assert "\n" not in str(error.value)


def test_class_file_speaks_of_classes_by_name(tmp_path: Path) -> None:
    file = tmp_path / "home.yaml"
    file.write_text(
        "prior: {kitchen: 2, hall: 1}\n"
        "training_prior: {kitchen: 10, hall: 30, lab: 10}\n"
        "rates: {kitchen: {hall: 0.1}, hall: {kitchen: 0.2, lab: 0.05}}\n"
    )
    known = read_class_file(file, ("hall", "kitchen", "lab"))
    np.testing.assert_array_equal(known.prior, [1, 2, 0])
    np.testing.assert_array_equal(known.training_prior, [30, 10, 10])
    np.testing.assert_array_equal(known.rates, [[0, 0.2, 0.05], [0.1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("prior: {kichen: 1}", "did you mean 'kitchen'"),
        ("priors: {kitchen: 1}", "did you mean 'prior'"),
        ("prior: {kitchen: -1}", "at least 0"),
        ("prior: {kitchen: .nan}", "at least 0"),
        ("prior: [1, 2]", "names and values"),
        ("rates: {kitchen: {hal: 1}}", "did you mean 'hall'"),
        ("- 1", "names and values"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_class_files_are_refused_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "home.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word) as error:
        read_class_file(file, ("hall", "kitchen"))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_class_file(tmp_path / "absent.yaml", ("hall",))


def test_settings_are_plain_and_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FilterParameters().top_k = 5  # type: ignore[misc]
