"""Plain data of YAML and JSON into frozen dataclasses, with every key and type checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from robot_vision.errors import ConfigError, unknown

T = TypeVar("T")


def check_mapping(
    what: str, data: object, required: tuple[str, ...], optional: tuple[str, ...]
) -> Mapping[str, Any]:
    """Returns `data` if it is a mapping with all the required and no unknown keys; else ConfigError."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{what} is {type(data).__name__}: it must be a mapping of settings")
    for key in data:
        if key not in required + optional:
            raise ConfigError(unknown(f"key of {what}", key, required + optional))
    missing = [key for key in required if key not in data]
    if missing:
        raise ConfigError(f"{what} lacks {', '.join(missing)}")
    return data


def from_mapping(kind: type[T], what: str, data: object) -> T:
    """Builds the frozen dataclass `kind` from plain data, checking keys and types.

    Numbers may be given as int where a float is wanted; nothing else is converted, so `"3"` is not 3.
    """
    assert dataclasses.is_dataclass(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    needed = tuple(
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    settings = check_mapping(what, data, needed, tuple(n for n in fields if n not in needed))
    values = {key: coerce(f"{what} {key}", fields[key].type, v) for key, v in settings.items()}
    return kind(**values)


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a string"),
    "bool": ((bool,), "true or false"),
    "float | None": ((int, float, type(None)), "a number or null"),
}


def coerce(what: str, annotation: Any, value: Any) -> Any:
    """Returns a value as a field's annotation, a type or its text, wants it; see `from_mapping`."""
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        annotation = annotation.__name__  # of a module without postponed annotations
    annotation = str(annotation)
    if annotation in ("tuple[float, ...]", "tuple[int, ...]", "tuple[str, ...]"):
        item = annotation[len("tuple[") : -len(", ...]")]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{what} is {value!r}: it must be a list")
        return tuple(coerce(what, item, v) for v in value)
    kinds, words = _TYPES[annotation]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigError(f"{what} is {value!r}: it must be {words}")
    if isinstance(value, (int, float)) and float in kinds:
        value = float(value)
        if not math.isfinite(value):
            raise ConfigError(f"{what} is {value!r}: it must be finite")
    return value
