"""Switching mapping on and off, by several threads, and relocalising while a descriptor is in work."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.map.base import MapError
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.keyframe_policy import KeyframePolicy
from robot_vision.places.map.opening import create_map
from robot_vision.places.verification.features import LocalFeatures
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.keyframes import Mapper
from robot_vision.ros.places.messages import PlaceHypothesis
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.places.recognition import LiveMap, PlaceAnswer
from robot_vision.ros.places.when_to_map import MappingSwitch
from robot_vision.ros.places.worker import PlaceWorker


def silent(*_: str) -> None:
    pass


def test_two_calls_at_once_open_the_map_once():
    opened, closed = [], []

    class Opened:
        def __len__(self):
            return 0

        def close(self):
            closed.append(1)

    def slowly():
        opened.append(1)
        time.sleep(0.2)
        return Opened()

    parameters = PlaceParameters(pose_source="odometry", mapping=True)
    statistics = Statistics(1.0)
    mapper = Mapper(slowly, "front", "run", KeyframePolicy, lambda: 1.0, statistics, silent, silent)
    switch = MappingSwitch(mapper, lambda: parameters, statistics, silent, silent)
    switch.active = True
    callers = [threading.Thread(target=switch.begin) for _ in range(3)]
    for caller in callers:
        caller.start()
    start = time.monotonic()
    time.sleep(0.05)
    switch.follow()  # the timer, which may not wait
    assert time.monotonic() - start < 0.15
    for caller in callers:
        caller.join()
    assert mapper.running and len(opened) == 1
    switch.end()
    assert len(closed) == 1


class OpenMap(list):
    """A map without keyframes, as far as beginning and ending need one."""

    def close(self):
        pass


def test_stop_lasts_though_the_parameter_began_it_at_the_same_time():
    opening, opened = threading.Event(), threading.Event()

    def slowly():
        opening.set()
        opened.wait(10)
        return OpenMap()

    parameters = PlaceParameters(pose_source="odometry", mapping=True, retry_period_s=0.1)
    statistics = Statistics(1.0)
    mapper = Mapper(slowly, "front", "run", KeyframePolicy, lambda: 1.0, statistics, silent, silent)
    switch = MappingSwitch(mapper, lambda: parameters, statistics, silent, silent)
    switch.active = True
    timer, service = threading.Thread(target=switch.follow), threading.Thread(target=switch.end)
    timer.start()
    assert opening.wait(10)
    service.start()
    time.sleep(0.1)
    opened.set()
    timer.join()
    service.join()
    time.sleep(0.15)
    switch.follow()
    assert not mapper.running


def worker_of(observe, mounted=True, **settings) -> PlaceWorker:
    """Returns a worker whose map answers what `observe` returns."""
    parameters = PlaceParameters(base_frame="base_link", **settings)
    recognition = SimpleNamespace(
        observe=observe, reset=silent, refusal=lambda _: "", frame_id="map", problem=""
    )
    mounting = np.eye(4) if mounted else None
    motion = SimpleNamespace(
        at=lambda *_: None, source="none", jumps=0, mounting=lambda *_: mounting
    )
    outputs = SimpleNamespace(
        places=lambda *_: None,
        pose=lambda *_: None,
        initial_pose=lambda *_: ("/initialpose", 1),
        drawn_on=False,
    )
    statistics = Statistics(1.0)
    statistics.mark("received")
    return PlaceWorker(
        lambda: parameters,
        recognition,  # type: ignore[arg-type]
        motion,  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        None,
        SimpleNamespace(running=False),  # type: ignore[arg-type]
        None,
        outputs,  # type: ignore[arg-type]
        statistics,
        silent,
    )


def descriptor(second: int) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=second, nanosec=0)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id="camera"),
        encoding="32FC1",
        height=1,
        width=1,
        is_bigendian=0,
        data=np.ones(1, "<f4").tobytes(),
    )


POSE = CameraPose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.eye(6))
ACCEPTED = PlaceAnswer((PlaceHypothesis(1, 0.99, POSE),), True, 1.0)


def test_relocalise_is_not_answered_by_a_belief_of_before_the_call():
    answers: list[tuple[bool, str]] = []
    called: list[int] = []

    def observe(*_: object) -> PlaceAnswer:
        if not called:  # while the first descriptor is in work
            called.append(1)
            worker.relocalise(lambda success, text: answers.append((success, text)))
        return ACCEPTED

    worker = worker_of(observe)
    for second in (1, 2):
        assert not answers
        worker._process(descriptor(second))
    assert answers and answers[0][0]


def test_relocalise_says_that_the_mounting_is_not_known():
    answers: list[tuple[bool, str]] = []
    worker = worker_of(lambda *_: ACCEPTED, mounted=False, relocalise_timeout_s=0.1)
    worker.relocalise(lambda success, text: answers.append((success, text)))
    worker._process(descriptor(1))
    time.sleep(0.15)
    worker._check_deadline()
    ((success, text),) = answers
    assert not success and "'camera'" in text and "/tf_static" in text


def test_server_out_of_reach_does_not_hold_recognition_up():
    released = threading.Event()

    class Away:
        info = SimpleNamespace(frame_id="map")

        @property
        def revision(self) -> int:
            released.wait(10)
            raise MapError("the connection was lost")

        def close(self) -> None:
            pass

    statistics = Statistics(1.0)
    parameters = PlaceParameters(map="postgresql://robot@away/places?map=home")
    recognition = LiveMap(
        lambda: parameters,
        lambda: None,
        lambda: "run",
        lambda: False,
        statistics,
        silent,
        silent,
        silent,
    )
    recognition._map = Away()  # type: ignore[assignment]
    recognition._index = SimpleNamespace(revision=1)
    for _ in range(3):
        recognition._next = 0.0
        start = time.monotonic()
        recognition.follow()
        assert time.monotonic() - start < 1
    released.set()
    deadline = time.monotonic() + 10
    while "map_failures" not in statistics.counters and time.monotonic() < deadline:
        recognition._next = 0.0
        recognition.follow()
        time.sleep(0.01)
    assert statistics.counters["map_failures"] >= 1
    recognition.close()


def test_map_with_other_features_is_asked_and_grown_by_name_only(tmp_path):
    """The map has XFeat's features: a node with SIFT, or without the graph, says so and lives on."""
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (120, 160, 3), np.uint8)
    K = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    intrinsics = Intrinsics.of_matrix(K, 160, 120)
    looks = random.integers(0, 255, (30, 64)).astype(np.uint8)
    learned = LocalFeatures("xfeat", np.zeros((30, 2)), looks, 150.0, "0123456789ab")
    structure = KeyframeStructure(learned, np.ones((30, 3), np.float32), np.ones(30, np.float32))
    keyframes = [
        Keyframe.checked(
            stamp_ns=i,
            camera="front",
            source="run",
            T_map_camera=np.eye(4),
            descriptor=np.eye(4)[0],
        )
        for i in (1, 2)
    ]
    said: list[str] = []
    statistics = Statistics(1.0)
    path = tmp_path / "m.map"
    with create_map(path, bundle_name="b", bundle_sha256="0" * 64, dimension=4) as places:
        number = places.add(keyframes[0])
        places.set_structure(number, structure.to_bytes())
        mapper = Mapper(
            lambda: places,
            *("front", "run", KeyframePolicy, lambda: 1.0, statistics),
            lambda _, line: said.append(line),
            silent,
        )
        mapper._map = places
        mapper._add_structure(places.add(keyframes[1]), keyframes[1], image, intrinsics)
        assert statistics.counters["structures_failed"] == 1
        assert "sift cannot be compared with the map's xfeat 0123456789ab" in said.pop()
        assert places.structure_ids().tolist() == [number]

        match = PlaceHypothesis(
            number, 0.9, CameraPose(np.zeros(3), np.array([0, 0, 0, 1.0]), np.eye(6))
        )
        answer = PlaceAnswer((match,), True, 1.0)
        for features, says in (
            ("", "give as features the file whose sha256 begins with 0123456789ab"),
            (str(tmp_path / "absent.onnx"), "absent.onnx"),
        ):
            parameters = PlaceParameters(map=str(path), verify=True, features=features)
            recognition = LiveMap(
                lambda parameters=parameters: parameters,
                *(lambda: None, lambda: "run", lambda: False, statistics),
                lambda _, line: said.append(line),
                *(silent, silent),
            )
            recognition._map = places
            before = statistics.counters.get("not_verifiable", 0)
            assert not recognition.verified(answer, image, intrinsics, "").accepted
            assert statistics.counters["not_verifiable"] == before + 1
            assert says in said.pop()
