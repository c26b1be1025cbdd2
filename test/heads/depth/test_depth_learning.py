"""The depth head's loss against a transcription, its module, and the factor of its uncertainty."""

import dataclasses

import numpy as np
import pytest

from robot_vision.contract.calibration import Fit
from robot_vision.contract.training import DataFacts
from robot_vision.errors import ConfigError
from robot_vision.heads.depth.answer import REACH
from robot_vision.heads.depth.evaluation import HALF
from robot_vision.heads.depth.head import HEAD
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.settings.declared import check_declared
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.settings import BootstrapSettings

SHAPES = [(8, 16, 20), (12, 8, 10), (16, 4, 5)]
SPEC = DepthSpec(minimum=0.5, maximum=8.0, strides=(4, 8, 16), channels=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minimum": 0}, "depth range"),
        ({"minimum": 3, "maximum": 2}, "depth range"),
        ({"size": (60,)}, "depth size"),
        ({"size": (60, 0)}, "depth size"),
        ({"strides": (8, 4)}, "depth strides"),
        ({"strides": ()}, "depth strides"),
        ({"channels": 4}, "depth channels"),
    ],
)
def test_settings_that_make_no_head_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DepthSpec(**settings)


# Loss


def transcribed(said, log_sigma, true, invariance, gradient, likelihood):
    """The loss image by image and pixel by pixel, as the papers write it."""
    totals = []
    for y, s, t in zip(said, log_sigma, true, strict=True):
        known = np.isfinite(t)
        if not known.any():
            continue
        d = np.where(known, y - np.log(np.where(known, t, 1.0)), np.nan)
        n = known.sum()
        value = np.nansum(d**2) / n - invariance * (np.nansum(d) / n) ** 2
        for axis in (0, 1):
            step = np.diff(d, axis=axis)
            if np.isfinite(step).any():
                value += gradient * np.nanmean(step**2)
        value += likelihood * np.nanmean(np.sqrt(2) * np.abs(d) / np.exp(s) + s)
        totals.append(value)
    return np.mean(totals)


@pytest.mark.parametrize("weights", [(0.5, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.3, 2.0)])
def test_loss_is_that_of_the_papers(weights):
    torch = pytest.importorskip("torch")
    from robot_vision.heads.depth.loss import DepthLoss

    rng = np.random.default_rng(0)
    said, log_sigma = rng.normal(0.5, 0.4, (4, 9, 11)), rng.normal(-1, 0.5, (4, 9, 11))
    true = np.exp(rng.normal(0.5, 0.4, said.shape))
    true[rng.random(true.shape) < 0.3] = np.nan
    true[2] = np.nan
    names = ("invariance", "gradient", "likelihood")
    loss = DepthLoss(**dict(zip(names, weights, strict=True)))
    raw = {"log_depth": torch.tensor(said), "log_sigma": torch.tensor(log_sigma)}
    found = loss(raw, {"image:depth": torch.tensor(true)})
    assert float(found.total) == pytest.approx(transcribed(said, log_sigma, true, *weights))


def test_truth_out_of_range_and_where_there_is_none_has_no_gradient():
    torch = pytest.importorskip("torch")
    from robot_vision.heads.depth.loss import DepthLoss

    true = torch.full((1, 6, 8), 2.0)
    true[0, 0, 0], true[0, 1, :], true[0, 2, :], true[0, 3, :] = torch.nan, 0.1, 20.0, 0.0
    raw = {name: torch.rand(1, 6, 8, requires_grad=True) for name in ("log_depth", "log_sigma")}
    DepthLoss(0.5, 8.0)(raw, {"image:depth": true}).total.backward()
    learned = (true >= 0.5) & (true <= 8.0)
    for value in raw.values():
        assert torch.isfinite(value.grad).all()
        np.testing.assert_array_equal(value.grad != 0, learned)


def test_a_wrong_scale_of_the_image_is_forgiven_as_the_setting_says():
    torch = pytest.importorskip("torch")
    from robot_vision.heads.depth.loss import DepthLoss

    true = torch.rand(2, 6, 8) + 1
    raw = {"log_depth": true.log() + 0.3, "log_sigma": torch.zeros(2, 6, 8)}
    found = {
        share: float(
            DepthLoss(invariance=share).forward(raw, {"image:depth": true}).parts["scale_invariant"]
        )
        for share in (0.0, 0.5, 1.0)
    }
    assert [found[s] for s in (0.0, 0.5, 1.0)] == pytest.approx([0.09, 0.045, 0.0], abs=1e-6)


@pytest.mark.parametrize("settings", [{"invariance": 2}, {"gradient": -1}, {"likelihood": np.inf}])
def test_wrong_settings_of_the_loss_are_refused(settings):
    pytest.importorskip("torch")
    from robot_vision.heads.depth.loss import DepthLoss

    with pytest.raises(ConfigError, match=f"depth loss: {next(iter(settings))} is"):
        DepthLoss(**settings)


# Module


def module_of(decoder, spec=SPEC):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch, HEAD.trainer().module(dataclasses.replace(spec, decoder=decoder), SHAPES).eval()


def test_trains_the_light_decoder_unless_another_is_asked_for():
    facts = DataFacts(input=(64, 80))
    assert HEAD.trainer().spec({}, facts).decoder == "folded"
    assert HEAD.trainer().spec({"decoder": "pyramid"}, facts).decoder == "pyramid"
    assert DepthSpec().decoder == "pyramid"  # what bundles have from before decoders had names
    with pytest.raises(ConfigError, match="Unknown depth decoder 'unet'"):
        DepthSpec(decoder="unet")


@pytest.mark.parametrize("decoder", ["folded", "pyramid"])
def test_module_says_metres_within_its_range_from_the_statistics_on(decoder):
    torch, module = module_of(decoder)
    module.set_statistics(np.log(2.0), 0.4)
    maps = [torch.randn(3, *shape) for shape in SHAPES]
    raw = {word: value.detach() for word, value in module(*maps).items()}
    assert raw["log_depth"].shape == raw["log_sigma"].shape == (3, 16, 20)
    said = module.decode(raw)
    assert abs(float(said["depth"].log().mean()) - np.log(2.0)) < 0.4
    far = module.decode({"log_depth": torch.tensor([-9.0, 0.0, 9.0]), "log_sigma": torch.zeros(3)})
    np.testing.assert_allclose(far["depth"], [0.5, 1.0, 8.0], rtol=1e-6)
    module.constants["scale"].fill_(3.0)
    np.testing.assert_allclose(
        module.decode(raw)["depth_sigma"], 3 * said["depth_sigma"], rtol=1e-6
    )


@pytest.mark.parametrize("decoder", ["folded", "pyramid"])
def test_module_answers_in_the_size_that_is_asked_for(decoder):
    torch, module = module_of(decoder, DepthSpec(size=(30, 40), strides=(4, 8, 16), channels=8))
    raw = module(*(torch.randn(2, *shape) for shape in SHAPES))
    assert raw["log_depth"].shape == (2, 30, 40)


@pytest.mark.parametrize("decoder", ["folded", "pyramid"])
def test_every_map_reaches_the_answer(decoder):
    torch, module = module_of(decoder)
    maps = [torch.randn(1, *shape, requires_grad=True) for shape in SHAPES]
    module(*maps)["log_depth"].sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)


# The factor of the uncertainty


def material(head, factor, images=60, seed=0, constant=1.0):
    """Returns what a fit is given, of a head whose sigma is `factor` times too small."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(1.0, 6.0, (images, 12, 16)).astype(np.float32)
    sigma = rng.uniform(0.03, 0.2, true.shape).astype(np.float32)
    said = true * np.exp(sigma * rng.normal(size=true.shape))
    true[rng.random(true.shape) < 0.2] = np.nan
    truth = [None if i % 7 == 6 else image for i, image in enumerate(true)]
    outputs = {"depth": said, "depth_sigma": sigma / factor}
    stamps = np.arange(images) * 10**8
    return Fit(
        spec=SPEC,
        outputs={head.key(word): value.astype(np.float32) for word, value in outputs.items()},
        truth=truth,
        folds=np.arange(images) // 5 % 5,
        units=np.arange(images),
        blocks=np.arange(images) // 10,
        constants={"scale": np.float32(constant)},
        resampler=Resampler(stamps, [(0, images)], BootstrapSettings(resamples=50)),
        times=lambda gap: stamps,
    )


@pytest.mark.parametrize(("factor", "constant"), [(2.5, 1.0), (0.4, 3.0)])
def test_factor_of_sigma_is_found_and_its_intervals_hold_what_they_say(factor, constant):
    given = material(HEAD, factor, constant=constant)
    found = HEAD.fitter().fit("depth", given, None)
    assert found.values["scale"] == pytest.approx(factor, rel=0.03)
    assert found.constants["scale"] == pytest.approx(constant * factor, rel=0.03)
    assert not found.left and found.images == 52
    assert found.after["coverage_90"]["value"] == pytest.approx(0.9, abs=0.01)
    assert found.after["coverage_50"]["value"] == pytest.approx(0.5, abs=0.02)
    assert abs(found.before["coverage_90"]["value"] - 0.9) > 0.05
    scaled = found.expected["depth_sigma"] / given.outputs["depth_sigma"]
    np.testing.assert_allclose(scaled, found.values["scale"], rtol=1e-5)
    tuned = HEAD.fitter().tune(given)
    assert tuned.constants["scale"] == pytest.approx(float(found.constants["scale"]))


@pytest.mark.slow
def test_intervals_hold_of_one_more_block_what_they_say():
    """Pixels of a block err alike: what holds 90 percent of five such blocks holds less of another."""
    rng = np.random.default_rng(0)

    def blocks(count):
        return np.exp(0.5 * rng.normal(size=count))

    others, pooled, found = blocks(2000), [], []
    z = np.abs(rng.normal(size=200))

    def held(scale):
        return np.mean([(z * own <= REACH * scale).mean() for own in others])

    for _ in range(60):
        given = material(HEAD, 1.0, images=25)
        given.blocks = np.arange(25) // 5
        own = blocks(5)[given.blocks]
        given.truth = [
            None if true is None else said * np.exp(np.log(true / said) * factor)
            for true, said, factor in zip(given.truth, given.outputs["depth"], own, strict=True)
        ]
        alone = dataclasses.replace(given, blocks=np.zeros(25, int))
        pooled.append(held(HEAD.fitter().tune(alone).constants["scale"]))
        found.append(held(HEAD.fitter().tune(given).constants["scale"]))
    assert np.mean(pooled) < 0.885
    assert 0.89 < np.mean(found) < 0.92


def test_coverage_of_an_unscaled_sigma_is_that_of_its_pixels():
    given = material(HEAD, 2.5)
    found = HEAD.fitter().fit("depth", given, None).before
    each = []
    for i, true in enumerate(given.truth):
        if true is not None:
            k = np.isfinite(true)
            z = (
                np.abs(np.log(given.outputs["depth"][i][k] / true[k]))
                / given.outputs["depth_sigma"][i][k]
            )
            each.append([(z <= REACH).mean(), (z <= HALF).mean()])
    wanted = np.mean(each, axis=0)
    assert found["coverage_90"]["value"] == pytest.approx(wanted[0], abs=1e-4)
    assert found["coverage_50"]["value"] == pytest.approx(wanted[1], abs=1e-4)


def test_what_is_true_already_is_left_or_hardly_moved_and_few_images_are_refused():
    found = HEAD.fitter().fit("depth", material(HEAD, 1.0), None)
    assert found.left or found.values["scale"] == pytest.approx(1.0, rel=0.03)
    with pytest.raises(ConfigError, match="17 images with true depths are too few.*20"):
        HEAD.fitter().fit("depth", material(HEAD, 1.0, images=19), None)


def test_without_a_true_depth_within_the_range_sigma_stays_as_it_is():
    given = material(HEAD, 2.5)
    far = [None if true is None else true + 100 for true in given.truth]
    found = HEAD.fitter().tune(dataclasses.replace(given, truth=far))
    assert "no image has a true depth" in found.left and not found.constants


@pytest.mark.parametrize("given", [{}, {"folds": 6, "fold_block": 25}])
def test_settings_of_its_training_are_checked_as_they_are(given):
    settings = HEAD.trainer().Settings(**given)
    check_declared("depth", settings)
    for name, wrong in (("folds", 1), ("fold_block", 0)):
        with pytest.raises(ConfigError, match=f"depth.{name} is {wrong}"):
            check_declared("depth", dataclasses.replace(settings, **{name: wrong}))
