"""Numbers that hold at a recording's frames: a field of messages, or whether a label is a certain one.

They are asked for as NAME=SOURCE, with commas between several:

    steering=/cmd_vel:angular.z*0.5     a field, times a factor; of a Twist angular.z need not be said
    steering=/joy:axes.0                an element of a list
    collision=label:collision           1 where the label is `collision`, 0 where it is another

A message's number holds until the next one. It counts from the header's stamp, or from when the message was
recorded where it has no header.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_vision.errors import ConfigError, unknown
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.storage import slashed
from robot_vision.settings.declared import names_in
from robot_vision.text.counts import counted
from robot_vision.truth.tracks import NumberTrack

NUMBERS = (
    "numbers of the images, separated by commas: NAME=TOPIC:FIELD, such as "
    "steering=/cmd_vel:angular.z*0.5 or steering=/joy:axes.0; or NAME=label:WORD, "
    "1 where the label is WORD and 0 where it is another"
)
_SOURCE = re.compile(r"([\w.]+)=(?:label:(.+)|(/?[\w/~]+)(?::([\w.]+))?(?:\*([-+.\deE]+))?)")
_FIELDS = {
    "geometry_msgs/msg/Twist": "angular.z",
    "geometry_msgs/msg/TwistStamped": "twist.angular.z",
}


@dataclass(frozen=True)
class NumberSource:
    """Where a number comes from.

    Attributes:
        name: of the number.
        label: the label for which it is 1; empty where it is a topic's.
        topic: of the messages.
        field: its path in a message; empty for that of the type.
        factor: that it is multiplied by.
    """

    name: str
    label: str = ""
    topic: str = ""
    field: str = ""
    factor: float = 1.0


def parse_numbers(text: str) -> tuple[NumberSource, ...]:
    """Reads what the module's text shows.

    Raises:
        ConfigError: it is something else, or names a number twice.
    """
    found: dict[str, NumberSource] = {}
    for word in names_in(text):
        match = _SOURCE.fullmatch(word)
        try:
            factor = float(match[5] or 1) if match else math.nan
        except ValueError:
            factor = math.nan
        if not match or not math.isfinite(factor) or match[1] in found:
            why = "two sources of one number" if match and match[1] in found else "no source"
            raise ConfigError(
                f"{word!r} is {why} of a number: give each as NAME=TOPIC:FIELD*FACTOR or NAME=label:WORD"
            )
        topic = slashed(match[3]) if match[3] else ""
        found[match[1]] = NumberSource(match[1], match[2] or "", topic, match[4] or "", factor)
    return tuple(found.values())


def numbers_of_topic(bag: BagFile, source: NumberSource, hold_ns: int | None) -> NumberTrack:
    """Reads a topic's numbers.

    Args:
        bag: the bag, whose notes get how many numbers are not finite.
        source: of a topic.
        hold_ns: how long a number holds at most; None until the next.

    Raises:
        ConfigError: no such topic or field.
        SourceError: a message cannot be read.
    """
    if source.topic not in bag.kinds:
        there = sorted(bag.kinds) or ["none"]
        raise ConfigError(
            f"{unknown(f'topic of {source.name}', source.topic, there)} (in {bag.path})"
        )
    path = source.field or _FIELDS.get(bag.kinds[source.topic], "")
    if not path:
        raise ConfigError(
            f"{source.topic} is of {bag.kinds[source.topic]}: say which field {source.name} is, as "
            f"{source.name}={source.topic}:FIELD"
        )
    times, values, by_log, lost = [], [], True, 0
    for record in bag.raw([source.topic]):
        message = bag.message(record)
        number = source.factor * _number(message, path, source)
        by_log = not hasattr(message, "header")
        if not math.isfinite(number):
            lost += 1
            continue
        stamp_ns = 0 if by_log else stamp_to_ns(message.header.stamp)
        times.append(stamp_ns or record.log_ns)
        values.append(number)
    if lost:
        bag.notes.append(
            f"{counted(lost, 'message')} on {source.topic} left out: {path} is not finite"
        )
    held = "until the next" if hold_ns is None else f"for {hold_ns / 1e9:g} s"
    text = f"{path} of {source.topic}, held {held}"
    return NumberTrack.held(np.array(times, np.int64), np.array(values), hold_ns, by_log, text)


def _number(message: Any, path: str, source: NumberSource) -> float:
    value: Any = message
    for part in path.split("."):
        try:
            value = value[int(part)] if part.isdigit() else getattr(value, part)
        except (AttributeError, TypeError, IndexError):
            there = [
                name for name in getattr(value, "__dataclass_fields__", {}) if name[:2] != "__"
            ]
            have = f": there are {', '.join(there)}" if there else ""
            raise ConfigError(
                f"Messages on {source.topic} have no field {path} ({part!r} is not there{have})"
            ) from None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"Field {path} of {source.topic} is {value!r}, which is no number"
        ) from None
