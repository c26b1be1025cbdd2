"""Dataclass fields that carry their own description and range: options of data sets, settings of training.

The options of data sets come as text from the command line and as values from a YAML file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def option(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declares a field: its default, what it means, and what is allowed.

    Args:
        default: a value, or what is called to make one: `dict`. An option of a data set has its type.
        text: stands alone in a list of settings.
        low: smallest number.
        high: largest number.
        choices: the words that are allowed.
    """
    metadata = {"text": text, "low": low, "high": high, "choices": choices}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_declared(where: str, settings: Any) -> None:
    """Checks the ranges and choices of a dataclass, and of those inside it.

    Args:
        where: the name of the group; empty for the outermost.
        settings: the dataclass.

    Raises:
        ConfigError: the first value that is not allowed, by its name.
    """
    for field in dataclasses.fields(settings):
        name = f"{where}.{field.name}" if where else field.name
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check_declared(name, value)
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if value is not None and low is not None and not low <= value <= high:
            raise ConfigError(f"{name} is {value:g}: it must be from {low:g} to {high:g}")
        choices = field.metadata.get("choices")
        for word in value if isinstance(value, tuple) else (value,):
            if choices and word not in choices:
                raise ConfigError(unknown(name, word, choices))


def parse_options(cls: type[T], kind: str, given: Mapping[str, Any]) -> T:
    """Returns the options dataclass of a data set with what was given, converted and checked.

    Raises:
        ConfigError: an unknown option (with the nearest right one), or a value that is not allowed.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(unknown(f"option of data set {kind}", name, sorted(fields)))
        values[name] = _converted(kind, fields[name], value)
    return cls(**values)


def _converted(kind: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Returns a value in the type of the field's default."""
    default, rules = field.default, field.metadata
    what = f"Option {field.name} of data set {kind}"
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() not in _BOOLEANS:
            raise ConfigError(f"{what} is {value!r}: use true or false")
        return _BOOLEANS[str(value).lower()]
    if isinstance(default, (int, float)):
        return _number(what, default, rules, value)
    if isinstance(default, str):
        text = ",".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
        if rules["choices"] and text not in rules["choices"]:
            raise ConfigError(unknown(f"value of option {field.name}", text, rules["choices"]))
        return text
    raise AssertionError(f"{field.name} has a default of type {type(default)}")


def _number(what: str, default: int | float, rules: Mapping[str, Any], value: Any) -> int | float:
    noun = "a whole number" if isinstance(default, int) else "a number"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = int(str(value)) if isinstance(default, int) else float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{what} is {value!r}: use {noun}, such as {default}") from None
    low, high = rules["low"], rules["high"]
    in_range = (low is None or number >= low) and (high is None or number <= high)
    if not in_range or number != number:
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{what} is {number}: it must be {limits}")
    return number


def parse_camera_matrix(text: str) -> NDArray[np.float64] | None:
    """Returns K (3, 3) of `fx,fy,cx,cy` in pixels; None for an empty text.

    Raises:
        ConfigError: not four finite numbers with positive focal lengths.
    """
    if not text:
        return None
    try:
        fx, fy, cx, cy = (float(v) for v in text.replace(",", " ").split())
    except ValueError:
        raise ConfigError(f"Option camera_matrix is {text!r}: use fx,fy,cx,cy in pixels") from None
    if not np.all(np.isfinite([fx, fy, cx, cy])) or min(fx, fy) <= 0:
        raise ConfigError(f"Option camera_matrix is {text!r}: focal lengths must be positive")
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def names_in(text: str) -> tuple[str, ...]:
    """Returns the names of a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
