"""Labels of a bag's images: a topic, or a file of labelled time spans (YAML or CSV).

A label on a topic holds from its message until the next one. `std_msgs/String` has no stamp, so the log's
times are compared; `vision_msgs/Classification` has one. An empty label means none, and so does a word for a
missing value.

The YAML file is a list in seconds from the bag's first message:

    - {label: kitchen, from_s: 0.0, to_s: 12.5}
    - {label: hall, from_s: 14.0, to_s: 31.0}

A CSV file (or TSV) has these three names as its header, in any order.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.files.plain_yaml import YamlError, compose, construct
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import where
from robot_vision.truth.tables import missing_label, read_table

STRING = "std_msgs/msg/String"
CLASSIFICATION = "vision_msgs/msg/Classification"
_KEYS = ("label", "from_s", "to_s")
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
LABEL_KINDS = (STRING, CLASSIFICATION)

# From an image's stamp and log time to its label.
Labeller = Callable[[int, int], "str | None"]


def labels_of_topic(bag: BagFile, topic: str, hold_ns: int | None) -> Labeller:
    """Returns what finds an image's label on a topic.

    Args:
        bag: the bag.
        topic: of type String or Classification.
        hold_ns: how long a label holds at most; None until the next.

    Raises:
        ConfigError: no such topic, or of another type.
        SourceError: a message cannot be read.
    """
    rows, by_header = read_label_topic(bag, topic)
    times = [time for time, _ in rows]

    def label(stamp_ns: int, log_ns: int) -> str | None:
        now = stamp_ns if by_header else log_ns
        i = bisect.bisect_right(times, now) - 1
        if i < 0 or (hold_ns is not None and now - times[i] > hold_ns):
            return None
        return rows[i][1] or None

    return label


def read_label_topic(bag: BagFile, topic: str) -> tuple[list[tuple[int, str]], bool]:
    """Returns (time in ns, label) in the order of time, and whether times are headers' or the log's.

    Raises:
        ConfigError: no such topic, or of another type.
        SourceError: a message cannot be read.
    """
    there = [t for t, k in bag.kinds.items() if k in LABEL_KINDS]
    if topic not in there:
        raise ConfigError(f"{unknown('label topic', topic, there or ['none'])} (in {bag.path})")
    by_header = bag.kinds[topic] == CLASSIFICATION
    rows: list[tuple[int, str]] = []
    for record in bag.raw([topic]):
        message, log_ns = bag.message(record), record.log_ns
        if by_header:
            rows.append((stamp_to_ns(message.header.stamp) or log_ns, _best(message).strip()))
        else:
            rows.append((log_ns, message.data.strip()))
    rows.sort(key=lambda row: row[0])  # stable: the later of two messages at one time counts
    missing = Counter(word for _, word in rows if word and missing_label(word))
    for word, count in missing.items():
        bag.notes.append(
            f"{count} of {counted(len(rows), 'message')} on {topic} label nothing, {missing_label(word)}"
        )
    return [(time, "" if word in missing else word) for time, word in rows], by_header


def _best(message: Any) -> str:
    """Returns the class of the highest score; empty where there is none."""
    if not message.results:
        return ""
    best = max(message.results, key=lambda hypothesis: hypothesis.score)
    return str(best.class_id)


def labels_of_spans(bag: BagFile, file: Path) -> Labeller:
    """Returns what finds an image's label in a file of time spans.

    Raises:
        SourceError: the file cannot be read, or a span is not valid or overlaps another (with its line).
    """
    spans = read_spans(file)
    starts = [start for start, _, _ in spans]

    def label(stamp_ns: int, log_ns: int) -> str | None:
        # By the log's time: the bag's start is one, and a driver's clock may be another.
        seconds = (log_ns - bag.start_ns) / 1e9
        i = bisect.bisect_right(starts, seconds) - 1
        return spans[i][2] if i >= 0 and seconds < spans[i][1] else None

    return label


def read_spans(file: Path) -> Sequence[tuple[float, float, str]]:
    """Returns (from_s, to_s, label) in the order of time; see `labels_of_spans`."""
    is_table = file.suffix.lower() in (".csv", ".tsv")
    rows = [
        (*_span(value, where(file, line)), line)
        for line, value in (_table_values(file) if is_table else _yaml_values(file))
    ]
    rows.sort(key=lambda row: row[0])
    for (_, end, label, line), (start, _, other, other_line) in zip(rows, rows[1:], strict=False):
        if start < end:
            raise SourceError(
                f"{where(file, other_line)}: {other!r} from {start:g} s overlaps {label!r} of line {line}, "
                f"which ends at {end:g} s"
            )
    return [row[:3] for row in rows]


def _yaml_values(file: Path) -> Iterator[tuple[int, Any]]:
    """Yields the line and the value of each entry."""
    try:
        root = compose(file.read_bytes())
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    except YamlError as error:
        raise SourceError(f"{where(file, error.line)}: not YAML: {error}") from error
    if not isinstance(root, yaml.SequenceNode):
        raise SourceError(f"{where(file, 1)}: needs a list of {{label, from_s, to_s}}")
    for node in root.value:
        line = node.start_mark.line + 1
        for key, label in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == "label" and label.tag != _NULL and isinstance(label, yaml.ScalarNode):
                label.tag = _TEXT  # as written: yes, 010 and 1_0 would become True, 8 and 10
        try:
            yield line, construct(node)
        except YamlError as error:
            raise SourceError(f"{where(file, line)}: not YAML: {error}") from error


def _table_values(file: Path) -> Iterator[tuple[int, Any]]:
    """Yields the line and the named values of each row."""
    table = read_table(file, {key: (re.compile(key),) for key in _KEYS})
    lacking = [key for key in _KEYS if key not in table.columns]
    if lacking:
        raise SourceError(
            f"{file} lacks the columns {', '.join(lacking)}: name them in its first line"
        )
    for row in table.rows:
        yield row.number, {k: row.words[i] for k, i in table.columns.items() if i < len(row.words)}


def _span(value: Any, place: str) -> tuple[float, float, str]:
    if not isinstance(value, dict):
        raise SourceError(f"{place}: needs label, from_s and to_s")
    for key in value:
        if key not in _KEYS:
            raise SourceError(f"{place}: {unknown('key', key, _KEYS)}")
    if any(key not in value for key in _KEYS):
        raise SourceError(f"{place}: needs label, from_s and to_s")
    try:
        start, end = float(value["from_s"]), float(value["to_s"])
    except (TypeError, ValueError):
        raise SourceError(f"{place}: from_s and to_s must be seconds") from None
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise SourceError(
            f"{place}: from_s {start:g} must be at least 0 and less than to_s {end:g}"
        )
    label = str(value["label"] or "").strip()
    if not label:
        raise SourceError(f"{place}: the label is empty")
    if reason := missing_label(label):
        raise SourceError(f"{place}: the span has no label, {reason}: leave it out")
    return start, end, label
