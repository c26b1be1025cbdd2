"""Parameter files for other nodes: ROS ignores them, and this package says so."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_helpers import running, wait_until

from robot_vision.ros.node.parameter_files import ignored_sections

BODY = "ros__parameters: {top_k: 5}"


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("/**: {%s}", "/perception"),
        ("/**: {%s}", "/robot1/left/perception"),
        ("/*: {%s}", "/perception"),
        ("perception: {%s}", "/perception"),
        ("/robot1/perception: {%s}", "/robot1/perception"),
        ("robot1: {perception: {%s}}", "/robot1/perception"),
        ("/robot1/*: {%s}", "/robot1/perception"),
        ("/**/perception: {%s}", "/robot1/a/perception"),
        ("amcl: {%s}\nperception: {%s}", "/perception"),
        ("", "/perception"),
    ],
)
def test_files_that_name_the_node_are_not_mentioned(tmp_path: Path, text: str, node: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text.replace("%s", BODY))
    assert ignored_sections(["x", "--ros-args", "--params-file", str(file)], [node]) == []


@pytest.mark.parametrize(
    ("text", "node", "said"),
    [
        ("perceptoin: {%s}", "/perception", "is ignored: its parameters are of /perceptoin"),
        ("perception: {%s}", "/robot1/perception", "of /perception and not of /robot1/perception"),
        ("/*: {%s}", "/robot1/perception", "of /* and not of /robot1/perception"),
        ("a: {%s}\nb: {c: {%s}}", "/perception", "are of /a, /b/c and not of /perception"),
        ("/**: {%s}\nperceptions: {%s}", "/perception", "its section /perceptions is ignored"),
    ],
)
def test_files_and_sections_of_another_name_are_named(
    tmp_path: Path, text: str, node: str, said: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text.replace("%s", BODY))
    (line,) = ignored_sections(["--params-file", str(file)], [node])
    assert said in line and str(file) in line and f"name a section {node}" in line


@pytest.mark.ros
@pytest.mark.slow
def test_a_node_says_what_of_its_parameters_is_ignored(tmp_path: Path) -> None:
    """In the process of both nodes: each has arguments of its own."""
    wrong, odd = tmp_path / "wrong.yaml", tmp_path / "odd.yaml"
    wrong.write_text("eyes: {ros__parameters: {top_k: 5}}")
    odd.write_text(
        "/**: {ros__parameters: {autostart: false, start_mapping: true, "
        "qos_overrides: {/places/pose: {publisher: {depth: 3}}}}}"
    )
    words = ["--perception", "--ros-args", "-p", "autostart:=false", "--params-file", str(wrong)]
    words += ["--places", "--ros-args", "--params-file", str(odd)]
    with running(tmp_path, "composed_nodes", *words) as (process, _):
        said = "qos_overrides./places/pose.publisher.depth is ignored"
        both = ("publish_reliability, publish_depth", said)
        wait_until(lambda: all(w in process.output for w in both), 60)
        assert f"{wrong} is ignored: its parameters are of /eyes" in process.output
        assert "Unknown parameter 'start_mapping'" in process.output
