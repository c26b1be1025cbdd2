"""The driver's laws: what they make of steering, collision and free distance."""

from __future__ import annotations

import dataclasses
import math

import pytest
from gate_messages import SECOND, belief, classes, range_of, twist
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.driving.answers import answers_of, seen
from robot_vision.driving.law import DRONET, FREE_DISTANCE, Driven, Law, LawSettings, Seen
from robot_vision.errors import MeasurementError
from robot_vision.gate.answers import Heard, heard
from robot_vision.gate.decision import stopping
from robot_vision.gate.moment import Moment
from robot_vision.gate.rule import braking_speed

S = LawSettings()
FREE = dataclasses.replace(S, law=FREE_DISTANCE)
NOW = Moment(1000 * SECOND, 50 * SECOND)


def drive(law: Law, *images: tuple, hz: float = 10.0, since: int = 0) -> list[Driven]:
    """Drives by (steering, collision, distance) of images at a rate."""
    return [
        law.drive(Seen(round((since + i) * SECOND / hz) + SECOND, *x)) for i, x in enumerate(images)
    ]


def speed(found: Driven) -> float:
    return found.velocity.linear[0]


def turn(found: Driven) -> float:
    return found.velocity.angular[2]


def test_dronet_s_speed_falls_with_the_probability_and_turn_follows_steering() -> None:
    for p, s in ((0.0, 0.5), (0.3, -0.2), (0.7, 1.0)):
        last = drive(Law(S), *[(s, p)] * 30)[-1]
        assert speed(last) == pytest.approx((1 - p) * S.max_speed_m_s, rel=1e-3)
        assert turn(last) == pytest.approx(s * S.max_turn_rad_s, rel=1e-3) and not last.blocked


def test_filters_are_those_of_the_paper_at_its_image_rate() -> None:
    """alpha = 0.7 and beta = 0.5 at 30 Hz, within what the rounding of the time constants makes."""
    law = Law(S)
    first, second = drive(law, (0.0, 0.0), (1.0, 0.0), hz=30)
    assert speed(first) == 0 and speed(second) == pytest.approx(0.7 * S.max_speed_m_s, rel=0.05)
    assert turn(second) == pytest.approx(0.5 * S.max_turn_rad_s, rel=0.05)


def test_filters_do_not_depend_on_the_image_rate() -> None:
    slow = dataclasses.replace(S, speed_filter_s=0.5, turn_filter_s=0.5)
    one = drive(Law(slow), *[(0.4, 0.2)] * 6, hz=5)[-1]
    other = drive(Law(slow), *[(0.4, 0.2)] * 31, hz=30)[-1]
    assert speed(one) == pytest.approx(speed(other)) and turn(one) == pytest.approx(turn(other))


def test_a_turn_side_is_kept_until_the_way_is_free() -> None:
    law = Law(S)
    found = drive(
        law,
        (0.2, 0.1),
        (0.2, 0.8),
        (-0.9, 0.9),
        (-0.9, 0.5),
        (-0.9, 0.36),
        (-0.9, 0.3),
        (-0.9, 0.5),
    )
    assert [each.blocked for each in found] == ["", *["collision"] * 4, "", ""]
    assert [turn(each) for each in found[1:5]] == [S.max_turn_rad_s] * 4
    assert [speed(each) for each in found[1:5]] == [0] * 4
    assert turn(found[-1]) < 0 < speed(found[-1])


def test_a_limit_of_1_never_blocks() -> None:
    law = Law(dataclasses.replace(S, blocked_above=1.0))
    assert not any(each.blocked for each in drive(law, *[(0.1, 1.0)] * 5))


def test_speed_keeps_to_the_braking_distance() -> None:
    for settings in (S, FREE):
        for distance in (0.5, 0.7, 0.9):
            last = drive(Law(settings), *[(0.0, 0.0, distance)] * 20)[-1]
            v = speed(last)
            assert 0 < v < S.max_speed_m_s
            needed = v * S.reaction_s + v * v / (2 * S.deceleration_m_s2)
            assert needed == pytest.approx(distance - S.stop_distance_m)
    assert speed(drive(Law(FREE), *[(0.0, 0.5, 9.0)] * 9)[-1]) == pytest.approx(
        S.max_speed_m_s, rel=1e-3
    )


def test_an_obstacle_is_turned_away_from_until_it_is_well_away() -> None:
    found = drive(Law(FREE), *[(-0.1, 0.0, d) for d in (1.0, 0.4, 0.5, 0.59, 0.61)])
    assert [each.blocked for each in found] == ["", *["obstacle"] * 3, ""]
    assert [turn(each) for each in found[1:4]] == [-S.max_turn_rad_s] * 3
    assert speed(found[4]) > 0


@pytest.mark.parametrize("stamp", [SECOND // 2, 3 * SECOND])
def test_time_that_goes_back_or_pauses_begins_from_standing(stamp: int) -> None:
    law = Law(S)
    assert speed(drive(law, *[(0.5, 0.0)] * 5)[-1]) > 0.1
    after = law.drive(Seen(stamp, -1.0, 0.0))
    assert speed(after) == 0 and turn(after) == -S.max_turn_rad_s


numbers = st.floats(-1, 1)
image = st.tuples(numbers, st.floats(0, 1), st.none() | st.floats(0, 100))
law_settings = st.builds(
    LawSettings,
    law=st.sampled_from([DRONET, FREE_DISTANCE]),
    max_speed_m_s=st.floats(0.01, 10),
    max_turn_rad_s=st.floats(0.01, 20),
    speed_filter_s=st.floats(0, 10),
    turn_filter_s=st.floats(0, 10),
    deceleration_m_s2=st.floats(0.01, 50),
    reaction_s=st.floats(0, 10),
    stop_distance_m=st.floats(0, 100),
)


@pytest.mark.slow
@given(law_settings, st.lists(image, min_size=1, max_size=8), st.floats(1, 60))
def test_whatever_is_seen_the_robot_stays_within_its_limits(
    settings: LawSettings, images: list, hz: float
) -> None:
    for (_, _, distance), found in zip(images, drive(Law(settings), *images, hz=hz), strict=True):
        v, w = speed(found), turn(found)
        assert 0 <= v <= settings.max_speed_m_s and abs(w) <= settings.max_turn_rad_s * (1 + 1e-9)
        if distance is not None:
            left = max(0.0, distance - settings.stop_distance_m)
            way = v * settings.reaction_s + v * v / (2 * settings.deceleration_m_s2)
            assert way <= left * (1 + 1e-6) + 1e-9
        if found.blocked:
            assert v == 0


@given(law_settings, st.floats(0, 1), st.floats(0, 1), st.floats(0, 100), st.floats(0, 100))
def test_a_worse_image_never_makes_it_faster(
    settings: LawSettings, p: float, q: float, near: float, far: float
) -> None:
    (p, q), (near, far) = sorted((p, q)), sorted((near, far))
    settings = dataclasses.replace(settings, speed_filter_s=0.0)
    better, worse = (
        drive(Law(settings), *[(0.1, *each)] * 3)[-1] for each in ((p, far), (q, near))
    )
    assert speed(worse) <= speed(better)


def test_braking_speed_is_the_final_one_where_nothing_is_left() -> None:
    assert [braking_speed(d, 0.5, 0.3) for d in (-1.0, 0.0, math.nan)] == [0, 0, 0]
    assert braking_speed(0.0, 0.5, 0.3, 0.2) == 0.2


# What the driver reads

RULES = answers_of("s", "c", "d", "k", "b", 0.5)
STAMP = NOW.ros_ns - SECOND // 10


def good() -> dict[str, object]:
    return {
        "steering": twist(turn=0.3, stamp_ns=STAMP),
        "collision": classes(STAMP, free=0.9, collision=0.1),
        "distance": range_of(STAMP, 2.0),
        "known": classes(STAMP, kitchen=0.4, hall=0.3),
        "belief": belief(STAMP, "localised"),
    }


def answers(**changes: object) -> dict[str, Heard]:
    messages = {**good(), **changes}
    return {r.name: heard(r, messages[r.name], NOW) for r in RULES if messages[r.name] is not None}


def stops(**changes: object) -> list[str]:
    return [limit.rule for limit in stopping(RULES, answers(**changes), 0.1, "", NOW)]


def test_nothing_stops_a_driver_that_hears_all() -> None:
    assert stops() == []
    assert stops(belief=belief(0, "unknown")) == []  # it explores
    assert seen(answers(), True) == (Seen(STAMP, 0.3, 0.1, 2.0), True)
    assert seen(answers(), False) == (Seen(STAMP, 0.3, 0.1), True)


OLD = NOW.ros_ns - 2 * SECOND


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, None) for name in ("steering", "collision", "distance", "known", "belief")),
        ("steering", twist(turn=0.3, stamp_ns=OLD)),
        ("steering", twist(turn=math.nan, stamp_ns=STAMP)),
        ("steering", twist(turn=1.5, stamp_ns=STAMP)),
        ("steering", twist(turn=0.1, stamp_ns=NOW.ros_ns + SECOND)),
        ("collision", classes(OLD, free=0.9, collision=0.1)),
        ("collision", classes(STAMP, free=math.nan, collision=0.1)),
        ("collision", classes(STAMP, free=1.0)),
        ("distance", range_of(OLD, 2.0)),
        ("distance", range_of(STAMP, math.inf)),
        ("known", classes(STAMP, unknown=0.6, hall=0.4)),
        ("belief", belief(STAMP, "contradicted")),
        ("belief", belief(OLD, "localised")),
        ("belief", belief(STAMP, "nonsense")),
    ],
)
def test_what_stops_a_driver_is_named(name: str, message: object) -> None:
    assert stops(**{name: message}) == [name]


def test_an_image_waits_until_both_answers_of_it_are_there() -> None:
    later = answers(collision=classes(STAMP + 1, free=0.9, collision=0.1))
    assert seen(later, True) is None
    found = seen(answers(distance=range_of(STAMP - 1, 2.0)), True)
    assert found is not None and not found[1]
    assert seen(answers(distance=range_of(STAMP, math.nan)), True) is None
    assert seen({}, False) is None


def test_optional_answers_are_read_where_they_are_given() -> None:
    assert [r.name for r in answers_of("s", "c", "", "", "", 0.5)] == ["steering", "collision"]
    with pytest.raises(MeasurementError, match="not finite"):
        RULES[0].read(twist(turn=math.inf, stamp_ns=STAMP))
