"""Ensembles of heads on one backbone: what they compute, how they are trained, calibrated and exported."""

import numpy as np
import pytest
from network_helpers import random_batch, small_network, torch
from train_data import configuration, make_labelled, make_posed

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.heads.pose.variance_scales import BOTH, fit_variance_scales
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.ensemble import with_members, with_monte_carlo
from robot_vision.pipeline import Pipeline
from robot_vision.training.fit.ensemble import bootstrap, draws_samples
from robot_vision.training.run import train

TAP = "layer2"
SPECS = {
    "classifier": ClassifierSpec(("a", "b", "c"), tap=TAP, dropout=0.2, temperature=1.7),
    "pose": PoseSpec(tap=TAP, hidden=16, dropout=0.2),
    "place": PlaceSpec(tap=TAP, clusters=4),
}


def three_members():
    singles = [small_network(seed, **SPECS) for seed in range(3)]
    for single in singles[1:]:  # one backbone
        single.backbone.load_state_dict(singles[0].backbone.state_dict())
    whole = with_members(singles[0], [dict(single.heads) for single in singles[1:]])
    return singles, whole


@pytest.mark.slow
def test_ensemble_is_the_mean_of_its_members():
    singles, whole = three_members()
    images = random_batch(4)
    with torch.inference_mode():
        found = whole(images)
        each = [single(images) for single in singles]
    mean = torch.stack([e["probabilities"] for e in each]).mean(0)
    np.testing.assert_allclose(found["probabilities"], mean, atol=1e-6)
    positions = torch.stack([e["position"] for e in each])
    np.testing.assert_allclose(found["position"], positions.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        found["pose_spread"].diagonal(dim1=1, dim2=2)[:, :3],
        positions.var(0, correction=0), rtol=1e-3, atol=1e-6,
    )  # fmt: skip
    assert (found["mutual_information"] > 0).all()
    assert torch.equal(found["descriptor"], each[0]["descriptor"])


def test_equal_members_say_what_one_says_and_do_not_disagree():
    single = small_network(0, **SPECS)
    whole = with_members(single, [dict(single.heads)] * 2)
    images = random_batch(3)
    with torch.inference_mode():
        found, alone = whole(images), single(images)
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5, err_msg=name)
    assert found["mutual_information"].max() < 1e-6
    assert found["pose_spread"].abs().max() < 1e-6


@pytest.mark.slow
def test_members_and_passes_combine_and_survive_a_checkpoint(tmp_path):
    _, whole = three_members()
    both = with_monte_carlo(whole, 4, seed=5)
    assert both.spec.epistemic.samples == 12
    images = random_batch(3)
    with torch.inference_mode():
        raw, expected = both.raw(images)["classifier"], both(images)
    assert raw["logit_samples"].shape == (3, 12, 3)
    # Masks differ from member to member, and heads keep their weights.
    masks = [head.masks for head in both.every("pose")]
    assert not torch.equal(masks[0], masks[1])
    with torch.inference_mode():
        np.testing.assert_allclose(
            raw["logits"], whole.raw(images)["classifier"]["logits"], atol=1e-6
        )  # fmt: skip
    save_network(both, tmp_path / "n.safetensors")
    again = load_network(tmp_path / "n.safetensors")
    with torch.inference_mode():
        for name, value in again(images).items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.slow
def test_calibration_reaches_every_member():
    _, whole = three_members()
    images = random_batch(3)
    with torch.inference_mode():
        before = whole(images)
        root = torch.tensor([2.0, 2, 2, 3, 3, 3])
        whole.heads["pose"].constants["covariance_factor"].copy_(torch.outer(root, root))
        after = whole(images)
    inside = before["pose_covariance"] - before["pose_spread"]
    scaled = after["pose_covariance"] - after["pose_spread"]
    ratio = (scaled / inside.clamp(min=1e-12)).diagonal(dim1=1, dim2=2)
    np.testing.assert_allclose(ratio[:, :3], 4, rtol=1e-2)
    np.testing.assert_allclose(ratio[:, 3:], 9, rtol=1e-2)


@pytest.mark.slow
def test_variance_scales_leave_the_spread_as_it_is():
    random = np.random.default_rng(0)
    inside, spread = np.full(6, 0.01), np.full(6, 0.03)
    errors = random.normal(0, np.sqrt(4 * inside + spread), (20_000, 6))
    covariance = np.tile(np.diag(inside + spread), (len(errors), 1, 1))
    fixed = np.tile(np.diag(spread), (len(errors), 1, 1))
    found = fit_variance_scales(errors, covariance, BOTH, fixed=fixed)
    np.testing.assert_allclose(found, 4, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("answers_differ", [False, True])
def test_variance_scales_of_blocks_are_right_for_blocks_not_seen(answers_differ):
    """Blocks whose errors are large or small together: six of them are far fewer than 300 frames."""
    random = np.random.default_rng(0)

    def blocks(count):
        large = 1 / random.gamma(4, 1 / 4, count)  # variance of each block, alike within
        return random.normal(0, np.sqrt(np.repeat(large, 50))[:, None], (count * 50, 6))

    def covariances(count):
        return np.tile(np.eye(6), (count, 1, 1))

    unseen = blocks(4000)
    nees = {False: [], True: []}
    for _ in range(25 if answers_differ else 200):
        seen = blocks(6)
        spread = 0.01 * covariances(300) if answers_differ else None
        for by_block, found in nees.items():
            block = np.arange(300) // 50 if by_block else None
            scales = fit_variance_scales(seen, covariances(300), BOTH, block, spread)
            found.append(float((unseen[:, :3] ** 2).mean()) / scales[0])
    assert np.mean(nees[False]) > 1.05
    assert abs(np.mean(nees[True]) - 1) < np.mean(nees[False]) - 1


def test_bootstrap_draws_whole_stretches_again_and_again():
    index = bootstrap(503, 50, seed=3)
    assert torch.equal(index, bootstrap(503, 50, seed=3))
    runs = np.split(index.numpy(), np.flatnonzero(np.diff(index.numpy()) != 1) + 1)
    starts = {int(run[0]) % 50 for run in runs}
    assert starts == {0}
    singles = bootstrap(20_000, 1, seed=4)
    assert len(singles.unique()) / 20_000 == pytest.approx(1 - np.exp(-1), abs=0.01)


@pytest.mark.parametrize(
    ("heads", "settings", "pose", "expected"),
    [
        (["classifier"], {}, {}, True),
        (["pose"], {}, {}, False),
        (["classifier", "pose"], {}, {}, False),
        (["pose"], {"bootstrap": True}, {}, True),
        (["pose"], {"bootstrap": True}, {"clips": 3}, False),
        (["classifier"], {"bootstrap": False}, {}, False),
    ],
)
def test_images_are_sampled_where_a_linear_head_is_trained(
    tmp_path, heads, settings, pose, expected
):
    epistemic = {"members": 3, **settings}
    config = configuration(
        "seven_scenes", tmp_path, tmp_path, heads=heads, epistemic=epistemic, pose=pose
    )
    assert draws_samples(config) is expected


def test_epistemic_of_places_alone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="classifier and pose heads"):
        configuration("seven_scenes", tmp_path, tmp_path, heads=["place"], epistemic={"members": 3})


@pytest.mark.slow
def test_trained_ensemble_ships_and_its_members_differ(tmp_path):
    data = make_labelled(tmp_path / "data")
    config = configuration(
        "image_folder",
        data,
        tmp_path / "run",
        network={"classifier": {"dropout": 0.2}},
        epistemic={"members": 3, "passes": 4},
    )
    result = train(config, quiet=True, command="test")
    bundle = ModelBundle.load(result.bundle)
    assert bundle.spec.epistemic.members == 3
    network = load_network(result.bundle / "weights.safetensors")
    weights = [head.linear.weight for head in network.every("classifier")]
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)
    assert not torch.allclose(weights[1], weights[2], atol=1e-3)
    picture = np.full((40, 40, 3), (40, 60, 200), np.uint8)
    with Pipeline.load(result.bundle, "onnx", "cpu", threads=1) as pipeline:
        (found,) = pipeline([picture])
    assert found["classifier"].mutual_information > 0
    # What ships was measured with its several answers.
    assert result.report["variants"]["float32"]["metrics"]["classifier"]["images"] == 18


@pytest.mark.slow
def test_pose_ensemble_resumes_and_is_calibrated_on_its_folds(tmp_path):
    data = make_posed(tmp_path / "data", 100)
    config = configuration(
        "seven_scenes",
        data,
        tmp_path / "run",
        heads=["pose"],
        data={"options": {"split": "blocks", "validation": 0}},
        network={"freeze": ["all"], "pose": {"hidden": 32}},
        pose={"folds": 2},
        loop={"epochs": 1},
        epistemic={"members": 2},
    )
    result = train(config, quiet=True, command="test")
    assert "held out" in result.report["calibration"]["pose"]["on"]
    first = (result.bundle / "model.onnx").read_bytes()
    again = train(config, resume=True, quiet=True, command="test")
    assert (again.bundle / "model.onnx").read_bytes() == first
