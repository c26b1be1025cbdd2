"""What rosbags hold as it is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from robot_vision.errors import ImageError, MeasurementError, SourceError
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.text.counts import counted
from robot_vision.viewing.messages import LATCHED, Shown


class BagView:
    """Shows bags, and keeps account of it.

    Args:
        shown: shows their messages.

    Attributes:
        counts: messages that were shown, by topic.
        notes: what was left out or read otherwise, a line each.
        problems: what could not be read or shown, a line each.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.problems: list[str] = []

    def show(
        self,
        path: Path,
        skip: Collection[str] = (),
        before: Callable[[int], None] = lambda log_ns: None,
    ) -> None:
        """Shows the messages of a bag.

        Args:
            path: of the bag.
            skip: topics that are left out, since they are seen elsewhere.
            before: is called with the log's time before each message is shown.

        Raises:
            SourceError: it cannot be read, or nothing in it can be shown.
        """
        bag = BagFile(path)
        try:
            kinds = bag.kinds
            topics = [t for t, k in kinds.items() if t not in skip and self._shown.shows(t, k)]
            others = [f"{t} ({k})" for t, k in kinds.items() if t not in topics and t not in skip]
            if not topics:
                known = f": {', '.join(others)}" if others else ""
                raise SourceError(f"{path} has nothing that can be shown{known}")
            if others:
                self.notes.append(f"{path}: not shown: {', '.join(others)}")
            bad: Counter[str] = Counter()
            first: dict[str, str] = {}
            once = [t for t in topics if kinds[t] in LATCHED]  # names come before what they name
            for wanted in (once, [t for t in topics if t not in once]):
                for record in bag.raw(wanted) if wanted else ():
                    before(record.log_ns)
                    try:
                        message = bag.message(record)
                        self._shown.show(record.topic, record.kind, message, record.log_ns)
                        self.counts[record.topic] += 1
                    except (ImageError, MeasurementError, SourceError) as error:
                        bad[record.topic] += 1
                        first.setdefault(record.topic, str(error))
            self.problems += [
                f"{path}: {counted(n, 'message')} of {topic} cannot be shown: {first[topic]}"
                for topic, n in bad.items()
            ]
            self.problems += bag.problems
            self.notes += bag.notes
        finally:
            bag.close()
