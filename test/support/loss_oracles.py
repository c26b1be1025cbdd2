"""The papers' formulas in plain NumPy and SciPy, one sample at a time, for the tests of the losses."""

import numpy as np
from scipy.spatial.transform import Rotation

from robot_vision.contract import registry


def norm(x, kind):
    return np.abs(x).sum() if kind == "l1" else np.sqrt((x**2).sum())


def quaternion_distance(predicted, true, kind):
    """The distance to the nearer of q and -q, both normalised."""
    p, q = predicted / np.linalg.norm(predicted), true / np.linalg.norm(true)
    nearer = q if np.linalg.norm(p - q) <= np.linalg.norm(p + q) else -q
    return norm(nearer - p, kind)


def residual(position, xyzw, T):
    """Truth minus prediction, and the rotation vector of R_true R_predicted^-1, by SciPy."""
    turned = Rotation.from_matrix(T[:3, :3]) * Rotation.from_quat(xyzw).inv()
    return np.concatenate([T[:3, 3] - position, turned.as_rotvec()])


def random_poses(rng, n, spread=3.0):
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, :3] = Rotation.random(n, rng=rng).as_matrix()
    T[:, :3, 3] = spread * rng.standard_normal((n, 3))
    return T


def loss_names(head):
    return tuple(registry.head(head).trainer().losses)


def make_loss(head, name, **settings):
    return registry.head(head).trainer().make_loss(name, **settings)
