"""The perception node: camera topics in; classes, descriptors and poses out.

A lifecycle node. It loads and checks the model on `configure`, subscribes on `activate`, stops on
`deactivate` and frees the model on `cleanup`. This file is the glue; a frame's path is in `worker.py`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("perception_node"))

import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.bundle.installed import find_model
from robot_vision.bundle.model_topic import model_topic
from robot_vision.contract.topics import Latched, Shot
from robot_vision.errors import EngineError
from robot_vision.geometry.frames import FrameTree
from robot_vision.images.window import Window
from robot_vision.messages.making import rclpy_maker
from robot_vision.messages.serialized import read_compressed_image, read_image
from robot_vision.pipeline import Pipeline
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.transforms import refusing, subscribe_static, transform_from_numbers
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.perception.camera import CameraInput
from robot_vision.ros.perception.diagnostics import WITHHELD, camera_status, node_status
from robot_vision.ros.perception.logs import warnings_in
from robot_vision.ros.perception.outputs import CameraOutputs
from robot_vision.ros.perception.parameters import (
    NodeSettings,
    PerceptionParameters,
    named_settings,
)
from robot_vision.ros.perception.worker import FrameResult, Request, Worker

NODE_NAME = "perception"


class PerceptionNode(ManagedNode[NodeSettings]):
    """Runs one network on the newest frames of any number of cameras.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self._cameras: dict[str, CameraInput] = {}
        self._statics: FrameTree[Any] = FrameTree()
        self._release: list[Callable[[], Any]] = []
        self._latched: list[tuple[Any, Callable[[], Any]]] = []
        self._options: dict[str, Any] = {}
        self._paused = False
        super().__init__(NODE_NAME, PerceptionParameters, **options)

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads, verifies and warms up the model, and makes the publishers."""
        p = self.parameters
        check_topics(
            self, "image_topics", [(f"camera {name}", p.topic(name)) for name in p.cameras]
        )
        start = time.perf_counter()
        path = find_model(p.model)
        self.get_logger().info(f"Loading the model {path}")
        most = min(len(p.cameras), p.max_batch)
        with warnings_in(self.get_logger()):
            pipeline = Pipeline.load(
                path, p.engine, p.device, p.precision, p.threads, most, p.streams
            )
        try:
            # All cameras at once is the commonest batch but one: engines tune for what comes first.
            pipeline.warm_up((1, *range(most, 1, -1)))
            self._settings.extend(named_settings(pipeline.bundle.spec, p))
            self._options = self._options_of(pipeline)
            self._make_outputs(pipeline, p)
        except BaseException:
            pipeline.close()
            self._free()
            raise
        self._pipeline = pipeline
        engine = pipeline.engine
        if pipeline.said:
            self.get_logger().info(pipeline.said)
        self.get_logger().info(
            f"Model {pipeline.bundle.name} ({'+'.join(pipeline.bundle.spec.heads)}) on {engine.name} "
            f"{engine.device} {pipeline.program}, ready after {time.perf_counter() - start:.2f} s"
            + (f", up to {engine.streams} batches at a time" if engine.streams > 1 else "")
        )
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras and starts the worker."""
        assert self._pipeline is not None
        super().on_activate(state)
        self._publish_latched()
        compressed = self.parameters.transport == "compressed"
        statistics = {name: camera.statistics for name, camera in self._cameras.items()}
        read = read_compressed_image if compressed else read_image
        others = self._pipeline.engine.streams - 1
        self._worker = Worker(
            [self._pipeline, *(self._pipeline.another() for _ in range(others))],
            statistics,
            self._statistics,
            read,
            self._request,
            self._publish,
            self._warn,
        )
        self._worker.start()
        for camera in self._cameras.values():
            camera.subscribe(self._worker.mailbox, self._on_incompatible_qos)
        # What lives now lives long: the collector need not look at it with every full collection.
        gc.collect()
        gc.freeze()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions and lets the worker finish its batch."""
        self._stop()
        super().on_deactivate(state)
        return SUCCESS

    # What the transitions do

    def _make_outputs(self, pipeline: Pipeline, p: NodeSettings) -> None:
        bundle = pipeline.bundle
        bound = bundle.spec.bound
        if any(t.name == "/tf" for head, spec in bound for t in head.topics(spec)):
            self.open_tf()
            self._release.append(self.close_tf)
        if p.base_frame and not p.camera_to_base and any("mounting" in h.needs for h, _ in bound):
            self._release.append(
                subscribe_static(self, self._statics, refusing(self._statistics, self._warn))
            )
        calibrated = any("camera_info" in head.needs for head, _ in bound)
        for name in p.cameras:
            outputs = CameraOutputs(self, name, bundle.spec, p, self._on_incompatible_qos)
            self._release.append(outputs.destroy)
            self._cameras[name] = CameraInput(
                self, name, outputs, lambda: self.parameters, self._warn, calibrated
            )
        for head, spec in bound:
            for latched in head.latched(spec):
                self._latch(latched, head.name)
        self._latch(model_topic(bundle, pipeline.program, pipeline.engine.name), None)

    def _latch(self, latched: Latched, head: str | None) -> None:
        kind, qos = rclpy_maker(latched.kind), profile("reliable", 1, latched=True)
        publisher = self.create_lifecycle_publisher(kind, f"~/{latched.name}", qos)
        self._release.append(functools.partial(self.destroy_lifecycle_publisher, publisher))
        write = latched.writer(rclpy_maker)
        self._latched.append(
            (
                publisher,
                lambda: write(self.get_clock().now().to_msg(), self._options.get(head or "")),
            )
        )

    def _options_of(self, pipeline: Pipeline) -> dict[str, Any]:
        """Returns each head's options in force."""
        given = {**vars(self.parameters), **self._settings.more}
        bundle = pipeline.bundle
        for head, spec in bundle.spec.bound:
            material = bundle.material[head.name]
            if text := head.ineffective(head.options(given), spec, material):
                self._warn(f"{head.name} options", f"{bundle.name}, {head.name}: {text}")
        return bundle.options(given)

    def _stop(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
        if self._worker is not None:
            if not self._worker.stop():
                raise EngineError(
                    "the network did not finish its batch within a minute: restart the node"
                )
            self._worker = None

    def _free(self) -> None:
        # If the worker hangs in the engine this raises, and the engine is not freed under it.
        self._stop()
        for release in reversed(self._release):
            release()
        self._release = []
        self._cameras = {}
        self._latched = []
        if self._pipeline is not None:
            pipeline, self._pipeline = self._pipeline, None
            pipeline.close()
            gc.unfreeze()

    # What the worker calls, in its thread

    def _request(self, name: str) -> Request:
        p, outputs = self.parameters, self._cameras[name].outputs
        wanted = p.always_infer or outputs.listened(self._options)
        self._note_paused(not wanted and not self._anybody_listens())
        return Request(wanted, wanted and outputs.wants_full_image(p.annotated_rate_hz))

    def _anybody_listens(self) -> bool:
        return self.parameters.always_infer or any(
            camera.outputs.listened(self._options) for camera in self._cameras.values()
        )

    def _note_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            self.get_logger().info(
                "Paused: nothing subscribes to a result"
                if paused
                else "Running: there is a subscriber"
            )

    def _publish(self, result: FrameResult) -> bool:
        assert self._pipeline is not None
        camera, p, options = self._cameras[result.camera], self.parameters, self._options
        shot = Shot(
            result.header.stamp,
            result.header.frame_id,
            camera.name,
            p.base_frame,
            functools.partial(self._mounting, camera.name),
            Window.of(result.size, self._pipeline.bundle.spec.input),
            functools.partial(camera.intrinsics, result.size),
        )
        sent, left_out = camera.outputs.publish(shot, result.prediction, options)
        for left in left_out:
            camera.statistics.count(left.reason)
            camera.statistics.mark("left_out" if left.fault else f"{WITHHELD}{left.reason}")
            self._warn(f"{camera.name} {left.reason}", f"Camera {camera.name}: {left.text}")
        camera.note_stamp(result.header.stamp, self.get_clock().now().nanoseconds)
        if result.full_image is not None:
            from robot_vision.annotate import annotate

            spec = self._pipeline.bundle.spec
            drawn = annotate(result.full_image, result.prediction, spec, options)
            camera.outputs.publish_annotated(result.header, drawn)
            return True
        return sent

    def _mounting(self, camera: str, frame: str) -> NDArray[np.float64] | None:
        """Returns `T_base_camera` of a camera whose optical frame is `frame`."""
        p = self.parameters
        numbers = p.transform_numbers(camera)
        if numbers:
            return transform_from_numbers(numbers)
        return self._statics.lookup(p.base_frame, frame)

    # Around it

    def _on_change(self, before: NodeSettings, after: NodeSettings) -> None:
        if self._pipeline is None:
            return
        options, self._options = self._options, self._options_of(self._pipeline)
        if self._worker is not None and options != self._options:
            self._publish_latched()

    def _publish_latched(self) -> None:
        for publisher, message in self._latched:
            publisher.publish(message())

    def _statuses(self) -> list[DiagnosticStatus]:
        p, name = self.parameters, self.get_fully_qualified_name()
        about: dict[str, object] = {"model": p.model}
        if self._pipeline is not None:
            bundle, engine = self._pipeline.bundle, self._pipeline.engine
            about = {
                "model": bundle.name,
                "path": bundle.path,
                "sha256": bundle.sha256,
                "heads": " ".join(bundle.spec.heads),
                "engine": engine.name,
                "device": engine.device,
                "precision": engine.precision,
                "program": self._pipeline.program,
            }
        failures = self._worker.failures_in_a_row if self._worker else 0
        most = p.max_engine_failures
        statuses = [
            node_status(
                name, self.state_label, about, self._statistics, failures, most, self.problem
            )
        ]
        if self._worker is not None:
            self._note_paused(not self._anybody_listens())
            device = str(about.get("device", ""))
            for camera in self._cameras.values():
                idle = not (p.always_infer or camera.outputs.listened(self._options))
                health = camera.health(idle)
                statuses.append(
                    camera_status(name, device, health, camera.statistics, p.stale_after_s)
                )
        return statuses


main = functools.partial(run_node, PerceptionNode)
