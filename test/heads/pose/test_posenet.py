import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from network_helpers import distinct_batch, small_network, torch
from scipy.spatial.transform import Rotation

from robot_vision.errors import ConfigError
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.heads.pose.spec import PoseSpec

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def head(shape=(8,), **settings):
    torch.manual_seed(0)
    return PoseNetHead(PoseSpec(hidden=16, **settings), shape).eval()


def decode(position=(0, 0, 0), quaternion=(0, 0, 0, 1), log_variance=(0,) * 6):
    raw = {"position": position, "quaternion_xyzw": quaternion, "log_variance": log_variance}
    out = head().decode({k: torch.tensor([list(v)], dtype=torch.float32) for k, v in raw.items()})
    return {k: v[0].numpy().astype(np.float64) for k, v in out.items()}


@pytest.mark.slow
@settings(max_examples=300)
@given(st.tuples(*[FINITE] * 3), st.tuples(*[FINITE] * 4), st.tuples(*[FINITE] * 6))
@example((3.4e38,) * 3, (0, 0, 0, 0), (3.4e38,) * 6)
@example((0, 0, 0), (1e-45, 0, 0, -1e-45), (-3.4e38,) * 6)
@example((0, 0, 0), (3.4e38, -3.4e38, 3.4e38, -3.4e38), (0,) * 6)
def test_any_finite_regression_gives_a_valid_pose(position, quaternion, log_variance):
    out = decode(position, quaternion, log_variance)
    assert all(np.isfinite(value).all() for value in out.values())
    q = out["orientation_xyzw"]
    assert abs(np.linalg.norm(q) - 1) < 1e-6
    assert q[3] >= 0
    covariance = out["pose_covariance"]
    assert (covariance == covariance.T).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    diagonal = np.diag(covariance)
    assert diagonal.min() >= 1e-8 * (1 - 1e-5)
    assert diagonal[:3].max() <= 1e6 * (1 + 1e-5)
    assert diagonal[3:].max() <= math.pi**2 * (1 + 1e-5)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.floats(1e-20, 1e20), st.sampled_from([-1, 1]))
def test_orientation_is_the_regressed_rotation(seed, length, sign):
    q = np.random.default_rng(seed).normal(size=4)
    out = decode(quaternion=tuple(sign * length * q))["orientation_xyzw"]
    difference = Rotation.from_quat(out) * Rotation.from_quat(q).inv()
    assert difference.magnitude() < 1e-5


def test_zero_quaternion_is_the_identity():
    assert decode(quaternion=(0, 0, 0, 0))["orientation_xyzw"].tolist() == [0, 0, 0, 1]


def test_position_and_variance_are_those_regressed():
    out = decode((1.5, -2, 300), log_variance=np.log([0.01, 0.04, 1, 0.1, 0.2, 0.3]))
    assert out["position"].tolist() == [1.5, -2, 300]
    np.testing.assert_allclose(
        out["pose_covariance"], np.diag([0.01, 0.04, 1, 0.1, 0.2, 0.3]), rtol=1e-5
    )


def test_statistics_scale_positions_and_their_variance_only():
    module, features = head(), torch.randn(4, 8)
    plain = module(features)
    positions = torch.randn(500, 3) * torch.tensor([4.0, 2.0, 0.1]) + torch.tensor([10.0, -5, 2])
    module.set_position_statistics(positions)
    scaled = module(features)
    mean, scale = positions.mean(0), float((positions - positions.mean(0)).square().mean().sqrt())
    torch.testing.assert_close(scaled["position"], mean + scale * plain["position"])
    variance = (scaled["log_variance"] - plain["log_variance"]).exp()
    torch.testing.assert_close(variance[:, :3], torch.full((4, 3), scale**2))
    torch.testing.assert_close(variance[:, 3:], torch.ones(4, 3))
    assert scaled["quaternion_xyzw"].equal(plain["quaternion_xyzw"])


def test_statistics_of_a_still_camera_are_usable():
    module = head()
    module.set_position_statistics(torch.ones(10, 3))
    assert float(module.position_scale) > 0
    assert module(torch.randn(1, 8))["log_variance"].isfinite().all()


def test_reduced_channels_keep_where_a_feature_was():
    features = torch.zeros(2, 8, 4, 5)
    features[0, :, 0, 0] = features[1, :, 3, 4] = 1.0  # the same feature in opposite corners
    pooled, flattened = head((8, 4, 5)), head((8, 4, 5), reduce_channels=6)
    assert torch.allclose(*pooled(features)["position"])
    assert not torch.allclose(*flattened(features)["position"])
    assert flattened.hidden.in_features == 6 * 4 * 5


def test_reduced_channels_of_pooled_features_are_refused():
    with pytest.raises(ConfigError, match="reduce_channels is 6, which needs a feature map"):
        head((8,), reduce_channels=6)


@pytest.mark.slow
def test_one_batch_is_overfit():
    spec = PoseSpec(tap="layer2", hidden=64, reduce_channels=8)
    network = small_network(size=32, pose=spec, classifier=None, place=None)
    generator = torch.Generator().manual_seed(3)
    positions = torch.randn(4, 3, generator=generator) * 5 + 20
    targets = torch.nn.functional.normalize(torch.randn(4, 4, generator=generator), dim=1)
    targets = torch.where(targets[:, 3:] < 0, -targets, targets)
    network.heads["pose"].set_position_statistics(positions)
    images = distinct_batch(4)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        raw = network.raw(images)["pose"]
        q = torch.nn.functional.normalize(raw["quaternion_xyzw"], dim=1)
        loss = (raw["position"] - positions).norm(dim=1).mean() + 10 * (q - targets).norm(
            dim=1
        ).mean()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        out = network(images)
    assert float((out["position"] - positions).norm(dim=1).max()) < 1.0  # of a spread of 5 m
    dots = (out["orientation_xyzw"] * targets).sum(1).abs().clamp(max=1)
    assert float(2 * torch.acos(dots).max().rad2deg()) < 10
