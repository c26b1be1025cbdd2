"""How the place node did on a drive, and how it came back after the camera was carried away."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.demo.recorded import DriveTruth
from robot_vision.demo.scoring import PLACE_HEADING_DEG, PLACE_RADIUS_M
from robot_vision.geometry.rigid import rotation_error_deg
from robot_vision.text.counts import counted


@dataclass(frozen=True)
class PlacePose:
    """A pose that the place node accepted.

    Attributes:
        frame: index in the bag.
        position: float64 (3,), metres.
        orientation_xyzw: float64 (4,).
    """

    frame: int
    position: NDArray[np.float64]
    orientation_xyzw: NDArray[np.float64]


@dataclass(frozen=True)
class Relocalisation:
    """How the place node did, and how it came back after the camera was carried away.

    Attributes:
        asked: frames that the place node answered, whatever it said.
        accepted: of them, those for which it was sure of a place and gave a pose.
        wrong: of these, poses further than the radius or the heading from the truth.
        median_error_m: of the accepted poses; None if there is none.
        median_error_deg: of their rotations; None if there is none.
        kidnapped_at: index of the first frame after the jump; None if there was none.
        from_room: where the camera was before.
        to_room: where it was after.
        jump_m: how far it was carried.
        recovered_after: frames from the jump to the first right pose, that one counted; None if none came.
        wrong_before_recovery: wrong poses meanwhile.
        recovery_error_m: of the first right pose.
    """

    asked: int
    accepted: int
    wrong: int
    median_error_m: float | None
    median_error_deg: float | None
    kidnapped_at: int | None
    from_room: str
    to_room: str
    jump_m: float
    recovered_after: int | None
    wrong_before_recovery: int
    recovery_error_m: float | None

    def lines(self) -> list[str]:
        """Returns it as two lines of text."""
        share = 100 * self.accepted / max(self.asked, 1)
        said = f"places: sure of {self.accepted} of {self.asked} frames ({share:.0f} %)"
        if self.accepted:
            said += (
                f", {self.wrong} of them wrong, median error {self.median_error_m:.2f} m and "
                f"{self.median_error_deg:.1f} deg"
            )
        if self.kidnapped_at is None:
            return [said, "kidnapped: never, the drive is too short"]
        carried = (
            f"kidnapped at frame {self.kidnapped_at + 1} from the {self.from_room} into the "
            f"{self.to_room}, {self.jump_m:.1f} m: "
        )
        if self.recovered_after is None:
            return [said, carried + "not found again"]
        return [
            said,
            carried + f"found again after {counted(self.recovered_after, 'frame')}, "
            f"{self.recovery_error_m:.2f} m off, after {counted(self.wrong_before_recovery, 'wrong pose')}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)


def relocalisation(
    truth: DriveTruth, kidnapped_at: int | None, asked: int, poses: Sequence[PlacePose]
) -> Relocalisation:
    """Compares the accepted poses of the place node with the truth.

    Args:
        truth: of the bag.
        kidnapped_at: index of the first frame after the jump, or None.
        asked: frames that the place node answered.
        poses: those that it accepted, in any order.
    """
    ordered = sorted(poses, key=lambda pose: pose.frame)
    frames = [pose.frame for pose in ordered]
    error_m = np.array(
        [np.linalg.norm(p.position - truth.positions[p.frame]) for p in ordered], np.float64
    )
    error_deg = np.array(
        [rotation_error_deg(p.orientation_xyzw, truth.orientations_xyzw[p.frame]) for p in ordered],
        np.float64,
    )
    right = (error_m <= PLACE_RADIUS_M) & (error_deg <= PLACE_HEADING_DEG)
    at = kidnapped_at
    after = [i for i, frame in enumerate(frames) if at is not None and frame >= at]
    first = next((i for i in after if right[i]), None)
    return Relocalisation(
        asked=asked,
        accepted=len(ordered),
        wrong=int(np.sum(~right)),
        median_error_m=float(np.median(error_m)) if len(ordered) else None,
        median_error_deg=float(np.median(error_deg)) if len(ordered) else None,
        kidnapped_at=at,
        from_room="" if at is None else truth.rooms[at - 1],
        to_room="" if at is None else truth.rooms[at],
        jump_m=0.0
        if at is None
        else float(np.linalg.norm(truth.positions[at] - truth.positions[at - 1])),
        recovered_after=None if first is None or at is None else frames[first] - at + 1,
        wrong_before_recovery=sum(1 for i in after if first is None or i < first),
        recovery_error_m=None if first is None else float(error_m[first]),
    )
