"""Calibration: fits against other optimisers, graphs against arithmetic, the command from end to end."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_samples import SCALE, TRUE_TEMPERATURE, Solid, colour_samples
from scipy.optimize import minimize, minimize_scalar
from scipy.spatial.transform import Rotation
from scipy.special import log_softmax, softmax
from tiny_bundle import LABELS, make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle, write_manifest
from robot_vision.calibration.folds import folds_of, resampler_of, times_of
from robot_vision.calibration.old_graphs import GraphEditor
from robot_vision.calibration.run import Data, calibrate, heads_with_truth
from robot_vision.cli import main
from robot_vision.cli.calibrate import summary
from robot_vision.contract.calibration import FOLDS, Fit, Options
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.image_sketch import found_in, sketch
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import BundleError, ConfigError
from robot_vision.heads.classifier.fitting import class_numbers
from robot_vision.heads.classifier.graph_scores import put_score
from robot_vision.heads.classifier.head import HEAD as CLASSIFIER
from robot_vision.heads.classifier.known_scores import logit_score
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.pose.fitting import pose_losses
from robot_vision.heads.pose.variance_scales import BOTH, EACH, fit_variance_scales, scaled
from robot_vision.pipeline import Pipeline
from robot_vision.statistics.judging import Judgement, judge
from robot_vision.statistics.temperature import at_limit, cross_fitted, fit_temperature

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return ModelBundle.load(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def true_samples(count: int, seed: int = 0) -> list[Sample]:
    """Solid colours with labels as probable as the tiny bundle says."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        colour = np.rint(255 * (0.1 + 0.8 * rng.dirichlet([2, 2, 2]))).astype(int)
        label = LABELS[rng.choice(3, p=softmax(20 * colour / 255))]
        pose = np.eye(4)
        variance = 0.01 + colour[2] / 255
        seen = Rotation.from_quat([0, 0, np.sin(colour[0] / 255), np.cos(colour[0] / 255)])
        error = rng.normal(size=6) * np.sqrt(variance)
        pose[:3, :3] = (Rotation.from_rotvec(error[3:]) * seen).as_matrix()
        pose[:3, 3] = colour / 255 + error[:3]
        source = Solid(tuple(int(v) for v in colour))
        samples.append(Sample(f"{i}", label, pose, None, "walk", source))
    return samples


def held_out(samples: list[Sample]) -> Data:
    return Data(Splits((), tuple(samples), ()), "validation", "colours", {})


# The fits


@pytest.mark.parametrize("answers", [1, 5])
def test_temperature_minimises_the_likelihood_with_platts_two_images_as_scipy_does(answers):
    """Of several answers the mean probability counts."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 1, 4)) * 5 + rng.normal(size=(400, answers, 4)) * (answers > 1)
    labels = np.array([rng.choice(4, p=softmax(row[0] / 2.0)) for row in z])
    p = softmax(z, axis=2).mean(axis=1)
    order = np.argsort(-p, axis=1)
    doubt = 1 - p.max(axis=1)
    doubt /= doubt.sum()

    def loss(log_t: float) -> float:
        each = np.log(softmax(z / np.exp(log_t), axis=2).mean(axis=1))
        of = lambda k: each[np.arange(400), k]  # noqa: E731
        return -(of(labels).sum() + of(order[:, 0]).mean() + doubt @ of(order[:, 1]))

    wanted = np.exp(minimize_scalar(loss, bounds=(-3, 3), options={"xatol": 1e-10}).x)
    found = fit_temperature(z if answers > 1 else z[:, 0], labels)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert found == pytest.approx(2.0, rel=0.2)


def drawn(seed: int, classes: int, count: int, true_temperature: float = 1.0):
    """Logits, and labels drawn from their probabilities at a temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, classes)) * rng.choice([3, 6, 10])
    p = softmax(z / true_temperature, axis=1)
    labels = (np.cumsum(p, axis=1) < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return z, labels


def judged(z: np.ndarray, labels: np.ndarray) -> Judgement:
    at, folds = (np.arange(len(z)), labels), np.arange(len(z)) % 5
    after = cross_fitted(z, labels, folds)[at]
    return judge(-log_softmax(z, axis=1)[at], -after, np.arange(len(z)))


@pytest.mark.slow
def test_a_temperature_that_is_true_is_left_in_40_of_40():
    """Drawn from the model's own probabilities: fitted anyhow, it was worse in all of these."""
    written, fitted = 0, []
    for seed in range(40):
        z, labels = drawn(seed, classes=20, count=300)
        written += judged(z, labels).better
        fitted.append(fit_temperature(z, labels))
    assert written == 0
    assert abs(np.mean(fitted) - 1) < 0.03  # no bias, of which the images added were the cause


def test_a_temperature_that_is_wrong_is_found():
    for true in (0.4, 2.5):
        judgement = judged(*drawn(0, classes=20, count=300, true_temperature=true))
        assert judgement.better and judgement.after < judgement.before


def test_noise_is_that_of_blocks_whose_images_are_alike():
    rng = np.random.default_rng(0)
    gain = np.repeat(rng.normal(size=200), 50)
    alike = judge(np.zeros(10000), gain, np.arange(10000) // 50)
    single = judge(np.zeros(10000), gain, np.arange(10000))
    assert alike.noise == pytest.approx(1 / np.sqrt(200), rel=0.15)
    assert alike.noise == pytest.approx(np.sqrt(50) * single.noise, rel=0.02)
    assert judge(np.ones(5), np.zeros(5), np.zeros(5)).noise == np.inf  # nothing to compare with


@pytest.mark.slow
def test_of_several_answers_the_heads_part_of_a_covariance_is_scaled():
    """Ensembles of curves by least squares, whose own variance is that of errors they were trained on.

    Scaled alone, their variance makes other errors more probable than their sum with the spread does: the
    spread says by itself where the curves are less sure.
    """

    def answers(curves, weights, count, rng):
        basis = np.polynomial.legendre.legvander(rng.uniform(-1, 1, count), 6)
        each = np.einsum("nd,sdk->nsk", basis, curves)
        offset = each - each.mean(axis=1, keepdims=True)
        error = basis @ weights + 0.1 * rng.normal(size=(count, 6)) - each.mean(axis=1)
        return error, np.einsum("nsi,nsj->nij", offset, offset) / len(curves)

    gains = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=(7, 6)) / np.arange(1, 8)[:, None]
        basis = np.polynomial.legendre.legvander(rng.uniform(-1, 1, 40), 6)
        values = basis @ weights + 0.1 * rng.normal(size=(40, 6))
        drawn = rng.integers(40, size=(8, 40))
        curves = np.array([np.linalg.lstsq(basis[i], values[i], rcond=None)[0] for i in drawn])
        residuals = np.stack([values[i] - basis[i] @ c for i, c in zip(drawn, curves, strict=True)])
        own = np.diag((residuals**2).mean(axis=(0, 1)))
        errors, spread = answers(curves, weights, 400, rng)
        unseen, their_spread = answers(curves, weights, 4000, rng)
        losses = []
        for fixed, theirs in ((spread, their_spread), (None, None)):
            scale = fit_variance_scales(errors, own + spread, BOTH, fixed=fixed)
            losses.append(pose_losses(unseen, scaled(own + their_spread, scale, theirs)).mean())
        gains.append(losses[1] - losses[0])
    assert (np.array(gains) > 0).sum() >= 17
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(20)


def test_temperature_at_the_end_of_the_search_is_said():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 30, (400, 5))  # sure, of labels that have nothing to do with it
    assert "next to nothing" in at_limit(fit_temperature(logits, rng.integers(0, 5, 400)))
    labels = np.array([rng.choice(5, p=softmax(row)) for row in logits / 20])
    assert at_limit(fit_temperature(logits / 20, labels)) == ""


@pytest.mark.parametrize("several", [True, False])
def test_temperature_that_changes_classes_says_of_how_many_images(several):
    """One sure answer and two unsure ones: which of them the mean follows depends on the temperature."""
    rng = np.random.default_rng(0)
    answers = np.array([[8.0, 0, 0], [0, 1.5, 0], [0, 1.5, 0]])
    z = np.stack([answers[:, rng.permutation(3)] for _ in range(400)])
    z[:100] = rng.normal(0, 6, (100, 1, 3))  # alike, so that no temperature changes the class
    if not several:
        z = z[:, 0]

    def mean(temperature):
        each = softmax(z / temperature, axis=-1)
        return each.mean(axis=1) if several else each

    labels = [LABELS[rng.choice(3, p=p)] for p in mean(5.0)]
    samples = [Sample(f"{i}", label, None, None, "s", None) for i, label in enumerate(labels)]
    material = Fit(
        spec=ClassifierSpec(tuple(LABELS)),
        outputs={"logit_samples" if several else "logits": z, "probabilities": mean(1.0)},
        truth=labels,
        folds=folds_of(samples, FOLDS),
        units=np.arange(400),
        blocks=np.arange(400),
        constants={"temperature": np.array(1.0)},
        resampler=resampler_of(samples, EvaluationSettings(resamples=0)),
        times=partial(times_of, samples),
    )
    found = CLASSIFIER.fitter().fit("classifier", material, None)
    fitted = found.values["temperature"]
    changed = (mean(1.0).argmax(axis=1) != mean(fitted).argmax(axis=1)).sum()
    assert not found.left and fitted == pytest.approx(5, rel=0.5)
    said = f"classifier: {changed} images get another class, of 400"
    assert (changed == 300 and said in found.said[1]) if several else len(found.said) == 1


def test_temperature_stays_finite_when_every_image_is_right():
    z = np.eye(3)[np.arange(150) % 3] * 8
    assert 0.05 < fit_temperature(z, np.arange(150) % 3) < 8


def test_variance_scales_of_diagonal_covariances_are_mean_squares():
    rng = np.random.default_rng(2)
    variances = rng.uniform(0.1, 2, (300, 6))
    errors = rng.normal(size=(300, 6)) * np.sqrt(variances * SCALE)
    covariances = variances[:, :, None] * np.eye(6)
    scale = fit_variance_scales(errors, covariances, EACH)
    assert np.allclose(scale, (errors**2 / variances).mean(axis=0))


@pytest.mark.parametrize("groups", [(0, 0, 0, 1, 1, 1), EACH])
def test_variance_scales_of_full_covariances_maximise_the_likelihood(groups):
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(200, 6, 6))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(6)
    true = scaled(covariances, SCALE)
    errors = np.einsum("nij,nj->ni", np.linalg.cholesky(true), rng.normal(size=(200, 6)))

    def loss(log_scale: np.ndarray) -> float:
        C = scaled(covariances, np.exp(log_scale)[list(groups)])
        squares = np.einsum("ni,ni->n", errors, np.linalg.solve(C, errors[:, :, None])[:, :, 0])
        return float((squares + np.linalg.slogdet(C)[1]).mean())

    start = np.zeros(max(groups) + 1)
    wanted = np.exp(minimize(loss, start, method="BFGS").x)[list(groups)]
    scale = fit_variance_scales(errors, covariances, groups)
    assert np.allclose(scale, wanted, rtol=1e-3)
    assert np.allclose(scale, SCALE, rtol=0.35)
    C = scaled(covariances, scale)
    squares = np.einsum("ni,ni->n", errors, np.linalg.solve(C, errors[:, :, None])[:, :, 0])
    assert squares.mean() == pytest.approx(6.0, rel=1e-6)  # NEES is ideal


@pytest.mark.parametrize("groups", [BOTH, EACH])
def test_variance_scales_leave_a_fixed_part_and_maximise_the_likelihood(groups):
    """Of several answers: the head's part is scaled, and their spread is not."""
    rng = np.random.default_rng(3)
    roots, offsets = rng.normal(size=(200, 6, 6)), rng.normal(size=(200, 6, 4))
    inside = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(6)
    spread = offsets @ offsets.transpose(0, 2, 1) / 4
    true = scaled(inside, SCALE) + spread
    errors = np.einsum("nij,nj->ni", np.linalg.cholesky(true), rng.normal(size=(200, 6)))

    def loss(log_scale: np.ndarray) -> float:
        C = scaled(inside, np.exp(log_scale)[list(groups)]) + spread
        squares = np.einsum("ni,ni->n", errors, np.linalg.solve(C, errors[:, :, None])[:, :, 0])
        return float((squares + np.linalg.slogdet(C)[1]).mean())

    wanted = np.exp(minimize(loss, np.zeros(max(groups) + 1), method="BFGS").x)[list(groups)]
    scale = fit_variance_scales(errors, inside + spread, groups, fixed=spread)
    assert np.allclose(scale, wanted, rtol=1e-3)
    # Where hardly anything is fixed, both ways of fitting find the same, with blocks too.
    blocks, tiny = np.arange(200) // 20, np.tile(1e-12 * np.eye(6), (200, 1, 1))
    one = fit_variance_scales(errors, inside, groups, blocks)
    assert np.allclose(fit_variance_scales(errors, inside, groups, blocks, tiny), one, rtol=1e-6)


@pytest.mark.slow
def test_variance_scales_of_blocks_are_right_for_blocks_not_seen():
    """Blocks whose errors are large or small together; covariances with correlations."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)

    def draw(count):
        large = 1 / rng.gamma(4, 1 / 4, (count, 2))  # of positions and of rotations
        root = np.sqrt(np.repeat(large, 20, axis=0))[:, BOTH]
        return rng.normal(size=(count * 20, 6)) @ np.linalg.cholesky(covariance).T * root

    unseen, nees = draw(3000), {False: [], True: []}
    for _ in range(100):
        seen = draw(8)
        given = np.tile(covariance, (len(seen), 1, 1))
        blocks = np.arange(len(seen)) // 20
        for by_block, found in nees.items():
            scale = fit_variance_scales(seen, given, BOTH, blocks if by_block else None)
            precision = np.linalg.inv(scaled(covariance, scale))
            found.append(np.einsum("ni,ij,nj->n", unseen, precision, unseen).mean() / 6)
    assert np.mean(nees[False]) > 1.05
    assert abs(np.mean(nees[True]) - 1) < 0.6 * (np.mean(nees[False]) - 1)


def test_variance_scales_of_one_block_judge_it_by_the_others():
    rng = np.random.default_rng(6)
    variances = rng.uniform(0.1, 2, (240, 6))
    errors = (
        rng.normal(size=(240, 6)) * np.sqrt(variances) * np.repeat([1, 1, 1, 1, 1, 3], 40)[:, None]
    )
    covariances, blocks = variances[:, :, None] * np.eye(6), np.arange(240) // 40
    squares = (errors**2 / variances).reshape(6, 40, 2, 3).mean(axis=(1, 3))  # of block and group
    others = (squares.sum(axis=0) - squares) / 5
    wanted = squares.mean(axis=0) * (squares / others).mean(axis=0)
    found = fit_variance_scales(errors, covariances, BOTH, blocks)
    assert np.allclose(found, np.repeat(wanted, 3))


def test_variance_scales_refuse_what_is_no_covariance():
    with pytest.raises(ConfigError, match="positive definite"):
        fit_variance_scales(np.ones((3, 6)), np.tile(-np.eye(6), (3, 1, 1)))


# What is measured


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_numbers_on_probabilities_equal_torchmetrics_and_netcal(seed):
    """With three classes and more: of two, netcal bins the second one's probability, not the confidence.

    And with no confidence on an edge of a bin, where such counts differ by which side the edge belongs to.
    """
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    netcal = pytest.importorskip("netcal.metrics")
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(3, 8))
    p = softmax(rng.normal(size=(500, classes)) * rng.uniform(1, 4), axis=1)
    assert np.abs(p.max(axis=1)[:, None] * 15 - np.arange(16)).min() > 1e-9  # none on an edge
    labels = np.array([rng.choice(classes, p=row) for row in p])
    samples = [replace(s, label="x") for s in colour_samples(500, rng)]
    resampler = resampler_of(samples, EvaluationSettings(resamples=0))
    found = class_numbers(p, labels, resampler, np.ones(500, bool))
    ece = metrics.multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(labels), classes, n_bins=15, norm="l1"
    )
    assert found["ece"]["value"] == pytest.approx(float(ece), abs=1e-6)
    assert found["ece"]["value"] == pytest.approx(netcal.ECE(15).measure(p, labels), abs=1e-12)
    brier = ((p - np.eye(classes)[labels]) ** 2).sum(axis=1).mean()
    assert found["brier"]["value"] == pytest.approx(brier)


def test_folds_keep_neighbouring_frames_together_and_classes_apart():
    frames = colour_samples(430, np.random.default_rng(0), posed=True)
    fold = folds_of(frames, 5)
    assert set(fold) == set(range(5))
    assert (np.diff(fold) != 0).sum() == 8  # nine blocks of at most 50 frames
    pictures = colour_samples(400, np.random.default_rng(0))
    names = np.array([s.label for s in pictures])
    fold = folds_of(pictures, 5)
    for label in LABELS:
        counts = np.bincount(fold[names == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_neighbours_in_time_are_those_of_the_recording():
    """Whatever the order of the bags' clocks, and when all splits are taken together."""
    frames = colour_samples(120, np.random.default_rng(0), posed=True)
    late = [replace(s, sequence="a", stamp_ns=10**12 + i * 10**9) for i, s in enumerate(frames)]
    early = [replace(s, sequence="b", stamp_ns=10**9 + i * 10**9) for i, s in enumerate(frames)]
    times = times_of([*late, *early], 10.0)
    assert (np.diff(times) > 0).all()
    assert set(np.diff(times)) == {10**9, 10 * 10**9 + 1}
    unstamped = [replace(s, name=f"{i}", stamp_ns=None) for i, s in enumerate(frames)]
    for samples in (late, unstamped):
        blocks = Splits(tuple(samples[40:80]), tuple(samples[:40]), tuple(samples[80:]))
        assert list(Data(blocks, "all", "", {}).samples) == samples


# The graph


@pytest.mark.slow
@pytest.mark.parametrize("score", ["max_probability", "max_logit", "energy"])
@pytest.mark.parametrize("which", ["demo", "tiny"])
def test_edited_graph_computes_what_was_asked_for(tiny, which, score):
    bundle = tiny if which == "tiny" else ModelBundle.load(ROOT / "models" / "demo")
    images = np.random.default_rng(0).integers(
        0, 256, (3, bundle.spec.input.height, bundle.spec.input.width, 3), np.uint8
    )
    editor = GraphEditor(bundle.graph)
    editor.expose("logits", "classifier", "logits")
    before = run_graph(editor.to_bytes(), images)
    assert np.allclose(
        before["probabilities"], softmax(before["logits"] / editor.temperature(), axis=1), atol=1e-6
    )
    first = GraphEditor(bundle.graph)
    first.set_temperature(2.5)
    first.scale_covariance(SCALE)
    # Calibrated a second time, and with another score first: nothing adds up.
    editor = GraphEditor(first.to_bytes())
    put_score(editor, CLASSIFIER, "energy")
    editor.set_temperature(1.7)
    put_score(editor, CLASSIFIER, score)
    after = run_graph(editor.to_bytes(), images)
    wanted = softmax(before["logits"].astype(float) / 1.7, axis=1)
    assert np.allclose(after["probabilities"], wanted, atol=1e-6)
    known = logit_score(score, before["logits"], 1.7)
    assert np.allclose(after["known_score"], known, rtol=1e-5, atol=1e-6)
    factor = np.sqrt(np.outer(SCALE, SCALE))
    assert np.allclose(after["pose_covariance"], before["pose_covariance"] * factor, rtol=1e-5)
    for name in ("position", "orientation_xyzw", "descriptor"):
        assert np.array_equal(after[name], before[name])


def test_full_covariance_is_scaled_with_its_correlations_kept():
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["given"], ["pose_covariance"])
    graph = helper.make_graph(
        [node],
        "g",
        [value("given", TensorProto.FLOAT, ["N", 6, 6])],
        [value("pose_covariance", TensorProto.FLOAT, ["N", 6, 6])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    root = np.random.default_rng(0).normal(size=(4, 6, 6)).astype(np.float32)
    covariance = root @ root.transpose(0, 2, 1)
    editor = GraphEditor(model.SerializeToString())
    editor.scale_covariance(SCALE)
    editor.scale_covariance(SCALE)
    (after,) = run_graph(editor.to_bytes(), covariance, "given").values()
    assert np.allclose(after, scaled(covariance, SCALE**2), rtol=1e-5)

    def correlation(C: np.ndarray) -> np.ndarray:
        sigma = np.sqrt(np.diagonal(C, axis1=1, axis2=2))
        return C / (sigma[:, :, None] * sigma[:, None, :])

    assert np.allclose(correlation(after), correlation(covariance), atol=1e-5)
    assert onnx.load_model_from_string(editor.to_bytes()).graph.initializer[0].name


def test_old_graph_of_several_answers_scales_the_heads_part_and_not_their_spread():
    """And one that an earlier version calibrated as a whole is refused."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    names = {"mean": "given", "spread": "pose_spread"}
    nodes = [
        helper.make_node("Identity", ["given"], ["mean"]),
        helper.make_node("Abs", ["given"], ["pose_spread"]),
        helper.make_node("Add", ["mean", names["spread"]], ["pose_covariance"]),
    ]
    matrix = ["N", 6, 6]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("given", TensorProto.FLOAT, matrix)],
        [value(n, TensorProto.FLOAT, matrix) for n in ("pose_covariance", "pose_spread")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    given = np.random.default_rng(0).normal(size=(4, 6, 6)).astype(np.float32)
    editor = GraphEditor(model.SerializeToString())
    editor.scale_covariance(SCALE)
    again = GraphEditor(editor.to_bytes())
    again.scale_covariance(SCALE)
    after = run_graph(again.to_bytes(), given, "given")
    assert np.array_equal(after["pose_spread"], np.abs(given))
    wanted = scaled(given, SCALE**2) + np.abs(given)
    assert np.allclose(after["pose_covariance"], wanted, rtol=1e-5, atol=1e-5)
    model.graph.node[2].output[0] = "sum"
    model.graph.node.append(helper.make_node("Neg", ["sum"], ["pose_covariance"]))
    with pytest.raises(BundleError, match="calibrate the bundle that it was made from"):
        GraphEditor(model.SerializeToString()).scale_covariance(SCALE)


def test_graph_without_a_softmax_gets_room_for_a_temperature():
    """A mean of several answers: a temperature makes of p what is proportional to p^(1/T)."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Softmax", ["given"], ["each"], axis=2),
        helper.make_node("ReduceMean", ["each"], ["probabilities"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("given", TensorProto.FLOAT, ["N", 8, 4])],
        [value("probabilities", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    z = (np.random.default_rng(0).normal(size=(20, 8, 4)) * 4).astype(np.float32)
    mean = softmax(z, axis=2).mean(axis=1)
    editor = GraphEditor(model.SerializeToString())
    editor.set_temperature(1.6)
    (after,) = run_graph(editor.to_bytes(), z, "given").values()
    power = mean ** (1 / 1.6)
    assert np.allclose(after, power / power.sum(axis=1, keepdims=True), atol=1e-5)
    again = GraphEditor(editor.to_bytes())
    assert again.temperature() == pytest.approx(1.6)
    again.set_temperature(1.0)
    (back,) = run_graph(again.to_bytes(), z, "given").values()
    assert np.allclose(back, mean, atol=1e-5)


def run_graph(graph: bytes, images: np.ndarray, name: str = "images") -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: images}), strict=True))


# From end to end


def test_what_is_worse_on_images_left_out_is_not_written_and_said(tiny, tmp_path, capsys):
    """Labels follow the bundle's own probabilities, and poses its own variances: there is nothing to gain."""
    samples = true_samples(200)
    options = Options(("classifier", "pose"), settings=EvaluationSettings(resamples=50))
    new, found = calibrate(tiny, held_out(samples), options, tmp_path / "new")
    assert not found.constants
    assert set(found.left) >= {"classifier"}
    line = next(line for line in summary(found) if line.startswith("classifier"))
    numbers = found.heads["classifier"]
    for side in (numbers.before, numbers.after):
        assert f"{side['nll']['value']:.4f}" in line
    assert "it stays 1" in line and "images left out" in line
    assert new.spec.heads["classifier"].temperature == tiny.spec.heads["classifier"].temperature
    assert "classifier" not in new.calibration and "classifier" in new.calibration["left"]
    assert "it stays 1" in (new.path / "README.md").read_text()
    image = [samples[0].source.load()]
    with Pipeline.load(tiny.path, "onnx") as old, Pipeline.load(new.path, "onnx") as now:
        a, b = old(image)[0]["classifier"], now(image)[0]["classifier"]
    assert np.array_equal(a.probabilities, b.probabilities)


def test_a_threshold_alone_leaves_graph_and_weights_to_the_byte(tmp_path):
    bundle = ModelBundle.load(make_tiny_bundle(tmp_path / "tiny", unknown_threshold=0.5))
    samples = true_samples(200)
    options = Options(("open_set",), {"score": "max_probability"})
    new, found = calibrate(bundle, held_out(samples), options, tmp_path / "new")
    assert new.graph == bundle.graph
    assert (
        new.spec.heads["classifier"].unknown_threshold
        == pytest.approx(found.heads["open_set"].values["threshold"])
        != 0.5
    )


def test_labels_that_the_bundle_does_not_know_are_named_with_their_number(tiny, tmp_path):
    samples = true_samples(240)
    samples = [
        replace(s, label="Door") if i < 12 else replace(s, label="cat") if i < 15 else s
        for i, s in enumerate(s for s in samples if s.label != LABELS[2])
    ]
    options = Options(("classifier", "open_set"), settings=EvaluationSettings(resamples=20))
    _, found = calibrate(tiny, held_out(samples), options, tmp_path / "new")
    note = next(n for n in found.notes if "does not know" in n)
    assert note.startswith("15 images") and "Door: 12, cat: 3" in note and "rename" in note
    assert any(n.startswith(f"no image shows {LABELS[2]}") for n in found.notes)


def test_a_place_where_no_bundle_can_be_written_is_told_before_the_work(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = ["calibrate", str(tiny.path), "--data", "image_folder", str(tmp_path / "missing")]
    assert main([*words, "--output", str(tmp_path / "file" / "new")]) == 2
    assert "file/new cannot be written" in capsys.readouterr().err  # and not: no data


@pytest.mark.slow
def test_calibration_makes_probabilities_and_covariances_true(tiny, tmp_path):
    samples = colour_samples(600, np.random.default_rng(0), posed=True)
    options = Options(("classifier", "open_set", "pose"), settings=EvaluationSettings(resamples=50))
    new, found = calibrate(tiny, held_out(samples), options, tmp_path / "new")
    temperature = float(found.constants["classifier"]["temperature"])
    assert temperature == pytest.approx(TRUE_TEMPERATURE, rel=0.2)
    assert np.allclose(found.heads["pose"].values["variance_scale"], SCALE, rtol=0.2)
    classes, pose = found.heads["classifier"], found.heads["pose"]
    assert classes.before["ece"]["value"] > 0.08
    assert classes.after["ece"]["value"] < 0.06
    assert classes.after["nll"]["value"] < classes.before["nll"]["value"]
    assert pose.after["nees"]["value"] == pytest.approx(1.0, abs=0.15)
    for share in (50, 68, 90, 95):
        assert pose.after[f"coverage_{share}"]["value"] == pytest.approx(share / 100, abs=0.06)
    # What the robot gets, on images that nothing was fitted on.
    fresh = colour_samples(400, np.random.default_rng(1), posed=True)
    images = [s.source.load() for s in fresh]
    with Pipeline.load(tiny.path, "onnx") as old, Pipeline.load(new.path, "onnx") as now:
        before, after = old(images), now(images)
    p = np.array([a["classifier"].probabilities for a in after])
    q = np.array([b["classifier"].probabilities for b in before])
    assert np.array_equal(p.argmax(axis=1), q.argmax(axis=1))
    labels = np.array([LABELS.index(s.label) for s in fresh])
    nll = [-np.log(x[np.arange(400), labels]).mean() for x in (q, p)]
    assert nll[1] < nll[0]
    threshold = new.spec.heads["classifier"].unknown_threshold
    kept = np.mean([a["classifier"].known_score >= threshold for a in after])
    assert 0.91 < kept < 0.98
    ratio = after[0]["pose"].covariance.diagonal() / before[0]["pose"].covariance.diagonal()
    assert np.allclose(ratio, found.heads["pose"].values["variance_scale"], rtol=1e-5)
    record = new.calibration
    assert record["of_bundle"] == tiny.sha256
    assert record["classifier"]["images"] == 600
    assert record["classifier"]["after"]["ece"][0] == pytest.approx(
        classes.after["ece"]["value"], rel=1e-3
    )


def test_the_curve_of_places_is_stored_and_true(tiny, tmp_path):
    from robot_vision.heads.place.probability import PlaceProbability

    samples = colour_samples(500, np.random.default_rng(2), posed=True)
    settings = EvaluationSettings(place_radius_m=1.2, place_heading_deg=90, resamples=0)
    options = Options(("place",), settings=settings)
    new, found = calibrate(tiny, held_out(samples), options, tmp_path / "new")
    place = found.heads["place"]
    assert place.after["nll"]["value"] < place.before["nll"]["value"]
    assert place.after["ece"]["value"] < 0.1
    curve = PlaceProbability.from_dict(
        ModelBundle.load(new.path).calibration["place"]["probability"]
    )
    assert curve.matches == place.images


def test_training_images_are_refused_and_a_few_are_left_out(tiny, tmp_path):
    samples = colour_samples(300, np.random.default_rng(3))
    from robot_vision.datasets.sample import content_hash

    hashes = [content_hash(s) for s in samples]
    trained = make_tiny_bundle(tmp_path / "trained")
    training = {"training_image_sketch": sketch(hashes)}
    bundle = ModelBundle.load(trained)
    write_manifest(trained, "trained", bundle.spec, training, {})
    bundle = ModelBundle.load(trained)
    options = Options(("classifier",), settings=EvaluationSettings(resamples=0))
    with pytest.raises(ConfigError, match="100% of these images were trained on"):
        calibrate(bundle, held_out(samples), options, tmp_path / "new")
    others = colour_samples(300, np.random.default_rng(4))
    known = set(hashes)
    others = [s for s in others if content_hash(s) not in known]
    mixed = [*others, samples[0], samples[1]]
    new, found = calibrate(bundle, held_out(mixed), options, tmp_path / "new")
    assert found.heads["classifier"].images == len(others)
    assert new.calibration["data"]["image_sketch"] == sketch(content_hash(s) for s in others)
    assert "2 images that were trained on are left out" in found.notes


def test_sketch_of_many_images_estimates_the_share():
    import hashlib

    def names(a: int, b: int) -> list[str]:
        return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(a, b)]

    data = sketch(names(0, 20000))
    assert len(data["smallest"].split()) == 1024
    shared, share = found_in(data, names(15000, 25000))
    assert share == pytest.approx(0.5, abs=0.08)
    assert 150 < len(shared) < 350
    assert found_in(data, names(20000, 30000)) == (set(), 0.0)


@pytest.mark.parametrize(
    ("head", "count", "words"),
    [
        ("classifier", 99, "99 images .* at least 100 are needed"),
        ("open_set", 99, "at least 100 are needed"),
        ("pose", 63, "63 images .* at least 64 are needed"),
        ("place", 30, "at least 20 right and 20 wrong"),
    ],
)
def test_too_few_images_are_refused_by_number(tiny, tmp_path, head, count, words):
    samples = colour_samples(count, np.random.default_rng(5), posed=head in ("pose", "place"))
    with pytest.raises(ConfigError, match=words):
        calibrate(tiny, held_out(samples), Options((head,)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_command_calibrates_on_a_folder_and_says_before_and_after(tiny, tmp_path, capsys):
    samples = colour_samples(260, np.random.default_rng(6))
    for sample in samples:
        folder = tmp_path / "colours" / "val" / sample.label
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{sample.name}.png"), sample.source.load()[..., ::-1])
    train = tmp_path / "colours" / "train"
    for i, label in enumerate(LABELS):
        (train / label).mkdir(parents=True)
        cv2.imwrite(str(train / label / "a.png"), np.full((8, 12, 3), 10 * i, np.uint8))
    words = ["calibrate", str(tiny.path), "--data", "image_folder", str(tmp_path / "colours")]
    words += ["--output", str(tmp_path / "new"), "--resamples", "20", "--keep", "0.9"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "expected calibration error" in out and "temperature:" in out
    assert "keeps 90.0% of" in out and "true" not in out.split("bundle:")[1]
    new = ModelBundle.load(tmp_path / "new")
    assert new.calibration["data"]["images"] == 260
    assert "## Calibration" in (tmp_path / "new" / "README.md").read_text()
    assert main(words) == 2  # it exists already
    assert "exists already" in capsys.readouterr().err
    assert main([*words[:-1], "1.0", "--output", str(tmp_path / "other")]) == 2
    assert "keep is 1.0" in capsys.readouterr().err


def test_command_says_when_there_is_nothing_to_calibrate_on(tiny, tmp_path, capsys):
    (tmp_path / "cats" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "cats" / "val" / "cat").mkdir(parents=True)
    for part in ("train", "val"):
        cv2.imwrite(str(tmp_path / "cats" / part / "cat" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    words = ["calibrate", str(tiny.path), "--data", "image_folder", str(tmp_path / "cats")]
    assert main([*words, "--output", str(tmp_path / "new")]) == 2
    assert "nothing to calibrate on" in capsys.readouterr().err


def test_positions_without_orientation_calibrate_no_pose(tiny, tmp_path, monkeypatch, capsys):
    """Their rotations are the identity's stand-in; covariances of rotations were fitted to it."""
    flat = Splits(
        (),
        tuple(colour_samples(500, np.random.default_rng(2), posed=True)),
        (),
        has_orientation=False,
    )
    data = Data(flat, "validation", "photographs", {})
    assert "pose" in heads_with_truth(tiny, flat.validation, True)
    assert "pose" not in heads_with_truth(tiny, flat.validation, False)
    monkeypatch.setattr("robot_vision.cli.calibrate.held_out", lambda args: data)
    words = [
        "calibrate",
        str(tiny.path),
        "--data",
        "geotagged",
        "x",
        "--output",
        str(tmp_path / "a"),
    ]
    assert main([*words, "--heads", "pose"]) == 2
    assert "its poses are positions without orientation" in capsys.readouterr().err
    assert main([*words, "--heads", "place", "--place-radius", "1.2", "--resamples", "100"]) == 0
    assert "whatever the heading" in capsys.readouterr().err
    assert ModelBundle.load(tmp_path / "a").calibration["place"]["heading_deg"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("score", "passes"), [("energy", 0), ("knn", 0), ("energy", 4)])
def test_torch_says_what_the_calibrated_graph_says(tmp_path, score, passes):
    """Of several answers too; and a second classifier, `lights`, is calibrated on labels of its own."""
    pytest.importorskip("torch")
    import torch

    from robot_vision.contract.epistemic import EpistemicSpec
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.heads.pose.spec import PoseSpec
    from robot_vision.images.input import InputSpec
    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork

    torch.manual_seed(0)
    spec = NetworkSpec(
        "mobilenet_v2",
        InputSpec(32, 32),
        heads={
            "classifier": ClassifierSpec(LABELS, dropout=0.2),
            "lights": ClassifierSpec(("on", "off"), dropout=0.2),
            "pose": PoseSpec(tap="features.6", hidden=16, covariance="cholesky", dropout=0.2),
        },
        epistemic=EpistemicSpec(passes) if passes else None,
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(4)]
    bundle = export_bundle(MultiHeadNetwork(spec), tmp_path / "old", "net", images)
    samples = [
        replace(s, truth={"label:lights": "on" if s.source.colour[0] > 90 else "off"})
        for s in colour_samples(150, rng, posed=True)
    ]
    options = Options(
        ("classifier", "open_set", "pose", "lights.classifier", "lights.open_set"),
        {"score": score},
        settings=EvaluationSettings(resamples=0),
    )
    new, found = calibrate(bundle, held_out(samples), options, tmp_path / "new")
    assert found.constants and not any("left out" in note for note in found.notes)
    assert set(new.calibration) >= {"open_set", "lights.open_set"}
    assert new.spec.heads["lights"].unknown_threshold is not None
    with Pipeline.load(new.path, "onnx") as graph, Pipeline.load(new.path, "torch") as network:
        a, b = graph(images), network(images)
    for one, two in zip(a, b, strict=True):
        assert np.allclose(
            one["classifier"].probabilities, two["classifier"].probabilities, atol=1e-5
        )
        assert one["classifier"].known_score == pytest.approx(
            two["classifier"].known_score, rel=1e-3, abs=1e-3
        )
        assert np.allclose(one["pose"].covariance, two["pose"].covariance, rtol=1e-3, atol=1e-6)
        assert one["lights"].known_score == pytest.approx(
            two["lights"].known_score, rel=1e-3, abs=1e-3
        )


@pytest.mark.slow
def test_variants_of_a_graph_are_calibrated(tmp_path):
    """float16 rounds constants and outputs; what the quantiser prepares lacks a division by one."""
    torch = pytest.importorskip("torch")
    shapes = pytest.importorskip("onnxruntime.quantization.shape_inference")

    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.heads.pose.spec import PoseSpec
    from robot_vision.images.input import InputSpec
    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork
    from robot_vision.optimising.quantise import _float16

    torch.manual_seed(0)
    pose = PoseSpec(tap="features.6", hidden=16)
    heads = {"classifier": ClassifierSpec(LABELS), "pose": pose}
    network = MultiHeadNetwork(NetworkSpec("mobilenet_v2", InputSpec(32, 32), heads))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    plain = export_bundle(network, tmp_path / "plain", "net", images)
    samples = colour_samples(150, rng, posed=True)
    for name in ("half", "ready"):
        path = make_tiny_bundle(tmp_path / name)
        for file in path.iterdir():
            file.unlink()
        graph = path / "model.onnx"
        if name == "half":
            _float16(plain.path / "model.onnx", graph)
        else:
            source = str(plain.path / "model.onnx")
            shapes.quant_pre_process(source, str(graph), skip_symbolic_shape=True)
        write_manifest(path, name, plain.spec, {}, {})
        options = Options(
            ("classifier", "open_set", "pose"), settings=EvaluationSettings(resamples=0)
        )
        old = ModelBundle.load(path)
        new, found = calibrate(old, held_out(samples), options, tmp_path / f"new_{name}")
        scale = found.heads["pose"].values["variance_scale"]
        assert not found.heads["pose"].left
        with Pipeline.load(path, "onnx") as one, Pipeline.load(new.path, "onnx") as two:
            before, after = one(images)[0]["pose"], two(images)[0]["pose"]
        ratio = np.diagonal(after.covariance) / np.diagonal(before.covariance)
        assert np.allclose(ratio, scale, rtol=2e-3)
