"""Which program runs: timed, certified, remembered, and what happens where one of these fails."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from program_bundle import SLOW, certificate, make_program_bundle
from tiny_bundle import expected_colour, make_tiny_bundle

from robot_vision.bundle.bundle import PROBE_IMAGES, PROBES, ModelBundle, write_manifest
from robot_vision.engines import choice
from robot_vision.engines.probes import place_of, probe_outputs
from robot_vision.errors import EngineError
from robot_vision.files.tensors import dump_tensors
from robot_vision.pipeline import Pipeline

IMAGE = np.full((32, 48, 3), (200, 100, 50), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        choice, "_ALIKE", (1, 1.0)
    )  # the programs differ by far, whatever else runs
    return tmp_path / "cache"


def kept(cache):
    """The remembered choices."""
    return sorted(cache.rglob("choice-*.json"))


def started(path, precision="auto", engine="onnx", **options):
    """Returns program, engine and line of what starts, and the number of the program that really ran."""
    with Pipeline.load(path, engine, "cpu", precision, threads=1, **options) as pipeline:
        position = pipeline([IMAGE])[0].get("pose").position
        number = position - expected_colour(IMAGE)
        assert np.allclose(number, round(number[0]), atol=1e-5)
        return pipeline.program, pipeline.engine.name, pipeline.said, round(number[0])


@pytest.mark.slow
def test_auto_takes_the_fastest_of_what_is_certified_and_says_what_it_gains(tmp_path, cache):
    path = make_program_bundle(tmp_path / "b", {"int8": SLOW + 2, "int8-vnni": 0})
    program, engine, said, ran = started(path)
    assert (program, engine, ran) == ("int8-vnni", "onnx", 2)
    assert said.startswith("int8-vnni with onnx: ")
    fast, slow = (float(word) for word in said.split(": ")[1].split(" ms")[0].split() + [
        said.split(" against ")[1].split(";")[0]
    ])  # fmt: skip
    assert fast < slow / 2
    assert said.endswith("; on 400 images classifier agrees on 0.998")
    assert len(kept(cache)) == 1


def test_the_chosen_program_brings_its_own_settings(tmp_path):
    path = make_program_bundle(tmp_path / "b", {"int8": 0})
    with Pipeline.load(path, "onnx", "cpu", threads=1) as pipeline:
        assert pipeline.bundle.spec.heads["classifier"].temperature == 2.0
    with Pipeline.load(path, "onnx", "cpu", "float32", threads=1) as pipeline:
        assert pipeline.bundle.spec.heads["classifier"].temperature == 1.0


@pytest.mark.slow
def test_auto_compares_engines_too(tmp_path):
    given = {"int8": [certificate("openvino")]}
    path = make_program_bundle(tmp_path / "b", {"int8": 0}, given)
    assert started(path, engine="auto")[:2] == ("int8", "openvino")
    assert started(path, engine="onnx")[:2] == ("float32", "onnx")


@pytest.mark.parametrize(
    "given",
    [certificate("onnx", passed=False), certificate("onnx", "none"), certificate("openvino"),
     certificate("onnx", device="cuda"), None],
    ids=["failed", "other instructions", "other engine", "other device", "none"],
)  # fmt: skip
def test_a_program_that_is_not_certified_here_does_not_run(tmp_path, cache, given):
    path = make_program_bundle(tmp_path / "b", {"int8": 0}, {"int8": [given] if given else []})
    program, _, said, ran = started(path)
    assert (program, ran) == ("float32", 0)
    assert "no other program (int8) is certified for onnx on cpu with" in said
    assert not kept(cache)


@pytest.mark.slow
def test_float32_stays_where_little_is_gained(tmp_path, cache):
    path = make_program_bundle(tmp_path / "b", {"int8": SLOW + 3})
    program, _, said, ran = started(path)
    assert (program, ran) == ("float32", 0)
    assert said.startswith("float32 with onnx: ") and "int8 with onnx" in said
    assert started(path)[2] == f"{said} (remembered)"


@pytest.mark.slow
def test_a_choice_is_remembered_and_the_next_start_times_nothing(tmp_path, cache, monkeypatch):
    path = make_program_bundle(tmp_path / "b", {"slow": 2 * SLOW, "fast": 0})
    said = started(path)[2]
    (file,) = kept(cache)
    content, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert started(path)[2:] == (f"{said} (remembered)", 2)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (content, stamp)
    # By timing nobody would choose the slow one.
    data = json.loads(content)
    data["way"]["program"] = "slow"
    file.write_text(json.dumps(data))
    monkeypatch.setattr(choice, "_LEAST", 2000)  # many seconds
    begin = time.perf_counter()
    assert started(path)[3] == 1
    assert time.perf_counter() - begin < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\udcff\0" * 40,
        lambda text: "[]",
        lambda text: text.replace('"program"', '"programme"'),
        lambda text: text.replace("choice/1", "choice/2"),
        lambda text: text.replace('"program": "fast"', '"program": "absent"'),
        lambda text: text.replace('"program": "fast"', '"program": "uncertified"'),
        lambda text: text.replace('"program": "fast"', '"program": ["fast"]'),
        lambda text: text.replace('"cores": ', '"cores": 9'),
        lambda text: text + " " * (1 << 17),
    ],
)
def test_a_damaged_memory_is_written_again(tmp_path, cache, damage):
    made = {"uncertified": 1, "fast": 0}
    path = make_program_bundle(tmp_path / "b", made, {"uncertified": []})
    started(path)
    (file,) = kept(cache)
    whole = file.read_text()
    broken = damage(whole)
    assert broken != whole
    file.write_text(broken, encoding="utf-8", errors="surrogateescape")
    program, _, said, _ = started(path)
    assert program == "fast" and "remembered" not in said
    assert json.loads(file.read_text())["way"] == json.loads(whole)["way"]


@pytest.mark.slow
def test_other_bundles_and_other_ways_of_asking_are_remembered_apart(tmp_path, cache):
    a = make_program_bundle(tmp_path / "a", {"int8": 0})
    b = make_program_bundle(tmp_path / "b", {"int8": 1})
    for path, streams in ((a, 1), (b, 1), (a, 2)):
        assert "remembered" not in started(path, streams=streams)[2]
    assert len(kept(cache)) == 3
    assert "remembered" in started(a, streams=2)[2]
    assert "remembered" in started(a, streams=0)[2]


@pytest.mark.slow
def test_with_other_versions_all_is_timed_again_and_stays_unless_much_is_gained(tmp_path, cache):
    path = make_program_bundle(tmp_path / "b", {"a": 1, "b": 1, "slow": 2 * SLOW})
    started(path)
    (file,) = kept(cache)

    def of_old_versions(program):
        data = json.loads(file.read_text())
        data["way"]["program"], data["versions"]["onnxruntime"] = program, "0.1"
        file.write_text(json.dumps(data))
        found = started(path)
        assert "remembered" not in found[2]
        assert json.loads(file.read_text())["versions"]["onnxruntime"] != "0.1"
        return found[0]

    assert of_old_versions("slow") in ("a", "b")
    # Both take the same: the one that ran stays, unless the machine happens to disturb it by 10 percent.
    stayed = [of_old_versions(name) == name for name in ("a", "b", "a", "b")]
    assert sum(stayed) >= 3


@pytest.mark.slow
def test_what_was_disturbed_is_timed_again_three_times_at_most(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(choice, "_ALIKE", (3, 0.5))  # no runs are as alike as that
    monkeypatch.setattr(choice, "_EACH_S", 0.05)
    path = make_program_bundle(tmp_path / "b", {"int8": 0})
    for number in (1, 2, 3):
        program, _, said, _ = started(path)
        assert program == "int8" and "remembered" not in said
        assert said.endswith("the next start times again)") == (number < 3)
        assert json.loads(kept(cache)[0].read_text())["disturbed"] == number
    assert "remembered" in started(path)[2]


@pytest.mark.slow
def test_what_there_was_no_time_for_comes_first_next_time(tmp_path, cache, monkeypatch):
    path = make_program_bundle(tmp_path / "b", {"int8": 0, "slow": SLOW})
    monkeypatch.setattr(choice, "MOST_S", 0.05)  # one program
    assert started(path)[0] == "float32"
    assert started(path)[0] == "int8"


def test_a_program_that_does_not_load_is_left_out_with_a_line(tmp_path, caplog):
    path = make_program_bundle(tmp_path / "b", {"int8": 0, "broken": -1})
    with caplog.at_level(logging.WARNING):
        assert started(path)[0] == "int8"
    lines = [r.getMessage() for r in caplog.records]
    assert any(line.startswith("broken with onnx is left out: ") for line in lines)


@pytest.mark.slow
def test_a_remembered_program_that_no_longer_loads_is_replaced(tmp_path, cache, caplog):
    path = make_program_bundle(tmp_path / "b", {"int8": 0, "broken": -1})
    started(path)
    (file,) = kept(cache)
    file.write_text(file.read_text().replace('"program": "int8"', '"program": "broken"'))
    with caplog.at_level(logging.WARNING):
        assert started(path)[0] == "int8"
    assert "broken with onnx, chosen before, does not run any more" in caplog.text


@pytest.mark.slow
def test_a_program_that_answers_otherwise_than_where_it_was_certified_does_not_run(
    tmp_path, cache, caplog
):
    path = make_program_bundle(tmp_path / "b", {"int8": 1, "fast": 0})
    assert started(path)[0] == "fast"
    bundle = ModelBundle.load(path)
    images = np.stack([IMAGE, 255 - IMAGE])
    kept_of = {}
    for program, by in (("int8", 0.0), ("fast", 0.1)):
        with Pipeline.load(path, "onnx", "cpu", program) as pipeline:
            place = place_of(pipeline.engine, program)
            for name, values in probe_outputs(pipeline.engine, images).items():
                kept_of[f"{place}/{name}"] = values + np.float32(by * (name == "position"))
    (path / PROBES).write_bytes(dump_tensors({PROBE_IMAGES: images, **kept_of}))
    write_manifest(path, bundle.name, bundle.spec, {}, {}, programs=bundle.programs)

    with caplog.at_level(logging.WARNING):
        assert started(path)[0] == "int8"
    assert (
        "fast with onnx is left out: tiny: fast in onnx on cpu differs in position" in caplog.text
    )
    new = cache / "robot_vision" / "bundles" / ModelBundle.load(path).sha256[:32]
    (file,) = new.glob("choice-*.json")
    assert json.loads(file.read_text())["way"]["program"] == "int8"
    file.write_text(file.read_text().replace('"program": "int8"', '"program": "fast"'))
    assert started(path)[0] == "int8"
    assert "fast with onnx, chosen before, does not run any more: tiny: fast" in caplog.text
    differs = "differs in position from where it was certified"
    with caplog.at_level(logging.WARNING), pytest.raises(EngineError, match=differs):
        Pipeline.load(path, "onnx", "cpu", "fast")
    assert "fast with onnx, for which it is certified, does not run: tiny: fast" in caplog.text


def test_without_a_place_for_it_nothing_is_remembered_and_a_line_says_so(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = make_program_bundle(tmp_path / "b", {"int8": 0})
    with caplog.at_level(logging.WARNING):
        assert started(path)[0] == "int8"
    assert "the choice cannot be kept" in caplog.text


def test_a_program_can_be_named(tmp_path, cache, caplog):
    path = make_program_bundle(tmp_path / "b", {"int8": SLOW, "fast": 0})
    with caplog.at_level(logging.WARNING):
        assert started(path, "int8") == ("int8", "onnx", "", 1)
        assert started(path, "float32") == ("float32", "onnx", "", 0)
    assert not caplog.records and not kept(cache)


def test_a_named_program_takes_the_engine_for_which_it_is_certified(tmp_path, caplog):
    path = make_program_bundle(tmp_path / "b", {"int8": 0}, {"int8": [certificate("onnx")]})
    with caplog.at_level(logging.WARNING):
        assert started(path, "int8", "auto")[:2] == ("int8", "onnx")
    assert not caplog.records


def test_a_named_program_that_is_not_certified_here_runs_with_a_warning(tmp_path, caplog):
    given = {"int8": [certificate("onnx", "i8mm" if sys.platform != "darwin" else "avx2")]}
    path = make_program_bundle(tmp_path / "b", {"int8": 0}, given)
    with caplog.at_level(logging.WARNING):
        assert started(path, "int8") == ("int8", "onnx", "", 1)
    (line,) = [r.getMessage() for r in caplog.records]
    assert "int8 is not certified for onnx on cpu with" in line
    assert line.endswith("(it is for onnx on cpu with i8mm)")


def test_a_named_program_that_was_refused_here_runs_with_the_reason(tmp_path, caplog):
    refused = certificate("onnx", passed=False)
    refused.heads["classifier"]["why"] = "not enough images"
    path = make_program_bundle(tmp_path / "b", {"int8": 0}, {"int8": [refused]})
    with caplog.at_level(logging.WARNING):
        assert started(path, "int8")[:2] == ("int8", "onnx")
    (line,) = [r.getMessage() for r in caplog.records]
    assert ": classifier: not enough images; " in line and "never measured" not in line


def test_torch_refuses_a_program_that_is_a_graph(tmp_path):
    pytest.importorskip("torch")
    path = make_program_bundle(tmp_path / "b", {"int8": 0})
    with pytest.raises(EngineError, match=r"int8 of tiny is the graph model\.int8\.onnx"):
        Pipeline.load(path, "torch", precision="int8")


def test_a_program_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = make_program_bundle(tmp_path / "b", {"int8": 0})
    with pytest.raises(EngineError, match="'int9'.*'int8'.*auto, float32, int8, float16, bfloat16"):
        Pipeline.load(path, "onnx", precision="int9")
    plain = make_tiny_bundle(tmp_path / "plain")
    with pytest.raises(EngineError, match="'int8': use one of auto, float32, float16, bfloat16"):
        Pipeline.load(plain, "onnx", precision="int8")


def test_no_program_is_begun_after_the_time_is_over(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(choice, "MOST_S", 0.0)
    path = make_program_bundle(tmp_path / "b", {"a": 0, "b": 0})
    with caplog.at_level(logging.WARNING):
        assert started(path)[0] == "float32"
    assert "not timed, since 0 s were over: b with onnx, a with onnx" in caplog.text


@pytest.mark.slow
def test_timing_can_be_interrupted(tmp_path, cache):
    path = make_program_bundle(tmp_path / "b", {name: 2 * SLOW for name in "abcdefgh"})
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        started(path)
    assert time.perf_counter() - begin < 3
    timer.join()
    assert not kept(cache)


@pytest.mark.slow
def test_a_bundle_without_programs_runs_as_before_and_imports_nothing_for_it(tmp_path):
    path = make_tiny_bundle(tmp_path / "tiny")
    code = (
        "import sys\nfrom robot_vision.pipeline import Pipeline\n"
        f"p = Pipeline.load({str(path)!r}, 'onnx')\n"
        "print(p.program, p.said, sorted(m for m in sys.modules if m.startswith('robot_vision.engines')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("float32  [")
    assert "choice" not in done.stdout and "remembered" not in done.stdout

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(3)]
    with Pipeline.load(path, "onnx") as auto, Pipeline.load(path, "onnx", "auto", "float32") as old:
        batch = np.stack(images)
        for name, values in auto.engine.run(batch).items():
            assert values.tobytes() == old.engine.run(batch)[name].tobytes()
