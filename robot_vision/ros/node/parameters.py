"""Parameters declared once: a frozen dataclass says name, type, default, range, text and when it may change.

The node, its YAML file and the table in the README are all made from that dataclass, so they cannot
disagree. Nothing here imports rclpy before a node is at hand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from robot_vision.errors import ConfigError, unknown

if TYPE_CHECKING:
    from rclpy.node import Node

LIVE = "live"  # any time
CONFIGURE = "configure"  # while unconfigured; it is read when the node configures
NEVER = "never"  # at start only

_CHANGE_TEXT = {
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
_COLUMNS = "| parameter | type | default | meaning | change |"

T = TypeVar("T")


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
    assert change in _CHANGE_TEXT and (low is None) == (high is None)
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
        if self.low is not None and not self.low <= item <= self.high:  # type: ignore[operator]
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

    They come in their order; those of a base class come last, since a reader looks for the node's own.
    """
    inherited = {f.name for base in cls.__bases__ for f in _fields(base)}
    return tuple(
        Setting(name=f.name, kind=str(f.type), default=f.default, **f.metadata)
        for f in sorted(_fields(cls), key=lambda f: f.name in inherited)
    )


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


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


class NodeParameters(Generic[T]):
    """The parameters of a running node, checked together and kept as one snapshot.

    Args:
        node: declares them; its overrides (launch files, `-p`) are applied.
        cls: the dataclass.
        configured: says whether parameters with `change=CONFIGURE` are in use now.
        changed: called with the old and the new snapshot after a change.

    Attributes:
        current: the snapshot. It is replaced, never altered, so that another thread can read it
            once and see values that belong together.

    Raises:
        ConfigError: an override of a wrong type or out of range.
    """

    def __init__(
        self,
        node: Node,
        cls: type[T],
        configured: Callable[[], bool] = lambda: True,
        changed: Callable[[T, T], None] = lambda _before, _after: None,
    ) -> None:
        from rclpy.exceptions import ParameterException

        self._configured = configured
        self._changed = changed
        self._settings = {s.name: s for s in settings(cls)}
        values = {}
        for setting in self._settings.values():
            if setting.kind in self._LISTS:
                values[setting.name] = self._declared_list(node, setting)
                continue
            try:
                value = node.declare_parameter(
                    setting.name, setting.default, descriptor(setting)
                ).value
            except ParameterException:
                # The type or the range is wrong. Ask again without them, to say what came and what fits.
                loose = dataclasses.replace(setting, kind="float", low=None, high=None)
                value = node.declare_parameter(
                    setting.name, setting.default, descriptor(loose)
                ).value
            values[setting.name] = value
        self.current: T = build(cls, values)
        self._warn_of_unknown(node)
        node.add_on_set_parameters_callback(self._check)
        self._has_post_set = hasattr(node, "add_post_set_parameters_callback")  # not in Humble
        if self._has_post_set:
            node.add_post_set_parameters_callback(lambda parameters: self._apply(parameters))

    # The names of rclpy's types.
    _LISTS = {"tuple[str, ...]": "STRING_ARRAY", "tuple[float, ...]": "DOUBLE_ARRAY"}

    def _declared_list(self, node: Node, setting: Setting) -> Any:
        """Declares a list and returns its value.

        An empty list in a YAML file reaches the node as "not set", which `ros2 param dump` writes as null. It
        is given its own type, as is a list that came as text, so that what is dumped can be loaded again.
        """
        from rclpy.parameter import Parameter

        free = dataclasses.replace(setting, change=LIVE)
        default = list(setting.default)
        value = node.declare_parameter(setting.name, default, descriptor(free)).value
        value = () if value in (None, "null") else value
        if isinstance(value, str) or not len(value):
            kind = Parameter.Type[self._LISTS[setting.kind]]
            typed = Parameter(setting.name, kind, list(setting.coerce(value)))
            node.set_parameters([typed])
        node.set_descriptor(setting.name, descriptor(setting))
        return value

    def _warn_of_unknown(self, node: Node) -> None:
        # ROS ignores what a parameter file sets and nobody declares: a typing error would go unseen.
        for name in getattr(node, "_parameter_overrides", {}):
            if node.has_parameter(name) or name == "start_type_description_service":  # new in Jazzy
                continue
            text = unknown("parameter", name, self._settings)
            if name.startswith("qos_overrides."):
                own = [n for n in self._settings if n.endswith(("reliability", "depth"))]
                text = f"{name} is ignored: set {', '.join(own)} instead"
            node.get_logger().warning(text)

    def _merged(self, parameters: Sequence[Any]) -> T:
        changes = {}
        for p in parameters:
            setting = self._settings.get(p.name)
            if setting is None:  # use_sim_time and the like belong to rclpy
                continue
            value = setting.coerce(p.value)
            same = value == getattr(self.current, p.name)
            if setting.change == CONFIGURE and self._configured() and not same:
                raise ConfigError(
                    f"{p.name} is read-only while the node is configured: call the transition cleanup, "
                    "set it, and configure again"
                )
            changes[p.name] = value
        return dataclasses.replace(self.current, **changes)  # type: ignore[type-var]

    def _check(self, parameters: Sequence[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        try:
            merged = self._merged(parameters)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not self._has_post_set:
            self._replace(merged)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Any]) -> None:
        self._replace(self._merged(parameters))

    def _replace(self, merged: T) -> None:
        before, self.current = self.current, merged
        if merged != before:
            self._changed(before, merged)


def descriptor(setting: Setting) -> Any:
    """Returns the `ParameterDescriptor` of a setting, for `ros2 param describe` and parameter editors."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    result = ParameterDescriptor(
        name=setting.name,
        description=f"{setting.text} {_CHANGE_TEXT[setting.change]}",
        additional_constraints=setting.allowed,
        read_only=setting.change == NEVER,
        # ROS types are strict, people are not: `rate: 10` is a fine float, and a list may be empty.
        dynamic_typing=setting.kind == "float" or setting.kind.startswith("tuple"),
    )
    if setting.low is not None and setting.kind == "float":
        result.floating_point_range = [
            FloatingPointRange(from_value=float(setting.low), to_value=float(setting.high or 0.0))
        ]
    if setting.low is not None and setting.kind == "int":
        result.integer_range = [
            IntegerRange(from_value=int(setting.low), to_value=int(setting.high or 0))
        ]
    return result


def yaml_text(cls: type, heading: str) -> str:
    """Returns the parameter file of a node: every parameter at its default, explained.

    Args:
        cls: the dataclass.
        heading: lines for the top of the file.
    """
    lines = [*(f"# {line}".rstrip() for line in heading.splitlines()), "/**:", "  ros__parameters:"]
    for s in settings(cls):
        lines += [f"    # {line}" for line in _wrapped(" ".join(_about(s)), 90)]
        lines += [f"    {s.name}: {_yaml(s.default)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def markdown_table(cls: type) -> str:
    """Returns the parameters as a Markdown table."""
    lines = [_COLUMNS, "| --- | --- | --- | --- | --- |"]
    words = {LIVE: "live", CONFIGURE: "at configure", NEVER: "at start"}
    for s in settings(cls):
        kind = s.kind.replace("tuple[", "").replace(", ...]", "[]").replace("str", "string")
        about = " ".join(_about(s, change=False)).replace("|", "\\|")
        lines.append(
            f"| `{s.name}` | {kind} | `{_yaml(s.default)}` | {about} | {words[s.change]} |"
        )
    return "\n".join(lines) + "\n"


def _about(setting: Setting, change: bool = True) -> list[str]:
    allowed = setting.allowed
    words = [setting.text, allowed and f"{allowed[0].upper()}{allowed[1:]}."]
    return [w for w in (*words, _CHANGE_TEXT[setting.change] if change else "") if w]


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _number(value: float | None) -> str:
    return f"{value:g}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return ".nan" if math.isnan(value) else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(v) for v in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
