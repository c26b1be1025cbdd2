"""The pose of a camera from points of the map that it sees: RANSAC, refinement, covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import inverse

Array = NDArray[np.float64]

_RANSAC_TRIES, _CONFIDENCE = 1000, 0.9999
_STEPS, _ROUNDS, _FOCAL_ROUNDS = 20, 3, 6
_OTHER_FOCALS = (-0.7, -0.5, -0.3, -0.15, 0.15, 0.3, 0.5, 0.7)  # logarithms of the factor
# The error that the depths of one keyframe's points have in common, in their own standard deviations: wrong
# poses of its neighbours shift all parallaxes together, and this changes slowly across the image.
_COMMON_SIGMA = 1.5
_HUBER = 1.5  # standard deviations beyond which a residual counts linearly
# Features within this many standard deviations of each other show one corner, and err alike.
_CELL = 8.0
# Residuals smaller than assumed are weighed against this many cells of features of the assumed noise:
# few inliers that agree by chance must not make a pose sure.
_PRIOR = 20


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Features of the query matched to points of one keyframe.

    Attributes:
        points: float64 (N, 3), metres, in the keyframe's camera frame.
        depth_sigma: float64 (N,), standard deviation of their z in metres.
        rays: float64 (N, 2), x / z and y / z where the query sees them.
    """

    points: Array
    depth_sigma: Array
    rays: Array

    def subset(self, index: NDArray[np.bool_]) -> Correspondences:
        """Returns some of them."""
        return Correspondences(self.points[index], self.depth_sigma[index], self.rays[index])


@dataclass(frozen=True, eq=False)
class PoseFit:
    """A pose that correspondences agree on.

    Attributes:
        T_key_query: (4, 4), takes points of the query's camera to the keyframe's.
        covariance: (6, 6), position and rotation about the keyframe's fixed axes (m, rad).
        inliers: bool (N,).
        log_focal: by how much, as a logarithm, the points want the query's focal length longer.
        log_focal_sigma: standard deviation of it.
        distance: median distance of the inliers from the keyframe, metres.
    """

    T_key_query: Array
    covariance: Array
    inliers: NDArray[np.bool_]
    log_focal: float
    log_focal_sigma: float
    distance: float


def solve(data: Correspondences, max_error: float, noise: float) -> PoseFit | None:
    """Returns the pose with the most inliers, refined on them; None where none has six.

    P3P in RANSAC (Fischler and Bolles 1981; Ke and Roumeliotis 2017) by OpenCV, then Gauss-Newton on
    reprojection errors with Huber's weights, in which a point counts less the more its uncertain depth
    moves it in the query's image. The covariance is what the residuals show, not what `noise` says; see
    `_covariance`.

    Args:
        data: correspondences.
        max_error: reprojection error of an inlier, on the rays.
        noise: standard deviation of a ray.
    """
    found = ransac(data, max_error)
    near = None if found is None else solve_near(found, data, max_error, noise)
    if near is None:
        return None
    T, covariance, inliers = near
    log_focal, sigma = _focal_error(T, data, inliers, max_error, noise)
    return PoseFit(T, covariance, inliers, log_focal, sigma, distance(data.subset(inliers)))


def solve_near(
    T_key_query: Array, data: Correspondences, max_error: float, noise: float
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """Returns the pose near a given one, its covariance, and its inliers (N,); None with fewer than six.

    See `solve`.
    """
    T = T_key_query
    inliers = reprojection_errors(T, data) <= max_error
    for _ in range(_ROUNDS):
        if inliers.sum() < 6:
            return None
        refined = refine(T, data.subset(inliers), noise)
        if refined is None:
            return None
        T, covariance = refined
        before, inliers = inliers, reprojection_errors(T, data) <= max_error
        if np.array_equal(before, inliers):
            break
    return None if inliers.sum() < 6 else (T, covariance, inliers)


def distance(data: Correspondences) -> float:
    """Returns the median distance of points from their keyframe, metres."""
    return float(np.median(np.linalg.norm(data.points, axis=1)))


def inliers_of_other_focals(data: Correspondences, max_error: float) -> int:
    """Returns the most inliers that a pose has when the query's focal length is another.

    A wrong focal length keeps the points that lie at one distance, and loses the others.
    """
    best = 0
    for log_focal in _OTHER_FOCALS:
        scale = float(np.exp(-log_focal))
        other = Correspondences(data.points, data.depth_sigma, scale * data.rays)
        T = ransac(other, scale * max_error)
        if T is not None:
            best = max(best, int((reprojection_errors(T, other) <= scale * max_error).sum()))
    return best


def ransac(data: Correspondences, max_error: float) -> Array | None:
    """Returns `T_key_query` with the most inliers; None where none has six."""
    import cv2  # which a launch file, that reads the topics of heads, need not have

    if len(data.points) < 6:
        return None
    try:
        found, vector, position, kept = cv2.solvePnPRansac(
            np.ascontiguousarray(data.points),
            np.ascontiguousarray(data.rays),
            np.eye(3),
            None,
            iterationsCount=_RANSAC_TRIES,
            reprojectionError=max_error,
            confidence=_CONFIDENCE,
            flags=cv2.SOLVEPNP_AP3P,
        )
    except cv2.error:  # points on a line or in one spot have no pose
        return None
    if not found or kept is None or len(kept) < 6 or not np.all(np.isfinite(position)):
        return None
    T_query_key = np.eye(4)
    T_query_key[:3, :3], T_query_key[:3, 3] = cv2.Rodrigues(vector)[0], position[:, 0]
    return inverse(T_query_key)


def refine(T_key_query: Array, data: Correspondences, noise: float) -> tuple[Array, Array] | None:
    """Returns the refined pose and its covariance (6, 6); None where the points leave it open."""
    T = T_key_query
    for _ in range(_STEPS):
        residual, jacobian, weight = linearise(T, data, noise)
        information, gradient = normal_equations(residual, jacobian, weight)
        try:
            step = np.asarray(-np.linalg.solve(information, gradient), np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.all(np.isfinite(step)):
            return None
        T = moved(T, step)
        if np.linalg.norm(step) < 1e-9:
            break
    residual, jacobian, weight = linearise(T, data, noise)
    information, _ = normal_equations(residual, jacobian, weight)
    assumed = inverse_of(information)
    if assumed is None:
        return None
    cells = np.floor(data.rays / (_CELL * noise)).astype(np.int64)
    covariance = _covariance(residual, jacobian, weight, assumed, cells)
    return T, covariance + _of_common_error(T, data, jacobian, weight, assumed)


def _covariance(
    residual: Array, jacobian: Array, weight: Array, assumed: Array, cells: NDArray[np.int64]
) -> Array:
    """Returns the covariance (6, 6) of a fit by its residuals.

    Where these are larger than assumed, the inverse of the information grows by their squares per degree of
    freedom. Where they are smaller, it is the sandwich estimator (Huber 1967), which features of unequal
    noise do not mislead, mixed with the assumed one. Features of one cell (N, 2) of the image err together,
    and are summed (Liang and Zeger 1986).
    """
    excess = overdispersion(residual, weight, 6)
    if excess > 1:
        return excess * assumed
    pull = weight @ residual[:, :, None]  # (N, 2, 1)
    number = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    score = np.zeros((int(number.max()) + 1, 6))
    np.add.at(score, number, (jacobian.transpose(0, 2, 1) @ pull)[:, :, 0])
    # Beyond Huber's limit a residual that grows pulls no harder.
    squared = (residual[:, None] @ pull)[:, 0, 0]
    slack = np.where(squared > _HUBER**2 * (1 + 1e-9), 1 / np.maximum(squared, 1e-12), 0.0)
    slope = weight - slack[:, None, None] * (pull @ pull.transpose(0, 2, 1))
    bread = inverse_of((jacobian.transpose(0, 2, 1) @ slope @ jacobian).sum(axis=0))
    if bread is None:
        return assumed
    count = len(score)
    shown = count / max(1, count - 3) * bread @ (score.T @ score) @ bread
    return np.asarray((count * shown + _PRIOR * assumed) / (count + _PRIOR))


def _of_common_error(
    T: Array, data: Correspondences, jacobian: Array, weight: Array, covariance: Array
) -> Array:
    """Returns what the points' common error adds to a covariance.

    The points do not tell it: a fit that solved for it would take every other error for it. So it stays a
    parameter that is considered and not estimated (Schmidt 1966).
    """
    R = T[:3, :3]
    seen = (data.points - T[:3, 3]) @ R
    z = np.maximum(seen[:, 2:], 1e-3)
    along = data.points * (data.depth_sigma / np.maximum(data.points[:, 2], 1e-6))[:, None] @ R
    shift = (along[:, :2] - seen[:, :2] / z * along[:, 2:]) / z  # (N, 2), of the query's ray
    rays = data.points[:, :2] / np.maximum(data.points[:, 2:], 1e-6)
    modes = np.concatenate([np.ones_like(z), rays], axis=1)  # (N, 3)
    effect = jacobian.transpose(0, 2, 1) @ weight @ (shift[:, :, None] * modes[:, None])
    moves = _COMMON_SIGMA * covariance @ effect.sum(axis=0)  # (k, 3)
    return np.asarray(moves @ moves.T)


def moved(T: Array, step: Array) -> Array:
    """Returns a pose moved by (dx, dy, dz, rotation vector about the fixed axes)."""
    import cv2

    result = T.copy()
    result[:3, 3] += step[:3]
    result[:3, :3] = cv2.Rodrigues(np.asarray(step[3:], np.float64))[0] @ T[:3, :3]
    return result


def reprojection_errors(T_key_query: Array, data: Correspondences) -> Array:
    """Returns reprojection errors (N,) on the rays; infinite for points behind the camera."""
    seen = (data.points - T_key_query[:3, 3]) @ T_key_query[:3, :3]
    front = seen[:, 2] > 1e-3
    gap = seen[:, :2] / np.where(front, seen[:, 2], 1.0)[:, None] - data.rays
    return np.asarray(np.where(front, np.linalg.norm(gap, axis=1), np.inf))


def linearise(T: Array, data: Correspondences, noise: float | Array) -> tuple[Array, Array, Array]:
    """Returns residuals (N, 2), their Jacobians (N, 2, 6) and weight matrices (N, 2, 2).

    Args:
        T: `T_key_query` (4, 4).
        data: correspondences.
        noise: standard deviation of a ray, one for all or (N,).
    """
    noise = np.broadcast_to(np.asarray(noise, np.float64), len(data.points))
    R = T[:3, :3]
    offset = data.points - T[:3, 3]
    seen = offset @ R
    z = np.maximum(seen[:, 2], 1e-3)
    residual = seen[:, :2] / z[:, None] - data.rays
    project = np.zeros((len(z), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = 1 / z
    project[:, :, 2] = -seen[:, :2] / z[:, None] ** 2
    in_key = project @ R.T  # of a move of the point in the keyframe's frame
    # The point seen from a turned camera: d/d delta of R^T exp(-delta) offset = R^T [offset]_x.
    # A row a of in_key times [v]_x is a x v.
    turn = np.cross(in_key, offset[:, None])
    jacobian = np.concatenate([-in_key, turn], axis=2)
    along = data.points / np.maximum(data.points[:, 2:], 1e-6)  # how a point moves with its depth
    shift = np.einsum("nij,nj->ni", in_key, along) * data.depth_sigma[:, None]
    # The inverse of noise^2 I + shift shift^T (Sherman, Morrison 1950), which no shift makes singular.
    spread = noise**2 + (shift**2).sum(axis=1)
    outer = shift[:, :, None] * shift[:, None, :]
    weight = (np.eye(2) - outer / spread[:, None, None]) / noise[:, None, None] ** 2
    squared = np.einsum("ni,nij,nj->n", residual, weight, residual)
    distance = np.sqrt(np.maximum(squared, 0.0))  # below 0 by rounding, where the shift is enormous
    weight = weight * np.minimum(1.0, _HUBER / np.maximum(distance, 1e-12))[:, None, None]
    return residual, jacobian, weight


def normal_equations(residual: Array, jacobian: Array, weight: Array) -> tuple[Array, Array]:
    """Returns information (k, k) and gradient (k,) of a linearisation."""
    weighted = jacobian.transpose(0, 2, 1) @ weight  # (N, k, 2)
    information = (weighted @ jacobian).sum(axis=0)
    return information, (weighted @ residual[:, :, None]).sum(axis=0)[:, 0]


def overdispersion(residual: Array, weight: Array, parameters: int) -> float:
    """Returns squared residuals per degree of freedom over what the weights say; at least one."""
    chi_squared = float(np.einsum("ni,nij,nj->", residual, weight, residual))
    return max(1.0, chi_squared / max(1, 2 * len(residual) - parameters))


def inverse_of(information: Array) -> Array | None:
    """Returns the inverse; None where it is singular, or not finite as that of a pose that ran away."""
    if not np.all(np.isfinite(information)):
        return None
    values = np.linalg.eigvalsh(information)
    if not np.all(np.isfinite(values)) or values[0] <= 1e-12 * values[-1]:
        return None
    return np.asarray(np.linalg.inv(information))


def _focal_error(
    T: Array, data: Correspondences, inliers: NDArray[np.bool_], max_error: float, noise: float
) -> tuple[float, float]:
    """Returns the logarithm of the focal length that fits best over the given one, and its sigma.

    Pose and focal length are solved for together, from the pose that is best for the given one. With a
    wrong focal length only some of the right matches were inliers; they are chosen again as it improves.
    """
    log_focal, sigma = 0.0, float("inf")
    for _ in range(_FOCAL_ROUNDS):
        solved = _with_focal(T, log_focal, data.subset(inliers), noise)
        if solved is None:
            break
        T, log_focal, sigma = solved
        factor = float(np.exp(-log_focal))
        scaled = Correspondences(data.points, data.depth_sigma, factor * data.rays)
        before, inliers = inliers, reprojection_errors(T, scaled) <= factor * max_error
        if np.array_equal(before, inliers) or inliers.sum() < 6:
            break
    return log_focal, sigma


def _with_focal(
    T: Array, log_focal: float, data: Correspondences, noise: float
) -> tuple[Array, float, float] | None:
    """Returns pose, log focal length and its sigma that fit best; None where they remain open."""
    variance = np.inf
    for _ in range(_STEPS):
        factor = float(np.exp(log_focal))
        scaled = Correspondences(data.points, data.depth_sigma, data.rays / factor)
        residual, jacobian, weight = linearise(T, scaled, noise / factor)
        predicted = residual + scaled.rays
        # In the units of the given rays, both the residual and what it depends on grow by the factor;
        # the weights, of rays divided by it, shrink by its square.
        full = np.concatenate([jacobian, predicted[:, :, None]], axis=2)
        information, gradient = normal_equations(residual, full, weight)
        inverted = inverse_of(information)
        if inverted is None:
            return None
        common = _of_common_error(T, scaled, full, weight, inverted)
        variance = float(inverted[6, 6]) * overdispersion(residual, weight, 7) + float(common[6, 6])
        step = -inverted @ gradient
        T, log_focal = moved(T, step[:6]), log_focal + float(np.clip(step[6], -0.5, 0.5))
        if not np.isfinite(log_focal) or abs(log_focal) > 3:
            return None
        if np.linalg.norm(step) < 1e-6:
            break
    return T, log_focal, float(np.sqrt(variance))
