"""Parameters declared once: fields of a dataclass with type, default, range, text and time of change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from robot_vision.errors import ConfigError, unknown

T = TypeVar("T")

LIVE = "live"  # any time
CONFIGURE = "configure"  # while unconfigured; it is read when the node configures
NEVER = "never"  # at start only

CHANGE_TEXT = {
    LIVE: "Can change while running.",
    CONFIGURE: "Read when the node configures: read-only until `cleanup`.",
    NEVER: "Read-only: set when the node starts.",
}
_TYPE_TEXT = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "tuple[str, ...]": "a list of strings",
    "tuple[float, ...]": "a list of numbers",
}


def parameter(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    change: str = CONFIGURE,
) -> Any:
    """Returns a dataclass field that is a node's parameter.

    Args:
        default: the default; its field's annotation is bool, int, float, str or a tuple of the last two.
        text: one or two sentences for the operator, with units.
        low: smallest value of a number, or of each number of a list.
        high: largest value, of a number or of each number of a list.
        choices: the strings allowed.
        change: `LIVE`, `CONFIGURE` or `NEVER`.
    """
    assert change in CHANGE_TEXT and (low is None) == (high is None)
    about = {"text": text, "low": low, "high": high, "choices": tuple(choices), "change": change}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class Setting:
    """What is known of one parameter; see `parameter` for the attributes."""

    name: str
    kind: str
    default: Any
    text: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    change: str

    @property
    def allowed(self) -> str:
        """What values are allowed, in words; empty if the type says it all."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return "" if self.low is None else f"from {_number(self.low)} to {_number(self.high)}"

    def coerce(self, value: Any) -> Any:
        """Returns the value in the field's own type; whole numbers serve where a number is wanted.

        Raises:
            ConfigError: a wrong type or a value that is not allowed.
        """
        if self.kind.startswith("tuple"):
            if self.kind == "tuple[float, ...]" and isinstance(value, str):
                value = self._numbers(value)
            if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
                raise self._refused(value)
            return tuple(self._coerce_item(item, self.kind[6:-6], value) for item in value)
        return self._coerce_item(value, self.kind, value)

    def _numbers(self, text: str) -> Any:
        """Returns the numbers of a list written as in a URDF, '0 0 0.5 0 0 0'; other text as it is."""
        try:
            return [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            return text

    def _coerce_item(self, item: Any, kind: str, shown: Any) -> Any:
        if kind == "float" and isinstance(item, int) and not isinstance(item, bool):
            item = float(item)
        if type(item).__name__ != kind:
            raise self._refused(shown)
        if self.low is not None and not self.low <= item <= self.high:
            raise self._refused(shown)  # NaN compares false, so it lands here too
        if self.choices and item not in self.choices:
            raise ConfigError(unknown(f"{self.name}", item, self.choices))
        return item

    def _refused(self, value: Any) -> ConfigError:
        shown = list(value) if isinstance(value, tuple) else value
        allowed = " ".join(filter(None, (_TYPE_TEXT[self.kind], self.allowed)))
        return ConfigError(f"{self.name} is {shown!r}: set it to {allowed}")


def settings(cls: type) -> tuple[Setting, ...]:
    """Returns the parameters of a dataclass made of `parameter` fields.

    A class's own come first, then those of its bases, the nearest first: a reader looks for the node's own.
    Those of a class with `EXTENDS` come after its base's.
    """
    classes = [c for c in cls.__mro__ if dataclasses.is_dataclass(c)]
    of = {f.name: n for n, c in enumerate(classes) for f in dataclasses.fields(c)}
    if vars(cls).get("EXTENDS"):
        of = {name: 2 * n or 3 for name, n in of.items()}
    return tuple(
        Setting(name=f.name, kind=str(f.type), default=f.default, **f.metadata)
        for f in sorted(dataclasses.fields(cls), key=lambda f: of[f.name])
    )


def part(values: object, kind: type[T], *prefixes: str, **more: Any) -> T:
    """Returns a dataclass whose fields have, after one of the prefixes, the names of parameters.

    Args:
        values: the parameters.
        kind: the dataclass; fields that no parameter has keep their default.
        prefixes: of the parameters' names.
        more: further fields.
    """
    given = {
        f.name: getattr(values, prefix + f.name)
        for prefix in prefixes
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if hasattr(values, prefix + f.name)
    }
    return kind(**given, **more)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Returns `cls` from plain values; those that are absent keep their default.

    Raises:
        ConfigError: an unknown name, a wrong type, a value or a combination that is not allowed.
    """
    known = {s.name: s for s in settings(cls)}
    for name in values:
        if name not in known:
            raise ConfigError(unknown("parameter", name, known))
    given = {n: known[n].coerce(v) for n, v in values.items()}
    return cls(**given)


def _number(value: float | None) -> str:
    return f"{value:g}"
