"""What README and docs/reference say is true: tables are the code's, links exist, snippets run."""

import argparse
import importlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
REFERENCE = ROOT / "docs" / "reference"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")]


def headings(page):
    """Returns the anchors of a page's headings, as forges make them."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", lines, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, _, anchor in re.findall(r"\]\(([^)#:\s]*)(#?)([^)#:\s]*)\)", text):
        to = page if not target else page.parent / target
        assert to.exists(), target
        assert not anchor or anchor in headings(to), f"{target}#{anchor}"


def test_readme_is_short():
    assert len(README.splitlines()) <= 130


def test_every_verb_is_in_the_table_of_commands():
    commands = (REFERENCE / "commands.md").read_text()
    named = set(re.findall(r"^\| `robot-vision ([a-z-]+)", commands, flags=re.MULTILINE))
    assert named == set(VERBS)


@pytest.mark.parametrize("verb", ["map", "data", "drive"])
def test_the_table_of_commands_has_every_verb_of_a_verb(verb):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"robot_vision.cli.{verb}").add_arguments(parser)
    (verbs,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    commands = (REFERENCE / "commands.md").read_text()
    (named,) = re.findall(rf"^\| `robot-vision {verb} ([a-z|\\]+)", commands, flags=re.MULTILINE)
    assert set(named.split(r"\|")) == set(verbs.choices)


def test_the_graph_outputs_are_those_of_the_code():
    from robot_vision.bundle.bundle import ModelBundle

    page = (REFERENCE / "bundle.md").read_text()
    table = page.partition("| output | shape |")[2].partition("\n\n")[0]
    first = re.findall(r"^\| (`[^|]*`) \|", table, flags=re.MULTILINE)
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    demo = ModelBundle.load(ROOT / "models" / "demo")
    assert named == set(demo.spec.outputs)


def test_topics_of_heads_are_those_of_the_code():
    """They are in the README, or on a page of the head's own."""
    from robot_vision.contract import registry
    from tools.parameter_files import topic_rows

    pages = [ROOT / "docs" / f"{kind}.md" for kind in registry.BUILT_IN]
    text = README + "".join(page.read_text() for page in pages if page.exists())
    assert not [row for row in topic_rows() if row not in text]


@pytest.mark.slow
def test_the_pipeline_in_five_lines_answers(tmp_path):
    """Runs the code block as it stands, in the source tree."""
    import cv2

    (code,) = [block for block in PYTHON if "Pipeline" in block]
    (tmp_path / "models").symlink_to(ROOT / "models")
    cv2.imwrite(str(tmp_path / "image.jpg"), np.full((48, 64, 3), 90, np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "label=" in done.stdout


@pytest.mark.slow
@pytest.mark.ros
def test_the_planner_in_ten_lines_hears_the_node(tmp_path):
    """Runs the code block as it stands, with the real node and the real player."""
    import cv2

    (code,) = [block for block in PYTHON if "rclpy" in block]
    (tmp_path / "planner.py").write_text(code)
    (tmp_path / "frames").mkdir()
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 255
    cv2.imwrite(str(tmp_path / "frames" / "0.png"), blue)
    bundle = make_tiny_bundle(tmp_path / "bundle")
    node = [sys.executable, "-m", "robot_vision.ros.perception.node", "--ros-args"]
    player = [sys.executable, "-m", "robot_vision.ros.player.node", "--ros-args"]
    commands = [
        [*node, "-p", f"model:={bundle}"],
        [
            *player,
            "-p",
            f"source:={tmp_path / 'frames'}",
            "-p",
            "transport:=raw",
            "-p",
            "loop:=true",
        ],
        [sys.executable, "-u", str(tmp_path / "planner.py")],
    ]
    names = ("node", "player", "planner")
    processes = []
    for name, command in zip(names, commands, strict=True):
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            )
    try:
        end = time.monotonic() + 90  # three starts of Python on a busy machine
        heard = ""
        while "blue: 1.00" not in heard and time.monotonic() < end:
            time.sleep(0.2)
            heard = (tmp_path / "planner.log").read_text()
        said = "".join(f"{n}: {(tmp_path / f'{n}.log').read_text()[-1000:]}\n" for n in names)
        assert "blue: 1.00" in heard, said
        processes[-1].send_signal(signal.SIGINT)  # Ctrl-C
        status = processes[-1].wait(timeout=60)
        said = (tmp_path / "planner.log").read_text()
        assert status == 0 and "Traceback" not in said, said
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()  # how nodes end is the business of other tests
                process.wait()
