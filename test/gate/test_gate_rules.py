"""The rules' file: what it may say, and that a mistake is one line and never a rule that does nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.errors import ConfigError
from robot_vision.gate.installed import find_rules, installed_rules
from robot_vision.gate.rule import KINDS, ClassRule, LocalisedRule, ObstacleRule
from robot_vision.gate.rules import parse_rules, read_rules

ROOT = Path(__file__).resolve().parents[2]


def rule(text: str) -> str:
    return f"rules: {{mine: {{{text}}}}}"


def test_a_rule_has_its_kind_s_settings_and_defaults() -> None:
    text = rule("kind: class, topic: filters/classification, label: kitchen, speed: 1")
    (found,) = parse_rules(text).rules
    assert found == ClassRule("mine", "filters/classification", 0.5, 1.0, "kitchen", 0.5)
    (belief,) = parse_rules(rule("kind: localised, topic: filters/belief")).rules
    assert isinstance(belief, LocalisedRule) and belief.max_age_s == 1.5 and belief.speed == 0


def test_installed_files_are_rules_and_found_by_name() -> None:
    assert list(installed_rules()) == ["collision", "obstacle"]
    for name, path in installed_rules().items():
        (rule,) = find_rules(name).rules
        assert rule.KIND == path.stem and rule.limits == "forward"


@pytest.mark.parametrize("name", ["config/gate_rules.yaml", "docs/gate.md"])
def test_examples_are_rules(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text()
    if name.endswith(".md"):
        text = text.partition("```yaml\n")[2].partition("```")[0]
    assert len(parse_rules(text).rules) == (5 if name.endswith(".md") else 2)


def test_the_documentation_has_each_kind_and_key() -> None:
    text = (ROOT / "docs" / "gate.md").read_text()
    fields = {f.name for kind in KINDS.values() for f in dataclasses.fields(kind)} - {"name"}
    assert all(f"`{word}`" in text for word in (*KINDS, *fields))


def test_times_are_of_the_file() -> None:
    found = parse_rules(
        "command_max_age_s: 0.2\nmax_ahead_s: 0\nlabels: ''\n" + rule("kind: obstacle, topic: a")
    )
    assert (found.command_max_age_s, found.max_ahead_s, found.labels) == (0.2, 0.0, "")
    assert isinstance(found.rules[0], ObstacleRule)


@pytest.mark.parametrize("number", ["0", "0.", ".5", "0.25", "+1", "1.0e+1", "10"])
def test_decimal_numbers_are_numbers(number: str) -> None:
    (found,) = parse_rules(rule(f"kind: known, topic: x, speed: {number}")).rules
    assert found.speed == float(number)


def test_rules_of_one_topic_are_found_together() -> None:
    near, fresh = "{kind: obstacle, topic: x}", "{kind: fresh, topic: y, type: std_msgs/msg/Bool}"
    text = f"rules: {{a: {near}, b: {fresh}, c: {near}}}"
    assert {t: [r.name for r in rules] for t, rules in parse_rules(text).topics().items()} == {
        "x": ["a", "c"],
        "y": ["b"],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("- 1", "must be a mapping"),
        ("a: [", "no YAML"),
        ("rules: {}", "at least one rule"),
        ("rules: [1]", "at least one rule"),
        ("rules: {a: 1}", "rule 'a': it is 1: write its settings"),
        ("rules: {1: {}}", "named 1"),
        ("rules: {clock: {}}", "'clock': the gate itself"),
        (rule("topic: x"), "rule 'mine': kind is missing: use one of class, known,"),
        (rule("kind: [class]"), "Unknown kind ['class']"),
        (rule("kind: clas"), "did you mean 'class'"),
        (rule("kind: class"), "topic is missing"),
        (rule("kind: class, topic: x"), "label is missing"),
        (rule("kind: class, topic: x, label: no"), "label is False: it must be a string"),
        (rule("kind: class, topic: x, label: k, sped: 1"), "did you mean 'speed'"),
        (rule("kind: class, topic: x, label: k, speed: -1"), "speed is -1: it must be from 0 to"),
        (rule("kind: class, topic: x, label: k, speed: .nan"), "speed is nan: it must be finite"),
        (rule("kind: class, topic: x, label: k, speed: .inf"), "speed is inf: it must be finite"),
        (rule("kind: class, topic: x, label: k, probability: 2"), "probability is 2: it must be from 0 to 1"),
        (rule("kind: class, topic: x, label: k, max_age_s: 0"), "max_age_s is 0: it must be from 0.01"),
        (rule("kind: class, topic: x, label: k, speed: 1, speed: 2"), "'speed' is there twice (line 1)"),
        (rule("kind: class, topic: a b, label: k"), "topic is 'a b'"),
        (rule("kind: class, topic: x, label: k, name: y"), "key name"),
        (rule("kind: obstacle, topic: x, limits: backward"), "limits 'backward'"),
        (rule("kind: localised, topic: x, slow_for: [stale]"), "'stale'"),
        (rule("kind: localised, topic: x, slow_for: uncertain"), "must be a list"),
        (rule("kind: localised, topic: x, speed: 0.3"), "slow_for is empty and speed is 0.3"),
        (rule("kind: localised, topic: x, slow_for: [uncertain]"), "slow_for is uncertain and speed is 0"),
        ("rules: {' a': {kind: known, topic: x}}", "no space around"),
        ('rules: {"a\\nb": {kind: known, topic: x}}', "on one line"),
        (rule("kind: known, topic: x, speed: 010"), "010 (line 1) is another number in YAML"),
        (rule("kind: known, topic: x, speed: 0_5"), "0_5 (line 1)"),
        (rule("kind: known, topic: x, speed: 1:30"), "1:30 (line 1)"),
        (rule("kind: known, topic: x, speed: 0x1"), "0x1 (line 1)"),
        ("max_ahead_s: 1:0.5\n" + rule("kind: known, topic: x"), "1:0.5 (line 1)"),
        (rule("kind: uncertainty, topic: x"), "sigma_m and sigma_deg are missing"),
        (rule("kind: fresh, topic: x"), "type is ''"),
        (rule("kind: fresh, topic: x, type: Image"), "write it as sensor_msgs/msg/Image"),
        (rule("kind: fresh, topic: x, type: a/msg/B, speed: 1"), "silence always stops"),
        ("rules: {a: {kind: obstacle, topic: x}, a: {kind: obstacle, topic: y}}", "'a' is there twice"),
        ("rules: {a: {kind: obstacle, topic: x}, b: {kind: known, topic: x}}", "a topic has one type"),
        ("command_max_age_s: 0\n" + rule("kind: obstacle, topic: x"), "command_max_age_s is 0"),
        ("max_ahead_s: soon\n" + rule("kind: obstacle, topic: x"), "max_ahead_s is 'soon'"),
        ("max_age_s: 1\n" + rule("kind: obstacle, topic: x"), "Unknown key of the file 'max_age_s'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_rules(file)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.yaml cannot be read"):
        read_rules(tmp_path / "none.yaml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
keys = st.sampled_from(
    ["kind", "topic", "label", "speed", "probability", "max_age_s", "slow_for", "sigma_m", "x"]
)


@pytest.mark.slow
@given(
    st.dictionaries(st.text(max_size=5), st.dictionaries(keys, values | st.sampled_from([*KINDS])))
)
def test_any_mapping_is_rules_or_one_line(data: dict) -> None:
    import yaml

    try:
        found = parse_rules(yaml.safe_dump({"rules": data}))
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert [r.name for r in found.rules] == [*data]
