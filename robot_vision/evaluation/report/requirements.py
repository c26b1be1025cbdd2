"""`--require 'pose.median_m<=0.25'`: limits that an evaluation must keep, so that a robot's CI can use it."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from robot_vision.contract.head import Head
from robot_vision.errors import ConfigError, unknown
from robot_vision.evaluation.report.headlines import heads
from robot_vision.files.whole import write_whole
from robot_vision.text.counts import counted

_COMPARE = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_NOT_XML = re.compile("[^\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORM = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=|<|>)\s*(\S+)\s*")


@dataclass(frozen=True)
class Requirement:
    """A limit for a number of metrics.json.

    Attributes:
        path: where it stands, such as `pose.median_m`, or `pose.median_m.high` for the end of its interval.
        sign: one of `<=`, `>=`, `<`, `>`.
        limit: in the unit of metrics.json, so that shares are from 0 to 1.
    """

    path: str
    sign: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Requirement:
        """Reads `pose.median_m<=0.25`.

        Raises:
            ConfigError: it has another form.
        """
        match = _FORM.fullmatch(text)
        try:
            path, sign, limit = match.groups() if match else ("", "", "")
            number = float(limit)
        except ValueError:
            number = float("nan")
        if number != number:
            raise ConfigError(
                f"--require {text!r} is not NUMBER, one of {' '.join(_COMPARE)} and a limit, such as "
                "'pose.median_m<=0.25'"
            )
        return cls(path, sign, number)

    def __str__(self) -> str:
        return f"{self.path} {self.sign} {self.limit:.12g}"


@dataclass(frozen=True)
class RequirementVerdict:
    """A requirement, and what was measured; None where nothing could be."""

    requirement: Requirement
    value: float | None

    @property
    def kept(self) -> bool:
        """Whether it was. What was not measured is not kept."""
        r = self.requirement
        return self.value is not None and bool(_COMPARE[r.sign](self.value, r.limit))

    def __str__(self) -> str:
        found = "could not be measured"
        if self.value is not None:
            short = f"{self.value:.6g}"
            # All digits where the first six would say otherwise.
            same = replace(self, value=float(short)).kept == self.kept
            found = f"is {short if same else self.value}"
        return f"{'kept' if self.kept else 'MISSED'}: {self.requirement} ({found})"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for metrics.json."""
        return {"requirement": str(self.requirement), "value": self.value, "kept": self.kept}


def require_sections(given: Iterable[Requirement], among: Iterable[Head[Any, Any]]) -> None:
    """Refuses, before any work, numbers that no head of the model has.

    Raises:
        ConfigError: with the sections of metrics.json that there are.
    """
    there = [head.key(section.key) for head in among for section in head.judge().sections()]
    for requirement in given:
        if not any(f"{requirement.path}.".startswith(f"{section}.") for section in there):
            raise ConfigError(unknown("section of --require", requirement.path, sorted(set(there))))


def judge(given: Sequence[Requirement], metrics: Mapping[str, Any]) -> list[RequirementVerdict]:
    """Returns what came of each requirement.

    Raises:
        ConfigError: metrics.json has no such section, or the section no such number.
    """
    require_sections(given, heads(metrics))
    return [
        RequirementVerdict(requirement, _value(requirement.path, metrics)) for requirement in given
    ]


def _value(path: str, metrics: Mapping[str, Any]) -> float | None:
    node: Any = metrics
    rest = path.split(".")
    while rest:
        if node is None:
            return None
        if not isinstance(node, Mapping):
            raise ConfigError(f"--require {path}: metrics.json has nothing below a number there")
        # Names of heads and of classes may have dots.
        taken = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in node), 0)
        if not taken and node is metrics:
            return None
        if not taken:
            names = [key for key, value in node.items() if _is_number(value)]
            raise ConfigError(unknown("number of --require", path, names or sorted(node)))
        node, rest = node[".".join(rest[:taken])], rest[taken:]
    if isinstance(node, Mapping):
        if "value" not in node:
            raise ConfigError(unknown("number of --require", path, sorted(node)))
        node = node["value"]
    if node is not None and not isinstance(node, int | float):
        raise ConfigError(f"--require {path}: metrics.json has no number there")
    return None if node is None else float(node)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Mapping) and "value" in value)


def summary(verdicts: Sequence[RequirementVerdict]) -> str:
    """Returns how many were kept."""
    missed = sum(not verdict.kept for verdict in verdicts)
    of = counted(len(verdicts), "requirement")
    return f"{missed} of {of} MISSED" if missed else f"{of} kept"


def write_junit(path: Path, title: str, verdicts: Sequence[RequirementVerdict]) -> None:
    """Writes the verdicts as JUnit XML, one test case for each requirement.

    Raises:
        ConfigError: the file cannot be written.
    """
    missed = sum(not verdict.kept for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(missed), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(title), **counts})
    for verdict in verdicts:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {"classname": "robot_vision.evaluate", "name": _xml(verdict.requirement), "time": "0"},
        )
        if not verdict.kept:
            ElementTree.SubElement(case, "failure", {"message": _xml(verdict)})
    try:
        write_whole(path, ElementTree.tostring(root, "unicode", xml_declaration=True))
    except OSError as error:
        raise ConfigError(f"--junit {path} cannot be written: {error}") from error


def _xml(text: object) -> str:
    return _NOT_XML.sub("?", str(text))
