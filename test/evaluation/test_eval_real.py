"""The numbers on real data, next to those of other libraries on the same data."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import QUICK, recording

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording, summarise
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import orthonormalised, xyzw_from_matrix
from robot_vision.truth.tracks import Truth

DATA = Path(os.environ.get("ROBOT_VISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_handwritten_digits_match_scikit_learn_and_torchmetrics() -> None:
    """A classifier of the digits 0 to 7, asked about all ten: 8 and 9 are unknown to it."""
    pytest.importorskip("sklearn")
    from sklearn import metrics as reference
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, digits = load_digits(return_X_y=True)
    train = (np.arange(len(digits)) < 900) & (digits < 8)
    model = LogisticRegression(max_iter=200, C=0.01).fit(images[train] / 16, digits[train])
    x, y = images[900:] / 16, digits[900:]
    p = model.predict_proba(x)
    score = model.decision_function(x).max(1)
    stamps = np.arange(len(y), dtype=np.int64) * 10**8
    predictions = Predictions(
        stamps, labels=tuple("01234567"), probabilities=p, known_score=score, recording="digits"
    )
    found = evaluate_frames(predictions, Truth.of_arrays(stamps, [str(d) for d in y]), QUICK)
    known = y < 8
    q, t = p[known], y[known]
    ours = {n: h["value"] for n, h in found["classification"].items() if n in EXPECTED}
    assert ours["top1"] == pytest.approx(reference.accuracy_score(t, q.argmax(1)), abs=1e-12)
    assert ours["top5"] == pytest.approx(reference.top_k_accuracy_score(t, q, k=5), abs=1e-12)
    assert ours["nll"] == pytest.approx(reference.log_loss(t, q), abs=1e-9)
    assert ours["macro_recall"] == pytest.approx(
        reference.balanced_accuracy_score(t, q.argmax(1)), abs=1e-12
    )
    assert ours["top1"] > 0.8, "the case must be a sensible one"
    open_set = found["open_set"]
    assert open_set["auroc"]["value"] == pytest.approx(reference.roc_auc_score(known, score))
    assert open_set["aupr_known"]["value"] == pytest.approx(
        reference.average_precision_score(known, score)
    )
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    ece = torchmetrics.multiclass_calibration_error(
        torch.from_numpy(q), torch.from_numpy(t), num_classes=8, n_bins=15
    )
    assert ours["ece"] == pytest.approx(float(ece), abs=1e-6)


EXPECTED = ("top1", "top5", "nll", "macro_recall", "ece")


def kitchen(every: int) -> tuple[Any, ...]:
    """Returns stamps, positions, quaternions and the frames shrunk to 12 x 16 grey pixels."""
    cv2 = pytest.importorskip("cv2")
    files = sorted((DATA / "kitchen").glob("*.pose.txt"))[::every]
    if not files:
        pytest.skip(f"no kitchen/ under {DATA}: set ROBOT_VISION_DATA")
    poses = np.array([np.loadtxt(file) for file in files])
    xyzw = np.array([xyzw_from_matrix(orthonormalised(T[:3, :3])) for T in poses])
    small = []
    for file in files:
        image = next(file.parent.glob(f"{file.name.split('.')[0]}*.jpg"))
        grey = cv2.imread(str(image), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        small.append(cv2.resize(grey, (16, 12), interpolation=cv2.INTER_AREA).ravel())
    descriptor = np.array(small, np.float32)
    descriptor -= descriptor.mean(1, keepdims=True)
    descriptor /= np.linalg.norm(descriptor, axis=1, keepdims=True)
    stamps = 10**18 + np.arange(len(files), dtype=np.int64) * every * 33_333_333
    return stamps, poses[:, :3, 3], xyzw, descriptor


@pytest.mark.slow
def test_places_of_the_kitchen_match_scikit_learns_neighbours() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    transform = pytest.importorskip("scipy.spatial.transform")
    stamps, positions, xyzw, descriptor = kitchen(every=4)
    asked = EvaluationSettings(
        place_radius_m=0.3, place_heading_deg=25.0, place_exclude_s=3.0, resamples=50
    )
    predictions = Predictions(stamps, descriptor=descriptor, recording="kitchen")
    truth = Truth.of_arrays(stamps, None, positions, xyzw)
    found = evaluate_frames(predictions, truth, asked)
    order = neighbors.NearestNeighbors(n_neighbors=len(stamps)).fit(descriptor)
    ranked = order.kneighbors(descriptor, return_distance=False)
    rotations = transform.Rotation.from_quat(xyzw)
    hits: dict[int, list[bool]] = {1: [], 5: [], 10: [], 20: []}
    errors = []
    for i, row in enumerate(ranked):
        row = row[np.abs(stamps[row] - stamps[i]) > 3 * 10**9]
        near = np.linalg.norm(positions[row] - positions[i], axis=1)
        turned = np.degrees((rotations[row].inv() * rotations[i]).magnitude())
        right = (near <= 0.3) & (turned <= 25)
        errors.append(near[0])
        if right.any():
            for k, values in hits.items():
                values.append(bool(right[:k].any()))
    place = found["place"]
    assert 20 < place["answerable"] == len(hits[1]) < place["queries"]
    for k, values in hits.items():
        assert place[f"recall_at_{k}"]["value"] == pytest.approx(np.mean(values), abs=1e-12)
    assert found["pose"] is None, "there is no pose head"
    median = place["retrieved_pose"]["median_m"]["value"]
    assert median == pytest.approx(np.median(errors), abs=1e-9)
    scores = score_recording(predictions, truth, asked)
    assert scores["place_error_m"] == pytest.approx(np.array(errors), abs=1e-9)


def test_the_document_explains_every_number() -> None:
    text = DOCS.read_text(encoding="utf-8")
    scores = score_recording(*recording(), QUICK)
    found = summarise(scores, QUICK)
    told = {"frames", "labels", "queries", "alignment", "covariance", "looked_up_in", "baselines"}
    told |= {"known", "unknown", "per_class"}  # counts and tables that speak for themselves
    for part in ("classification", "open_set", "pose", "place"):
        for name in set(found[part]) - told:
            stem = re.sub("_(m|deg)$", "", name)
            stem = "recall_at_1, 5, 10, 20" if re.fullmatch(r"recall_at_\d+", stem) else stem
            stem = "macro recall and precision" if stem.startswith("macro_") else stem
            assert stem in text, f"docs/evaluation.md does not explain {part}.{name}"
        for name in found[part]["baselines"]:
            assert f"`{name}`" in text, name
