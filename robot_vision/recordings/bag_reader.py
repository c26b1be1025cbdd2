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
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.typesys import get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from robot_vision.errors import SourceError
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.messages.types import message_types
from robot_vision.recordings.bag_survey import survey_bag
from robot_vision.recordings.storage import merged
from robot_vision.recordings.unpacking import unpack
from robot_vision.text.counts import agreeing, counted

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR begins so


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
        end_ns: log time of the last one; those of a time far ahead are none.
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
        self._survey = survey_bag(path)
        self._types = message_types()
        self.kinds, self.counts = self._survey.kinds, self._survey.counts
        self.start_ns, self.end_ns = self._survey.start_ns, self._survey.end_ns
        self.problems, self.notes = self._survey.problems, self._survey.notes

    def close(self) -> None:
        """Closes its files."""
        self._survey.close()

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
            for number, storage in enumerate(self._survey.storages)
            for part in storage.parts(topics, from_ns, until_ns)
        ]
        left_out: Counter[str] = Counter()
        last_ns: int | None = None
        late = unpacked = 0
        try:
            for number, (log_ns, block, inner, channel, data) in merged(parts):
                late += last_ns is not None and log_ns < last_ns
                last_ns = log_ns
                if not channel.readable or channel.kind != self.kinds.get(channel.topic):
                    left_out[f"of {channel.topic} are {channel.said}, and are left out"] += 1
                    continue
                packed = data
                try:
                    data = _unpacked(data, channel.form == "ros1")
                except ValueError as error:
                    left_out[f"of {channel.topic} cannot be unpacked: {error}"] += 1
                    continue
                unpacked += data is not packed
                if len(data) == 0:
                    left_out[f"of {channel.topic} hold no data"] += 1
                    continue
                place = str(self._survey.storages[number].source), block, inner
                ros1 = channel.form == "ros1"
                yield Record(channel.topic, channel.kind, log_ns, data, ros1, place)
        finally:
            for what, count in left_out.items():
                self._say(
                    self.problems,
                    f"{self.path}: {counted(count, 'message')} {agreeing(count, what)}",
                )
            if unpacked and not self._survey.says_packed:
                self.note(
                    "its messages are compressed by zstd one by one, which no metadata.yaml says: they are "
                    "unpacked"
                )
            if late:
                text = (
                    counted(
                        late, "message comes after a later one", "messages come after later ones"
                    )
                    + ", because an index is wrong"
                )
                self._say(self.notes, f"{self.path}: {text}")
            for storage in self._survey.storages:
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
            return sec * SECOND_NS + nanosec, bytes(text).decode(errors="replace")
        except (struct.error, IndexError) as error:
            raise SourceError(
                f"{self.path}: a message of {counted(len(data), 'byte')} has no header"
            ) from error

    def note(self, text: str) -> None:
        """Adds a note, once."""
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
        language, text = self._survey.definitions.get(kind, ("", ""))
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

    @staticmethod
    def _say(lines: list[str], text: str) -> None:
        if text not in lines:  # reading again finds the same
            lines.append(text)


def read_again(record: Record) -> Any:
    """Returns the message of a record whose data `Storage.fetch` gave; its type must be one of ROS.

    Raises:
        ValueError: it cannot be deserialised.
    """
    return _deserialised(_common_types(), record._replace(data=_unpacked(record.data, record.ros1)))


@functools.cache
def _common_types() -> Typestore:
    return message_types()


def _unpacked(data: bytes | memoryview, ros1: bool) -> bytes | memoryview:
    """Undoes rosbag2's compression of single messages."""
    return unpack("zstd", bytes(data)) if data[:4] == _ZSTD_MAGIC and not ros1 else data


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
