"""What training reports while it runs is what the evaluation of a recording reports."""

from __future__ import annotations

import numpy as np
import pytest
from eval_data import LABELS, QUICK, recording

from robot_vision.evaluation.measure.metrics import score_recording, summarise
from robot_vision.geometry.rigid import pose_matrix

torch = pytest.importorskip("torch", reason="torch is not installed")


def test_training_and_evaluation_agree() -> None:
    from robot_vision.heads.classifier.training import classifier_metrics
    from robot_vision.heads.pose.training import pose_metrics, score

    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    found = summarise(scores, QUICK)
    label = torch.from_numpy(np.maximum(scores["true_label"], -1))
    poses = [
        pose_matrix(p, q) for p, q in zip(scores["true_position"], scores["true_xyzw"], strict=True)
    ]
    targets = {
        "label": label,
        "T_map_camera": torch.from_numpy(np.array(poses)),
        "has_pose": torch.ones(len(poses), dtype=torch.bool),
    }
    classes = classifier_metrics(torch.from_numpy(predictions.probabilities), targets, LABELS)
    for theirs, ours in (("accuracy", "top1"), ("macro_recall", "macro_recall"), ("nll", "nll")):
        value = found["classification"][ours]["value"]
        assert classes[theirs] == pytest.approx(value, abs=1e-6), ours
    outputs = {
        "position": torch.from_numpy(predictions.position),
        "orientation_xyzw": torch.from_numpy(predictions.orientation_xyzw),
        "pose_covariance": torch.from_numpy(predictions.covariance),
    }
    numbers = pose_metrics(score(outputs, targets))
    pose = found["pose"]
    nees = pose["covariance"]["nees"]
    for theirs, value in (
        ("median_position_m", pose["median_m"]["value"]),
        ("median_rotation_deg", pose["median_deg"]["value"]),
        ("mean_position_m", pose["mean_m"]["value"]),
        ("mean_rotation_deg", pose["mean_deg"]["value"]),
        ("within_25cm_5deg", pose["within_0.25m_5deg"]["value"]),
        ("nees", nees["mean_over_ideal"]["value"]),
        ("within_95_percent_ellipsoid", nees["coverage_95"]["value"]),
    ):
        assert numbers[theirs] == pytest.approx(value, abs=1e-7), theirs
