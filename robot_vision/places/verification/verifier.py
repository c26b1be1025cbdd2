"""One query against the places that look most like it: accepted with a pose, or refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import pnp
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import (
    canonical_xyzw,
    compose_with_covariance,
    matrix_from_xyzw,
    symmetrised,
    xyzw_from_matrix,
)
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.verification import essential
from robot_vision.places.verification.common_errors import common_covariance, map_covariance
from robot_vision.places.verification.features import FeatureExtractor, LocalFeatures, match
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure

REASONS = (
    "",
    "no_candidate",
    "no_structure",
    "few_features",
    "few_matches",
    "few_inliers",
    "uncertain",
    "intrinsics",
    "narrow",
    "ambiguous",
    "unsupported",
)
COMPARED = 5  # places that are compared with an image, most probable first
_NOISE_PX = 1.0
_CLEARLY = 1.15
_SURE = 4  # times `min_inliers`: further candidates are not looked at
_SUPPORTED = 2  # times `min_inliers`: believed although a more similar place was refused
_RIVAL = 0.6  # of the inliers: a pose that has this share fits as well
_TRIMMED = 0.9  # share of the inliers, nearest their middle, whose spread counts
_DISAGREES = 22.46  # 99.9 % quantile of chi-squared with six degrees of freedom


@dataclass(frozen=True, eq=False)
class Verification:
    """What geometry says of a match.

    Attributes:
        accepted: whether query and keyframe show the same things in a consistent arrangement.
        reason: why not, one of `REASONS`; empty when accepted.
        method: `pnp`, `essential`, or `none` where there was nothing to compare.
        keyframe_id: the keyframe that was accepted, or that came nearest to it; None without candidates.
        pose: of the query's camera in the map, with covariance; None when refused or `essential`, which
            knows no distance.
        inliers: matches that agree.
        matches: matches that were found.
    """

    accepted: bool
    reason: str
    method: str = "none"
    keyframe_id: int | None = None
    pose: CameraPose | None = None
    inliers: int = 0
    matches: int = 0


@dataclass(frozen=True, eq=False)
class VerificationCandidate:
    """A keyframe to compare with.

    Attributes:
        keyframe_id: in the map.
        T_map_camera: (4, 4).
        structure: of it, or None where the map has none.
        covariance: (6, 6) of the pose, or None where the map does not tell.
    """

    keyframe_id: int
    T_map_camera: NDArray[np.float64]
    structure: KeyframeStructure | None
    covariance: NDArray[np.float64] | None = None


class Structures(Protocol):
    """The part of a place map that verification reads."""

    def get(self, keyframe_id: int) -> Keyframe:
        """Returns one keyframe."""

    def structure(self, keyframe_id: int) -> bytes | None:
        """Returns its structure, or None."""


def candidates_of(places: Structures, ids: Sequence[int]) -> list[VerificationCandidate]:
    """Returns keyframes of a map as candidates, in the order of `ids`.

    Raises:
        MapError: an id that is not there.
        StructureError: a structure that is damaged.
    """
    found = []
    for i in ids:
        keyframe, content = places.get(int(i)), places.structure(int(i))
        structure = None if content is None else KeyframeStructure.from_bytes(content)
        found.append(
            VerificationCandidate(int(i), keyframe.T_map_camera, structure, keyframe.covariance)
        )
    return found


@dataclass(frozen=True, eq=False)
class _Compared:
    """A candidate's comparison, with the poses that it was about even where it is refused."""

    said: Verification
    pose: CameraPose | None = None
    rival: CameraPose | None = None  # of the matches that do not agree with the pose
    rival_inliers: int = 0


@dataclass(eq=False)
class Verifier:
    """Compares queries with candidates. Not thread safe.

    Raises:
        ConfigError: the detector is not there.
    """

    options: VerificationOptions = field(default_factory=VerificationOptions)

    def __post_init__(self) -> None:
        self._extract = FeatureExtractor(self.options)

    @property
    def kind(self) -> str:
        """Of the features that are compared; see `LocalFeatures.kind`."""
        return self._extract.kind

    def verify(
        self,
        image: NDArray[np.uint8],
        candidates: Sequence[VerificationCandidate],
        intrinsics: Intrinsics,
    ) -> Verification:
        """Compares an image with candidates, most probable first, and returns the one that fits best.

        Later candidates are looked at until one fits well.

        Args:
            image: RGB uint8 (H, W, 3).
            candidates: of the map.
            intrinsics: of the query's camera.

        Raises:
            ConfigError: the image is not of the intrinsics' size, or the map's features are of another
                detector.
        """
        return self.verify_features(self.features(image, intrinsics), candidates)

    def features(self, image: NDArray[np.uint8], intrinsics: Intrinsics) -> LocalFeatures:
        """Returns an image's features, to compare several times.

        Raises:
            ConfigError: the image is not of the intrinsics' size.
        """
        return self._extract(image, intrinsics)[0]

    def verify_features(
        self, query: LocalFeatures, candidates: Sequence[VerificationCandidate]
    ) -> Verification:
        """Compares a query's features with candidates; see `verify`.

        A pose is not believed where another one fits as well (`ambiguous`), nor on few inliers where a place
        that looks more like the query was compared and refused, and no second place agrees (`unsupported`).
        """
        compared: list[_Compared] = []
        best: _Compared | None = None
        for candidate in candidates:
            found = self._compare(query, candidate)
            compared.append(found)
            if best is None or _rank(found.said) > _rank(best.said):
                best = found
            if best.said.accepted and best.said.inliers >= _SURE * self.options.min_inliers:
                break
        if best is None:
            return Verification(False, "no_candidate")
        reason = self._doubt(best, compared)
        return replace(best.said, accepted=False, reason=reason, pose=None) if reason else best.said

    def _doubt(self, best: _Compared, compared: Sequence[_Compared]) -> str:
        """Returns why the best pose is not believed against the others; empty if it is."""
        if best.pose is None or not best.said.accepted:
            return ""
        others = [other for other in compared if other is not best]
        for pose, inliers in [
            *((o.pose, o.said.inliers) for o in others if o.said.reason != "narrow"),
            *((o.rival, o.rival_inliers) for o in compared),
        ]:
            if pose is not None and inliers >= _RIVAL * best.said.inliers:
                if not _agree(pose, best.pose):
                    return "ambiguous"
        if best.said.inliers >= _SUPPORTED * self.options.min_inliers:
            return ""
        if any(
            o.said.accepted and o.pose is not None and _agree(o.pose, best.pose) for o in others
        ):
            return ""
        before = compared[: compared.index(best)]
        return "unsupported" if any(o.said.reason != "no_structure" for o in before) else ""

    def compare(self, query: LocalFeatures, candidate: VerificationCandidate) -> Verification:
        """Compares a query's features with one candidate, by itself."""
        return self._compare(query, candidate).said

    def _compare(self, query: LocalFeatures, candidate: VerificationCandidate) -> _Compared:
        nothing = Verification(False, "no_structure", keyframe_id=candidate.keyframe_id)
        structure, options = candidate.structure, self.options
        if structure is None or not len(structure.features):
            return _Compared(nothing)
        if len(query) < options.min_inliers:
            return _Compared(replace(nothing, reason="few_features"))
        if structure.has_point.sum() >= options.min_inliers:
            return self._by_points(query, candidate, structure)
        return _Compared(self._by_essential(query, candidate, structure))

    def _by_points(
        self, query: LocalFeatures, candidate: VerificationCandidate, structure: KeyframeStructure
    ) -> _Compared:
        options, index = self.options, np.flatnonzero(structure.has_point)
        mine, theirs = match(query, structure.features.subset(index), options.ratio)
        chosen = index[theirs]
        count = len(mine)
        refused = Verification(False, "few_matches", "pnp", candidate.keyframe_id, matches=count)
        if count < options.min_inliers:
            return _Compared(refused)
        data = pnp.Correspondences(
            structure.points[chosen].astype(np.float64),
            structure.depth_sigma[chosen].astype(np.float64),
            query.rays[mine],
        )
        error, noise = options.error_px / query.focal_px, _NOISE_PX / query.focal_px
        fit = pnp.solve(data, error, noise)
        inliers = 0 if fit is None else int(fit.inliers.sum())
        refused = replace(refused, reason="few_inliers", inliers=inliers)
        if fit is None or inliers < max(options.min_inliers, options.min_inlier_share * count):
            return _Compared(refused)
        pose = self._pose(candidate, fit)
        reason = self._refusal(data, fit, pose, error)
        if reason:
            return _Compared(replace(refused, reason=reason), pose)
        accepted = replace(refused, accepted=True, reason="", pose=pose)
        rest = data.subset(~fit.inliers)
        rival = None
        if len(rest.points) >= max(options.min_inliers, _RIVAL * inliers):
            rival = pnp.solve(rest, error, noise)
        if rival is None:
            return _Compared(accepted, pose)
        count = int(rival.inliers.sum())
        return _Compared(accepted, pose, self._pose(candidate, rival), count)

    def _refusal(
        self, data: pnp.Correspondences, fit: pnp.PoseFit, pose: CameraPose, error: float
    ) -> str:
        """Returns why a pose with enough inliers is not believed; empty if it is."""
        options, inliers = self.options, int(fit.inliers.sum())
        limit = np.log1p(options.max_focal_error)
        if abs(fit.log_focal) > max(limit, 3 * fit.log_focal_sigma):
            return "intrinsics"
        if fit.log_focal_sigma > limit:  # the inliers lie at one distance: is that so, or chosen?
            if pnp.inliers_of_other_focals(data, error) > _CLEARLY * inliers:
                return "intrinsics"
        if _spread(data.rays[fit.inliers]) < np.tan(np.radians(options.min_spread_deg)):
            return "narrow"
        spread = np.sqrt(np.linalg.eigvalsh(pose.covariance[:3, :3])[-1])
        return "" if spread <= options.max_position_sigma_m else "uncertain"

    def _pose(self, candidate: VerificationCandidate, fit: pnp.PoseFit) -> CameraPose:
        share = 1.0 if candidate.structure is None else candidate.structure.common_share
        of_map = candidate.covariance
        if of_map is None:
            of_map = share * map_covariance(self.options)
        T, covariance = compose_with_covariance(candidate.T_map_camera, of_map, fit.T_key_query)
        turn = np.kron(np.eye(2), candidate.T_map_camera[:3, :3])
        common = common_covariance(fit.T_key_query, fit.covariance, fit.distance)
        covariance = symmetrised(covariance + turn @ (fit.covariance + share * common) @ turn.T)
        return CameraPose(T[:3, 3].copy(), canonical_xyzw(xyzw_from_matrix(T[:3, :3])), covariance)

    def _by_essential(
        self, query: LocalFeatures, candidate: VerificationCandidate, structure: KeyframeStructure
    ) -> Verification:
        options = self.options
        mine, theirs = match(query, structure.features, options.ratio)
        count = len(mine)
        refused = Verification(
            False, "few_matches", "essential", candidate.keyframe_id, matches=count
        )
        if count < options.min_essential_inliers:
            return refused
        inliers = essential.count_inliers(
            query.rays[mine],
            structure.features.rays[theirs],
            options.error_px / 2 / query.focal_px,
        )
        enough = max(options.min_essential_inliers, options.min_inlier_share * count)
        if inliers < enough:
            return replace(refused, reason="few_inliers", inliers=inliers)
        return replace(refused, accepted=True, reason="", inliers=inliers)


def _spread(rays: NDArray[np.float64]) -> float:
    """Returns the standard deviation of rays (N, 2) in the direction where it is least, without far ones.

    One wrong match far from the others must not widen it.
    """
    away = rays - np.median(rays, axis=0)
    distance = np.linalg.norm(away, axis=1)
    kept = away[distance <= np.quantile(distance, _TRIMMED)]
    return float(np.sqrt(max(np.linalg.eigvalsh(np.cov(kept.T))[0], 0.0)))


def _agree(a: CameraPose, b: CameraPose) -> bool:
    """Says whether two poses are of one camera, as far as their covariances tell."""
    turn = matrix_from_xyzw(a.orientation_xyzw) @ matrix_from_xyzw(b.orientation_xyzw).T
    gap = np.concatenate([a.position - b.position, cv2.Rodrigues(turn)[0][:, 0]])
    return bool(gap @ np.linalg.solve(a.covariance + b.covariance, gap) <= _DISAGREES)


def _rank(found: Verification) -> tuple[Any, ...]:
    return found.accepted, found.pose is not None, found.inliers, found.matches
