"""A node's parameters, made from one dataclass.

Nothing here imports rclpy before a node is at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.parameters import (
    CHANGE_TEXT,
    CONFIGURE,
    LIVE,
    NEVER,
    Setting,
    build,
    settings,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rclpy.node import Node


T = TypeVar("T", bound="DataclassInstance")


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
        more: name to value of what `extend` declared; replaced like `current`.

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
        self._node = node
        self._configured = configured
        self._changed = changed
        self._settings = {s.name: s for s in settings(cls)}
        self._own = tuple(self._settings)
        values = {name: self._declared(setting) for name, setting in self._settings.items()}
        self.current: T = build(cls, values)
        self.more: Mapping[str, Any] = {}
        self._warn_of_unknown(extended=False)
        node.add_on_set_parameters_callback(self._check)
        self._has_post_set = hasattr(node, "add_post_set_parameters_callback")  # not in Humble
        if self._has_post_set:
            node.add_post_set_parameters_callback(lambda parameters: self._apply(parameters))

    def extend(self, wanted: Sequence[Setting]) -> None:
        """Declares parameters that only a configured node has, instead of those that were declared so.

        Args:
            wanted: of them; their names have a dot, after which there is one of the node's own.

        Raises:
            ConfigError: an override of a wrong type or out of range.
        """
        for name in self.more:
            self._node.undeclare_parameter(name)
            del self._settings[name]
        self.more = {}
        for setting in wanted:
            value = self._declared(setting)
            self._settings[setting.name] = setting
            self.more = {**self.more, setting.name: setting.coerce(value)}
        self._warn_of_unknown(extended=True)

    def _declared(self, setting: Setting) -> Any:
        """Declares a parameter and returns its value."""
        from rclpy.exceptions import ParameterException

        node = self._node
        if setting.kind in self._LISTS:
            return self._declared_list(node, setting)
        try:
            return node.declare_parameter(setting.name, setting.default, descriptor(setting)).value
        except ParameterException:
            # The type or the range is wrong. Ask again without them, to say what came and what fits.
            loose = dataclasses.replace(setting, kind="float", low=None, high=None)
            return node.declare_parameter(setting.name, setting.default, descriptor(loose)).value

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

    def _warn_of_unknown(self, extended: bool) -> None:
        # ROS ignores what a parameter file sets and nobody declares: a typing error would go unseen.
        node = self._node
        for name in getattr(node, "_parameter_overrides", {}):
            if node.has_parameter(name) or name == "start_type_description_service":  # new in Jazzy
                continue
            group, _, word = name.rpartition(".")
            later = bool(group) and word in self._own and not name.startswith("qos_overrides.")
            if later != extended:
                continue
            text = unknown("parameter", name, self._settings)
            if name.startswith("qos_overrides."):
                own = [n for n in self._settings if n.endswith(("reliability", "depth"))]
                text = f"{name} is ignored: set {', '.join(own)} instead"
            node.get_logger().warning(text)

    def _merged(self, parameters: Sequence[Any]) -> tuple[T, Mapping[str, Any]]:
        changes: dict[str, Any] = {}
        more = dict(self.more)
        for p in parameters:
            setting = self._settings.get(p.name)
            if setting is None:  # use_sim_time and the like belong to rclpy
                continue
            value = setting.coerce(p.value)
            same = value == (more[p.name] if p.name in more else getattr(self.current, p.name))
            if setting.change == CONFIGURE and self._configured() and not same:
                raise ConfigError(
                    f"{p.name} is read-only while the node is configured: call the transition cleanup, "
                    "set it, and configure again"
                )
            (more if p.name in more else changes)[p.name] = value
        return dataclasses.replace(self.current, **changes), more

    def _check(self, parameters: Sequence[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        try:
            merged = self._merged(parameters)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not self._has_post_set:
            self._replace(*merged)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Any]) -> None:
        self._replace(*self._merged(parameters))

    def _replace(self, merged: T, more: Mapping[str, Any]) -> None:
        before, self.current = (self.current, self.more), merged
        self.more = more
        if (merged, more) != before:
            self._changed(before[0], merged)


def descriptor(setting: Setting) -> Any:
    """Returns the `ParameterDescriptor` of a setting, for `ros2 param describe` and parameter editors."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    result = ParameterDescriptor(
        name=setting.name,
        description=f"{setting.text} {CHANGE_TEXT[setting.change]}",
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
