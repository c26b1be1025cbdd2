"""What `make bench` makes of what it measures: the processes themselves are run by `make bench`."""

from __future__ import annotations

import json
import shutil
import sys
import time

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("psutil")
pytest.importorskip("openvino")
pytest.importorskip("torch")

from ros_helpers import ROOT

from benchmarks import __main__ as bench
from benchmarks import camera, dense, dense_node, inputs, models, node, peers, report
from benchmarks.machine import short_commit
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError
from robot_vision.pipeline import Pipeline


class Counter:
    """What a publisher is to the camera."""

    def __init__(self):
        self.sent = 0

    def publish(self, message):
        self.sent += 1


def test_a_node_is_heard_on_every_topic_of_its_cameras():
    heard = dense_node.topics(ModelBundle.load(ROOT / "models" / "demo"))
    assert {"classification", "pose", "segmentation", "points", "scan", "obstacle"} <= set(heard)
    assert heard["depth/camera_info"] == "sensor_msgs/msg/CameraInfo"
    assert not any(name.startswith("/") for name in heard)


@pytest.mark.slow
def test_the_camera_takes_as_long_as_its_frames_last():
    counter = Counter()
    start = time.perf_counter()
    count = camera.publish([counter], [bytearray(16)], rate=10, seconds=0.5)
    assert count == counter.sent == 5
    assert count / (time.perf_counter() - start) <= 10


def capacity(hz, top=1e4):
    """Returns a trial with a node that answers so many frames a second, of a camera that sends `top`."""

    def trial(peer, rate, seconds, wait=0.0):
        rate = min(rate, top)
        answered = min(rate, hz)
        return {"rate_hz": rate, "loss": 1 - answered / rate, "answered_hz": answered}

    return trial


@pytest.mark.parametrize("hz", [8.0, 100.0, 900.0])
def test_the_search_does_not_end_at_its_own_limit(hz, monkeypatch):
    monkeypatch.setattr(node, "trial", capacity(hz))
    found = node.sustained(peers.Bench(None, None, None), top=50.0, seconds=1.0)
    assert found["sustained"]["rate_hz"] == pytest.approx(hz, rel=0.03)
    assert found["flood_answered_hz"] == hz


def test_a_node_that_answers_nothing_is_asked_at_rates_above_zero(monkeypatch):
    asked = []

    def trial(peer, rate, seconds, wait=0.0):
        asked.append(rate)
        return {"rate_hz": rate, "loss": 1.0, "answered_hz": 0.0}

    monkeypatch.setattr(node, "trial", trial)
    found = node.sustained(peers.Bench(None, None, None), top=50.0, seconds=1.0)
    assert found == {"sustained": {"rate_hz": 0.0}, "flood_answered_hz": 0.0}
    assert min(asked) > 0


def test_the_search_ends_where_the_camera_does(monkeypatch):
    monkeypatch.setattr(node, "trial", capacity(900.0, top=300.0))
    found = node.sustained(peers.Bench(None, None, None), top=50.0, seconds=1.0)
    assert found["sustained"]["rate_hz"] == 300.0


def test_medians_leave_out_trials_without_an_answer():
    trials = [
        {"loss": 1.0, "age": None},
        *({"loss": 0.0, "age": {"p50_ms": a}} for a in (1.0, 3.0)),
    ]
    assert node.median_of(trials) == {"loss": 0.0, "age": {"p50_ms": 2.0}, "repetitions": 3}


def test_no_ratio_is_given_over_a_node_that_sustains_nothing():
    rates = {name: [20.0, 40.0] for name in node.BESIDE_TODAYS}
    assert node.over({**rates, "todays": [8.0, 10.0]})["float32"] == 4.0
    nothing = {**rates, "todays": [0.0]}
    found = {"over": node.over(nothing), "all_starts_hz": nothing}
    assert "| float32 | 40.0 | - |" in "\n".join(bench.report.node_sections({"todays_node": found}))


def test_figures_of_settings_that_are_no_longer_measured_keep_their_names():
    rates = {"todays": [10.0], "bfloat16": [90.0]}
    found = {"over": node.over(rates), "all_starts_hz": rates}
    page = "\n".join(report.node_sections({"todays_node": found}))
    assert "| today's node | 10.0 | 1 |" in page and "| bfloat16 | 90.0 | 9.0 |" in page


SILENT = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.slow
@pytest.mark.ros
def test_a_start_without_a_result_is_no_fast_start():
    with pytest.raises(RuntimeError, match="no result within 1 s"):
        node.first_result_s(SILENT, limit_s=1.0)


@pytest.mark.slow
@pytest.mark.ros
def test_a_node_that_ends_is_not_waited_for():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="ended with status 3"):
        with peers.bench([sys.executable, "-c", "raise SystemExit(3)"]):
            pass
    assert time.monotonic() - start < 60


@pytest.fixture
def earlier():
    data = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    data.pop("kept", None)
    return data


def part_of(earlier, *parts):
    return {name: earlier[name] for name in (*bench.ABOUT, *parts)}


def test_parts_are_kept_with_their_run(earlier):
    now = {**part_of(earlier, "limits"), "date": "today", "command": "now"}
    earlier["machine"] = {**earlier["machine"], "commit": "0123456789+changes"}
    whole = bench.keep(now, earlier)
    assert "kept" not in now and "limits" not in whole["kept"]
    origin = whole["kept"]["replay"]
    assert origin == f"{earlier['date']}, commit `0123456+changes`, `{earlier['command']}`"
    assert bench.keep(now, whole)["kept"]["replay"] == origin


def test_parts_of_another_machine_are_named_so(earlier):
    now = part_of(earlier, "limits")
    now["machine"] = {**now["machine"], "processor": "another", "cores": 64}
    origin = bench.keep(now, earlier)["kept"]["replay"]
    assert origin.endswith("; not the same: cores, processor")
    again = bench.keep(now, {**earlier, "kept": {"replay": "long ago"}})["kept"]["replay"]
    assert again == "long ago; not the same: cores, processor"


def test_an_interrupted_run_loses_nothing_that_was_to_be_kept(earlier, tmp_path, monkeypatch):
    def interrupted(part, images, seconds, quick):
        if part == "replay":
            raise KeyboardInterrupt
        return {part: {**earlier[part], "peak_gflops": 12345.0}}

    monkeypatch.setattr(bench, "_part", interrupted)
    monkeypatch.setattr(bench.models, "bundle", lambda *_: None)
    monkeypatch.setattr(bench.peers, "isolate", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        bench.measure(["limits", "replay"], 1.0, True, tmp_path, earlier)
    assert [file.name for file in tmp_path.iterdir()] == ["benchmarks.unfinished.json"]
    data = json.loads((tmp_path / "benchmarks.unfinished.json").read_text())
    assert data["limits"]["peak_gflops"] == 12345.0 and "limits" not in data["kept"]
    assert data["replay"] == earlier["replay"] and "replay" in data["kept"]


def quiet(disturbed):
    found = {"trials": 5, "others": 0.01, "reasons": ["somebody computed"]}
    limits = {**found, "disturbed": disturbed, "figures": ["limits"]}
    places = {**found, "disturbed": 0, "figures": ["places"]}
    return {"repeated": 2, "parts": {"limits": limits, "places": places}}


def test_a_quiet_run_is_written_with_the_number_of_trials_that_were_repeated(earlier, tmp_path):
    (tmp_path / "benchmarks.unfinished.json").write_text("{}")
    bench.finish({**earlier, "quiet": quiet(0)}, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "Of 12 trials 2 were disturbed and repeated;" in page
    assert not (tmp_path / "benchmarks.unfinished.json").exists()


def test_of_a_disturbed_run_only_the_disturbed_parts_are_measured_again(earlier, tmp_path):
    data = {**earlier, "quiet": quiet(1)}
    data["command"] = "python -m benchmarks --only limits places --seconds 2 --keep a.json"
    (tmp_path / "benchmarks.unfinished.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="in 1 of 10 trials, as somebody computed") as error:
        bench.finish(data, tmp_path)
    aside = tmp_path / "benchmarks.disturbed.json"
    assert [*tmp_path.iterdir()] == [aside]
    assert str(error.value).endswith(f"BENCH_ARGS='--seconds 2 --only limits --keep {aside}'")
    kept = bench.earlier_result(str(aside))
    assert "limits" not in kept and kept["places"] == earlier["places"]
    assert "limits" not in bench.keep(part_of(earlier, "replay"), kept)
    assert "2 were disturbed and repeated and 1 stayed disturbed" in report.markdown(data)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only"], "expected at least one argument"),
        (["--seconds", "nan"], "nan is not above 0"),
        (["--seconds", "0"], "0 is not above 0"),
        (["--keep", "absent.json"], "absent.json cannot be read"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_measured(
    arguments, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        bench.main()
    assert end.value.code == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_says_that_files_differed_from_the_commit(earlier):
    assert short_commit("0123456789", 4) == "0123"
    earlier["machine"]["commit"] = "0" * 40 + "+changes"
    assert f"commit `{'0' * 19}+changes`" in report.markdown(earlier)


def test_the_page_has_dense_heads_once_they_are_measured(earlier):
    earlier.pop("dense_heads_float32", None)
    assert "Not measured yet: `python -m benchmarks --only dense_heads`" in report.markdown(earlier)
    time = {"p50_ms": 12.34, "p95_ms": 2.0, "p99_ms": 3.0, "samples": 10}
    found = {
        "engine": "onnx cpu float32",
        "heads": ["classifier", "depth"],
        "times": {"network, all heads": time},
        "all_over_one": {"pipeline 480p and messages": 1.31},
    }
    names = ("resnet18", "mobilenet_v2", "demo")
    page = report.markdown({**earlier, "dense_heads_float32": dict.fromkeys(names, found)})
    assert "Not measured yet" not in page and page.count("| network, all heads | 12.34 |") == 3
    for name in names[:2]:
        assert f"classifier alone, {name}, float32 | 1.31 | <= 1.25 | MISSED |" in page


@pytest.mark.slow
def test_dense_heads_write_all_their_topics_of_real_frames():
    images, _ = inputs.frames(1)
    demo = ModelBundle.load(ROOT / "models" / "demo")
    with Pipeline(demo, create_engine(demo)) as pipeline:
        size = dense._writer(demo)(pipeline(images)[0])
    # Of 40 x 30 pixels: mask, confidence, depth, deviation, points of at least x, y, z.
    assert size > 1200 * (1 + 1 + 4 + 4 + 12)


@pytest.mark.parametrize(
    "file",
    [
        "networks/export.py",
        "backbones/enlarging.py",
        "contract/pooling.py",
        "heads/place/poolings/netvlad.py",
    ],
)
def test_bundles_of_other_code_are_not_measured(tmp_path, file):
    made = tmp_path / "robot_vision" / file
    made.parent.mkdir(parents=True)
    shutil.copy(ROOT / "robot_vision" / file, made)
    before = models.folder.__wrapped__(tmp_path)
    assert before == models.folder.__wrapped__(tmp_path) != models.folder()
    with made.open("a") as code:
        code.write("# changed\n")
    assert models.folder.__wrapped__(tmp_path) != before
    assert models.folder().parent == ROOT / "build" / "benchmarks"
