"""What the nodes that command a robot share: their lifecycle around a `Commanding`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.gate.rules import Rules
from robot_vision.ros.gate.commanding import OUT, Commanding
from robot_vision.ros.gate.parameters import CommandParameters
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.transitions import SUCCESS, reported

P = TypeVar("P", bound=CommandParameters)


class CommandingNode(ManagedNode[P]):
    """Commands a robot while it is active.

    Attributes:
        NAME: of the node.
        PARAMETERS: the dataclass of its parameters.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    NAME: ClassVar[str]
    PARAMETERS: ClassVar[type[Any]]

    def __init__(self, **options: Any) -> None:
        self._commanding: Commanding[P] | None = None
        super().__init__(self.NAME, self.PARAMETERS, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Makes the publishers."""
        self._commanding = self._made()
        return SUCCESS

    @abstractmethod
    def _made(self) -> Commanding[P]:
        """Returns what commands, after `_given`."""

    def _given(
        self,
        rules: Rules,
        topics: Sequence[tuple[str, str]] | None = None,
        parameter: str = "the topics of the parameters",
    ) -> tuple[Any, ...]:
        """Checks the topics that are read and written, and returns what a `Commanding` is made of.

        Args:
            rules: whose topics are read.
            topics: what each topic that is read is of, and its name; None for each rule's.
            parameter: that has them.

        Raises:
            ConfigError: see `check_topics`.
        """
        if topics is None:
            topics = [(rule.name, rule.topic) for rule in rules.rules]
        check_topics(self, parameter, [*topics, ("commands that go out", OUT)])
        return self, rules, self._warn, self._statistics, self._on_incompatible_qos

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes; the robot stands until all that is needed is there."""
        super().on_activate(state)
        assert self._commanding is not None
        self._commanding.activate()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the robot."""
        if self._commanding is not None:
            self._commanding.deactivate()
        super().on_deactivate(state)
        return SUCCESS

    def _free(self) -> None:
        commanding, self._commanding = self._commanding, None
        if commanding is not None:
            commanding.destroy()

    def _on_change(self, before: P, after: P) -> None:
        if self._commanding is not None:
            self._commanding.on_change()

    def _statuses(self) -> list[DiagnosticStatus]:
        statuses = [self._own_status()]
        if self._commanding is not None and self.state_label == "active":
            statuses.append(self._commanding.status())
        return statuses
