"""The filter node: what the perception node says of each image in; what is true over time out.

A lifecycle node. The classes are filtered in `classes.py`, the pose in `pose.py`; the
mathematics of both is in `robot_vision.filters`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("filter_node"))

import functools
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.errors import RobotVisionError
from robot_vision.ros.filters.classes import ClassFiltering
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.filters.pose import PoseFiltering
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.transitions import SUCCESS, reported

NODE_NAME = "filters"


class FilterNode(ManagedNode[FilterParameters]):
    """Filters classes and poses over time.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._classes: ClassFiltering | None = None
        self._poses: PoseFiltering | None = None
        super().__init__(NODE_NAME, FilterParameters, **options)

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Checks what is known of the classes, and makes the publishers."""
        p, topics = self.parameters, list[tuple[str, str]]()
        if p.filter_classes:
            topics += [(f"camera {name}", p.classification_topic(name)) for name in p.cameras]
        if p.filter_pose:
            topics += [(f"pose source {n}", t) for n, t in enumerate(p.poses(), 1)]
            topics += [(f"cell source {n}", t) for n, t in enumerate(p.cells(), 1)]
            topics += [("odometry_topic", p.odometry_topic)] * (p.odometry_source == "topic")
        check_topics(self, "The node", topics)
        shared = (self, lambda: self.parameters, self._warn, self._ahead, self._on_incompatible_qos)
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

    def _shared_topics(self) -> tuple[str, ...]:
        return ("~/prior",)  # of all who know something

    def _on_change(self, before: FilterParameters, after: FilterParameters) -> None:
        for part in self._parts():
            try:
                part.on_change()
            except RobotVisionError as error:
                self._warn("change", f"Changed parameters cannot be used: {error}")

    def _statuses(self) -> list[DiagnosticStatus]:
        name, statuses = self.get_fully_qualified_name(), [self._own_status()]
        if self.state_label == "active":
            if self._classes is not None:
                statuses += self._classes.statuses(name)
            if self._poses is not None:
                statuses.append(self._poses.status(name))
        return statuses


main = functools.partial(run_node, FilterNode)
