"""A training configuration from YAML and from `--set key=value`, every key and type checked."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from robot_vision.errors import ConfigError, unknown
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.images.input import InputSpec
from robot_vision.training.config import TrainingConfig

T = TypeVar("T")
_MAX_BYTES = 1 << 20


def read_config(path: str | Path, settings: Sequence[str] = ()) -> TrainingConfig:
    """Reads a YAML file and applies `a.b=c` settings, later ones last.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest right one is named), a wrong
            type or a value out of range.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"No training configuration at {str(path)!r}")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_BYTES} bytes: it is no configuration")
    try:
        data = load_yaml(path.read_bytes())
    except YamlError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}: it must be a mapping of settings")
    for setting in settings:
        _apply(data, setting)
    try:
        return parse(TrainingConfig, "", data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(kind: type[T], where: str, data: object) -> T:
    """Builds the frozen dataclass `kind`, and those inside it, from plain data.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where or 'configuration'} is {data!r}: it must be a mapping of settings"
        )
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in names:
            raise ConfigError(
                unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in names])
            )
    return kind(**{key: _value(hints[key], f"{prefix}{key}", value) for key, value in data.items()})


def plain(config: Any) -> dict[str, Any]:
    """Returns what `parse` reads back: dicts, lists, strings, numbers."""
    data: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            value = plain(value)
        data[item.name] = list(value) if isinstance(value, tuple) else value
    return data


def describe(kind: type = TrainingConfig, where: str = "") -> list[tuple[str, str, str]]:
    """Returns every setting: its key, its default as YAML, and what it means."""
    hints = typing.get_type_hints(kind)
    rows: list[tuple[str, str, str]] = []
    for item in dataclasses.fields(kind):
        key = f"{where}.{item.name}" if where else item.name
        if dataclasses.is_dataclass(hints[item.name]) and hints[item.name] is not InputSpec:
            rows += describe(typing.cast(type, hints[item.name]), key)
            continue
        made = item.default_factory() if callable(item.default_factory) else item.default
        value = plain(made) if dataclasses.is_dataclass(made) else made
        value = list(value) if isinstance(value, tuple) else value
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
        rows.append((key, text.removesuffix("...").strip(), item.metadata["text"]))
    return rows


def expand(path: str) -> str:
    """Expands `~` and `$VARIABLES` of a path.

    Raises:
        ConfigError: a variable is not set.
    """
    for name in re.findall(r"\$\{?(\w+)\}?", path):
        if name not in os.environ:
            raise ConfigError(f"{path!r} needs the environment variable {name}, which is not set")
    return os.path.expanduser(os.path.expandvars(path))


def _apply(data: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {setting!r}: write key=value, for example loop.epochs=10")
    try:
        value = load_yaml(text) if text.strip() else ""
    except YamlError as error:
        raise ConfigError(f"--set {setting!r}: the value is not valid YAML") from error
    *parents, last = key.strip().split(".")
    for parent in parents:
        inner = data.get(parent)
        if inner is None:
            inner = data[parent] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {setting!r}: {parent} is no group of settings")
        data = inner
    data[last] = value


def _value(hint: Any, where: str, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _value(hint, where, value)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), where, {} if value is None else value)
    if origin is tuple:
        if isinstance(value, str):
            value = [value]  # one name is a list of one
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}: it must be a list")
        return tuple(_value(arguments[0], where, item) for item in value)
    if origin is dict:
        if value is None or value == "none":
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}: it must be a mapping of settings")
        return dict(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            value = float(value)
        except ValueError:
            pass
    allowed, words = {
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "a string"),
        bool: ((bool,), "true or false"),
    }[hint]
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r}: it must be {words}")
    if hint is float:
        value = float(value)
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value!r}: it must be finite")
    return value
