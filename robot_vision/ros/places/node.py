"""The place node: descriptors in; places, poses and loop closures out.

A lifecycle node next to the perception node. It opens the map on `configure`, subscribes on `activate`, stops
on `deactivate` and closes the map on `cleanup`. A map that cannot be opened is no reason to stop: it is tried
again. This file is the glue; a descriptor's path is in `place_worker.py`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("place_node"))

import functools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from vision_msgs.msg import VisionInfo

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.errors import ConfigError, EngineError
from robot_vision.places.map.base import MapError, PlaceMap
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.qos import profile, subscription_events
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.places.diagnostics import Health, map_status, mapping_status, node_status
from robot_vision.ros.places.images import Images
from robot_vision.ros.places.keyframes import Mapper
from robot_vision.ros.places.loops import Loops
from robot_vision.ros.places.map_file import Model, model_of, open_or_make, save_snapshot
from robot_vision.ros.places.motion import Motion
from robot_vision.ros.places.origin import Origin
from robot_vision.ros.places.outputs import PlaceOutputs
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.places.recognition import LiveMap
from robot_vision.ros.places.services import Outcome, Services
from robot_vision.ros.places.when_to_map import MappingSwitch
from robot_vision.ros.places.worker import PlaceWorker
from robot_vision.text.address import shown

NODE_NAME = "places"


class PlaceNode(ManagedNode[PlaceParameters]):
    """Says where in a map of places the camera is, and makes that map.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._given: tuple[Model, int] | None = None  # of the parameter `model`, with its dimension
        self._announced: Model | None = None  # by the perception node
        self._recognition: LiveMap | None = None
        self._motion: Motion | None = None
        self._mapper: Mapper | None = None
        self._mapping: MappingSwitch | None = None
        self._worker: PlaceWorker | None = None
        self._images: Images | None = None
        self._origin: Origin | None = None
        self._outputs: PlaceOutputs | None = None
        self._release: list[Callable[[], Any]] = []  # at cleanup
        self._unsubscribe: list[Callable[[], Any]] = []  # at deactivation
        super().__init__(NODE_NAME, PlaceParameters, **options)

    @property
    def model(self) -> Model | None:
        """Who makes the descriptors, once that is known."""
        return self._given[0] if self._given else self._announced

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the model's name, opens the map if it can be, and makes publishers and services."""
        p = self.parameters
        inputs = [("descriptor_topic", p.descriptors)]
        inputs += [("image_topic", p.images)] if p.wants_images else []
        inputs += [("pose_topic", p.poses)] if p.poses else []
        check_topics(self, "The node", inputs)
        initial = self.resolve_topic_name(p.initialpose_topic)
        if initial in [self.resolve_topic_name(topic) for _, topic in inputs]:
            raise ConfigError(
                f"initialpose_topic is {initial}, which the node subscribes to: set another"
            )
        self._given = self._announced = None
        if p.model:
            bundle = ModelBundle.load(find_model(p.model))
            if "place" not in bundle.spec.heads:
                raise ConfigError(f"Bundle {bundle.name} has no place head: use one that has")
            self._given = (
                Model(bundle.name, bundle.sha256),
                bundle.spec.heads["place"].descriptor_size,
            )
        if p.features:
            from robot_vision.places.verification.xfeat import XFeatDetector  # SIFT needs no engine

            # A wrong file is said now, and not when there is an image to compare.
            XFeatDetector(Path(p.features).expanduser())
        try:
            self._make(p)
        except BaseException:
            self._free()
            raise
        return SUCCESS

    def _make(self, p: PlaceParameters) -> None:
        source = p.source or f"{socket.gethostname()} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        recognition = LiveMap(
            lambda: self.parameters,
            lambda: self.model,
            lambda: source,
            self._leaves_out_own,
            self._statistics,
            self._warn,
            self._log,
            lambda: self._mapper.release() if self._mapper is not None else None,
        )
        self._outputs = PlaceOutputs(self, p, self._on_incompatible_qos)
        self._release.append(self._outputs.destroy)
        self._origin = Origin(self._statistics)
        self._mapper = Mapper(
            self._open_for_mapping,
            p.camera,
            source,
            lambda: self.parameters.keyframes,
            lambda: self.parameters.retry_period_s,
            self._statistics,
            self._warn,
            self._log,
            p.features,
        )
        self._motion = Motion(
            self,
            lambda: self.parameters,
            lambda: recognition.frame_id,
            self._statistics,
            self._warn,
        )
        if p.wants_images:
            self._images = Images(self, p, self._statistics, self._warn)
        self._mapping = MappingSwitch(
            self._mapper, lambda: self.parameters, self._statistics, self._warn, self._log
        )
        works = {
            "start_mapping": self._mapping.begin,
            "stop_mapping": self._mapping.end,
            "save_snapshot": self._save_snapshot,
        }
        self._release.append(Services(self, self._relocalise, works).destroy)
        self._recognition = recognition
        if p.map:
            recognition.try_open()

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and starts the worker, and mapping where it is wanted."""
        assert self._recognition and self._motion and self._mapper and self._outputs
        assert self._origin is not None and self._mapping
        super().on_activate(state)
        p = self.parameters
        loops = None
        if p.loop_closure and p.pose_source != "none":
            loops = Loops(self._outputs, self._statistics)
        self._worker = PlaceWorker(
            lambda: self.parameters,
            self._recognition,
            self._motion,
            self._origin,
            self._images,
            self._mapper,
            loops,
            self._outputs,
            self._statistics,
            self._warn,
        )
        self._worker.start()
        self._motion.subscribe(self._on_incompatible_qos)
        self._unsubscribe.append(self._motion.unsubscribe)
        if self._images is not None:
            self._images.subscribe(self._on_incompatible_qos)
            self._unsubscribe.append(self._images.unsubscribe)
        topic = self.resolve_topic_name(p.descriptors)
        self._listen(
            Image,
            p.descriptors,
            self._worker.put,
            profile(p.subscribe_reliability, p.subscribe_depth),
            event_callbacks=subscription_events(topic, self._on_incompatible_qos),
        )
        if self._given is None:
            latched = profile("reliable", 1, latched=True)
            self._listen(VisionInfo, p.vision_info, self._on_vision_info, latched)
        self.get_logger().info(f"Descriptors of {p.camera}: {topic}")
        self._mapping.active = True
        self._mapping.follow(at_once=True)
        return SUCCESS

    def _listen(self, kind: Any, topic: str, take: Any, qos: Any, **options: Any) -> None:
        subscription = self.create_subscription(kind, topic, take, qos, **options)
        self._unsubscribe.append(functools.partial(self.destroy_subscription, subscription))

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions, lets the worker finish, and ends mapping with all keyframes on disk."""
        self._stop()
        super().on_deactivate(state)
        return SUCCESS

    def _stop(self) -> None:
        for unsubscribe in reversed(self._unsubscribe):
            unsubscribe()
        self._unsubscribe = []
        if self._worker is not None:
            if not self._worker.stop():
                raise EngineError(
                    "the place worker did not finish within a minute: restart the node"
                )
            self._worker = None
        if self._mapping is not None:
            self._mapping.active = False
            self._mapping.end()

    def _free(self) -> None:
        self._stop()
        for release in reversed(self._release):
            release()
        self._release = []
        self._outputs = self._origin = self._mapper = self._motion = self._images = None
        self._mapping = None
        recognition, self._recognition = self._recognition, None
        if recognition is not None:
            recognition.close()

    # Mapping

    def _leaves_out_own(self) -> bool:
        """While it maps, a view is most like the last keyframe, which says nothing.

        Unless nobody knows where the odometry began: then its own map is what finds the robot again.
        """
        mapper, origin = self._mapper, self._origin
        if mapper is None or not mapper.running:
            return False
        return self.parameters.pose_source != "odometry" or (origin is not None and origin.known)

    def _open_for_mapping(self) -> PlaceMap:
        dimension = self._given[1] if self._given else 0
        if not dimension and self._worker is not None:
            dimension = self._worker.dimension
        p = self.parameters
        if self._recognition is not None and self._recognition.outdated():
            raise MapError(
                f"{shown(p.map)} was removed or replaced, and the old file is still open: it is closed soon"
            )
        places = open_or_make(p.map, self.model, dimension, p.map_frame)
        if len(places) == 0 and self._origin is not None:
            self._origin.define()
        return places

    # Around it

    def _relocalise(self, answer: Outcome) -> None:
        if self._worker is None:
            raise ConfigError("The node is not active: activate it first")
        if not self.parameters.base_frame:
            raise ConfigError(
                "base_frame is empty: set it to the robot's frame, such as base_link, since a localiser is "
                "started with the robot's pose and not the camera's"
            )
        self._worker.relocalise(answer)

    def _save_snapshot(self) -> str:
        return save_snapshot(self.parameters.map, self.parameters.snapshot_folder)

    def _on_change(self, before: PlaceParameters, after: PlaceParameters) -> None:
        if self._mapping is None or before.mapping == after.mapping:
            return
        if after.mapping:
            self._mapping.follow(at_once=True)
        else:
            self._mapping.end()

    def _on_vision_info(self, message: VisionInfo) -> None:
        model = model_of(message.method)
        if model is None:
            self._warn(
                "vision info",
                f"{self.parameters.vision_info} names no model that is known here: {message.method!r}",
            )
        elif model != self._announced:
            self._announced = model
            self.get_logger().info(
                f"Descriptors are those of model {model.name} {model.sha256[:12]}"
            )

    def _log(self, text: str) -> None:
        self.get_logger().info(text)

    def _shared_topics(self) -> tuple[str, ...]:
        return (self.parameters.initialpose_topic,)  # people start a localiser too

    def _on_diagnostics(self) -> None:
        if self._images is not None:
            self._images.follow()
        if self._mapping is not None:
            self._mapping.follow()
        super()._on_diagnostics()

    def _unverified(self, worker: PlaceWorker | None) -> str:
        """Returns why matches cannot be verified; empty where they can, or need not be."""
        recognition, images, p = self._recognition, self._images, self.parameters
        if not p.verify or worker is None or recognition is None or images is None:
            return ""
        # Right after the start nothing is missing yet.
        return recognition.unverified or (images.missing if worker.age_s > p.stale_after_s else "")

    def _statuses(self) -> list[DiagnosticStatus]:
        p, name = self.parameters, self.get_fully_qualified_name()
        worker, motion, model = self._worker, self._motion, self.model
        topic = self.resolve_topic_name(p.descriptors)
        health = Health(
            name=name,
            state=self.state_label,
            problem=self.problem,
            descriptors=topic,
            descriptor_publishers=self.count_publishers(topic),
            silent_s=time.monotonic() - worker.since if worker else 0.0,
            seen=worker.seen if worker else False,
            motion=motion.topic if worker and motion else "",
            motion_silent_s=motion.silent_s if worker and motion else 0.0,
            motion_seen=motion.seen if motion else False,
            stale_after_s=p.stale_after_s,
            model=f"{model.name} {model.sha256[:12]}" if model else "",
            unverified=self._unverified(worker),
        )
        statuses = [node_status(health, self._statistics)]
        recognition, mapper = self._recognition, self._mapper
        if recognition is not None and mapper is not None:
            statuses.append(
                map_status(
                    name,
                    p.map,
                    recognition.info,
                    recognition.size,
                    recognition.problem,
                    recognition.missing,
                    self._statistics.counters.get("map_failures", 0),
                )
            )
            statuses.append(mapping_status(name, mapper, self._statistics))
        return statuses


main = functools.partial(run_node, PlaceNode)
