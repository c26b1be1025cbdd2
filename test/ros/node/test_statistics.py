"""Windows, counters and throttled log lines."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.ros.node.statistics import MAX_SAMPLES, SlidingWindow, Statistics
from robot_vision.ros.node.throttle import ThrottledLog


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_lie_between_extremes_and_are_ordered(values: list[float]) -> None:
    window = SlidingWindow(10, now=0.0)
    for i, value in enumerate(values):
        window.add(value, now=i * 1e-3)
    p = window.percentiles(now=1.0)
    assert p.count == len(values)
    tolerance = 1e-9 * max(values)
    assert min(values) - tolerance <= p.p50 <= p.p95 + tolerance
    assert p.p95 <= p.p99 + tolerance <= max(values) + 2 * tolerance
    assert p.p50 == pytest.approx(np.median(values))


def test_window_forgets_what_is_older_than_its_length() -> None:
    window = SlidingWindow(2.0, now=0.0)
    for i in range(100):
        window.add(float(i), now=i * 0.1)
    assert window.percentiles(now=9.9).count == 21  # from 7.9 to 9.9 s
    assert window.rate(now=9.9) == pytest.approx(10, abs=0.6)
    assert window.rate(now=100.0) == 0
    assert math.isnan(window.percentiles(now=100.0).p50)


def test_rate_of_a_young_window_counts_from_its_start() -> None:
    window = SlidingWindow(10.0, now=50.0)
    for i in range(10):
        window.add(now=50.0 + i * 0.1)
    assert window.rate(now=51.0) == pytest.approx(10)


def test_rate_of_a_first_event_is_not_one_of_thousands() -> None:
    statistics = Statistics(10.0)
    statistics.mark("refused")
    assert statistics.rate("refused") == 1.0


def test_rate_is_right_where_the_window_holds_fewer_values_than_came() -> None:
    window = SlidingWindow(10.0, now=0.0)
    for i in range(3 * MAX_SAMPLES):
        window.add(now=i / 2000)
    assert window.rate(now=3 * MAX_SAMPLES / 2000) == pytest.approx(2000, rel=0.01)


def test_statistics_by_name() -> None:
    statistics = Statistics(10)
    assert [statistics.count("a"), statistics.count("a", 2)] == [1, 3]
    statistics.sample("t", 0.25)
    assert statistics.counters == {"a": 3}
    assert statistics.percentiles("t").p99 == 0.25
    assert statistics.percentiles("never").count == 0
    assert statistics.rate("never") == 0


def test_adding_a_sample_is_cheap() -> None:
    statistics = Statistics(10)
    start = time.process_time()
    for _ in range(20000):
        statistics.sample("t", 1.0)
    assert (time.process_time() - start) / 20000 < 50e-6


def test_throttled_log_says_the_first_at_once_and_then_how_many() -> None:
    lines: list[str] = []
    log = ThrottledLog(lines.append, lambda: 5.0)
    for i in range(60):
        log("a", "bad frame", now=i * 0.1)
    log("b", "other", now=1.0)
    assert lines == ["bad frame", "bad frame (50 times in 5 s)", "other"]
