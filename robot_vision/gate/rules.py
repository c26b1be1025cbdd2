"""The rules' file: read and checked as a whole, so that a typing error is no rule that never applies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_vision.errors import ConfigError, unknown
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.gate.rule import KINDS, ClassRule, FreshRule, LocalisedRule, Rule, UncertaintyRule
from robot_vision.settings.declared import check_declared, option
from robot_vision.settings.mappings import check_mapping, from_mapping

COMMAND, CLOCK, DRIVERS = "command", "clock", "drivers"  # the gate's own rules
_OWN = (COMMAND, CLOCK, DRIVERS)


@dataclass(frozen=True)
class Rules:
    """What the file says.

    Attributes:
        rules: in the order of the file.
    """

    rules: tuple[Rule, ...] = ()
    command_max_age_s: float = option(
        0.5, "Age from which a command is stale, in seconds.", low=0.01, high=60
    )
    max_ahead_s: float = option(
        0.1,
        "By how much a stamp may be ahead of the clock, as of another computer, in seconds.",
        low=0,
        high=60,
    )
    labels: str = option(
        "perception/label_info",
        "Topic with the model's classes, which labels of rules must be among; empty does not check them.",
    )

    def topics(self) -> dict[str, list[Rule]]:
        """Returns the rules of each topic."""
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            found.setdefault(rule.topic, []).append(rule)
        return found


def read_rules(path: str | Path) -> Rules:
    """Reads and checks a file.

    Raises:
        ConfigError: one line with the file, the rule, the key, and what is allowed.
    """
    file = Path(path).expanduser()
    try:
        return parse_rules(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def parse_rules(text: str | bytes) -> Rules:
    """Returns the rules of a file's text.

    Raises:
        ConfigError: see `read_rules`; without the file.
    """
    try:
        data = load_yaml(text)
    except YamlError as error:
        raise ConfigError(f"no YAML: {error}") from error
    own = ("command_max_age_s", "max_ahead_s", "labels")
    given = check_mapping("the file", data, ("rules",), own)
    named = given["rules"]
    if not isinstance(named, dict) or not named:
        raise ConfigError(
            f"rules is {named!r}: write at least one rule, as its name and its settings"
        )
    rules = tuple(_rule(name, settings) for name, settings in named.items())
    found = from_mapping(Rules, "the file", {key: given[key] for key in own if key in given})
    check_declared("", found)
    _refuse_two_types(rules)
    return Rules(rules, found.command_max_age_s, found.max_ahead_s, found.labels)


def _rule(name: object, settings: Any) -> Rule:
    words = isinstance(name, str) and name.isprintable() and name == name.strip()
    if not isinstance(name, str) or not words or not 0 < len(name) <= 80:
        raise ConfigError(
            f"a rule is named {name!r}: use words on one line, up to 80 characters, and no space around them"
        )
    if name in _OWN:
        raise ConfigError(f"rule {name!r}: the gate itself has a rule of this name: use another")
    try:
        if not isinstance(settings, dict):
            raise ConfigError(f"it is {settings!r}: write its settings, such as kind and topic")
        if "kind" not in settings:
            raise ConfigError(f"kind is missing: use one of {', '.join(KINDS)}")
        word = settings["kind"]
        if not isinstance(word, str) or word not in KINDS:
            raise ConfigError(unknown("kind", word, KINDS))
        kind = KINDS[word]
        values = {key: value for key, value in settings.items() if key != "kind"}
        if "name" in values:
            raise ConfigError("it has a key name: its name stands before it")
        if "topic" not in values:
            raise ConfigError("topic is missing: name the topic that it reads")
        rule = from_mapping(kind, kind.KIND, {"name": name, **values})
        check_declared("", rule)
        _check(rule, values)
    except ConfigError as error:
        raise ConfigError(f"rule {name!r}: {error}") from None
    return rule


def _check(rule: Rule, given: dict[str, Any]) -> None:
    if not re.fullmatch(r"[~/]?[A-Za-z_][A-Za-z0-9_/]*", rule.topic.replace("~/", "/", 1)):
        raise ConfigError(f"topic is {rule.topic!r}: use the name of a topic")
    if isinstance(rule, ClassRule) and not rule.label.strip():
        raise ConfigError("label is missing: name a class of the model")
    if isinstance(rule, UncertaintyRule) and rule.sigma_m is None and rule.sigma_deg is None:
        raise ConfigError("sigma_m and sigma_deg are missing: give one or both")
    if isinstance(rule, LocalisedRule) and bool(rule.slow_for) != (rule.speed > 0):
        raise ConfigError(
            f"slow_for is {', '.join(rule.slow_for) or 'empty'} and speed is {rule.speed:g}: the "
            "robot is held to the one for the other, so give both or neither"
        )
    if isinstance(rule, FreshRule):
        if not re.fullmatch(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*", rule.type):
            raise ConfigError(f"type is {rule.type!r}: write it as sensor_msgs/msg/Image")
        if "speed" in given:
            raise ConfigError("speed is of no use here: silence always stops")


def _refuse_two_types(rules: tuple[Rule, ...]) -> None:
    types: dict[str, tuple[str, str]] = {}
    for rule in rules:
        message = rule.type if isinstance(rule, FreshRule) else rule.MESSAGE
        name, other = types.setdefault(rule.topic, (rule.name, message))
        if other != message:
            raise ConfigError(
                f"rule {rule.name!r}: topic {rule.topic} would carry {message}, and {other} by rule "
                f"{name!r}: a topic has one type"
            )
