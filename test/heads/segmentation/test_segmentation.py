"""Segmentation: decoders, losses, measures, messages; and from label images to topics in a running node."""

import dataclasses
import math

import numpy as np
import pytest

from robot_vision.contract import registry
from robot_vision.contract.calibration import FOLDS, Fit
from robot_vision.errors import ConfigError
from robot_vision.heads.segmentation import evaluation
from robot_vision.heads.segmentation.drawing import palette
from robot_vision.heads.segmentation.fitting import thinned, thinning
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.settings import BootstrapSettings

HEAD = registry.head("segmentation")
LABELS = ("floor", "wall", "door", "person")


def spec(**settings):
    return HEAD.Spec(LABELS, **{"height": 12, "width": 16, **settings})


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ("floor",)}, "number of labels is 1: it must be from 2 to 255"),
        ({"labels": tuple(map(str, range(256)))}, "number of labels is 256"),
        ({"labels": ("a", "a")}, "all different"),
        ({"decoder": "fcn8"}, "did you mean 'fcn8s'"),
        ({"stride": 3}, "stride is 3: it must be 1, 2, 4 or 8"),
        ({"coarsest": 2}, "coarsest stride of lraspp is 2: it must be 32 or 16 or 8 or 4"),
        ({"coarsest": 4, "stride": 8}, "not below the answer's"),
        ({"coarsest": 16, "decoder": "fcn8s"}, "coarsest stride of fcn8s is 16: it must be 32"),
        ({"colours": ("#ff0000",)}, "none, or 4"),
        ({"colours": ("red", *["#ff0000"] * 3)}, "such as #804080"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        HEAD.Spec(**{"labels": LABELS, **settings})


def test_coarse_maps_of_a_backbone_that_is_cut_short_are_not_read():
    assert spec(coarsest=16).strides == (16, 8, 4)
    assert spec(coarsest=16, stride=8).strides == (16, 8)
    assert spec().strides == (32, 16, 8, 4)


def test_colours_are_those_given_or_follow_from_the_name():
    given = palette(spec(colours=("#000000", "#804020", "#0000ff", "#ffffff")))
    assert given[:4].tolist() == [[0, 0, 0], [128, 64, 32], [0, 0, 255], [255, 255, 255]]
    mine, others = palette(spec()), palette(HEAD.Spec(("sky", *LABELS[::-1])))
    np.testing.assert_array_equal(others[1:5][::-1], mine[:4])
    assert len({tuple(c) for c in mine[:4].tolist()}) == 4 and not mine[255].any()


# Decoders

MAPS = {32: (24, 2, 3), 16: (16, 4, 5), 8: (12, 7, 9), 4: (8, 13, 18)}  # odd sizes too


def decoder(name, **settings):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    own = spec(decoder=name, **settings)
    shapes = [MAPS[stride] for stride in own.strides]
    module = HEAD.trainer().module(own, shapes)
    return torch, module, [torch.randn(2, *shape) for shape in shapes]


@pytest.mark.parametrize("name", ["lraspp", "fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_every_decoder_gives_the_most_probable_class_of_each_pixel(name, stride):
    size = {"height": 52 // stride, "width": 72 // stride}
    torch, module, maps = decoder(name, stride=stride, **size)
    module.eval()
    raw = module(*maps)
    said = module.decode(raw)
    assert raw["logits"].shape == (2, 4, *size.values())
    probabilities = torch.softmax(raw["logits"], dim=1).detach().numpy()
    np.testing.assert_array_equal(said["class_ids"], probabilities.argmax(axis=1))
    sure = said["class_confidence"].numpy()
    assert sure.dtype == np.uint8
    assert np.abs(sure - 255 * probabilities.max(axis=1)).max() <= 0.5 + 1e-3


def test_temperature_moves_the_confidence_and_no_class():
    torch, module, maps = decoder("lraspp")
    module.eval()
    raw = module(*maps)
    before = module.decode(raw)
    module.constants["temperature"].fill_(3.0)
    after = module.decode(raw)
    assert torch.equal(before["class_ids"], after["class_ids"])
    expected = torch.softmax(raw["logits"] / 3, dim=1).amax(dim=1)
    np.testing.assert_allclose(after["class_confidence"] / 255, expected.detach(), atol=0.003)


def test_a_head_without_confidence_says_no_confidence():
    _, module, maps = decoder("lraspp", confidence=False)
    assert set(module.decode(module(*maps))) == {"class_ids"}
    assert set(HEAD.outputs(spec(confidence=False), None)) == {"class_ids"}


def test_transposed_convolution_starts_as_bilinear_interpolation():
    torch = pytest.importorskip("torch")
    from robot_vision.heads.segmentation.network import Doubled

    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    np.testing.assert_allclose(Doubled(3)(x).detach(), wanted, atol=1e-6)


def test_finer_fcn_starts_from_what_the_coarsest_map_says():
    """Scores of finer maps start at zero (Long et al. 2015, section 4.2)."""
    torch, fine, _ = decoder("fcn8s", stride=8, height=8, width=12)
    maps = [torch.randn(1, MAPS[s][0], 64 // s, 96 // s) for s in (32, 16, 8)]
    fine.eval()
    wanted = fine.decoder.scores[0](maps[0])
    for _ in range(2):
        wanted = torch.nn.functional.interpolate(wanted, scale_factor=2, mode="bilinear")
    np.testing.assert_allclose(fine(*maps)["logits"].detach(), wanted.detach(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lraspp", "fcn32s", "fcn16s", "fcn8s"])
def test_graph_of_every_decoder_says_what_torch_says_at_odd_sizes(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.images.input import InputSpec
    from robot_vision.networks.export import export_graph
    from robot_vision.networks.network import MultiHeadNetwork
    from robot_vision.networks.verification import verify_graph

    own = spec(decoder=name, height=17, width=25)
    size = InputSpec(67, 99)
    network = MultiHeadNetwork(NetworkSpec("shufflenet_v2_x0_5", size, {"segmentation": own}))
    for score in network.modules():  # scores of finer maps start at zero
        if isinstance(score, torch.nn.Conv2d) and score.out_channels == len(LABELS):
            torch.nn.init.normal_(score.weight)
    images = np.random.default_rng(0).integers(0, 256, (3, 67, 99, 3), np.uint8)
    network.eval()
    assert verify_graph(network, export_graph(network, images), images)["class_ids"] < 0.001


# Losses


def batch(seed=0, unknown=0.2):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 6, 5, generator=generator, requires_grad=True)
    true = torch.randint(0, 4, (3, 6, 5), generator=generator)
    true[torch.rand(true.shape, generator=generator) < unknown] = 255
    return torch, {"logits": logits}, {"image:segmentation": true.to(torch.uint8)}


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 4.0)])
def test_cross_entropy_is_the_mean_over_pixels_with_a_truth(weights):
    _, raw, truth = batch()
    loss = HEAD.trainer().make_loss("cross_entropy", class_weights=weights)
    z = raw["logits"].detach().numpy().astype(np.float64).transpose(0, 2, 3, 1)
    true = truth["image:segmentation"].numpy()
    known = true != 255
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    w = np.ones(4) if weights is None else np.array(weights)
    each = -log_p[known][np.arange(known.sum()), true[known]]
    expected = (w[true[known]] * each).sum() / w[true[known]].sum()
    value = loss(raw, truth)
    assert float(value.total.detach()) == pytest.approx(expected, rel=1e-5)
    value.total.backward()
    gradient = raw["logits"].grad.abs().sum(dim=1).numpy()
    assert (gradient[~known] == 0).all() and (gradient[known] > 0).all()


def test_dice_is_one_less_the_overlap_of_the_classes_that_are_there():
    _, raw, truth = batch()
    true = truth["image:segmentation"]
    true[true == 2] = 255  # a class that the batch lacks
    p = np.exp(raw["logits"].detach().numpy().astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    known = true.numpy() != 255
    scores = []
    for k in (0, 1, 3):
        t = (true.numpy() == k)[known]
        mine = p[:, k][known]
        scores.append(2 * (mine * t).sum() / (mine.sum() + t.sum()))
    value = HEAD.trainer().make_loss("dice", cross_entropy=0.0)(raw, truth)
    assert float(value.total.detach()) == pytest.approx(1 - np.mean(scores), rel=1e-5)
    both = HEAD.trainer().make_loss("dice", cross_entropy=0.5)(raw, truth)
    entropy = HEAD.trainer().make_loss("cross_entropy")(raw, truth)
    wanted = value.total + 0.5 * entropy.total
    assert float(both.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)


@pytest.mark.parametrize("rule", ["log", "sqrt_inverse", "inverse"])
def test_weights_of_classes_have_the_mean_one_over_the_pixels(rule):
    pytest.importorskip("torch")
    from robot_vision.heads.segmentation.loss import class_weights

    pixels = np.array([900, 90, 10, 0])
    weights = class_weights(pixels.tolist(), rule)
    assert (np.array(weights) * pixels).sum() / pixels.sum() == pytest.approx(1)
    share = pixels[:3] / 1000
    wanted = {"log": 1 / np.log(1.02 + share), "sqrt_inverse": share**-0.5, "inverse": 1 / share}
    np.testing.assert_allclose(weights[2] / weights[0], wanted[rule][2] / wanted[rule][0])
    assert weights[3] == 1


# Measures


def masks(seed=0, frames=6, size=(30, 40), classes=4):
    """Returns true ids of blobs with unknown pixels, said ids that are shifted and noisy, and confidence."""
    import cv2

    rng = np.random.default_rng(seed)
    true = np.zeros((frames, *size), np.uint8)
    for image in true:
        noise = cv2.GaussianBlur(rng.normal(size=(classes, *size)).transpose(1, 2, 0), (0, 0), 4)
        image[:] = noise.argmax(axis=2)
    said = np.roll(true, 1, axis=2)
    noisy = rng.random(said.shape) < 0.1
    said[noisy] = rng.integers(0, classes, noisy.sum())
    true[rng.random(true.shape) < 0.05] = 255
    sure = np.clip(255 * rng.beta(5, 2, said.shape), 0, 255).astype(np.uint8)
    return said, true, sure


def sums_of(said, true, count=4):
    rows = [evaluation.frame_sums(s, t, count) for s, t in zip(said, true, strict=True)]
    return {word: np.array([row[word] for row in rows], float) for word in evaluation.COUNTS}


def test_measures_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    said, true, _ = masks()
    (found,) = (
        dict(zip(names, statistic(np.ones((1, len(said))))[0], strict=True))
        for names, statistic in evaluation.statistics(sums_of(said, true)).items()
    )
    known = true != 255
    y, x = true[known], said[known]
    iou = metrics.jaccard_score(y, x, average=None)
    assert found["mean_iou"] == pytest.approx(iou.mean())
    assert found["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(y, x))
    assert found["mean_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, x))
    weighted = metrics.jaccard_score(y, x, average="weighted")
    assert found["frequency_weighted_iou"] == pytest.approx(weighted)
    each = evaluation.class_statistics(sums_of(said, true))
    (names, statistic), *_ = each.items()
    by_class = dict(zip(names, statistic(np.ones((1, len(said))))[0], strict=True))
    for k in range(4):
        assert by_class[f"iou.{k}"] == pytest.approx(iou[k])
    np.testing.assert_allclose(
        [by_class[f"precision.{k}"] for k in range(4)],
        metrics.precision_score(y, x, average=None),
    )


def test_a_class_that_neither_occurs_nor_is_said_does_not_count():
    said, true = np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)
    true[0, 0] = 1
    (statistic,) = evaluation.statistics(sums_of(said, true)).values()
    mean_iou, accuracy, mean_accuracy, *_ = statistic(np.ones((1, 1)))[0]
    assert mean_iou == pytest.approx((12 / 16 + 0) / 2) and accuracy == 0.75
    assert mean_accuracy == 0.5


def test_truth_of_other_classes_is_counted_and_not_scored():
    said = np.zeros((2, 4), np.uint8)
    true = np.array([[0, 1, 7, 255], [0, 0, 9, 9]], np.uint8)
    found = evaluation.frame_sums(said, true, 2)
    assert (found["pixels"], found["other_pixels"]) == (4, 3)
    assert found["true"].tolist() == [3, 1] and found["hit"].tolist() == [3, 0]
    nothing = evaluation.frame_sums(np.full((2, 4), 255, np.uint8), true, 2)
    assert nothing["said"].tolist() == [0, 0] and nothing["pixels"] == 4


def test_boundary_score_agrees_with_distances_of_pixels():
    """Csurka et al. 2013, with the boundaries' pixels counted over all frames."""
    distance = pytest.importorskip("scipy.ndimage").distance_transform_edt
    said, true, _ = masks(size=(60, 80))
    found = sums_of(said, true)
    reach = max(1, round(0.0075 * math.hypot(60, 80)))

    def boundary(ids, k, known):
        edge = np.zeros(ids.shape, bool)
        for (i, j), value in np.ndenumerate(ids):
            if value != k or not known[i, j]:
                continue
            for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= a < ids.shape[0] and 0 <= b < ids.shape[1] and known[a, b]:
                    edge[i, j] |= ids[a, b] != k
        return edge

    for frame in range(2):
        known = true[frame] != 255
        for k in range(4):
            a, b = (boundary(ids[frame], k, known) for ids in (said, true))
            assert found["said_edge"][frame, k] == a.sum()
            assert found["true_edge"][frame, k] == b.sum()
            near = (a & (distance(~b) <= reach + 1e-9)).sum() if b.any() else 0
            assert found["said_near"][frame, k] == pytest.approx(near, abs=0)


def test_calibration_error_is_that_of_all_pixels():
    torch = pytest.importorskip("torch")
    calibration = pytest.importorskip("torchmetrics.functional.classification")
    said, true, sure = masks()
    rows = [
        evaluation.confidence_sums(c, s, t, 4) for c, s, t in zip(sure, said, true, strict=True)
    ]
    sums = {word: np.array([row[word] for row in rows]) for word in evaluation.BIN_SUMS}
    (found,) = evaluation.calibration_error(sums)(np.ones((1, len(said))))
    known = true != 255
    right = torch.from_numpy((said == true)[known].astype(np.int64))
    confidence = torch.from_numpy(sure[known] / 255)
    # A binary one of "this is right" has the same bins and the same gaps.
    wanted = calibration.binary_calibration_error(confidence, right, n_bins=15)
    assert found == pytest.approx(float(wanted), abs=1e-6)


# Calibration


def pixels_to_fit_on(sharpness, images=40, seed=0):
    """Returns logits that are too sharp by a factor, thinned, and true ids drawn by the right ones."""
    own = spec(height=48, width=64)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, 4, 48, 64)) + 2 * rng.normal(size=(images, 4, 1, 1))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = (p.cumsum(axis=1) < rng.random((images, 1, 48, 64))).sum(axis=1).clip(max=3)
    true = [image.astype(np.uint8) for image in drawn]
    for image in true:
        image[:5] = 255
    true[3] = None
    step = thinning(own.size)
    stamps = (np.arange(images) * 1e9).astype(np.int64)
    return Fit(
        spec=own,
        outputs={"thin_logits": thinned(sharpness * logits, step)},
        truth=true,
        folds=np.arange(images) % FOLDS,
        units=np.arange(images),
        blocks=np.arange(images),
        constants={"temperature": np.float32(1)},
        resampler=Resampler(stamps, [(0, images)], BootstrapSettings(resamples=50)),
        times=lambda gap_s: stamps,
        model="streets",
    )


@pytest.mark.slow
def test_temperature_undoes_what_makes_the_confidence_too_high():
    material = pixels_to_fit_on(2.5)
    fitted = HEAD.fitter().fit("segmentation", material, None)
    assert fitted.spec["temperature"] == pytest.approx(2.5, rel=0.03)
    assert fitted.images == 39 and not fitted.left
    assert fitted.after["ece"]["value"] < 0.02 < 0.15 < fitted.before["ece"]["value"]
    assert fitted.after["nll"]["high"] < fitted.before["nll"]["low"]
    tuned = HEAD.fitter().tune(material)
    assert tuned.constants["temperature"] == pytest.approx(2.5, rel=0.03)


@pytest.mark.slow
def test_temperature_of_a_confidence_that_is_true_stays():
    fitted = HEAD.fitter().fit("segmentation", pixels_to_fit_on(1.0), None)
    assert fitted.values["temperature"] == pytest.approx(1, rel=0.03)
    assert "it stays 1" in fitted.left


def test_too_few_images_are_refused():
    with pytest.raises(ConfigError, match="segmentation: 9 images .* at least 20"):
        HEAD.fitter().fit("segmentation", pixels_to_fit_on(1.0, images=10), None)


def test_without_a_true_class_of_the_model_the_temperature_stays_and_it_is_said():
    material = pixels_to_fit_on(2.5)
    others = [None if true is None else np.full_like(true, 7) for true in material.truth]
    tuned = HEAD.fitter().tune(dataclasses.replace(material, truth=others))
    assert "no image has a true class" in tuned.left and not tuned.constants
