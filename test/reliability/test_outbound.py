"""Nobody is told what the user does: no look-up, no connection, no file outside the folders that they named.

Each command and node runs with an audit hook in all of its Python processes, and with a home of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from demo_helpers import map_fewer
from evaluation_bags import write_bag
from ros_helpers import ROOT, Client, NodeProcess, own_environment, python_path, wait_until
from tiny_bundle import make_tiny_bundle
from train_data import configuration, make_labelled

from robot_vision.cli import VERBS
from robot_vision.ros import EXECUTABLES
from robot_vision.training.config_file import plain

# As Python imports it at each start, children included. A Unix socket reaches this machine alone.
HOOK = """
import json, os, sys

_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def _hook(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"):
        found = ["network", f"{event} {args[0]}"]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(args[1], (str, bytes)) or args[1] is None:
            return
        found = ["network", f"{event} {args[1]}"]
    elif event == "open" and isinstance(args[0], (str, bytes)) and args[2] & _WRITES:
        found = ["file", os.path.abspath(os.fsdecode(args[0]))]
    elif event == "os.mkdir":
        found = ["file", os.path.abspath(os.fsdecode(args[0]))]
    else:
        return
    os.write(_log, (json.dumps([sys.argv[:3], *found]) + "\\n").encode())

os.write(_log, (json.dumps([sys.argv[:1], "start", ""]) + "\\n").encode())
sys.addaudithook(_hook)
"""

# Runs commands one after the other: most of the time of a command is that of what it imports.
COMMANDS = f"""
import json, sys
{map_fewer(40)}
for words in json.loads(sys.stdin.read()):
    sys.argv[1:] = words
    if status := main(words):
        sys.exit(f"{{words}}: exit status {{status}}")
"""

DOCUMENTED = ("~/.cache/robot_vision", "~/.ros/log", "~/.cache/matplotlib", "~/.config/matplotlib")


class Watched:
    """A folder with a home, a place for temporary files, and the log of what processes did."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.work, self.home = folder / "work", folder / "home"
        self._log, hook = folder / "log", folder / "hook"
        for path in (self.work, self.home, hook):
            path.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        self.environment = {
            **{k: v for k, v in own_environment().items() if not k.startswith("XDG_")},
            "AUDIT_LOG": str(self._log),
            "HOME": str(self.home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": python_path(hook),
            "TMPDIR": str(temporary),
        }
        self.environment.pop("CI", None)  # where some libraries are silent by themselves
        # torch's compiler keeps its temporary files below /tmp whatever TMPDIR says.
        inductor = "/tmp/torchinductor_"
        self._allowed = (str(self.work), str(temporary), "/dev/", "/proc/", inductor)

    def run(self, commands: list[list[str]]) -> None:
        """Runs commands to their ends, in one process; those that they start are their own."""
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            cwd=self.work,
            env=self.environment,
            input=json.dumps(commands),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)

    def told(self) -> list[str]:
        """Returns each look-up and connection, with the command that made it."""
        return [f"{argv}: {text}" for argv, kind, text in self._events() if kind == "network"]

    def written(self) -> set[str]:
        """Returns what was written outside the folders that the user named, below ~ where it lies there."""
        paths = {text for _, kind, text in self._events() if kind == "file"}
        paths |= {str(path) for path in self.home.rglob("*") if path.is_file()}
        elsewhere = {path for path in paths if not path.startswith(self._allowed)}
        return {path.replace(str(self.home), "~") for path in elsewhere}

    def _events(self) -> list[tuple[list[str], str, str]]:
        lines = self._log.read_text().splitlines()
        assert lines, "no process had the hook"
        return [tuple(json.loads(line)) for line in lines]


def unnamed(paths: set[str]) -> set[str]:
    """Returns the paths that docs/security.md does not name, nor as parents of what it names."""
    text = (ROOT / "docs" / "security.md").read_text()
    assert all(f"`{folder}`" in text for folder in DOCUMENTED)
    return {
        path
        for path in paths
        if not any(
            f"{path}/".startswith(f"{folder}/") or folder.startswith(f"{path}/")
            for folder in DOCUMENTED
        )
    }


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with tempfile.TemporaryDirectory() as temporary:  # Ray's sockets allow no longer path
        yield Watched(tmp_path, Path(temporary))


def test_hook_sees_what_a_child_process_looks_up_and_writes(watched: Watched) -> None:
    child = "import socket; open('{}', 'w'); socket.getaddrinfo('localhost', 80)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}.format(sys.argv[1])])"
    command = [sys.executable, "-c", code, str(watched.home / "secret")]
    subprocess.run(command, env=watched.environment, check=True)
    assert len(watched.told()) == 1 and "localhost" in watched.told()[0]
    assert watched.written() == {"~/secret"}


@pytest.mark.slow
def test_openvino_loads_without_a_look_up_or_a_file(watched: Watched) -> None:
    pytest.importorskip("openvino")
    code = "import robot_vision, openvino; openvino.Core().available_devices"
    subprocess.run([sys.executable, "-c", code], env=watched.environment, check=True)
    assert not watched.told() and not watched.written()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_command_tells_anybody_or_writes_elsewhere(watched: Watched) -> None:
    work = watched.work
    bundle, bag = str(make_tiny_bundle(work / "bundle")), str(write_bag(work / "bag"))
    labelled = make_labelled(work / "labelled")
    others = str(make_labelled(work / "others", train=34, test=1, seed=1))
    pictures = [str(path) for path in sorted(labelled.rglob("*.png"))]
    config = configuration("image_folder", labelled, work / "run", loop={"epochs": 1})
    (work / "train.yaml").write_text(yaml.safe_dump(plain(config)))
    results = str(ROOT / "docs" / "benchmarks.json")
    model, bags, trained = ["--model", bundle], ["--bag", bag], ["run/bundle"]
    untrained = ["--torchvision", "mobilenet_v2", "--weights", "none"]
    calls: dict[str, list[list[str]]] = {
        "info": [[bundle]],
        "doctor": [["--seconds", "0.5"]],
        "infer": [[bag, *model, "--output", "answers.jsonl", "--annotate", "annotated"]],
        "evaluate": [[*bags, *model, "--output", "evaluation", "--jobs", "2"]],
        "stress": [[*bags, *model, "--every", "8", "--degradations", "blur", "--output", "stress"]],
        "filter": [[*bags, *model, "--resamples", "20", "--output", "filter"]],
        "init": [["project", "--data", str(labelled)]],
        "train": [["train.yaml"]],
        "export": [[*untrained, "--input", "96x96", "--out", "exported"]],
        "calibrate": [
            [*trained, "--data", "image_folder", others, "--split", "all", "--output", "calibrated"]
        ],
        "optimise": [
            [
                *(*trained, "--data", "image_folder", others, "--split", "all"),
                *("--programs", "int8", "--out", "optimised"),
            ]
        ],
        "profile": [[bag, *model, "--frames", "8", "--layers", "--output", "profile"]],
        "benchmark": [["--compare", results, results]],
        "explain": [["--model", "run/bundle", "--output", "explained", pictures[0]]],
        "view": [[bag, *model, "--output", "seen.rrd"]],
        "make-bag": [[str(labelled / "test" / "red"), "--out", "made"]],
        "map": [
            ["build", *model, "place.map", bag],
            ["info", "place.map"],
            ["check", "place.map"],
            ["export", "place.map", "--output", "keyframes.csv"],
            ["show", "place.map"],
            ["copy", "place.map", "copy.map"],
            ["prune", "copy.map", "--distance", "0.5"],
        ],
        "teach": [[bag, *model, "--output", "route", "--option", "camera_matrix=40,40,32,24"]],
        "data": [["formats"], ["inspect", "image_folder", str(labelled), "--output", "inspected"]],
        "drive": [
            ["evaluate", "--worlds", "1", "--metres", "2", "--output", "drive"],
            ["record", "--worlds", "1", "--metres", "1", "--out", "driven"],
        ],
        "demo": [["--duration", "3", "--output", "demo", "--headless"]],
    }
    assert calls.keys() == VERBS.keys() - {"pull"}  # which is for asking a host
    watched.run([[verb, *arguments] for verb, each in calls.items() for arguments in each])
    assert not watched.told()
    assert not unnamed(watched.written())


@pytest.mark.slow
@pytest.mark.ros
def test_no_node_tells_anybody_or_writes_elsewhere(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_msgs.msg import Classification

    work = watched.work
    bundle, bag = make_tiny_bundle(work / "bundle"), write_bag(work / "bag", count=10)
    for name, value in watched.environment.items():
        monkeypatch.setenv(name, value)
    parameters = {
        "perception_node": [f"model:={bundle}", "cameras:=[front]", "always_infer:=true"],
        "place_node": [
            f"map:={work / 'place.map'}",
            "mapping:=true",
            "pose_source:=pose",
            "camera:=front",
        ],
        "filter_node": ["cameras:=[front]"],
        "driver_node": ["camera:=front"],
        "repeat_node": [],
        "gate_node": [f"rules:={ROOT / 'config' / 'gate_rules.yaml'}"],
        "camera_player": [f"source:={bag}", "loop:=true"],
    }
    nodes = {
        name: NodeProcess(
            work / f"{name}.txt",
            EXECUTABLES[name],
            "--ros-args",
            *[word for value in values for word in ("-p", value)],
        )
        for name, values in parameters.items()
    }
    client = Client()
    try:
        answers = client.listen(Classification, "/perception/front/classification")
        wait_until(lambda: answers, what="an answer")
    finally:
        client.close()
        statuses = {name: node.stop() for name, node in nodes.items()}
    assert statuses == dict.fromkeys(nodes, 0), {name: n.output for name, n in nodes.items()}
    assert not watched.told()
    assert not unnamed(watched.written())
