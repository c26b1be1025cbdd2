"""What YAML reads otherwise than people do: refused in every file that people write, in one line."""

import pytest

from robot_vision.bundle.bundle import MANIFEST, ModelBundle
from robot_vision.errors import RobotVisionError
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.filters.class_file import read_class_file
from robot_vision.gate.rules import read_rules
from robot_vision.training.config_file import read_config


@pytest.mark.parametrize("text", ["1e-3", "1E3", "-2.5e-1", "+1e+2", "1.e3", ".5e1"])
def test_floats_need_no_point(text):
    assert load_yaml(f"a: {text}") == {"a": float(text)}


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "0x1e3z", "'1e3'"])
def test_what_is_no_number_stays_text(text):
    assert load_yaml(f"a: {text}") == {"a": text.strip("'")}


@pytest.mark.parametrize(
    "text", ["010", "-017", "0x10", "0b11", "1_000", "1_0.5", "1:30", "1:30.5", "0_5"]
)
def test_a_number_that_yaml_takes_for_another_is_refused(text):
    with pytest.raises(
        YamlError, match=r"\(line 2\) is another number in YAML: write it in decimal"
    ):
        load_yaml(f"b: 1\na: [{text}]")
    assert load_yaml(f"a: '{text}'") == {"a": text}
    assert load_yaml(f"a: {text}", foreign=True)["a"] != text


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "b: {a: 1, 'a': 1}", "- {x: {a: 1, a: 2}}", "? 1\n: x\n? 1\n: y"]
)
def test_equal_keys_are_refused(text):
    with pytest.raises(YamlError, match=r"'[a1]' is there twice \(line \d\): give it once"):
        load_yaml(text)
    load_yaml(text, foreign=True)


def test_equal_words_of_other_types_are_other_keys():
    assert load_yaml("1: a\n'1': b") == {1: "a", "1": "b"}


def test_aliases_of_aliases_are_looked_at_once():
    lines = ["a0: &a0 [1, 2]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 17))]
    assert load_yaml("\n".join(lines))["a1"] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    "reader",
    [
        read_config,
        read_rules,
        lambda file: ModelBundle.load(file.parent),
        lambda file: read_class_file(file, ["a", "b"]),
    ],
)
@pytest.mark.parametrize(("text", "said"), [("x: 1\nx: 2\n", "twice"), ("x: 010\n", "010")])
def test_every_file_that_people_write_is_read_so(tmp_path, reader, text, said):
    file = tmp_path / MANIFEST
    file.write_text(text)
    with pytest.raises(RobotVisionError, match=said) as error:
        reader(file)
    assert "\n" not in str(error.value)
