"""`python -m benchmarks.results`: its commands are ours, and its page is that of its figures."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex

import pytest
import yaml

from benchmarks import results
from robot_vision.errors import ConfigError

SECTIONS = results.sections()


def steps():
    return [(name, step) for name, section in SECTIONS.items() for step in section["steps"]]


@pytest.mark.parametrize(("name", "step"), steps(), ids=lambda value: str(value)[:20])
def test_every_command_is_understood_and_makes_what_it_says(name, step):
    program, verb, *words = shlex.split(results.written(step["run"]))
    assert program == "robot-vision"
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"robot_vision.cli.{verb}").add_arguments(parser)
    args = parser.parse_args(words)
    folder = f"{results.WORK}/{name}"
    assert all(word.startswith(folder) for word in words if word.startswith(results.WORK))
    if verb == "train":
        data = yaml.safe_load((results.ROOT / args.config).read_text())
        assert data["heads"]
        assert step["makes"] == f"{args.output.removeprefix(results.WORK)[1:]}/bundle/bundle.yaml"


def test_every_figure_is_of_a_file_that_a_step_makes():
    for section in SECTIONS.values():
        made = {step["makes"] for step in section["steps"]}
        assert {of["file"] for of in section["figures"].values()} <= made


def test_every_figure_is_called_what_the_package_calls_it():
    files = (results.ROOT / "robot_vision").rglob("*.py")
    text = "\n".join(file.read_text() for file in files)
    for section in SECTIONS.values():
        for of in section["figures"].values():
            for key in of["keys"].split("/"):
                assert re.split(r"\d", key)[0] in text, of["keys"]


def test_the_page_is_that_of_the_figures():
    docs = results.ROOT / "docs"
    found = json.loads((docs / "results.json").read_text())
    assert set(found) <= set(SECTIONS)
    assert (docs / "results.md").read_text() == results.page(found)


def test_a_page_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(results.DATA, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["results", "--output", str(file)])
    monkeypatch.setattr(results, "make", lambda *given: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        results.main()
    assert ended.value.code == 2
    assert "name another folder" in capsys.readouterr().err


def test_a_step_is_done_once_and_a_figure_that_is_not_there_is_named(tmp_path):
    (tmp_path / "said").write_text('{"a": {"value": 0.5, "low": 0.4, "high": 0.6}}')
    command = f"cat {tmp_path}/said; echo x >> {tmp_path}/runs"
    section = {
        "steps": [{"run": command, "makes": "s/a.json", "printed": True}],
        "figures": {"A": {"file": "s/a.json", "keys": "a"}},
    }
    for _ in range(2):
        made = results.make(section, tmp_path)
    assert made["figures"] == {"A": {"value": 0.5, "low": 0.4, "high": 0.6}}
    assert (tmp_path / "runs").read_text() == "x\n"
    section["figures"]["B"] = {"file": "s/a.json", "keys": "a/b"}
    with pytest.raises(ConfigError, match="a.json has no a/b"):
        results.make(section, tmp_path)
    (tmp_path / "s/b.json").touch()  # what a step that was killed left behind is not made
    section["steps"].append({"run": "exit 3", "makes": "s/b.json"})
    with pytest.raises(ConfigError, match="`exit 3` ended with status 3"):
        results.make(section, tmp_path)
