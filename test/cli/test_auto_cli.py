"""Bundles with programs at the command line: what runs is chosen, named in every output, and compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_bags import position, write_bag
from program_bundle import certificate, make_program_bundle
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.evaluation.predict.recorded import read_results

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = {"slow": [], "int8": [certificate("onnx")]}
    return str(make_program_bundle(tmp_path / "bundle", {"slow": 1, "int8": 0}, given))


@pytest.fixture
def bag(tmp_path: Path) -> str:
    return str(write_bag(tmp_path / "drive", 6))


def infer(*words: str) -> list[dict]:
    out = Path(words[-1])
    assert main(["infer", *words[:-1], "--engine", "onnx", "--output", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_infer_names_what_ran_in_each_line(bundle, bag, tmp_path, capsys):
    lines = infer(bag, "--model", bundle, str(tmp_path / "auto.jsonl"))
    assert {(line["program"], line["engine"]) for line in lines} == {("int8", "onnx")}
    assert "note: int8 with onnx: " in capsys.readouterr().err
    number = [line["pose"]["position"] for line in lines] - np.array(
        [position(i) for i in range(6)]
    )
    assert np.allclose(number, 2, atol=1e-5)
    plain = str(make_tiny_bundle(tmp_path / "plain"))
    assert "program" not in infer(bag, "--model", plain, str(tmp_path / "plain.jsonl"))[0]
    assert "note" not in capsys.readouterr().err


def test_a_program_that_is_not_there_is_one_line_and_exit_status_2(bundle, bag, capsys):
    assert main(["infer", bag, "--model", bundle, "--engine", "onnx", "--precision", "int9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "use one of auto, float32, slow, int8, float16, bfloat16" in line


def test_evaluate_names_what_ran_and_compares_it(bundle, bag, tmp_path, capsys):
    words = ["evaluate", "--bag", bag, "--model", bundle, "--engine", "onnx", "--resamples", "10"]
    words += ["--label-topic", "/truth/room", "--pose-topic", "/truth/pose", "--output"]
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    assert main([*words, old, "--precision", "float32"]) == 0
    assert "predicted by float32 with onnx" in capsys.readouterr().err
    assert main([*words, new, "--compare", f"{old}/metrics.json", "--format", "markdown"]) == 0
    said = capsys.readouterr()
    assert "predicted by int8 with onnx" in said.err
    assert "the program was float32 with onnx and is int8 with onnx" in said.out
    was, now = (json.loads(Path(f, "metrics.json").read_text()) for f in (old, new))
    assert (was["bundle"]["program"], now["bundle"]["program"]) == ("float32", "int8")
    (recording,) = now["recordings"]
    assert recording["meta"]["key"]["precision"] == "int8"
    assert " program:int8 engine:onnx sha256:" in recording["meta"]["model"]
    (results,) = Path(new, "results").iterdir()
    assert " program:int8 engine:onnx sha256:" in read_results(results).meta["model"]
    again = ["evaluate", "--predictions", str(results), "--model", bundle, "--resamples", "10"]
    again += ["--compare", f"{old}/metrics.json", "--bag", bag, "--label-topic", "/truth/room"]
    assert main([*again, "--format", "markdown", "--output", str(tmp_path / "recorded")]) == 0
    assert "the program was float32 with onnx and is int8 with onnx" in capsys.readouterr().out
    # The program is moved by two metres along each axis, from poses that are off by 0.1 along one.
    assert was["pose"]["median_m"]["value"] == pytest.approx(0.1, abs=1e-5)
    assert now["pose"]["median_m"]["value"] == pytest.approx(
        np.hypot(1.9, np.hypot(2, 2)), abs=1e-4
    )
    assert main([*words, new, "--compare", f"{new}/metrics.json", "--format", "markdown"]) == 0
    said = capsys.readouterr()
    assert "kept predictions are used" in said.err and "the program was" not in said.out


def test_stress_and_profile_name_what_ran(bundle, bag, tmp_path, capsys):
    words = ["--model", bundle, "--engine", "onnx"]
    assert (
        main(["profile", bag, *words, "--frames", "3", "--output", str(tmp_path / "t.json")]) == 0
    )
    assert "onnx cpu int8, 3 frames" in capsys.readouterr().out
    words += ["--bag", bag, "--degradations", "blur", "--label-topic", "/truth/room", "--resamples"]
    assert main(["stress", *words, "10", "--output", str(tmp_path / "stress")]) == 0
    document = json.loads((tmp_path / "stress" / "stress.json").read_text())
    assert document["engine"] == "onnx on cpu, int8"


def test_info_shows_programs_certificates_and_what_was_timed(bundle, tmp_path, capsys):
    assert main(["info", bundle]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Programs (this CPU computes with" in said and "info --time" in said
    assert main(["info", bundle, "--time", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["bundle"]["here"]
    assert (here["program"], here["engine"], here["device"]) == ("int8", "onnx", "cpu")
    assert {"int8 with onnx", "float32 with onnx"} <= set(here["milliseconds"])
    assert main(["info", bundle]) == 0
    assert "auto: int8 with onnx:" in " ".join(capsys.readouterr().out.split())
    (file,) = (tmp_path / "cache").rglob("choice-*.json")
    data = json.loads(file.read_text())
    data["versions"]["onnxruntime"] = "0.1"
    file.write_text(json.dumps(data))
    assert main(["info", bundle]) == 0
    assert "none was timed here" in " ".join(capsys.readouterr().out.split())
    plain = str(make_tiny_bundle(tmp_path / "plain"))
    assert main(["info", plain, "--time"]) == 2
    assert "tiny has no programs" in capsys.readouterr().err


def test_all_processes_of_an_evaluation_run_the_program_that_was_chosen(
    bundle, bag, tmp_path, capsys
):
    other = str(write_bag(tmp_path / "other", 5, start=1_800_000_000_000_000_000))
    words = [
        "evaluate",
        "--bag",
        bag,
        "--bag",
        other,
        "--jobs",
        "2",
        "--model",
        bundle,
        "--engine",
        "onnx",
    ]
    words += ["--label-topic", "/truth/room", "--pose-topic", "/truth/pose", "--resamples", "10"]
    assert main([*words, "--no-results-bag", "--output", str(tmp_path / "out")]) == 0
    assert "note: predicted by int8 with onnx" in capsys.readouterr().err
    choices = list((tmp_path / "cache").rglob("choice-*.json"))
    assert len(choices) == 1
    assert json.loads(choices[0].read_text())["facts"]["engine"] == "onnx"


def test_merging_what_different_programs_said_is_told(bundle, bag, tmp_path, capsys):
    other = str(write_bag(tmp_path / "other", 5, start=1_800_000_000_000_000_000))
    for where, program in ((bag, "float32"), (other, "int8")):
        words = ["evaluate", "--bag", where, "--model", bundle, "--engine", "onnx", "--resamples"]
        words += ["10", "--label-topic", "/truth/room", "--precision", program, "--no-results-bag"]
        assert main([*words, "--output", str(tmp_path / program)]) == 0
    documents = [str(tmp_path / program / "metrics.json") for program in ("float32", "int8")]
    capsys.readouterr()
    assert main(["evaluate", "merge", *documents, "--output", str(tmp_path / "both")]) == 0
    said = capsys.readouterr().err
    assert "note: predicted by float32 with onnx and int8 with onnx" in said
