"""The perception node: camera topics in; classes, descriptors and poses out.

A lifecycle node. It loads and checks the model on `configure`, subscribes on `activate`, stops on
`deactivate` and frees the model on `cleanup`. This file is the glue; a frame's path is in `worker.py`.
"""

from __future__ import annotations

if (
    __name__ == "__main__"
):  # before the imports below, which take a second in which a signal may come
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("perception_node"))

import functools
import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from vision_msgs.msg import LabelInfo, VisionInfo

from robot_vision.bundle.installed import find_model
from robot_vision.errors import EngineError
from robot_vision.geometry.frames import FrameTree
from robot_vision.heads.classifier.known_scores import known_scores
from robot_vision.messages.serialized import read_compressed_image, read_image
from robot_vision.pipeline import Pipeline
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.status import label_info_message, vision_info_message
from robot_vision.ros.node.transforms import (
    subscribe_static,
    transform_from_numbers,
)
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.perception.camera import Camera
from robot_vision.ros.perception.diagnostics import camera_status, node_status
from robot_vision.ros.perception.outputs import CameraOutputs
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.ros.perception.worker import Request, Result, Worker

NODE_NAME = "perception"


class PerceptionNode(ManagedNode[PerceptionParameters]):
    """Runs one network on the newest frames of any number of cameras.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self._cameras: dict[str, Camera] = {}
        self._statics: FrameTree[Any] = FrameTree()
        self._release: list[Callable[[], Any]] = []
        self._info: tuple[Any, Any] | None = None
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
        pipeline = Pipeline.load(path, p.engine, p.device, p.precision, p.threads, most, p.streams)
        try:
            # All cameras at once is the commonest batch but one: engines tune for what comes first.
            pipeline.warm_up((1, *range(most, 1, -1)))
            self._make_outputs(pipeline, p)
        except BaseException:
            pipeline.close()
            self._free()
            raise
        self._pipeline = pipeline
        engine = pipeline.engine
        self.get_logger().info(
            f"Model {pipeline.bundle.name} ({'+'.join(pipeline.bundle.spec.heads)}) on {engine.name} "
            f"{engine.device} {engine.precision}, ready after {time.perf_counter() - start:.2f} s"
        )
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras and starts the worker."""
        assert self._pipeline is not None
        super().on_activate(state)
        self._publish_info()
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

    def _make_outputs(self, pipeline: Pipeline, p: PerceptionParameters) -> None:
        for name in p.cameras:
            outputs = CameraOutputs(self, name, pipeline.bundle.spec, p, self._on_incompatible_qos)
            self._release.append(outputs.destroy)
            self._cameras[name] = Camera(self, name, outputs, lambda: self.parameters, self._warn)
        latched = profile("reliable", 1, latched=True)
        infos = []
        for kind, topic in ((LabelInfo, "~/label_info"), (VisionInfo, "~/vision_info")):
            publisher = self.create_lifecycle_publisher(kind, topic, latched)
            self._release.append(functools.partial(self.destroy_lifecycle_publisher, publisher))
            infos.append(publisher)
        self._info = (infos[0], infos[1])
        if pipeline.bundle.spec.pose is None:
            return
        self.open_tf()
        self._release.append(self.close_tf)
        if p.base_frame and not p.camera_to_base:
            self._release.append(subscribe_static(self, self._statics, self._refuse_transform))

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
        self._info = None
        if self._pipeline is not None:
            pipeline, self._pipeline = self._pipeline, None
            pipeline.close()
            gc.unfreeze()

    # What the worker calls, in its thread

    def _broadcasts(self, p: PerceptionParameters) -> bool:
        return p.publish_tf and self.tf is not None and self.tf.listened

    def _request(self, name: str) -> Request:
        p, outputs = self.parameters, self._cameras[name].outputs
        wanted = p.always_infer or outputs.listened() or self._broadcasts(p)
        self._note_paused(not wanted and not self._anybody_listens())
        return Request(wanted, wanted and outputs.wants_full_image(p))

    def _anybody_listens(self) -> bool:
        p = self.parameters
        return (
            p.always_infer
            or self._broadcasts(p)
            or any(camera.outputs.listened() for camera in self._cameras.values())
        )

    def _note_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            self.get_logger().info(
                "Paused: nothing subscribes to a result"
                if paused
                else "Running: somebody subscribes"
            )

    def _publish(self, result: Result) -> bool:
        assert self._pipeline is not None
        camera, p = self._cameras[result.camera], self.parameters
        broadcast = None
        if self._broadcasts(p):
            broadcast = functools.partial(self._broadcast, camera.name)
        sent = camera.outputs.publish(
            result.header,
            result.prediction,
            p,
            self._threshold(),
            functools.partial(self._mounting, camera.name),
            broadcast,
        )
        if sent.left_out:
            camera.statistics.count(sent.left_out)
            camera.statistics.mark("left_out")
            if sent.left_out == "no_transform":
                why = (
                    f"no fixed transform from {p.base_frame!r} to {result.header.frame_id!r} on "
                    "/tf_static, so no pose: publish it, or set camera_to_base"
                )
            elif sent.left_out == "frame_taken":
                why = ""  # said with the frame
            elif p.base_frame:
                why = (
                    f"its images name no frame, so where it is on {p.base_frame!r} is not known and there "
                    "is no pose: set the driver's frame_id, or camera_to_base"
                )
            else:
                why = "its images name no frame, so nothing goes to /tf: set the driver's frame_id"
            if why:
                self._warn(f"{camera.name} {sent.left_out}", f"Camera {camera.name}: {why}")
        camera.note_stamp(result.header.stamp, self.get_clock().now().nanoseconds)
        if result.full_image is not None:
            from robot_vision.annotate import annotate

            assert self._pipeline is not None
            bundle = self._pipeline.bundle
            options = bundle.options(vars(p))
            drawn = annotate(result.full_image, result.prediction, bundle.spec, options)
            camera.outputs.publish_annotated(result.header, drawn)
            return True
        return sent.anything

    def _threshold(self) -> float | None:
        """Returns the open-set threshold in force; None for none."""
        assert self._pipeline is not None
        classifier = self._pipeline.bundle.spec.classifier
        own = self.parameters.unknown_threshold
        if math.isnan(own):
            share, known = (
                self.parameters.known_share,
                known_scores(self._pipeline.bundle.calibration),
            )
            if share and known:
                return known.threshold(share)
            if share and classifier:
                self._warn(
                    "known_share",
                    f"known_share is {share}, but {self._pipeline.bundle.name} was not calibrated, so its "
                    "own threshold holds: set unknown_threshold, or use robot-vision calibrate",
                )
            return classifier.unknown_threshold if classifier else None
        return None if own == -math.inf else own

    def _mounting(self, camera: str, frame: str) -> NDArray[np.float64] | None:
        """Returns `T_base_camera` of a camera whose optical frame is `frame`."""
        p = self.parameters
        numbers = p.transform_numbers(camera)
        if numbers:
            return transform_from_numbers(numbers)
        return self._statics.lookup(p.base_frame, frame)

    def _broadcast(self, camera: str, transform: Any) -> bool:
        assert self.tf is not None
        other = self.tf.send(transform, camera)
        if other:
            self._warn(
                f"{camera} frame_taken",
                f"Camera {camera}: its transform is left out, since camera {other} gives the frame "
                f"{transform.child_frame_id!r} already: give their drivers frame_ids that differ, or leave "
                "base_frame empty",
            )
        return not other

    # Around it

    def _on_change(self, before: PerceptionParameters, after: PerceptionParameters) -> None:
        # Not equal also if both are NaN: one message more does no harm.
        thresholds = [(p.unknown_threshold, p.known_share) for p in (before, after)]
        if self._worker is not None and thresholds[0] != thresholds[1]:
            self._publish_info()

    def _refuse_transform(self, text: str) -> None:
        total = self._statistics.count("tf_refused")
        self._warn("tf", f"Transform on /tf_static refused ({total} so far): {text}")

    def _publish_info(self) -> None:
        if self._pipeline is None or self._info is None:
            return
        bundle, stamp = self._pipeline.bundle, self.get_clock().now().to_msg()
        labels = bundle.spec.classifier.labels if bundle.spec.classifier else ()
        self._info[0].publish(label_info_message(stamp, labels, self._threshold()))
        self._info[1].publish(vision_info_message(stamp, bundle))

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
                idle = not (p.always_infer or self._broadcasts(p) or camera.outputs.listened())
                health = camera.health(idle)
                statuses.append(
                    camera_status(name, device, health, camera.statistics, p.stale_after_s)
                )
        return statuses


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(PerceptionNode, args)
