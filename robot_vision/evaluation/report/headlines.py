"""Which numbers come first, what they are called, and how they are written: as the heads' tables say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_vision.charts.svg import number
from robot_vision.contract.head import Head
from robot_vision.contract.metrics import Baseline, Metric, Section
from robot_vision.contract.rows import heads_of
from robot_vision.text.counts import counted


@dataclass(frozen=True)
class Number:
    """A value with its confidence interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Number:
        """Reads what `bootstrap.Resampler.headlines` gave."""
        return cls(data.get("value"), data.get("low"), data.get("high"))

    def text(self, unit: str, interval: bool = True) -> str:
        """Returns such as `93.1 [91.0, 94.9] %`."""
        if self.value is None:
            return "-"
        scale = 100.0 if unit == "%" else 1.0
        text = _digits(self.value * scale, unit)
        if interval and self.low is not None and self.high is not None:
            text += f" [{_digits(self.low * scale, unit)}, {_digits(self.high * scale, unit)}]"
        return f"{text} {unit}".rstrip()


def _digits(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "%" else number(float(f"{value:.3g}"))


@dataclass(frozen=True)
class Headline:
    """One row of a headline table.

    Attributes:
        section: key of its part of `metrics.json`.
        metric: what it is.
        number: of the network.
        baselines: by name.
    """

    section: str
    metric: Metric
    number: Number
    baselines: dict[str, Number] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in `metrics.json`."""
        return self.metric.key


@dataclass(frozen=True)
class Chapter:
    """A part of metrics.json for people.

    Attributes:
        key: of it.
        title: of its tables.
        section: that says what it is; the first where several heads have it.
        numbers: of metrics.json.
        lines: those of `section.metrics` that there are.
    """

    key: str
    title: str
    section: Section
    numbers: Mapping[str, Any]
    lines: list[Headline]

    @property
    def baselines(self) -> dict[str, Baseline]:
        """The baselines that any of the lines has."""
        there = {name for line in self.lines for name in line.baselines}
        return {name: b for name, b in self.section.baselines.items() if name in there}

    @property
    def counted(self) -> str:
        """What the numbers of its table are of, such as `301 frames`; empty where it is not known."""
        shown = self.section.shown
        found = self.numbers.get("frames") if shown is None else shown(self.numbers)
        if found is None or isinstance(found, str):
            return found or ""
        return counted(found, "frame")

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Returns the header and the cells of its table."""
        header = [self.counted, "network", *(b.words for b in self.baselines.values())]
        cells = []
        for line in self.lines:
            unit, each = line.metric.unit, (line.baselines.get(name) for name in self.baselines)
            others = (b.text(unit, interval=False) if b else "" for b in each)
            cells.append([line.metric.words, line.number.text(unit), *others])
        return header, cells


def heads(metrics: Mapping[str, Any]) -> list[Head[Any, Any]]:
    """Returns the heads that metrics may be of."""
    kinds = {name: {"kind": kind} for name, kind in metrics.get("kinds", {}).items()}
    return heads_of(tuple(metrics.get("heads", ())), kinds)


def chapters(metrics: Mapping[str, Any]) -> list[Chapter]:
    """Returns the parts of metrics.json that there are; one whose numbers could not be had has no lines."""
    found: dict[str, Chapter] = {}
    for head in heads(metrics):
        for section in head.judge().sections():
            key = head.key(section.key)
            numbers = metrics.get(key)
            if not numbers:
                continue
            lines = _lines(key, section, numbers)
            if key in found:
                found[key].lines.extend(lines)
            else:
                named = "" if head.name == head.kind else f" ({head.name})"
                found[key] = Chapter(key, section.title + named, section, numbers, lines)
    return list(found.values())


def _lines(key: str, section: Section, numbers: Mapping[str, Any]) -> list[Headline]:
    def there(value: Any) -> bool:
        return isinstance(value, Mapping) and value.get("value") is not None

    return [
        Headline(
            key,
            metric,
            Number.of(numbers[metric.key]),
            {
                name: Number.of(values[metric.key])
                for name, values in numbers.get("baselines", {}).items()
                if there(values.get(metric.key))
            },
        )
        for metric in section.metrics
        if there(numbers.get(metric.key))
        and (not metric.more_classes_than or len(numbers["labels"]) > metric.more_classes_than)
    ]


def headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """Returns the rows of all tables."""
    return [line for chapter in chapters(metrics) for line in chapter.lines]
