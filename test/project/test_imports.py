"""Imports point one way: no file imports from a room above its own, and no files import in a circle.

All imports are read, those inside functions and under `TYPE_CHECKING` too.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "robot_vision"

# From the ground up; the rooms of one line know nothing of each other. `check` is contract/check.py, which
# tries a head with all that is below the command line.
FLOORS = """
text
errors
tracing files settings charts statistics
geometry
images messages
recordings contract backbones
heads
truth bundle annotate viewing
datasets networks filters gate
driving labelling
engines
pipeline
places evaluation calibration
optimising
training
studies doctor simulation
ros
demo
cli
check
"""
CHECK = "contract.check"
ROOMS = {room: floor for floor, line in enumerate(FLOORS.split("\n")) for room in line.split()}

# Imports that go upwards still; each line goes with the step that ends it.
PENDING = """
"""

# Who may import what not every robot or laptop has.
ROS = ("ros/", "demo/monitor.py", "demo/play.py", "cli/demo.py", "contract/check.py")
OF_TRAINING = ("torch", "torchvision", "lightning_fabric", "scipy", "sklearn")
TORCH = (
    "backbones/",
    "contract/batches.py",
    "contract/check.py",
    "contract/constants.py",
    "contract/losses.py",
    "contract/pooling.py",
    "contract/several.py",
    "contract/training.py",
    "heads/",
    "networks/",
    "training/",
    "engines/torch.py",
    "studies/alike.py",
    "studies/explain.py",
    "cli/explain.py",
    "cli/export/",
    "cli/train.py",
)


@functools.cache
def _modules() -> dict[str, Path]:
    """Returns each module's dotted name below the package; a package is called like its folder."""
    paths = {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        ".".join(name.with_suffix("").parts).removesuffix("__init__").rstrip("."): path
        for name, path in paths.items()
    }


@functools.cache
def _imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return found


@functools.cache
def _edges() -> dict[str, set[str]]:
    """Returns each module's imports from the package."""
    found: dict[str, set[str]] = {}
    for name, path in _modules().items():
        found[name] = set()
        for full in _imports(path):
            if full.partition(".")[0] == PACKAGE.name:
                inner = full.partition(".")[2]
                inner = inner if inner in _modules() else inner.rpartition(".")[0]
                found[name] |= {inner} - {name, ""}
    return found


def _room(module: str) -> str:
    return "check" if module == CHECK else module.partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {_room(name) for name in _modules() if name} == set(ROOMS)


def test_no_file_imports_from_a_room_above_its_own() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in _edges().items()
        for other in others
        if name and _room(name) != _room(other) and ROOMS[_room(name)] <= ROOMS[_room(other)]
    ]
    assert sorted(wrong) == sorted(filter(None, PENDING.split("\n")))


def test_no_files_import_in_a_circle() -> None:
    reached: dict[str, set[str]] = {}
    for name in _edges():
        seen, todo = set(), [name]
        while todo:
            new = _edges()[todo.pop()] - seen
            seen |= new
            todo += new
        reached[name] = seen
    circles = {
        f"{_room(name)}: " + " ".join(sorted(o.rpartition(".")[2] for o in others))
        for name in _edges()
        if (others := {other for other in reached[name] if name in reached[other]})
    }
    assert not circles


def test_ros_and_torch_are_imported_where_they_may_be() -> None:
    wrong = []
    for path in _modules().values():
        name = str(path.relative_to(PACKAGE))
        for full in _imports(path):
            top = full.partition(".")[0]
            if (top == "rclpy" or top.endswith("_msgs")) and not name.startswith(ROS):
                wrong.append(f"{name}: {full}")
            if top in OF_TRAINING and not name.startswith(TORCH):
                wrong.append(f"{name}: {full}")
    assert not wrong


def test_no_folder_holds_more_than_twenty_modules() -> None:
    counts = {
        str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py")))
        for folder in [PACKAGE, *PACKAGE.rglob("*/")]
    }
    assert {name: count for name, count in counts.items() if count > 20} == {}
    assert counts["."] == 5


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by their names alone, and leaves the second out with an error."""
    names = [path.name for path in (PACKAGE.parent / "test").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
