"""The classes over time, in the filter node: of each camera, and of all together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from vision_msgs.msg import Classification, LabelInfo

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.filters.class_file import ClassKnowledge, read_class_file
from robot_vision.filters.class_filter import ClassBelief, ClassFilter, ClassModel, from_hypotheses
from robot_vision.heads.classifier.topics import hypotheses_writer
from robot_vision.messages.incoming import measured_stamp_ns
from robot_vision.messages.making import rclpy_maker
from robot_vision.messages.stamps import set_stamp
from robot_vision.ros.filters.diagnostics import class_status
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.node.qos import profile, publisher_events, subscription_events
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import header_message

Warn = Callable[[str, str], None]

_message = hypotheses_writer(rclpy_maker)


class ClassFiltering:
    """Subscriptions, filters and publishers of the classes, while the node is configured.

    Args:
        node: owns them.
        parameters: returns the current snapshot.
        warn: throttled log: a key and a line.
        ahead: says by how many seconds a stamp is too far ahead of the node's clock; 0 if it is not.
        on_qos: logs QoS that does not fit.

    Raises:
        ConfigError: labels, class_file and the lists by class contradict each other.
    """

    def __init__(
        self,
        node: LifecycleNode,
        parameters: Callable[[], FilterParameters],
        warn: Warn,
        ahead: Callable[[int], float],
        on_qos: Callable[[str], None],
    ) -> None:
        self._node, self._parameters, self._warn, self._ahead = node, parameters, warn, ahead
        self._on_qos = on_qos
        p = parameters()
        self.statistics = {name: Statistics(p.diagnostics_window_s) for name in p.cameras}
        self.problem = ""
        self._labels: tuple[str, ...] = ()
        self._knowledge = ClassKnowledge()
        self._prior: NDArray[np.float64] | None = None  # from the topic
        self._filters: dict[str, ClassFilter] = {}
        self._fused: ClassFilter | None = None
        self._subscriptions: list[Any] = []
        self._last: dict[str, float] = {}  # steady time of each camera's last message
        self._since = time.monotonic()
        if p.labels:
            self._take_labels(p.labels)
        qos = profile(p.publish_reliability, p.publish_depth)
        name = node.get_fully_qualified_name()
        self._publishers: dict[str, Any] = {}
        for camera in (*p.cameras, ""):
            topic = f"{camera}/classification" if camera else "classification"
            self._publishers[camera] = node.create_lifecycle_publisher(
                Classification,
                f"~/{topic}",
                qos,
                event_callbacks=publisher_events(f"{name}/{topic}", on_qos),
            )

    def activate(self) -> None:
        """Subscribes."""
        p, node = self._parameters(), self._node
        self._since = time.monotonic()
        self._last = {}
        if not p.labels:
            latched = profile("reliable", 1, latched=True)
            topic = f"{p.perception_node}/label_info"
            self._subscriptions.append(
                node.create_subscription(LabelInfo, topic, self._on_labels, latched)
            )
        self._subscriptions.append(
            node.create_subscription(
                Classification, "~/prior", self._on_prior, profile("reliable", 1)
            )
        )
        for camera in p.cameras:
            topic = node.resolve_topic_name(p.classification_topic(camera))
            self._subscriptions.append(
                node.create_subscription(
                    Classification,
                    topic,
                    functools.partial(self._on_classes, camera),
                    profile(p.subscribe_reliability, p.subscribe_depth),
                    event_callbacks=subscription_events(topic, self._on_qos),
                )
            )

    def deactivate(self) -> None:
        """Ends the subscriptions; what was believed is forgotten, for the robot may have moved."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        for filter_ in (*self._filters.values(), *([self._fused] if self._fused else [])):
            filter_.reset()

    def destroy(self) -> None:
        """Ends everything."""
        self.deactivate()
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def on_change(self) -> None:
        """Takes changed parameters up."""
        if self._fused is not None:
            model = self._model()
            for filter_ in (*self._filters.values(), self._fused):
                filter_.change(model)

    # The model

    def _take_labels(self, labels: tuple[str, ...]) -> None:
        p = self._parameters()
        knowledge = read_class_file(p.class_file, labels) if p.class_file else ClassKnowledge()
        self._labels, self._knowledge, self._prior = labels, knowledge, None
        model = self._model()
        self._filters = {camera: ClassFilter(model) for camera in p.cameras}
        self._fused = ClassFilter(model)
        self.problem = ""

    def _model(self) -> ClassModel:
        p, known, count = self._parameters(), self._knowledge, len(self._labels)
        rates = known.rates
        if p.class_rates:
            if len(p.class_rates) != count * count:
                raise ConfigError(
                    f"class_rates has {len(p.class_rates)} numbers for {count} classes: give {count**2}"
                )
            rates = np.reshape(p.class_rates, (count, count))
        prior = np.array(p.class_prior) if p.class_prior else known.prior
        training = np.array(p.training_prior) if p.training_prior else known.training_prior
        return ClassModel(
            self._labels,
            prior=self._prior if self._prior is not None else prior,
            training_prior=training,
            dwell_s=p.class_dwell_s,
            rates=rates,
            correlation_time_s=p.class_correlation_s,
            memory=p.class_memory,
            camera_correlation=p.camera_correlation,
            unknown_prior=p.unknown_prior,
            refused_known=p.refused_known,
            refused_unknown=p.refused_unknown,
        )

    # What comes in

    def _on_labels(self, message: Any) -> None:
        labels = tuple(c.class_name for c in message.class_map)
        if labels == self._labels:
            return
        try:
            self._take_labels(labels)
        except ConfigError as error:
            self._labels, self._filters, self._fused = (), {}, None
            self.problem = str(error)
            self._node.get_logger().error(f"Cannot filter the classes: {error}")
            return
        self._node.get_logger().info(f"Classes: {', '.join(labels[:8])} ({len(labels)})")

    def _on_prior(self, message: Any) -> None:
        if self._fused is None:
            self._warn(
                "prior labels", "A prior arrived before the labels were known: it is ignored"
            )
            return
        before = self._prior
        try:
            results = [(h.class_id, h.score) for h in message.results]
            self._prior, refused = from_hypotheses(self._labels, results)
            if refused:
                raise MeasurementError("shape", "unknown has no place in it: set unknown_prior")
            self.on_change()
        except (MeasurementError, ConfigError) as error:
            self._prior = before
            self._warn("prior", f"A prior was refused: {error}")

    def _on_classes(self, camera: str, message: Any) -> None:
        statistics = self.statistics[camera]
        statistics.count("received")
        statistics.mark("received")
        self._last[camera] = time.monotonic()
        if self._fused is None:
            topic = f"{self._parameters().perception_node}/label_info"
            self._refuse(
                camera, "no_labels", f"the labels are not known: set labels, or see {topic}"
            )
            return
        try:
            stamp = measured_stamp_ns(message.header)
        except MeasurementError as error:
            self._refuse(camera, error.reason, str(error))
            return
        ahead_s = self._ahead(stamp)
        if ahead_s > 0:
            self._refuse(camera, "stamps_ahead", f"its stamp is {ahead_s:.1f} s ahead of the clock")
            return
        own = self._filters[camera]
        try:
            results = [(h.class_id, h.score) for h in message.results]
            probabilities, refused = from_hypotheses(self._labels, results)
            resets = own.resets
            belief = own.update(stamp, probabilities, refused)
            if own.resets > resets:
                statistics.count("resets")
                self._warn(
                    f"{camera} reset", f"Camera {camera}: stamps went back, filter restarted"
                )
            fused = self._fused.update(stamp, probabilities, refused, camera)
        except MeasurementError as error:
            self._refuse(camera, error.reason, str(error))
            return
        statistics.count("published")
        statistics.mark("published")
        self._publish(camera, message.header, belief)
        self._publish("", message.header, fused)

    def _refuse(self, camera: str, reason: str, text: str) -> None:
        self.statistics[camera].count(f"refused_{reason}")
        self.statistics[camera].mark("refused")
        self.statistics[camera].mark(f"refused_{reason}")
        self._warn(f"{camera} {reason}", f"Camera {camera}: a classification was refused: {text}")

    def _publish(self, camera: str, source_header: Any, belief: ClassBelief) -> None:
        publisher = self._publishers[camera]
        if publisher.get_subscription_count() == 0:
            return
        header = header_message(source_header)
        if not camera:
            # Of all cameras: the time is that of the newest image, the frame is no camera's.
            set_stamp(header.stamp, belief.stamp_ns)
            header.frame_id = self._parameters().base_frame
        publisher.publish(_message(header, belief.top_k(self._parameters().top_k)))

    def statuses(self, node: str) -> list[Any]:
        """Returns an entry of `/diagnostics` for each camera."""
        now, p = time.monotonic(), self._parameters()
        return [
            class_status(
                node,
                camera,
                p,
                now - self._last.get(camera, self._since),
                self._filters[camera].newest if camera in self._filters else None,
                self.problem,
                statistics,
            )
            for camera, statistics in self.statistics.items()
        ]
