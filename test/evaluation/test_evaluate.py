"""`robot-vision evaluate` from end to end: known errors come out as they were put in."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_bags import IMAGE_TOPIC, PERIOD, START, label, position, write_bag
from ros_helpers import python_path
from tiny_bundle import LABELS, make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle, write_manifest
from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.datasets.image_sketch import sketch
from robot_vision.evaluation.predict.recorded import read_results, with_times_of, write_results
from robot_vision.evaluation.predict.replay import default_batch, replay
from robot_vision.evaluation.report.compare import compare
from robot_vision.evaluation.report.headlines import headlines
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", wrong=frozenset({4, 8}))


def evaluate(*words: object) -> int:
    return main(["evaluate", *(str(w) for w in words)])


@pytest.fixture(scope="module")
def output(bag: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "evaluation"
    words = ("--bag", bag, "--model", bundle, "--engine", "onnx", "--place-exclude", 0.35)
    assert evaluate(*words, "--output", folder) == 0
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return data


def test_output_that_cannot_be_made_is_refused_before_the_work(
    bag: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("robot_vision.cli.evaluate._predicted", None)
    assert evaluate("--bag", bag, "--model", bundle, "--output", tmp_path / "file") == 2
    said = capsys.readouterr().err
    assert "file cannot be made: File exists: name another folder" in said


def test_known_errors_are_found(output: Path) -> None:
    metrics = metrics_of(output)
    assert metrics["schema_version"] == 1 and metrics["frames"] == 40
    assert metrics["classification"]["top1"]["value"] == pytest.approx(38 / 40)
    assert metrics["pose"]["median_m"]["value"] == pytest.approx(0.1, abs=1e-6)
    assert metrics["pose"]["p90_deg"]["value"] == pytest.approx(0, abs=1e-4)
    # Images of one colour have one descriptor and stand at one place; the two reds are 0.2 m apart.
    assert metrics["place"]["recall_at_1"]["value"] == 1.0
    assert metrics["recordings"][0]["association"]["pose"]["found"] == 40


def test_hashes_command_and_versions_are_in_the_metrics(
    output: Path, bag: Path, bundle: Path
) -> None:
    from robot_vision.bundle.bundle import ModelBundle
    from robot_vision.evaluation.predict.cache import bag_sha256

    metrics = metrics_of(output)
    assert metrics["bundle"]["sha256"] == ModelBundle.load(bundle).sha256
    key = metrics["recordings"][0]["meta"]["key"]
    assert key["bag_sha256"] == bag_sha256(bag) and key["topic"] == IMAGE_TOPIC
    assert metrics["versions"]["numpy"] == np.__version__ and metrics["command"]
    speed = metrics["recordings"][0]["meta"]["speed"]
    assert speed["frames"] == 40 and speed["batch"] == default_batch("cpu")
    assert set(speed["stages"]) == {"image", "resize", "wait", "inference", "decode"}


@pytest.mark.slow
def test_csv_has_a_row_a_frame_where_pyarrow_is_not_installed(
    bundle: Path, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not there
    words = ("--bag", bag, "--model", bundle, "--engine", "onnx", "--output", tmp_path / "out")
    assert evaluate(*words) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["stamp_ns"]) for r in rows] == [START + i * PERIOD for i in range(40)]
    assert [r["predicted_label"] for r in rows] == [label(i) for i in range(40)]
    assert {r["recording"] for r in rows} == {"drive"}
    assert np.allclose([float(r["error_m"]) for r in rows], 0.1, atol=1e-6)


def test_parquet_is_written_where_pyarrow_is(output: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from robot_vision.evaluation.merge import scores_of
    from robot_vision.evaluation.report.tables import write_table

    path = write_table(tmp_path, scores_of(metrics_of(output)))
    table = parquet.read_table(path)
    assert path.name == "predictions.parquet" and table.num_rows == 40
    assert np.allclose(table["error_m"].to_numpy(), 0.1, atol=1e-6)


def test_trajectories_are_read_by_evo_and_agree(output: Path) -> None:
    file_interface = pytest.importorskip("evo.tools.file_interface")
    from evo.core import metrics, sync

    truth = file_interface.read_tum_trajectory_file(output / "drive.truth.tum")
    estimate = file_interface.read_tum_trajectory_file(output / "drive.estimate.tum")
    truth, estimate = sync.associate_trajectories(truth, estimate)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((truth, estimate))
    assert len(ape.error) == 40
    assert ape.get_statistic(metrics.StatisticsType.rmse) == pytest.approx(0.1, abs=1e-6)


def test_results_bag_reads_back_as_the_predictions(output: Path, bundle: Path, bag: Path) -> None:
    found = read_results(output / "results" / "drive")
    with Pipeline.load(bundle, "onnx") as pipeline, open_source(bag) as source:
        expected = replay(pipeline, source)
    assert np.array_equal(found.stamps_ns, expected.stamps_ns) and found.labels == LABELS
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-7)
    assert np.array_equal(found.descriptor, expected.descriptor)
    assert np.allclose(found.position, expected.position)


@pytest.mark.slow
def test_kept_predictions_are_used_again_and_refused_when_the_bundle_changed(
    bag: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--bag", bag, "--engine", "onnx", "--output", tmp_path / "out", "--resamples", 0)
    assert evaluate(*words, "--model", bundle) == 0
    assert "kept" not in capfd.readouterr().err
    assert evaluate(*words, "--model", bundle) == 0
    assert "kept predictions are used for drive" in capfd.readouterr().err
    other = make_tiny_bundle(tmp_path / "other", name="other")
    assert evaluate(*words, "--model", other) == 0
    assert "refused: changed since: bundle's hash" in capfd.readouterr().err
    assert evaluate(*words, "--model", other, "--limit", 5) == 0
    assert "refused: changed since: limit" in capfd.readouterr().err
    assert metrics_of(tmp_path / "out")["frames"] == 5


@pytest.mark.slow
def test_kept_predictions_are_refused_when_the_bag_changed(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    path = write_bag(tmp_path / "drive", count=12)
    words = ("--bag", path, "--model", bundle, "--engine", "onnx", "--output", tmp_path / "out")
    assert evaluate(*words) == 0
    shutil.rmtree(path)
    write_bag(path, count=11)
    assert evaluate(*words) == 0
    assert "refused: changed since: bag's hash" in capfd.readouterr().err
    assert metrics_of(tmp_path / "out")["frames"] == 11


@pytest.mark.slow
def test_many_bags_in_processes_equal_the_merge_of_each(bundle: Path, tmp_path: Path) -> None:
    bags = [
        write_bag(tmp_path / name, count=16, offset=(0.1 * (i + 1), 0, 0), storage=storage)
        for i, (name, storage) in enumerate([("a", "sqlite3"), ("b", "mcap"), ("c", "sqlite3")])
    ]
    common = ("--model", bundle, "--engine", "onnx", "--resamples", 50)
    together = tmp_path / "together"
    assert evaluate("--bag", tmp_path / "[abc]", "--jobs", 2, *common, "--output", together) == 0
    files = []
    for bag in bags:
        folder = tmp_path / f"out_{bag.name}"
        assert evaluate("--bag", bag, *common, "--output", folder) == 0
        files.append(folder / "metrics.json")
    assert evaluate("merge", *reversed(files), "--output", tmp_path / "merged") == 0
    merged, whole = metrics_of(tmp_path / "merged"), metrics_of(together)
    assert [r["name"] for r in whole["recordings"]] == ["a", "b", "c"]
    for part in ("classification", "pose", "place", "trajectory", "association", "bootstrap"):
        assert merged[part] == whole[part], part
    assert whole["pose"]["median_m"]["value"] == pytest.approx(0.2, abs=1e-6)
    assert (tmp_path / "merged" / "report.html").is_file()


@pytest.mark.slow
def test_ray_gives_what_processes_give(bundle: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    for name, count in (("a", 8), ("b", 9)):
        write_bag(tmp_path / name, count=count, start=START + count * 10**12)
    common = ("--bag", tmp_path / "[ab]", "--model", bundle, "--engine", "onnx", "--resamples", 20)
    assert evaluate(*common, "--output", tmp_path / "one") == 0
    words = ("--runner", "ray", "--output", tmp_path / "two")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert evaluate(*common, *words) == 0
    finally:
        ray.shutdown()
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    for part in ("classification", "pose", "place"):
        assert one[part] == two[part], part


@pytest.mark.slow
def test_ray_without_a_cluster_is_refused(
    bundle: Path,
    bag: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where no cluster has left its address
    words = ("--bag", bag, "--model", bundle, "--runner", "ray", "--output", tmp_path)
    assert evaluate(*words) == 2
    assert "ray start --head" in capfd.readouterr().err


def test_ray_that_is_not_installed_is_said(
    bundle: Path,
    bag: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    words = ("--bag", bag, "--model", bundle, "--runner", "ray", "--output", tmp_path)
    assert evaluate(*words) == 2
    assert "robot_vision[ray]" in capfd.readouterr().err


@pytest.mark.slow
def test_a_recording_of_the_node_is_scored_as_the_replay(
    bundle: Path, bag: Path, output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--predictions", output / "results" / "drive", "--bag", bag, "--model", bundle)
    settings = ("--place-exclude", 0.35, "--name", "drive")
    assert evaluate(*words, *settings, "--output", tmp_path / "live") == 0
    live = {(h.section, h.key): h.number for h in headlines(metrics_of(tmp_path / "live"))}
    offline = {(h.section, h.key): h.number for h in headlines(metrics_of(output))}
    assert live.keys() == offline.keys() and len(live) > 20
    for key, number in offline.items():
        for part in ("value", "low", "high"):
            assert getattr(live[key], part) == pytest.approx(getattr(number, part), abs=1e-5), key
    assert "data:image/jpeg" in (tmp_path / "live" / "report.html").read_text()


@pytest.mark.slow
def test_images_that_the_model_was_trained_or_calibrated_on_are_said(
    bag: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = open_dataset("rosbag", bag, split="train").contents("train")  # of four different
    model = make_tiny_bundle(tmp_path / "seen")
    spec = ModelBundle.load(model).spec
    training = {
        "training_image_sketch": sketch(images[:1]),
        "validation_image_sketch": sketch(["0"]),
    }
    calibration = {"data": {"image_sketch": sketch(images)}}
    write_manifest(model, "seen", spec, training, {}, calibration)
    words = ("--model", model, "--resamples", 0, "--bag", bag)
    assert evaluate(*words, "--engine", "onnx", "--output", tmp_path / "out") == 0
    said = capfd.readouterr().out
    problems = metrics_of(tmp_path / "out")["recordings"][0]["meta"]["problems"]
    assert problems[0].startswith("25 % of the images are among those that seen was trained on")
    for text in (said, (tmp_path / "out/report.html").read_text()):
        words = " ".join(text.split())
        assert "100 % of the images are among those that seen was calibrated on" in words
        assert "chosen" not in words
    results = read_results(
        str(tmp_path / "out/results/drive"), "front", ModelBundle.load(model).spec
    )
    with open_source(bag) as source:  # of the node, with the bag that it saw
        found = with_times_of(results, source, ModelBundle.load(model))
    assert set(problems) <= set(found.meta["problems"])


def test_poses_of_the_node_are_not_taken_for_the_truth(
    bundle: Path, output: Path, tmp_path: Path
) -> None:
    """A recording without truth has nothing to be scored against, least of all itself."""
    assert evaluate("--predictions", output / "results" / "drive", "--output", tmp_path) == 0
    # /evaluation/true_pose calls itself no truth of a robot.
    assert metrics_of(tmp_path)["pose"] is None


def test_recording_of_another_model_is_refused(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = make_tiny_bundle(tmp_path / "other", name="other")
    words = ("--predictions", output / "results" / "drive", "--model", other)
    assert evaluate(*words, "--output", tmp_path / "out") == 2
    assert "another model" in capfd.readouterr().err


@pytest.mark.slow
def test_map_bag_is_looked_up_in_and_its_pictures_are_shown(bundle: Path, tmp_path: Path) -> None:
    mapping = write_bag(tmp_path / "mapping", count=4, offset=(0.3, 0, 0))
    drive = write_bag(tmp_path / "drive", count=12)
    words = ("--bag", drive, "--map-bag", mapping, "--model", bundle, "--engine", "onnx")
    assert evaluate(*words, "--place-radius", 0.25, "--output", tmp_path / "out") == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["map"]["frames"] == 4 and metrics["place"]["recall_at_1"]["value"] == 1.0
    baseline = metrics["pose"]["baselines"]["most_similar_image"]
    assert baseline["median_m"]["value"] == pytest.approx(0.2, abs=1e-6)
    page = (tmp_path / "out" / "report.html").read_text()
    gallery = page.partition("Surest right matches")[2].partition("</div>")[0]
    assert gallery.count("<img") == 4


@pytest.mark.slow
def test_comparison_tells_a_change_from_noise(bundle: Path, tmp_path: Path) -> None:
    """The same drive, with poses that are 2 cm worse on every frame, and classes that did not change."""
    common = ("--model", bundle, "--engine", "onnx", "--no-results-bag", "--no-cache")
    wrong = frozenset({3, 11, 26})
    bag = write_bag(tmp_path / "drive", wrong=wrong)
    assert evaluate("--bag", bag, *common, "--output", tmp_path / "old") == 0
    import shutil

    shutil.rmtree(bag)
    write_bag(bag, offset=(0.12, 0, 0), wrong=wrong)
    words = ("--compare", tmp_path / "old" / "metrics.json", "--output", tmp_path / "new")
    assert evaluate("--bag", bag, *common, *words) == 0
    changes, notes = compare(metrics_of(tmp_path / "new"), metrics_of(tmp_path / "old"))
    by_key = {(c.headline.section, c.headline.key): c for c in changes}
    median = by_key["pose", "median_m"]
    assert median.paired and median.verdict == "worse"
    assert median.difference.value == pytest.approx(0.02, abs=1e-6)
    assert by_key["classification", "top1"].verdict == "same"
    assert any("40 of 40" in note for note in notes)
    page = (tmp_path / "new" / "report.html").read_text()
    assert "Since the earlier evaluation" in page and "WORSE" in page
    back, _ = compare(metrics_of(tmp_path / "old"), metrics_of(tmp_path / "new"))
    assert {c.headline.key: c.verdict for c in back}["median_m"] == "better"


@pytest.mark.slow
def test_comparison_of_some_shared_frames_shows_their_numbers(bundle: Path, tmp_path: Path) -> None:
    """The new evaluation has a second, worse recording: the first one's numbers did not change."""
    common = ("--model", bundle, "--engine", "onnx", "--no-results-bag", "--resamples", 100)
    a = write_bag(tmp_path / "a", count=20)
    b = write_bag(tmp_path / "b", count=40, offset=(0.7, 0, 0))
    assert evaluate("--bag", a, *common, "--output", tmp_path / "old") == 0
    assert evaluate("--bag", a, "--bag", b, *common, "--output", tmp_path / "new") == 0
    changes, notes = compare(metrics_of(tmp_path / "new"), metrics_of(tmp_path / "old"))
    median = next(c for c in changes if c.headline.key == "median_m")
    assert median.headline.number.value == pytest.approx(0.7, abs=1e-6)
    assert median.new.value == median.old.value == pytest.approx(0.1, abs=1e-6)
    assert median.difference.value == 0 and median.verdict == "same"
    assert any("20 of 60" in note for note in notes)


@pytest.mark.slow
def test_comparison_of_other_frames_uses_the_intervals(bundle: Path, tmp_path: Path) -> None:
    common = ("--model", bundle, "--engine", "onnx", "--no-results-bag")
    for name, start, offset in (("a", START, 0.1), ("b", START + 10**12, 0.4)):
        bag = write_bag(tmp_path / name, offset=(offset, 0, 0), start=start)
        assert evaluate("--bag", bag, *common, "--output", tmp_path / f"out_{name}") == 0
    changes, notes = compare(metrics_of(tmp_path / "out_b"), metrics_of(tmp_path / "out_a"))
    by_key = {c.headline.key: c for c in changes}
    assert not by_key["median_m"].paired and by_key["median_m"].verdict == "worse"
    assert by_key["top1"].verdict == "same" and any("others" in n for n in notes)


@pytest.mark.parametrize("form", ["markdown", "json", "table"])
@pytest.mark.slow
def test_formats_hold_the_headline_numbers(
    form: str, bag: Path, bundle: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "--bag",
        bag,
        "--model",
        bundle,
        "--engine",
        "onnx",
        "--output",
        output,
        "--format",
        form,
    )
    assert evaluate(*words, "--place-exclude", 0.35) == 0
    text = capsys.readouterr().out
    if form == "json":
        data = json.loads(text)
        assert data["classification"]["top1"]["value"] == 0.95 and "rows" not in data
    else:
        assert "95.0" in text and "Median position error" in text and "class prior" in text
    if form == "markdown":
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines if "Recall@" in line}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_run_goes_on_with_the_bags_that_it_lacks(
    jobs: int, bundle: Path, tmp_path: Path
) -> None:
    """A real Ctrl-C in the middle of the second bag."""
    write_bag(tmp_path / "a", count=10)
    write_bag(tmp_path / "b", count=1500, labels=False)
    command = [sys.executable, "-m", "robot_vision.cli", "evaluate", "--model", str(bundle)]
    command += ["--bag", str(tmp_path / "a"), "--bag", str(tmp_path / "b"), "--engine", "onnx"]
    command += ["--output", str(tmp_path / "out"), "--resamples", "0", "--no-results-bag"]
    command += ["--jobs", str(jobs)]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("cache/a-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)  # which ends when no worker holds the pipe any more
    if process.returncode == 0:
        pytest.skip("this machine was faster than the interrupt")
    assert process.returncode == 130 and "continues from there" in said
    assert not list((tmp_path / "out").glob("cache/*.part"))
    assert not (tmp_path / "out" / "metrics.json").exists()
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "kept predictions are used for a" in done.stderr
    assert metrics_of(tmp_path / "out")["frames"] == 1510


@pytest.mark.slow
def test_write_results_says_unknown_below_the_threshold(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Reader

    from robot_vision.messages.types import CLASSIFICATION, message_types

    bundle = make_tiny_bundle(tmp_path / "sure", unknown_threshold=2.0)
    bag = write_bag(tmp_path / "bag", count=3)
    with Pipeline.load(bundle, "onnx") as pipeline, open_source(bag) as source:
        found = replay(pipeline, source)
        write_results(tmp_path / "results", found, pipeline.bundle, top_k=2)
    types = message_types()
    with Reader(tmp_path / "results") as reader:
        wanted = [c for c in reader.connections if c.msgtype == CLASSIFICATION]
        messages = [types.deserialize_cdr(d, CLASSIFICATION) for _, _, d in reader.messages(wanted)]
    assert [m.results[0].class_id for m in messages] == ["unknown"] * 3
    assert [len(m.results) for m in messages] == [3] * 3
    for message in messages:
        scores = [r.score for r in message.results]
        assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-6
    back = read_results(tmp_path / "results")
    assert (back.kept == 0).all()  # and so `uncertainty` counts what the robot refused
    assert any("known scores are not recorded" in note for note in back.meta["problems"])
    # Of three classes two were published: the third gets what is left.
    assert np.allclose(back.probabilities, found.probabilities, atol=1e-6)
    assert any("top_k:=3" in note for note in back.meta["problems"])
    assert np.allclose(back.position, [position(i) for i in range(3)], atol=1e-6)
