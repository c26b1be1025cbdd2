"""What the gate decides: no file lets bad input through, and worse input never makes the robot faster."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from gate_messages import SECOND, belief, classes, pose, range_of, twist
from hypothesis import given
from hypothesis import strategies as st

from robot_vision.gate.answers import STANDING, Heard, Velocity, command, heard
from robot_vision.gate.decision import Decision, Limit, decide
from robot_vision.gate.moment import ClockWatch, Moment
from robot_vision.gate.rule import (
    ALL,
    FORWARD,
    MAY_SLOW,
    STOPS,
    ClassRule,
    CollisionRule,
    FreshRule,
    KnownRule,
    LocalisedRule,
    ObstacleRule,
    Rule,
    UncertaintyRule,
)
from robot_vision.gate.rules import Rules

NOW = Moment(1000 * SECOND, 50 * SECOND)
LABELS = ("kitchen", "corridor", "office")
STAMP = NOW.ros_ns - SECOND // 10

speeds = st.floats(0, 100)
ages = st.floats(0.2, 60)
probabilities = st.floats(0, 1)
limited = st.sampled_from([ALL, FORWARD])


@st.composite
def a_rule(draw: Any, name: str) -> Rule:
    common = name, "topic", draw(ages), draw(speeds)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return ClassRule(*common, draw(st.sampled_from(LABELS)), draw(probabilities))
    if kind == 1:
        return KnownRule(*common, draw(probabilities))
    if kind == 2:
        return CollisionRule(*common, draw(probabilities), draw(limited))
    if kind == 3:
        brakes = draw(st.none() | st.floats(0.01, 100))
        return ObstacleRule(*common, draw(st.floats(0, 1000)), brakes, draw(limited))
    if kind == 4:
        return UncertaintyRule(
            *common, draw(st.floats(1e-3, 1e6)), draw(st.none() | st.floats(1e-3, 360))
        )
    return LocalisedRule(*common, tuple(draw(st.sets(st.sampled_from(MAY_SLOW)))))


@st.composite
def some_rules(draw: Any) -> Rules:
    count = draw(st.integers(1, 5))
    rules = tuple(draw(a_rule(f"rule {i}")) for i in range(count))
    labels = draw(st.sampled_from(["perception/label_info", ""]))
    return Rules(rules, draw(ages), draw(st.floats(0, 60)), labels)


def good(rule: Rule, badness: float = 0.0, stamp_ns: int = STAMP) -> Any:
    """Returns a message that a rule can use, from the best (0) to the worst (1)."""
    if isinstance(rule, ClassRule):
        left = (1 - badness) / (len(LABELS) - 1)
        return classes(stamp_ns, **{x: badness if x == rule.label else left for x in LABELS})
    if isinstance(rule, KnownRule):
        top = 1 - badness * (1 - 1 / len(LABELS))
        rest = (1 - top) / (len(LABELS) - 1)
        return classes(stamp_ns, kitchen=top, corridor=rest, office=rest)
    if isinstance(rule, CollisionRule):
        return classes(stamp_ns, collision=badness, free=1 - badness)
    if isinstance(rule, ObstacleRule):
        return range_of(stamp_ns, 10 * (1 - badness))
    if isinstance(rule, UncertaintyRule):
        return pose(stamp_ns, [1e-9 + 4 * badness] * 6)
    assert isinstance(rule, LocalisedRule)
    words = ("localised", *MAY_SLOW, *STOPS)
    return belief(stamp_ns, words[min(int(badness * len(words)), len(words) - 1)])


def bad(rule: Rule, draw: Any) -> Heard | None:
    """Returns what no rule may take for an answer of now."""
    which = draw(
        st.sampled_from(["missing", "silent", "stale", "future", "no stamp", "nan", "unknown"])
    )
    fine = heard(rule, good(rule), NOW)
    if which == "missing":
        return None
    if which == "silent":
        by = round((rule.max_age_s + draw(st.floats(1e-3, 1e4))) * SECOND)
        return dataclasses.replace(fine, at=Moment(NOW.ros_ns - by, NOW.steady_ns - by))
    if which == "stale":
        by = round((rule.max_age_s + draw(st.floats(1e-3, 900))) * SECOND)
        return heard(rule, good(rule, stamp_ns=NOW.ros_ns - by), NOW)
    if which == "future":
        by = round((60.001 + draw(st.floats(0, 1e4))) * SECOND)  # the most that max_ahead_s allows
        return heard(rule, good(rule, stamp_ns=NOW.ros_ns + by), NOW)
    if which == "no stamp":
        return heard(rule, good(rule, stamp_ns=0), NOW)
    number = draw(st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e300]))
    if isinstance(rule, (ClassRule, KnownRule)):
        if which == "unknown":
            p = draw(st.floats(0.5, 1))
            return heard(rule, classes(STAMP, unknown=p, kitchen=1 - p), NOW)
        return heard(rule, classes(STAMP, kitchen=number, corridor=0.1), NOW)
    if isinstance(rule, CollisionRule):
        if which == "unknown":
            return heard(
                rule, draw(st.sampled_from([classes(STAMP), classes(STAMP, free=1.0)])), NOW
            )
        return heard(rule, classes(STAMP, collision=number, free=0.1), NOW)
    if isinstance(rule, ObstacleRule):
        span = draw(st.sampled_from([(0.0, 10.0), (5.0, 5.0), (math.nan, 10.0), (0.0, math.inf)]))
        return heard(rule, range_of(STAMP, number, *span), NOW)
    if isinstance(rule, UncertaintyRule):
        variances = [0.01] * 6
        variances[draw(st.sampled_from([0, 1, 5]))] = draw(
            st.sampled_from([number, 0.0, 1e9]) if which == "nan" else st.just(0.0)
        )
        return heard(rule, pose(STAMP, variances), NOW)
    word = draw(st.sampled_from([*STOPS, "", "fine"]))
    return heard(rule, belief(STAMP, word, draw(st.sampled_from([None, 0, 1, 2]))), NOW)


def all_heard(rules: Rules, badness: float = 0.0) -> dict[str, Heard]:
    return {rule.name: heard(rule, good(rule, badness), NOW) for rule in rules.rules}


def decided(rules: Rules, answers: dict, **changes: Any) -> Decision:
    given = {
        "labels": LABELS,
        "last": command(twist(1.0, 0.5), False, NOW),
        "drivers": 1,
        "clock": "",
        "now": NOW,
        **changes,
    }
    return decide(rules, answers, **given)


@pytest.mark.slow
@given(st.data(), some_rules())
def test_no_file_lets_stale_unknown_or_broken_input_through(data: Any, rules: Rules) -> None:
    answers: dict[str, Heard] = all_heard(rules)
    victim = data.draw(st.sampled_from(rules.rules))
    found = bad(victim, data.draw)
    if found is None:
        del answers[victim.name]
    else:
        answers[victim.name] = found
    decision = decided(rules, answers)
    assert decision.speed == 0
    assert victim.name in [limit.rule for limit in decision.limits if limit.speed == 0]
    assert decision.applied(Velocity((1.0, 0, 0), (0, 0, 1.0))) == STANDING


@pytest.mark.slow
@given(
    some_rules(),
    st.sampled_from(["old", "future", "nan", "inf", "none", "no stamp", "two", "clock"]),
)
def test_no_file_lets_a_bad_command_through(rules: Rules, which: str) -> None:
    last = {
        "old": command(twist(1.0, stamp_ns=NOW.ros_ns - 61 * SECOND), True, NOW),
        "future": command(twist(1.0, stamp_ns=NOW.ros_ns + 61 * SECOND), True, NOW),
        "nan": command(twist(math.nan), False, NOW),
        "inf": command(twist(1.0, math.inf), False, NOW),
        "none": None,
        "no stamp": command(twist(1.0, stamp_ns=0), True, NOW),
    }.get(which, command(twist(1.0), False, NOW))
    decision = decided(
        rules,
        all_heard(rules),
        last=last,
        drivers=2 if which == "two" else 1,
        clock="jumped" if which == "clock" else "",
    )
    assert decision.speed == 0 and decision.applied(Velocity((9.0, 9.0, 0))) == STANDING


@pytest.mark.slow
@given(some_rules(), probabilities, probabilities)
def test_worse_input_never_makes_the_robot_faster(rules: Rules, one: float, other: float) -> None:
    better, worse = sorted((one, other))
    first, second = (decided(rules, all_heard(rules, b)) for b in (better, worse))
    slack = 1 + 1e-9
    assert second.speed <= first.speed * slack and second.forward <= first.forward * slack


@pytest.mark.slow
@given(some_rules(), some_rules(), probabilities)
def test_another_rule_never_makes_the_robot_faster(one: Rules, other: Rules, at: float) -> None:
    renamed = tuple(dataclasses.replace(r, name=f"more {r.name}") for r in other.rules)
    both = dataclasses.replace(one, rules=(*one.rules, *renamed))
    answers = all_heard(both, at)
    assert decided(both, answers).speed <= decided(one, answers).speed
    assert decided(both, answers).forward <= decided(one, answers).forward


numbers = st.floats(-1e6, 1e6)


@pytest.mark.slow
@given(some_rules(), probabilities, st.tuples(numbers, numbers, numbers, numbers))
def test_what_goes_out_is_never_faster_than_what_came_in(
    rules: Rules, badness: float, wanted: tuple[float, float, float, float]
) -> None:
    x, y, z, turn = wanted
    velocity = Velocity((x, y, 0.0), (0.0, z, turn))
    decision = decided(rules, all_heard(rules, badness))
    out = decision.applied(velocity)
    pairs = zip((*out.linear, *out.angular), (*velocity.linear, *velocity.angular), strict=True)
    for after, before in pairs:
        assert abs(after) <= abs(before) * (1 + 1e-9) and after * before >= 0
    # Of speeds that floats hold with few digits the product rounds up.
    assert out.speed <= decision.speed * (1 + 1e-9) + 1e-300
    assert out.linear[0] <= max(decision.forward * (1 + 1e-9) + 1e-300, 0)
    assert decision == decided(rules, all_heard(rules, badness))
    if not decision.holding(velocity):
        assert out == velocity


def only(rule: Rule, message: Any, **changes: Any) -> Decision:
    return decided(Rules((rule,)), {rule.name: heard(rule, message, NOW)}, **changes)


def test_in_the_kitchen_the_robot_is_slow_on_its_path() -> None:
    rule = ClassRule("slow in the kitchen", "c", 0.5, 0.3, "kitchen", 0.4)
    decision = only(rule, classes(STAMP, kitchen=0.5, corridor=0.4))
    assert decision.applied(Velocity((0.6, 0, 0), (0, 0, 0.5))) == Velocity(
        (0.3, 0, 0), (0, 0, 0.25)
    )
    (limit,) = decision.holding(Velocity((0.6, 0, 0)))
    assert (limit.rule, limit.why) == ("slow in the kitchen", "kitchen with probability 0.50")
    assert decision.holding(Velocity((0.2, 0, 0))) == ()
    assert only(rule, classes(STAMP, corridor=0.9, kitchen=0.1)) == Decision()


def test_a_class_that_is_not_listed_may_have_what_the_others_leave() -> None:
    rule = ClassRule("k", "c", 0.5, 0.3, "kitchen", 0.2)
    assert only(rule, classes(STAMP, corridor=0.6, office=0.15)) == Decision()  # 0.15 at most
    assert only(rule, classes(STAMP, corridor=0.4, office=0.3)).speed == 0.3


@pytest.mark.parametrize(
    ("labels", "words"), [(None, "classes are not known"), (("hall",), "Unknown class 'kitchen'")]
)
def test_a_class_that_the_model_does_not_have_stops(labels: Any, words: str) -> None:
    rule = ClassRule("k", "c", 0.5, 0.3, "kitchen", 0.2)
    (limit,) = only(rule, classes(STAMP, hall=1.0), labels=labels).limits
    assert limit.speed == 0 and words in limit.why
    unchecked = decided(
        Rules((rule,), labels=""), {"k": heard(rule, classes(STAMP, hall=1.0), NOW)}, labels=labels
    )
    assert unchecked == Decision()


def test_the_braking_distance_limits_the_speed_before_the_obstacle() -> None:
    rule = ObstacleRule("o", "r", 0.5, 0.0, 0.4, 0.5)
    speeds = [only(rule, range_of(STAMP, d)).speed for d in (0.3, 0.4, 0.5, 1.0, 4.0)]
    assert speeds[:2] == [0, 0] and speeds == sorted(speeds)
    for distance, v in zip((0.5, 1.0, 4.0), speeds[2:], strict=True):
        assert v * 0.5 + v * v / (2 * 0.5) == pytest.approx(distance - 0.4)


def test_nearer_than_the_sensor_sees_is_here() -> None:
    rule = ObstacleRule("o", "r", distance_m=0.01)
    assert only(rule, range_of(STAMP, 0.05, low=0.1)).speed == 0
    assert only(rule, range_of(STAMP, 0.15, low=0.1)) == Decision()


def test_an_obstacle_ahead_may_leave_turning_and_backing_up_free() -> None:
    rule = ObstacleRule("o", "r", distance_m=1.0, limits=FORWARD)
    decision = only(rule, range_of(STAMP, 0.5))
    assert decision.applied(Velocity((0.5, 0, 0), (0, 0, 1.0))) == Velocity((0, 0, 0), (0, 0, 1.0))
    assert decision.applied(Velocity((-0.5, 0, 0))) == Velocity((-0.5, 0, 0))
    silent = decided(Rules((rule,)), {})
    assert silent.applied(Velocity((-0.5, 0, 0), (0, 0, 1.0))) == STANDING


def test_a_pose_on_a_plane_has_three_variances() -> None:
    rule = UncertaintyRule("u", "p", sigma_m=0.5, sigma_deg=20)
    assert only(rule, pose(STAMP, [0.04, 0.04, 0, 0, 0, 0.01])) == Decision()
    assert "0.60 m" in only(rule, pose(STAMP, [0.04, 0.36, 0, 0, 0, 0.01])).limits[0].why
    assert "degrees" in only(rule, pose(STAMP, [0.04, 0.04, 0, 0, 0, 0.2])).limits[0].why


def test_a_distrusted_odometry_may_slow() -> None:
    rule = LocalisedRule("l", "b", speed=0.2, slow_for=("odometry distrusted",))
    assert only(rule, belief(STAMP, "odometry distrusted", 1)).speed == 0.2
    assert only(rule, belief(STAMP, "uncertain")).speed == 0
    assert only(rule, belief(STAMP, "localised")) == Decision()
    lenient = dataclasses.replace(rule, slow_for=("uncertain",))
    for word in MAY_SLOW:  # the worse one includes the better one
        assert only(lenient, belief(STAMP, word)).speed == 0.2
    assert only(rule, belief(NOW.ros_ns - 2 * SECOND, "localised")).speed == 0


def test_a_type_without_a_header_is_judged_by_its_arrival() -> None:
    rule = FreshRule("f", "t", 0.5, type="std_msgs/msg/Bool")
    last = Heard(NOW, None, None)
    assert decided(Rules((rule,)), {"f": last}) == Decision()
    later = Moment(NOW.ros_ns, NOW.steady_ns + SECOND)  # a clock that stopped
    assert decided(Rules((rule,)), {"f": last}, now=later).speed == 0


def test_reasons_come_by_severity_and_then_in_the_file_s_order() -> None:
    rules = (
        CollisionRule("slow", "c", 0.5, 0.4, 0.1),
        ObstacleRule("first", "r", distance_m=9),
        ObstacleRule("second", "r", distance_m=9.5),
    )
    answers = {r.name: heard(r, good(r, 0.5), NOW) for r in rules}
    decision = decided(Rules(rules), answers)
    assert [limit.rule for limit in decision.limits] == ["first", "second", "slow"]


@pytest.mark.parametrize("stamp", [-1, 0, (1 << 31) * SECOND + 5])
def test_a_stamp_that_no_message_can_carry_is_refused(stamp: int) -> None:
    last = command(twist(1.0, stamp_ns=stamp), True, NOW)
    assert last.stamp_ns is None and last.problem and last.velocity == STANDING
    rule = ObstacleRule("o", "r")
    assert "stamp" in heard(rule, range_of(stamp, 9.0), NOW).problem


def test_simulated_time_counts_by_the_clock() -> None:
    then = Moment(10 * SECOND, 0, True)
    assert Moment(10 * SECOND + 1, 60 * SECOND, True).since_s(then) == pytest.approx(1e-9)
    assert Moment(9 * SECOND, 60 * SECOND, True).since_s(then) == -1


@pytest.mark.parametrize("by_s", [-5, 5])
def test_a_clock_that_jumps_makes_all_forgotten(by_s: int) -> None:
    watch = ClockWatch()
    assert watch.look(NOW) == ("", False)
    assert watch.look(Moment(NOW.ros_ns + SECOND, NOW.steady_ns + SECOND)) == ("", False)
    why, jumped = watch.look(Moment(NOW.ros_ns + by_s * SECOND, NOW.steady_ns + 2 * SECOND))
    assert jumped and "jumped" in why
    after = Moment(NOW.ros_ns + (by_s + 1) * SECOND, NOW.steady_ns + 3 * SECOND)
    assert watch.look(after) == ("", False)


def test_simulated_time_may_run_at_any_pace_but_not_back_or_stand_still() -> None:
    watch = ClockWatch()
    assert "no message on /clock" in watch.look(Moment(0, 0, True))[0]
    assert watch.look(Moment(5 * SECOND, 1, True)) == ("", False)
    assert watch.look(Moment(15 * SECOND, 2, True)) == ("", False)
    assert watch.look(Moment(15 * SECOND, SECOND, True)) == ("", False)
    assert "stands still" in watch.look(Moment(15 * SECOND, 4 * SECOND, True))[0]
    # An answer to a new image: time waits for the command that it leads to, for two seconds again.
    assert watch.answered(Moment(15 * SECOND, 4 * SECOND, True)) == ""
    assert watch.look(Moment(15 * SECOND, 6 * SECOND, True)) == ("", False)
    assert "stands still" in watch.look(Moment(15 * SECOND, 7 * SECOND, True))[0]
    assert watch.look(Moment(16 * SECOND, 8 * SECOND, True)) == ("", False)
    assert watch.look(Moment(1 * SECOND, 9 * SECOND, True))[1]
    assert "no message on /clock" in ClockWatch().answered(Moment(0, 0, True))


def test_a_limit_that_is_no_number_stops() -> None:
    class Broken(FreshRule):
        def judge(self, value: Any) -> tuple[float, str]:
            return math.nan, ""

    rule = Broken("b", "t", type="a/msg/B")
    assert decided(Rules((rule,)), {"b": Heard(NOW, None, None)}).limits[0].speed == 0


def test_a_stop_is_named_whatever_was_commanded() -> None:
    decision = Decision((Limit("o", 0.0, "near"), Limit("k", 0.3, "kitchen")))
    assert [limit.rule for limit in decision.holding(STANDING)] == ["o"]
