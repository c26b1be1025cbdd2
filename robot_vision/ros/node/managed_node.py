"""What the lifecycle nodes of this package have in common: parameters, diagnostics, and how they end."""

from __future__ import annotations

import functools
import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from robot_vision.ros.node.graph import GraphWatch
from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.ros.node.parameter_files import ignored_sections
from robot_vision.ros.node.parameters import NodeParameters
from robot_vision.ros.node.sequence import NUMBERED, MessageSequence, publisher_of
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message
from robot_vision.ros.node.throttle import ThrottledLog
from robot_vision.ros.node.transforms import TfBroadcaster
from robot_vision.ros.node.transitions import ERROR, SUCCESS, refuse_illegal_transitions, reported

if TYPE_CHECKING:
    from robot_vision.ros.node.bond import Bond

P = TypeVar("P", bound=ManagedParameters)
_FREE = ("unconfigured", "finalized")  # states in which nothing uses the parameters


class ManagedNode(LifecycleNode, Generic[P]):
    """A lifecycle node that starts itself, reports itself and frees what it has from whatever state.

    A subclass sets its own attributes before it calls this constructor, since parameters may be set and
    the timer may run as soon as that returns.

    Args:
        name: of the node.
        parameters: the dataclass of its parameters.
        options: of `LifecycleNode`.

    Attributes:
        problem: why the last transition failed; empty if it did not.
        tf: what broadcasts on /tf while the node does.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, name: str, parameters: type[P], **options: Any) -> None:
        super().__init__(name, **options)
        refuse_illegal_transitions(self)
        self.problem = ""
        self._settings: NodeParameters[P] = NodeParameters(
            self, parameters, lambda: self.state_label not in _FREE, self._on_change
        )
        own = options.get("cli_args") or ()  # of a process with several nodes
        for line in ignored_sections(own, [self.get_fully_qualified_name()]):
            self.get_logger().warning(line)
        self._statistics = Statistics(self.parameters.diagnostics_window_s)
        self._warn = ThrottledLog(
            lambda text: self.get_logger().warning(text), lambda: self.parameters.warn_period_s
        )
        self._graph = GraphWatch(self)
        self.tf: TfBroadcaster | None = None
        self._bond: Bond | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # With use_sim_time a paused bag must not silence the diagnostics.
        self.create_steady_timer(self.parameters.diagnostics_period_s, self._on_diagnostics)

    # One guard for all that a message, a timer or a caller may set off: none of it ends the node.

    def create_subscription(  # type: ignore[override]
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], Any],
        qos_profile: Any,
        *,
        lost: Callable[[int], Any] | None = None,
        sender: Callable[[bytes], Any] | None = None,
        **options: Any,
    ) -> Any:
        """Subscribes as rclpy does; what the callback cannot stand is counted, said and dropped.

        Args:
            msg_type: as rclpy's.
            topic: as rclpy's.
            callback: takes the message alone.
            qos_profile: as rclpy's.
            lost: is called with how many messages the node never saw; by default they are counted.
            sender: is called before the callback with what identifies the message's publisher; not on Humble.
            options: as rclpy's.
        """
        if topic == "/clock":  # rclpy's own, with use_sim_time before this constructor has gone on
            return super().create_subscription(msg_type, topic, callback, qos_profile, **options)
        guarded = self._guarded(topic, callback)
        sequence = MessageSequence(
            lost or functools.partial(self._statistics.count, "lost_messages")
        )

        def take(message: Any, info: Mapping[str, Any]) -> None:
            sequence.take(info)
            if sender is not None:
                sender(publisher_of(info))
            guarded(message)

        callback = take if NUMBERED else guarded  # type: ignore[assignment]
        return super().create_subscription(msg_type, topic, callback, qos_profile, **options)

    def create_timer(self, timer_period_sec: float, callback: Any, *a: Any, **k: Any) -> Any:
        """Makes a timer as rclpy does, which goes on after a failure."""
        return super().create_timer(timer_period_sec, self._guarded("timer", callback), *a, **k)

    def create_steady_timer(self, period_s: float, callback: Callable[[], Any]) -> Any:
        """Makes a timer that simulated time does not stop."""
        return self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _guarded(self, what: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callback)  # rclpy looks at the arguments to know what the callback wants
        def guard(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                total = self._statistics.count("callback_errors")
                self._statistics.mark("callback_errors")
                at = traceback.extract_tb(error.__traceback__)[-1]
                self._warn(
                    f"{what} guard",
                    f"{what}: dropped ({total} so far), please report it: {type(error).__name__}: {error} "
                    f"({Path(at.filename).name}:{at.lineno})",
                )
                return None

        return guard

    @property
    def parameters(self) -> P:
        """The current values of the parameters."""
        return self._settings.current

    @property
    def state_label(self) -> str:
        """The state of the lifecycle, such as `active`."""
        return str(self._state_machine.current_state[1])

    def start(self) -> None:
        """Configures and activates, if `autostart` says so; a failure leaves the node unconfigured."""
        if self.parameters.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def after_transition(self, name: str) -> None:
        """Speaks a bond while the node is active, where a lifecycle manager starts it."""
        if name == "activate" and not self.parameters.autostart:
            from robot_vision.ros.node.bond import Bond  # only for these nodes

            if self._bond is not None:  # of the activation before
                self._bond.free()
                self._bond = None
            try:
                self._bond = Bond(self)
            except ImportError:
                self.get_logger().info(
                    "No bond: the ROS package bond is not installed. A lifecycle manager of Nav2 has to "
                    "have bond_timeout 0.0"
                )
        elif name != "activate":
            self._end_bond()

    def _end_bond(self) -> None:
        if self._bond is not None:
            self._bond.end()

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees what `on_configure` made."""
        self._free()
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and frees, from whatever state."""
        self._free()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees what a failed transition left, so that the node can be configured again."""
        self._end_bond()
        try:
            self._free()
        except Exception:
            self.get_logger().fatal(f"Cannot free after an error: {traceback.format_exc()}")
            return ERROR
        return SUCCESS

    def close(self) -> None:
        """Ends the node in order, as far as it got; for the end of the process."""
        if self.state_label in ("unconfigured", "inactive", "active") and self.context.ok():
            self.trigger_shutdown()
        else:
            self._free()

    @abstractmethod
    def _free(self) -> None:
        """Stops and frees whatever there is; called in any state, also twice."""

    @abstractmethod
    def _statuses(self) -> Sequence[Any]:
        """Returns the entries of the next message on /diagnostics."""

    @abstractmethod
    def _on_change(self, before: P, after: P) -> None:
        """Does what a change of the parameters asks for beyond reading them."""

    def open_tf(self) -> None:
        """Makes `tf`; a node that broadcasts calls it."""
        self.tf = TfBroadcaster(self, self._statistics, self._warn)

    def close_tf(self) -> None:
        """Ends it; calling it again does nothing."""
        tf, self.tf = self.tf, None
        if tf is not None:
            tf.destroy()

    def _shared_topics(self) -> Sequence[str]:
        """Returns topics of the node on which others may publish too."""
        return ()

    def _condition(self) -> tuple[int, str]:
        """Returns level and text for /diagnostics: why the last transition failed, or the state."""
        if not self.problem:
            return 0, self.state_label
        return 2 if self.state_label == "unconfigured" else 1, self.problem

    def _own_status(self) -> DiagnosticStatus:
        """Returns the node's own entry of /diagnostics."""
        level, text = self._condition()
        bad = self._statistics.counters.get("incompatible_qos", 0)
        values = {"state": self.state_label, "incompatible_qos": bad}
        return status_message(level, self.get_fully_qualified_name(), text, "", values)

    def _on_incompatible_qos(self, text: str) -> None:
        self._statistics.count("incompatible_qos")
        self.get_logger().warning(text)

    def _on_diagnostics(self) -> None:
        statuses = list(self._statuses())
        failed = self._statistics.counters.get("callback_errors", 0)
        statuses[0].values.append(KeyValue(key="callback_errors", value=str(failed)))
        if (
            self._statistics.rate("callback_errors") > 0
            and statuses[0].level == DiagnosticStatus.OK
        ):
            statuses[0].level = DiagnosticStatus.WARN
            statuses[0].message = "messages were dropped by an internal error: see the log"
        bonds = [self._bond.topic] if self._bond is not None else []
        doubles = self._graph.doubles(*self._shared_topics(), *bonds)
        for line in doubles:
            self._warn(line.partition(" has ")[0], line)
        if self.tf is not None:
            self.tf.watch()
            doubles += filter(None, [self.tf.problem()])
            doubled = self._statistics.counters.get("tf_doubled", 0)
            statuses[0].values.append(KeyValue(key="tf_doubled", value=str(doubled)))
        statuses[0].values.append(KeyValue(key="doubles", value=str(len(doubles))))
        if doubles and statuses[0].level == DiagnosticStatus.OK:
            statuses[0].level, statuses[0].message = DiagnosticStatus.WARN, "; ".join(doubles)
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
