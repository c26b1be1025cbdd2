"""What became of a command, and the latched reason that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robot_vision.gate.answers import Velocity
from robot_vision.gate.decision import Decision, Limit
from robot_vision.gate.rules import COMMAND
from robot_vision.ros.node.status import status_message

FREE_TEXT = "free"
OK, WARN, ERROR = 0, 1, 2


@dataclass(frozen=True)
class Said:
    """What the gate did with the last command.

    Attributes:
        holding: the limits that held it, the lowest first.
        wanted: what was commanded.
        sent: what went out.
    """

    holding: tuple[Limit, ...]
    wanted: Velocity
    sent: Velocity

    @property
    def level(self) -> int:
        """0 lets through, 1 slows, 2 stops, as levels of a DiagnosticStatus."""
        if not self.holding:
            return OK
        return ERROR if self.holding[0].speed <= 0 else WARN

    @property
    def rule(self) -> str:
        """Name of the rule that holds the robot most; `free` if none does."""
        return self.holding[0].rule if self.holding else FREE_TEXT

    @property
    def text(self) -> str:
        """The same in a sentence."""
        if not self.holding:
            return FREE_TEXT
        first = self.holding[0]
        done = "stopped" if first.speed <= 0 else f"slowed to {first.speed:.2g} m/s"
        of = " ahead" if first.forward else ""
        return f"{done}{of} by {first.rule}: {first.why}"

    @property
    def idle(self) -> bool:
        """Whether the robot stands only because nobody commands it."""
        return [limit.rule for limit in self.holding] == [COMMAND]


def said(decision: Decision, wanted: Velocity) -> Said:
    """Returns what a decision makes of a command."""
    return Said(decision.holding(wanted), wanted, decision.applied(wanted))


def reason_message(node: str, what: Said) -> Any:
    """Returns the message of `~/reason`: level OK, WARN for slowed, ERROR for stopped; its text is a rule."""
    values: dict[str, object] = {
        "text": what.text,
        "commanded_m_s": what.wanted.speed,
        "sent_m_s": what.sent.speed,
    }
    for limit in what.holding:
        values[limit.rule] = f"{limit.speed:.3g} m/s: {limit.why}"
    return status_message(what.level, f"{node}: reason", what.rule, "", values)
