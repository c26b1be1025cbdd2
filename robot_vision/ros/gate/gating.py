"""Commands in, commands out: what the gate does while it is configured."""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from vision_msgs.msg import LabelInfo

from robot_vision.gate.answers import STANDING, Command, Velocity, command
from robot_vision.gate.decision import decide
from robot_vision.gate.moment import Moment
from robot_vision.ros.gate.commanding import OUT, Commanding
from robot_vision.ros.gate.diagnostics import ERROR, Said, said
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.sequence import NUMBERED

IN = "cmd_vel_in"


class Gating(Commanding[GateParameters]):
    """The gate; see `Commanding`."""

    KIND = "gate"
    COUNTERS = ("commands", "refused_commands", *Commanding.COUNTERS)
    TOPICS = (IN, OUT)
    OTHERS = (ERROR, "commands go past the gate")

    def activate(self) -> None:
        """Subscribes, and stops the robot until a command and all answers are there."""
        self._labels: tuple[str, ...] | None = None
        super().activate()
        if self._rules.labels:
            latched = profile("reliable", 1, latched=True)
            self._subscriptions.append(
                self._node.create_subscription(
                    LabelInfo, self._rules.labels, self._on_labels, latched
                )
            )
        kind = TwistStamped if self._stamped else Twist
        self._subscribe(kind, IN, self._on_command, sender=self._on_sender)

    # What comes in

    def _forget(self) -> None:
        super()._forget()
        self._command: Command | None = None
        self._drivers: dict[bytes, Moment] = {}

    def _answered(self, now: Moment, seen_ns: int | None) -> None:
        what = self._decided(now)
        slower = _less(what.sent, self._sent)
        if slower:  # what frees the robot waits for the next command
            self._publish(what.sent, now)
            self._sample(now, seen_ns, what.sent == STANDING)
        self._say(what, now)

    def _on_labels(self, message: Any) -> None:
        self._labels = tuple(entry.class_name for entry in message.class_map)
        self._answered(self._look(), None)

    def _on_sender(self, publisher: bytes) -> None:
        self._drivers[publisher] = self._look()

    def _on_command(self, message: Any) -> None:
        now = self._look()
        self._statistics.count("commands")
        self._command = command(message, self._stamped, now)
        if self._command.problem:
            total = self._statistics.count("refused_commands")
            self._warn(IN, f"A command was refused ({total} so far): {self._command.problem}")
        what = self._decided(now)
        header = None
        if self._command.stamp_ns is not None:
            header = self._command.stamp_ns, message.header.frame_id
        self._publish(what.sent, now, header)
        self._say(what, now)

    def _on_tick(self) -> None:
        now = self._look()
        what = self._decided(now)
        stopped = what.level == 2 and what.sent == STANDING
        # Nobody has driven yet: a simulator that waits for a command must not take this for one.
        unused = now.simulated and self._header is None
        if _less(what.sent, self._sent) or (stopped and not unused):
            self._publish(what.sent, now)
        self._say(what, now)

    # What goes out

    def _decided(self, now: Moment) -> Said:
        """Returns what the rules make of the last command; a bug stops the robot before it is reported."""
        try:
            r, last = self._rules, self._command
            drivers = sum(
                0 <= now.since_s(at) <= r.command_max_age_s for at in self._drivers.values()
            )
            if not NUMBERED:  # Humble does not tell who sent a message
                drivers = self._node.count_publishers(self._node.resolve_topic_name(IN))
            decision = decide(r, self._answers, self._labels, last, drivers, self._clock, now)
            return said(decision, last.velocity if last is not None else STANDING)
        except BaseException:
            self._publish(STANDING, now)
            raise

    def _sample(self, answered: Moment, seen_ns: int | None, stopped: bool) -> None:
        took_ns = time.monotonic_ns() - answered.steady_ns
        self._statistics.sample("answer_to_command_ms", took_ns * 1e-6)
        if stopped and seen_ns is not None:
            age_ns = answered.ros_ns + took_ns - seen_ns
            self._statistics.sample("image_to_stop_ms", age_ns * 1e-6)

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {"rules": len(self._rules.rules)}
        for stage in ("answer_to_command_ms", "image_to_stop_ms"):
            found = self._statistics.percentiles(stage)
            values[f"{stage}_p50"], values[f"{stage}_p99"] = found.p50, found.p99
        return values


def _less(velocity: Velocity, before: Velocity) -> bool:
    """Says whether a velocity is slower in some direction than the one before."""
    pairs = zip(
        (*velocity.linear, *velocity.angular), (*before.linear, *before.angular), strict=True
    )
    return any(abs(a) < abs(b) for a, b in pairs)
