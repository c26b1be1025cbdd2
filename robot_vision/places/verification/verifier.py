"""One query against the places that look most like it: accepted with a pose, or refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import (
    canonical_xyzw,
    compose_with_covariance,
    symmetrised,
    xyzw_from_matrix,
)
from robot_vision.places.keyframe import Keyframe
from robot_vision.places.verification import essential, pnp
from robot_vision.places.verification.features import FeatureExtractor, LocalFeatures, match
from robot_vision.places.verification.intrinsics import Intrinsics
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.predictions import CameraPose

REASONS = (
    "",
    "no_candidate",
    "no_structure",
    "few_features",
    "few_matches",
    "few_inliers",
    "uncertain",
    "intrinsics",
)
_NOISE_PX = 1.0
_CLEARLY = 1.15
_SURE = 4  # times `min_inliers`: further candidates are not looked at


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
class Candidate:
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


def candidates_of(places: Structures, ids: Sequence[int]) -> list[Candidate]:
    """Returns keyframes of a map as candidates, in the order of `ids`.

    Raises:
        MapError: an id that is not there.
        StructureError: a structure that is damaged.
    """
    found = []
    for i in ids:
        keyframe, content = places.get(int(i)), places.structure(int(i))
        structure = None if content is None else KeyframeStructure.from_bytes(content)
        found.append(Candidate(int(i), keyframe.T_map_camera, structure, keyframe.covariance))
    return found


@dataclass(eq=False)
class Verifier:
    """Compares queries with candidates. Not thread safe.

    Raises:
        ConfigError: the detector is not there.
    """

    options: VerificationOptions = field(default_factory=VerificationOptions)

    def __post_init__(self) -> None:
        self._extract = FeatureExtractor(self.options)

    def verify(
        self, image: NDArray[np.uint8], candidates: Sequence[Candidate], intrinsics: Intrinsics
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
        self, query: LocalFeatures, candidates: Sequence[Candidate]
    ) -> Verification:
        """Compares a query's features with candidates; see `verify`."""
        best: Verification | None = None
        for candidate in candidates:
            found = self.compare(query, candidate)
            if best is None or _rank(found) > _rank(best):
                best = found
            if best.accepted and best.inliers >= _SURE * self.options.min_inliers:
                break
        return best or Verification(False, "no_candidate")

    def compare(self, query: LocalFeatures, candidate: Candidate) -> Verification:
        """Compares a query's features with one candidate."""
        nothing = Verification(False, "no_structure", keyframe_id=candidate.keyframe_id)
        structure, options = candidate.structure, self.options
        if structure is None or not len(structure.features):
            return nothing
        if len(query) < options.min_inliers:
            return replace(nothing, reason="few_features")
        if structure.has_point.sum() >= options.min_inliers:
            return self._by_points(query, candidate, structure)
        return self._by_essential(query, candidate, structure)

    def _by_points(
        self, query: LocalFeatures, candidate: Candidate, structure: KeyframeStructure
    ) -> Verification:
        options, index = self.options, np.flatnonzero(structure.has_point)
        mine, theirs = match(query, structure.features.subset(index), options.ratio)
        chosen = index[theirs]
        count = len(mine)
        refused = Verification(False, "few_matches", "pnp", candidate.keyframe_id, matches=count)
        if count < options.min_inliers:
            return refused
        data = pnp.Correspondences(
            structure.points[chosen].astype(np.float64),
            structure.depth_sigma[chosen].astype(np.float64),
            query.rays[mine],
        )
        fit = pnp.solve(data, options.error_px / query.focal_px, _NOISE_PX / query.focal_px)
        inliers = 0 if fit is None else int(fit.inliers.sum())
        refused = replace(refused, reason="few_inliers", inliers=inliers)
        if fit is None or inliers < max(options.min_inliers, options.min_inlier_share * count):
            return refused
        limit = np.log1p(options.max_focal_error)
        if abs(fit.log_focal) > max(limit, 3 * fit.log_focal_sigma):
            return replace(refused, reason="intrinsics")
        if fit.log_focal_sigma > limit:  # the inliers lie at one distance: is that so, or chosen?
            others = pnp.inliers_of_other_focals(data, options.error_px / query.focal_px)
            if others > _CLEARLY * inliers:
                return replace(refused, reason="intrinsics")
        pose = self._pose(candidate, fit)
        spread = np.sqrt(np.linalg.eigvalsh(pose.covariance[:3, :3])[-1])
        if not spread <= options.max_position_sigma_m:
            return replace(refused, reason="uncertain")
        return replace(refused, accepted=True, reason="", pose=pose)

    def _pose(self, candidate: Candidate, fit: pnp.Fit) -> CameraPose:
        of_map = candidate.covariance
        if of_map is None:
            sigmas = self.options.map_sigma_m, np.radians(self.options.map_sigma_deg)
            of_map = np.diag(np.repeat(np.square(sigmas), 3))
        T, covariance = compose_with_covariance(candidate.T_map_camera, of_map, fit.T_key_query)
        turn = np.kron(np.eye(2), candidate.T_map_camera[:3, :3])
        covariance = symmetrised(covariance + turn @ fit.covariance @ turn.T)
        return CameraPose(T[:3, 3].copy(), canonical_xyzw(xyzw_from_matrix(T[:3, :3])), covariance)

    def _by_essential(
        self, query: LocalFeatures, candidate: Candidate, structure: KeyframeStructure
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


def _rank(found: Verification) -> tuple[Any, ...]:
    return found.accepted, found.pose is not None, found.inliers, found.matches
