"""Opens the files of a recording, and compares what they hold with what they promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from robot_vision.errors import SourceError
from robot_vision.recordings.recording_folder import (
    Folder,
    differences,
    find_files,
    message_compression,
    promised,
    promised_span,
    surveyed,
)
from robot_vision.recordings.storage import Channel, Storage, Times, merged
from robot_vision.text.counts import agreeing, counted

_REMEDY = "copy it again, or repair it (mcap recover, ros2 bag reindex, rosbag reindex), or record it again"
_DAY_NS = 86_400 * 10**9
_YEAR_2000_NS = 946_684_800 * 10**9
_CLOSE_NS = 1_000_000  # metadata.yaml and data agree on a time
_COPIED = 0.1  # of a file's messages that lie in another file, too, from which on it is no chance
_COMPARED = 4  # messages of each topic by which a copy is distinguished from another recording


@dataclass
class Survey:
    """What is in a recording.

    Attributes:
        storages: its files.
        kinds: every topic (with its leading slash) and its message type.
        counts: how many messages each topic has.
        definitions: of message types that are in it: language and text.
        start_ns: log time of the first message; messages of a clock that was not yet set are none.
        end_ns: log time of the last one; those of a time far ahead are none.
        says_packed: whether metadata.yaml says that messages are compressed one by one.
        problems: what is missing, damaged or left out, a line each.
        notes: where indexes and metadata are wrong, though everything is read, a line each.
    """

    storages: list[Storage] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    definitions: dict[str, tuple[str, str]] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0
    says_packed: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Closes its files."""
        for storage in self.storages:
            storage.close()


def survey_bag(path: Path) -> Survey:
    """Opens a recording.

    Raises:
        SourceError: nothing in it can be read.
    """
    found = Survey()
    try:
        _survey(path, found)
    except OSError as error:
        found.close()
        raise SourceError(f"{path} cannot be read as a bag: {error}") from error
    except BaseException:
        found.close()
        raise
    return found


def _survey(path: Path, found: Survey) -> None:
    folder = find_files(path)
    problems, notes = found.problems, found.notes
    notes += folder.notes
    if not folder.files:
        raise SourceError(
            f"{path} has no file of a rosbag2 (.mcap, .db3){''.join(f'; {m}' for m in folder.missing)}"
        )
    for name, file in folder.files.items():
        try:
            found.storages.append(surveyed(file, name))
        except (ValueError, OSError) as error:
            problems.append(f"{name} cannot be read: {error}")
    _leave_out_copies(found, list(folder.listed))
    said = None if folder.metadata is None else promised(folder.metadata)
    if said is not None and said[0] != _counted(found.storages):
        for storage in found.storages:
            storage.verify()
    damaged = any(storage.problems for storage in found.storages)
    for storage in found.storages:
        problems += storage.problems
        notes += storage.notes
        counts = storage.counts()
        promise = counts if storage.promised is None else storage.promised
        who = f"the index of {storage.name}"
        less, more = differences(who, promise, counts, storage.promised_total)
        problems += less
        notes += more
        storage.problems.clear()
        storage.notes.clear()
    found.storages = [storage for storage in found.storages if storage.channels]
    found.counts = _counted(found.storages)
    channels = [(c, s.name) for s in found.storages for c in s.channels.values()]
    for channel, name in sorted(channels, key=lambda c: not c[0].readable):
        _take(found, channel, name)
    times = _times(found.storages)
    _find_start(found, times)
    if said is not None:
        counts, kinds, total = said
        less, more = differences("metadata.yaml", counts, found.counts, total)
        # Where all messages are there all the same, the file was only renamed.
        (problems if less or not found.counts else notes).extend(folder.missing)
        problems += less
        notes += more
        packer = message_compression(folder.metadata or {})
        found.says_packed = bool(packer)
        if packer not in ("", "zstd"):
            problems.append(f"messages are compressed by {packer}, which is not read here")
        _compare(found, folder, kinds, times, not (problems or more))
    if problems and not found.kinds:
        raise SourceError(f"{path} cannot be read as a bag: {'; '.join(problems)}: {_REMEDY}")
    if problems:
        what = "damaged" if damaged else "not whole"
        text = f"{path} is {what}, what is whole is read: {'; '.join(problems)} ({_REMEDY})"
        found.problems = [text]
    found.notes = [f"{path}: {note}" for note in notes]


def _take(found: Survey, channel: Channel, name: str) -> None:
    said = found.kinds.setdefault(channel.topic, channel.said)
    if said != channel.said:
        found.notes.append(f"{channel.topic} is {said}, and {channel.said} in {name}")
    if channel.definition:
        found.definitions.setdefault(channel.kind, (channel.language, channel.definition))


def _counted(storages: list[Storage]) -> Counter[str]:
    total: Counter[str] = Counter()
    for storage in storages:
        total.update(storage.counts())
    return total


def _times(storages: list[Storage]) -> dict[str, Times]:
    found: dict[str, list[Times]] = {}
    for storage in storages:
        for topic, times in storage.times().items():
            found.setdefault(topic, []).append(times)
    return {topic: np.concatenate(times) for topic, times in found.items()}


def _leave_out_copies(found: Survey, listed: list[str]) -> None:
    """Drops files whose messages lie in another one, too: a copy, packed and unpacked, converted."""
    order = {name: i for i, name in enumerate(listed)}
    by_size = sorted(
        found.storages, key=lambda s: (-sum(s.counts().values()), order.get(s.name, len(order)))
    )
    kept: list[tuple[Storage, dict[str, Times]]] = []
    for storage in by_size:
        own = {topic: np.sort(times) for topic, times in storage.times().items() if len(times)}
        count = sum(len(t) for t in own.values())
        copied = False
        for other, times in kept:
            shared = {
                topic: t[np.isin(t, times[topic])]
                for topic, t in own.items()
                if topic in times and t[0] <= times[topic][-1] and times[topic][0] <= t[-1]
            }
            both = sum(len(t) for t in shared.values())
            same = bool(both) and _same_data(storage, other, shared)
            if same and both == count:
                found.notes.append(
                    f"the {counted(count, 'message')} of {storage.name} "
                    f"{agreeing(count, 'are')} in {other.name}, too, and "
                    f"{agreeing(count, 'are')} read once"
                )
                copied = True
                break
            if both > _COPIED * count:
                what = "are in" if same else "have the topics and times of others in"
                found.problems.append(
                    f"{both} of {counted(count, 'message')} of {storage.name} {what} "
                    f"{other.name}, too, and both "
                    "are read: remove one of the files, or give one by itself"
                )
        if copied:
            storage.close()
        else:
            kept.append((storage, own))
    chosen = [storage for storage, _ in kept]
    found.storages = [storage for storage in found.storages if storage in chosen]


def _find_start(found: Survey, times: dict[str, Times]) -> None:
    """Finds the log time from which seconds count, and notes messages of another clock."""
    every = np.sort(np.concatenate([*times.values(), np.zeros(0, np.int64)]))
    if not len(every):
        return
    # As numbers with a point: a difference of whole ones may not fit into 64 bits.
    breaks = np.flatnonzero(np.diff(every.astype(np.float64)) > _DAY_NS) + 1
    groups = np.split(every, breaks)
    sizes = [len(group) for group in groups]
    main = len(sizes) - 1 - int(np.argmax(sizes[::-1]))
    start_ns, end_ns = int(groups[main][0]), int(groups[main][-1])
    strange = []
    for i, group in enumerate(groups):
        unset = group[-1] < _YEAR_2000_NS <= groups[main][0]
        if i != main and (unset or 4 * len(group) < sizes[main]):
            strange.append(group)
        else:
            start_ns, end_ns = min(start_ns, int(group[0])), max(end_ns, int(group[-1]))
    for group in strange:
        first, last = int(group[0]), int(group[-1])
        counts = {t: int(((x >= first) & (x <= last)).sum()) for t, x in sorted(times.items())}
        # What is published once, as /tf_static, may be recorded at any time.
        counts = {t: count for t, count in counts.items() if 0 < count < len(times[t])}
        if counts:
            named = ", ".join(f"{count} of {topic}" for topic, count in counts.items())
            found.notes.append(
                f"{counted(sum(counts.values()), 'message')} ({named}) "
                f"{agreeing(sum(counts.values()), 'are')} logged at "
                f"{_date(first)}, more than a day "
                f"apart from the others: seconds count from {_date(start_ns)}"
            )
    found.start_ns, found.end_ns = start_ns, end_ns


def _compare(
    found: Survey, folder: Folder, kinds: dict[str, str], times: dict[str, Times], whole: bool
) -> None:
    """Notes where metadata.yaml is wrong on types and times."""
    assert folder.metadata is not None
    for topic, kind in kinds.items():
        if found.kinds.get(topic, kind) != kind:
            found.notes.append(
                f"metadata.yaml calls {topic} {kind}, and it is {found.kinds[topic]}: the data are "
                "believed"
            )
    every = np.concatenate([*times.values(), np.zeros(0, np.int64)])
    if not whole or not len(every):  # what is missing changes the times, too
        return
    first, last = int(every.min()), int(every.max())
    start, duration = promised_span(folder.metadata)
    if start is not None and min(abs(start - first), abs(start - found.start_ns)) > _CLOSE_NS:
        found.notes.append(
            f"metadata.yaml says that it starts at {_date(start)}, and its first message is of "
            f"{_date(first)}: the data are used"
        )
    elif duration is not None and abs(duration - (last - first)) > _CLOSE_NS:
        found.notes.append(
            f"metadata.yaml says that it lasts {duration / 1e9:.3f} s, and its messages span "
            f"{(last - first) / 1e9:.3f} s: the data are used"
        )


def _same_data(a: Storage, b: Storage, shared: dict[str, Times]) -> bool:
    """Returns whether some messages that two files have at the same times are the same."""
    for topic, times in shared.items():
        for time_ns in times[:: max(1, len(times) // _COMPARED)].tolist():
            found = [
                sorted(
                    bytes(message.data)
                    for _, message in merged((0, p) for p in s.parts([topic], time_ns, time_ns + 1))
                )
                for s in (a, b)
            ]
            if found[0] != found[1]:
                return False
    return True


def _date(time_ns: int) -> str:
    try:
        date = datetime.fromtimestamp(time_ns / 1e9, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
