"""Numbers on camera poses in the map, without any alignment: what the robot gets is what is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.geometry.rotations import pose_error
from robot_vision.statistics.bootstrap import Statistic, mean, quantiles

# Metres and degrees that count together (the thresholds of Sattler et al. 2018 for indoor scenes, and the
# 5 cm that 7-Scenes is judged by).
THRESHOLDS = ((0.05, 2.0), (0.25, 5.0), (0.5, 10.0))
COVERAGES = (0.5, 0.68, 0.9, 0.95)

Columns = dict[str, NDArray[Any]]


def normalised_squares(error: NDArray[np.float64], covariance: NDArray[Any]) -> NDArray[np.float64]:
    """Returns e^T C^-1 e (N,); NaN where C is not finite, symmetric and positive definite.

    Args:
        error: (N, d).
        covariance: (N, d, d).
    """
    result = np.full(len(error), np.nan)
    C = np.asarray(covariance, np.float64)
    fine = np.asarray(np.isfinite(C).all(axis=(1, 2)))
    C = np.where(fine[:, None, None], C, 0.0)
    scale = np.abs(C).max(axis=(1, 2))
    asymmetry = np.abs(C - C.transpose(0, 2, 1)).max(axis=(1, 2))
    fine = fine & (asymmetry <= 1e-6 * scale) & (np.linalg.eigvalsh(C)[:, 0] > 1e-14 * scale)
    solved = np.linalg.solve(C[fine], error[fine][:, :, None])[:, :, 0]
    result[fine] = (error[fine] * solved).sum(axis=1)
    return result


def score_poses(
    position: NDArray[Any],
    xyzw: NDArray[Any],
    covariance: NDArray[Any] | None,
    true_position: NDArray[np.float64],
    true_xyzw: NDArray[np.float64],
) -> Columns:
    """Returns the columns of `judging.ROWS` on poses.

    Args:
        position: (N, 3), estimated; rows that are not finite have no prediction.
        xyzw: (N, 4), estimated; the same, and where it has no length.
        covariance: (N, 6, 6) or None.
        true_position: (N, 3); NaN where there is none.
        true_xyzw: (N, 4).
    """
    n = len(position)
    p, q = np.asarray(position, np.float64), np.asarray(xyzw, np.float64)
    said = np.asarray(np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1))
    length = np.linalg.norm(np.where(said[:, None], q, 0.0), axis=1)
    said = said & np.asarray(length > 1e-6)
    columns: Columns = {
        "position": np.where(said[:, None], p, np.nan),
        "xyzw": np.full((n, 4), np.nan),
        "true_position": true_position,
        "true_xyzw": true_xyzw,
        "pose_error": np.full((n, 6), np.nan),
    }
    columns["xyzw"][said] = canonical_xyzw(q[said])
    both = said & np.isfinite(true_position[:, 0])
    error = pose_error(p[both], q[both], true_position[both], true_xyzw[both])
    columns["pose_error"][both] = error
    columns["error_m"] = np.linalg.norm(columns["pose_error"][:, :3], axis=1)
    columns["error_deg"] = np.degrees(np.linalg.norm(columns["pose_error"][:, 3:], axis=1))
    if covariance is not None:
        parts = {"nees": slice(0, 6), "nees_position": slice(0, 3), "nees_rotation": slice(3, 6)}
        for name, part in parts.items():
            columns[name] = np.full(n, np.nan)
            columns[name][both] = normalised_squares(
                error[:, part], covariance[both][:, part, part]
            )
        variances = np.diagonal(covariance, axis1=1, axis2=2).astype(np.float64)
        with np.errstate(invalid="ignore"):
            columns["sigma_m"] = np.sqrt(variances[:, :3].sum(axis=1))
            columns["sigma_deg"] = np.degrees(np.sqrt(variances[:, 3:].sum(axis=1)))
        # A covariance that is not one says nothing about any part of the pose.
        for name in parts:
            columns[name][np.isnan(columns["nees"])] = np.nan
    return columns


def statistics(error_m: NDArray[Any], error_deg: NDArray[Any]) -> dict[Any, Statistic]:
    """Returns the headline numbers of errors (n,)."""
    within = np.stack([(error_m <= m) & (error_deg <= d) for m, d in THRESHOLDS], axis=1)
    return {
        ("median_m", "p90_m"): quantiles(error_m, (0.5, 0.9)),
        ("median_deg", "p90_deg"): quantiles(error_deg, (0.5, 0.9)),
        ("mean_m", "mean_deg"): mean(np.stack([error_m, error_deg], axis=1)),
        tuple(threshold_name(m, d) for m, d in THRESHOLDS): mean(within),
    }


def threshold_name(metres: float, degrees: float) -> str:
    """Returns such as `within_0.05m_2deg`."""
    return f"within_{metres:g}m_{degrees:g}deg"
