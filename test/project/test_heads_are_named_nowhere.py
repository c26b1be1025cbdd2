"""Outside heads/ no code names a head, its answers or its outputs.

Read are imports, strings, attributes and keywords. Words that mean other things too, such as a place of the
map, are looked for in the rooms that serve all heads alike and not in the rooms that live on one of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from robot_vision.contract import registry
from robot_vision.contract.epistemic import EpistemicSpec

PACKAGE = Path(__file__).resolve().parents[2] / "robot_vision"

# What lives on the answers of one head, and names it on purpose.
CONSUMERS = (
    "places/",
    "filters/",
    "gate/",
    "driving/",
    "studies/",
    "demo/",
    "ros/localising/",
    "ros/places/",
    "ros/filters/",
    "cli/map/",
    "cli/demo.py",
    "cli/filter.py",
    "cli/make_bag/",  # counts poses
    "calibration/old_graphs.py",  # graphs from before constants had names: they had these heads
    "evaluation/predict/columns.py",  # format robot_vision.predictions/1 has the columns of these heads
)
# The ground, formats of files, and robots: a pose, a collision or a class label is there what it is anywhere.
GROUND = (
    "backbones/",
    "charts/",
    "datasets/",
    "files/",
    "geometry/",
    "images/",
    "labelling/",
    "messages/",
    "recordings/",
    "ros/node/",
    "ros/player/",
    "ros/simulation/",
    "simulation/",
    "statistics/",
    "truth/",
    "viewing/",
)


def _words() -> set[str]:
    """Returns the names of all built-in heads, of their answers and of their outputs."""
    words: set[str] = set()
    for kind in registry.BUILT_IN:
        head = registry.head(kind)
        spec = head.example()
        words |= {kind, head.answer_key, *head.outputs(spec, EpistemicSpec(passes=2))}
    return words


def _named(path: Path, words: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "robot_vision.heads"
        ):
            yield f"imports {node.module}"
        elif isinstance(node, ast.Constant) and node.value in words:
            yield f"string {node.value!r} in line {node.lineno}"
        elif isinstance(node, ast.Attribute) and node.attr in words:
            yield f"attribute {node.attr} in line {node.lineno}"
        elif isinstance(node, ast.keyword) and node.arg in words:
            yield f"keyword {node.arg} in line {node.value.lineno}"


def test_no_file_outside_heads_names_one() -> None:
    words, found = _words(), {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if name.startswith(("heads/", *CONSUMERS, *GROUND)) or name == "contract/registry.py":
            continue
        if lines := list(_named(path, words)):
            found[name] = lines
    assert not found


def test_every_exception_is_needed() -> None:
    words = _words()
    for room in CONSUMERS:
        files = [PACKAGE / room] if room.endswith(".py") else sorted((PACKAGE / room).rglob("*.py"))
        assert any(list(_named(path, words)) for path in files), room


@pytest.mark.parametrize("room", GROUND)
def test_the_ground_imports_no_head(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert not list(_named(path, set())), path
