"""The same home on another day: what moves, what stays, and that a robot still gets everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from robot_vision.simulation.world.days import DayChanges, next_day, pieces
from robot_vision.simulation.world.homes import connected, overlaps, random_home
from robot_vision.simulation.world.world import Box

SEED = 3


def test_days_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    plan = random_home(SEED)
    first, again, other = (
        next_day(plan, plan, np.random.default_rng(seed), DayChanges()) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.slow
def test_a_home_stays_a_home_over_ten_days() -> None:
    plan = home = random_home(SEED)
    rng = np.random.default_rng(1)
    changes = DayChanges(furniture=0.5, panels=0.5)
    strengths = []
    for _ in range(10):
        home, today = next_day(home, plan, rng, changes)
        assert connected(today) and today.doors == plan.doors
        for was, is_now, now in zip(plan.rooms, home.rooms, today.rooms, strict=True):
            assert (was.low, was.high, was.wall, was.floor) == (
                now.low,
                now.high,
                now.wall,
                now.floor,
            )
            assert sorted(map(_shape, was.boxes)) == sorted(map(_shape, is_now.boxes))
            assert now.boxes[: len(is_now.boxes)] == is_now.boxes
            assert len(now.boxes) - len(is_now.boxes) <= changes.boxes
            assert is_now.light == was.light, "lamps drift"
            for a, b in combinations(pieces(now), 2):
                assert not any(overlaps((box,), replace(now, boxes=b)) for box in a)
            for box in now.boxes:
                for axis in (0, 1):
                    assert now.low[axis] - 1e-9 <= box.low[axis]
                    assert box.high[axis] <= now.high[axis] + 1e-9
            strengths.append(now.light[1] / was.light[1])
    assert [r.boxes for r in home.rooms] != [r.boxes for r in plan.rooms]
    assert [r.panels for r in home.rooms] != [r.panels for r in plan.rooms]
    assert 0.15 < np.std(np.log(strengths)) < 0.5


def test_without_changes_nothing_changes() -> None:
    plan = random_home(SEED)
    home, today = next_day(plan, plan, np.random.default_rng(1), DayChanges(0, 0, 0, 0, 0))
    assert home == today == plan


def _shape(box: Box) -> tuple[object, ...]:
    size = np.round(np.subtract(box.high, box.low), 6)
    return tuple(size), str(box.side), str(box.top)
