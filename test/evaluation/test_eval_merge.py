from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import QUICK, recording

from robot_vision.contract import check, registry
from robot_vision.contract.rows import from_json, joined, to_json
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.measure.metrics import (
    PlaceReference,
    evaluate_frames,
    score_recording,
    summarise,
)
from robot_vision.evaluation.merge import document, merge, read_document, scores_of
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.report.text import association_lines
from robot_vision.truth.tracks import Truth

DRIVES = [("b", 120, 1), ("a", 60, 2), ("c", 150, 3), ("d", 4, 4)]


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(data, allow_nan=False))


def assert_same(a: Any, b: Any, place: str = "") -> None:
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}[{i}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12), place
    else:
        assert a == b, place


@pytest.mark.slow
@pytest.mark.parametrize("with_map", [False, True])
def test_merged_equals_the_evaluation_of_everything(with_map: bool) -> None:
    drives = [recording(name, n, seed) for name, n, seed in DRIVES]
    reference = PlaceReference(*recording("map", 100, 9)) if with_map else None
    scores = [score_recording(p, t, QUICK, reference) for p, t in drives]
    together = through_json(summarise(joined(scores), QUICK))
    parts = [through_json(document(score, QUICK)) for score in scores]
    merged = through_json(merge(parts))
    merged.pop("rows")
    assert_same(merged, together)
    assert [r["name"] for r in merged["recordings"]] == ["a", "b", "c", "d"]
    assert merged["frames"] == 334 and merged["association"]["label"]["found"] == 334


@pytest.mark.slow
def test_merging_in_any_order_and_in_steps_gives_the_same() -> None:
    parts = [document(score_recording(*recording(*d), QUICK), QUICK) for d in DRIVES]
    at_once = merge(parts)
    assert_same(merge(parts[::-1]), at_once)
    assert_same(merge([merge(parts[2:]), merge(parts[:2])]), at_once)


def test_one_document_merges_to_itself() -> None:
    found = document(score_recording(*recording(), QUICK), QUICK)
    assert_same(merge([found]), found)


def test_rows_come_back_from_json_to_the_bit() -> None:
    scores = score_recording(*recording(), QUICK)
    scores.columns["error_m"][3], scores.columns["error_deg"][4] = np.nan, np.inf
    again = from_json(through_json(to_json(scores)))
    for name in scores.table:
        assert again[name].tobytes() == scores[name].tobytes(), name
        assert again[name].dtype == scores[name].dtype
    assert (again.labels, again.heads, again.recordings) == (
        scores.labels,
        scores.heads,
        scores.recordings,
    )


def test_rows_of_a_model_without_a_head_may_lack_its_columns() -> None:
    lost = recording(position=None, orientation_xyzw=None, covariance=None)
    data = through_json(to_json(score_recording(*lost, QUICK)))
    for name in ("error_m", "spread_m", "nees"):
        del data["columns"][name]
    assert np.isnan(from_json(data)["error_m"]).all()
    del data["columns"]["confidence"]
    with pytest.raises(SourceError, match="cannot be read"):
        from_json(data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_recording_of_which_a_head_said_nothing_joins_one_of_which_it_did(kind: str) -> None:
    head, spec = check.bound(kind)
    said = score_recording(*check.recorded(head, spec, 20), QUICK, bound=[(head, spec)])
    bare = Predictions(said["stamps_ns"] + 10**12, recording="silent")
    silent = score_recording(bare, Truth(), QUICK)  # and nobody named the model
    assert (said.heads, silent.heads) == ((kind,), ())
    for both in (joined([said, silent]), joined([silent, said])):
        assert both.heads == (kind,)
        for name in said.table:
            assert both[name][:20].tobytes() == said[name].tobytes(), name
        assert document(both, QUICK)["frames"] == 40


@pytest.mark.slow
def test_metrics_are_json_without_nan() -> None:
    predictions, truth = recording()
    for changes in (
        {},
        {"probabilities": None, "known_score": None, "labels": ()},
        {"descriptor": None},
        {"position": None, "orientation_xyzw": None, "covariance": None},
    ):
        found = evaluate_frames(recording(**changes)[0], truth, QUICK)
        json.dumps(found, allow_nan=False)
    for n in (0, 1, 2, 3):
        scores = score_recording(predictions.take(np.arange(n)), truth, QUICK)
        json.dumps(summarise(scores, QUICK), allow_nan=False)


def test_what_was_not_predicted_or_not_true_is_none() -> None:
    predictions, truth = recording()
    found = evaluate_frames(predictions, Truth(labels=truth.labels), QUICK)
    assert found["pose"] is found["place"] is found["trajectory"] is None
    assert found["classification"]["frames"] == 175
    found = evaluate_frames(predictions, Truth(poses=truth.poses), QUICK)
    assert found["classification"] is found["open_set"] is None
    assert found["pose"]["frames"] == 200
    blind = recording(probabilities=None, known_score=None, labels=())[0]
    assert evaluate_frames(blind, truth, QUICK)["classification"] is None


def test_truth_that_asks_for_a_missing_head_is_refused() -> None:
    truth = recording()[1]
    blind = recording(probabilities=None, known_score=None, labels=())[0]
    with pytest.raises(ConfigError, match="'drive' has labels, and the model has no classifier"):
        score_recording(blind, Truth(labels=truth.labels), QUICK)
    lost = recording(position=None, orientation_xyzw=None, covariance=None, descriptor=None)[0]
    with pytest.raises(
        ConfigError, match="has poses, and the model has neither a pose nor a place"
    ):
        score_recording(lost, Truth(poses=truth.poses), QUICK)


@pytest.mark.slow
def test_what_does_not_belong_together_is_not_merged() -> None:
    one, two = (document(score_recording(*recording(n), QUICK), QUICK) for n in ("a", "b"))
    with pytest.raises(ConfigError, match="Recording 'a' occurs twice"):
        merge([one, two, one])
    with pytest.raises(ConfigError, match="at least one"):
        merge([])
    other = EvaluationSettings(resamples=61, place_exclude_s=1.0, rpe_delta_s=0.5)
    with pytest.raises(ConfigError, match="Setting resamples is 60 in one evaluation and 61"):
        merge([one, document(score_recording(*recording("b"), other), other)])
    names = tuple("ghijklm")
    with pytest.raises(ConfigError, match="different labels"):
        merge([one, document(score_recording(*recording("b", labels=names), QUICK), QUICK)])
    mapped = score_recording(*recording("b"), QUICK, PlaceReference(*recording("map")))
    with pytest.raises(ConfigError, match="different maps"):
        joined([scores_of(one), mapped])
    with pytest.raises(SourceError, match="without its rows"):
        merge([one, {k: v for k, v in two.items() if k != "rows"}])


def test_documents_are_read_only_if_they_are_ones(tmp_path: Path) -> None:
    found = document(score_recording(*recording(n=30), QUICK), QUICK)
    good = tmp_path / "metrics.json"
    good.write_text(json.dumps(found))
    assert_same(read_document(good), through_json(found))
    for text, message in (
        ("{", "cannot be read as JSON"),
        ("[]", "is not an evaluation"),
        (json.dumps({**found, "schema_version": 99}), "has schema version 99"),
    ):
        good.write_text(text)
        with pytest.raises(SourceError, match=message):
            read_document(good)
    with pytest.raises(SourceError, match="cannot be read"):
        read_document(tmp_path / "none.json")
    broken = through_json(found)
    broken["rows"]["columns"]["error_m"] = "AAAA"
    with pytest.raises(SourceError, match="rows of an evaluation cannot be read"):
        scores_of(broken)


@pytest.mark.slow
def test_evaluating_needs_neither_torch_nor_ros_nor_scipy() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'rclpy', 'scipy', 'sklearn', 'evo', 'matplotlib', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        "from eval_data import QUICK, recording\n"
        "from robot_vision.evaluation.measure.metrics import evaluate_frames\n"
        "from robot_vision.evaluation import merge\n"
        "from robot_vision.truth import reading\n"
        "assert evaluate_frames(*recording(n=40), QUICK)['pose']['frames'] == 40\n"
    )
    here = Path(__file__).parents[1] / "support"
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(here)!r})\n{code}"],
        check=True,
        cwd=here.parents[1],
        timeout=60,
    )


def of_model(name: str, sha256: str, *drive: Any) -> dict[str, Any]:
    predictions, truth = recording(*drive)
    predictions.meta["model"] = f"{name} mobilenet_v2 pose sha256:{sha256 * 8}"
    return through_json(document(score_recording(predictions, truth, QUICK), QUICK))


def test_shards_of_two_models_are_refused_by_name_and_one_model_is_named() -> None:
    first = of_model("old", "1234abcd", "a", 60, 2)
    with pytest.raises(ConfigError, match=r"a was .* old .*1234abcd.* and b with new .*5678abcd"):
        merge([first, of_model("new", "5678abcd", "b", 60, 3)])
    merged = merge([first, of_model("old", "1234abcd", "b", 60, 3)])
    assert association_lines(merged)[0] == "model: old mobilenet_v2 pose sha256:1234abcd1234"
    # By the key of kept predictions, where the recordings say no more.
    for shard, sha256 in ((first, "1234abcd" * 8), (of_model("old", "1234abcd", "b", 60, 3), "0")):
        for row in (*shard["recordings"], *shard["rows"]["recordings"]):
            row["meta"] = {"key": {"bundle_sha256": sha256}}
        second = shard
    with pytest.raises(ConfigError, match="sha256:1234abcd1234 and b with a model sha256:0"):
        merge([first, second])


@pytest.mark.parametrize("overlap", [60, 15])
def test_frames_in_two_recordings_are_refused_whatever_the_names(overlap: int) -> None:
    """The whole bag under another name, and two cuts of it that overlap."""
    predictions, truth = recording("drive", 60, 2)
    again = replace(predictions, recording="copy")
    head, tail = np.arange(60) < 60 - (60 - overlap) // 2, np.arange(60) >= (60 - overlap) // 2
    if overlap == 60:
        head = tail = np.ones(60, bool)
    parts = [
        score_recording(p.take(m), truth, QUICK) for p, m in ((predictions, head), (again, tail))
    ]
    shared = int((head & tail).sum())
    with pytest.raises(ConfigError, match=rf"'copy' \(.*'drive' \(.* share {shared} frames"):
        joined(parts)


def test_other_recordings_of_the_same_stamps_are_others() -> None:
    """Simulated drives all begin at one time."""
    parts = [
        score_recording(*recording(name, 60, seed), QUICK) for name, seed in (("a", 1), ("b", 2))
    ]
    for part in parts:
        part.columns["stamps_ns"] = parts[0]["stamps_ns"].copy()
    assert len(joined(parts)) == 120
