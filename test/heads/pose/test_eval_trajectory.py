from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import QUICK, recording

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording
from robot_vision.geometry.rigid import (
    canonical_xyzw,
    matrix_from_xyzw,
    orthonormalised,
    xyzw_from_matrix,
)
from robot_vision.heads.pose.trajectory_errors import align
from robot_vision.truth.tracks import Truth

pytest.importorskip("evo", reason="evo is not installed")
from evo.core import metrics as evo_metrics  # noqa: E402
from evo.core import trajectory as evo_trajectory  # noqa: E402
from evo.core.geometry import umeyama_alignment  # noqa: E402

DATA = Path(os.environ.get("ROBOT_VISION_DATA", Path(__file__).parents[4] / "shared" / "data"))


def of_evo(positions: Any, xyzw: Any, stamps: Any) -> Any:
    wxyz = np.asarray(xyzw)[:, [3, 0, 1, 2]]
    return evo_trajectory.PoseTrajectory3D(np.array(positions), wxyz, np.asarray(stamps) / 1e9)


def check_against_evo(scores: Any, found: dict[str, Any]) -> None:
    rows = np.isfinite(scores["error_m"])
    stamps = scores["stamps_ns"][rows]
    true = of_evo(scores["true_position"][rows], scores["true_xyzw"][rows], stamps)
    one = found["recordings"][0]
    assert one["true_length_m"] == pytest.approx(true.path_length, abs=1e-9)
    for kind in ("none", "se3", "sim3"):
        estimate = of_evo(scores["position"][rows], scores["xyzw"][rows], stamps)
        ours = one["alignments"][kind]
        if kind != "none":
            R, t, s = estimate.align(true, correct_scale=kind == "sim3")
            assert ours["scale"] == pytest.approx(s, abs=1e-9)
            assert np.allclose(ours["translation_m"], t, atol=1e-8)
        for relation, unit in (("translation_part", "m"), ("rotation_angle_deg", "deg")):
            ape = evo_metrics.APE(evo_metrics.PoseRelation[relation])
            ape.process_data((true, estimate))
            same(ape.get_all_statistics(), ours["ate"], unit)
            for row in ours["rpe"]:
                rpe = evo_metrics.RPE(
                    evo_metrics.PoseRelation[relation],
                    row["delta_frames"],
                    evo_metrics.Unit.frames,
                    all_pairs=True,
                )
                rpe.process_data((true, estimate))
                same(rpe.get_all_statistics(), row, unit)
                assert row["pairs"] == len(rpe.error)


def same(expected: dict[str, float], ours: dict[str, Any], unit: str) -> None:
    assert ours[f"rmse_{unit}"]["value"] == pytest.approx(expected["rmse"], abs=1e-6)
    for name in ("median", "mean", "max"):
        assert ours[f"{name}_{unit}"] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_numbers_match_evo_on_random_trajectories(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, truth = recording()
    clean = score_recording(*recording(), QUICK)
    turn = canonical_xyzw(rng.normal(size=4))
    R = matrix_from_xyzw(turn)
    moved = 1.3 * clean["true_position"] @ R.T + rng.normal(size=3)
    predictions, _ = recording(
        position=moved + rng.normal(size=moved.shape) * 0.05,
        orientation_xyzw=canonical_xyzw(rng.normal(size=(200, 4)) * 0.1 + [0, 0, 0, 1]),
    )
    scores = score_recording(predictions, truth, QUICK)
    check_against_evo(scores, evaluate_frames(predictions, truth, QUICK)["trajectory"])


@pytest.mark.slow
def test_numbers_match_evo_on_the_kitchen() -> None:
    files = sorted((DATA / "kitchen").glob("*.pose.txt"))
    if not files:
        pytest.skip(f"no kitchen/ under {DATA}: set ROBOT_VISION_DATA")
    poses = np.array([np.loadtxt(file) for file in files[:400]])
    xyzw = np.array([xyzw_from_matrix(orthonormalised(T[:3, :3])) for T in poses])
    stamps = 10**18 + (np.arange(len(poses)) * (10**9 // 30)).astype(np.int64)
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=(len(poses), 3)) * 0.002, axis=0)
    truth = Truth.of_arrays(stamps, None, poses[:, :3, 3], xyzw)
    predictions, _ = recording(n=len(poses))
    kitchen = type(predictions)(
        stamps,
        position=poses[:, :3, 3] * 0.97 + drift,
        orientation_xyzw=canonical_xyzw(xyzw + rng.normal(size=xyzw.shape) * 0.01),
        recording="kitchen",
    )
    scores = score_recording(kitchen, truth, QUICK)
    check_against_evo(scores, evaluate_frames(kitchen, truth, QUICK)["trajectory"])


def test_alignment_finds_the_similarity_that_was_applied() -> None:
    rng = np.random.default_rng(5)
    p = rng.normal(size=(30, 3))
    R, t = matrix_from_xyzw(canonical_xyzw(rng.normal(size=4))), rng.normal(size=3)
    found = align(p, 2.5 * p @ R.T + t, "sim3")
    assert found is not None
    assert np.allclose(found.rotation, R, atol=1e-12) and found.scale == pytest.approx(2.5)
    assert np.allclose(found.positions(p), 2.5 * p @ R.T + t, atol=1e-12)
    rigid = align(p, 2.5 * p @ R.T + t, "se3")
    assert rigid is not None and rigid.scale == 1.0 and np.allclose(rigid.rotation, R, atol=1e-12)


@pytest.mark.parametrize("kind", ["se3", "sim3"])
def test_alignment_of_a_mirrored_path_is_a_rotation(kind: str) -> None:
    p = np.random.default_rng(6).normal(size=(30, 3))
    found = align(p, 2 * p * [1, 1, -1], kind)
    assert found is not None and np.linalg.det(found.rotation) == pytest.approx(1)
    R, t, s = umeyama_alignment(p.T, (2 * p * [1, 1, -1]).T, kind == "sim3")
    assert np.allclose(found.rotation, R) and np.allclose(found.translation, t)
    assert found.scale == pytest.approx(s)


def test_a_straight_path_fixes_no_alignment() -> None:
    line = np.arange(200)[:, None] * np.array([[0.1, 0.0, 0.0]])
    assert align(line, line + 1.0, "se3") is None
    predictions, _ = recording(position=line + 1.0)
    truth = Truth.of_arrays(
        predictions.stamps_ns, None, line, np.tile([0.0, 0.0, 0.0, 1.0], (200, 1))
    )
    found = evaluate_frames(predictions, truth, QUICK)["trajectory"]["recordings"][0]["alignments"]
    assert found["se3"] is None and found["sim3"] is None
    assert found["none"]["ate"]["rmse_m"]["value"] == pytest.approx(3**0.5)


def test_recordings_are_aligned_one_by_one() -> None:
    settings = EvaluationSettings(resamples=0)
    found = evaluate_frames(*recording(), settings)["trajectory"]["recordings"]
    assert [r["name"] for r in found] == ["drive"]
    assert [row["delta_frames"] for row in found[0]["alignments"]["none"]["rpe"]] == [1, 10]
    assert found[0]["alignments"]["none"]["ate"]["rmse_m"]["low"] is None
