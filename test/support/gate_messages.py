"""Messages that gate and driver read, as plain objects of the same fields: the logic needs no ROS."""

from __future__ import annotations

from types import SimpleNamespace as Fields
from typing import Any

import numpy as np

SECOND = 1_000_000_000


def header(stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, SECOND)
    return Fields(stamp=Fields(sec=sec, nanosec=nanosec), frame_id="front")


def classes(stamp_ns: int, **scores: float) -> Any:
    results = [Fields(class_id=name, score=score) for name, score in scores.items()]
    return Fields(header=header(stamp_ns), results=results)


def range_of(stamp_ns: int, metres: float, low: float = 0.0, high: float = 10.0) -> Any:
    return Fields(header=header(stamp_ns), min_range=low, max_range=high, range=metres)


def pose(stamp_ns: int, variances: Any) -> Any:
    covariance = np.diag(variances).reshape(36)
    return Fields(header=header(stamp_ns), pose=Fields(covariance=covariance))


def belief(stamp_ns: int, word: str, level: int | None = None) -> Any:
    level = (0 if word == "localised" else 2) if level is None else level
    values = [Fields(key="stamp_ns", value=str(stamp_ns))]
    return Fields(level=bytes([level]), message=word, values=values)


def twist(x: float = 0.0, turn: float = 0.0, stamp_ns: int | None = None, y: float = 0.0) -> Any:
    inner = Fields(linear=Fields(x=x, y=y, z=0.0), angular=Fields(x=0.0, y=0.0, z=turn))
    return inner if stamp_ns is None else Fields(header=header(stamp_ns), twist=inner)
