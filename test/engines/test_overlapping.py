"""Frames that overlap: alone one has all cores, several a share each; one that fails harms no other."""

from __future__ import annotations

import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ros_helpers import wait_until
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.engines import create_engine
from robot_vision.engines.overlapping import ALONE_S, STREAMS, OverlappingEngine
from robot_vision.errors import EngineError
from robot_vision.pipeline import Pipeline


class Gate:
    """A real engine each of whose runs waits until it is let through, and notes its number of images."""

    def __init__(self, engine):
        self.engine, self.ran, self.open = engine, [], threading.Event()
        self.name, self.device = engine.name, engine.device
        self.precision, self.streams = engine.precision, engine.streams
        self.open.set()

    def run(self, batch):
        self.ran.append(len(batch))
        assert self.open.wait(20)
        return self.engine.run(batch)

    def close(self):
        self.engine.close()


@pytest.fixture
def bundle(tmp_path):
    return ModelBundle.load(make_tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def batch(bundle):
    size = bundle.spec.input
    return np.random.default_rng(0).integers(0, 256, (3, size.height, size.width, 3), np.uint8)


class Bench:
    def __init__(self, bundle, fails=""):
        self.first = Gate(create_engine(bundle, "onnx", "cpu", threads=1))
        self.second, self.asked, self.fails, self.bundle = None, [], fails, bundle
        self.engine = OverlappingEngine(self.first, self.make)

    def make(self, streams):
        self.asked.append(streams)
        if self.fails:
            raise EngineError(self.fails)
        engine = create_engine(self.bundle, "onnx", "cpu", threads=1, streams=streams)
        self.second = Gate(engine)
        return self.second

    def beside(self, batch, pool):
        """Runs a batch while another one is at work; returns both answers."""
        self.engine._overlapped = -math.inf  # long ago
        self.first.open.clear()
        one = pool.submit(self.engine.run, batch[:1])
        wait_until(lambda: self.engine._running == 1, 10)
        takes_the_first = self.engine._shared is None  # though the second may be made meanwhile
        other = pool.submit(self.engine.run, batch)
        wait_until(lambda: self.engine._running == 2 or other.done(), 10)
        if takes_the_first:
            self.first.open.set()
        answer = other.result(20)
        self.first.open.set()
        return one.result(20), answer


def test_what_comes_alone_takes_the_first_engine_and_nothing_else_is_made(bundle, batch):
    bench = Bench(bundle)
    for _ in range(3):
        bench.engine.run(batch)
    assert (bench.first.ran, bench.asked) == ([3, 3, 3], [])
    bench.engine.close()


def test_what_comes_meanwhile_takes_the_second_engine_and_has_the_same_answer(bundle, batch):
    bench = Bench(bundle)
    expected = [create_engine(bundle, "onnx", "cpu").run(b) for b in (batch[:1], batch)]
    bench.engine.run(batch[:1])
    with ThreadPoolExecutor(2) as pool:
        bench.beside(batch, pool)  # waits for the first engine, since the second is being made
        wait_until(lambda: bench.engine._shared is not None, 10)
        assert bench.second.ran[0] == 1  # its graph for the sizes that have come is there
        warm = len(bench.second.ran)
        found = bench.beside(batch, pool)
    assert bench.second.ran[warm:] == [3] and bench.asked == [STREAMS]
    for answer, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            np.testing.assert_allclose(answer[name], value, atol=1e-5, rtol=1e-4)
    bench.engine.close()


def test_without_a_second_engine_runs_wait_for_each_other_and_it_is_said_once(
    bundle, batch, caplog
):
    bench = Bench(bundle, "no memory")
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            bench.beside(batch, pool)
    bench.engine.close()
    assert bench.asked == [STREAMS] and len(caplog.records) == 1
    assert "Frames do not overlap" in caplog.text and "no memory" in caplog.text


def test_a_run_that_fails_harms_no_other(bundle, batch):
    bench = Bench(bundle)
    with pytest.raises(EngineError, match="failed on cpu"):
        bench.engine.run(np.ascontiguousarray(batch[..., :2]))
    assert set(bench.engine.run(batch)) == set(bundle.spec.outputs)
    assert bench.asked == []  # the failed run is over
    bench.engine.close()


def test_frames_overlap_only_where_a_camera_of_30_hz_is_answered_before_its_next_frame(bundle):
    bench = Bench(bundle)
    assert bench.engine.streams == 1  # nothing is known yet
    bench.engine._seconds = {1: ALONE_S / 2, 4: ALONE_S * 0.9}
    assert bench.engine.streams == STREAMS
    bench.engine._seconds[4] = ALONE_S * 1.1
    assert bench.engine.streams == 1
    bench.engine.close()


def test_a_pipeline_knows_after_its_warm_up_how_many_frames_may_overlap(tmp_path):
    with Pipeline.load(make_tiny_bundle(tmp_path / "b"), "onnx", "cpu", threads=2, streams=0) as p:
        assert isinstance(p.engine, OverlappingEngine) and p.engine.streams == 1
        p.warm_up()
        slow = max(p.engine._seconds.values()) > ALONE_S  # a machine that is very busy
        assert p.engine.streams == (1 if slow else STREAMS)


def test_on_one_core_nothing_overlaps(bundle):
    engine = create_engine(bundle, "onnx", "cpu", threads=1, streams=0)
    assert not isinstance(engine, OverlappingEngine) and engine.streams == 1
    engine.close()


def test_closing_waits_for_an_engine_that_is_being_made(bundle, batch):
    bench = Bench(bundle)
    made, make = threading.Event(), bench.make

    def late(streams):
        assert made.wait(20)
        return make(streams)

    bench.engine._make = late
    with ThreadPoolExecutor(2) as pool:
        bench.beside(batch, pool)
        closing = pool.submit(bench.engine.close)
        assert not closing.done()
        made.set()
        closing.result(20)
    assert bench.second.engine._session is None and bench.first.engine._session is None


def test_a_frame_between_frames_that_overlap_leaves_cores_to_the_next(bundle, batch):
    bench = Bench(bundle)
    with ThreadPoolExecutor(2) as pool:
        bench.beside(batch, pool)
    wait_until(lambda: bench.engine._shared is not None, 10)
    bench.engine._overlapped = time.monotonic()
    before = len(bench.first.ran)
    bench.engine.run(batch)
    assert len(bench.first.ran) == before and bench.second.ran[-1] == 3
    bench.engine._overlapped = time.monotonic() - 1 / 30  # the next frame of a camera of 30 Hz
    bench.engine.run(batch)
    assert len(bench.first.ran) == before + 1
    bench.engine.close()
