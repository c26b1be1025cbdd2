"""Filters over recordings: what is fed to them, what is compared, and the command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ros_free_odometry import write_odometry
from scipy.spatial.transform import Rotation
from tiny_bundle import LABELS, make_tiny_bundle

from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.topics import Shot
from robot_vision.errors import ConfigError, MeasurementError, SourceError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.filters.class_file import fitted_rates, read_class_file, write_rates
from robot_vision.filters.class_filter import ClassFilter, ClassModel
from robot_vision.filters.odometry import OdometryNoise
from robot_vision.filters.pose_filter import PoseFilter, PoseFilterSettings
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse, matrix_from_xyzw, xyzw_from_matrix
from robot_vision.messages.clouds import checked_cells
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import message_types
from robot_vision.studies.filtering.measure import (
    CellsTrack,
    filtered_classes,
    filtered_poses,
    gains,
    odometry_of_truth,
    read_odometry,
)
from robot_vision.studies.filtering.memory_curve import MemoryCurve, held_out, memory_curve
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry
from robot_vision.truth.tracks import Truth

S = 1_000_000_000
NONE = OdometryErrors(OdometryNoise(0, 0, 0, 0, 0), 0, 0)


def drive(count=120, seed=0):
    """A drive in a circle at 10 Hz: what a network said (poses with errors, two classes), truth, poses."""
    rng = np.random.default_rng(seed)
    stamps = np.arange(count) * S // 10
    T, poses = np.eye(4), []
    for _ in range(count):
        poses.append(T)
        T = T @ se3.exp(np.array([0.1, 0, 0, 0, 0, 0.05]))
    poses = np.array(poses)
    spread = np.array([0.2] * 3 + [0.01] * 3)
    said = np.array([T @ se3.exp(rng.normal(size=6) * spread) for T in poses])
    labels = ["a" if (i // 40) % 2 == 0 else "b" for i in range(count)]
    right = rng.beta(4, 1, count)
    probabilities = np.where(
        np.array([x == "a" for x in labels])[:, None],
        np.stack([right, 1 - right], 1),
        np.stack([1 - right, right], 1),
    )
    predictions = Predictions(
        stamps,
        labels=("a", "b"),
        probabilities=probabilities,
        known_score=probabilities.max(axis=1),
        position=said[:, :3, 3],
        orientation_xyzw=np.array([xyzw_from_matrix(T[:3, :3]) for T in said]),
        covariance=np.tile(np.diag([0.04] * 3 + [1e-4] * 3), (count, 1, 1)),
        recording="drive",
    )
    xyzw = np.array([xyzw_from_matrix(T[:3, :3]) for T in poses])
    return predictions, Truth.of_arrays(stamps, labels, poses[:, :3, 3], xyzw), poses


def test_classes_of_a_recording_are_those_of_the_filter_in_order_of_the_stamps():
    predictions, _, _ = drive()
    model = ClassModel(("a", "b"))
    shuffled = predictions.take(np.random.default_rng(1).permutation(len(predictions)))
    filtered = filtered_classes(shuffled, model, threshold=0.6)
    filter_ = ClassFilter(model)
    expected = {}
    for stamp, p in zip(predictions.stamps_ns, predictions.probabilities, strict=True):
        belief = filter_.update(int(stamp), p, p.max() < 0.6)
        expected[int(stamp)] = (*belief.known, 1 - belief.unknown)
    got = np.column_stack([filtered.probabilities, filtered.known_score])
    np.testing.assert_allclose(got, [expected[int(s)] for s in shuffled.stamps_ns])


@pytest.mark.slow
def test_gains_are_the_numbers_by_hand_and_both_filters_gain():
    predictions, truth, _ = drive()
    odometry = odometry_of_truth(predictions, truth, OdometryErrors(), seed=3)
    after = filtered_classes(predictions, ClassModel(("a", "b"), unknown_prior=0), None)
    after, counts = filtered_poses(after, PoseFilterSettings(), odometry)
    assert counts["initialised"] == 1 and counts["accepted"] > 100
    settings = EvaluationSettings(resamples=50)
    found = gains(
        score_recording(predictions, truth, settings),
        score_recording(after, truth, settings),
        settings,
    )
    y = np.array([0 if x == "a" else 1 for x in truth.labels.at(predictions.stamps_ns)])
    nll = found["classification"]["nll"]
    for name, p in (("raw", predictions.probabilities), ("filtered", after.probabilities)):
        assert nll[name] == pytest.approx(-np.log(p[np.arange(120), y]).mean(), rel=1e-6)
    assert nll["difference"]["value"] == pytest.approx(nll["filtered"] - nll["raw"])
    there = np.isfinite(after.position[:, 0])
    assert found["pose"]["frames"]["raw"] == there.sum() == 118  # from the third on
    true = truth.poses.at(predictions.stamps_ns)[0][:, :3, 3]
    error = np.linalg.norm(after.position - true, axis=1)[there]
    assert found["pose"]["p95_m"]["filtered"] == pytest.approx(np.quantile(error, 0.95))
    assert found["pose"]["median_m"]["filtered"] < 0.7 * found["pose"]["median_m"]["raw"]
    assert nll["filtered"] < nll["raw"]


@pytest.mark.slow
def test_cells_are_fused_as_the_node_fuses_them():
    """A wrong answer, one that is none and one of each image: as clouds through the node's own checks."""
    predictions, truth, poses = drive()
    odometry = odometry_of_truth(predictions, truth, OdometryErrors(), seed=3)
    head = registry.head("cells")
    low = np.stack(np.meshgrid(np.arange(-3.0, 3), np.arange(-1.0, 5)), axis=-1).reshape(-1, 2)
    corners = np.hstack([low, low + 1])
    spec = head.Spec(tuple(corners.reshape(-1).tolist()), (1,) * len(corners))
    p = np.full((len(poses), len(corners)), 0.2 / (len(corners) - 1), np.float32)
    holds = (poses[:, None, :2, 3] >= low) & (poses[:, None, :2, 3] < low + 1)
    p[np.arange(len(poses)), holds.all(axis=2).argmax(axis=1)] = 0.8
    p[60], p[70] = p[0], np.nan  # of where it is not
    settings = PoseFilterSettings()
    track = CellsTrack("cells", corners, (0, 1), p)
    after, counts = filtered_poses(predictions, settings, odometry, [track])
    topic = {t.name: t for t in head.topics(spec)}["cell_points"]
    write = topic.writer(rosbags_maker(message_types()))
    node, expected = PoseFilter(settings), Counter()
    for i, stamp in enumerate(predictions.stamps_ns.tolist()):
        node.add_odometry(stamp, odometry.poses[i])
        T = np.eye(4)
        T[:3, 3] = predictions.position[i]
        T[:3, :3] = matrix_from_xyzw(predictions.orientation_xyzw[i])
        for outcome in node.add_pose(stamp, T, predictions.covariance[i], "network"):
            expected[outcome.verdict] += 1
        shot = Shot(Stamp(*divmod(stamp, S)), "camera", "front")
        message = write(shot, head.Answer(spec.ground, p[i]), head.Options("map"))
        try:
            for outcome in node.add_cells(stamp, PositionCells(*checked_cells(message)), "cells"):
                expected[outcome.verdict] += 1
        except MeasurementError as error:
            expected[f"refused_{error.reason}"] += 1
        estimate = node.estimate(stamp)
        if estimate is not None:
            np.testing.assert_allclose(after.position[i], estimate.position, atol=1e-5)
    assert counts["cells_received"] == 120 and counts["refused_non_finite"] == 1
    assert counts["cells_against"] == 1 and counts["cells_used"] > 100
    assert expected == {name: n for name, n in counts.items() if name in expected}
    without, _ = filtered_poses(predictions, settings, odometry)
    there = np.isfinite(without.position[:, 0])
    for filtered, of_cells in ((after, True), (without, False)):
        error = np.linalg.norm((filtered.position - poses[:, :3, 3])[there, :2], axis=1)
        assert (np.median(error) < 0.13) == of_cells


@pytest.mark.slow
def test_command_fuses_the_cells_of_the_model_and_says_of_those_it_cannot(tmp_path, capsys):
    bag = record(tmp_path / "bag")
    heads = ("pose", "cells")
    given = ["filter", "--bag", str(bag), "--output", str(tmp_path / "out"), "--resamples", "20"]
    both = make_tiny_bundle(tmp_path / "both", heads=heads)
    assert main([*given, "--model", str(both)]) == 0
    counts = json.loads((tmp_path / "out" / "filters.json").read_text())["recordings"][0]["poses"]
    assert counts["cells_received"] == 40 and counts["cells_used"] > 20
    assert main([*given, "--model", str(both), "--no-cells"]) == 0
    counts = json.loads((tmp_path / "out" / "filters.json").read_text())["recordings"][0]["poses"]
    assert "cells_received" not in counts and counts["accepted"] > 20
    capsys.readouterr()
    other = make_tiny_bundle(tmp_path / "other", heads=heads, cells_frame="site")
    assert main([*given, "--model", str(other)]) == 0
    assert "its cells lie in 'site' and the poses in 'map'" in capsys.readouterr().err
    alone = make_tiny_bundle(tmp_path / "alone", heads=("cells",))
    assert main([*given, "--model", str(alone)]) == 2
    assert "cells begin no estimate" in capsys.readouterr().err


@pytest.mark.slow
def test_odometry_of_a_bag_moves_the_camera_on_the_robot(tmp_path):
    """50 odometry messages a second of the base; the camera looks along its x axis, 0.3 m ahead."""
    predictions, truth, poses = drive()
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = Rotation.from_euler("xyz", [-90, 0, -90], degrees=True).as_matrix()
    T_base_camera[0, 3] = 0.3
    bag = tmp_path / "bag"
    stamps = np.arange(600) * S // 50
    steps = [se3.exp(np.array([0.02 * k, 0, 0, 0, 0, 0.01 * k])) for k in range(5)]
    truths = np.array([T @ step for T in poses for step in steps])
    write_odometry(bag, stamps, truths @ inverse(T_base_camera))
    odometry = read_odometry(bag, "odom", T_base_camera)
    np.testing.assert_allclose(odometry.poses, truths, atol=1e-9)
    filtered, _ = filtered_poses(predictions, PoseFilterSettings(), odometry)
    error = np.linalg.norm(filtered.position - poses[:, :3, 3], axis=1)
    assert np.nanmedian(error) < 0.15
    with pytest.raises(SourceError, match="did you mean '/odom'"):
        read_odometry(bag, "/odo", T_base_camera)


@pytest.mark.slow
def test_simulated_odometry_without_errors_is_the_true_motion():
    _, _, poses = drive()
    stamps = np.arange(len(poses)) * S // 10
    made = simulated_odometry(stamps, poses, NONE, seed=0)
    np.testing.assert_allclose(made, [inverse(poses[0]) @ T for T in poses], atol=1e-12)
    noisy = OdometryErrors(OdometryNoise(0.1, 0, 0, 0, 0), 0, 0)
    ends = [simulated_odometry(stamps, poses, noisy, s)[-1] @ inverse(made[-1]) for s in range(80)]
    spread = np.std([T[:3, 3] for T in ends], axis=0)
    # Independent errors of 0.1 m in each axis after a metre, over 11.9 m.
    np.testing.assert_allclose(spread, 0.1 * np.sqrt(11.9), rtol=0.3)


def test_rates_are_changes_over_the_time_in_each_class(tmp_path):
    stamps = np.arange(61) * S  # one a second
    names = ["a"] * 20 + ["b"] * 10 + ["a"] * 20 + [None] + ["b"] * 10
    rates = fitted_rates(("a", "b", "c"), [(stamps, names)], pseudo_changes=1e-9)
    assert rates[0, 1] == pytest.approx(1 / 39) and rates[1, 0] == pytest.approx(1 / 19)
    smooth = fitted_rates(("a", "b", "c"), [(stamps, names)])
    assert (smooth + np.eye(3) > 0).all()  # what was not seen is not impossible
    write_rates(tmp_path / "home.yaml", ("a", "b", "c"), smooth)
    read = read_class_file(tmp_path / "home.yaml", ("a", "b", "c"))
    np.testing.assert_allclose(read.rates, smooth, rtol=1e-3)
    with pytest.raises(ConfigError, match="no change"):
        fitted_rates(("a", "b"), [(stamps, ["a"] * 61)])


def record(path: Path, count: int = 40) -> Path:
    """Writes a recording that the tiny network sees: red, then blue, with truth."""
    from robot_vision.recordings.writing import RecordingWriter

    rng = np.random.default_rng(0)
    with RecordingWriter(path) as bag:
        for i in range(count):
            stamp = 10**9 + i * S // 10
            colour = np.array([200, 30, 30] if i < count // 2 else [30, 30, 200])
            image = np.clip(colour + rng.normal(0, 12, 3), 0, 255) * np.ones((32, 48, 1))
            bag.camera_pose("/truth/pose", stamp, colour / 255, [0, 0, 0, 1])
            bag.label("/truth/room", stamp, "red" if i < count // 2 else "blue")
            bag.image("/camera/image_raw", stamp, "camera", image.astype(np.uint8))
    return path


@pytest.mark.slow
def test_command_compares_writes_and_fits(tmp_path, capsys):
    bundle, bag = make_tiny_bundle(tmp_path / "tiny"), record(tmp_path / "bag")
    given = ["filter", "--bag", str(bag), "--model", str(bundle), "--output", str(tmp_path / "out")]
    assert main([*given, "--resamples", "20"]) == 0
    said = capsys.readouterr().out
    assert "nll" in said and "simulated with seed 0" in said
    written = json.loads((tmp_path / "out" / "filters.json").read_text())
    assert written["classification"]["frames"]["raw"] == 40
    assert set(written["pose"]) >= {"median_m", "p95_m", "median_deg", "p95_deg"}
    assert main([*given, "--odometry", "none", "--format", "markdown"]) == 0
    assert "| accuracy |" in capsys.readouterr().out
    file = tmp_path / "rates.yaml"
    assert main([*given, "--fit-class-file", str(file)]) == 0
    assert read_class_file(file, LABELS).rates[0, 2] > 0.3  # red to blue, after two seconds
    assert main([*given, "--class-file", str(file), "--format", "json"]) == 0
    for wrong, word in ((["--odometry", "/odom"], "/odom"), (["--class-file", "no"], "no")):
        assert main([*given, *wrong]) == 2
        assert word in capsys.readouterr().err
    assert main(["filter"]) == 2


@pytest.mark.slow
def test_filters_and_their_evaluation_need_neither_ros_nor_torch():
    code = (
        "import sys\n"
        "for name in ('rclpy', 'torch', 'scipy'): sys.modules[name] = None\n"
        "import robot_vision.cli.filter, robot_vision.filters.pose_filter\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def doors(count=6, early=3, seed=0):
    """Recordings whose picture shows the next of two rooms `early` frames before the camera is in it."""
    found = []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        stamps = np.arange(200) * S // 10
        true = (np.arange(200) // 50) % 2
        seen = (np.clip(np.arange(200) + early, 0, 199) // 50) % 2
        odds = np.where(seen == 1, 1.0, -1.0) * 3 + rng.normal(0, 2.0, 200)
        p = 1 / (1 + np.exp(-odds))
        predictions = Predictions(
            stamps,
            labels=("a", "b"),
            probabilities=np.column_stack([1 - p, p]),
            known_score=np.maximum(p, 1 - p),
            recording=f"drive{i}",
        )
        labels = ["ab"[k] for k in true]
        truth = Truth.of_arrays(stamps, labels, None, None)
        found.append((f"drive{i}", predictions, truth))
    return found


@pytest.mark.slow
def test_memory_curve_is_the_loss_of_the_filter_less_that_of_the_classifier():
    recordings = doors()
    model = ClassModel(("a", "b"), unknown_prior=0)
    curve = memory_curve(recordings, model, None, (0.0, 0.3, 1.0))
    assert curve.difference[:, 0] == pytest.approx(np.zeros(6), abs=1e-4)
    for i, (_, predictions, _) in enumerate(recordings):
        y = (np.arange(200) // 50) % 2
        p = np.asarray(predictions.probabilities)
        assert curve.raw[i] == pytest.approx(-np.log(p[np.arange(200), y]).mean())
        filter_ = ClassFilter(replace(model, memory=0.3))
        q = np.array([filter_.update(j * S // 10, row).known for j, row in enumerate(p)])
        after = -np.log(q[np.arange(200), y]).mean()
        assert curve.difference[i, 1] == pytest.approx(after - curve.raw[i])


def test_trust_is_the_least_that_is_as_good_as_the_best():
    memories = np.array([0, 0.1, 0.2, 0.5])
    change = np.array([[0, -1, -2, -2.1], [0, -1.5, -2.2, -1.9], [0, -1.1, -2.0, -2.4]])
    curve = MemoryCurve(("a", "b", "c"), memories, np.zeros(3), change)
    error = np.std([-2.1, -1.9, -2.4], ddof=1) / math.sqrt(3)
    assert curve.standard_error[3] == pytest.approx(error)
    assert curve.mean[2] < curve.mean[3] + error and curve.chosen() == 0.2
    # Without the second, the two others agree that 0.2 is worse than 0.5 by more than their error.
    assert held_out(curve) == pytest.approx([-2, -1.9, -2])
    noise = MemoryCurve(("a", "b", "c"), memories, np.zeros(3), -change)
    assert noise.chosen() == 0  # a memory that only loses is not trusted
    with pytest.raises(SourceError, match="two or more"):
        MemoryCurve(("a",), memories, np.zeros(1), change[:1]).chosen()


@pytest.mark.slow
def test_command_draws_what_the_memory_is_worth(tmp_path, capsys):
    bundle, bag = make_tiny_bundle(tmp_path / "tiny"), record(tmp_path / "bag")
    svg = tmp_path / "curve.svg"
    given = ["filter", "--model", str(bundle), "--output", str(tmp_path / "out"), "--bag", str(bag)]
    given += ["--calibration-bag", str(bag)] * 3
    assert main([*given, "--memory-curve", str(svg), "--format", "markdown"]) == 0
    said = capsys.readouterr().out
    assert "| 0.15 |" in said and "Chosen on 3 calibration bags: class_memory" in said
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    for wrong, word in (
        (given, "--memory-curve"),
        ([*given[:-2], "--memory-curve", str(svg)], "3 or more"),
    ):
        assert main(wrong) == 2
        assert word in capsys.readouterr().err


def test_wrong_settings_and_outputs_are_refused_before_anything_is_predicted(
    tmp_path, capsys, monkeypatch
):
    def never(*_):
        raise AssertionError("predicted before its settings were checked")

    monkeypatch.setattr("robot_vision.evaluation.predict.runner.run", never)
    (tmp_path / "file").touch()
    bundle = make_tiny_bundle(tmp_path / "tiny")
    cells = make_tiny_bundle(tmp_path / "cells", heads=("pose", "cells"))
    given = ["filter", "--bag", "bag", "--model", str(bundle), "--output", str(tmp_path / "out")]
    nowhere = str(tmp_path / "file" / "x")
    for wrong, word in (
        (["--seed", "-2"], "seed is -2"),
        (["--dwell-s", "-2"], "dwell_s is -2"),
        (["--pose-gate-probability", "2"], "gate_probability is 2"),
        (["--base-to-camera", "1,2"], "base_to_camera is '1,2'"),
        (["--class-file", "no"], "class_file no cannot be read"),
        (["--memory-curve", nowhere], "--memory-curve: folder"),
        (["--fit-class-file", nowhere], "--fit-class-file: folder"),
        (["--output", nowhere], "--output"),
        (["--no-cells"], "--no-cells has no effect without a model with cells"),
        (["--base-to-camera", "1,0,0,0,0,0,1"], "has no effect without --odometry TOPIC"),
        (
            ["--memory-curve", "x.svg", "--fit-class-file", "y.yaml"],
            "has no effect with --fit-class-file",
        ),
        (["--model", str(cells), "--class-file", "no"], "without a model with a classifier"),
    ):
        assert main([*given, *wrong]) == 2
        assert word in capsys.readouterr().err
