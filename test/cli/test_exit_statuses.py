"""The exit statuses of docs/reference/commands.md hold for every verb: 2 and one line, 3, 130."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from evaluation_bags import write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import VERBS, main

# Words that are understood and cannot be done. MODEL, BAG and IMAGE are whole; ABSENT is not there, BROKEN a
# file of the wrong content, EMPTY an empty folder, PIPE a pipe that nobody writes to, NEW a path where
# something may be written.
REFUSED = {
    "infer": ["--model ABSENT IMAGE", "--model EMPTY IMAGE", "--model MODEL ABSENT"]
    + ["--model MODEL PIPE", "--model MODEL BAG --annotate BAG"],
    "evaluate": [
        *("--bag PIPE --model MODEL", "--bag BAG --model MODEL --output BAG"),
        *("--bag ABSENT --model MODEL", "--bag BAG --model EMPTY", "--bag EMPTY --model MODEL"),
        *("merge BROKEN", "--bag BAG --model MODEL --require pose", "--output NEW"),
        "--bag BAG --model MODEL --output NEW/a/b --compare BROKEN",
    ],
    "stress": [
        *("--bag ABSENT --model MODEL --output NEW", "--bag BAG --model EMPTY --output NEW"),
        *("--bag PIPE --model MODEL --output NEW", "--bag BAG --model MODEL --output BAG"),
    ],
    "filter": [
        *("--bag ABSENT --model MODEL --output NEW", "--bag BAG --model EMPTY --output NEW"),
        *("--bag PIPE --model MODEL --output NEW", "--bag BAG --model MODEL --output BAG"),
    ],
    "info": ["ABSENT", "EMPTY", "BROKEN"],
    "doctor": ["--seconds none"],
    "export": [
        "ABSENT --out NEW",
        "BROKEN --out NEW",
        "--triton EMPTY --out NEW",
        "--xfeat ABSENT --out NEW",
    ],
    "pull": ["no_repository --output NEW", "user/name --output EMPTY", "a/b/c"],
    "init": ["NEW --data ABSENT", "NEW --data EMPTY"],
    "train": ["ABSENT", "BROKEN", "EMPTY"],
    "calibrate": [
        *(
            "ABSENT --output NEW",
            "MODEL --bag ABSENT --output NEW",
            "MODEL --bag PIPE --output NEW",
        ),
    ],
    "optimise": ["ABSENT --data image_folder EMPTY", "MODEL --data image_folder ABSENT"],
    "profile": [
        "--model MODEL PIPE --output NEW",
        "--model ABSENT BAG --output NEW",
        "--model MODEL ABSENT --output NEW",
    ],
    "benchmark": ["--compare ABSENT BROKEN", "--compare BROKEN BROKEN"],
    "view": [
        "PIPE --output NEW",
        "ABSENT --output NEW",
        "EMPTY --output NEW",
        "--map BROKEN --output NEW",
    ],
    "explain": ["--model EMPTY IMAGE --output NEW", "--model MODEL ABSENT --output NEW"],
    "make-bag": ["ABSENT --out NEW", "EMPTY --out NEW"],
    "map": [
        *("info ABSENT", "info BROKEN", "build NEW ABSENT --model MODEL", "check BROKEN"),
        *("update ABSENT BAG --model MODEL", "update BROKEN BAG --model MODEL"),
        *("info PIPE", "build NEW PIPE --model MODEL"),
    ],
    "teach": [
        *("ABSENT --model MODEL --output NEW", "EMPTY --model MODEL --output NEW"),
        *(
            "PIPE --model MODEL --output NEW",
            "BAG --model EMPTY --output NEW",
            "BAG --model MODEL --output BROKEN",
            "BAG --model MODEL",
        ),
    ],
    "data": [
        *("inspect image_folder ABSENT", "inspect no_such_kind EMPTY", "formats no_such_kind"),
        "inspect rosbag PIPE",
        *(
            "label PIPE --collision --out NEW",
            "label ABSENT --out NEW",
            "label BAG --collision --robot-width 1 --out NEW",
        ),
    ],
    "drive": [
        *("evaluate --output BROKEN", "record --out BROKEN", "evaluate --driver no_such"),
        *(
            "bag --out EMPTY",
            "bag --out NEW --day -1",
            "repeat --model EMPTY",
            "repeat --output BROKEN",
        ),
    ],
    "demo": ["--model ABSENT", "--model EMPTY", "--rate none"],
}
CASES = [(verb, words) for verb, each in REFUSED.items() for words in each]
# Words with which a verb begins its work.
BEGUN = {
    "infer": "--model MODEL IMAGE",
    "evaluate": "--bag BAG --model MODEL --output NEW",
    "stress": "--bag BAG --model MODEL --output NEW",
    "filter": "--bag BAG --model MODEL --output NEW",
    "info": "MODEL",
    "doctor": "",
    "export": "BROKEN --out NEW",
    "pull": "no_repository --output NEW",
    "init": "NEW --data BAG",
    "train": "BROKEN",
    "calibrate": "MODEL --bag BAG --output NEW",
    "optimise": "MODEL --data image_folder EMPTY",
    "profile": "--model MODEL BAG --output NEW",
    "benchmark": "--compare BROKEN BROKEN",
    "view": "BAG --output NEW",
    "explain": "--model MODEL IMAGE --output NEW",
    "make-bag": "EMPTY --out NEW",
    "map": "info BROKEN",
    "teach": "BAG --model MODEL --output NEW",
    "data": "inspect image_folder EMPTY",
    "drive": "record --out NEW",
    "demo": "",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import cv2

    root = tmp_path_factory.mktemp("world")
    (root / "empty").mkdir()
    (root / "broken.txt").write_text("{ no: [such, content\n")
    os.mkfifo(root / "pipe.mcap")
    cv2.imwrite(str(root / "image.png"), np.zeros((32, 48, 3), np.uint8))
    return {
        "MODEL": make_tiny_bundle(root / "model"),
        "BAG": write_bag(root / "bag", count=8),
        "IMAGE": root / "image.png",
        "ABSENT": root / "absent",
        "EMPTY": root / "empty",
        "BROKEN": root / "broken.txt",
        "PIPE": root / "pipe.mcap",
    }


def spoken(verb: str, words: str, world: dict[str, Path], new: Path) -> list[str]:
    names = {**world, "NEW": new}
    return [verb, *re.sub(r"\b[A-Z]{3,}\b", lambda m: str(names[m[0]]), words).split()]


def test_every_verb_is_tried() -> None:
    assert set(REFUSED) == set(BEGUN) == set(VERBS)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "words"), CASES, ids=[f"{v} {w}" for v, w in CASES])
def test_what_cannot_be_done_is_one_line_and_2(
    verb: str,
    words: str,
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(spoken(verb, words, world, tmp_path / "new"))
    except SystemExit as error:  # argparse's
        status = int(error.code or 0)
    said = capsys.readouterr().err
    assert status == 2, said
    lines = [line for line in said.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert lines[-1].startswith(f"robot-vision {verb}") and "Traceback" not in said
    assert len(lines) == 1, said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "infer imgs --model demo --limt 3",
            "robot-vision infer: error: .*--limt .did you mean --limit",
        ),
        (
            "map info home.map --jsn=1",
            "robot-vision map info: error: .*--jsn=1 .did you mean --json",
        ),
        (
            "info demo --no-such-option",
            "info: error: unrecognized arguments: --no-such-option .robot",
        ),
        ("infer imgs --model demo --limit 1e3", "--limit: invalid whole number value: '1e3'"),
        ("nope", "robot-vision: error: .*invalid choice: 'nope'"),
        ("infer imgs --modle demo", "required: --model; there is no --modle .did you mean --model"),
        ("map build home.map --foo", "map build: error: .*required: .*; there is no --foo .robot"),
    ],
)
def test_what_the_parser_refuses_is_one_line_with_what_was_meant(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1 and re.search(said, line), line


@pytest.mark.slow
def test_what_is_given_again_is_said(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--bag ABSENT --bag BAG --model MODEL --model MODEL --limit 3 --limit 2 --output NEW"
    assert main(spoken("stress", words, world, tmp_path / "stressed")) == 0
    again = [line for line in capsys.readouterr().err.splitlines() if "given again" in line]
    assert again == [
        f"note: --bag is given again: {world['BAG']} counts, and not {world['ABSENT']}"
    ]
    words = "--bag BAG --bag BAG/ --model MODEL --output NEW"
    assert main(spoken("evaluate", words, world, tmp_path / "new")) == 0
    assert f"note: {world['BAG']} is given 2 times: it counts once\n" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--no-such-option"])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "error: " in line


@pytest.mark.parametrize(
    "words",
    [
        ["infer", "--model", "", "image.jpg"],
        ["infer", "--model", "demo", "image.jpg", "--annotate="],
        ["explain", "--model", "demo", "image.jpg", "--output", ""],
        ["init", ""],
        ["info", ""],
        ["map", "copy", "home.map", ""],
    ],
)
def test_an_empty_word_is_not_the_folder_where_one_stands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "it is empty" in capsys.readouterr().err


def test_no_verb_and_an_unknown_one_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["no_such_verb"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_is_one_line_and_130(
    verb: str,
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The signal itself arrives as the verb begins its work."""
    if verb == "demo":
        pytest.importorskip("rclpy")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"robot_vision.cli.{verb.replace('-', '_')}")
    sent = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is module.run.__code__ and not sent:
            sent.append(verb)
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(look)
    try:
        status = main(spoken(verb, BEGUN[verb], world, tmp_path / "new"))
    finally:
        sys.setprofile(None)
    said = capsys.readouterr().err
    assert sent and status == 130, said
    assert len(said.splitlines()) == 1 and said.startswith("interrupted"), said


@pytest.mark.slow
def test_a_missed_limit_is_3(world: dict[str, Path], tmp_path: Path) -> None:
    words = spoken("evaluate", "--bag BAG --model MODEL --no-results-bag", world, tmp_path)
    words += ["--output", str(tmp_path / "out")]
    assert main([*words, "--require", "pose.median_m<=0.2"]) == 0
    assert main([*words, "--require", "pose.median_m<=0.05"]) == 3


def test_one_of_several_that_cannot_be_read_is_1(world: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    words = spoken("infer", "--model MODEL IMAGE", world, tmp_path)
    assert main([*words, str(tmp_path / "torn.png")]) == 1
