"""Loop closures of one run: what is told, and how often."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from place_robot import DIMENSION, base_pose, describe, mounting, square

from robot_vision.ros.places.session import LoopRule, Session

RULE = LoopRule(exclude_s=20.0, exclude_m=5.0, min_probability=0.9, radius_m=1.0, heading_deg=45.0)


@pytest.mark.slow
def test_robot_that_stands_where_it_was_before_closes_a_loop_once_a_keyframe():
    session, stamp_ns, told = Session(DIMENSION), 0, []

    def look(T, seed):
        nonlocal stamp_ns
        stamp_ns += 500_000_000
        camera = T @ mounting()
        session.move(camera)
        loop = session.find(stamp_ns, describe(camera, 0.05, seed), RULE)
        if loop is not None:
            told.append(loop.number)
        return camera

    for i, T in enumerate(square()):
        camera = look(T, i)
        session.add(stamp_ns, camera, describe(camera, 0.05, i))
    assert not told
    for i in range(20):
        look(base_pose(0.25 * i), 1000 + i)
    assert len(told) >= 10  # each stretch on the way
    before = len(told)
    for i in range(300):  # between two keyframes: now one is more similar, now the other
        look(base_pose(4.875), 2000 + i)
    again = told[before:]
    assert len(again) == len(set(again)) and len(again) <= 4
