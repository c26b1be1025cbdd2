"""Looks for tensors whose data is in other files in the bytes of an ONNX graph, without the onnx package.

ONNX Runtime up to 1.23 follows such a path from wherever the process runs, also out of a folder, when it is
given bytes. So the protobuf messages that can hold a tensor are walked here first; field numbers are those of
onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator

_MAX_DEPTH = 64  # of graphs within graphs (If, Loop) and what is between them
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

# Message: its fields that hold, or may lead to, a tensor.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}


def has_external_data(model: bytes) -> bool:
    """Says whether a tensor of a serialised `onnx.ModelProto` has its data elsewhere.

    Raises:
        ValueError: the bytes are no protobuf message, or nest too deeply.
    """
    return _external(memoryview(model), "Model", 0)


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages nest deeper than {_MAX_DEPTH}")
    nested = _FIELDS[kind]
    for number, value in _fields(message):
        if kind == "Tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                return True
        elif number in nested and isinstance(value, memoryview):
            if _external(value, nested[number], depth + 1):
                return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields the fields of a message: their numbers, and an integer or the bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise ValueError(f"field {number} has wire type {wire}, which ONNX does not use")
        if size > end - at:
            raise ValueError(f"field {number} of {size} bytes ends after its message")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off or too long")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
