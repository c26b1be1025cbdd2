"""Several answers of a head, averaged in the graph: against SciPy, by hand, and on every engine."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import photographs, random_batch, small_network, torch
from scipy.spatial.transform import Rotation
from scipy.stats import entropy as scipy_entropy

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.several import dropout_masks
from robot_vision.contract.spec import NetworkSpec
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.heads.classifier.network import mean_probabilities
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.several import dominant_eigenvector, mean_pose, rotation_vectors
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.ensemble import with_monte_carlo
from robot_vision.networks.export import export_bundle
from robot_vision.pipeline import Pipeline

TAP = "layer2"


def dropout_network(seed=0, rate=0.3, passes=0):
    network = small_network(
        seed,
        classifier=ClassifierSpec(("a", "b", "c"), tap=TAP, dropout=rate, score="energy"),
        pose=PoseSpec(tap=TAP, hidden=64, dropout=rate, covariance="cholesky"),
        place=PlaceSpec(tap=TAP, clusters=4),
    )
    with torch.no_grad():  # a head that predicts different variances, as a trained one does
        network.heads["pose"].log_variance.weight.normal_(0, 0.1)
        network.heads["pose"].quaternion.weight.mul_(5)
    return with_monte_carlo(network, passes)


def random_rotations(seed, count, spread):
    random = np.random.default_rng(seed)
    centre = Rotation.random(random_state=seed)
    return Rotation.from_rotvec(random.normal(0, spread, (count, 3))) * centre


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(1e-4, 1.0))
def test_mean_of_rotations_is_scipys_whatever_their_signs(seed, count, spread):
    rotations = random_rotations(seed, count, spread)
    signs = np.random.default_rng(seed + 1).choice([-1.0, 1.0], (count, 1))
    q = torch.from_numpy(signs * rotations.as_quat()).float()[None]
    position, covariance = torch.zeros(1, count, 3), torch.zeros(1, count, 6, 6)
    _, mean, _, _ = mean_pose(position, q, covariance)
    apart = (Rotation.from_quat(mean[0].double().numpy()) * rotations.mean().inv()).magnitude()
    moments = np.linalg.eigvalsh(q[0].double().T @ q[0].double())
    gap = moments[-1] / moments[:-1].max() - 1  # the mean is as well defined as this is large
    assert apart < 1e-5 + 1e-6 / min(gap, 1.0) or gap < 0.05
    assert mean[0, 3] >= 0


def test_spread_is_the_second_moment_of_rotation_vectors_about_the_maps_axes():
    rotations, random = random_rotations(3, 9, 0.4), np.random.default_rng(4)
    position = random.normal(0, 2, (9, 3))
    inside = np.stack([np.diag(random.uniform(0.1, 1, 6)) for _ in range(9)])
    centre, mean, total, spread = (
        v[0].double().numpy()
        for v in mean_pose(
            *(torch.from_numpy(v).float()[None] for v in (position, rotations.as_quat(), inside))
        )
    )
    middle = Rotation.from_quat(mean)
    offsets = np.hstack([position - position.mean(0), (rotations * middle.inv()).as_rotvec()])
    expected = sum(np.outer(o, o) for o in offsets) / 9
    np.testing.assert_allclose(centre, position.mean(0), atol=1e-5)
    np.testing.assert_allclose(spread, expected, atol=1e-5)
    np.testing.assert_allclose(total, inside.mean(0) + expected, atol=1e-5)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1e-3, 1.0, np.pi / 2, np.pi - 1e-3]))
def test_rotation_vector_turns_the_mean_into_the_sample(seed, angle):
    axis = np.random.default_rng(seed).normal(size=3)
    delta = angle * axis / np.linalg.norm(axis)
    mean = Rotation.random(random_state=seed)
    sample = (Rotation.from_rotvec(delta) * mean).as_quat()
    for sign in (1, -1):
        found = rotation_vectors(torch.tensor(sign * sample), torch.tensor(mean.as_quat())).numpy()
        np.testing.assert_allclose(found, delta, atol=2e-6)
        turned = Rotation.from_rotvec(found).as_matrix() @ matrix_from_xyzw(mean.as_quat())
        np.testing.assert_allclose(turned, matrix_from_xyzw(sample), atol=2e-6)


def test_opposite_rotations_have_a_finite_unit_mean():
    q = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]], [[0, 0, 0, 1.0], [1.0, 0, 0, 0]]])
    _, mean, _, spread = mean_pose(torch.zeros(2, 2, 3), q, torch.zeros(2, 2, 6, 6))
    np.testing.assert_allclose(mean.norm(dim=1), 1, atol=1e-6)
    assert spread.isfinite().all()
    assert (
        spread[:, 3:, 3:].diagonal(dim1=1, dim2=2).sum(1).min() > 1
    )  # and it says that it is none


def test_dominant_eigenvector_is_numpys():
    random = np.random.default_rng(0)
    factors = random.normal(size=(50, 4, 6))
    matrices = factors @ factors.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(matrices)
    found = dominant_eigenvector(torch.from_numpy(matrices)).numpy()
    clear = values[:, -2] / values[:, -1] < 0.9
    assert clear.sum() > 30
    along = np.abs((found * vectors[:, :, -1]).sum(1))[clear]
    np.testing.assert_allclose(along, 1, atol=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_mutual_information_is_entropy_of_mean_less_mean_entropy(seed):
    p = np.random.default_rng(seed).dirichlet([0.3] * 5, (3, 7))
    mean, information = mean_probabilities(torch.from_numpy(p))
    expected = scipy_entropy(p.mean(1), axis=1) - scipy_entropy(p, axis=2).mean(1)
    np.testing.assert_allclose(mean, p.mean(1), atol=1e-12)
    np.testing.assert_allclose(information, expected, atol=1e-9)


def test_mutual_information_is_zero_of_equal_and_log_two_of_opposed_certain_answers():
    same = torch.tensor([[[0.5, 0.5]] * 4])
    opposed = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert mean_probabilities(same)[1].item() == pytest.approx(0, abs=1e-6)
    assert mean_probabilities(opposed)[1].item() == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("passes", "rate"), [(2, 0.5), (8, 0.1), (8, 0.5), (16, 0.3), (8, 0.95)])
def test_masks_have_mean_one_and_the_variance_of_dropout(passes, rate):
    masks = dropout_masks(passes, 20_000, rate, seed=1).numpy()
    np.testing.assert_allclose(masks.mean(0), 1, atol=1e-5)
    dropped = (masks == 0).sum(0)
    assert dropped.max() - dropped.min() <= 1  # strata
    if rate * passes <= passes - 1:
        assert (masks == 0).mean() == pytest.approx(rate, abs=0.01)
        # Independent masks of a kept scale 1 / (1 - p) have the variance p / (1 - p).
        assert masks.var(0).mean() == pytest.approx(rate / (1 - rate), rel=0.12)
    varied = masks[:, masks.std(0) > 0][:, :2000]
    shared = np.corrcoef(varied.T)  # units are independent of each other
    off = shared[~np.eye(len(shared), dtype=bool)]
    assert abs(off.mean()) < 0.02


def test_masks_follow_from_the_seed():
    assert torch.equal(dropout_masks(4, 64, 0.5, 3), dropout_masks(4, 64, 0.5, 3))
    assert not torch.equal(dropout_masks(4, 64, 0.5, 3), dropout_masks(4, 64, 0.5, 4))


@pytest.mark.slow
def test_passes_change_the_covariance_and_not_the_answer():
    once, often = dropout_network(), dropout_network(passes=8)
    images = random_batch(5)
    with torch.inference_mode():
        a, b = once(images), often(images)
        samples = {k: v for raw in often.raw(images).values() for k, v in raw.items()}
    assert set(b) == set(a) | {"mutual_information", "pose_spread"} == set(often.spec.outputs)
    np.testing.assert_allclose(samples["logit_samples"].mean(1), samples["logits"], atol=1e-4)
    np.testing.assert_allclose(b["position"], a["position"], atol=1e-4)
    assert torch.equal(a["known_score"], b["known_score"])
    assert torch.equal(a["descriptor"], b["descriptor"])
    assert (b["mutual_information"] > 0).all()
    total = b["pose_covariance"].double()
    assert torch.linalg.eigvalsh(total).min() > 0
    assert torch.linalg.eigvalsh(total - b["pose_spread"].double()).min() > 0
    spread = samples["position_samples"].var(1, correction=0)
    np.testing.assert_allclose(
        b["pose_spread"].diagonal(dim1=1, dim2=2)[:, :3], spread, rtol=1e-3, atol=1e-6
    )


@pytest.mark.slow
def test_spread_of_passes_agrees_with_many_independent_passes():
    network, images = dropout_network(rate=0.2), random_batch(4)
    with torch.inference_mode():
        features = network.forward_features(images)
    head = network.heads["pose"].train()
    torch.manual_seed(0)
    with torch.inference_mode():
        repeated = features["pose"][0].mean((2, 3)).repeat_interleave(1000, 0)
        draws = head(repeated)["position"].unflatten(0, (4, 1000))
    truth = draws.var(1).sum(1).sqrt()
    ratios = []
    for seed in range(20):
        head.eval().set_passes(8, seed)
        with torch.inference_mode():
            spread = head.decode(head(*features["pose"]))["pose_spread"]
        ratios.append(spread.diagonal(dim1=1, dim2=2)[:, :3].sum(1).sqrt() / truth)
    assert torch.stack(ratios).mean().item() == pytest.approx(1, abs=0.1)


def test_training_mode_makes_no_passes():
    network = dropout_network(passes=4).train()
    raw = network.raw(random_batch(2))
    assert not {"logit_samples", "position_samples"} & {
        word for own in raw.values() for word in own
    }


@pytest.mark.slow
def test_checkpoint_keeps_the_masks(tmp_path):
    network, images = dropout_network(passes=4), random_batch(3)
    save_network(network, tmp_path / "n.safetensors")
    again = load_network(tmp_path / "n.safetensors")
    assert again.spec == network.spec
    assert torch.equal(again.heads["pose"].masks, network.heads["pose"].masks)
    with torch.inference_mode():
        for name, value in network(images).items():
            torch.testing.assert_close(again(images)[name], value)


@pytest.mark.slow
def test_zero_passes_take_them_away():
    network = with_monte_carlo(dropout_network(passes=4), 0)
    assert network.spec.epistemic is None
    assert set(network(random_batch(2))) == set(dropout_network().spec.outputs)


@pytest.mark.slow
def test_head_without_dropout_is_refused_by_name():
    network = small_network(pose=PoseSpec(dropout=0.1, hidden=8), place=None)
    with pytest.raises(ConfigError, match=r"classifier head has dropout 0.*network\.classifier"):
        with_monte_carlo(network, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"passes": 1}, "from 2 to"), ({"passes": -1}, "from 2"), ({}, "several passes or several"),
     ({"members": 0}, "from 1 to"), ({"passes": 4, "seed": -1}, "seed")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EpistemicSpec(**settings)


@pytest.mark.slow
def test_spec_round_trip_and_place_alone_is_refused():
    spec = dropout_network(passes=8).spec
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert "epistemic" not in dropout_network().spec.to_dict()  # older versions read it
    with pytest.raises(ConfigError, match="network has none"):
        NetworkSpec(heads={"place": PlaceSpec()}, epistemic=EpistemicSpec(4))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("epistemic")
    return export_bundle(dropout_network(passes=8), folder / "b", "b", photographs())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino", "torch"])
def test_engines_agree_and_repeat_themselves(bundle, engine):
    if engine != "torch":
        pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    images = random_batch(3).numpy()
    reference = create_engine(bundle, "onnx", "cpu", "float32", 1).run(images)
    run = create_engine(bundle, engine, "cpu", "float32", 1)
    first, second = run.run(images), run.run(images)
    for name, value in reference.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(first[name], value, atol=2e-3 * scale, err_msg=name)
        np.testing.assert_array_equal(first[name], second[name])
    run.close()


def test_pipeline_gives_information_and_spread(bundle):
    with Pipeline.load(bundle.path, "onnx", "cpu", threads=1) as pipeline:
        (found,) = pipeline(photographs()[:1])
    assert found["classifier"].mutual_information > 0
    assert found["classifier"].entropy == pytest.approx(
        scipy_entropy(found["classifier"].probabilities), rel=1e-5
    )
    assert np.trace(found["pose"].spread) > 0
    assert np.linalg.eigvalsh(found["pose"].covariance - found["pose"].spread).min() > 0
    assert dataclasses.replace(found["pose"], spread=None).spread is None


@pytest.mark.slow
def test_export_adds_passes_says_what_they_cost_and_takes_them_away(tmp_path, capsys):
    save_network(dropout_network(), tmp_path / "n.safetensors")
    command = ["export", str(tmp_path / "n.safetensors"), "--out"]
    assert main([*command, str(tmp_path / "many"), "--monte-carlo", "8"]) == 0
    assert re.search(r"8 answers per image cost \d+\.\d\d times one", capsys.readouterr().out)
    many = tmp_path / "many"
    assert ModelBundle.load(many).spec.epistemic == EpistemicSpec(8)
    assert "dropout passes 8" in (many / "README.md").read_text()
    again = ["export", str(many / "weights.safetensors"), "--out", str(tmp_path / "once")]
    assert main([*again, "--monte-carlo", "0"]) == 0
    assert ModelBundle.load(tmp_path / "once").spec.epistemic is None


@pytest.mark.slow
def test_export_of_a_head_without_dropout_is_refused_in_a_line(tmp_path, capsys):
    save_network(small_network(place=None), tmp_path / "n.safetensors")
    words = ["export", str(tmp_path / "n.safetensors"), "--out", str(tmp_path / "b")]
    assert main([*words, "--monte-carlo", "8"]) == 2
    assert "classifier head has dropout 0" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
