"""Arrays of Python objects in .npy files (lists of numbers, ragged rows), read without running anything.

NumPy stores them as pickles, which are programs that may call anything. Here the program is only followed: a
name that it asks for stays a name, and what it makes of names is understood where it is an array, a
number or a type of NumPy, and refused otherwise.

`pickle.Unpickler` with a list of allowed names would be shorter, but calls NumPy with whatever the file says
and makes room for as much as the file asks for.
"""

from __future__ import annotations

import io
import itertools
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robot_vision.files.arrays import load_npy, read_header

MAX_BYTES = 1 << 28
MAX_OBJECTS = 1 << 24  # steps of the program, and numbers in lists: a list may be named many times
_MARK = object()
_PLAIN = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 BINFLOAT FLOAT BINSTRING SHORT_BINSTRING STRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE".split()
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


class _Name(NamedTuple):
    """A name that the program asks for; nothing is imported."""

    module: str
    name: str


class _Made:
    """What the program makes by calling a name, and the state that it gives it."""

    def __init__(self, made_by: Any, arguments: Any) -> None:
        self.made_by, self.arguments = made_by, arguments
        self.state: Any = None


def load_object_array(file: Path) -> Any:
    """Returns what a .npy file holds: an array of numbers, or nested lists of numbers and arrays.

    Raises:
        ValueError: it is none, is larger than 256 MiB, has more than 2^24 objects, or asks for more than
            arrays and numbers.
        OSError: it cannot be read.
    """
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has {file.stat().st_size} bytes: at most {MAX_BYTES} are read")
    content = file.read_bytes()
    stream = io.BytesIO(content)
    if not read_header(stream)[2].hasobject:
        return load_npy(content)
    try:
        return _plain(_followed(stream.read()), itertools.count())
    except ValueError:
        raise
    except Exception as error:  # a program that was not written by NumPy fails in many ways
        raise ValueError(
            f"its objects cannot be followed ({type(error).__name__}: {error})"
        ) from error


def _followed(program: bytes) -> Any:
    """Returns what a pickle makes, with names and calls left as they stand."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        start = len(stack) - 1 - stack[::-1].index(_MARK)
        found = stack[start + 1 :]
        del stack[start:]
        return found

    argument: Any
    for step, (code, argument, _) in enumerate(pickletools.genops(program)):
        _require_few(step)
        name = code.name
        if name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append([] if name == "EMPTY_LIST" else ())
        elif name in ("LIST", "TUPLE"):
            items = above_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPEND":
            last = stack.pop()
            stack[-1].append(last)
        elif name == "APPENDS":
            items = above_mark()
            stack[-1].extend(items)
        elif name == "GLOBAL":
            stack.append(_Name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Name(*stack[-2:])]
        elif name == "REDUCE":
            stack[-2:] = [_Made(*stack[-2:])]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its objects use {name}, which arrays and numbers do not need")
    raise ValueError("its objects have no end")


def _require_few(count: int) -> None:
    if count > MAX_OBJECTS:
        raise ValueError(f"it has more than {MAX_OBJECTS} objects")


def _plain(value: Any, counter: Iterator[int], depth: int = 0) -> Any:
    """Returns numbers, lists and arrays of what was followed; `counter` counts them."""
    _require_few(next(counter))
    if depth > 8:
        raise ValueError("its objects are nested more than 8 deep")
    if isinstance(value, (list, tuple)):
        return [_plain(item, counter, depth + 1) for item in value]
    if isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, _Made):
        raise ValueError(f"it holds {_said(value)}, and neither numbers nor arrays")
    name = value.made_by
    if not isinstance(name, _Name) or name.module not in _MODULES:
        raise ValueError(f"it may run code: it calls {_said(name)}")
    if name.name == "scalar":
        dtype, data = value.arguments
        return np.frombuffer(_bytes(data), _dtype(dtype), 1)[0].item()
    if name.name != "_reconstruct":
        raise ValueError(f"it may run code: it calls {_said(name)}")
    _, shape, dtype, column_first, data = value.state
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"an array in it has the shape {shape}")
    if isinstance(data, list):  # of objects
        if len(data) != int(np.prod(shape, dtype=object)):
            raise ValueError(f"an array in it has {len(data)} objects and the shape {shape}")
        return _nested([_plain(item, counter, depth + 1) for item in data], list(shape))
    values = np.frombuffer(_bytes(data), _dtype(dtype))
    return values.reshape(shape[::-1]).T if column_first else values.reshape(shape)


def _nested(flat: list[Any], shape: list[int]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1 or not flat:  # without objects, whatever number of empty rows it claims
        return flat
    step = int(np.prod(shape[1:], dtype=object))
    return [_nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _dtype(made: Any) -> np.dtype[Any]:
    """Returns a type of numbers."""
    if not isinstance(made, _Made) or made.made_by != _Name("numpy", "dtype"):
        raise ValueError(f"it may run code: {_said(made)} stands for a type")
    kind, order = made.arguments[0], made.state[1]
    if not isinstance(kind, str) or kind[:1] not in ("b", "i", "u", "f") or order not in "<>|=":
        raise ValueError(f"an array in it is of the type {kind!r}")
    return np.dtype(kind).newbyteorder(order)


def _bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    # Python 2's strings, and bytes as protocols below 3 write them: codecs.encode(text, "latin1").
    if isinstance(data, _Made) and data.made_by == _Name("_codecs", "encode"):
        text, coding = data.arguments
        if coding == "latin1":
            return str(text).encode("latin1")
    raise ValueError(f"{_said(data)} stands for the numbers of an array")


def _said(value: Any) -> str:
    if isinstance(value, _Name):
        return f"{value.module}.{value.name}"
    return (
        f"a result of {_said(value.made_by)}" if isinstance(value, _Made) else type(value).__name__
    )
