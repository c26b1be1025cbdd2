"""The example of a robot names the parameters, topics and arguments that there are, Nav2's too."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_vision.settings.parameters import build

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config" / "turtlebot"
LAUNCH = ROOT / "launch" / "turtlebot.launch.py"
OURS = yaml.safe_load((EXAMPLE / "robot_vision.yaml").read_text())
NAV2 = yaml.safe_load((EXAMPLE / "nav2.yaml").read_text())
NODES = {
    "perception": ("perception", "PerceptionParameters"),
    "places": ("places", "PlaceParameters"),
    "filters": ("filters", "FilterParameters"),
}

# Parameters that the sources of Nav2's branch kilted declare (August 2026), and those of
# kiwicampus/semantic_segmentation_layer that its README names (April 2026).
_COSTMAP = "plugins filters global_frame robot_base_frame"
_LAYERS = {
    "nav2_costmap_2d::ObstacleLayer": (
        "plugin enabled observation_sources combination_method footprint_clearing_enabled "
        "min_obstacle_height max_obstacle_height",
        "topic sensor_frame observation_persistence expected_update_rate data_type min_obstacle_height "
        "max_obstacle_height inf_is_valid marking clearing obstacle_max_range obstacle_min_range "
        "raytrace_max_range raytrace_min_range",
    ),
    "nav2_costmap_2d::InflationLayer": (
        "plugin enabled cost_scaling_factor inflate_around_unknown inflate_unknown inflation_radius",
        "",
    ),
    "nav2_costmap_2d::StaticLayer": ("plugin enabled map_subscribe_transient_local map_topic", ""),
    "semantic_segmentation_layer::SemanticSegmentationLayer": (
        "plugin enabled observation_sources",
        "segmentation_topic confidence_topic labels_topic pointcloud_topic class_types",
    ),
}
_MONITOR = (
    "base_frame_id odom_frame_id cmd_vel_in_topic cmd_vel_out_topic state_topic transform_tolerance "
    "source_timeout base_shift_correction stop_pub_timeout polygons observation_sources"
)
_POLYGON = (
    "type action_type points min_points enabled visualize polygon_pub_topic polygon_sub_topic "
    "footprint_topic slowdown_ratio linear_limit angular_limit time_before_collision simulation_time_step"
)
_SOURCE = "type topic enabled source_timeout obstacles_angle min_height max_height"
_MANAGER = (
    "autostart node_names bond_timeout bond_respawn_max_duration attempt_respawn_reconnection "
    "service_timeout"
)


def unknown(given: Any, known: str, named: Any = ()) -> list[str]:
    return [name for name in given if name not in known.split() and name not in named]


def topics() -> Iterator[tuple[str, str]]:
    """Yields topics that Nav2 takes from the nodes, and the type that it expects."""
    for name in ("local_costmap", "global_costmap"):
        values = NAV2[name][name]["ros__parameters"]
        for layer in (values[plugin] for plugin in values["plugins"]):
            for source in layer.get("observation_sources", "").split():
                given = layer[source]
                if "topic" in given:
                    yield given["topic"], f"sensor_msgs/{given['data_type']}"
                else:
                    yield given["segmentation_topic"], "sensor_msgs/Image"
                    yield given["confidence_topic"], "sensor_msgs/Image"
                    yield given["pointcloud_topic"], "sensor_msgs/PointCloud2"
                    page = (ROOT / "docs" / "segmentation.md").read_text()
                    assert f"`~/{given['labels_topic'].partition('/')[2]}`" in page
    monitor = NAV2["collision_monitor"]["ros__parameters"]
    for source in monitor["observation_sources"]:
        yield monitor[source]["topic"], "sensor_msgs/Range"


@pytest.mark.parametrize("node", NODES)
def test_parameters_of_our_nodes_are_known_and_allowed(node: str) -> None:
    folder, cls = NODES[node]
    module = importlib.import_module(f"robot_vision.ros.{folder}.parameters")
    build(getattr(module, cls), OURS[f"/**/{node}"]["ros__parameters"])
    assert set(OURS) == {f"/**/{name}" for name in NODES}


def test_parameters_of_nav2_are_those_that_it_declares() -> None:
    wrong = []
    for name in ("local_costmap", "global_costmap"):
        values = NAV2[name][name]["ros__parameters"]
        wrong += unknown(values, _COSTMAP, values["plugins"])
        for plugin in values["plugins"]:
            layer = values[plugin]
            own, of_source = _LAYERS[layer["plugin"]]
            sources = layer.get("observation_sources", "").split()
            wrong += unknown(layer, own, sources)
            for source in sources:
                classes = layer[source].get("class_types", ())
                wrong += unknown(layer[source], of_source, classes)
                for each in classes:
                    known = "classes base_cost max_cost mark_confidence"
                    wrong += unknown(layer[source][each], known)
    monitor = NAV2["collision_monitor"]["ros__parameters"]
    sources, polygons = monitor["observation_sources"], monitor["polygons"]
    wrong += unknown(monitor, _MONITOR, [*sources, *polygons])
    for each in polygons:
        wrong += unknown(monitor[each], _POLYGON)
        assert len(yaml.safe_load(monitor[each]["points"])) >= 3
    for each in sources:
        wrong += unknown(monitor[each], _SOURCE)
    wrong += unknown(NAV2["lifecycle_manager_perception"]["ros__parameters"], _MANAGER)
    assert not wrong


def test_topics_that_nav2_takes_are_those_of_the_nodes() -> None:
    """By the heads' own tables: the topic below ~/<camera>/, with its type."""
    from tools.parameter_files import topic_rows

    cameras = OURS["/**/perception"]["ros__parameters"]["cameras"]
    found = list(topics())
    assert len(found) == 6
    for topic, kind in found:
        node, _, rest = topic.partition("/")
        camera = rest.partition("/")[0]
        own = "~/" + (rest.replace(camera, "<camera>", 1) if camera in cameras else rest)
        assert node == "perception"
        assert any(row.startswith(f"| `{own}` | `{kind}`") for row in topic_rows()), (own, kind)


def test_the_manager_names_the_nodes_of_the_launch_file() -> None:
    pytest.importorskip("rclpy")
    manager = NAV2["lifecycle_manager_perception"]["ros__parameters"]
    assert set(manager["node_names"]) == set(NODES)
    from robot_vision.ros.node import bond

    assert manager["bond_timeout"] >= bond.TIMEOUT_S >= 10 * bond.PERIOD_S


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(EXAMPLE / "robot_vision.service")
    return found


def test_the_unit_starts_the_launch_file_with_arguments_that_it_has() -> None:
    shell = shlex.split(unit()["Service"]["ExecStart"])
    assert shell[:2] == ["/bin/bash", "-c"] and len(shell) == 3
    words = shlex.split(shell[2].rpartition("exec ")[2])
    assert words[:4] == ["ros2", "launch", "robot_vision", LAUNCH.name]
    tree = ast.parse(LAUNCH.read_text())
    (declared,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    ]
    names = [ast.literal_eval(key) for key in declared.keys]  # type: ignore[attr-defined]
    assert [word.partition(":=")[0] for word in words[4:]] == ["namespace", "model", "map"]
    assert {"namespace", "model", "map"} <= set(names)
    # It ends as launch files do, and comes back when it dies.
    assert unit()["Service"]["KillSignal"] == "SIGINT"
    assert unit()["Service"]["Restart"] == "on-failure"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "robot_vision.service"
    text = (EXAMPLE / copy.name).read_text()
    copy.write_text(re.sub(r"^User=.*\n", "", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
    )
    assert copy.name not in done.stderr, done.stderr
