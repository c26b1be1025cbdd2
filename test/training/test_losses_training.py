"""What the losses are for: heads that learn. Small heads on random features, a second or two each."""

import numpy as np
import pytest
import torch
from loss_oracles import make_loss, random_poses
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from robot_vision.heads.classifier.network import ClassifierHead
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.poolings.gem import GemHead
from robot_vision.heads.place.poolings.netvlad import NetVladHead
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.heads.pose.spec import PoseSpec

N, C = 12, 32


def train(head, loss, features, batch, steps=300, rate=3e-3):
    optimiser = torch.optim.Adam([*head.parameters(), *loss.parameters()], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(head(features), batch).total.backward()
        optimiser.step()
        schedule.step()
    return loss(head(features), batch)


def pose_batch(T):
    return {
        "images": torch.zeros(len(T), 48, 64, 3, dtype=torch.uint8),
        "T_map_camera": torch.from_numpy(T).float(),
        "has_pose": torch.ones(len(T), dtype=torch.bool),
        "index": torch.arange(len(T)),
        "sequence": torch.zeros(len(T), dtype=torch.int64),
    }


def pose_head(T, **spec):
    head = PoseNetHead(PoseSpec(hidden=64, **spec), (C,))
    head.set_position_statistics(torch.from_numpy(T[:, :3, 3]))
    return head


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("beta", {"beta": 20.0}),
        ("homoscedastic", {}),
        ("homoscedastic", {"relative": {}}),
        ("reprojection", {"warm_up_steps": 200}),
        ("heteroscedastic", {}),
    ],
)
@pytest.mark.parametrize(
    "covariance", [pytest.param("diagonal", marks=pytest.mark.slow), "cholesky"]
)
def test_pose_head_overfits_one_batch(name, settings, covariance):
    T = random_poses(np.random.default_rng(0), N)
    loss = make_loss("pose", name, **settings)
    parts = train(
        pose_head(T, covariance=covariance), loss, torch.randn(N, C), pose_batch(T), 500
    ).parts
    assert float(parts["position_m"]) < 0.15  # of a spread of 3 m
    assert float(parts["rotation_deg"]) < 5


@pytest.mark.slow
@pytest.mark.parametrize("mean", ["homoscedastic", "likelihood"])
def test_predicted_covariance_is_that_of_the_noise(mean):
    """Positions with a noise that one feature announces, and that is correlated between x and y."""
    rng = np.random.default_rng(1)
    n, loud = 2000, np.array([0.05, 0.4])
    kind = rng.integers(0, 2, n)
    T = np.tile(np.eye(4), (n, 1, 1))
    turns = 0.1 * loud[kind][:, None] * rng.standard_normal((n, 3))
    T[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    shared = rng.standard_normal(n)
    T[:, 0, 3] = loud[kind] * shared
    T[:, 1, 3] = loud[kind] * (0.8 * shared + 0.6 * rng.standard_normal(n))
    T[:, 2, 3] = loud[kind] * rng.standard_normal(n)
    features = torch.zeros(n, C)
    features[:, 0], features[:, 1] = torch.from_numpy(kind == 0), torch.from_numpy(kind == 1)
    head = pose_head(T, covariance="cholesky")
    settings = {"weight": 1.0, "norm": "l2"} if mean == "homoscedastic" else {}
    loss = make_loss("pose", "heteroscedastic", mean=mean, **settings)
    value = train(head, loss, features, pose_batch(T), 400, rate=1e-2)
    assert float(value.parts["nees"]) == pytest.approx(1.0, abs=0.1)
    with torch.no_grad():
        covariance = head.decode(head(features))["pose_covariance"].numpy()
    for k in (0, 1):
        position = covariance[kind == k][0, :3, :3]
        deviation = np.sqrt(np.diag(position))
        np.testing.assert_allclose(deviation, loud[k], rtol=0.1)
        turn = np.sqrt(np.diag(covariance[kind == k][0])[3:])
        np.testing.assert_allclose(turn, 0.1 * loud[k], rtol=0.1)
        assert position[0, 1] / deviation[0] / deviation[1] == pytest.approx(0.8, abs=0.08)
        assert abs(position[0, 2] / deviation[0] / deviation[2]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [GemHead, NetVladHead])
@pytest.mark.parametrize("name", ["triplet", "multi_similarity"])
def test_place_head_overfits_one_batch(pooling, name):
    # Each place is one of three images plus so much noise that descriptors start mixed up.
    place = torch.arange(N) % 3
    features = (torch.randn(3, C, 4, 4)[place] + 2.0 * torch.randn(N, C, 4, 4)).abs()
    spec = (
        PlaceSpec(pooling="gem", whitened_size=16) if pooling is GemHead else PlaceSpec(clusters=4)
    )
    head = pooling(spec, (C, 4, 4))

    def correct():
        with torch.no_grad():
            x = head(features)["descriptor"]
        similarity = (x @ x.T).fill_diagonal_(-2)
        return float((place[similarity.argmax(dim=1)] == place).float().mean())

    before = correct()
    batch = {"place": place, "index": torch.arange(N)}
    train(head, make_loss("place", name), features, batch, rate=1e-2)
    assert correct() == 1.0 and before < 1.0


@pytest.mark.slow
def test_classifier_overfits_one_batch():
    head = ClassifierHead(ClassifierSpec(labels=("a", "b", "c")), C)
    label = torch.arange(N) % 3
    loss = make_loss("classifier", "cross_entropy", class_weights=[1.0, 2.0, 3.0])
    features = torch.randn(N, C)
    value = train(head, loss, features, {"label": label}, rate=3e-2)
    assert float(value.total.detach()) < 0.01 and float(value.parts["accuracy"]) == 1
    assert torch.equal(head(features)["logits"].argmax(1), label)
    assert float(F.cross_entropy(head(features)["logits"], label).detach()) < 0.01
