"""Arrays by name in the format of safetensors, which a robot need not have installed to read a few."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4",
    "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_SIZE_BYTES = 8  # of the header's length
_MAX_HEADER = 1 << 20


def dump_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the content of a file that `load_tensors` and the package safetensors read."""
    header, parts, at = {}, [], 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        parts.append(array.tobytes())
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _SIZE_BYTES)
    return b"".join([len(text).to_bytes(_SIZE_BYTES, "little"), text, *parts])


def load_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a file by their names.

    Raises:
        ValueError: it is none, is damaged, or holds numbers of another kind.
    """
    size = int.from_bytes(content[:_SIZE_BYTES], "little")
    if not 0 < size <= min(_MAX_HEADER, len(content) - _SIZE_BYTES):
        raise ValueError(f"a header of {size} bytes")
    body = _SIZE_BYTES + size
    try:
        header = json.loads(content[_SIZE_BYTES:body])
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), [index(n) for n in entry["shape"]]
            start, end = (index(n) for n in entry["data_offsets"])
            count = math.prod(shape)
            if min([0, *shape]) < 0 or not 0 <= start <= end <= len(content) - body:
                raise ValueError(f"{name} of shape {shape} at {start} to {end}")
            if end - start != count * dtype.itemsize:
                raise ValueError(f"{name} of shape {shape} in {end - start} bytes")
            found[name] = np.frombuffer(content, dtype, count, body + start).reshape(shape)
    except ValueError:
        raise
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    return found
