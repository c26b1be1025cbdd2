"""What came back from the node, against the truth of the bag.

The numbers are `robot_vision.evaluation`'s; here they are taken of one answer at a time, for a live view.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.demo.recorded import DriveTruth
from robot_vision.heads.place import evaluation as place_metrics
from robot_vision.heads.pose.evaluation import score_poses, statistics
from robot_vision.statistics.bootstrap import mean, values

PLACE_RADIUS_M = 1.0
PLACE_HEADING_DEG = 45.0
_SETTINGS = place_metrics.SamePlace(
    place_radius_m=PLACE_RADIUS_M, place_heading_deg=PLACE_HEADING_DEG
)


@dataclass
class FrameAnswer:
    """All that was received for one image; what did not come is None.

    Attributes:
        stamp_ns: of the image's header, which all its results carry.
        frame: index of the image in the bag; None while the image itself was not seen.
        received_ns: when the last result of this image came, on the same clock as the stamp.
        label: the most probable room, or `unknown`.
        probability: of the label.
        position: float64 (3,), metres.
        orientation_xyzw: float64 (4,).
        covariance: float64 (6, 6).
        descriptor: float32 (D,).
    """

    stamp_ns: int
    frame: int | None = None
    received_ns: int = 0
    label: str | None = None
    probability: float | None = None
    position: NDArray[np.float64] | None = None
    orientation_xyzw: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    descriptor: NDArray[np.float32] | None = None

    @property
    def complete(self) -> bool:
        """Whether room, pose and descriptor came, and it is known for which frame."""
        parts = (self.frame, self.label, self.position, self.descriptor)
        return all(part is not None for part in parts)


@dataclass(frozen=True)
class KnownPlaces:
    """Descriptors of a mapping drive and where they were taken.

    Attributes:
        descriptors: float32 (M, D), L2 norm 1.
        truth: of the mapping drive's M frames.
    """

    descriptors: NDArray[np.float32]
    truth: DriveTruth

    def look_up(
        self, descriptor: NDArray[np.float32], truth: DriveTruth, frame: int
    ) -> dict[str, NDArray[Any]]:
        """Returns the columns of `heads.place.evaluation.score_places`, one row, of a frame's descriptor."""
        here = slice(frame, frame + 1)
        asked = place_metrics.PlaceViews(
            descriptor[None],
            truth.positions[here],
            truth.orientations_xyzw[here],
            truth.stamps_ns[here],
        )
        stored = place_metrics.PlaceViews(
            self.descriptors,
            self.truth.positions,
            self.truth.orientations_xyzw,
            self.truth.stamps_ns,
        )
        return place_metrics.score_places(asked, stored, _SETTINGS, same_recording=False)


@dataclass(frozen=True)
class Judged:
    """One complete answer with the truth.

    Attributes:
        frame: index in the bag.
        position: as estimated, metres in the map.
        label: as estimated.
        probability: of the label.
        true_label: the room that held the camera.
        error_m: distance to the true position.
        error_deg: angle to the true orientation.
        sigma_m: the network's own estimate of the position's error.
        place: index of the most similar mapped place.
        similarity: to it.
        place_right: whether it is near and looks the same way.
        answerable: whether any mapped place is and does.
        latency_ms: from the image's stamp to the reception of the last result.
    """

    frame: int
    position: tuple[float, float, float]
    label: str
    probability: float
    true_label: str
    error_m: float
    error_deg: float
    sigma_m: float
    place: int
    similarity: float
    place_right: bool
    answerable: bool
    latency_ms: float


def judge(answer: FrameAnswer, truth: DriveTruth, places: KnownPlaces) -> Judged:
    """Compares a complete answer with the truth of its frame."""
    assert answer.frame is not None and answer.label is not None and answer.position is not None
    assert answer.orientation_xyzw is not None and answer.descriptor is not None
    assert answer.covariance is not None and answer.probability is not None
    here = slice(answer.frame, answer.frame + 1)
    pose = score_poses(
        answer.position[None],
        answer.orientation_xyzw[None],
        answer.covariance[None],
        truth.positions[here],
        truth.orientations_xyzw[here],
    )
    found = places.look_up(answer.descriptor, truth, answer.frame)
    return Judged(
        frame=answer.frame,
        position=tuple(answer.position.tolist()),
        label=answer.label,
        probability=answer.probability,
        true_label=truth.rooms[answer.frame],
        error_m=float(pose["error_m"][0]),
        error_deg=float(pose["error_deg"][0]),
        sigma_m=float(pose["sigma_m"][0]),
        place=int(found["place_match"][0]),
        similarity=float(found["place_similarity"][0]),
        place_right=bool(found["place_rank"][0] == 0),
        answerable=bool(found["place_positives"][0] > 0),
        latency_ms=(answer.received_ns - answer.stamp_ns) / 1e6,
    )


@dataclass(frozen=True)
class Summary:
    """Figures of a whole drive.

    Attributes:
        sent: frames in the bag.
        seen: of them, images that the monitor itself received.
        answered: frames with room, pose and descriptor.
        rate_hz: answers a second, from the first to the last.
        latency_p50_ms: from the image's stamp to the reception of its last result.
        latency_p95_ms: the 95th percentile of the same.
        room_accuracy: share of answers whose room is where the camera was (`unknown` is wrong).
        median_error_m: of the camera's position.
        median_error_deg: of its orientation.
        recall_at_1: share of the answerable ones whose most similar mapped place is right; 0 without any.
    """

    sent: int
    seen: int
    answered: int
    rate_hz: float
    latency_p50_ms: float
    latency_p95_ms: float
    room_accuracy: float
    median_error_m: float
    median_error_deg: float
    recall_at_1: float

    def lines(self) -> list[str]:
        """Returns the summary as two lines of text."""
        return [
            f"{self.answered} of {self.sent} frames answered at {self.rate_hz:.1f} Hz, "
            f"latency p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f} ms",
            f"room accuracy {100 * self.room_accuracy:.1f} %, median pose error "
            f"{self.median_error_m:.2f} m and {self.median_error_deg:.1f} deg, recall@1 "
            f"{100 * self.recall_at_1:.1f} % (within {PLACE_RADIUS_M:g} m and {PLACE_HEADING_DEG:g} deg)",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)


@dataclass
class Score:
    """Collects judged answers.

    Attributes:
        truth: of the bag.
        places: of the mapping drive.
        judged: so far.
    """

    truth: DriveTruth
    places: KnownPlaces
    judged: list[Judged] = field(default_factory=list)
    _received_ns: list[int] = field(default_factory=list)

    def add(self, answer: FrameAnswer) -> Judged:
        """Judges a complete answer."""
        self.judged.append(judge(answer, self.truth, self.places))
        self._received_ns.append(answer.received_ns)
        return self.judged[-1]

    @property
    def answered(self) -> int:
        """How many frames have an answer; one that came twice, of two cameras, counts once."""
        return len({judged.frame for judged in self.judged})

    def summary(self, seen: int) -> Summary:
        """Returns the figures; there must be an answer."""
        judged: Sequence[Judged] = self.judged
        assert judged
        span_s = (max(self._received_ns) - min(self._received_ns)) / 1e9
        errors = (np.array([j.error_m for j in judged]), np.array([j.error_deg for j in judged]))
        pose = values(statistics(*errors), len(judged))
        answerable = [j for j in judged if j.answerable]
        recall = mean(np.array([j.place_right for j in answerable]))
        p50, p95 = np.percentile([j.latency_ms for j in judged], [50, 95])
        return Summary(
            sent=len(self.truth),
            seen=seen,
            answered=self.answered,
            rate_hz=(len(judged) - 1) / span_s if span_s > 0 else 0.0,
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
            room_accuracy=float(np.mean([j.label == j.true_label for j in judged])),
            median_error_m=pose["median_m"],
            median_error_deg=pose["median_deg"],
            recall_at_1=values({"recall": recall}, len(answerable))["recall"]
            if answerable
            else 0.0,
        )


@dataclass(frozen=True)
class Drive:
    """What is played, and against what the answers are judged.

    Attributes:
        bag: the rosbag2.
        truth: of its frames.
        places: of the mapping drive.
        fingerprints: of each image to its index in the bag.
        kidnapped_at: index of the first frame after the camera was carried away; None if it was not.
    """

    bag: Path
    truth: DriveTruth
    places: KnownPlaces
    fingerprints: dict[int, int]
    kidnapped_at: int | None = None
