"""The files for a public forge and for containers name what there is: make targets, paths, versions."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEVCONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
INSTALL = (ROOT / "docs" / "install.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXPRESSION = re.compile(r"\$\{\{ ?([\w.]+) ?\}\}")


def rows(job: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the values of a job's matrix, one dictionary for each machine."""
    matrix = job.get("strategy", {}).get("matrix", {})
    if "include" in matrix:
        return list(matrix["include"])
    return [{"ros": value} for value in matrix.get("ros", [])] or [{}]


def commands() -> list[str]:
    """Returns each line that the workflow runs, with every value of its matrix."""
    found = []
    for job in WORKFLOW["jobs"].values():
        for row in rows(job):
            for step in job["steps"]:
                text = EXPRESSION.sub(
                    lambda m, row=row: row[m[1].removeprefix("matrix.")], step.get("run", "")
                )
                found += text.splitlines()
    return found


def instructions() -> list[list[str]]:
    """Returns the Dockerfile's instructions as words, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip()]


def copied() -> list[str]:
    """Returns what the Dockerfile copies."""
    found = []
    for name, *words in instructions():
        if name == "COPY":
            found += [word for word in words[:-1] if not word.startswith("--")]
    return found


def test_every_make_target_exists() -> None:
    lines = [*commands(), DEVCONTAINER["postCreateCommand"]]
    named = [shlex.split(line)[1] for line in lines if line.startswith("make ")]
    assert {"lint", "docs", "test", "test-fast", "audit", "setup"} == set(named)
    assert set(named) <= TARGETS


def test_pythons_and_distributions_are_those_that_are_supported() -> None:
    matrix = rows(WORKFLOW["jobs"]["test"])
    pinned = {p.stem.removeprefix("py") for p in (ROOT / "constraints").glob("py*.txt")}
    assert {row["python"] for row in matrix} == pinned
    assert {row["ros"] for row in matrix} == {
        p.stem.removeprefix("ros-") for p in (ROOT / "constraints").glob("ros-*.txt")
    }
    robots = {row["ros"] for row in rows(WORKFLOW["jobs"]["robot"])}
    assert {f"With apt's ROS 2 ({', '.join(r.title() for r in sorted(robots))}" in INSTALL} == {
        True
    }
    (default,) = re.findall(r"^ARG ROS_DISTRO=(\w+)", DOCKERFILE, re.MULTILINE)
    assert default in robots


def test_jobs_have_what_a_forge_needs() -> None:
    triggers = WORKFLOW[True]  # YAML 1.1 reads "on" so, and forges do not
    assert set(triggers) == {"push", "pull_request"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for name, job in WORKFLOW["jobs"].items():
        assert job["runs-on"] and job["steps"], name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), (name, step)
            assert "@" in step.get("uses", "@")
        used = {m for m in EXPRESSION.findall(json.dumps(job)) if m.startswith("matrix.")}
        for row in rows(job):
            assert {u.removeprefix("matrix.") for u in used} == set(row), name


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert copied()
    for path in copied():
        assert (ROOT / path).exists(), path
        assert any(fnmatch.fnmatch(path, pattern) for pattern in allowed), path
    assert set(allowed) == set(copied())


def test_the_image_has_all_that_setup_reads() -> None:
    """The wheel is built of what is copied: setup.py reads these files and folders."""
    needed = {
        "setup.py",
        "package.xml",
        "README.md",
        "LICENSE",
        "resource",
        "launch",
        "config",
        "models",
    }
    assert {*needed, "robot_vision"} <= set(copied())


def test_dockerfile_and_workflow_install_as_the_page_for_robots_says() -> None:
    for text in (DOCKERFILE, "\n".join(commands())):
        assert "--skip-keys" in text
        for package in (
            "onnxruntime",
            "rosbags",
            "'rich>=13'",
            "openvino",
            "faiss-cpu",
            "'numpy<2'",
        ):
            assert package in text and package in INSTALL, package
        assert "colcon build --packages-select robot_vision" in text


def test_the_dockerfile_is_well_formed() -> None:
    known = {"ARG", "FROM", "SHELL", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    names = [words[0] for words in instructions()]
    assert set(names) <= known and names[:2] == ["ARG", "FROM"]
    for words in instructions():
        if words[0] in ("ENTRYPOINT", "CMD", "SHELL"):
            assert json.loads(" ".join(words[1:])), words
    command = json.loads(next(" ".join(w[1:]) for w in instructions() if w[0] == "CMD"))
    assert command[:3] == ["ros2", "launch", "robot_vision"]
    assert (ROOT / "launch" / command[3]).is_file()
    assert names.index("USER") < names.index("ENTRYPOINT"), "it does not run as root"


def test_shell_that_machines_run_can_be_read_by_bash() -> None:
    scripts = ["\n".join(commands()), (ROOT / "tools" / "container_entrypoint.sh").read_text()]
    scripts += [" ".join(words[1:]) for words in instructions() if words[0] == "RUN"]
    for script in scripts:
        done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
