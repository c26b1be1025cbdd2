"""What users have built on stays: topics, parameters, commands and JSON keys of commit c44c9b3.

public_names.json holds what the functions here found there. More may come, and nothing may go.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation_bags import write_bag
from ros_helpers import ROOT, python_path
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import VERBS, main
from robot_vision.settings.parameters import settings

KNOWN = json.loads((Path(__file__).parent / "public_names.json").read_text())
NODES = {
    "camera_player": ("player", "PlayerParameters", ""),
    "filters": ("filters", "FilterParameters", "FilterNode"),
    "perception": ("perception", "PerceptionParameters", "PerceptionNode"),
    "places": ("places", "PlaceParameters", "PlaceNode"),
}
# Defaults of parameters that were changed on purpose: topics that are now relative to the node's namespace
# (the same without one), what was measured again, auto, which is float32 for a bundle without programs, and
# export's --input, which is still 224x224 except for --from.
CHANGED = {
    "perception_node": "perception",
    "initialpose_topic": "initialpose",
    "odometry_position_per_m": 0.022,
    "odometry_rotation_per_m_deg": 0.5,
    "odometry_rotation_per_rad_deg": 1.1,
    "turn_deg_s": 45.0,
    "precision": "auto",
    "streams": 0,
    "--precision": "auto",
    "--pose-turn-deg-s": "45.0",
    "--input": "None",
}


def missing(known: Any, found: Any, at: str = "") -> list[str]:
    """Returns what of the known is not found as it was."""
    if isinstance(known, dict) and isinstance(found, dict):
        gone = [f"{at} {name}" for name in known if name not in found]
        both = [name for name in known if name in found]
        return [
            *gone,
            *(m for name in both for m in missing(known[name], found[name], f"{at} {name}")),
        ]
    if found == known:
        return []
    return [f"{at}: {found!r}, where it was {known!r}"]


@pytest.mark.parametrize("node", NODES)
def test_parameters_keep_names_types_defaults_and_times(node: str) -> None:
    folder, cls, _ = NODES[node]
    module = importlib.import_module(f"robot_vision.ros.{folder}.parameters")

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return list(value)
        return "nan" if isinstance(value, float) and math.isnan(value) else value

    found = {s.name: [s.kind, plain(s.default), s.change] for s in settings(getattr(module, cls))}
    known = {
        name: [kind, CHANGED.get(name, default), change]
        for name, (kind, default, change) in KNOWN["parameters"][node].items()
    }
    assert not missing(known, found)


@pytest.mark.parametrize("verb", KNOWN["commands"])
def test_commands_keep_their_options_and_defaults(verb: str) -> None:
    def options(parser: argparse.ArgumentParser) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found["verbs"] = {name: options(sub) for name, sub in action.choices.items()}
            elif action.dest != "help":
                found[" ".join(action.option_strings) or action.dest] = str(action.default)
        return found

    assert verb in VERBS
    parser = argparse.ArgumentParser()
    importlib.import_module(f"robot_vision.cli.{verb.replace('-', '_')}").add_arguments(parser)
    known = {name: CHANGED.get(name, default) for name, default in KNOWN["commands"][verb].items()}
    assert not missing(known, options(parser))


def paths(data: Any, at: str = "") -> Iterator[str]:
    """Gives the way to each value of plain data."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from paths(value, f"{at}.{key}" if at else key)
    elif isinstance(data, list) and data:
        for value in data:
            yield from paths(value, at + "[]")
    else:
        yield at


@pytest.mark.slow
def test_json_of_infer_and_evaluate_keeps_its_keys(tmp_path: Path) -> None:
    model, bag = str(make_tiny_bundle(tmp_path / "tiny")), str(write_bag(tmp_path / "drive"))
    words = ["--model", model, "--engine", "onnx"]
    assert main(["infer", *words, bag, "--output", str(tmp_path / "lines.jsonl")]) == 0
    line = (tmp_path / "lines.jsonl").read_text().splitlines()[0]
    assert set(KNOWN["infer"]) <= set(paths(json.loads(line)))
    words += ["--label-topic", "/truth/room", "--pose-topic", "/truth/pose", "--resamples", "20"]
    words += ["--no-cache", "--output", str(tmp_path / "out")]
    assert main(["evaluate", "--bag", bag, *words]) == 0
    found = set(paths(json.loads((tmp_path / "out" / "metrics.json").read_text())))
    assert not set(KNOWN["metrics"]) - found


@pytest.mark.slow
@pytest.mark.ros
def test_nodes_keep_their_topics_and_services(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    model = make_tiny_bundle(tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, __file__, str(model)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": python_path(ROOT, ROOT / "test" / "support")},
    )
    assert done.returncode == 0, done.stderr
    assert not missing(KNOWN["topics"], json.loads(done.stdout.splitlines()[-1]))


def topics(node: str, model: Path) -> dict[str, dict[str, str]]:
    """Returns what an active node publishes, subscribes to and serves, with types."""
    from rclpy.parameter import Parameter

    folder, _, cls = NODES[node]
    values = {
        "perception": {"model": str(model), "engine": "onnx"},
        "places": {"map": str(model.parent / "map.db")},
    }.get(node, {})
    made = getattr(importlib.import_module(f"robot_vision.ros.{folder}.node"), cls)(
        parameter_overrides=[
            Parameter(name, value=value) for name, value in {"autostart": False, **values}.items()
        ]
    )
    made.trigger_configure()
    made.trigger_activate()
    name = made.get_name(), made.get_namespace()
    found = {
        "publishes": made.get_publisher_names_and_types_by_node(*name),
        "subscribes": made.get_subscriber_names_and_types_by_node(*name),
        "services": made.get_service_names_and_types_by_node(*name),
    }
    made.trigger_deactivate()
    made.trigger_cleanup()
    return {what: {topic: kinds[0] for topic, kinds in each} for what, each in found.items()}


if __name__ == "__main__":
    import rclpy

    rclpy.init()
    print(json.dumps({node: topics(node, Path(sys.argv[1])) for node in KNOWN["topics"]}))
