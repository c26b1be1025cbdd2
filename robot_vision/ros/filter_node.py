"""The filter node: what the perception node says of each image in; what is true over time out.

A lifecycle node. The classes are filtered in `class_filtering.py`, the pose in `pose_filtering.py`; the
mathematics of both is in `robot_vision.filters`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from robot_vision.errors import RobotVisionError
from robot_vision.ros.class_filtering import ClassFiltering
from robot_vision.ros.filter_parameters import FilterParameters
from robot_vision.ros.messages import status_message
from robot_vision.ros.parameters import NodeParameters
from robot_vision.ros.pose_filtering import PoseFiltering
from robot_vision.ros.process import run_node
from robot_vision.ros.statistics import Statistics
from robot_vision.ros.throttle import ThrottledLog
from robot_vision.ros.transitions import ERROR, SUCCESS, refuse_illegal_transitions, reported

NODE_NAME = "filters"


class FilterNode(LifecycleNode):
    """Filters classes and poses over time.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        refuse_illegal_transitions(self)
        self.problem = ""
        self._classes: ClassFiltering | None = None
        self._poses: PoseFiltering | None = None
        self._settings = NodeParameters(
            self, FilterParameters, lambda: self._configured, self._on_change
        )
        self._statistics = Statistics(self.parameters.diagnostics_window_s)
        self._warn = ThrottledLog(
            lambda text: self.get_logger().warning(text), lambda: self.parameters.warn_period_s
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: with use_sim_time a paused bag must not silence the diagnostics.
        self.create_timer(
            self.parameters.diagnostics_period_s,
            self._on_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def parameters(self) -> FilterParameters:
        """The current values of the parameters."""
        return self._settings.current

    @property
    def _configured(self) -> bool:
        return self._classes is not None or self._poses is not None

    def start(self) -> None:
        """Configures and activates, if `autostart` says so; a failure leaves the node unconfigured."""
        if self.parameters.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Checks what is known of the classes, and makes the publishers."""
        p = self.parameters
        shared = (self, lambda: self.parameters, self._warn, self._ahead, self._on_qos)
        try:
            if p.filter_classes:
                self._classes = ClassFiltering(*shared)
            if p.filter_pose:
                self._poses = PoseFiltering(*shared)
        except BaseException:
            self._free()
            raise
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes."""
        super().on_activate(state)
        for part in self._parts():
            part.activate()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions."""
        for part in self._parts():
            part.deactivate()
        super().on_deactivate(state)
        return SUCCESS

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the publishers."""
        self._free()
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and frees, from whatever state."""
        self._free()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees what a failed transition left, so that the node can be configured again."""
        try:
            self._free()
        except Exception:
            self.get_logger().fatal(f"Cannot free after an error: {traceback.format_exc()}")
            return ERROR
        return SUCCESS

    def close(self) -> None:
        """Ends the node in order, as far as it got; for the end of the process."""
        label = self._state_machine.current_state[1]
        if label in ("unconfigured", "inactive", "active") and self.context.ok():
            self.trigger_shutdown()
        else:
            self._free()

    def _parts(self) -> list[ClassFiltering | PoseFiltering]:
        return [part for part in (self._classes, self._poses) if part is not None]

    def _free(self) -> None:
        parts = self._parts()
        self._classes = self._poses = None
        for part in parts:
            part.destroy()

    # Around it

    def _ahead(self, stamp_ns: int) -> float:
        """Returns by how many seconds a stamp is too far ahead of the node's clock; 0 if it is not."""
        now = self.get_clock().now().nanoseconds
        ahead_s = (stamp_ns - now) * 1e-9
        # Before the first message on /clock, simulated time stands at 0.
        return ahead_s if now > 0 and ahead_s > self.parameters.max_ahead_s else 0.0

    def _on_change(self, before: FilterParameters, after: FilterParameters) -> None:
        for part in self._parts():
            try:
                part.on_change()
            except RobotVisionError as error:
                self._warn("change", f"Changed parameters cannot be used: {error}")

    def _on_qos(self, text: str) -> None:
        self._statistics.count("incompatible_qos")
        self.get_logger().warning(text)

    def _on_diagnostics(self) -> None:
        name, state = self.get_fully_qualified_name(), self._state_machine.current_state[1]
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        level, text = (
            (1 if state != "unconfigured" else 2, self.problem) if self.problem else (0, state)
        )
        values: dict[str, object] = {
            "state": state,
            "incompatible_qos": self._statistics.counters.get("incompatible_qos", 0),
        }
        message.status.append(status_message(level, name, text, "", values))
        if state == "active":
            if self._classes is not None:
                message.status += self._classes.statuses(name)
            if self._poses is not None:
                message.status.append(self._poses.status(name))
        self._diagnostics.publish(message)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(FilterNode, args)


if __name__ == "__main__":
    sys.exit(main())
