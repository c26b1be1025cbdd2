"""Absolute and relative errors of trajectories, with the alignment stated.

ATE (Sturm et al. 2012): the distance of each estimated position from the true one, after the whole estimate
was moved by one transform: none, the rigid one (se3) or the similarity (sim3) of least squares (Umeyama
1991). RPE: how wrong the motion over a fixed number of frames is, which a constant offset does not touch.
The numbers are those of evo (`evo_ape`, `evo_rpe --all_pairs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import Rows
from robot_vision.errors import ConfigError, unknown
from robot_vision.geometry.rigid import matrix_from_xyzw, xyzw_from_matrix
from robot_vision.geometry.rotations import conjugate, multiply, rotation_vectors
from robot_vision.statistics.bootstrap import Resampler, plain, root_mean_square
from robot_vision.statistics.settings import BootstrapSettings

ALIGNMENTS = ("none", "se3", "sim3")


@dataclass(frozen=True)
class TrajectorySettings:
    """What is measured of trajectories.

    Attributes:
        alignments: of `ALIGNMENTS`.
        rpe_delta_s: time over which relative pose errors are measured (rounded to frames), besides one frame.
    """

    alignments: tuple[str, ...] = ALIGNMENTS
    rpe_delta_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rpe_delta_s < float("inf"):
            raise ConfigError(
                f"Setting rpe_delta_s is {self.rpe_delta_s}: it must be above 0 and finite"
            )
        for name in self.alignments:
            if name not in ALIGNMENTS:
                raise ConfigError(unknown("alignment", name, ALIGNMENTS))


@dataclass(frozen=True, eq=False)
class Alignment:
    """The similarity `p -> scale * rotation @ p + translation` that brings an estimate to the truth.

    Attributes:
        rotation: (3, 3).
        translation: (3,), metres.
        scale: 1 unless the alignment is sim3.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float = 1.0

    def positions(self, positions: NDArray[Any]) -> NDArray[np.float64]:
        """Returns moved positions (N, 3)."""
        return np.asarray(self.scale * positions @ self.rotation.T + self.translation)

    def orientations(self, xyzw: NDArray[Any]) -> NDArray[np.float64]:
        """Returns turned orientations (N, 4)."""
        return multiply(xyzw_from_matrix(self.rotation), xyzw)


def align(positions: NDArray[Any], true_positions: NDArray[Any], kind: str) -> Alignment | None:
    """Returns the alignment of estimated (N, 3) to true positions; None where these do not fix one.

    Umeyama (PAMI 1991), eq. 34 to 43.

    Args:
        positions: estimated.
        true_positions: of the same frames.
        kind: none, se3 or sim3.
    """
    if kind == "none":
        return Alignment(np.eye(3), np.zeros(3))
    centre, true_centre = positions.mean(axis=0), true_positions.mean(axis=0)
    x, y = positions - centre, true_positions - true_centre
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    # Positions on one line leave the rotation about it open.
    if len(x) < 3 or d[1] <= np.finfo(np.float64).eps * max(d[0], 1e-300):
        return None
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    variance = float((x**2).sum() / len(x))
    scale = float((d * signs).sum() / variance) if kind == "sim3" else 1.0
    return Alignment(rotation, true_centre - scale * rotation @ centre, scale)


def relative_errors(
    positions: NDArray[Any],
    xyzw: NDArray[Any],
    true_positions: NDArray[Any],
    true_xyzw: NDArray[Any],
    delta: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns metres and degrees (N - delta) of `(Q_i^-1 Q_j)^-1 (P_i^-1 P_j)`, with j = i + delta."""

    def motion(p: NDArray[Any], q: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        R = matrix_from_xyzw(q[:-delta])
        step = np.einsum("nji,nj->ni", R, p[delta:] - p[:-delta])
        return step, multiply(conjugate(q[:-delta]), q[delta:])

    step, turn = motion(positions, xyzw)
    true_step, true_turn = motion(true_positions, true_xyzw)
    # Turning the difference by Q's rotation does not change its length.
    metres = np.linalg.norm(step - true_step, axis=1)
    off = rotation_vectors(multiply(conjugate(true_turn), turn))
    return metres, np.degrees(np.linalg.norm(off, axis=1))


def measure_trajectories(rows: Rows, bootstrap: BootstrapSettings) -> dict[str, Any] | None:
    """Returns plain data on each recording with three or more poses; None where there is none."""
    found, scores = [], rows.scores
    for recording, (a, b) in zip(scores.recordings, scores.bounds, strict=True):
        posed = a + np.flatnonzero(np.isfinite(rows["error_m"][a:b]))
        if len(posed) >= 3:
            found.append(_measure(recording["name"], rows, posed, bootstrap))
    return {"recordings": found} if found else None


def _measure(
    name: str, rows: Rows, index: NDArray[Any], bootstrap: BootstrapSettings
) -> dict[str, Any]:
    settings: TrajectorySettings = rows.settings
    stamps = rows["stamps_ns"][index]
    p, q = rows["position"][index], rows["xyzw"][index]
    true_p, true_q = rows["true_position"][index], rows["true_xyzw"][index]
    resampler = Resampler(stamps, [(0, len(index))], bootstrap)
    interval_s = float(np.median(np.diff(stamps))) / 1e9
    deltas = sorted({1, min(len(index) - 1, max(1, round(settings.rpe_delta_s / interval_s)))})
    aligned: dict[str, Any] = {}
    for kind in settings.alignments:
        alignment = align(p, true_p, kind)
        if alignment is None:
            aligned[kind] = None
            continue
        moved, turned = alignment.positions(p), alignment.orientations(q)
        metres = np.linalg.norm(moved - true_p, axis=1)
        off = rotation_vectors(multiply(conjugate(true_q), turned))
        degrees = np.degrees(np.linalg.norm(off, axis=1))
        aligned[kind] = {
            "rotation_xyzw": xyzw_from_matrix(alignment.rotation).tolist(),
            "translation_m": alignment.translation.tolist(),
            "scale": alignment.scale,
            "ate": _errors(metres, degrees, resampler, None),
            "rpe": [
                {
                    "delta_frames": delta,
                    "delta_s": delta * interval_s,
                    "pairs": len(index) - delta,
                    **_errors(
                        *relative_errors(moved, turned, true_p, true_q, delta),
                        resampler,
                        np.arange(len(index) - delta),
                    ),
                }
                for delta in deltas
            ],
        }
    return {
        "name": name,
        "frames": len(index),
        "true_length_m": float(np.linalg.norm(np.diff(true_p, axis=0), axis=1).sum()),
        "estimated_length_m": float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()),
        "alignments": aligned,
    }


def _errors(
    metres: NDArray[np.float64],
    degrees: NDArray[np.float64],
    resampler: Resampler,
    rows: NDArray[Any] | None,
) -> dict[str, Any]:
    return {
        **resampler.headlines(
            {"rmse_m": root_mean_square(metres), "rmse_deg": root_mean_square(degrees)}, rows
        ),
        "median_m": plain(np.median(metres)),
        "median_deg": plain(np.median(degrees)),
        "mean_m": plain(metres.mean()),
        "max_m": plain(metres.max()),
        "mean_deg": plain(degrees.mean()),
        "max_deg": plain(degrees.max()),
    }
