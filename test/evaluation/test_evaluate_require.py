"""`robot-vision evaluate --require`: limits for a robot's CI, and what a CI reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from evaluation_bags import write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.errors import ConfigError
from robot_vision.evaluation.report.requirements import Requirement, RequirementVerdict, write_junit


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Evaluates a drive whose position errors are 0.1 m, and of whose classes 38 of 40 are right."""
    folder = tmp_path_factory.mktemp("require")
    bag = write_bag(folder / "drive", wrong=frozenset({4, 8}))
    bundle = make_tiny_bundle(folder / "tiny")
    given = ["evaluate", "--bag", str(bag), "--model", str(bundle), "--engine", "onnx"]
    given += ["--no-results-bag", "--output", str(folder / "out")]
    assert main(given) == 0
    return given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pose.median_m<=0.25", Requirement("pose.median_m", "<=", 0.25)),
        (" classification.top1 > 9e-1 ", Requirement("classification.top1", ">", 0.9)),
        ("lights.top1<inf", Requirement("lights.top1", "<", float("inf"))),
    ],
)
def test_forms_of_a_requirement(text: str, expected: Requirement) -> None:
    assert Requirement.of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "pose.median_m", "pose.median_m=0.2", "<=1", "pose.median_m<=nan", "a<b", "a<=1<=2"],
)
def test_other_forms_are_one_line_and_status_2(
    text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--require", text]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "'pose.median_m<=0.25'" in said[0]


@pytest.mark.parametrize(
    ("value", "sign", "kept"),
    [
        (1.0, "<=", True),
        (1.0, "<", False),
        (1.0, ">=", True),
        (1.0, ">", False),
        (None, "<", False),
    ],
)
def test_a_limit_itself_is_kept_by_the_signs_that_say_so(
    value: float | None, sign: str, kept: bool
) -> None:
    assert RequirementVerdict(Requirement("a.b", sign, 1.0), value).kept is kept


@pytest.mark.slow
def test_missed_limits_exit_3_and_stand_first(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["classification.top1>=0.9", "pose.median_m<=0.05", "classification.top1.low>=0.99"]
    given = [word for limit in limits for word in ("--require", limit)]
    assert main([*words, *given, "--junit", str(tmp_path / "ci" / "run.xml")]) == 3
    out = capsys.readouterr().out
    assert "kept: classification.top1 >= 0.9 (is 0.95)" in out
    assert "MISSED: pose.median_m <= 0.05 (is 0.1)" in out

    folder = Path(words[-1])
    said = json.loads((folder / "metrics.json").read_text())["requirements"]
    assert [each["kept"] for each in said] == [True, False, False]
    assert said[1]["value"] == pytest.approx(0.1, abs=1e-6)
    page = (folder / "report.html").read_text()
    assert page.index("2 of 3 requirements MISSED") < page.index("<h2>")

    root = ElementTree.parse(tmp_path / "ci" / "run.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "2")
    cases = root.findall("testsuite/testcase")
    assert [case.find("failure") is None for case in cases] == [True, False, False]
    assert cases[1].get("name") == "pose.median_m <= 0.05"


def test_kept_limits_exit_0_and_stand_in_a_pull_request(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--require", "pose.frames>=40", "--format", "markdown"]) == 0
    assert "- kept: pose.frames >= 40 (is 40)" in capsys.readouterr().out


@pytest.mark.slow
def test_limits_hold_for_merged_evaluations(words: list[str], tmp_path: Path) -> None:
    merge = ["evaluate", "merge", f"{words[-1]}/metrics.json", "--output", str(tmp_path)]
    assert main([*merge, "--require", "pose.median_m<=0.2"]) == 0
    assert main([*merge, "--require", "pose.median_m<=0.02"]) == 3


def test_what_could_not_be_measured_is_missed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--no-poses", "--require", "pose.median_m<=100"]) == 3
    assert "MISSED: pose.median_m <= 100 (could not be measured)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("poses.median_m<=1", "pose"),
        ("pose.median<=1", "median_m"),
        ("pose.median_m.middle<=1", "high"),
        ("pose<=1", "median_m"),
        ("frames>=1", "pose"),
    ],
)
def test_unknown_numbers_are_refused_with_those_that_there_are(
    limit: str, named: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--require", limit]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "--require" in line]
    assert len(said) == 1 and named in said[0]


def test_sections_are_checked_before_the_work(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robot_vision.cli.evaluate._predicted", None)
    assert main([*words, "--require", "poses.median_m<=1"]) == 2


def test_junit_needs_limits(words: list[str], tmp_path: Path) -> None:
    assert main([*words, "--junit", str(tmp_path / "run.xml")]) == 2
    assert not (tmp_path / "run.xml").exists()


def test_junit_is_xml_whatever_a_recording_is_called(tmp_path: Path) -> None:
    verdict = RequirementVerdict(Requirement("a.<\x07b>", "<", 1.0), 2.0)
    write_junit(tmp_path / "run.xml", "bag \x07 \udcff <&>", [verdict])
    suite = ElementTree.parse(tmp_path / "run.xml").getroot()[0]
    assert suite.get("name") == "bag ? ? <&>" and suite[0].get("name") == "a.<?b> < 1"


def test_junit_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--junit"):
        write_junit(tmp_path / "file" / "run.xml", "x", [])


def test_a_value_that_misses_by_little_is_not_shown_as_the_limit() -> None:
    verdict = RequirementVerdict(Requirement("pose.median_m", "<=", 0.2500001), 0.2500002)
    assert str(verdict) == "MISSED: pose.median_m <= 0.2500001 (is 0.2500002)"
