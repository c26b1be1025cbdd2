"""`robot-vision profile` and `robot-vision benchmark --compare`, as a user runs them."""

import gc
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.pipeline import Pipeline
from robot_vision.tracing import Trace

FIGURES = {
    "schema": 2,
    "machine": {"cores": 2, "commit": "a"},
    "input": {"sha256": "x", "source": "frames"},
    "node_float32": {
        "480p raw": {
            "sustained": {"rate_hz": 60.0},
            "at_30_hz": {"rate_hz": 30.0, "age_at_reception": {"p99_ms": 20.0}},
        }
    },
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.jpg"), random.integers(0, 256, (96, 128, 3), np.uint8))
    (folder / "6.jpg").write_bytes(b"no picture")
    return folder


def compared(tmp_path, **changes):
    files = []
    for name, node in (("old", {}), ("new", changes)):
        data = json.loads(json.dumps(FIGURES))
        case = data["node_float32"]["480p raw"]
        case["sustained"]["rate_hz"] *= node.get("rate", 1)
        case["at_30_hz"]["age_at_reception"]["p99_ms"] *= node.get("p99", 1)
        data["machine"].update(node.get("machine", {}))
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(data))
    return main(["benchmark", "--compare", *map(str, files)])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_profile_writes_every_stage_of_every_frame(frames, tmp_path, capsys, engine):
    trace = tmp_path / "trace.json"
    arguments = ["profile", str(frames), "--model", "models/demo", "--engine", engine, "--layers"]
    assert main([*arguments, "--output", str(trace)]) == 0
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    whole = [e for e in spans if e["name"] == "frame"]
    assert len(whole) == 7
    for stage in ("preprocess", "inference", "decode"):
        found = [e for e in spans if e["name"] == stage]
        assert len(found) == 6  # the broken one got no further than its decoding
        for event in found:  # each within its frame
            start, end = event["ts"], event["ts"] + event["dur"]
            assert any(f["ts"] <= start and end <= f["ts"] + f["dur"] + 1 for f in whole)
    layers = next(e for e in spans if e["name"].startswith("one run, by layer"))
    assert layers["args"]["layers"] > 20
    parts = [e for e in spans if "kind" in e.get("args", {})]
    assert len(parts) == layers["args"]["layers"]
    assert sum(e["dur"] for e in parts) == pytest.approx(layers["dur"], rel=0.01)
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"robot-vision profile"}
    assert "1 frame could not be decoded" in capsys.readouterr().out


@pytest.mark.slow
def test_profile_of_no_readable_frame_is_one_line(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert main(["profile", str(tmp_path), "--model", "models/demo", "--frames", "2",
                 "--output", str(tmp_path / "t.json")]) == 2  # fmt: skip
    assert "none of its frames could be decoded" in capsys.readouterr().err


@pytest.mark.slow
def test_profile_refuses_a_file_that_cannot_be_written(frames, tmp_path, capsys):
    output = str(tmp_path / "absent" / "trace.json")
    arguments = ["profile", str(frames), "--model", "models/demo", "--frames", "1"]
    assert main([*arguments, "--output", output]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_trace_notes_threads_and_the_garbage_collector(tmp_path):
    with Trace("test") as trace:
        with trace.span("outer", frame=1):
            gc.collect()
        thread = threading.Thread(target=lambda: trace.add("other", 0.0, 1.0), name="worker")
        thread.start()
        thread.join()
    gc.collect()  # no longer watched
    trace.write(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    collections = [e for e in events if e["name"] == "garbage collection"]
    outer = next(e for e in events if e["name"] == "outer")
    assert collections and all(e["ts"] <= outer["ts"] + outer["dur"] for e in collections)
    other = next(e for e in events if e["name"] == "other")
    assert other["tid"] != outer["tid"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names[other["tid"]] == "worker"


_COLLECTING = """
import gc
from robot_vision.tracing import Trace
with Trace("test") as trace:
    gc.set_threshold(5)
    for i in range(2000):
        with trace.span("frame", more=[i]):
            pass
    print(len(trace.durations("frame")))
    trace.write("trace.json")
"""


def test_a_collection_inside_the_trace_itself_does_not_hang(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _COLLECTING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "2000\n", done.stderr
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) > 2000


def test_layers_of_a_gpu_are_refused(frames, tmp_path, capsys, monkeypatch):
    pipeline = Pipeline.load("models/demo", "onnx", "cpu", "float32")
    pipeline.engine.device = "cuda:0"
    monkeypatch.setattr(Pipeline, "load", lambda *a, **k: pipeline)
    arguments = ["profile", str(frames), "--model", "models/demo", "--layers"]
    assert main([*arguments, "--output", str(tmp_path / "t.json")]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_compare_says_what_got_better_and_worse(tmp_path, capsys):
    assert compared(tmp_path, rate=1.2, p99=1.5) == 1
    out = capsys.readouterr().out
    assert "+20.0 %" in out and "better" in out
    assert "+50.0 %" in out and "worse" in out


def test_compare_keeps_the_order_of_the_file(tmp_path, capsys):
    names = [f"{letter}_ms" for letter in "hcaegdbf"]
    for file, value in (("old", 1.0), ("new", 2.0)):
        data = {**FIGURES, "node_float32": dict.fromkeys(names, value)}
        (tmp_path / file).write_text(json.dumps(data))
    files = [str(tmp_path / file) for file in ("old", "new")]
    assert main(["benchmark", "--compare", *files]) == 1
    out = capsys.readouterr().out
    assert sorted(names, key=lambda name: out.index(f"/{name}")) == names


def test_compare_keeps_quiet_about_noise(tmp_path, capsys):
    assert compared(tmp_path, rate=0.97, p99=1.02) == 0
    assert "nothing changed by more than 5 %" in capsys.readouterr().out


def test_compare_names_another_machine(tmp_path, capsys):
    assert compared(tmp_path, rate=2.0, machine={"cores": 8}) == 0
    assert "not the same: cores: 2, 8" in capsys.readouterr().out


def compared_part(tmp_path, part, old, new):
    """Compares two results that differ in one part."""
    for file, value in (("old", old), ("new", new)):
        (tmp_path / file).write_text(json.dumps({**FIGURES, part: value}))
    return main(["benchmark", "--compare", *(str(tmp_path / file) for file in ("old", "new"))])


@pytest.mark.parametrize(
    ("path", "better"),
    [
        ("limits/bandwidth_gb_s", "more"),
        ("limits/engine_over_limit", "less"),
        ("node/480p/at_10_hz/cpu_ms_a_frame/node", "less"),
        ("node/480p/at_10_hz/memory_mib/node", "less"),
        ("resizing/480p/error_grey_levels/ours", "less"),
        ("pipeline_float32/pipeline_over_engine_480p", "less"),
        ("heads_float32/three_heads_over_one", "less"),
        ("steps/view/usual_over_ours", "more"),
        ("replay/replay_over_engine", "more"),
        ("summary/node_over_todays_float32", "more"),
        ("summary/node_480p_raw_over_engine_streams_float32", "more"),
        ("summary/one_batch_over_single_runs_float32", "more"),
        ("summary/p99_over_p50_at_30_hz_float32", "less"),
        ("todays_node/over/float32", "more"),
    ],
)
def test_compare_knows_what_is_better(path, better, tmp_path, capsys):
    part, *keys = path.split("/")

    def result(value):
        for key in reversed(keys):
            value = {key: value}
        return value

    worse = compared_part(tmp_path, part, result(2.0), result(3.0))
    assert worse == (better == "less"), capsys.readouterr().out
    assert compared_part(tmp_path, part, result(3.0), result(2.0)) == (better == "more")


def test_compare_shows_long_names_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    names = [f"node_480p_raw_over_engine_{end}" for end in ("float32", "streams_float32")]
    compared_part(tmp_path, "summary", dict.fromkeys(names, 1.0), dict.fromkeys(names, 2.0))
    rows = re.findall(r"^│ (\S+)", capsys.readouterr().out, re.M)
    assert all(f"summary/{name}" in "".join(rows) for name in names)


def test_compare_takes_what_was_asked_for_as_no_result(tmp_path, capsys):
    old, new = ({"at_10_hz": {"rate_hz": n, "published": n, "repetitions": n}} for n in (1, 2))
    assert compared_part(tmp_path, "node", old, new) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_compare_sees_losses_that_began_and_no_noise_in_small_ones(tmp_path, capsys):
    old, new = ({"sustained": {"loss": loss}} for loss in (0.0, 0.25))
    assert compared_part(tmp_path, "node", old, new) == 1
    assert "+25.0 points" in capsys.readouterr().out
    old, new = ({"sustained": {"loss": loss}} for loss in (0.001, 0.009))
    assert compared_part(tmp_path, "node", old, new) == 0


def test_compare_shows_a_rate_that_was_none_before(tmp_path, capsys):
    old, new = ({"sustained": {"rate_hz": rate}} for rate in (0.0, 40.0))
    assert compared_part(tmp_path, "node", old, new) == 0
    assert "better" in capsys.readouterr().out
    assert compared_part(tmp_path, "node", new, old) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"schema": 2, "machine": {}}'])
def test_compare_refuses_what_is_no_benchmark(tmp_path, capsys, text):
    (tmp_path / "x.json").write_text(text)
    file = str(tmp_path / "x.json")
    assert main(["benchmark", "--compare", file, file]) == 2
    assert "x.json" in capsys.readouterr().err
