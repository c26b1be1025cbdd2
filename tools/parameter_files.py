"""Parameter files, and tables of the docs: `python -m tools.parameter_files` writes config."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from robot_vision.contract import registry
from robot_vision.contract.topics import UNCERTAINTY
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.repeating.parameters import RepeatParameters
from robot_vision.ros.simulation.parameters import SimulatorParameters
from robot_vision.ros.viewer.parameters import ViewerParameters
from robot_vision.settings.parameters import (
    CHANGE_TEXT,
    CONFIGURE,
    LIVE,
    NEVER,
    Setting,
    settings,
)

CONFIG = Path(__file__).resolve().parents[1] / "config"
# By the name of the file: the node, and its parameters.
FILES: dict[str, tuple[str, type]] = {
    "driving": ("driver", DriverParameters),
    "filters": ("filter", FilterParameters),
    "gate": ("gate", GateParameters),
    "localising": ("localiser", LocaliserParameters),
    "perception": ("perception", PerceptionParameters),
    "places": ("place", PlaceParameters),
    "repeating": ("repeat", RepeatParameters),
    "simulation": ("simulator", SimulatorParameters),
    "viewer": ("viewer", ViewerParameters),
}


def yaml_text(name: str) -> str:
    """Returns the file of this name: every parameter of a node at its default, explained."""
    node, parameters = FILES[name]
    lines = [
        f"# Parameters of the {node} node, all at their defaults.",
        "# Written by: python -m tools.parameter_files",
        "/**:",
        "  ros__parameters:",
    ]
    for s in settings(parameters):
        text = textwrap.wrap(
            " ".join(_about(s)), 90, break_long_words=False, break_on_hyphens=False
        )
        lines += [*(f"    # {line}" for line in text), f"    {s.name}: {_yaml(s.default)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def markdown_table(cls: type, *shared: type) -> str:
    """Returns the parameters as a Markdown table, without those that are the same in a class of `shared`."""
    lines = ["| parameter | type | default | meaning | change |", "| --- | --- | --- | --- | --- |"]
    words = {LIVE: "live", CONFIGURE: "at configure", NEVER: "at start"}
    elsewhere = [s for other in shared for s in settings(other)]
    for s in settings(cls):
        if s in elsewhere:
            continue
        kind = s.kind.replace("tuple[", "").replace(", ...]", "[]").replace("str", "string")
        about = " ".join(_about(s, change=False)).replace("|", "\\|")
        lines.append(
            f"| `{s.name}` | {kind} | `{_yaml(s.default)}` | {about} | {words[s.change]} |"
        )
    return "\n".join(lines) + "\n"


def topic_rows() -> list[str]:
    """Returns the rows of heads in the docs' tables of topics."""
    rows = []
    for topics in (*(head.topics(None) for head in registry.installed()), (UNCERTAINTY,)):
        for t in topics:
            name = t.name if t.name.startswith("/") else f"~/<camera>/{t.name}"
            kind = "tf2_msgs/TFMessage" if t.name == "/tf" else t.kind.replace("/msg/", "/")
            form = f", {t.form}" if t.form else ""
            rows.append(f"| `{name}` | `{kind}`{form} | {t.text} |")
    return rows


def _about(setting: Setting, change: bool = True) -> list[str]:
    allowed = setting.allowed
    words = [setting.text, allowed and f"{allowed[0].upper()}{allowed[1:]}."]
    return [w for w in (*words, CHANGE_TEXT[setting.change] if change else "") if w]


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return ".nan" if math.isnan(value) else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(v) for v in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    for file in FILES:
        (CONFIG / f"{file}.yaml").write_text(yaml_text(file), encoding="utf-8")
