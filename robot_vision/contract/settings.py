"""Settings of an evaluation: the bootstrap's, and those of each head's judge, in one flat mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_vision.contract import registry
from robot_vision.errors import ConfigError, unknown
from robot_vision.statistics.settings import BootstrapSettings


def _names(kind: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.name != "heads"]


@dataclass(frozen=True, init=False)
class EvaluationSettings(BootstrapSettings):
    """What is measured, and how. Every value stands in the resulting JSON.

    Attributes:
        heads: kind of a head to the `Settings` of its judge.
    """

    heads: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __init__(self, *, heads: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Takes the bootstrap's settings and those of the package's own heads by their names.

        Args:
            heads: kind to settings, in place of those by name.
            values: by name.

        Raises:
            ConfigError: an unknown setting, or one out of range.
        """
        own = {name: values.pop(name) for name in _names(BootstrapSettings) if name in values}
        found, known = {}, _names(BootstrapSettings)
        for kind in registry.BUILT_IN:
            cls = registry.head(kind).judge().Settings
            known += _names(cls)
            theirs = {name: values.pop(name) for name in _names(cls) if name in values}
            found[kind] = cls(**theirs) if heads is None or theirs else heads[kind]
        for name in values:
            raise ConfigError(unknown("setting", name, known))
        super().__init__(**own)
        object.__setattr__(self, "heads", {**(heads or {}), **found})

    def of(self, kind: str) -> Any:
        """Returns the settings of a head's judge."""
        found = self.heads.get(kind)
        return registry.head(kind).judge().Settings() if found is None else found

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, flat."""
        parts = [*(self.heads[kind] for kind in reversed(registry.BUILT_IN)), self]
        flat = {name: getattr(part, name) for part in parts for name in _names(type(part))}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in flat.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationSettings:
        """Reads what `to_dict` gave.

        Raises:
            ConfigError: an unknown setting, or one out of range.
        """
        flat: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**flat)
