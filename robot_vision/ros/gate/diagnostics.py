"""What the gate says of itself: the latched reason, and its entries of `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robot_vision.gate.answers import Velocity
from robot_vision.gate.decision import Decision, Limit
from robot_vision.gate.rules import COMMAND, Rules
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message

FREE_TEXT = "free"
OK, WARN, ERROR = 0, 1, 2
COUNTERS = ("commands", "published", "refused_answers", "refused_commands", "clock_jumps")
STAGES = ("answer_to_command_ms", "image_to_stop_ms")


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


def gate_status(
    node: str, rules: Rules, what: Said, problems: Sequence[str], past: str, statistics: Statistics
) -> Any:
    """Returns the gate's entry of /diagnostics.

    Args:
        node: its full name.
        rules: of the file.
        what: it did last.
        problems: of the topics that the rules read.
        past: who else publishes commands, past the gate; empty if nobody does.
        statistics: of the node.
    """
    level, text = (OK if what.idle else min(what.level, WARN)), what.text
    if problems:
        level, text = WARN, f"{text}; {'; '.join(problems)}"
    if past:
        level, text = ERROR, f"{past}; {text}"
    counters: Mapping[str, int] = statistics.counters
    values: dict[str, object] = {
        "rule": what.rule,
        "rules": len(rules.rules),
        "rules_without_topic": len(problems),
        **{name: counters.get(name, 0) for name in COUNTERS},
        **{
            name: counters[name]
            for name in sorted(counters)
            if name.startswith(("stops_by_", "slows_by_"))
        },
    }
    for stage in STAGES:
        found = statistics.percentiles(stage)
        values[f"{stage}_p50"], values[f"{stage}_p99"] = found.p50, found.p99
    return status_message(level, f"{node}: gate", text, "", values)
