"""The network's settings: what is written is read back, and what is wrong is named."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec
from robot_vision.settings.mappings import from_mapping

SPEC = NetworkSpec(
    backbone="mobilenet_v2",
    input=InputSpec(96, 128, "letterbox"),
    heads={
        "classifier": ClassifierSpec(
            ("a", "b", "ünknöwn door"), temperature=1.5, unknown_threshold=0.25
        ),
        "pose": PoseSpec(map_frame="lab", reduce_channels=32, hidden=64),
        "place": PlaceSpec(clusters=8, descriptor_size=128),
    },
)


def test_from_dict_reads_what_to_dict_wrote_through_yaml():
    assert NetworkSpec.from_dict(yaml.safe_load(yaml.safe_dump(SPEC.to_dict()))) == SPEC


@given(st.sets(st.sampled_from(["classifier", "pose", "place"]), min_size=1))
def test_outputs_are_those_of_the_heads(heads):
    spec = SPEC.with_heads(**{n: None for n in set(SPEC.heads) - heads})
    names = set(spec.outputs)
    assert ("probabilities" in names) == ("classifier" in heads)
    assert ("position" in names) == ("pose" in heads)
    assert ("descriptor" in names) == ("place" in heads)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("heads", "vlad"), {}, "Unknown key of heads 'vlad'"),
        (("heads", "pose", "hiden"), 3, "did you mean 'hidden'"),
        (("heads", "pose", "hidden"), "3", "whole number"),
        (("heads", "pose", "hidden"), True, "whole number"),
        (("heads", "pose", "hidden"), 0, "from 1"),
        (("heads", "pose"), 7, "must be a mapping"),
        (("heads", "classifier", "labels"), ["a"], "at least 2"),
        (("heads", "classifier", "labels"), ["a", "a"], "all different"),
        (("heads", "classifier", "labels"), "ab", "must be a list"),
        (("heads", "classifier", "temperature"), 0, "positive"),
        (("heads", "classifier", "temperature"), float("nan"), "finite"),
        (("heads", "classifier", "score"), "entropy", "use one of max_probability"),
        (("heads",), {}, "at least one of"),
        (("input", "height"), 0, "from 16"),
        (("input", "resize"), "stretch", "use one of squash"),
        (("input", "std"), [1, 1, 0], "three positive"),
        (("backbone",), 18, "name"),
        (("surprise",), 1, "Unknown key of network"),
    ],
)
def test_from_dict_names_what_is_wrong(path, value, words):
    data = SPEC.to_dict()
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ConfigError, match=words) as caught:
        NetworkSpec.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "x", 3, {"backbone": "a"}, {"heads": {}}])
def test_from_dict_refuses_what_is_no_network(data):
    with pytest.raises(ConfigError):
        NetworkSpec.from_dict(data)


def test_from_mapping_takes_a_whole_number_for_a_float():
    assert from_mapping(ClassifierSpec, "classifier", {"labels": ["a", "b"], "temperature": 2}) == (
        ClassifierSpec(("a", "b"), temperature=2.0)
    )
