"""Pose losses against NumPy transcriptions of their papers' formulas."""

import math

import numpy as np
import pytest
import torch
from loss_oracles import loss_names, make_loss, norm, quaternion_distance, random_poses, residual
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation
from scipy.stats import multivariate_normal

from robot_vision.contract.losses import LossValue
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.heads.pose.covariance_layer import below_diagonal, correlation_factor
from robot_vision.heads.pose.losses.likelihood import gaussian_nll, soft_bounds
from robot_vision.heads.pose.losses.regression import PosePairs
from robot_vision.heads.pose.losses.reprojection import NEAR
from robot_vision.heads.pose.losses.rotations import (
    multiply,
    rotate,
    rotation_vector,
    unit,
    xyzw_of,
)
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.heads.pose.spec import PoseSpec

N = 5
QUICK = {"warm_up_steps": 0, "points": 16}
LOSSES = {
    "beta": {},
    "homoscedastic": {},
    "reprojection": QUICK,
    "heteroscedastic": {"mean": "likelihood"},
}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def a_batch(rng, n=N):
    T = random_poses(rng, n)
    return {
        "images": torch.zeros(n, 48, 64, 3, dtype=torch.uint8),
        "label": torch.full((n,), -1),
        "T_map_camera": torch.from_numpy(T),
        "has_pose": torch.ones(n, dtype=torch.bool),
        "index": torch.arange(n),
        "sequence": torch.zeros(n, dtype=torch.int64),
    }


def a_prediction(rng, n=N, full=True):
    raw = {
        "position": torch.from_numpy(rng.standard_normal((n, 3))),
        "quaternion_xyzw": torch.from_numpy(2 * rng.standard_normal((n, 4))),
        "log_variance": torch.from_numpy(0.5 * rng.standard_normal((n, 6))),
    }
    if full:
        raw["correlation"] = torch.from_numpy(rng.standard_normal((n, 15)))
    return raw


def near_the_truth(rng, batch, metres=0.1, degrees=4.0):
    """A prediction that is a little off, as after some training."""
    T = batch["T_map_camera"].numpy()
    off = Rotation.from_rotvec(np.radians(degrees) * rng.standard_normal((len(T), 3)) / 2)
    raw = a_prediction(rng, len(T))
    raw["position"] = torch.from_numpy(T[:, :3, 3] + metres * rng.standard_normal((len(T), 3)))
    quaternion = (off * Rotation.from_matrix(T[:, :3, :3])).as_quat()
    raw["quaternion_xyzw"] = torch.from_numpy(1.7 * quaternion)
    return raw


def the_truth(batch):
    T = batch["T_map_camera"].numpy()
    quaternion = torch.from_numpy(Rotation.from_matrix(T[:, :3, :3]).as_quat())
    zeros = torch.zeros(len(T), 6, dtype=torch.float64)
    return {
        "position": batch["T_map_camera"][:, :3, 3].clone(),
        "quaternion_xyzw": quaternion,
        "log_variance": zeros,
    }


def numpy_of(raw, batch):
    arrays = (raw["position"], raw["quaternion_xyzw"], batch["T_map_camera"])
    return zip(*(a.numpy() for a in arrays), strict=True)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_beta_loss_is_the_papers_formula(rng, kind):
    raw, batch = a_prediction(rng), a_batch(rng)
    expected = np.mean(
        [
            norm(T[:3, 3] - x, kind)
            + 250 * quaternion_distance(q, Rotation.from_matrix(T[:3, :3]).as_quat(), kind)
            for x, q, T in numpy_of(raw, batch)
        ]
    )
    ours = make_loss("pose", "beta", beta=250.0, norm=kind)(raw, batch).total
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_homoscedastic_loss_is_the_papers_formula_and_starts_at_its_weights(rng):
    raw, batch = a_prediction(rng), a_batch(rng)
    loss = make_loss("pose", "homoscedastic")
    assert (loss.s_x.item(), loss.s_q.item()) == (0.0, -3.0)
    loss.s_x.data.fill_(0.4)
    position = np.mean([norm(T[:3, 3] - x, "l1") for x, _, T in numpy_of(raw, batch)])
    rotation = np.mean(
        [
            quaternion_distance(q, Rotation.from_matrix(T[:3, :3]).as_quat(), "l1")
            for _, q, T in numpy_of(raw, batch)
        ]
    )
    expected = position * np.exp(-0.4) + 0.4 + rotation * np.exp(3) - 3
    assert float(loss(raw, batch).total.detach()) == pytest.approx(expected, rel=1e-6)


def test_homoscedastic_weights_settle_at_the_log_of_their_terms(rng):
    batch = a_batch(rng)
    raw = near_the_truth(rng, batch)
    loss = make_loss("pose", "homoscedastic")
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=100)

    def closure():
        optimiser.zero_grad()
        total = loss(raw, batch).total
        total.backward()
        return total

    optimiser.step(closure)
    position = np.mean([norm(T[:3, 3] - x, "l1") for x, _, T in numpy_of(raw, batch)])
    assert loss.s_x.item() == pytest.approx(np.log(position), abs=1e-3)


def test_reprojection_loss_is_the_papers_formula_for_given_points(rng):
    batch = a_batch(rng)
    raw = near_the_truth(rng, batch)
    T = batch["T_map_camera"].numpy()
    in_camera = rng.uniform([-1, -1, 2], [1, 1, 6], (N, 7, 3))
    points = np.einsum("nij,npj->npi", T[:, :3, :3], in_camera) + T[:, None, :3, 3]
    points[2, 3] = np.nan  # padding
    batch["points_map"] = torch.from_numpy(points)
    errors = []
    for (x, q, true), scene in zip(numpy_of(raw, batch), points, strict=True):
        R = Rotation.from_quat(q).as_matrix()
        for g in scene[np.isfinite(scene).all(axis=1)]:
            here, there = true[:3, :3].T @ (g - true[:3, 3]), R.T @ (g - x)
            errors.append(np.abs(here[:2] / here[2] - there[:2] / there[2]).sum())
    loss = make_loss("pose", "reprojection", warm_up_steps=0)
    ours = float(loss(raw, batch).total.detach())
    assert ours == pytest.approx(np.mean(errors), rel=1e-9)


@pytest.mark.parametrize("matrix", [None, (40.0, 42.0, 30.0, 25.0)])
def test_points_on_rays_are_in_view_of_the_true_camera_at_plausible_depths(rng, matrix):
    batch = a_batch(rng)
    loss = make_loss("pose", "reprojection", camera_matrix=matrix, depths_m=(1.0, 4.0), points=256)
    points, valid = loss._points(PosePairs(the_truth(batch), batch), batch)
    assert valid.all()
    T = batch["T_map_camera"].numpy()
    local = np.einsum("nji,npj->npi", T[:, :3, :3], points.numpy() - T[:, None, :3, 3])
    focal = 32 / math.tan(math.radians(30))
    fx, fy, cx, cy = matrix or (focal, focal, 32, 24)
    x, y = fx * local[..., 0] / local[..., 2] + cx, fy * local[..., 1] / local[..., 2] + cy
    z = local[..., 2]
    for value, low, high in ((x, 0, 64), (y, 0, 48), (z, 1, 4)):
        assert value.min() >= low - 1e-9 and value.max() <= high + 1e-9
        assert value.min() < low + 0.1 * (high - low) and value.max() > high - 0.1 * (high - low)


@pytest.mark.parametrize("matrix", [None, (40.0, 42.0, 24.0, 24.0)])
def test_cached_features_without_images_give_the_same_rays_for_a_centred_camera(rng, matrix):
    batch = a_batch(rng)
    batch["images"] = batch["images"][:, :, :48]  # square, as is assumed where nothing is known
    loss = make_loss("pose", "reprojection", camera_matrix=matrix, **QUICK)
    raw = near_the_truth(rng, batch)
    cached = {key: value for key, value in batch.items() if key != "images"}
    torch.testing.assert_close(loss(raw, cached).total, loss(raw, batch).total)


def test_frames_without_points_get_some_on_rays(rng):
    batch = a_batch(rng)
    batch["points_map"] = torch.full((N, 3, 3), torch.nan, dtype=torch.float64)
    raw = near_the_truth(rng, batch)
    loss = make_loss("pose", "reprojection", **QUICK)
    without = {key: value for key, value in batch.items() if key != "points_map"}
    torch.testing.assert_close(loss(raw, batch).total, loss(raw, without).total)


def test_reprojection_is_bounded_when_the_scene_is_behind_the_prediction(rng):
    batch = a_batch(rng)
    raw = the_truth(batch)
    behind = Rotation.from_matrix(batch["T_map_camera"][:, :3, :3].numpy())
    behind = behind * Rotation.from_rotvec([0, 3.0, 0])
    raw["quaternion_xyzw"] = torch.from_numpy(behind.as_quat()).requires_grad_()
    value = make_loss("pose", "reprojection", **QUICK)(raw, batch)
    value.total.backward()
    assert float(value.total) < 4 / NEAR
    assert raw["quaternion_xyzw"].grad.isfinite().all()
    assert raw["quaternion_xyzw"].grad.abs().sum() > 0


def test_reprojection_starts_as_the_homoscedastic_loss_and_remembers_its_steps(rng):
    batch = a_batch(rng)
    raw = near_the_truth(rng, batch)
    loss = make_loss("pose", "reprojection", warm_up_steps=2, points=16)
    warm = make_loss("pose", "homoscedastic")(raw, batch).total
    totals = [loss(raw, batch).total.detach() for _ in range(3)]
    torch.testing.assert_close(totals[:2], [warm.detach()] * 2)
    assert not torch.isclose(totals[2], warm)
    resumed = make_loss("pose", "reprojection", warm_up_steps=2, points=16)
    resumed.load_state_dict(loss.state_dict())
    torch.testing.assert_close(resumed(raw, batch).total.detach(), totals[2])


@pytest.mark.parametrize("full", [False, True])
def test_likelihood_is_scipys_gaussian_of_the_heads_own_covariance(rng, full):
    raw, batch = a_prediction(rng, full=full), a_batch(rng)
    head = PoseNetHead(PoseSpec(covariance="cholesky" if full else "diagonal"), (8,))
    covariance = head.decode(raw)["pose_covariance"].double().numpy()
    residuals = [residual(x, q, T) for x, q, T in numpy_of(raw, batch)]
    expected = np.mean(
        [-multivariate_normal.logpdf(r, cov=c) for r, c in zip(residuals, covariance, strict=True)]
    )
    value = make_loss("pose", "heteroscedastic", mean="likelihood")(raw, batch)
    assert float(value.total) == pytest.approx(expected - 3 * np.log(2 * np.pi), rel=1e-4)
    nees = np.mean([r @ np.linalg.solve(c, r) for r, c in zip(residuals, covariance, strict=True)])
    assert float(value.parts["nees"]) == pytest.approx(nees / 6, rel=1e-3)


def test_best_variance_is_the_empirical_variance(rng):
    deviations = np.array([0.1, 0.5, 2.0, 0.01, 0.1, 1.0])
    r = torch.from_numpy(deviations * rng.standard_normal((400, 6)))
    for axis in range(6):

        def nll(s, axis=axis):
            log_variance = torch.zeros(400, 6, dtype=torch.float64)
            log_variance[:, axis] = s
            return float(gaussian_nll(r, log_variance)[0])

        best = minimize_scalar(nll, bounds=(-12, 4), method="bounded", options={"xatol": 1e-6}).x
        assert np.exp(best) == pytest.approx(float(r[:, axis].square().mean()), rel=1e-3)


def test_best_full_covariance_is_the_empirical_covariance(rng):
    mixing = np.eye(6) + 0.2 * rng.standard_normal((6, 6))
    r = torch.from_numpy(rng.standard_normal((2000, 6)) @ mixing.T)
    s = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    c = torch.zeros(15, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([s, c], max_iter=300, line_search_fn="strong_wolfe")
    scatter = below_diagonal().double()

    def closure():
        optimiser.zero_grad()
        factor = correlation_factor(c[None], scatter).expand(len(r), 6, 6)
        loss = gaussian_nll(r, s.expand(len(r), 6), factor)[0]
        loss.backward()
        return loss

    optimiser.step(closure)
    factor = correlation_factor(c[None], scatter)[0] * (0.5 * s).exp()[:, None]
    empirical = (r.T @ r) / len(r)
    torch.testing.assert_close((factor @ factor.T).detach(), empirical, rtol=0.02, atol=0.02)


def test_mean_of_the_heteroscedastic_loss_learns_without_the_likelihood(rng):
    batch, raw = a_batch(rng), a_prediction(rng)
    for value in raw.values():
        value.requires_grad_()
    make_loss("pose", "heteroscedastic")(raw, batch).total.backward()
    ours = raw["position"].grad.clone()
    assert raw["log_variance"].grad.abs().sum() > 0 and raw["correlation"].grad.abs().sum() > 0
    raw["position"].grad = None
    make_loss("pose", "homoscedastic")(raw, batch).total.backward()
    torch.testing.assert_close(raw["position"].grad, ours)


def test_variance_out_of_bounds_finds_its_way_back():
    x = torch.tensor([-9.0, -9.0, 9.0, 9.0, 0.5], requires_grad=True)
    low, high = torch.full((5,), -1.0), torch.full((5,), 1.0)
    out = soft_bounds(x, low, high)
    torch.testing.assert_close(out.detach(), torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.5]))
    out.backward(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
    # Descent moves against the gradient: only what leads further out is held back.
    torch.testing.assert_close(x.grad, torch.tensor([0.0, -1.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_sign_and_length_of_quaternions_do_not_matter(rng, name, relative):
    batch = a_batch(rng)
    raw = near_the_truth(rng, batch)
    loss = make_loss("pose", name, relative=relative, **LOSSES[name])
    loss.eval()
    signs = torch.tensor([1.0, -3.0, 0.2, -1.0, 5.0], dtype=torch.float64)[:, None]
    other = {**raw, "quaternion_xyzw": raw["quaternion_xyzw"] * signs}
    torch.testing.assert_close(loss(other, batch).total, loss(raw, batch).total)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_truth_is_the_minimum(rng, name, relative):
    batch = a_batch(rng)
    loss = make_loss("pose", name, relative=relative, **LOSSES[name]).eval()
    truth = the_truth(batch)
    least = float(loss(truth, batch).total.detach())
    for _ in range(20):
        raw = near_the_truth(rng, batch, metres=0.02, degrees=1.0)
        raw["log_variance"] = truth["log_variance"]
        del raw["correlation"]
        assert float(loss(raw, batch).total.detach()) > least


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_gradients_are_those_of_finite_differences(rng, name, relative):
    batch = a_batch(rng, 3)
    raw = near_the_truth(rng, batch, metres=0.5, degrees=20)
    raw = {key: value[:3].requires_grad_() for key, value in raw.items()}
    loss = make_loss("pose", name, relative=relative, **LOSSES[name]).double().eval()

    def total(*tensors):
        return loss(dict(zip(raw, tensors, strict=True)), batch).total

    assert torch.autograd.gradcheck(total, tuple(raw.values()))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_gradient_at_the_truth_is_finite(rng, name, relative):
    batch = a_batch(rng)
    raw = {key: value.float().requires_grad_() for key, value in the_truth(batch).items()}
    value = make_loss("pose", name, relative=relative, **LOSSES[name])(raw, batch)
    value.total.backward()
    used = [t.grad for t in raw.values() if t.grad is not None]
    assert used and all(g.isfinite().all() for g in used)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_samples_without_pose_change_nothing(rng, name, relative):
    batch, raw = a_batch(rng), a_prediction(rng)
    loss = make_loss("pose", name, relative=relative, **LOSSES[name]).eval()
    first = {key: value[:3] for key, value in batch.items()}
    expected = loss({key: value[:3] for key, value in raw.items()}, first).total
    batch["has_pose"][3:] = False
    batch["T_map_camera"][3:] = torch.nan
    raw["position"][3:] = torch.nan
    torch.testing.assert_close(loss(raw, batch).total, expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("relative", [None, {}])
def test_batch_without_poses_gives_zero_with_a_graph(rng, name, relative):
    batch, raw = a_batch(rng), a_prediction(rng)
    batch["has_pose"][:] = False
    raw = {key: value.requires_grad_() for key, value in raw.items()}
    loss = make_loss("pose", name, relative=relative, **LOSSES[name])
    value = loss(raw, batch)
    assert isinstance(value, LossValue) and float(value.total.detach()) == 0
    value.total.backward()
    assert float(raw["position"].grad.abs().sum()) == 0
    assert all(p.grad is not None for p in loss.parameters())


def test_relative_term_is_the_papers_formula_over_neighbours_only(rng):
    batch = a_batch(rng, 6)
    raw = near_the_truth(rng, batch, metres=0.5, degrees=20)
    batch["sequence"] = torch.tensor([0, 0, 0, 1, 1, 1])
    batch["index"] = torch.tensor([10, 12, 14, 40, 41, 99])
    batch["has_pose"][0] = False
    pairs = [(1, 2), (3, 4)]  # 0 has no pose, 2-3 cross sequences, 4-5 are too far apart
    T = batch["T_map_camera"].numpy()
    x, q = raw["position"].numpy(), raw["quaternion_xyzw"].numpy()
    moved = [norm((x[i] - x[j]) - (T[i, :3, 3] - T[j, :3, 3]), "l1") for i, j in pairs]
    turned = []
    for i, j in pairs:
        ours = (Rotation.from_quat(q[i]).inv() * Rotation.from_quat(q[j])).as_quat()
        true = Rotation.from_matrix(T[i, :3, :3].T @ T[j, :3, :3]).as_quat()
        turned.append(quaternion_distance(ours, true, "l1"))
    expected = np.mean(moved) + np.mean(turned) * np.exp(3) - 3
    alone = make_loss("pose", "beta")(raw, batch).total
    both = make_loss("pose", "beta", relative={"weight": 0.5, "max_gap": 5})(raw, batch).total
    assert float(both - alone) == pytest.approx(0.5 * expected, rel=1e-6)


def test_logged_errors_are_metres_and_degrees(rng):
    batch = a_batch(rng)
    raw = the_truth(batch)
    raw["position"][:, 0] += 0.3
    turned = Rotation.from_rotvec([0, 0, np.radians(9)])
    true = Rotation.from_matrix(batch["T_map_camera"][:, :3, :3].numpy())
    raw["quaternion_xyzw"] = torch.from_numpy((turned * true).as_quat())
    parts = make_loss("pose", "homoscedastic")(raw, batch).parts
    assert float(parts["position_m"]) == pytest.approx(0.3)
    assert float(parts["rotation_deg"]) == pytest.approx(9.0)
    assert float(parts["s_q"]) == -3.0


def test_rotation_functions_agree_with_scipy_and_the_core(rng):
    a, b = Rotation.random(200, rng=rng), Rotation.random(200, rng=rng)
    qa, qb = torch.from_numpy(a.as_quat()), torch.from_numpy(b.as_quat())
    points = rng.standard_normal((200, 3))
    np.testing.assert_allclose(rotate(qa, torch.from_numpy(points)), a.apply(points), atol=1e-12)
    product = matrix_from_xyzw(multiply(qa, qb).numpy())
    np.testing.assert_allclose(product, (a * b).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotation_vector(-qa), a.as_rotvec(), atol=1e-9)
    found = xyzw_of(torch.from_numpy(a.as_matrix()))
    np.testing.assert_allclose(found, a.as_quat(canonical=True), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-4, 1e-3, 3.1415, math.pi])
def test_rotation_vector_is_precise_at_its_ends(angle):
    vector = angle * np.array([2.0, -1.0, 2.0]) / 3
    q = torch.from_numpy(Rotation.from_rotvec(vector).as_quat()).requires_grad_()
    out = rotation_vector(q)
    assert float(out.detach().norm()) == pytest.approx(angle, rel=1e-9, abs=1e-15)
    out.sum().backward()
    assert q.grad.isfinite().all()


def test_half_turns_about_each_axis_are_found():
    matrices = torch.from_numpy(Rotation.from_rotvec(math.pi * np.eye(3)).as_matrix())
    expected = torch.cat([torch.eye(3), torch.zeros(3, 1)], dim=1).double()
    torch.testing.assert_close(xyzw_of(matrices).abs(), expected, atol=1e-12, rtol=0)


def test_zero_quaternion_has_a_finite_loss_and_gradient(rng):
    batch, raw = a_batch(rng), a_prediction(rng)
    raw["quaternion_xyzw"] = torch.zeros(N, 4, dtype=torch.float64, requires_grad=True)
    total = make_loss("pose", "homoscedastic")(raw, batch).total
    total.backward()
    assert total.isfinite() and raw["quaternion_xyzw"].grad.isfinite().all()
    assert torch.equal(unit(torch.zeros(1, 4)), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("pose", "homoscedatic"), {}, "did you mean 'homoscedastic'"),
        (("poses", "beta"), {}, "did you mean 'pose'"),
        (("pose", "beta"), {"beat": 3}, "did you mean 'beta'"),
        (("pose", "beta"), {"beta": -1.0}, "must be positive"),
        (("pose", "beta"), {"norm": "l3"}, "use one of l1, l2"),
        (("pose", "beta"), {"relative": {"max_gp": 3}}, "did you mean 'max_gap'"),
        (("pose", "reprojection"), {"depths_m": (5, 1)}, "nearer first"),
        (("pose", "reprojection"), {"camera_matrix": (1, 2)}, "fx, fy, cx, cy"),
        (("pose", "heteroscedastic"), {"mean": "home"}, "use one of"),
    ],
)
def test_wrong_settings_are_named_with_the_remedy(arguments, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(*arguments, **settings)


def test_every_pose_loss_is_tested_here():
    assert set(loss_names("pose")) == set(LOSSES)
