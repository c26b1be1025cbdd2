"""Compares the headers of a bag's images with its log and each other, and notes where they disagree.

Seconds of a recording, labels without a header and the pace of the player go by the log; poses and labels
with a header go by the stamps. A constant difference does no harm: another clock, or a bag recorded again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from robot_vision.recordings.bag_reader import BagFile
from robot_vision.text.counts import counted

_LEAST = 10  # images of which the paces of the two are compared
_LEAST_NS = 10**9
_SHARE = 0.1


@dataclass
class _Seen:
    count: int = 0
    unstamped: int = 0
    repeated: int = 0
    last_ns: int = 0
    stamps: tuple[int, int] = (2**63, -(2**63))
    logged: tuple[int, int] = (2**63, -(2**63))
    frames: Counter[str] = field(default_factory=Counter)


class StampNotes:
    """Takes in the images of a pass through a bag, and leaves notes at its end.

    Args:
        bag: whose `notes` are added to.
    """

    def __init__(self, bag: BagFile) -> None:
        self._bag = bag
        self._topics: dict[str, _Seen] = {}

    def add(self, topic: str, header: tuple[int, str], log_ns: int) -> int:
        """Takes in an image's stamp and frame; returns its stamp, or the log's time where it has none."""
        stamp_ns, frame = header
        seen = self._topics.setdefault(topic, _Seen())
        seen.count += 1
        seen.frames[frame] += 1
        if not stamp_ns:
            seen.unstamped += 1
            return log_ns
        seen.repeated += stamp_ns == seen.last_ns
        seen.last_ns = stamp_ns
        if self._bag.start_ns <= log_ns <= self._bag.end_ns:
            seen.stamps = min(seen.stamps[0], stamp_ns), max(seen.stamps[1], stamp_ns)
            seen.logged = min(seen.logged[0], log_ns), max(seen.logged[1], log_ns)
        return stamp_ns

    def finish(self) -> None:
        """Leaves notes."""
        for topic, seen in self._topics.items():
            images = f"of {counted(seen.count, 'image')} of {topic}"
            if seen.unstamped:
                self._bag.note(
                    f"{seen.unstamped} {images} have no stamp: the log's time is taken for it"
                )
            if seen.repeated:
                self._bag.note(f"{seen.repeated} {images} have the stamp of the image before")
            if len(seen.frames) > 1:
                frames = [f"{frame!r} ({count})" for frame, count in seen.frames.most_common(5)]
                self._bag.note(
                    f"the images of {topic} have {len(seen.frames)} values of frame_id, "
                    f"{', '.join(frames)}: one camera is "
                    "taken for all; give cameras topics of their own"
                )
            stamps, logged = seen.stamps[1] - seen.stamps[0], seen.logged[1] - seen.logged[0]
            apart = abs(stamps - logged)
            if seen.count >= _LEAST and apart > max(_LEAST_NS, _SHARE * max(stamps, logged)):
                self._bag.note(
                    f"the stamps of {topic} span {stamps / 1e9:.3f} s, and the log's times of its images "
                    f"{logged / 1e9:.3f} s: seconds of the recording, the player's pace and labels without a "
                    "header go by the log"
                )
