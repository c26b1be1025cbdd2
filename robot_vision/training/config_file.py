"""A training configuration from YAML and from `--set key=value`, every key and type checked."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from robot_vision.contract import registry
from robot_vision.errors import ConfigError, unknown
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.images.input import InputSpec
from robot_vision.settings.mappings import coerce
from robot_vision.training.config import NetworkConfig, TrainingConfig, every_kind, trainer_of

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

    The settings of heads stand under the heads' names: `lights:` and `network: lights:`.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where or 'configuration'} is {data!r}: it must be a mapping of settings"
        )
    if kind is TrainingConfig:
        return typing.cast(T, _training(data))
    return kind(**_fields(kind, where, data))


def _training(data: Mapping[str, Any]) -> TrainingConfig:
    data, kinds = dict(data), {}
    if isinstance(data.get("heads"), Mapping):
        kinds = {name: _kind(name, value) for name, value in data["heads"].items()}
        data["heads"] = list(kinds)
    fields = {f.name for f in dataclasses.fields(TrainingConfig)}
    fields |= {f.name for f in dataclasses.fields(NetworkConfig)} - {"heads"}
    if taken := fields & set(kinds):
        raise ConfigError(
            f"heads: {min(taken)!r} is the name of a setting: give the head another name"
        )
    names = tuple(name for name in dict.fromkeys((*registry.names(), *kinds)) if name not in fields)
    settings = {}
    for name in names:
        if name in data:
            section = trainer_of(name, kinds.get(name, name)).Settings
            settings[name] = parse(section, name, data.pop(name) or {})
    network = data.pop("network", None) or {}
    if not isinstance(network, Mapping):
        raise ConfigError(f"network is {network!r}: it must be a mapping of settings")
    heads = {n: _value(dict, f"network.{n}", network[n]) for n in names if n in network}
    rest = {key: value for key, value in network.items() if key not in names}
    made = NetworkConfig(heads=heads, **_fields(NetworkConfig, "network", rest, ("heads",), names))
    hidden = ("settings", "kinds", "network")
    found = _fields(TrainingConfig, "", data, hidden, (*names, "network"))
    return TrainingConfig(network=made, settings=settings, kinds=kinds, **found)


def _kind(name: object, value: object) -> str:
    """Returns the kind of a head in `heads: {name: {kind: ...}}`; without one it is the name."""
    fields = {} if value is None else value
    if not isinstance(name, str) or not isinstance(fields, Mapping) or set(fields) - {"kind"}:
        raise ConfigError(
            f"heads.{name} is {value!r}: write {{kind: KIND}}; settings go to {name}:"
        )
    return str(fields.get("kind", name))


def _fields(
    kind: type,
    where: str,
    data: Mapping[str, Any],
    hidden: Sequence[str] = (),
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns a dataclass's fields from plain data; `others` are keys that stand next to them."""
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name not in hidden]
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in names:
            allowed = [f"{prefix}{name}" for name in (*names, *others)]
            raise ConfigError(unknown("key", f"{prefix}{key}", allowed))
    return {key: _value(hints[key], f"{prefix}{key}", value) for key, value in data.items()}


def plain(config: Any) -> dict[str, Any]:
    """Returns what `parse` reads back: dicts, lists, strings, numbers."""
    data: dict[str, Any] = {}
    named = config.kinds if isinstance(config, TrainingConfig) else {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name in ("settings", "heads") and isinstance(value, Mapping) and _per_head(config):
            data |= {name: plain(v) if item.name == "settings" else v for name, v in value.items()}
        elif item.name == "heads" and any(named.get(name, name) != name for name in value):
            data["heads"] = {name: {"kind": named.get(name, name)} for name in value}
        elif item.name != "kinds":
            value = plain(value) if dataclasses.is_dataclass(value) else value
            data[item.name] = list(value) if isinstance(value, tuple) else value
    return data


def _per_head(config: object) -> bool:
    return isinstance(config, (TrainingConfig, NetworkConfig))


def describe(kind: type = TrainingConfig, where: str = "") -> list[tuple[str, str, str]]:
    """Returns every setting: its key, its default as YAML, and what it means."""
    hints = typing.get_type_hints(kind)
    rows: list[tuple[str, str, str]] = []
    for item in dataclasses.fields(kind):
        key = f"{where}.{item.name}" if where else item.name
        if kind is TrainingConfig and item.name in ("settings", "kinds"):
            for head in registry.names() if item.name == "settings" else ():
                try:
                    rows += describe(trainer_of(head, head).Settings, head)
                except ConfigError as error:
                    rows.append((head, "", str(error)))
            continue
        if kind is NetworkConfig and item.name == "heads":
            rows += [
                (f"{where}.{t.name}", "{}", f"settings of the {t.name} head, as in bundle.yaml")
                for t in every_kind()
            ]
            continue
        if dataclasses.is_dataclass(hints[item.name]) and hints[item.name] is not InputSpec:
            rows += describe(typing.cast(type, hints[item.name]), key)
            continue
        made = item.default_factory() if callable(item.default_factory) else item.default
        value = plain(made) if dataclasses.is_dataclass(made) else made
        value = list(value) if isinstance(value, tuple) else value
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
        meaning = item.metadata["text"]
        if key == "baselines":
            words = [f"{word} ({what})" for t in every_kind() for word, what in t.baselines.items()]
            meaning += f": any of {', '.join(words)}"
        rows.append((key, text.removesuffix("...").strip(), meaning))
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
    if origin is dict or hint is dict:
        if value is None or value == "none":
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}: it must be a mapping of settings")
        return dict(value)
    return coerce(where, hint, value)
