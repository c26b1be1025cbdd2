"""Reads rosbags whole: ROS 1, and rosbag2 with SQLite or MCAP, as a folder or as its bare files.

Everybody reads through `BagFile`: inference, evaluation, data sets, maps, truth and the player. What its
data hold is read, whatever metadata.yaml, a summary or an index say; where those disagree with the data,
`problems` names what is missing, and `notes` what is there all the same.
"""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.typesys import get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from robot_vision.errors import SourceError
from robot_vision.interfaces import message_types
from robot_vision.sources.recording_folder import (
    Folder,
    differences,
    find_files,
    promised,
    promised_span,
    surveyed,
)
from robot_vision.sources.storage import Channel, Storage, Times, merged
from robot_vision.sources.unpacking import unpack

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no serialised message begins so
_REMEDY = "copy it again, or repair it (mcap recover, ros2 bag reindex, rosbag reindex), or record it again"
_DAY_NS = 86_400 * 10**9
_YEAR_2000_NS = 946_684_800 * 10**9
_CLOSE_NS = 1_000_000  # metadata.yaml and data agree on a time
_COPIED = 0.1  # of a file's messages that lie in another file, too, from which on it is no chance


class Record(NamedTuple):
    """A message of a recording.

    Attributes:
        topic: with a leading slash.
        kind: such as `sensor_msgs/msg/Image`.
        log_ns: when it was recorded.
        data: serialised, by ROS 1 or as CDR.
        ros1: which of the two.
        place: its file, and where in it; for `Storage.fetch`.
    """

    topic: str
    kind: str
    log_ns: int
    data: bytes | memoryview
    ros1: bool
    place: tuple[str, int, int] = ("", 0, 0)


class BagFile:
    """A rosbag.

    Args:
        path: a ROS 1 bag, a rosbag2's folder, or its bare file.

    Attributes:
        path: as given.
        kinds: every topic (with its leading slash) and its message type.
        counts: how many messages each topic has.
        start_ns: log time of the first message; messages of a clock that was not yet set are none.
        problems: what is missing, damaged or left out, a line each. Reading may add to them.
        notes: where indexes and metadata are wrong, though everything is read, a line each. Reading may add
            to them.

    Raises:
        SourceError: nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SourceError(f"{path} does not exist: give a rosbag (folder, .bag, .db3 or .mcap)")
        self.path = path
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._types = message_types()
        self._storages: list[Storage] = []
        self._definitions: dict[str, tuple[str, str]] = {}
        try:
            self._open()
        except OSError as error:
            self.close()
            raise SourceError(f"{path} cannot be read as a bag: {error}") from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        folder = find_files(self.path)
        problems, notes = [*folder.problems], [*folder.notes]
        for name, file in folder.files.items():
            try:
                self._storages.append(surveyed(file, name))
            except (ValueError, OSError) as error:
                problems.append(f"{name} cannot be read: {error}")
        self._leave_out_copies(folder, problems, notes)
        said = [] if folder.metadata is None else [promised(folder.metadata)]
        for counts, _, _ in said:
            if counts != self._counted():
                for storage in self._storages:
                    storage.verify()
        damaged = any(storage.problems for storage in self._storages)
        for storage in self._storages:
            if storage.promised is not None:
                who = f"the index of {storage.name}"
                less, more = differences(who, storage.promised, storage.counts())
                problems += [*storage.problems, *less]
                notes += [*storage.notes, *more]
            else:
                problems += storage.problems
                notes += storage.notes
            storage.problems.clear()
            storage.notes.clear()
        self._storages = [s for s in self._storages if s.channels]
        self.counts = self._counted()
        self.kinds: dict[str, str] = {}
        for storage in self._storages:
            for channel in storage.channels.values():
                self._take(channel, storage.name, notes)
        times = self._times()
        self.start_ns = self._start(times, notes)
        for counts, kinds, total in said:
            less, more = differences("metadata.yaml", counts, self.counts, total)
            problems += less
            notes += more
            self._compare(folder, kinds, times, notes, not (problems or more))
        if problems and not self.kinds:
            raise SourceError(
                f"{self.path} cannot be read as a bag: {'; '.join(problems)}: {_REMEDY}"
            )
        if problems:
            what = "damaged" if damaged else "not whole"
            self.problems.append(
                f"{self.path} is {what}, what is whole is read: {'; '.join(problems)} ({_REMEDY})"
            )
        self.notes += [f"{self.path}: {note}" for note in notes]

    def close(self) -> None:
        """Closes its files."""
        for storage in self._storages:
            storage.close()

    def raw(
        self,
        topics: Collection[str],
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """Yields messages in the order of the log.

        What cannot be read is left out and added to `problems`.

        Args:
            topics: those wanted.
            from_ns: only messages that were logged then or later.
            until_ns: only messages that were logged before.
        """
        parts = [
            (number, part)
            for number, storage in enumerate(self._storages)
            for part in storage.parts(topics, from_ns, until_ns)
        ]
        left_out: Counter[str] = Counter()
        last_ns: int | None = None
        late = 0
        try:
            for number, (log_ns, block, inner, channel, data) in merged(parts):
                late += last_ns is not None and log_ns < last_ns
                last_ns = log_ns
                if not channel.readable:
                    left_out[f"of {channel.topic} are {channel.said}, which is not read here"] += 1
                    continue
                try:
                    data = _unpacked(data)
                except ValueError as error:
                    left_out[f"of {channel.topic} cannot be unpacked: {error}"] += 1
                    continue
                if len(data) == 0:
                    left_out[f"of {channel.topic} hold no data"] += 1
                    continue
                place = str(self._storages[number].source), block, inner
                ros1 = channel.form == "ros1"
                yield Record(channel.topic, channel.kind, log_ns, data, ros1, place)
        finally:
            for what, count in left_out.items():
                self._say(self.problems, f"{self.path}: {count} messages {what}")
            if late:
                text = f"{late} messages come after later ones, because an index is wrong"
                self._say(self.notes, f"{self.path}: {text}")
            for storage in self._storages:
                for text in storage.problems:
                    self._say(self.problems, f"{self.path} is damaged: {text}")
                for text in storage.notes:
                    self._say(self.notes, f"{self.path}: {text}")

    def header(self, record: Record) -> tuple[int, str]:
        """Returns the stamp and frame of a message's header, its first field, without what follows.

        Raises:
            SourceError: it has none.
        """
        data = record.data
        try:
            if record.ros1:
                sec, nanosec, length = struct.unpack_from("<III", data, 4)
                text = data[16 : 16 + length]
            else:
                order = "<" if data[1] & 1 else ">"
                sec, nanosec, length = struct.unpack_from(order + "iII", data, 4)
                text = data[16 : 16 + max(0, length - 1)]
            return sec * 10**9 + nanosec, bytes(text).decode(errors="replace")
        except (struct.error, IndexError) as error:
            raise SourceError(
                f"{self.path}: a message of {len(data)} bytes has no header"
            ) from error

    def note_unstamped(self, topic: str, count: int, total: int) -> None:
        """Notes that for images without a stamp the log's time was taken."""
        if count:
            text = f"{count} of {total} images of {topic} have no stamp: the log's time is taken for it"
            self._say(self.notes, f"{self.path}: {text}")

    def message(self, record: Record) -> Any:
        """Returns a deserialised message.

        Raises:
            SourceError: its definition is not in the bag, or the data do not fit it.
        """
        if record.kind not in self._types.fielddefs:
            self._learn(record.kind)
        try:
            return _deserialised(self._types, record)
        except ValueError as error:
            raise SourceError(f"{self.path}: {error}") from error

    def cdr(self, record: Record) -> bytes | memoryview:
        """Returns a message as ROS 2 serialises it; raises as `message`."""
        if not record.ros1:
            return record.data
        if record.kind not in self._types.fielddefs:
            self._learn(record.kind)
        try:
            return _as_cdr(self._types, record)
        except ValueError as error:
            raise SourceError(f"{self.path}: {error}") from error

    def _learn(self, kind: str) -> None:
        """Registers a type from the definition that the bag holds."""
        language, text = self._definitions.get(kind, ("", ""))
        try:
            if "idl" in language:
                found = get_types_from_idl(text)
            else:
                found = get_types_from_msg(text, kind)
            known = self._types.fielddefs
            self._types.register({k: v for k, v in found.items() if k not in known})
        except Exception as error:
            raise SourceError(
                f"{self.path}: {kind} is not known and the bag does not define it"
            ) from error
        if not text or kind not in self._types.fielddefs:
            raise SourceError(f"{self.path}: {kind} is not known and the bag does not define it")

    def _take(self, channel: Channel, name: str, notes: list[str]) -> None:
        said = self.kinds.setdefault(channel.topic, channel.said)
        if said != channel.said:
            notes.append(f"{channel.topic} is {said}, and {channel.said} in {name}")
        if channel.definition:
            self._definitions.setdefault(channel.kind, (channel.language, channel.definition))

    def _counted(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for storage in self._storages:
            total.update(storage.counts())
        return total

    def _times(self) -> dict[str, Times]:
        found: dict[str, list[Times]] = {}
        for storage in self._storages:
            for topic, times in storage.times().items():
                found.setdefault(topic, []).append(times)
        return {topic: np.concatenate(times) for topic, times in found.items()}

    def _leave_out_copies(self, folder: Folder, problems: list[str], notes: list[str]) -> None:
        """Drops files whose messages lie in another one, too: a copy, packed and unpacked, converted."""
        order = {name: i for i, name in enumerate(folder.listed)}
        by_size = sorted(
            self._storages, key=lambda s: (-sum(s.counts().values()), order.get(s.name, len(order)))
        )
        kept: list[tuple[Storage, dict[str, Times]]] = []
        for storage in by_size:
            own = storage.times()
            count = sum(len(t) for t in own.values())
            copy = False
            for other, times in kept if count else ():
                both = sum(int(np.isin(t, times[n]).sum()) for n, t in own.items() if n in times)
                if both == count:
                    notes.append(
                        f"the {count} messages of {storage.name} are in {other.name}, too, and are read once"
                    )
                    copy = True
                    break
                if both > _COPIED * count:
                    problems.append(
                        f"{both} of {count} messages of {storage.name} are in {other.name}, too, and are "
                        "read twice: remove one of the files"
                    )
            if copy:
                storage.close()
            else:
                kept.append((storage, own))
        chosen = [storage for storage, _ in kept]
        self._storages = [storage for storage in self._storages if storage in chosen]

    def _start(self, times: dict[str, Times], notes: list[str]) -> int:
        """Returns the log time from which seconds count, and notes messages of another clock."""
        every = np.sort(np.concatenate([*times.values(), np.zeros(0, np.int64)]))
        if not len(every):
            return 0
        # As numbers with a point: a difference of whole ones may not fit into 64 bits.
        breaks = np.flatnonzero(np.diff(every.astype(np.float64)) > _DAY_NS) + 1
        groups = np.split(every, breaks)
        sizes = [len(group) for group in groups]
        main = len(sizes) - 1 - int(np.argmax(sizes[::-1]))
        start_ns = int(groups[main][0])
        strange = []
        for i, group in enumerate(groups):
            unset = group[-1] < _YEAR_2000_NS <= groups[main][0]
            if i != main and (unset or 4 * len(group) < sizes[main]):
                strange.append(group)
            elif i < main:
                start_ns = min(start_ns, int(group[0]))
        for group in strange:
            first, last = int(group[0]), int(group[-1])
            topics = {
                topic: int(((t >= first) & (t <= last)).sum()) for topic, t in sorted(times.items())
            }
            named = ", ".join(f"{count} of {topic}" for topic, count in topics.items() if count)
            notes.append(
                f"{len(group)} messages ({named}) are logged at {_date(first)}, more than a day apart from "
                f"the others: seconds count from {_date(start_ns)}"
            )
        return start_ns

    def _compare(
        self,
        folder: Folder,
        kinds: dict[str, str],
        times: dict[str, Times],
        notes: list[str],
        whole: bool,
    ) -> None:
        """Notes where metadata.yaml is wrong on types and times."""
        assert folder.metadata is not None
        for topic, kind in kinds.items():
            if self.kinds.get(topic, kind) != kind:
                notes.append(
                    f"metadata.yaml calls {topic} {kind}, and it is {self.kinds[topic]}: the data are "
                    "believed"
                )
        every = np.concatenate([*times.values(), np.zeros(0, np.int64)])
        if not whole or not len(every):  # what is missing changes the times, too
            return
        first, last = int(every.min()), int(every.max())
        start, duration = promised_span(folder.metadata)
        if start is not None and min(abs(start - first), abs(start - self.start_ns)) > _CLOSE_NS:
            notes.append(
                f"metadata.yaml says that it starts at {_date(start)}, and its first message is of "
                f"{_date(first)}: the data are believed"
            )
        elif duration is not None and abs(duration - (last - first)) > _CLOSE_NS:
            notes.append(
                f"metadata.yaml says that it lasts {duration / 1e9:.3f} s, and its messages span "
                f"{(last - first) / 1e9:.3f} s: the data are believed"
            )

    @staticmethod
    def _say(lines: list[str], text: str) -> None:
        if text not in lines:  # reading again finds the same
            lines.append(text)


def read_again(record: Record) -> Any:
    """Returns the message of a record whose data `Storage.fetch` gave; its type must be one of ROS.

    Raises:
        ValueError: it cannot be deserialised.
    """
    return _deserialised(_common_types(), record._replace(data=_unpacked(record.data)))


@functools.cache
def _common_types() -> Typestore:
    return message_types()


def _unpacked(data: bytes | memoryview) -> bytes | memoryview:
    """Undoes rosbag2's compression of single messages."""
    return unpack("zstd", bytes(data)) if data[:4] == _ZSTD_MAGIC else data


def _deserialised(types: Typestore, record: Record) -> Any:
    data = _as_cdr(types, record)
    try:
        return types.deserialize_cdr(data, record.kind)
    except Exception as error:  # damaged bytes make rosbags raise almost anything
        raise ValueError(f"a {record.kind} cannot be deserialised: {error}") from error


def _as_cdr(types: Typestore, record: Record) -> bytes | memoryview:
    if not record.ros1:
        return record.data
    try:
        return types.ros1_to_cdr(record.data, record.kind)
    except Exception as error:
        raise ValueError(f"a {record.kind} cannot be deserialised: {error}") from error


def _date(time_ns: int) -> str:
    try:
        date = datetime.fromtimestamp(time_ns / 1e9, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
