"""What the threshold does and by how much answers differ: by hand, and from the network's own answers."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import LABELS, QUICK, recording
from scipy.special import softmax
from scipy.stats import bootstrap
from scipy.stats import entropy as scipy_entropy

from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.rows import from_json, to_json
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording, summarise
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.recordings.writing import RecordingWriter


def with_threshold(threshold: float) -> list[tuple[Any, ClassifierSpec]]:
    return [(registry.head("classifier"), ClassifierSpec(LABELS, unknown_threshold=threshold))]


def test_shares_are_those_counted_frame_by_frame() -> None:
    predictions, truth = recording(seed=4)
    assert predictions.known_score is not None and truth.labels is not None
    score = predictions.known_score.copy()
    score[[3, 190]] = np.nan  # of these nothing was said
    predictions = replace(predictions, known_score=score)
    threshold = float(np.nanquantile(score, 0.3))
    scores = score_recording(predictions, truth, QUICK, bound=with_threshold(threshold))
    found = summarise(scores, QUICK)["uncertainty"]
    count = {"all": [0, 0], "known": [0, 0, 0], "other": [0, 0]}
    assert predictions.probabilities is not None
    for name, s, p in zip(truth.labels.names, score, predictions.probabilities, strict=True):
        if np.isnan(s):
            continue
        kept = s >= threshold
        count["all"][0] += kept
        count["all"][1] += 1
        if name in LABELS:
            count["known"][0] += kept
            count["known"][1] += 1
            count["known"][2] += kept and LABELS[int(np.argmax(p))] != name
        else:
            count["other"][0] += not kept
            count["other"][1] += 1
    assert found["frames"] == count["all"][1] == 198
    assert found["kept"]["value"] == pytest.approx(count["all"][0] / count["all"][1])
    assert found["known_kept"]["value"] == pytest.approx(count["known"][0] / count["known"][1])
    wrong = count["known"][2] / count["known"][1]
    assert found["kept_and_wrong"]["value"] == pytest.approx(wrong) and wrong > 0
    refused = count["other"][0] / count["other"][1]
    assert found["unknown_refused"]["value"] == pytest.approx(refused) and refused > 0
    assert found["kept"]["low"] < found["kept"]["value"] < found["kept"]["high"]


@pytest.mark.slow
def test_intervals_of_answers_apart_are_scipys() -> None:
    predictions, truth = recording(n=400)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(400, 6, 6)) * 0.1
    information, spread = rng.gamma(2, 0.1, 400), root @ root.transpose(0, 2, 1)
    predictions = replace(predictions, mutual_information=information, spread=spread)
    one = EvaluationSettings(resamples=2000, block_s=0.1)  # blocks of one frame
    found = evaluate_frames(predictions, truth, one)["uncertainty"]
    metres = [np.linalg.norm(r[:3]) for r in root]  # the root of the trace of r r^T
    degrees = [np.degrees(np.linalg.norm(r[3:])) for r in root]
    for name, values, statistic in (
        ("mutual_information", information, np.mean),
        ("spread_m", metres, np.median),
        ("spread_deg", degrees, np.median),
    ):
        pytest.importorskip("scipy", minversion="1.15")  # where the argument rng came
        theirs = bootstrap((values,), statistic, method="percentile", n_resamples=2000, rng=rng)
        wide = theirs.confidence_interval.high - theirs.confidence_interval.low
        assert found[name]["value"] == pytest.approx(statistic(values))
        for end in ("low", "high"):
            expected = getattr(theirs.confidence_interval, end)
            assert found[name][end] == pytest.approx(expected, abs=0.15 * wide), name
    assert "kept" not in found  # no threshold was given


def test_model_that_answers_once_and_refuses_nothing_has_no_such_part() -> None:
    predictions, truth = recording()
    assert evaluate_frames(predictions, truth, QUICK)["uncertainty"] is None


def test_rows_of_files_without_these_columns_are_read() -> None:
    predictions, truth = recording(n=40)
    data = to_json(score_recording(predictions, truth, QUICK, bound=with_threshold(0.0)))
    kept = np.frombuffer(zlib.decompress(base64.b64decode(data["columns"]["kept"])), "<i8")
    assert set(kept) <= {0, 1}
    for name in ("kept", "mutual_information", "spread_m", "spread_deg"):
        del data["columns"][name]
    scores = from_json(data)
    assert (scores["kept"] == -1).all() and np.isnan(scores["mutual_information"]).all()
    assert summarise(scores, QUICK)["uncertainty"] is None


@pytest.mark.slow
def test_command_reports_what_the_networks_own_answers_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    from network_helpers import small_network

    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.heads.pose.spec import PoseSpec
    from robot_vision.networks.ensemble import with_monte_carlo
    from robot_vision.networks.export import export_bundle

    network = small_network(
        1,
        classifier=ClassifierSpec(("a", "b", "c"), tap="layer2", dropout=0.4, score="energy"),
        pose=PoseSpec(tap="layer2", hidden=64, dropout=0.4),
    )
    network = with_monte_carlo(network, 8)
    size = network.spec.input
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 4, 4, 3), np.uint8)
    images = np.repeat(np.repeat(coarse, size.height // 4, 1), size.width // 4, 2)
    assert images.shape[1:3] == (size.height, size.width)  # so that nothing is resized
    names = rng.choice(["a", "b", "c", "garage"], 30)
    with torch.inference_mode():
        raw = network.raw(torch.from_numpy(images))
    p = softmax(raw["classifier"]["logit_samples"].double().numpy(), axis=2)
    information = scipy_entropy(p.mean(1), axis=1) - scipy_entropy(p, axis=2).mean(1)
    position = raw["pose"]["position_samples"].double().numpy()
    energy = np.log(np.exp(raw["classifier"]["logits"].double().numpy()).sum(1))
    ordered = np.sort(energy)[5:26]
    widest = int(np.diff(ordered).argmax())  # the threshold lies in a gap, whatever the rounding
    threshold = float(ordered[widest : widest + 2].mean())
    kept = energy >= threshold
    assert "classifier" in network.spec.heads
    classifier = replace(network.spec.heads["classifier"], unknown_threshold=threshold)
    network.spec = network.spec.with_heads(classifier=classifier)

    export_bundle(network, tmp_path / "model", "several", list(images))
    with RecordingWriter(tmp_path / "drive") as bag:
        for i, image in enumerate(images):
            bag.label("/truth/room", 10**9 + i * 10**8, str(names[i]))
            bag.image("/front/image_raw", 10**9 + i * 10**8, "front", image)
    words = ["evaluate", "--bag", tmp_path / "drive", "--model", tmp_path / "model"]
    more = ["--engine", "onnx", "--output", tmp_path / "out", "--resamples", 0, "--no-results-bag"]
    assert main([str(word) for word in words + more]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["uncertainty"]
    values = {name: v["value"] for name, v in found.items() if name != "frames"}
    assert values["mutual_information"] == pytest.approx(information.mean(), rel=1e-3)
    metres = np.sqrt(position.var(axis=1).sum(axis=1))
    assert values["spread_m"] == pytest.approx(np.median(metres), rel=1e-3)
    known = names != "garage"
    assert values["kept"] == pytest.approx(kept.mean())
    assert values["known_kept"] == pytest.approx(kept[known].mean())
    assert values["unknown_refused"] == pytest.approx(1 - kept[~known].mean())
    said = capsys.readouterr().out
    assert "Kept, of known classes" in said and "Mean mutual information" in said
    assert "Kept and wrong" in (tmp_path / "out" / "report.html").read_text()
