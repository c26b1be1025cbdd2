"""Arrays in the format of safetensors: as the package has them, and a ValueError for whatever is broken."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from robot_vision.files.tensors import dump_tensors, load_tensors

TENSORS = {
    "a/b": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "images": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3),
    "ids": np.array([[-1], [5]], np.int64),
    "none": np.zeros((0, 3), np.float16),
    "yes": np.array([True, False]),
}


def same(found):
    assert found.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_the_package_reads_what_is_written_and_the_reverse():
    same(load(dump_tensors(TENSORS)))
    same(load_tensors(save(TENSORS, {"made": "by the package"})))
    same(load_tensors(dump_tensors(TENSORS)))


def broken(change):
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["a"].update(dtype="BF16"),
        lambda h: h["a"].update(shape=[3]),
        lambda h: h["a"].update(shape=[-2]),
        lambda h: h["a"].update(shape="2"),
        lambda h: h["a"].update(data_offsets=[0, 12], shape=[3]),
        lambda h: h["a"].update(data_offsets=[-4, 4]),
        lambda h: h["a"].update(data_offsets=[0]),
        lambda h: h["a"].pop("shape"),
        lambda h: h.update(a=3),
    ],
)
def test_what_is_broken_is_a_value_error(change):
    assert list(load_tensors(broken(lambda h: None))) == ["a"]
    with pytest.raises(ValueError):
        load_tensors(broken(change))


@settings(max_examples=60)
@given(st.data())
def test_no_bytes_raise_anything_else(data):
    content = bytearray(dump_tensors(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"x")
    try:
        load_tensors(bytes(content))
    except ValueError:
        pass
