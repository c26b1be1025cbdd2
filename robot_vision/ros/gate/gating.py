"""Commands in, commands out: subscriptions, publishers and the timer of the gate while it is configured."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from vision_msgs.msg import LabelInfo

from robot_vision.errors import ConfigError
from robot_vision.gate.answers import STANDING, Command, Heard, Velocity, command, heard
from robot_vision.gate.decision import decide
from robot_vision.gate.moment import ClockWatch, Moment
from robot_vision.gate.rule import FreshRule
from robot_vision.gate.rules import Rules
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.gate.diagnostics import Said, gate_status, reason_message, said
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.qos import profile, publisher_events, subscription_events
from robot_vision.ros.node.sequence import NUMBERED
from robot_vision.ros.node.statistics import Statistics

IN, OUT = "cmd_vel_in", "cmd_vel"
_REPEATED_S = 0.5  # of a reason that stays
_HEADER_BYTES = 12  # encapsulation, seconds, nanoseconds


class Gating:
    """The gate.

    Args:
        node: owns what is made here.
        rules: of the file.
        warn: throttled log: a key and a line.
        statistics: of the node.
        on_qos: logs QoS that does not fit.

    Raises:
        ConfigError: a type of a rule's topic that is not installed.
    """

    def __init__(
        self,
        node: ManagedNode[GateParameters],
        rules: Rules,
        warn: Callable[[str, str], None],
        statistics: Statistics,
        on_qos: Callable[[str], None],
    ) -> None:
        self._node, self._rules, self._warn = node, rules, warn
        self._statistics, self._on_qos = statistics, on_qos
        p = node.parameters
        self._stamped = p.stamped
        self._types = {
            topic: _message_type(rules[0]) for topic, rules in self._rules.topics().items()
        }
        self._subscriptions: list[Any] = []
        self._timer: Any = None
        self._watch = ClockWatch()
        self._forget()
        self._labels: tuple[str, ...] | None = None
        self._said = Said((), STANDING, STANDING)
        self._said_at: Moment | None = None
        self._sent = STANDING
        self._frame = ""
        full = node.resolve_topic_name(OUT)
        self._out = node.create_lifecycle_publisher(
            TwistStamped if p.stamped else Twist,
            OUT,
            profile(p.publish_reliability, p.publish_depth),
            event_callbacks=publisher_events(full, on_qos),
        )
        latched = profile("reliable", 1, latched=True)
        from diagnostic_msgs.msg import DiagnosticStatus

        self._reason = node.create_lifecycle_publisher(DiagnosticStatus, "~/reason", latched)

    def activate(self) -> None:
        """Subscribes, and stops the robot until a command and all answers are there."""
        p, node = self._node.parameters, self._node
        self._watch = ClockWatch()
        self._forget()
        self._labels = None
        for topic, rules in self._rules.topics().items():
            # Images are large, and of those only the header is read.
            raw = all(isinstance(rule, FreshRule) for rule in rules)
            self._subscribe(
                self._types[topic], topic, functools.partial(self._on_answer, topic), raw=raw
            )
        if self._rules.labels:
            latched = profile("reliable", 1, latched=True)
            self._subscriptions.append(
                node.create_subscription(LabelInfo, self._rules.labels, self._on_labels, latched)
            )
        kind = TwistStamped if self._stamped else Twist
        self._subscribe(kind, IN, self._on_command, sender=self._on_sender)
        # Steady: simulated time that stands still must not silence the gate.
        self._timer = node.create_steady_timer(1 / p.rate_hz, self._on_tick)
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

    def destroy(self) -> None:
        """Ends everything."""
        self.deactivate()
        for publisher in (self._out, self._reason):
            self._node.destroy_lifecycle_publisher(publisher)

    # What comes in

    def _forget(self) -> None:
        self._answers: dict[str, Heard] = {}
        self._command: Command | None = None
        self._drivers: dict[bytes, Moment] = {}

    def _look(self) -> Moment:
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
        for rule in self._rules.topics()[topic]:
            if isinstance(message, bytes):
                last = Heard(now, _raw_stamp_ns(self._types[topic], message), None)
            else:
                last = heard(rule, message, now)
            self._answers[rule.name] = last
            stamp_ns = last.stamp_ns
            if last.problem:
                total = self._statistics.count("refused_answers")
                self._warn(topic, f"{topic}: refused ({total} so far): {last.problem}")
        self._act(now, now, stamp_ns)

    def _on_labels(self, message: Any) -> None:
        self._labels = tuple(entry.class_name for entry in message.class_map)
        self._act(self._look())

    def _on_sender(self, publisher: bytes) -> None:
        self._drivers[publisher] = self._look()

    def _on_command(self, message: Any) -> None:
        now = self._look()
        self._statistics.count("commands")
        self._command = command(message, self._stamped, now)
        if self._command.problem:
            total = self._statistics.count("refused_commands")
            self._warn(IN, f"A command was refused ({total} so far): {self._command.problem}")
        header = message.header if self._stamped else None
        if header is not None:
            self._frame = header.frame_id
        self._act(now, header=header, arrived=True)

    def _on_tick(self) -> None:
        self._act(self._look(), tick=True)

    # What goes out

    def _act(
        self,
        now: Moment,
        answered: Moment | None = None,
        seen_ns: int | None = None,
        header: Any = None,
        arrived: bool = False,
        tick: bool = False,
    ) -> None:
        """Decides, and sends what follows.

        Args:
            now: the time.
            answered: when the answer came that may change the decision.
            seen_ns: stamp of its image.
            header: of the command.
            arrived: whether a command came just now.
            tick: whether a stop is repeated.
        """
        try:
            what = self._decide(now)
        except BaseException:
            self._publish(STANDING, now)
            raise
        stopped = what.level == 2 and what.sent == STANDING
        # What holds the robot goes out at once; what frees it waits for the next command.
        slower = _less(what.sent, self._sent)
        if arrived or slower or (tick and stopped):
            self._publish(what.sent, now, header)
            if slower and answered is not None:
                self._sample(answered, seen_ns, what.sent == STANDING)
        self._say(what, now)

    def _decide(self, now: Moment) -> Said:
        r, last = self._rules, self._command
        drivers = sum(0 <= now.since_s(at) <= r.command_max_age_s for at in self._drivers.values())
        if not NUMBERED:  # Humble does not tell who sent a message
            drivers = self._node.count_publishers(self._node.resolve_topic_name(IN))
        decision = decide(r, self._answers, self._labels, last, drivers, self._clock, now)
        return said(decision, last.velocity if last is not None else STANDING)

    def _publish(self, velocity: Velocity, now: Moment, header: Any = None) -> None:
        self._sent = velocity
        message = TwistStamped() if self._stamped else Twist()
        twist = message
        if isinstance(message, TwistStamped):
            twist = message.twist
            if header is not None:
                message.header = header
            else:
                message.header.frame_id = self._frame
                seconds, nanoseconds = divmod(now.ros_ns, SECOND_NS)
                message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
        for vector, numbers in (
            (twist.linear, velocity.linear),
            (twist.angular, velocity.angular),
        ):
            vector.x, vector.y, vector.z = numbers
        self._out.publish(message)
        self._statistics.count("published")

    def _sample(self, answered: Moment, seen_ns: int | None, stopped: bool) -> None:
        took_ns = time.monotonic_ns() - answered.steady_ns
        self._statistics.sample("answer_to_command_ms", took_ns * 1e-6)
        if stopped and seen_ns is not None:
            age_ns = answered.ros_ns + took_ns - seen_ns
            self._statistics.sample("image_to_stop_ms", age_ns * 1e-6)

    def _say(self, what: Said, now: Moment) -> None:
        before, self._said = self._said, what
        changed = (what.level, what.rule) != (before.level, before.rule)
        first = self._said_at is None
        if changed and what.holding:
            kind = "stops" if what.level == 2 else "slows"
            self._statistics.count(f"{kind}_by_{what.rule}")
            if not what.idle:
                self._warn(f"rule {what.rule}", what.text[0].upper() + what.text[1:])
        if (
            changed or first or now.steady_ns - self._said_at.steady_ns >= _REPEATED_S * SECOND_NS  # type: ignore[union-attr]
        ):
            self._said_at = now
            self._reason.publish(reason_message(self._node.get_fully_qualified_name(), what))

    # Around it

    def status(self) -> Any:
        """Returns the entry of `/diagnostics`, and warns of rules whose topic nobody publishes."""
        problems = self._problems()
        for rule, line in problems.items():
            self._warn(f"topic of {rule}", line)
        name, out = self._node.get_fully_qualified_name(), self._node.resolve_topic_name(OUT)
        others = [
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(out)
        ]
        past = f"{out} has {len(others)} publishers ({', '.join(sorted(others))}): commands go past the gate"
        return gate_status(
            name,
            self._rules,
            self._said,
            list(problems.values()),
            past if len(others) > 1 else "",
            self._statistics,
        )

    def _problems(self) -> dict[str, str]:
        """Returns a line for each rule whose topic has no publisher of the right type."""
        found = {}
        for topic, rules in self._rules.topics().items():
            full = self._node.resolve_topic_name(topic)
            infos = self._node.get_publishers_info_by_topic(full)
            wanted = rules[0].type if isinstance(rules[0], FreshRule) else rules[0].MESSAGE
            others = {info.topic_type for info in infos} - {wanted}
            for rule in rules:
                if not infos:
                    found[rule.name] = f"rule {rule.name!r} reads {full}, which nobody publishes"
                elif others:
                    found[rule.name] = (
                        f"rule {rule.name!r} reads {full} as {wanted}, which carries "
                        f"{', '.join(sorted(others))}"
                    )
        return found


def _message_type(rule: Any) -> Any:
    """Returns the class of a rule's messages.

    Raises:
        ConfigError: it is not installed.
    """
    name = rule.type if isinstance(rule, FreshRule) else rule.MESSAGE
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"rule {rule.name!r}: type {name} is not installed: install {package}, or correct it"
        ) from error


def _raw_stamp_ns(kind: Any, data: bytes) -> int | None:
    """Returns the stamp of a serialised message; None where its type begins with no header."""
    fields = kind.get_fields_and_field_types()
    if next(iter(fields.values()), "") != "std_msgs/Header" or len(data) < _HEADER_BYTES:
        return None
    order = "little" if data[1] & 1 else "big"
    sec = int.from_bytes(data[4:8], order, signed=True)  # type: ignore[arg-type]
    return sec * SECOND_NS + int.from_bytes(data[8:12], order)  # type: ignore[arg-type]


def _less(velocity: Velocity, before: Velocity) -> bool:
    """Says whether a velocity is slower in some direction than the one before."""
    pairs = zip(
        (*velocity.linear, *velocity.angular), (*before.linear, *before.angular), strict=True
    )
    return any(abs(a) < abs(b) for a, b in pairs)
