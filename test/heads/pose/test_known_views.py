"""The known-view score, the covariance that grows with it, and poses that are withheld."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from robot_vision.calibration.folds import resampler_of
from robot_vision.contract.calibration import Fit
from robot_vision.contract.head import Material
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.topics import LeftOut, Shot
from robot_vision.datasets.sample import Sample
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.heads.pose.fitting import KEEP, PoseFitter
from robot_vision.heads.pose.head import HEAD
from robot_vision.heads.pose.known_views import NEIGHBOURS, SIZE, KnownViews
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.heads.pose.training import regions
from robot_vision.messages.serialized import Stamp


def test_score_is_the_distance_to_the_nearest_whitened_views_as_scikit_learn_finds_it() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(100, 100)) * np.linspace(3, 0.5, 100)
    seen, asked = (rng.normal(size=(n, 100)) @ mixed for n in (800, 20))
    views = KnownViews(800, 100)
    views.keep(torch.from_numpy(seen).float())
    found = views(torch.from_numpy(asked).float()).numpy()

    pca = PCA(SIZE, whiten=True, svd_solver="full").fit(seen)
    known, new = (pca.transform(x) for x in (seen, asked))
    known, new = (x / np.sqrt((x**2).sum(axis=1, keepdims=True) + SIZE / 10) for x in (known, new))
    distances, _ = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known).kneighbors(new)
    np.testing.assert_allclose(found, distances[:, -1] ** 2, rtol=5e-4)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_views_of_few_images_are_finite_and_equal_ones_are_at_no_distance(count: int) -> None:
    seen = torch.randn(count, 30, generator=torch.Generator().manual_seed(0))
    views = KnownViews(64, 30)
    views.keep(seen)
    found = views(seen)
    assert found.isfinite().all()
    assert (found[: 64 // NEIGHBOURS] < 1e-6).all() == (count * NEIGHBOURS <= 64)


@pytest.mark.parametrize("passes", [0, 3])
def test_variances_grow_with_the_distance_and_the_spread_of_answers_stays(passes: int) -> None:
    head = PoseNetHead(PoseSpec(hidden=8, views=144, dropout=0.3), (16,)).eval()
    head.set_passes(passes, 0)
    seen = torch.randn(48, 16)  # each is kept three times
    assert head.views is not None
    head.views.keep(seen)
    growth = torch.arange(1.0, 7.0)
    head.constants["view_growth"].copy_(growth)
    asked = torch.cat([seen[10:14], 3 * torch.randn(20, 16)])
    found = head.decode(head(asked))
    raw = {k: v for k, v in head(asked).items() if k != "distance"}
    before = head.decode(raw)
    assert (found["known_view"][:4] > 0.999).all()
    torch.testing.assert_close(found["pose_covariance"][:4], before["pose_covariance"][:4])
    spread = before.get("pose_spread", torch.zeros(24, 6, 6))
    root = (1 + growth * (4 - 4 * found["known_view"][:, None]) ** 4).sqrt()
    grown = (before["pose_covariance"] - spread) * root[:, :, None] * root[:, None]
    torch.testing.assert_close(found["pose_covariance"], grown + spread)
    assert (root > 1.1).any()


def test_regions_are_compact_and_about_equally_large() -> None:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (800, 1, 1))
    poses[:, :3, 3] = rng.uniform(0, (8, 1, 1), (800, 3))
    poses[7] = np.nan
    found = regions(poses, 4)
    assert found[7] == -1
    assert np.bincount(found[found >= 0]).tolist() == pytest.approx([200] * 4, abs=1)
    for number in range(4):
        assert np.ptp(poses[found == number, 0, 3]) < 2.4
    assert sorted(set(regions(poses, 5)) - {-1}) == [0, 1, 2, 3, 4]


def test_where_a_camera_only_turned_regions_are_directions() -> None:
    angles = np.linspace(0, np.pi, 200)
    poses = np.tile(np.eye(4), (200, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(0).normal(size=(200, 3)) * 1e-3
    found = regions(poses, 2)
    assert np.ptp(angles[found == 0]) < 1.8 and np.ptp(angles[found == 1]) < 1.8


def material(growth: np.ndarray, scale: float = 1.0, seed: int = 0) -> Fit[PoseSpec]:
    """Errors that grow with the distance as said, on known views and in regions left out."""
    rng = np.random.default_rng(seed)

    def side(count: int, low: float, high: float):
        distance = rng.uniform(low, high, count)
        said = np.array([0.01] * 3 + [0.003] * 3)
        sigma = np.sqrt(scale * said * (1 + growth * distance[:, None] ** 8))
        error = sigma * rng.normal(size=(count, 6))
        turn = Rotation.from_rotvec(error[:, 3:]).as_quat()
        truth = [pose_matrix(e[:3], q) for e, q in zip(error, turn, strict=True)]
        outputs = {
            "position": np.zeros((count, 3)),
            "orientation_xyzw": np.tile([0.0, 0, 0, 1], (count, 1)),
            "pose_covariance": np.tile(np.diag(said), (count, 1, 1)),
            "known_view": 1 - distance**2 / 4,
        }
        return outputs, truth

    outputs, truth = side(600, 0.0, 1.0)
    new, new_truth = side(3000, 0.6, 1.3)
    samples = [Sample(str(i), None, T, None, "s", None) for i, T in enumerate(truth)]
    return Fit(
        spec=PoseSpec(views=4),
        outputs=outputs,
        truth=truth,
        folds=np.arange(600) // 50 % 5,
        units=np.arange(600) // 50,
        blocks=np.arange(600) // 50,
        constants={"covariance_factor": np.full((6, 6), 2.0)},
        resampler=resampler_of(samples, EvaluationSettings(resamples=0)),
        times=lambda gap: np.arange(600),
        apart=(new, new_truth, np.arange(3000) % 6),
    )


@pytest.mark.slow
def test_growth_is_found_from_regions_left_out_and_the_threshold_keeps_known_views() -> None:
    true = np.array([2.0] * 3 + [5.0] * 3)
    given = material(true, scale=1.7)
    found = PoseFitter(HEAD).tune(given)
    np.testing.assert_allclose(found.constants["view_growth"], true, rtol=0.15)
    np.testing.assert_allclose(np.diagonal(found.constants["covariance_factor"]), 3.4, rtol=0.1)
    kept = given.outputs["known_view"] >= found.spec["unknown_threshold"]
    assert kept.mean() == pytest.approx(KEEP, abs=0.005)
    assert found.values["regions"] == 6 and not found.left


@pytest.mark.slow
def test_errors_that_do_not_grow_give_no_growth() -> None:
    found = PoseFitter(HEAD).tune(material(np.zeros(6), seed=4))
    assert (found.constants["view_growth"] < 0.1).all()


@pytest.mark.slow
def test_of_few_known_images_all_are_kept() -> None:
    given = material(np.full(6, 2.0))
    few = {word: values[:30] for word, values in given.outputs.items()}
    cut = replace(given, outputs=few, truth=given.truth[:30], folds=given.folds[:30])
    cut = replace(cut, units=given.units[:30], blocks=given.blocks[:30])
    assert PoseFitter(HEAD).tune(cut).spec["unknown_threshold"] == pytest.approx(
        few["known_view"].min(), rel=1e-5
    )


def test_without_regions_nothing_is_said_of_new_views() -> None:
    found = PoseFitter(HEAD).tune(replace(material(np.full(6, 0.3)), apart=None))
    assert "view_growth" not in found.constants and "unknown_threshold" not in found.spec


SPEC = PoseSpec(views=4, unknown_threshold=0.7)
SHOT = Shot(Stamp(1, 2), "optical", "front")


def answer(known_view: float | None) -> PoseAnswer:
    return PoseAnswer(np.zeros(3), np.array([0, 0, 0, 1.0]), np.eye(6), known_view=known_view)


def options(spec: PoseSpec, **given):
    return HEAD.resolve(HEAD.options(given), spec, Material())


def test_pose_of_an_unknown_view_is_withheld_and_said() -> None:
    chosen = options(SPEC)
    assert HEAD.published(answer(0.8), SHOT, SPEC, chosen).known_view == 0.8
    left = HEAD.published(answer(0.6), SHOT, SPEC, chosen)
    assert isinstance(left, LeftOut) and left.reason == "unknown_view" and not left.fault
    assert "0.6" in left.text and "0.7" in left.text
    assert HEAD.cell(answer(0.6), SPEC, chosen).endswith("unknown view")
    assert "unknown" not in HEAD.cell(answer(0.8), SPEC, chosen)
    said = [HEAD.json(answer(k), SPEC, chosen, None) for k in (0.6, 0.8)]
    assert [row["unknown_view"] for row in said] == [True, False]


def test_threshold_of_the_node_goes_before_the_models() -> None:
    every = options(SPEC, unknown_view_threshold=0.0)
    assert HEAD.published(answer(0.1), SHOT, SPEC, every) is not None
    assert not isinstance(HEAD.published(answer(0.1), SHOT, SPEC, every), LeftOut)
    strict = options(SPEC, unknown_view_threshold=0.9)
    assert isinstance(HEAD.published(answer(0.85), SHOT, SPEC, strict), LeftOut)
    assert not HEAD.ineffective(strict, SPEC, Material())


def test_model_without_the_score_withholds_nothing_and_says_so() -> None:
    old = PoseSpec()
    chosen = options(old, unknown_view_threshold=0.9)
    assert not isinstance(HEAD.published(answer(None), SHOT, old, chosen), LeftOut)
    assert "no known-view score" in HEAD.ineffective(chosen, old, Material())
    assert "no known-view score" in HEAD.about(old)
    assert "known_view" not in HEAD.json(answer(None), old, chosen, None)
    assert "known_view" not in HEAD.outputs(old, None)
