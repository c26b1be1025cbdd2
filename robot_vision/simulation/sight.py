"""What a model says of a simulated robot's camera, as the messages that the perception node would publish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from robot_vision.bundle.installed import find_model
from robot_vision.bundle.programs import FLOAT32
from robot_vision.contract.topics import LeftOut, Shot
from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.window import Window
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.stamps import set_stamp
from robot_vision.messages.types import message_types
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.nodes import CAMERA, PERCEPTION
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.simulator import Simulator

IMAGE = f"{CAMERA}/image_raw"


def open_pipeline(
    model: str | Path, engine: str = "auto", device: str = "auto", precision: str = FLOAT32
) -> Pipeline:
    """Returns a pipeline whose answers repeat to the bit on one machine: one image a run, by one thread.

    Raises:
        ConfigError: there is no such model.
        BundleError: it is damaged.
        EngineError: see `Pipeline.load`.
    """
    path = find_model(str(model))
    return Pipeline.load(path, engine, device, precision, threads=1, max_batch=1)


class Sight:
    """Runs a model on the images of a robot's camera, once an image, and writes what readers ask for.

    Args:
        pipeline: of the model.
        robot: whose size says what is an obstacle.
        back: looks by the camera that looks back.

    Attributes:
        topics: that there is something on, without a leading slash.
        model: the model's name.
        sha256: of its bundle.
        program: which of its programs runs.
    """

    def __init__(self, pipeline: Pipeline, robot: Robot, back: bool = False) -> None:
        self._pipeline, self._back = pipeline, back
        bundle = pipeline.bundle
        self.model, self.sha256, self.program = bundle.name, bundle.sha256, pipeline.program
        self._types = message_types()
        make = rosbags_maker(self._types)
        self._options = bundle.options(robot.perception())
        self._writers = {
            f"{PERCEPTION}/{CAMERA}/{topic.name}": (head, spec, topic.kind, topic.writer(make))
            for head, spec in bundle.spec.bound
            for topic in head.topics(spec)
            if not topic.name.startswith("/") and topic.wanted(self._options[head.name])
        }
        self.topics = (IMAGE, *self._writers)
        self._latched = {
            f"{PERCEPTION}/{topic.name}": (topic.writer(make), self._options[head.name])
            for head, spec in bundle.spec.bound
            for topic in head.latched(spec)
        }
        self._read: set[str] = set()
        self._lens: tuple[Any, Intrinsics] | None = None
        self._image: Any = None
        self._said: dict[str, Any] = {}

    def read(self, topics: Iterable[tuple[str, str]]) -> None:
        """Lets topics be written from now on.

        Args:
            topics: who reads each, for the message, and its name.

        Raises:
            ConfigError: the model has no such answer.
        """
        for reader, topic in topics:
            name = topic.removeprefix("/")
            if name not in self.topics:
                raise ConfigError(
                    f"{reader} reads {topic}, on which the model {self.model} says nothing: it answers on "
                    f"{', '.join(self._writers)}"
                )
            if name != IMAGE:
                self._read.add(name)
            self._image = None

    def labels(self, topic: str) -> tuple[str, ...] | None:
        """Returns the classes that the model names on a latched topic; None where it names none there."""
        found = self._latched.get(topic.removeprefix("/"))
        if found is None:
            return None
        message = found[0](_stamp(0), found[1])
        return tuple(entry.class_name for entry in message.class_map)

    def __call__(self, simulator: Simulator) -> Mapping[str, Any]:
        """Returns the messages on the robot's present image, by topic.

        An answer that is not finite has none, as little as one that a head leaves out.
        """
        image = simulator.image(self._back)
        if image is not self._image:
            self._image, self._said = image, self._answer(simulator, image)
        return self._said

    def _answer(self, simulator: Simulator, image: Any) -> dict[str, Any]:
        spec = self._pipeline.bundle.spec
        stamp = _stamp(simulator.now_ns)
        shot = Shot(
            stamp,
            "camera_optical_frame",
            CAMERA,
            "base_link",
            lambda frame: simulator.T_base_rear if self._back else simulator.T_base_camera,
            Window.of(image.shape[:2], spec.input),
            lambda: self._intrinsics(simulator),
        )
        said: dict[str, Any] = {IMAGE: SimpleNamespace(header=shot)}
        prediction = self._pipeline(image)
        if prediction.not_finite():
            return said
        shown: dict[str, Any] = {}
        for name, (head, settings, kind, write) in self._writers.items():
            if name not in self._read:
                continue
            options = self._options[head.name]
            if head.name not in shown:
                answer = prediction[head.name]
                shown[head.name] = head.published(answer, shot, settings, options)
            if isinstance(shown[head.name], LeftOut):
                continue
            message = write(shot, shown[head.name], options)
            if not isinstance(message, LeftOut):  # as it arrives: a Range has single precision
                data = self._types.serialize_cdr(message, kind)
                said[name] = self._types.deserialize_cdr(data, kind)
        return said

    def _intrinsics(self, simulator: Simulator) -> Intrinsics:
        if self._lens is None or self._lens[0] != simulator.mount:
            c = simulator.mount.camera
            lens = Intrinsics(c.width, c.height, np.asarray(c.k), np.zeros(0))
            self._lens = simulator.mount, lens
        return self._lens[1]


def _stamp(stamp_ns: int) -> Any:
    stamp = SimpleNamespace(sec=0, nanosec=0)
    set_stamp(stamp, stamp_ns)
    return stamp
