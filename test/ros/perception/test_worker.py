"""The worker's threads: all cameras that wait in one batch, results in the order of their frames."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ros_helpers import coloured_image, rgb_message, wait_until
from tiny_bundle import make_tiny_bundle

pytest.importorskip("rclpy", reason="the node needs ROS 2")

from robot_vision.errors import EngineError
from robot_vision.pipeline import Pipeline
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.perception.worker import CameraFrame, FrameResult, Request, Turns, Worker

pytestmark = pytest.mark.ros


class Bench:
    """A worker between a made camera and a list; `read` may be made slow for some frames."""

    def __init__(self, bundle, streams, cameras=("front",)):
        self.results, self.warnings, self.slow = [], [], {}
        self.first = Pipeline.load(bundle, "onnx", "cpu", threads=1, streams=streams)
        pipelines = [self.first, *(self.first.another() for _ in range(streams - 1))]
        self.node = Statistics(10.0)
        self.cameras = {name: Statistics(10.0) for name in cameras}
        self.worker = Worker(
            pipelines,
            self.cameras,
            self.node,
            self.read,
            lambda _camera: Request(True, False),
            self.publish,
            lambda key, text: self.warnings.append((key, text)),
        )

    def read(self, serialized):
        """Returns the image message whose number is the frame's bytes."""
        number = int(serialized)
        time.sleep(self.slow.get(number, 0.0))
        if number < 0:
            raise ZeroDivisionError("nobody foresaw this")
        image = np.full((32, 48, 3), number % 256, np.uint8)
        return SimpleNamespace(
            header=SimpleNamespace(stamp=number),
            height=32,
            width=48,
            encoding="rgb8",
            is_bigendian=0,
            step=144,
            data=image.tobytes(),
        )

    def publish(self, result):
        self.results.append(result)
        return True

    def put(self, number, camera="front"):
        self.worker.mailbox.put(camera, CameraFrame(str(number).encode()))

    def give(self, number):
        """Puts a frame and waits until a thread has taken it."""
        self.put(number)
        wait_until(lambda: not self.worker.mailbox._slots, 5)

    def stamps(self):
        return [result.header.stamp for result in self.results]

    def close(self):
        assert self.worker.stop(20)
        self.first.close()


@pytest.fixture
def bundle(tmp_path):
    return make_tiny_bundle(tmp_path / "tiny")


@pytest.mark.slow
def test_a_second_frame_is_taken_while_the_first_is_worked_on_and_waits_for_its_turn(bundle):
    bench = Bench(bundle, streams=2)
    bench.slow = {1: 1.0}
    bench.worker.start()
    bench.give(1)
    bench.give(2)
    assert bench.stamps() == []  # both are in work
    bench.put(3)
    wait_until(lambda: len(bench.results) == 3, 10)
    assert bench.stamps() == [1, 2, 3]
    bench.close()


@pytest.mark.slow
def test_one_stream_leaves_the_second_frame_waiting(bundle):
    bench = Bench(bundle, streams=1)
    bench.slow = {1: 0.5}
    bench.worker.start()
    bench.give(1)
    bench.put(2)
    bench.put(3)
    wait_until(lambda: len(bench.results) == 2, 10)
    assert bench.stamps() == [1, 3]
    assert bench.worker.mailbox.replaced == {"front": 1}
    bench.close()


@pytest.mark.slow
def test_many_frames_through_three_streams_keep_their_order_and_their_answers(bundle):
    bench = Bench(bundle, streams=3)
    bench.slow = {number: 0.002 * (number * 7 % 5) for number in range(1, 121)}
    bench.worker.start()
    for number in range(1, 121):
        bench.give(number)
    wait_until(lambda: len(bench.results) == 120, 20)
    assert bench.stamps() == list(range(1, 121))
    for result in bench.results:  # the tiny network's position is the mean colour
        assert result.prediction["pose"].position[0] == pytest.approx(
            result.header.stamp / 255, abs=1e-4
        )
    assert bench.cameras["front"].counters["published"] == 120
    bench.close()


@pytest.mark.slow
def test_a_frame_that_fails_gives_its_turn_away(bundle):
    bench = Bench(bundle, streams=2)
    bench.slow = {-1: 0.3}
    bench.worker.start()
    for number in (-1, 2, -3, 4):
        bench.give(number)
    wait_until(lambda: len(bench.results) == 2, 10)
    assert bench.stamps() == [2, 4]
    assert bench.cameras["front"].counters["refused_corrupt"] == 2
    bench.close()


def test_a_run_that_fails_costs_its_frame_alone_while_others_are_in_work(bundle):
    bench = Bench(bundle, streams=3)
    run = bench.first.engine.run

    def failing(batch):
        time.sleep(0.05)
        if batch.mean() == 2:
            raise EngineError("the device was lost")
        return run(batch)

    bench.first.engine.run = failing
    bench.worker.start()
    for number in range(1, 6):
        bench.give(number)
    wait_until(lambda: len(bench.results) == 4, 10)
    assert bench.stamps() == [1, 3, 4, 5]
    assert bench.cameras["front"].counters["engine_failed"] == 1
    assert "the device was lost" in dict(bench.warnings)["engine"]
    bench.close()


def test_what_publishing_raises_is_an_internal_error_and_the_next_frame_is_answered(bundle):
    bench = Bench(bundle, streams=2)
    taken = []

    def publish(result):
        if result.header.stamp == 1:
            raise ZeroDivisionError("nobody foresaw this")
        taken.append(result.header.stamp)

    bench.worker._publish = publish
    bench.worker.start()
    for number in (1, 2):
        bench.give(number)
    wait_until(lambda: taken == [2], 10)
    assert bench.node.counters["internal_errors"] == 1
    assert "ZeroDivisionError" in dict(bench.warnings)["internal"]
    bench.close()


@pytest.mark.slow
def test_stopping_waits_for_the_frames_in_work_and_takes_no_more(bundle):
    bench = Bench(bundle, streams=2)
    bench.slow = {1: 0.3, 2: 0.3}
    bench.worker.start()
    for number in (1, 2):
        bench.give(number)
    bench.put(3)
    assert bench.worker.stop(20)
    assert bench.stamps() == [1, 2]
    bench.first.close()


@pytest.mark.slow
def test_a_worker_that_hangs_is_reported_when_it_is_stopped(bundle):
    bench = Bench(bundle, streams=2)
    bench.slow = {1: 1.5}
    bench.worker.start()
    bench.give(1)
    start = time.monotonic()
    assert not bench.worker.stop(0.2)
    assert time.monotonic() - start < 1.0
    bench.close()


def test_turns_come_in_the_order_of_the_numbers():
    turns, done = Turns(), []
    numbers = [turns.draw() for _ in range(5)]

    def take(number):
        with turns.turn(number):
            done.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in reversed(numbers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert done == [0, 1, 2, 3, 4]


def test_a_turn_that_raises_is_over():
    turns = Turns()
    first, second = turns.draw(), turns.draw()
    with pytest.raises(ZeroDivisionError), turns.turn(first):
        raise ZeroDivisionError
    with turns.turn(second):
        pass


def test_waiting_cameras_are_one_batch(tmp_path):
    statistics = {"front": Statistics(10), "rear": Statistics(10)}
    node, results = Statistics(10), []
    images = {"front": coloured_image((200, 9, 9)), "rear": coloured_image((9, 200, 9), (30, 90))}
    with Pipeline.load(make_tiny_bundle(tmp_path / "b"), "onnx", threads=1) as pipeline:
        worker = Worker(
            [pipeline],
            statistics,
            node,
            lambda raw: rgb_message(images[raw.decode()], 5, raw.decode()),
            lambda _: Request(True, False),
            lambda result: results.append(result) or True,
            lambda key, text: pytest.fail(text),
        )
        for camera in images:
            worker.mailbox.put(camera, CameraFrame(camera.encode()))
        worker.start()
        wait_until(lambda: len(results) == 2)
        assert worker.stop()
        for result in results:
            assert isinstance(result, FrameResult) and result.header.frame_id == result.camera
            alone = pipeline([images[result.camera]])[0]
            assert np.allclose(result.prediction["place"].values, alone["place"].values, atol=1e-6)
    assert node.percentiles("batch").count == 1 and node.percentiles("batch").p50 == 2
