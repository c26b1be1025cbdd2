"""YAML from a user or from the internet: training, time spans of labels, classes, networks."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from fuzz import scratch
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError, RobotVisionError, SourceError
from robot_vision.filters.class_file import read_class_file
from robot_vision.training.config_file import read_config
from robot_vision.truth.bag_labels import read_spans

MAX_LEN = 1 << 10
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """Byte 0: which file; then its text."""
    choice, text = (data[0] % 4 if data else 0), data[1:]
    try:
        if choice == 0:
            read_config(scratch.file("train.yaml", text))
        elif choice == 1:
            for start, end, label in read_spans(scratch.file("spans.yaml", text)):
                assert 0 <= start < end and label
        elif choice == 2:
            read_class_file(scratch.file("classes.yaml", text), ("hall", "kitchen"))
        else:
            try:
                plain = json.loads(text)
            except (ValueError, RecursionError):
                return
            spec = NetworkSpec.from_dict(plain)
            assert NetworkSpec.from_dict(spec.to_dict()) == spec
    except (ConfigError, SourceError) as error:
        _check_message(error)


def _check_message(error: RobotVisionError) -> None:
    assert len(str(error)) < 20_000, "the message repeats the input many times"


def seeds() -> list[bytes]:
    """Returns a good one of each, and the known bombs."""
    network = {"backbone": "resnet18", "heads": {"place": {"clusters": 4}}}
    laughs = b"a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: &d [*c,*c,*c]\ne: *d\n"
    spans = b"- {label: hall, from_s: 0, to_s: 2}\n- {label: b, from_s: 2, to_s: 3}\n"
    classes = b"prior: {hall: 1}\nrates: {hall: {kitchen: 0.1}}\ntraining_prior: {hall: 3}\n"
    training = (
        b"data: {kind: images, path: x}\nloop: {epochs: 1e1}\nnetwork: {backbone: resnet18}\n"
    )
    odd = [b"2020-99-99", b"a: 1:99:99", b"? [a]: b", b"<<: 1", b"- &x [*x]", b"!!binary x"]
    return [
        b"\0" + training,
        b"\1" + spans,
        b"\2" + classes,
        b"\3" + json.dumps(network).encode(),
        *(bytes([i]) + text for i in range(3) for text in (laughs, *odd)),
    ]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns YAML with keys that are known and values of every type."""
    key = st.sampled_from(
        ("data", "kind", "loop", "epochs", "network", "heads", "place", "clusters", "backbone")
        + ("prior", "rates", "hall", "kitchen", "label", "from_s", "to_s", "input", "mean")
    )
    leaf = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.text(max_size=8)
        | key
    )
    tree = st.recursive(
        leaf, lambda t: st.lists(t, max_size=4) | st.dictionaries(key, t, max_size=4), max_leaves=12
    )
    # JSON is YAML, and prints what YAML's own writer would quote otherwise.
    return st.builds(lambda c, t: bytes([c]) + json.dumps(t).encode(), st.integers(0, 3), tree)
