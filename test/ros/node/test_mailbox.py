"""The newest-frame mailbox and the rate limiter."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.ros.node.mailbox import Mailbox, RateLimiter

CAMERAS = ("front", "left", "rear")


@pytest.mark.slow
@given(st.lists(st.one_of(st.none(), st.tuples(st.sampled_from(CAMERAS), st.integers()))))
def test_mailbox_against_a_model_in_any_order_of_puts_and_takes(steps: list) -> None:
    """None is a take; a tuple is a put. The model: a plain list of everything that was put."""
    mailbox: Mailbox[int] = Mailbox(CAMERAS)
    waiting: list[tuple[str, int]] = []
    replaced = dict.fromkeys(CAMERAS, 0)
    for step in [*steps, None]:
        if step is None:
            newest = {camera: item for camera, item in waiting}
            assert mailbox.take(timeout_s=0) == newest
            for camera in CAMERAS:
                count = sum(c == camera for c, _ in waiting)
                replaced[camera] += max(count - 1, 0)
            waiting = []
        else:
            camera, item = step
            assert mailbox.put(camera, item) == (camera in dict(waiting))
            waiting.append(step)
        assert mailbox.replaced.keys() == set(CAMERAS)
    assert mailbox.replaced == replaced


def test_take_yields_the_longest_waiting_camera_first() -> None:
    mailbox: Mailbox[int] = Mailbox(CAMERAS)
    for camera in ("front", "left", "front"):
        mailbox.put(camera, 0)
    assert list(mailbox.take()) == ["left", "front"]


def test_take_wakes_up_when_an_item_comes() -> None:
    mailbox: Mailbox[int] = Mailbox(CAMERAS)
    threading.Timer(0.05, lambda: mailbox.put("left", 7)).start()
    start = time.monotonic()
    assert mailbox.take(timeout_s=5) == {"left": 7}
    assert time.monotonic() - start < 2


def test_close_wakes_the_worker_and_refuses_items() -> None:
    mailbox: Mailbox[int] = Mailbox(CAMERAS)
    threading.Timer(0.05, mailbox.close).start()
    assert mailbox.take(timeout_s=5) == {}
    assert mailbox.closed
    assert mailbox.put("left", 1) is False
    assert mailbox.take() == {}


def test_every_item_is_taken_or_replaced_with_many_threads() -> None:
    mailbox: Mailbox[int] = Mailbox(CAMERAS)
    taken = []

    def produce(camera: str) -> None:
        for i in range(500):
            mailbox.put(camera, i)

    def consume() -> None:
        while not mailbox.closed:
            taken.extend(mailbox.take().items())

    consumer = threading.Thread(target=consume)
    consumer.start()
    producers = [threading.Thread(target=produce, args=(c,)) for c in CAMERAS]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join()
    deadline = time.monotonic() + 5
    while {c: max((i for k, i in taken if k == c), default=-1) for c in CAMERAS} != dict.fromkeys(
        CAMERAS, 499
    ):
        assert time.monotonic() < deadline, "the newest item was lost"
        time.sleep(0.01)
    mailbox.close()
    consumer.join()
    for camera in CAMERAS:
        items = [i for k, i in taken if k == camera]
        assert items == sorted(items)
        assert len(items) + mailbox.replaced[camera] == 500


@pytest.mark.parametrize(
    ("camera_hz", "limit_hz"), [(30, 20), (30, 7), (30, 29), (10, 30), (60, 1)]
)
def test_rate_limiter_reaches_the_limit_but_not_more(camera_hz: int, limit_hz: int) -> None:
    limiter = RateLimiter()
    seconds = 20
    times = [1000 + i / camera_hz for i in range(camera_hz * seconds)]
    passed = sum(limiter.allows(limit_hz, t) for t in times)
    assert passed == pytest.approx(min(camera_hz, limit_hz) * seconds, abs=2)


def test_rate_limiter_lets_no_burst_through_after_a_pause() -> None:
    limiter = RateLimiter()
    assert limiter.allows(10, 100.0)
    passed = [limiter.allows(10, 200.0 + i * 0.001) for i in range(100)]
    assert sum(passed) <= 2


def test_rate_limiter_follows_a_raised_limit_at_once() -> None:
    limiter = RateLimiter()
    assert limiter.allows(0.01, 100.0)
    assert limiter.allows(0.01, 100.1)  # the first period's slack
    assert not limiter.allows(0.01, 100.2)
    assert limiter.allows(100, 100.3)


def test_rate_limiter_without_a_limit_lets_all_through() -> None:
    limiter = RateLimiter()
    assert all(limiter.allows(0, 5.0) for _ in range(10))
