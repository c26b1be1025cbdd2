"""Place losses against their papers' formulas, and pytorch-metric-learning."""

import numpy as np
import pytest
import torch
from loss_oracles import loss_names, make_loss, random_poses
from pytorch_metric_learning.losses import MultiSimilarityLoss as TheirLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch.nn import functional as F

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import rotation_error_deg, xyzw_from_matrix
from robot_vision.heads.place.loss import InBatchRelation, mine_pairs

N, D = 12, 8
NEAR = {"positive_m": 3.0, "negative_m": 5.0}
NAMES = ("triplet", "multi_similarity")


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def descriptors(rng, n=N):
    return F.normalize(torch.from_numpy(rng.normal(size=(n, D))), dim=1)


def posed(rng, n=N):
    return {
        "T_map_camera": torch.from_numpy(random_poses(rng, n, spread=2.0)),
        "has_pose": torch.ones(n, dtype=torch.bool),
        "index": torch.arange(n),
    }


def places(n=N, count=4):
    return {"place": torch.arange(n) % count, "index": torch.arange(n)}


def triplet_formula(x, positive, negative, margin, mean=False):
    losses = []
    for q in range(len(x)):
        P, M = np.flatnonzero(positive[q]), np.flatnonzero(negative[q])
        if not len(P) or not len(M):
            continue
        best = min(((x[q] - x[p]) ** 2).sum() for p in P)
        terms = [max(best + margin - ((x[q] - x[n]) ** 2).sum(), 0.0) for n in M]
        losses.append(np.mean(terms) if mean else sum(terms))
    return np.mean(losses)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_triplet_loss_is_the_papers_formula_over_poses(rng, reduction):
    x, batch = descriptors(rng), posed(rng)
    where = batch["T_map_camera"][:, :3, 3].numpy()
    distance = np.linalg.norm(where[:, None] - where[None], axis=2)
    positive = (distance <= 3) & ~np.eye(N, dtype=bool)
    expected = triplet_formula(x.numpy(), positive, distance > 5, 0.3, reduction == "mean")
    loss = make_loss("place", "triplet", margin=0.3, reduction=reduction, **NEAR)
    assert float(loss({"descriptor": x}, batch).total) == pytest.approx(expected)


def test_triplet_loss_of_tuples_uses_each_querys_own(rng):
    x = descriptors(rng, 10)
    batch = {
        "tuple": torch.tensor([0] * 5 + [1] * 5),
        "role": torch.tensor([0, 1, 1, 2, 2, 0, 1, 2, 2, 2]),
    }
    positive, negative = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    positive[0, [1, 2]] = positive[5, 6] = True
    negative[0, [3, 4]] = negative[5, [7, 8, 9]] = True
    expected = triplet_formula(x.numpy(), positive, negative, 0.1)
    ours = make_loss("place", "triplet")({"descriptor": x}, batch).total
    assert float(ours) == pytest.approx(expected)


def test_relations_are_those_of_distance_and_angle(rng):
    batch = posed(rng, 40)
    batch["T_map_camera"][:, :3, 3] *= 0.5
    batch["has_pose"][7] = False
    batch["T_map_camera"][7] = torch.nan
    batch["index"][5] = batch["index"][4]  # the same image twice
    relation = InBatchRelation(positive_m=1.5, positive_deg=90, negative_m=2.0, negative_deg=120)
    positive, negative = relation(batch)
    T = batch["T_map_camera"].numpy()
    for i in range(40):
        for j in range(40):
            known = i != j and 7 not in (i, j) and {i, j} != {4, 5}
            if not known:
                assert not positive[i, j] and not negative[i, j]
                continue
            d = np.linalg.norm(T[i, :3, 3] - T[j, :3, 3])
            q = [xyzw_from_matrix(T[k, :3, :3]) for k in (i, j)]
            angle = float(rotation_error_deg(*q))
            assert bool(positive[i, j]) == (d <= 1.5 and angle <= 90)
            assert bool(negative[i, j]) == (d > 2.0 or angle > 120)
    assert positive.any() and negative.any()


def test_places_known_by_position_only_count_where_angles_do_not(rng):
    batch = posed(rng)
    batch["has_position"] = batch["has_pose"].clone()
    batch["has_pose"] = torch.zeros(N, dtype=torch.bool)
    assert InBatchRelation(**NEAR)(batch)[0].any()
    assert not InBatchRelation(**NEAR, positive_deg=30.0)(batch)[0].any()


def multi_similarity_formula(x, positive, negative, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1):
    """Wang et al., eq. 11, 12 and 15."""
    S, total = x @ x.T, 0.0
    for i in range(len(x)):
        P, M = np.flatnonzero(positive[i]), np.flatnonzero(negative[i])
        hard_p = [k for k in P if len(M) and S[i, k] < S[i, M].max() + epsilon]
        hard_n = [k for k in M if len(P) and S[i, k] > S[i, P].min() - epsilon]
        total += np.log1p(sum(np.exp(-alpha * (S[i, k] - base)) for k in hard_p)) / alpha
        total += np.log1p(sum(np.exp(beta * (S[i, k] - base)) for k in hard_n)) / beta
    return total / len(x)


def test_multi_similarity_loss_is_the_papers_formula(rng):
    x, batch = descriptors(rng), places()
    same = (batch["place"][:, None] == batch["place"][None]).numpy()
    expected = multi_similarity_formula(x.numpy(), same & ~np.eye(N, dtype=bool), ~same)
    ours = make_loss("place", "multi_similarity")({"descriptor": x}, batch).total
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_multi_similarity_loss_over_poses_skips_pairs_of_which_nothing_is_known(rng):
    x, batch = descriptors(rng), posed(rng)
    where = batch["T_map_camera"][:, :3, 3].numpy()
    distance = np.linalg.norm(where[:, None] - where[None], axis=2)
    positive = (distance <= 3) & ~np.eye(N, dtype=bool)
    assert ((distance > 3) & (distance <= 5)).any()
    expected = multi_similarity_formula(x.numpy(), positive, distance > 5)
    ours = make_loss("place", "multi_similarity", **NEAR)({"descriptor": x}, batch).total
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_miner_and_loss_are_the_packages_for_labels(rng):
    x, batch = descriptors(rng, 60), places(60, 15)
    pairs = MultiSimilarityMiner(epsilon=0.1)(x, batch["place"])
    positive, negative = InBatchRelation()(batch)
    ours = mine_pairs(x @ x.T, positive, negative, 0.1)
    for mask, (rows, columns) in zip(ours, (pairs[:2], pairs[2:]), strict=True):
        theirs = torch.zeros(60, 60, dtype=torch.bool)
        theirs[rows, columns] = True
        assert torch.equal(mask, theirs) and mask.any()
    expected = TheirLoss(alpha=2, beta=50, base=0.5)(x, batch["place"], pairs)
    loss = make_loss("place", "multi_similarity")({"descriptor": x}, batch).total
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(rng, name):
    x, batch = descriptors(rng), places()
    loss = make_loss("place", name)

    def total(z):
        return loss({"descriptor": F.normalize(z, dim=1)}, batch).total

    assert torch.autograd.gradcheck(total, (x.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_smallest_when_places_are_told_apart(rng, name):
    batch = places()
    loss = make_loss("place", name)
    apart = torch.eye(D, dtype=torch.float64)[batch["place"]]
    swapped = apart.clone()
    swapped[0], swapped[1] = apart[1], apart[0]
    told, confused = (float(loss({"descriptor": x}, batch).total) for x in (apart, swapped))
    assert told < confused
    if name == "triplet":
        assert told == 0


@pytest.mark.parametrize("name", NAMES)
def test_batch_without_relations_gives_zero_with_a_graph(rng, name):
    x, batch = descriptors(rng).requires_grad_(), posed(rng)
    batch["has_pose"][:] = False
    value = make_loss("place", name, **NEAR)({"descriptor": x}, batch)
    value.total.backward()
    assert float(value.total.detach()) == 0 and float(x.grad.abs().sum()) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.0}, "positive"),
        ({"reduction": "max"}, "sum or mean"),
        ({"positive_m": 30.0}, "negative_m at least positive_m"),
        ({"positive_deg": 200.0}, r"in \(0, 180\]"),
        ({"positive_deg": 40.0, "negative_deg": 30.0}, "both positive and negative"),
        ({"margn": 0.2}, "did you mean 'margin'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_loss("place", "triplet", **settings)


def test_every_place_loss_is_tested_here():
    assert loss_names("place") == NAMES
