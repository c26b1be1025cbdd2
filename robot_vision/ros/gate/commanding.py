"""What nodes that command a robot share: answers by rule, the clock, the timer, commands and their reason."""

from __future__ import annotations

import functools
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.duration import Duration

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.gate.answers import STANDING, Heard, Velocity, heard
from robot_vision.gate.decision import Limit, stopping
from robot_vision.gate.moment import ClockWatch, Moment
from robot_vision.gate.rule import FreshRule, Rule
from robot_vision.gate.rules import Rules
from robot_vision.messages.stamps import SECOND_NS, measured_ns, set_stamp
from robot_vision.ros.gate.diagnostics import OK, WARN, Said, reason_message
from robot_vision.ros.gate.parameters import CommandParameters, DrivingParameters
from robot_vision.ros.node.graph import other_types
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.qos import profile, publisher_events, subscription_events
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message

P = TypeVar("P", bound=CommandParameters)
D = TypeVar("D", bound=DrivingParameters)

OUT = "cmd_vel"
_REPEATED_S = 0.5  # of a reason that stays
_LAST_S = 0.5  # for the last command to arrive
_HELD_BY = ("stops_by_", "slows_by_")  # counters of rules
_HEADER_BYTES = 12  # encapsulation, seconds, nanoseconds


class Commanding(ABC, Generic[P]):
    """Subscriptions to what rules read, and the publishers of commands and of their reason.

    Args:
        node: owns what is made here.
        rules: whose topics are read.
        warn: throttled log: a key and a line.
        statistics: of the node.
        on_qos: logs QoS that does not fit.

    Attributes:
        KIND: what it is called in `/diagnostics`.
        COUNTERS: that are there.
        TOPICS: of commands.
        OTHERS: level in `/diagnostics`, and what it means, where others publish commands too.

    Raises:
        ConfigError: a type of a rule's topic that is not installed.
    """

    KIND: ClassVar[str]
    COUNTERS: ClassVar[tuple[str, ...]] = ("published", "refused_answers", "clock_jumps")
    TOPICS: ClassVar[tuple[str, ...]] = (OUT,)
    OTHERS: ClassVar[tuple[int, str]] = (WARN, "commands mix")

    def __init__(
        self,
        node: ManagedNode[P],
        rules: Rules,
        warn: Callable[[str, str], None],
        statistics: Statistics,
        on_qos: Callable[[str], None],
    ) -> None:
        self._node, self._rules, self._warn = node, rules, warn
        self._statistics, self._on_qos = statistics, on_qos
        p = node.parameters
        self._stamped = p.stamped_cmd_vel
        self._by_topic = rules.topics()
        self._types = {topic: _message_type(found[0]) for topic, found in self._by_topic.items()}
        self._subscriptions: list[Any] = []
        self._timer: Any = None
        self._watch = ClockWatch()
        self._clock = ""
        self._answers: dict[str, Heard] = {}
        self._newest_ns = 0
        self._said = Said((), STANDING, STANDING)
        self._said_at: Moment | None = None
        self._sent = STANDING
        self._header: tuple[int, str] | None = (
            None  # of the last command that has one: stamp, frame
        )
        full = node.resolve_topic_name(OUT)
        self._out = node.create_lifecycle_publisher(
            TwistStamped if self._stamped else Twist,
            OUT,
            profile(p.publish_reliability, p.publish_depth),
            event_callbacks=publisher_events(full, on_qos),
        )
        latched = profile("reliable", 1, latched=True)
        self._reason = node.create_lifecycle_publisher(DiagnosticStatus, "~/reason", latched)

    def activate(self) -> None:
        """Subscribes; the robot stands until all answers are there."""
        self._watch, self._header, self._said_at = ClockWatch(), None, None
        self._forget()
        for topic, rules in self._by_topic.items():
            # Images are large, and of those only the header is read.
            raw = all(isinstance(rule, FreshRule) for rule in rules)
            callback = functools.partial(self._on_answer, topic)
            self._subscribe(self._types[topic], topic, callback, raw=raw)
        # Steady: simulated time that stands still must not silence the node.
        self._timer = self._node.create_steady_timer(
            1 / self._node.parameters.rate_hz, self._on_tick
        )
        self._on_tick()

    def _subscribe(self, kind: Any, topic: str, callback: Any, **options: Any) -> None:
        p, full = self._node.parameters, self._node.resolve_topic_name(topic)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                full,
                callback,
                profile(p.subscribe_reliability, 1),
                event_callbacks=subscription_events(full, self._on_qos),
                **options,
            )
        )

    def deactivate(self) -> None:
        """Stops the robot, and listens no more; calling it again does nothing."""
        if self._timer is None:
            return
        self._node.destroy_timer(self._timer)
        self._timer = None
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._publish(STANDING, self._look())
        # The process may end now, and what the base has not got by then is lost.
        self._out.wait_for_all_acked(Duration(seconds=_LAST_S))

    def destroy(self) -> None:
        """Ends everything."""
        self.deactivate()
        for publisher in (self._out, self._reason):
            self._node.destroy_lifecycle_publisher(publisher)

    # What comes in

    def _forget(self) -> None:
        self._answers = {}
        self._newest_ns = 0  # stamp of an answer

    def _look(self) -> Moment:
        """Returns the time; after a jump of the clock nothing counts that was heard before."""
        clock: Any = self._node.get_clock()
        now = Moment(clock.now().nanoseconds, time.monotonic_ns(), clock.ros_time_is_active)
        self._clock, jumped = self._watch.look(now)
        if jumped:
            self._forget()
            self._statistics.count("clock_jumps")
            self._warn("clock", f"Stopped: {self._clock}")
        return now

    def _on_answer(self, topic: str, message: Any) -> None:
        now = self._look()
        stamp_ns = None
        for rule in self._by_topic[topic]:
            if isinstance(message, bytes):
                last = _heard_raw(self._types[topic], message, now)
            else:
                last = heard(rule, message, now)
            self._answers[rule.name] = last
            stamp_ns = last.stamp_ns
            if last.problem:
                total = self._statistics.count("refused_answers")
                self._warn(topic, f"{topic}: refused ({total} so far): {last.problem}")
        if stamp_ns is not None and self._newest_ns < stamp_ns <= now.ros_ns:
            self._newest_ns = stamp_ns
            self._clock = self._watch.answered(now)
        self._answered(now, stamp_ns)

    @abstractmethod
    def _answered(self, now: Moment, seen_ns: int | None) -> None:
        """Acts on an answer; its stamp is that of its image."""

    @abstractmethod
    def _on_tick(self) -> None:
        """Looks for silence, and repeats a stop."""

    def on_change(self) -> None:
        """Takes up changed parameters that are not read where they are used."""

    # What goes out

    def _publish(
        self, velocity: Velocity, now: Moment, header: tuple[int, str] | None = None
    ) -> None:
        """Sends a command, under its header (stamp in nanoseconds, frame), or under the time.

        In simulated time what is repeated has the header of the last command: a simulator that waits for the
        command of an image must not take a repeated stop for it.
        """
        self._sent = velocity
        self._header = header if header is not None else self._header
        message = TwistStamped() if self._stamped else Twist()
        twist = message
        if isinstance(message, TwistStamped):
            twist = message.twist
            stamp_ns, message.header.frame_id = self._header or (now.ros_ns, "")
            repeated = header is None and not now.simulated
            set_stamp(message.header.stamp, now.ros_ns if repeated else stamp_ns)
        for vector, numbers in (
            (twist.linear, velocity.linear),
            (twist.angular, velocity.angular),
        ):
            vector.x, vector.y, vector.z = numbers
        self._out.publish(message)
        self._statistics.count("published")

    def _stand(self, stops: tuple[Limit, ...], now: Moment) -> None:
        """Stops the robot, and says why."""
        if not (now.simulated and self._header is None):  # see `_publish`
            self._publish(STANDING, now)
        self._say(Said(stops, STANDING, STANDING), now)

    def _say(self, what: Said, now: Moment) -> None:
        before, self._said = self._said, what
        changed = (what.level, what.rule) != (before.level, before.rule)
        if changed and what.holding:
            kind = "stops" if what.level == 2 else "slows"
            self._statistics.count(f"{kind}_by_{what.rule}")
            if not what.idle:
                self._warn(f"rule {what.rule}", what.text[0].upper() + what.text[1:])
        last = self._said_at
        if changed or last is None or now.steady_ns - last.steady_ns >= _REPEATED_S * SECOND_NS:
            self._said_at = now
            self._reason.publish(reason_message(self._node.get_fully_qualified_name(), what))

    # Around it

    def status(self) -> Any:
        """Returns the entry of `/diagnostics`, and warns of answers that nobody publishes."""
        what, problems, counters = self._said, self._problems(), self._statistics.counters
        level = WARN if problems or (what.holding and not self._as_wanted(what)) else OK
        values: dict[str, object] = {
            "rule": what.rule,
            "speed_m_s": self._sent.linear[0],
            "turn_rad_s": self._sent.angular[2],
            "rules_without_topic": len(problems),
            **self._values(),
            **{name: counters.get(name, 0) for name in self.COUNTERS},
            **{name: n for name, n in sorted(counters.items()) if name.startswith(_HELD_BY)},
        }
        if others := self._others():
            level, text = max(level, self.OTHERS[0]), self.OTHERS[1]
            problems.append(f"{others}: {text}")
        text = "; ".join([self._doing(what), *problems])
        name = self._node.get_fully_qualified_name()
        return status_message(level, f"{name}: {self.KIND}", text, "", values)

    def _as_wanted(self, what: Said) -> bool:
        """Says whether nothing is wrong where the robot is held."""
        return what.idle

    def _doing(self, what: Said) -> str:
        return what.text

    def _values(self) -> dict[str, object]:
        """Returns what else `/diagnostics` says."""
        return {}

    def _problems(self) -> list[str]:
        """Returns a line for each rule whose topic has no publisher of the right type, after a warning.

        And one for each topic of commands that others use with another type.
        """
        found = []
        for topic, rules in self._by_topic.items():
            full = self._node.resolve_topic_name(topic)
            infos = self._node.get_publishers_info_by_topic(full)
            wanted = _type_of(rules[0])
            others = {info.topic_type for info in infos} - {wanted}
            if infos and not others:
                continue
            for rule in rules:
                line = f"rule {rule.name!r} reads {full}, which nobody publishes"
                if others:
                    line = (
                        f"rule {rule.name!r} reads {full} as {wanted}, which carries "
                        f"{', '.join(sorted(others))}"
                    )
                found.append(line)
                self._warn(f"topic of {rule.name}", line)
        for topic in self.TOPICS:
            for line in other_types(self._node, topic, self._stamped):
                found.append(line)
                self._warn(f"type of {topic}", line)
        return found

    def _others(self) -> str:
        """Returns who else publishes commands; empty if nobody does."""
        out = self._node.resolve_topic_name(OUT)
        names = [
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(out)
        ]
        if len(names) < 2:
            return ""
        return f"{out} has {len(names)} publishers ({', '.join(sorted(names))})"


class Driving(Commanding[D]):
    """What nodes share that drive by the answers which they hear, and stand where one is missing."""

    def _stops(self, now: Moment) -> tuple[Limit, ...]:
        """Returns why the robot has to stand."""
        ahead_s = self._node.parameters.max_ahead_s
        return stopping(self._rules.rules, self._answers, ahead_s, self._clock, now)

    def _command(
        self,
        velocity: Velocity,
        now: Moment,
        stamp_ns: int,
        *limits: Limit,
        frame: str = "base_link",
    ) -> None:
        """Sends a command for an image, and says what limits it."""
        self._publish(velocity, now, (stamp_ns, frame))
        self._say(Said(limits, velocity, velocity), now)


def _type_of(rule: Rule) -> str:
    return rule.type if isinstance(rule, FreshRule) else rule.MESSAGE


def _message_type(rule: Rule) -> Any:
    """Returns the class of a rule's messages.

    Raises:
        ConfigError: it is not installed.
    """
    name = _type_of(rule)
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"rule {rule.name!r}: type {name} is not installed: install {package}, or correct it"
        ) from error


def _heard_raw(kind: Any, data: bytes, at: Moment) -> Heard:
    """Returns a serialised message, of which only the stamp is read; see `heard`."""
    try:
        stamp_ns = _raw_stamp_ns(kind, data)
        return Heard(at, None if stamp_ns is None else measured_ns(stamp_ns), None)
    except MeasurementError as error:
        return Heard(at, None, None, str(error))


def _raw_stamp_ns(kind: Any, data: bytes) -> int | None:
    """Returns the stamp of a serialised message; None where its type begins with no header."""
    fields = kind.get_fields_and_field_types()
    if next(iter(fields.values()), "") != "std_msgs/Header" or len(data) < _HEADER_BYTES:
        return None
    order: Any = "little" if data[1] & 1 else "big"
    sec = int.from_bytes(data[4:8], order, signed=True)
    return sec * SECOND_NS + int.from_bytes(data[8:12], order)
