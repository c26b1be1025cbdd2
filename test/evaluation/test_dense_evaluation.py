"""Answers of the size of images, from prediction to metrics: a toy head that says a class id a pixel."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_heads
from evaluation_bags import IMAGE_TOPIC, PERIOD, START
from toy_heads import SIZE, SegmentsSpec

from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest
from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.rows import RowColumn, from_json, table
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.topics import ImageReader
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import merge
from robot_vision.evaluation.predict.columns import STREAMED, Predictions
from robot_vision.evaluation.predict.recorded import read_results, write_results
from robot_vision.evaluation.predict.replay import replay
from robot_vision.evaluation.report.tables import write_table
from robot_vision.evaluation.report.writing import lens_of
from robot_vision.files.array_stream import Stream
from robot_vision.geometry.intrinsics import info_topic
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.base import Frame, RawImage, Source
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.images import ImageTrack
from robot_vision.truth.tracks import Truth

CAMERA = (64, 120)  # of another shape than the network's input, so that a letterbox has borders
TRUTH = "/truth/toy_segments"
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """Installs the toy as another package would, so that other processes know it."""
    info = tmp_path / "site" / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    kinds = "toy_segments = toy_heads:SEGMENTS\ntoy_dense = toy_heads:DENSE\n"
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{kinds}")
    monkeypatch.syspath_prepend(info.parent)
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


def bundle(path: Path, resize: str = "squash", spec: NetworkSpec | None = None) -> Path:
    spec = spec or NetworkSpec(
        input=InputSpec(*SIZE, resize=resize), heads={"toy_segments": SegmentsSpec()}
    )
    path.mkdir()
    (path / GRAPH).write_bytes(toy_heads.graph(spec))
    (path / "README.md").write_text("Test bundle.\n")
    write_manifest(path, "toy", spec, {}, {})
    return path


def said(i: int) -> np.ndarray:
    """What the toy says of frame i, at the camera's size: bright where the image is."""
    ids = np.zeros(CAMERA, np.uint8)
    ids[:, : 20 + 40 * (i % 3)] = 1
    return ids


def true(i: int) -> np.ndarray:
    """What is true of frame i: the lower half is not known, and in every fourth frame all is bright."""
    ids = said(i) if i % 4 else np.ones(CAMERA, np.uint8)
    ids[CAMERA[0] // 2 :] = toy_heads.NONE
    return ids


def write_bag(
    path: Path, count: int = 12, form: str = "raw", lag_ns: int = 0, lost: int = -1
) -> Path:
    with RecordingWriter(path, "mcap") as bag:
        for i in range(count):
            stamp = START + i * PERIOD
            picture = np.repeat(said(i)[..., None] * np.uint8(255), 3, axis=2)
            bag.image(IMAGE_TOPIC, stamp, "front_optical", picture)
            if i == lost:
                continue
            if form == "raw":
                bag.image(TRUTH, stamp + lag_ns, "front_optical", true(i), "mono8")
            else:
                _, data = cv2.imencode(".png", true(i))
                bag.compressed_image(
                    TRUTH, stamp + lag_ns, "front_optical", data.tobytes(), "mono8; png"
                )
    return path


def write_data(folder: Path, classes: str, ids: dict[int, int], count: int = 6) -> Path:
    """Writes frames and what is true of them as a data set whose ids are others than the toy's."""
    for split in ("train", "test"):
        for part in ("images", "labels"):
            (folder / split / part).mkdir(parents=True)
            assert cv2.imwrite(str(folder / split / part / "x.png"), np.full(CAMERA, 255, np.uint8))
            (folder / "test" / part / "x.png").unlink(missing_ok=True)
    (folder / "classes.txt").write_text(classes)
    for i in range(count):
        picture = np.repeat(said(i)[..., None] * np.uint8(255), 3, axis=2)
        assert cv2.imwrite(str(folder / "test" / "images" / f"{i}.png"), picture)
        stored = np.full(CAMERA, 255, np.uint8)
        for ours, theirs in ids.items():
            stored[true(i) == ours] = theirs
        assert cv2.imwrite(str(folder / "test" / "labels" / f"{i}.png"), stored)
    return folder


def evaluate(tmp_path: Path, *words: str) -> dict:
    arguments = [
        "--topic",
        IMAGE_TOPIC,
        "--engine",
        "onnx",
        "--resamples",
        "20",
        "--no-results-bag",
    ]
    out = tmp_path / "out"
    assert main(["evaluate", *words, *arguments, "--output", str(out)]) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("form", ["raw", "png"])
@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_pixels_are_compared_where_the_network_saw_them(tmp_path, form, resize):
    model, bag = bundle(tmp_path / "model", resize), write_bag(tmp_path / "drive", form=form)
    found = evaluate(tmp_path, "--bag", str(bag), "--model", str(model))
    # Of the camera's columns the network sees all, or with `crop` those of its own shape in the middle.
    width = 96 if resize == "crop" else 120
    left = (120 - width) // 2
    right = total = 0
    for i in range(12):
        seen = slice(left, left + width)
        known = true(i)[:, seen] != toy_heads.NONE
        right += (known & (true(i) == said(i))[:, seen]).sum()
        total += known.sum()
    accuracy = found["toy_segmentation"]["accuracy"]["value"]
    assert accuracy == pytest.approx(right / total, abs=1 / 48)
    assert right / total < 0.95
    assert found["association"]["image:toy_segments"] == {"found": 12, "missing": {}}
    if resize == "letterbox":  # 26 of the input's 32 rows, of which the upper half is known
        file = next((tmp_path / "out" / "cache").glob("*.npz"))
        assert Predictions.load(file).image_size.tolist() == [list(CAMERA)] * 12


@pytest.mark.slow
def test_the_file_of_predictions_has_each_array_apart_and_is_used_again(tmp_path, capsys):
    model, bag = bundle(tmp_path / "model"), write_bag(tmp_path / "drive")
    words = ["--bag", str(bag), "--model", str(model)]
    first = evaluate(tmp_path, *words)
    (file,) = (tmp_path / "out" / "cache").iterdir()
    with zipfile.ZipFile(file) as archive:
        assert sum(name.startswith("ids/") for name in archive.namelist()) == 12
    kept = Predictions.load(file)
    assert isinstance(kept.columns["ids"], Stream)
    for i in range(12):
        expected = cv2.resize(said(i), SIZE[::-1], interpolation=cv2.INTER_AREA)
        assert (kept.columns["ids"][i] != expected).mean() < 1 / 48
    head = json.loads(str(np.load(file)["head"]))
    assert head["format"] == STREAMED and head["streams"] == {"ids": "uint8"}
    capsys.readouterr()
    second = evaluate(tmp_path, *words)
    assert "kept predictions are used" in capsys.readouterr().err
    assert second["toy_segmentation"] == first["toy_segmentation"]


@pytest.mark.parametrize("of", ["bag", "data"])
def test_the_report_draws_answers_next_to_the_pictures(tmp_path, of):
    model = bundle(tmp_path / "model", "crop")
    if of == "bag":
        words = ["--bag", str(write_bag(tmp_path / "drive"))]  # truth is no camera
    else:
        data = write_data(tmp_path / "data", "floor\nwall\n", {0: 0, 1: 1})
        words = ["--data", "mask_folder", str(data), "--option", "word=toy_segments"]
    out = tmp_path / "out"
    given = ["evaluate", *words, "--model", str(model), "--engine", "onnx", "--no-results-bag"]
    assert main([*given, "--output", str(out)]) == 0
    page = (out / "report.html").read_text()
    shown = re.findall(r'"data:image/jpeg;base64,([^"]+)"', page[page.index("Worst frames") :])
    plain, drawn = (
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data in shown
    )
    # Frame 0: bright on the left, and class 0 is drawn in blue, where the network saw it.
    assert plain[:, 10:30].min() > 230 and plain[:, 60:].max() < 25
    scale = plain.shape[1] / CAMERA[1]
    seen = slice(round(12 * scale) + 4, round(108 * scale) - 4)
    blue, green, _ = np.moveaxis(drawn[:, seen][:, -40:].astype(int), 2, 0)
    assert np.median(blue) > 90 and np.median(green) < 25
    assert drawn[:, -20:].max() < 60


@pytest.mark.slow
def test_recordings_of_several_processes_are_those_of_one_merged(tmp_path):
    model = bundle(tmp_path / "model")
    bags = [write_bag(tmp_path / name, count) for name, count in (("a", 7), ("b", 12))]
    words = [word for bag in bags for word in ("--bag", str(bag))]
    both = evaluate(tmp_path, *words, "--model", str(model), "--jobs", "2")
    files = []
    for bag in bags:
        out = tmp_path / bag.name
        evaluate(out, "--bag", str(bag), "--model", str(model), "--seed", "0")
        files.append(str(out / "out" / "metrics.json"))
    merged = tmp_path / "merged"
    assert main(["evaluate", "merge", *files, "--output", str(merged)]) == 0
    merged = json.loads((merged / "metrics.json").read_text())
    assert merged["toy_segmentation"] == both["toy_segmentation"]
    assert both["toy_segmentation"]["frames"] == 19


def test_a_head_of_the_package_keeps_what_its_rows_depend_on(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "toy_segments", "toy_heads:SEGMENTS")
    model, bag = bundle(tmp_path / "model"), write_bag(tmp_path / "drive", 6)
    found = evaluate(tmp_path, "--bag", str(bag), "--model", str(model))
    scores = from_json(found["rows"])
    assert scores["toy_hit"].shape == (6, 2)
    assert merge([found])["toy_segmentation"] == found["toy_segmentation"]
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None
    )  # so that no pyarrow is found
    lines = write_table(tmp_path, scores).read_text().splitlines()
    assert lines[0].endswith("toy_hit_floor,toy_hit_wall,toy_pixels")


def test_classes_of_pixels_are_not_taken_for_those_of_frames(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "toy_segments", "toy_heads:SEGMENTS")
    heads = {"toy_segments": SegmentsSpec(), "classifier": ClassifierSpec(("red", "green", "blue"))}
    spec = NetworkSpec(input=InputSpec(*SIZE), heads=heads)
    model = bundle(tmp_path / "model", spec=spec)
    with RecordingWriter(tmp_path / "drive", "mcap") as bag:
        for i in range(6):
            stamp = START + i * PERIOD
            bag.label("/truth/room", stamp, ("red", "green")[i % 2])
            picture = np.full((*CAMERA, 3), ((250, 5, 5), (5, 250, 5))[i % 2], np.uint8)
            bag.image(IMAGE_TOPIC, stamp, "front", picture)
            bag.image(TRUTH, stamp, "front", np.zeros(CAMERA, np.uint8), "mono8")
    found = evaluate(tmp_path, "--bag", str(tmp_path / "drive"), "--model", str(model))
    assert found["classification"]["top1"]["value"] == 1.0
    assert found["toy_segmentation"]["accuracy"]["value"] == 1.0
    assert (from_json(found["rows"])["true_label"] == [0, 1] * 3).all()


def test_true_images_of_a_named_head_are_called_after_it(tmp_path, capsys):
    spec = NetworkSpec(
        input=InputSpec(*SIZE), heads={"road": SegmentsSpec(), "toy_segments": SegmentsSpec()}
    )
    model = bundle(tmp_path / "model", spec=spec)
    with RecordingWriter(tmp_path / "drive", "mcap") as bag:
        for i in range(6):
            stamp = START + i * PERIOD
            picture = np.repeat(said(i)[..., None] * np.uint8(255), 3, axis=2)
            bag.image(IMAGE_TOPIC, stamp, "front", picture)
            bag.image("/truth/toy_segments", stamp, "front", true(i), "mono8")
            bag.image("/camera/road", stamp, "front", 1 - said(i), "mono8")
    words = ["--bag", str(tmp_path / "drive"), "--model", str(model)]
    found = evaluate(tmp_path, *words, "--truth-image", "road=/camera/road")
    assert found["road.toy_segmentation"]["accuracy"]["value"] < 0.05
    assert found["toy_segmentation"]["accuracy"]["value"] > 0.7
    assert found["association"]["image:road"]["found"] == 6
    given = ["evaluate", *words, "--topic", IMAGE_TOPIC, "--output", str(tmp_path / "o")]
    assert main([*given, "--truth-image", "road.toy_segments=/camera/road"]) == 2
    assert "use one of road, toy_segments" in capsys.readouterr().err


def test_two_heads_whose_rows_have_one_column_are_refused(monkeypatch):
    monkeypatch.setattr(
        toy_heads.SegmentsJudge, "rows", lambda self, facts: {"nees": RowColumn("<f8", 1, "")}
    )
    with pytest.raises(ConfigError, match="pose and the toy_segments head both have.*column nees"):
        table(("toy_segments",))


@pytest.mark.slow
def test_true_images_are_those_of_the_nearest_stamp_within_a_limit(tmp_path):
    model = bundle(tmp_path / "model")
    bag = write_bag(tmp_path / "drive", lag_ns=15_000_000, lost=3)
    words = ["--bag", str(bag), "--model", str(model)]
    found = evaluate(tmp_path, *words)
    assert found["toy_segmentation"]["frames"] == 11
    assert found["association"]["image:toy_segments"] == {
        "found": 11,
        "missing": {"no image near": 1},
    }
    arguments = ["evaluate", *words, "--topic", IMAGE_TOPIC, "--engine", "onnx"]
    assert main([*arguments, "--truth-image-within", "0.01", "--output", str(tmp_path / "o")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--truth-image", "segments=/truth/toy_segments"],
            "unknown name of --truth-image 'segments'",
        ),
        (["--truth-image", "toy_segments"], "no source of true images"),
        (["--truth-image", "toy_segments=/x", "--truth-image", "toy_segments=/y"], "given twice"),
        (["--truth-image", "toy_segments=/truth/toys"], "unknown topic of true images"),
        (["--truth-image-within", "-1"], "image_within_s is -1"),
        (["--option", "word=x"], "--option belongs to a data set"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(tmp_path, capsys, words, message):
    model, bag = bundle(tmp_path / "model"), write_bag(tmp_path / "drive", 3)
    arguments = ["--topic", IMAGE_TOPIC, "--output", str(tmp_path / "out")]
    given = ["evaluate", "--bag", str(bag), "--model", str(model), *arguments, *words]
    assert main(given) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.lower() in error.lower()


def test_true_images_of_another_size_are_refused_with_both(tmp_path, capsys):
    model = bundle(tmp_path / "model")
    with RecordingWriter(tmp_path / "drive", "mcap") as bag:
        for i in range(3):
            bag.image(IMAGE_TOPIC, START + i * PERIOD, "f", np.zeros((*CAMERA, 3), np.uint8))
            bag.image(TRUTH, START + i * PERIOD, "f", np.zeros((32, 60), np.uint8), "mono8")
    words = ["--bag", str(tmp_path / "drive"), "--model", str(model), "--topic", IMAGE_TOPIC]
    assert main(["evaluate", *words, "--output", str(tmp_path / "out")]) == 2
    assert "60 x 32 pixels, and the camera's 120 x 64" in capsys.readouterr().err


@pytest.mark.slow
def test_a_data_set_is_judged_as_its_bag_is_by_the_names_of_classes(tmp_path, capsys):
    model = bundle(tmp_path / "model", "letterbox")
    data = write_data(tmp_path / "data", "wall\nsky\nfloor\n", {1: 0, 0: 2})
    words = ["--data", "mask_folder", str(data), "--option", "word=toy_segments"]
    out = tmp_path / "of_data"
    given = ["evaluate", *words, "--model", str(model), "--resamples", "20", "--engine", "onnx"]
    assert main([*given, "--output", str(out)]) == 0
    found = json.loads((out / "metrics.json").read_text())
    bag = write_bag(tmp_path / "drive", 6)
    expected = evaluate(tmp_path, "--bag", str(bag), "--model", str(model))
    assert found["toy_segmentation"] == expected["toy_segmentation"]
    notes = " ".join(found["recordings"][0]["truth"])
    assert "the model does not know are left out: sky" in notes
    assert main([*given, "--output", str(out)]) == 0
    assert "kept predictions are used for data (test)" in capsys.readouterr().err


def test_a_data_set_of_other_classes_or_with_other_truth_is_refused(tmp_path, capsys):
    model = bundle(tmp_path / "model")
    data = write_data(tmp_path / "data", "sea\nsky\n", {1: 0, 0: 1}, 2)
    words = ["evaluate", "--data", "mask_folder", str(data), "--option", "word=toy_segments"]
    words += ["--model", str(model), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "classes of image:toy_segments are sea, sky, and the model's floor, wall" in (
        capsys.readouterr().err
    )
    for given in (["--labels", "a.yaml"], ["--no-labels"], ["--map-poses", "a.tum"]):
        assert main([*words, *given]) == 2
        assert f"{given[0]} does not go with --data" in capsys.readouterr().err
    assert main([*words, "--split", "validation"]) == 2
    assert "has no validation images: --split may be train, test" in capsys.readouterr().err


@pytest.mark.slow
def test_recorded_answers_are_judged_as_replayed_ones(tmp_path, capsys):
    model, bag = bundle(tmp_path / "model", "letterbox"), write_bag(tmp_path / "drive")
    words = ["--topic", IMAGE_TOPIC, "--engine", "onnx", "--resamples", "20"]
    replayed = tmp_path / "replayed"
    given = ["evaluate", "--bag", str(bag), "--model", str(model), *words]
    assert main([*given, "--output", str(replayed)]) == 0
    results = replayed / "results" / "drive"
    back = read_results(results, spec=ModelBundle.load(model).spec)
    kept = Predictions.load(next((replayed / "cache").iterdir()))
    for a, b in zip(back.columns["ids"], kept.columns["ids"], strict=True):
        np.testing.assert_array_equal(a, b)
    recorded = ["--predictions", str(results), "--bag", str(bag)]
    found = evaluate(tmp_path, *recorded, "--model", str(model))
    expected = json.loads((replayed / "metrics.json").read_text())
    assert found["toy_segmentation"] == expected["toy_segmentation"]
    capsys.readouterr()
    evaluate(tmp_path, *recorded)
    assert "toy_segments is not judged, since that needs its settings" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(120, 64), (320, 240)])
def test_results_have_the_calibration_that_the_recording_has(tmp_path, size):
    spec = NetworkSpec(input=InputSpec(*SIZE), heads={"toy_dense": toy_heads.DenseSpec()})
    model, K = bundle(tmp_path / "model", spec=spec), [[90, 0, 61], [0, 80, 30], [0, 0, 1]]
    with RecordingWriter(tmp_path / "drive", "mcap") as bag:
        for i in range(3):
            stamp = START + i * PERIOD
            bag.image(IMAGE_TOPIC, stamp, "front", np.full((*CAMERA, 3), 100, np.uint8))
            bag.camera_info(info_topic(IMAGE_TOPIC), stamp, "front", size[::-1], K)
    with Pipeline.load(model, "onnx") as pipeline:
        with open_source(tmp_path / "drive", [IMAGE_TOPIC]) as source:
            found = replay(pipeline, source)
        lens = lens_of(str(tmp_path / "drive"), found, pipeline.bundle)
        lacking = write_results(tmp_path / "results", found, pipeline.bundle, lens=lens)
    written = BagFile(tmp_path / "results")
    base = "/perception/front/dense"
    if size != (120, 64):
        assert len(lacking) == 1 and "120 x 64 and their camera_info is of 320 x 240" in lacking[0]
        assert "3 messages of dense/camera_info, dense/points" in lacking[0]
        assert f"{base}/points" not in written.counts
        return
    assert not lacking and written.counts[f"{base}/points"] == 3
    message = written.message(next(iter(written.raw([f"{base}/camera_info"]))))
    x, y = SIZE[1] / 120, SIZE[0] / 64
    expected = [90 * x, 0, 61.5 * x - 0.5, 0, 80 * y, 30.5 * y - 0.5, 0, 0, 1]
    np.testing.assert_allclose(message.k, expected)


def test_a_damaged_recorded_answer_is_none_and_said():
    reader, notes = ImageReader("ids", "uint8"), []
    good = RawImage.of(np.ones((2, 3), np.uint8), "mono8")
    reader.add((1, 0), good)
    reader.add((2, 0), replace(good, height=9))
    column = reader.finish([(0, 0), (1, 0), (2, 0)], {}, notes)["ids"]
    assert column[0] is None and (column[1] == 1).all() and column[2] is None
    assert len(notes) == 1 and "1 image of ids cannot be read" in notes[0]


def test_a_replay_keeps_no_answer_in_memory(tmp_path):
    model, bag = bundle(tmp_path / "model"), write_bag(tmp_path / "drive", 5)
    with Pipeline.load(model, "onnx") as pipeline, open_source(bag, [IMAGE_TOPIC]) as source:
        found = replay(pipeline, source)
    assert isinstance(found.columns["ids"], Stream)
    picked = found.take(np.array([3, 1]))
    assert (picked.columns["ids"][0] == found.columns["ids"][3]).all()
    assert picked.image_size.shape == (2, 2)


class ManyFrames(Source):
    """Frames of noise, made when they are asked for."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        super().__init__("many", ("/many",), count)
        self._size = size

    def __iter__(self):
        rng = np.random.default_rng(0)
        for i in range(self.count):
            image = RawImage.of(rng.integers(0, 256, (*self._size, 3), np.uint8), "rgb8")
            yield Frame(i * PERIOD, "/many", "camera", image, str(i), i * PERIOD)


@dataclass
class MadeTruth:
    """True ids, made when they are asked for."""

    size: tuple[int, int]
    none: tuple[float, ...] = ()
    unit: float = 1.0

    def load(self) -> np.ndarray:
        return np.ones(self.size, np.uint8)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_answers(tmp_path, monkeypatch):
    size = (120, 160)
    monkeypatch.setattr(toy_heads, "SIZE", size)
    spec = NetworkSpec(input=InputSpec(*size), heads={"toy_segments": SegmentsSpec()})
    model = bundle(tmp_path / "model", spec=spec)

    def peak(pipeline: Pipeline, count: int) -> int:
        file = tmp_path / "predictions.npz"
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        replay(pipeline, ManyFrames(count, size), folder=tmp_path).save(file)
        found = Predictions.load(file)
        track = ImageTrack(found.stamps_ns, [MadeTruth(size)] * count)
        scores = score_recording(
            found, Truth(images={"toy_segments": track}), bound=pipeline.bundle.spec.bound
        )
        assert (scores["toy_pixels"] == size[0] * size[1]).all() and len(scores) == count
        return tracemalloc.get_traced_memory()[1] - before

    with Pipeline.load(model, "onnx", threads=1) as pipeline:
        tracemalloc.start()
        try:
            peak(pipeline, 20)
            few, many = peak(pipeline, 100), peak(pipeline, 900)
        finally:
            tracemalloc.stop()
    # An answer has 19,200 bytes; a frame's place in the file and its row of numbers 1,150 (measured).
    assert (many - few) / 800 < 2500
