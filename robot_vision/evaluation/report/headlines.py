"""Which numbers come first, what they are called, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_vision.charts.svg import number

SECTIONS = {
    "classification": "Classification",
    "open_set": "Known or unknown",
    "uncertainty": "Unknown images, and several answers to one",
    "pose": "Camera pose in the map, without alignment",
    "place": "Place recognition",
}

# Section, key, words, unit (% for shares), and whether more is better.
_HEADLINES: tuple[tuple[str, str, str, str, bool], ...] = (
    ("classification", "top1", "Top-1 accuracy", "%", True),
    ("classification", "top5", "Top-5 accuracy", "%", True),
    ("classification", "macro_recall", "Macro recall", "%", True),
    ("classification", "macro_precision", "Macro precision", "%", True),
    ("classification", "nll", "Negative log likelihood", "", False),
    ("classification", "brier", "Brier score", "", False),
    ("classification", "ece", "Expected calibration error", "%", False),
    ("classification", "aurc", "Area under risk-coverage", "", False),
    ("open_set", "auroc", "AUROC", "%", True),
    ("open_set", "aupr_known", "AUPR, known", "%", True),
    ("open_set", "aupr_unknown", "AUPR, unknown", "%", True),
    ("open_set", "fpr_at_95_tpr", "False positives at 95 % true positives", "%", False),
    ("uncertainty", "kept", "Kept, of all frames", "%", True),
    ("uncertainty", "known_kept", "Kept, of known classes", "%", True),
    ("uncertainty", "unknown_refused", "Called unknown, of other labels", "%", True),
    ("uncertainty", "kept_and_wrong", "Kept and wrong", "%", False),
    ("uncertainty", "mutual_information", "Mean mutual information", "nats", False),
    ("uncertainty", "spread_m", "Median spread of positions", "m", False),
    ("uncertainty", "spread_deg", "Median spread of rotations", "deg", False),
    ("pose", "median_m", "Median position error", "m", False),
    ("pose", "median_deg", "Median rotation error", "deg", False),
    ("pose", "mean_m", "Mean position error", "m", False),
    ("pose", "mean_deg", "Mean rotation error", "deg", False),
    ("pose", "p90_m", "90th percentile of position", "m", False),
    ("pose", "p90_deg", "90th percentile of rotation", "deg", False),
    ("pose", "within_0.05m_2deg", "Within 0.05 m and 2 deg", "%", True),
    ("pose", "within_0.25m_5deg", "Within 0.25 m and 5 deg", "%", True),
    ("pose", "within_0.5m_10deg", "Within 0.5 m and 10 deg", "%", True),
    ("place", "recall_at_1", "Recall@1", "%", True),
    ("place", "recall_at_5", "Recall@5", "%", True),
    ("place", "recall_at_10", "Recall@10", "%", True),
    ("place", "recall_at_20", "Recall@20", "%", True),
    ("place", "average_precision", "Average precision", "%", True),
    ("place", "recall_at_100_precision", "Recall at 100 % precision", "%", True),
)

BASELINES = {
    "class_prior": "class prior",
    "chance": "chance",
    "max_probability": "max. probability",
    "mean_pose": "mean pose",
    "most_similar_image": "most similar image",
    "nearest_pose": "nearest position",
}


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
    """One row of the headline table.

    Attributes:
        section: a key of `SECTIONS`.
        key: its name in `metrics.json`.
        words: for people.
        unit: `%`, `m`, `deg` or none.
        more_is_better: whether it shall be high.
        number: of the network.
        baselines: by name.
    """

    section: str
    key: str
    words: str
    unit: str
    more_is_better: bool
    number: Number
    baselines: dict[str, Number] = field(default_factory=dict)


def headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """Returns the rows for which there are numbers."""
    found = []
    for section, key, words, unit, better in _HEADLINES:
        part = metrics.get(section)
        if not part or not isinstance(part.get(key), Mapping) or part[key].get("value") is None:
            continue
        baselines = {
            name: Number.of(values[key])
            for name, values in part.get("baselines", {}).items()
            if isinstance(values.get(key), Mapping) and values[key].get("value") is not None
        }
        number_ = Number.of(part[key])
        found.append(Headline(section, key, words, unit, better, number_, baselines))
    return found


def by_section(rows: list[Headline]) -> dict[str, list[Headline]]:
    """Returns the rows of each section that has any."""
    return {
        s: [r for r in rows if r.section == s]
        for s in SECTIONS
        if any(r.section == s for r in rows)
    }


def baseline_names(rows: list[Headline]) -> list[str]:
    """Returns the baselines that any of the rows has, in a fixed order."""
    there = {name for row in rows for name in row.baselines}
    return [n for n in BASELINES if n in there] + sorted(there - set(BASELINES))
