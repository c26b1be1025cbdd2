"""What later drives say of a keyframe: how often it was recognised where it should have been.

A map keeps it next to each keyframe, as JSON of bounded size, with what the keyframe took the place of.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from robot_vision.places.map.base import MapError, PlaceMap

MAX_BYTES = 1 << 20
_SESSIONS = 10  # that a keyframe remembers
_REPLACED = 4
_GRID = (np.arange(512) + 0.5) / 512


@dataclass(frozen=True)
class Session:
    """One drive past a keyframe.

    Attributes:
        source: name of the recording.
        stamp_ns: of its first image.
        seen: images from where the keyframe should have been recognised.
        matched: of them, those to which it was more similar than every keyframe of another place.
        similarity: median cosine of the keyframe with these images.
    """

    source: str
    stamp_ns: int
    seen: int
    matched: int
    similarity: float

    @property
    def failed(self) -> bool:
        """Whether the keyframe did not match most images."""
        return 2 * self.matched < self.seen


@dataclass(frozen=True)
class Replaced:
    """A keyframe that is no longer in the map, since its place has changed.

    Attributes:
        keyframe_id: that it had.
        stamp_ns: when it was taken.
        camera: which camera took it.
        source: its recording.
        pose: x, y, z (m, map frame) and qx, qy, qz, qw of the camera.
        since_ns: first image of the drive from which on it was not recognised.
        replaced_ns: first image of the drive that replaced it.
        then: median similarity with images that it matched; None where it never did.
        now: with those of the drive that replaced it.
        sessions: the evidence.
        thumbnail: what was there, JPEG, or None.
        shown: what is there now, JPEG, or None.
    """

    keyframe_id: int
    stamp_ns: int
    camera: str
    source: str
    pose: tuple[float, ...]
    since_ns: int
    replaced_ns: int
    then: float | None
    now: float
    sessions: tuple[Session, ...]
    thumbnail: bytes | None
    shown: bytes | None


@dataclass(frozen=True)
class Evidence:
    """What is known of a keyframe that is in the map; both are newest last, and the oldest are forgotten.

    Attributes:
        sessions: drives past it.
        replaced: keyframes whose place it took.
    """

    sessions: tuple[Session, ...] = ()
    replaced: tuple[Replaced, ...] = ()

    def after(self, session: Session) -> Evidence:
        """Returns the evidence with one more drive."""
        return replace(self, sessions=(*self.sessions, session)[-_SESSIONS:])

    def replacing(self, others: Sequence[Replaced]) -> Evidence:
        """Returns the evidence of a keyframe that takes the place of others."""
        return replace(self, replaced=(*self.replaced, *others)[-_REPLACED:])

    def belief(self, forget: float, weight: float) -> float:
        """Returns the probability that the keyframe is still recognised in most drives.

        The share of images that it matches has a uniform prior. A drive counts as at most `weight`
        independent images, since those of one drive fail together, and `forget` times as much with each later
        one.
        """
        a = b = 1.0
        for age, session in enumerate(reversed(self.sessions)):
            count = min(session.seen, weight) * forget**age
            a += count * session.matched / session.seen
            b += count * (1 - session.matched / session.seen)
        density = _GRID ** (a - 1) * (1 - _GRID) ** (b - 1)  # of the beta distribution
        return float(density[_GRID > 0.5].sum() / density.sum())

    def to_bytes(self) -> bytes:
        """Returns JSON."""
        found = asdict(self)
        for record in found["replaced"]:
            for key in ("thumbnail", "shown"):
                if record[key] is not None:
                    record[key] = base64.b64encode(record[key]).decode()
        return json.dumps(found, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def from_bytes(data: bytes, what: str) -> Evidence:
        """Returns the evidence of `to_bytes`.

        Raises:
            MapError: it is something else; the message begins with `what`.
        """
        try:
            if len(data) > MAX_BYTES:
                raise ValueError("too long")
            found = json.loads(data)
            return Evidence(
                _sessions(found["sessions"]),
                tuple(_replaced(record) for record in found["replaced"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MapError(f"{what} is not as it was written ({error}): take a backup") from error


def kept_evidence(places: PlaceMap) -> dict[int, Evidence]:
    """Returns the evidence of keyframes by their ids.

    Raises:
        MapError: it is damaged.
    """
    return {
        i: Evidence.from_bytes(data, f"{places.info.uri}: the evidence of keyframe {i}")
        for i, data in places.evidence().items()
    }


def _sessions(rows: Any) -> tuple[Session, ...]:
    sessions = tuple(
        Session(
            source=str(row["source"]),
            stamp_ns=_whole(row["stamp_ns"]),
            seen=_whole(row["seen"]),
            matched=_whole(row["matched"]),
            similarity=_number(row["similarity"]),
        )
        for row in rows
    )
    if any(not 0 <= s.matched <= s.seen or not s.seen for s in sessions):
        raise ValueError("counts")
    return sessions


def _replaced(record: Any) -> Replaced:
    pose = tuple(_number(value) for value in record["pose"])
    if len(pose) != 7:
        raise ValueError("pose")
    return Replaced(
        keyframe_id=_whole(record["keyframe_id"]),
        stamp_ns=_whole(record["stamp_ns"]),
        camera=str(record["camera"]),
        source=str(record["source"]),
        pose=pose,
        since_ns=_whole(record["since_ns"]),
        replaced_ns=_whole(record["replaced_ns"]),
        then=None if record["then"] is None else _number(record["then"]),
        now=_number(record["now"]),
        sessions=_sessions(record["sessions"]),
        thumbnail=_picture(record["thumbnail"]),
        shown=_picture(record["shown"]),
    )


def _whole(value: Any) -> int:
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("a number is too large")
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} stands where a finite number should")
    return number


def _picture(text: Any) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
