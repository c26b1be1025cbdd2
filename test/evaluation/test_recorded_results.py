"""Recordings of the nodes' results: of several robots, with all that was published, and nothing twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_bags import PERIOD, START
from tiny_bundle import make_tiny_bundle, two_classifiers

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.head import plain
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.recorded import read_results, write_results
from robot_vision.evaluation.report.tables import file_stems
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.images.input import InputSpec
from robot_vision.messages.types import CLASSIFICATION, LABEL_INFO, VISION_INFO
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.ros.perception.recorded_topics import record_command, topic_pattern
from robot_vision.truth.tracks import Truth

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8)
CAMERAS = ("/robot1/perception/camera", "/robot2/perception/camera", "/robot2/perception/rear")


@pytest.fixture(scope="module")
def two_robots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two robots with models of their own: robot1 knows a and b, robot2 knows y and z."""
    path = tmp_path_factory.mktemp("robots") / "both"
    with RecordingWriter(path) as bag:
        make = bag.types
        for robot, labels in (("robot1", ("a", "b")), ("robot2", ("y", "z"))):
            header = bag.header(START, "")
            kind = make["vision_msgs/msg/VisionClass"]
            info = make[LABEL_INFO](header, [kind(i, n) for i, n in enumerate(labels)], 0.0)
            bag.write(f"/{robot}/perception/label_info", START, info)
            model = make[VISION_INFO](header, f"model of {robot}", "", 0)
            bag.write(f"/{robot}/perception/vision_info", START, model)
            result = make["vision_msgs/msg/ObjectHypothesis"]
            for camera in (c for c in CAMERAS if robot in c):
                for i in range(4):
                    stamp = START + i // 2 * PERIOD if "rear" in camera else START + i * PERIOD
                    results = [result(labels[0], 0.75), result(labels[1], 0.25)]
                    message = make[CLASSIFICATION](bag.header(stamp, "optical"), results)
                    bag.write(f"{camera}/classification", stamp, message)
    return path


@pytest.mark.parametrize(
    ("camera", "topic", "labels"),
    [
        ("/robot1/perception/camera", CAMERAS[0], ("a", "b")),
        ("robot2/perception/camera", CAMERAS[1], ("y", "z")),
        ("/robot2/perception/camera/classification", CAMERAS[1], ("y", "z")),
        ("rear", CAMERAS[2], ("y", "z")),
    ],
)
def test_each_robot_s_camera_is_reached_with_its_own_labels_and_model(
    two_robots: Path, camera: str, topic: str, labels: tuple[str, ...]
) -> None:
    found = read_results(two_robots, camera)
    assert found.meta["topic"] == topic and found.labels == labels
    assert found.meta["model"] == f"model of {topic.split('/')[1]}"
    assert np.allclose(found.probabilities, [[0.75, 0.25]] * 4)


@pytest.mark.parametrize("camera", ["camera", "perception/camera", None])
def test_a_name_that_several_cameras_have_is_refused_with_their_topics(
    two_robots: Path, camera: str | None
) -> None:
    with pytest.raises(SourceError) as caught:
        read_results(two_robots, camera)
    for topic in CAMERAS[: 2 if camera else 3]:
        assert topic in str(caught.value)


@pytest.mark.parametrize("camera", ["front", "/perception/camera", "amera"])
def test_a_name_that_no_camera_has_is_refused_with_all_topics(
    two_robots: Path, camera: str
) -> None:
    with pytest.raises(SourceError, match=", ".join(CAMERAS)):
        read_results(two_robots, camera)


def test_results_that_share_a_stamp_are_counted_in_a_note(two_robots: Path) -> None:
    def said(camera: str) -> bool:
        notes = read_results(two_robots, camera).meta["problems"]
        return any("2 of 4 results have the stamp of another" in note for note in notes)

    assert said("rear") and not said(CAMERAS[0])


def test_uncertainty_is_written_and_read_back(tmp_path: Path) -> None:
    count = 3
    spread = np.stack(
        [np.diag([4e-4, 1e-4, 2e-4, 3e-5, 2e-5, 1e-5]) * (i + 1) for i in range(count)]
    )
    said = Predictions(
        START + PERIOD * np.arange(count),
        labels=("red", "green", "blue"),
        probabilities=np.full((count, 3), [0.5, 0.3, 0.2]),
        known_score=np.ones(count),
        position=np.zeros((count, 3)),
        orientation_xyzw=np.tile([0.0, 0, 0, 1], (count, 1)),
        covariance=spread * 2,
        meta={"topic": "/front/image_raw", "frame_id": "front"},
        mutual_information=np.array([0.125, 0.25, 0.5]),
        spread=spread,
    )
    bundle = ModelBundle.load(make_tiny_bundle(tmp_path / "tiny"))
    write_results(tmp_path / "results", said, bundle, top_k=3)
    back = read_results(tmp_path / "results")
    expected, found = (score_recording(p, Truth()) for p in (said, back))
    assert (expected["kept"] == -1).all() and (found["kept"] == -1).all()
    for name in ("mutual_information", "spread_m", "spread_deg"):
        assert np.isfinite(expected[name]).all()
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, err_msg=name)


def test_two_classifiers_are_written_and_read_back_each_by_its_name(tmp_path: Path) -> None:
    bundle = ModelBundle.load(two_classifiers(tmp_path / "bundle"))
    images = [np.full((32, 48, 3), colour, np.uint8) for colour in ((250, 5, 5), (5, 250, 5))]
    with Pipeline.load(bundle.path, "onnx", threads=1) as pipeline:
        stamps = [START, START + PERIOD]
        meta = {"topic": "/front/image_raw", "frame_id": "front"}
        said = Predictions.of(stamps, pipeline(images), meta=meta, bound=bundle.spec.bound)
    write_results(tmp_path / "results", said, bundle)
    back = read_results(tmp_path / "results", "front", bundle.spec)
    assert back.labels == bundle.spec.heads["classifier"].labels
    for name in ("probabilities", "lights.probabilities"):
        np.testing.assert_allclose(back.columns[name], said.columns[name], atol=1e-6)
    notes = " ".join(back.meta["problems"])
    assert "label_info was not recorded" not in notes and "result" not in notes


def test_heads_under_names_of_their_own_are_named_where_no_model_says_which_they_are(
    tmp_path: Path,
) -> None:
    bundle = ModelBundle.load(two_classifiers(tmp_path / "bundle"))
    with Pipeline.load(bundle.path, "onnx", threads=1) as pipeline:
        answers = pipeline([np.full((32, 48, 3), 9, np.uint8)])
    meta = {"topic": "/front/image_raw", "frame_id": "front"}
    said = Predictions.of([START], answers, meta=meta, bound=bundle.spec.bound)
    write_results(tmp_path / "results", said, bundle)
    for camera in (None, "front"):
        back = read_results(tmp_path / "results", camera)
        assert "lights.probabilities" not in back.columns
        (note,) = [note for note in back.meta["problems"] if "set --model" in note]
        assert "/perception/front/lights (classification) is left out" in note


@pytest.mark.slow
def test_the_padding_of_a_letterbox_is_in_no_recorded_depth(tmp_path: Path) -> None:
    spec = NetworkSpec(
        input=InputSpec(64, 64, resize="letterbox"), heads={"depth": DepthSpec(size=(16, 16))}
    )
    export_bundle(MultiHeadNetwork(spec).eval(), tmp_path / "bundle", "depth", [IMAGE])
    bundle = ModelBundle.load(tmp_path / "bundle")
    with Pipeline.load(bundle.path, "onnx", threads=1) as pipeline:
        answers = pipeline([IMAGE])
    meta = {"topic": "/front/image_raw", "frame_id": "front", "input": plain(spec.input)}
    said = Predictions.of([START], answers, meta=meta, bound=bundle.spec.bound)
    said = replace(said, image_size=np.array([IMAGE.shape[:2]], np.int32))
    write_results(tmp_path / "results", said, bundle)
    depth = read_results(tmp_path / "results", spec=bundle.spec).columns["depth"][0]
    assert np.isnan(depth[:4]).all() and np.isnan(depth[12:]).all()
    np.testing.assert_array_equal(np.isnan(depth[4:12]), np.isnan(said.columns["depth"][0][4:12]))
    assert np.isfinite(depth[4:12]).any()


# What is recorded; `ros2 bag record` searches for the pattern in a topic's name


def test_recording_takes_all_results_of_one_node_and_nothing_else() -> None:
    pattern = topic_pattern("perception", ["/camera", "truth/pose"])
    for topic in (
        "/perception/front/classification",
        "/perception/front/uncertainty",
        "/perception/rear/pose",
        "/perception/front/lights/classification",
        "/perception/lights/label_info",
        "/perception/label_info",
        "/camera",
        "/truth/pose",
    ):
        assert re.search(pattern, topic), topic
    for topic in (
        "/robot2/perception/front/pose",
        "/perception/front/pose_old",
        "/perception/a/b/c/pose",
        "/perception/front/image_annotated",
        "/camera/image_raw",
        "/front/camera",
        "/truth/pose2",
        "/other/front/pose",
    ):
        assert not re.search(pattern, topic), topic


def test_recorded_names_that_are_patterns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"extra_topics has '/camera/\.\*'"):
        record_command("/tmp/out", extra=["/camera/.*"])
    with pytest.raises(ConfigError, match="node has ''"):
        record_command("/tmp/out", node="")


def test_recordings_whose_names_differ_in_signs_only_have_files_of_their_own() -> None:
    stems = file_stems(["run 1", "run_1", "Run_1", "..", "", "run_1_1"])
    assert stems[0] == "run_1" and len({stem.casefold() for stem in stems}) == 6 and all(stems)


def test_classes_that_were_never_published_are_missed(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "bag", "mcap") as bag:
        kinds = bag.types
        for i in range(3):
            results = [
                kinds["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=score)
                for name, score in (("hall", 0.6), ("office", 0.3))
            ]
            header = bag.header(START + i * PERIOD, "camera")
            message = kinds["vision_msgs/msg/Classification"](header=header, results=results)
            bag.write("/perception/front/classification", START + i * PERIOD, message)
    with pytest.raises(SourceError, match=r"3 of 3 .*hall, office.* sum to 0.9: .* \(--model\)"):
        read_results(tmp_path / "bag")
    spec = NetworkSpec(heads={"classifier": ClassifierSpec(("hall", "kitchen", "office"))})
    assert read_results(tmp_path / "bag", spec=spec).probabilities is not None
