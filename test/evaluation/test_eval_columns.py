from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import LABELS, recording

from robot_vision.contract.prediction import Prediction
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.heads.classifier.answer import Classification
from robot_vision.heads.place.answer import Descriptor
from robot_vision.heads.pose.answer import PoseAnswer


def test_columns_come_back_from_their_file_to_the_bit(tmp_path: Path) -> None:
    predictions = recording(meta={"bag_sha256": "ab", "n": 1})[0]
    predictions.save(tmp_path / "p.npz")
    again = Predictions.load(tmp_path / "p.npz")
    for name in vars(predictions):
        a, b = getattr(predictions, name), getattr(again, name)
        if isinstance(a, np.ndarray):
            assert a.tobytes() == b.tobytes() and a.dtype == b.dtype
        else:
            assert a == b


def test_a_file_with_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    head = json.dumps(
        {"format": "robot_vision.predictions/1", "recording": "", "labels": [], "meta": {}}
    )
    with open(tmp_path / "p.npz", "wb") as file:
        np.savez(file, head=np.array(head), stamps_ns=np.array([Evil()], object))
    with pytest.raises(SourceError, match="cannot be read as predictions"):
        Predictions.load(tmp_path / "p.npz")
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    with pytest.raises(SourceError, match="cannot be read"):
        Predictions.load(file)
    file.write_bytes(b"something else")
    with pytest.raises(SourceError, match="cannot be read"):
        Predictions.load(file)
    np.savez(file, head=np.array(json.dumps({"format": "x/9"})), stamps_ns=np.zeros(1, np.int64))
    with pytest.raises(SourceError, match="is not of format robot_vision.predictions/1"):
        Predictions.load(file)
    recording()[0].save(file)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(SourceError, match="cannot be read"):
        Predictions.load(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": np.zeros((200, 2))}, r"position has shape \(200, 2\).* 3 numbers a frame"),
        ({"probabilities": np.zeros((200, 3))}, "probabilities has shape.* 7 numbers"),
        ({"known_score": np.zeros(199)}, r"known_score has shape \(199,\).*200 frames"),
        ({"covariance": np.zeros((200, 5, 6))}, "covariance has shape"),
        ({"position": None}, "position and orientation_xyzw go together"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recording(**changes)


def test_results_of_the_pipeline_become_columns_with_holes() -> None:
    classification = Classification(LABELS[:2], np.array([0.25, 0.75], np.float32), 3.0)
    pose = PoseAnswer(np.arange(3.0), np.array([0, 0, 0, 1.0]), np.eye(6))
    found = Predictions.of(
        [10, 20, 30],
        [
            Prediction(
                {
                    "classifier": classification,
                    "pose": pose,
                    "place": Descriptor(np.ones(4, np.float32)),
                }
            ),
            Prediction(),
            Prediction({"classifier": classification}),
        ],
        "drive",
    )
    assert found.labels == LABELS[:2] and found.recording == "drive" and found.log_ns is None
    assert found.probabilities is not None and found.probabilities[2].tolist() == [0.25, 0.75]
    assert found.known_score is not None and np.isnan(found.known_score).tolist() == [0, 1, 0]
    assert found.position is not None and found.covariance is not None
    assert np.isnan(found.position[:, 0]).tolist() == [0, 1, 1]
    assert found.covariance.shape == (3, 6, 6)
    assert found.descriptor is not None and found.descriptor.shape == (3, 4)
    empty = Predictions.of([10], [Prediction()])
    assert empty.probabilities is empty.position is empty.descriptor is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"place_radius_m": 0.0}, "place_radius_m is 0.0"),
        ({"place_exclude_s": -1.0}, "place_exclude_s is -1.0"),
        ({"place_heading_deg": 200.0}, "place_heading_deg is 200"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"resamples": -1}, "at least 0"),
        ({"alignments": ("sim2",)}, "alignment 'sim2'.*none, se3, sim3"),
        ({"radius": 1.0}, "setting 'radius'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationSettings.from_dict(values)


def test_settings_come_back_from_plain_data() -> None:
    settings = EvaluationSettings(alignments=("se3",), place_heading_deg=None, seed=3)
    assert EvaluationSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: 3 * p, r"5 of 5 frames: those of frame 0 have the sum 3 \("),
        (lambda p: np.log(p), "have the sum -.* softmax"),
        (
            lambda p: np.where(np.arange(5)[:, None] == 3, p - [5, -5, 0], p),
            "1 of 5 .* frame 3",
        ),
        (lambda p: p * 0, "the sum 0 "),
    ],
)
def test_probabilities_that_are_none_are_refused_with_their_numbers(change, words):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 5).astype(np.float32)
    stamps = np.arange(5)
    with pytest.raises(ConfigError, match=words):
        Predictions(stamps, labels=("a", "b", "c"), probabilities=change(p))
    p[2] = np.nan  # nothing was said
    for good in (p, p.astype(np.float16)):
        assert len(Predictions(stamps, labels=("a", "b", "c"), probabilities=good)) == 5


def test_a_file_of_logits_is_refused_when_it_is_read(tmp_path):
    fine = np.full((4, 2), 0.5)
    predictions = Predictions(np.arange(4), labels=("a", "b"), probabilities=fine)
    fine += np.array([3.0, -2.5])  # as another program would have written them
    predictions.save(tmp_path / "logits.npz")
    with pytest.raises(
        SourceError, match=r"logits.npz: Column probabilities .* sum 1.5 \(-2 to 3.5\)"
    ):
        Predictions.load(tmp_path / "logits.npz")


def test_quaternions_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="1 of 2 frames: that of frame 1 has the norm 2"):
        Predictions(
            np.arange(2), position=np.zeros((2, 3)), orientation_xyzw=np.diag([1.0, 2, 0, 0])[:2]
        )
