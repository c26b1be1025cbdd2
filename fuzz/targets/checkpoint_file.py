"""Weights from the internet: headers of .safetensors, ours and other networks', and their tensors."""

from __future__ import annotations

import functools
import json
import struct

from hypothesis import strategies as st
from torch import nn

from fuzz import scratch
from robot_vision.backbones.architectures import Architecture, look_inside
from robot_vision.backbones.pretrained import read_weights
from robot_vision.errors import RobotVisionError
from robot_vision.networks.checkpoint import KEY, load_network, read_header

MAX_LEN = 1 << 13
ALLOWED_S = 10.0
_BACKBONE = "mobilenet_v2"


def one_input(data: bytes) -> None:
    """The whole file; after a zero byte, a header whose length is set right, a zero byte, and tensors."""
    if data[:1] == b"\0":
        header, _, tensors = data[1:].partition(b"\0")
        data = struct.pack("<Q", len(header)) + header + tensors
    path = scratch.file("weights.safetensors", data)
    for read in (read_header, load_network, _read_weights):
        try:
            assert read(path)
        except RobotVisionError as error:
            assert len(str(error)) < 20_000, "the message repeats the input many times"


def _read_weights(path: object) -> object:
    read_weights(_architecture(), str(path), {}, nn.Module())  # only timm's networks look at it
    return True  # a file without tensors has all of none that are needed


@functools.cache
def _architecture() -> Architecture:
    return look_inside(_BACKBONE)


def _own() -> dict[str, object]:
    """Returns what this package writes about a network."""
    return {
        "format_version": 1,
        "network": {
            "backbone": _BACKBONE,
            "input": {"height": 16, "width": 16},
            "heads": {"classifier": {"labels": ["red", "blue"]}},
        },
        "training": {},
        "metrics": {},
    }


def _file(header: object, tensors: bytes = b"") -> bytes:
    return b"\0" + json.dumps(header).encode() + b"\0" + tensors


def _tensor(kind: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def seeds() -> list[bytes]:
    """Returns files that can be read, without tensors or with those of other types, and ones that lie."""
    about = {"__metadata__": {KEY: json.dumps(_own())}}
    huge = {**_own(), "network": {"backbone": _BACKBONE, "input": {"height": 1 << 40, "width": 16}}}
    return [
        _file(about),
        _file({**about, "features.0.0.weight": _tensor("F32", [1, 2], 0, 8)}, bytes(8)),
        _file({"features.0.0.weight": _tensor("F8_E4M3", [8], 0, 8)}, bytes(8)),
        _file({"a": _tensor("F32", [1 << 62, 4], 0, 0)}),
        _file({"a": _tensor("I64", [1], 0, 8), "b": _tensor("I64", [1], 0, 8)}, bytes(8)),
        _file({"a": _tensor("BF16", [2], 4, 0)}, bytes(4)),
        _file({"__metadata__": {KEY: json.dumps(huge)}}),
        _file({"__metadata__": {KEY: "[" * 5000}}),
        _file({"__metadata__": {KEY: '{"format_version": 1e999, "network": "\\ud800"}'}}),
        struct.pack("<Q", (1 << 62) + 1) + b"{}",
        b"\x80\x04pickle",
        b"",
    ]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns headers of the right form with any tensors."""
    number = st.integers(0, 64) | st.integers(-1, 1 << 63)
    kind = st.sampled_from(("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "X"))
    shape = st.lists(number, max_size=3)
    tensor = st.builds(_tensor, kind, shape, number, number)
    name = st.sampled_from(("features.0.0.weight", "classifier.1.bias", "")) | st.text(max_size=8)
    other = st.sampled_from(("", "{}", "[]", "null", json.dumps(_own()))) | st.text(max_size=40)
    about = st.dictionaries(st.just(KEY) | st.text(max_size=5), other, max_size=2)
    tensors = st.dictionaries(name, tensor, max_size=3)
    return st.builds(
        lambda m, t, rest: _file({"__metadata__": m, **t}, rest),
        about, tensors, st.binary(max_size=64),
    )  # fmt: skip
