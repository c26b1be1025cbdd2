"""The pose filter against SciPy, textbook Kalman filters, its own covariance, and what goes wrong."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.filters.odometry import Continuity, OdometryBuffer, OdometryNoise
from robot_vision.filters.pose_filter import (
    ACCEPTED,
    CONTRADICTED,
    INITIALISED,
    INITIALISING,
    LOCALISED,
    PENDING,
    REINITIALISED,
    REJECTED,
    UNCERTAIN,
    WAITING,
    PoseFilter,
    PoseFilterSettings,
)
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry

S = 1_000_000_000
# Errors of measurements that have nothing to do with each other, and estimates from the first one on.
INDEPENDENT = {"correlation_m": 1e-9, "correlation_deg": 1e-9, "correlation_s": 1e-9}
AT_ONCE = {**INDEPENDENT, "initialise_count": 1, "odometry_unproven": 1e-12}
GOOD = np.diag([0.01, 0.01, 0.01, 1e-3, 1e-3, 1e-3])

numbers = st.floats(-2, 2)
tangents = st.lists(numbers, min_size=6, max_size=6).map(
    lambda v: np.array(v) * [3, 3, 3, 0.8, 0.8, 0.8]
)


def at(x=0.0, y=0.0, z=0.0, yaw=0.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[:3, 3] = x, y, z
    return T


def algebra(xi):
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = np.cross(xi[3:], np.eye(3)).T
    matrix[:3, 3] = xi[:3]
    return matrix


# The group


@pytest.mark.slow
@given(tangents)
@settings(max_examples=40)
def test_exponential_is_that_of_the_matrix_and_logarithm_its_inverse(xi):
    T = se3.exp(xi)
    np.testing.assert_allclose(T, expm(algebra(xi)), atol=1e-9)
    if np.linalg.norm(xi[3:]) < 3.1:
        np.testing.assert_allclose(se3.log(T), xi, atol=1e-7)


@given(tangents, tangents)
@settings(max_examples=30)
def test_adjoint_and_jacobian_are_what_they_say(xi, d):
    T, small = se3.exp(xi), 1e-6 * d
    np.testing.assert_allclose(se3.exp(se3.adjoint(T) @ d), T @ se3.exp(d) @ inverse(T), atol=1e-6)
    moved = se3.log(inverse(T) @ se3.exp(xi + small))
    np.testing.assert_allclose(moved, se3.right_jacobian(xi) @ small, atol=1e-9)


# Kalman filters in the limit


def test_translation_alone_is_the_textbook_kalman_filter():
    """No rotation, known noise: the pose filter and five lines of Kalman give the same numbers."""
    rng = np.random.default_rng(1)
    noise = OdometryNoise(0.1, 0.0, 0.0, 0.02, 0.0)
    filter_ = PoseFilter(
        PoseFilterSettings(noise, gate_probability=1 - 1e-15, history_s=1000, **AT_ONCE)
    )
    x, P = None, None
    odometry, stamp = np.zeros(3), 0
    for _ in range(40):
        step, dt = rng.normal(size=3) * 0.3, rng.integers(1, 5) * S // 10
        stamp += dt
        odometry = odometry + step
        filter_.add_odometry(stamp, at(*odometry))
        if x is not None:  # predict
            x = x + step
            P = P + np.eye(3) * (0.1**2 * np.linalg.norm(step) + 0.02**2 * dt / S)
        z, R = odometry + rng.normal(size=3) * 0.1, np.diag(rng.uniform(0.005, 0.05, 3))
        covariance = np.diag([*np.diagonal(R), *[1e-12] * 3])
        filter_.add_pose(stamp, at(*z), covariance)
        if x is None:
            x, P = z, R
        else:  # correct
            K = P @ np.linalg.inv(P + R)
            x, P = x + K @ (z - x), (np.eye(3) - K) @ P
        estimate = filter_.estimate()
        np.testing.assert_allclose(estimate.position, x, atol=1e-9)
        np.testing.assert_allclose(estimate.covariance[:3, :3], P, atol=1e-9)


@pytest.mark.slow
def test_without_odometry_it_is_a_kalman_filter_of_position_and_velocity():
    """One axis; the velocity is an Ornstein-Uhlenbeck process whose moments are integrated numerically."""
    dt, speed = 0.1, 1.5
    settings_ = PoseFilterSettings(
        speed_m_s=speed, turn_deg_s=1e-6, gate_probability=1 - 1e-15, **AT_ONCE
    )
    filter_ = PoseFilter(settings_)
    A = np.array([[0.0, 1.0], [0.0, -1.0]])
    F = expm(A * dt)
    fine = 300
    Q = sum(
        expm(A * s) @ np.diag([0, 2 * speed**2]) @ expm(A * s).T * dt / fine
        for s in (np.arange(fine) + 0.5) * dt / fine
    )
    rng = np.random.default_rng(0)
    x, P = None, None
    for i in range(30):
        z = 0.8 * i * dt + rng.normal() * 0.1
        filter_.add_pose(round(i * dt * S), at(z), np.diag([0.01, 1, 1, 1e-12, 1e-12, 1e-12]))
        if x is None:
            x, P = np.array([z, 0.0]), np.diag([0.01, speed**2])
        else:
            x, P = F @ x, F @ P @ F.T + Q
            K = P[:, 0] / (P[0, 0] + 0.01)
            x, P = x + K * (z - x[0]), P - np.outer(K, P[0])
    estimate = filter_.estimate()
    assert estimate.position[0] == pytest.approx(x[0], abs=1e-6)
    assert estimate.covariance[0, 0] == pytest.approx(P[0, 0], rel=1e-4)


# Is the covariance true?


def wander(rng, count):
    """Poses (count, 4, 4) of a robot that turns and drives in three dimensions."""
    T, poses = at(5, -3, 1, 0.5), []
    for i in range(count):
        poses.append(T)
        T = T @ se3.exp(np.array([0.1, 0, 0, 0.02 * np.sin(i / 9), 0.01, 0.06 * np.cos(i / 20)]))
    return np.array(poses)


@pytest.mark.slow
def test_covariance_holds_the_truth_in_monte_carlo():
    """Mean normalised error squared of 60 drives at three times, within 99.9 % of chi squared's own mean."""
    noise = OdometryNoise(0.05, 1.0, 2.0, 0.005, 0.1)
    R = np.diag([0.05, 0.02, 0.01, 0.004, 0.002, 0.008])
    root = np.linalg.cholesky(R)
    nees = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = wander(rng, 60)
        stamps = np.arange(60) * S // 10
        odometry = simulated_odometry(stamps, truth, OdometryErrors(noise, 0, 0), seed)
        filter_ = PoseFilter(PoseFilterSettings(noise, gate_probability=1 - 1e-12, **AT_ONCE))
        for i in range(60):
            filter_.add_odometry(int(stamps[i]), odometry[i])
            if i % 5 == 0:
                error = root @ rng.normal(size=6)
                measured = truth[i].copy()
                measured[:3, 3] -= error[:3]
                measured[:3, :3] = Rotation.from_rotvec(-error[3:]).as_matrix() @ truth[i][:3, :3]
                filter_.add_pose(int(stamps[i]), measured, R)
            if i in (12, 35, 59):
                estimate = filter_.estimate()
                error = np.concatenate(
                    [
                        truth[i][:3, 3] - estimate.position,
                        Rotation.from_matrix(truth[i][:3, :3] @ estimate.T[:3, :3].T).as_rotvec(),
                    ]
                )
                nees.append(error @ np.linalg.solve(estimate.covariance, error))
    low, high = chi2(6 * 180).ppf([0.0005, 0.9995]) / 180
    assert low < np.mean(nees) < high, (np.mean(nees), low, high)


def test_pose_far_from_the_origin_has_the_covariance_that_was_measured():
    covariance = np.diag([0.04, 0.01, 0.02, 1e-3, 2e-3, 3e-3])
    covariance[0, 5] = covariance[5, 0] = 0.004
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    filter_.add_pose(0, at(1e5, -2e5, 10, 2.0), covariance)
    estimate = filter_.estimate()
    np.testing.assert_allclose(estimate.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(estimate.position, [1e5, -2e5, 10])


@pytest.mark.slow
def test_looking_again_without_moving_makes_hardly_surer():
    filter_ = PoseFilter(PoseFilterSettings(initialise_count=1))
    still = PoseFilter(PoseFilterSettings(**AT_ONCE))
    for i in range(50):  # 5 s
        for f in (filter_, still):
            f.add_odometry(i * S // 10, at())
            f.add_pose(i * S // 10, at(), GOOD)
    assert filter_.estimate().sigma_m > 0.08 and still.estimate().sigma_m < 0.03


# Beginning, wrong measurements, and beginning again


def drive(filter_, start, count, offset=(0.0, 0.0), measure=True, rate=10):
    """Drives straight on at 1 m/s with perfect odometry; returns the verdicts."""
    verdicts = []
    for i in range(start, start + count):
        x = i / rate
        filter_.add_odometry(i * S // rate, at(x))
        if measure:
            for o in filter_.add_pose(i * S // rate, at(x + offset[0], offset[1]), GOOD, "pose"):
                verdicts.append(o.verdict)
    return verdicts


def test_estimate_begins_when_enough_measurements_agree():
    filter_ = PoseFilter()
    assert filter_.condition() == WAITING and filter_.estimate() is None
    filter_.add_odometry(0, at())
    assert filter_.add_pose(0, at(50, 50), GOOD)[0].verdict == INITIALISING  # wrong, and alone
    verdicts = drive(filter_, 1, 5)
    assert verdicts == [INITIALISING, INITIALISING, INITIALISED, ACCEPTED, ACCEPTED]
    assert filter_.condition() == LOCALISED
    np.testing.assert_allclose(filter_.estimate().position, [0.5, 0, 0], atol=1e-6)


def test_wrong_measurements_are_refused_and_the_estimate_stays():
    filter_ = PoseFilter()
    drive(filter_, 0, 20)
    for i in range(20, 45):
        filter_.add_odometry(i * S // 10, at(i / 10))
        wrong = at(i / 10 + (-1) ** i * (3 + i), 4)  # never twice the same place
        assert filter_.add_pose(i * S // 10, wrong, GOOD)[0].verdict == REJECTED
    np.testing.assert_allclose(filter_.estimate().position, [4.4, 0, 0], atol=0.05)
    assert filter_.condition() == CONTRADICTED and filter_.refused_in_a_row == 25
    # One that agrees may do so by chance: it takes as many as at the start.
    assert drive(filter_, 45, 1) == [ACCEPTED] and filter_.condition() == CONTRADICTED
    assert drive(filter_, 46, 2) == [ACCEPTED] * 2 and filter_.condition() == LOCALISED


def test_robot_that_was_carried_away_is_found_again():
    filter_ = PoseFilter()
    drive(filter_, 0, 20)
    verdicts = drive(filter_, 20, 40, offset=(0, 8))
    assert REINITIALISED in verdicts
    first = verdicts.index(REINITIALISED)
    assert 5 <= first <= 25 and set(verdicts[:first]) == {REJECTED}
    assert set(verdicts[first + 1 :]) == {ACCEPTED}
    np.testing.assert_allclose(filter_.estimate().position, [5.9, 8, 0], atol=0.05)


def test_contradicted_robot_says_so_before_it_is_found():
    filter_ = PoseFilter(PoseFilterSettings(reinitialise_count=5, reinitialise_after_s=1.0))
    drive(filter_, 0, 20)
    conditions = []
    for i in range(20, 60):
        filter_.add_odometry(i * S // 10, at(i / 10))
        filter_.add_pose(i * S // 10, at(i / 10 + 5 * (i % 3), 9), GOOD)
        conditions.append(filter_.condition())
    assert conditions[0] == LOCALISED and conditions[-1] == CONTRADICTED


def test_carried_robot_is_contradicted_within_a_planner_s_reaction():
    """Two sources and an odometry that does not see it: 2 s it was."""
    filter_ = PoseFilter()
    drive(filter_, 0, 30)
    for i in range(30, 40):
        filter_.add_odometry(i * S // 10, at(i / 10))
        for source in ("pose", "place"):
            filter_.add_pose(i * S // 10, at(i / 10, 3.8), GOOD, source)
        if filter_.condition() != LOCALISED:
            break
    assert i <= 32 and filter_.condition() != LOCALISED
    for later in range(i + 1, 40):
        filter_.add_odometry(later * S // 10, at(later / 10))
        filter_.add_pose(later * S // 10, at(later / 10, 3.8), GOOD, "pose")
        assert filter_.condition() != LOCALISED
    assert filter_.estimate().sigma_m > 1.0  # the covariance covers where the poses say it is


def test_covariance_reaches_the_place_of_the_first_refused_pose():
    filter_ = PoseFilter()
    drive(filter_, 0, 30)
    sure = filter_.estimate().sigma_m
    assert drive(filter_, 30, 1, offset=(0.0, 3.8)) == [REJECTED]
    estimate = filter_.estimate()
    assert 3 * math.sqrt(estimate.covariance[1, 1]) > 3.8 and sure < 0.2
    # Whether it is an outlier is not known yet: two in a row end nothing.
    assert filter_.condition() == LOCALISED
    assert drive(filter_, 31, 1, offset=(0.0, 3.8)) == [REJECTED]
    assert filter_.condition() == LOCALISED
    assert drive(filter_, 32, 1) == [ACCEPTED] and filter_.condition() == LOCALISED
    assert filter_.estimate().sigma_m < 0.2


def test_wrong_scale_errs_along_the_way_and_about_the_axis_of_the_turn_however_it_is_sampled():
    noise = OdometryNoise(0.1, 0.0, 2.0, 0.0, 0.0, scale=0.02)
    motion = np.array([0.0, 3.0, 0.0, 0.0, 0.0, 2.0])
    alike = np.diag(noise.variances(motion, 2.0))
    more = noise.covariance(motion, 2.0) - alike
    np.testing.assert_allclose(more[1, 1], 0.06**2 * more[5, 5] / 0.04**2)
    assert more[1, 1] > 0 and np.count_nonzero(more) == 2
    np.testing.assert_allclose(noise.covariance(motion / 8, 0.25) * 8, alike + more)
    # Twice as fast, the error of a scale is twice as large, and noise only by a root.
    np.testing.assert_allclose(noise.covariance(2 * motion, 2.0) - 2 * alike, 4 * more)


@pytest.mark.parametrize("with_odometry", [True, False])
def test_one_pose_after_a_gap_is_not_enough(with_odometry):
    filter_ = PoseFilter()
    for i in range(30):
        if with_odometry:
            filter_.add_odometry(i * S // 10, at(i / 10))
        filter_.add_pose(i * S // 10, at(i / 10), GOOD)
    assert filter_.condition() == LOCALISED
    back = 23 * S
    if with_odometry:
        filter_.add_odometry(back, at(3.0))
    assert filter_.add_pose(back, at(11.0), GOOD)[0].verdict == INITIALISING
    assert filter_.condition() == UNCERTAIN and filter_.estimate().sigma_m > 1
    verdicts = []
    for i in range(1, 9):
        if with_odometry:
            filter_.add_odometry(back + i * S // 10, at(3.0 + i / 10))
        verdicts += filter_.add_pose(back + i * S // 10, at(3.0 + i / 10), GOOD)
    assert [o.verdict for o in verdicts[:4]] == [INITIALISING, INITIALISING, INITIALISED, ACCEPTED]
    assert filter_.condition() == LOCALISED
    np.testing.assert_allclose(filter_.estimate().position, [3.8, 0, 0], atol=0.05)


@pytest.mark.slow
def test_single_outliers_do_not_end_the_belief():
    filter_ = PoseFilter()
    drive(filter_, 0, 20)
    for i in range(20, 100):
        filter_.add_odometry(i * S // 10, at(i / 10))
        filter_.add_pose(i * S // 10, at(i / 10, 4.0 if i % 5 == 0 else 0.0), GOOD)
        assert filter_.condition() == LOCALISED


@pytest.mark.slow
def test_odometry_that_stands_still_is_named_left_and_followed_again():
    filter_ = PoseFilter()
    drive(filter_, 0, 30)
    far, faults = 0.0, set()
    for i in range(30, 320):
        odometry = at(3.0 if i < 110 else 3.0 + (i - 110) / 10)
        filter_.add_odometry(i * S // 10, odometry)
        filter_.add_pose(i * S // 10, at(i / 10), GOOD)
        if filter_.condition() == LOCALISED:
            far = max(far, abs(filter_.estimate().position[0] - i / 10))
        faults.add(filter_.odometry_fault)
        if i == 109:
            assert not filter_.odometry_trusted
    assert far < 0.6
    assert any("stands still" in fault for fault in faults)
    assert filter_.odometry_trusted and filter_.odometry_fault == ""


# Time


@pytest.mark.slow
def test_measurements_out_of_order_give_the_same_as_in_order():
    rng = np.random.default_rng(3)
    truth = wander(rng, 40)
    measured = [T @ se3.exp(rng.normal(size=6) * 0.05) for T in truth]
    results = []
    for delay in (0, 7):
        filter_ = PoseFilter(PoseFilterSettings(**INDEPENDENT))
        for i in range(40 + delay):
            if i < 40:
                filter_.add_odometry(i * S // 10, truth[i])
                if i % 2 == 0:
                    filter_.add_pose(i * S // 10, measured[i], GOOD, "pose")
            late = i - delay
            if 0 <= late and late % 2 == 1:
                filter_.add_pose(late * S // 10, measured[late], GOOD, "place")
        results.append(filter_.estimate())
        assert (filter_.replays > 0) == (delay > 0)
    np.testing.assert_allclose(results[0].T, results[1].T, atol=1e-12)
    np.testing.assert_allclose(results[0].covariance, results[1].covariance, atol=1e-12)


def test_late_measurement_counts_where_it_was_taken():
    """The robot drove 2 m since the image: the estimate is 2 m ahead of what was measured."""
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    drive(filter_, 0, 21, measure=False)
    assert filter_.add_pose(0, at(7, 1), GOOD)[0].verdict == INITIALISED
    np.testing.assert_allclose(filter_.estimate().position, [9, 1, 0], atol=1e-9)
    np.testing.assert_allclose(filter_.T_map_odom(), at(7, 1), atol=1e-9)


def test_image_newer_than_the_odometry_waits_for_it():
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    filter_.add_odometry(0, at())
    assert filter_.add_pose(S // 20, at(1), GOOD)[0].verdict == PENDING
    assert filter_.estimate() is None
    outcomes, _ = filter_.add_odometry(S // 10, at(0.2))
    assert [o.verdict for o in outcomes] == [INITIALISED]
    np.testing.assert_allclose(filter_.estimate().position, [1.1, 0, 0], atol=1e-9)


@pytest.mark.parametrize(("lag_s", "used"), [(0.4, 0), (0.6, 50)])
def test_odometry_whose_stamps_lag_is_told_where_it_is_not_waited_for(lag_s, used):
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    for i in range(100):
        now = 100 * S + i * S // 10
        filter_.add_odometry(now - round(lag_s * S), at(i / 10 - lag_s))
        if i >= 50:
            filter_.add_pose(now, at(i / 10), GOOD)
    assert abs(filter_.without_odometry - used) <= 1


def test_odometry_that_stops_lets_the_estimate_go_on_less_surely():
    filter_ = PoseFilter(PoseFilterSettings(**INDEPENDENT))
    drive(filter_, 0, 20)
    sure = filter_.estimate().sigma_m
    unsure = filter_.estimate(19 * S // 10 + 2 * S)
    assert (
        unsure.sigma_m > 1.0 and unsure.position[0] > 1.9 and filter_.condition(unsure) == UNCERTAIN
    )
    # Images alone keep it going: they wait for the odometry, and then no longer.
    verdicts = []
    for i in range(20, 60):
        verdicts += [o.verdict for o in filter_.add_pose(i * S // 10, at(i / 10), GOOD)]
    assert verdicts.count(ACCEPTED) > 30 and REJECTED not in verdicts
    assert filter_.estimate().position[0] == pytest.approx(5.9, abs=0.6)
    assert sure < filter_.estimate().sigma_m < 0.5


@pytest.mark.slow
def test_long_silence_of_the_measurements_keeps_all_of_the_odometry():
    filter_ = PoseFilter(PoseFilterSettings(**INDEPENDENT))
    drive(filter_, 0, 20)
    drive(filter_, 20, 580, measure=False)  # 58 s, far longer than odometry is kept
    np.testing.assert_allclose(filter_.estimate().position, [59.9, 0, 0], atol=0.05)
    predicted = filter_.estimate().covariance[0, 0]
    assert predicted == pytest.approx(58 * 0.05**2 + 58 * 0.005**2, rel=0.5)
    # By now it is to within metres to the side: found again as at the start.
    assert filter_.condition() == UNCERTAIN
    assert drive(filter_, 600, 3) == [INITIALISING, INITIALISING, INITIALISED]
    np.testing.assert_allclose(filter_.estimate().position, [60.2, 0, 0], atol=0.05)


def test_odometry_that_was_reset_is_a_gap_and_no_flight():
    filter_ = PoseFilter(PoseFilterSettings(**INDEPENDENT))
    drive(filter_, 100, 50)
    _, why = filter_.add_odometry(15 * S, at(0.0))  # from 14.9 m to 0
    assert "jumped" in why
    estimate = filter_.estimate()
    assert abs(estimate.position[0] - 15) < 0.3 and estimate.sigma_m > 0.05
    for i in range(1, 20):
        filter_.add_odometry(15 * S + i * S // 10, at(i / 10))
        outcomes = filter_.add_pose(15 * S + i * S // 10, at(15 + i / 10), GOOD)
        assert outcomes[0].verdict == ACCEPTED


def test_clock_that_was_set_back_begins_anew():
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    drive(filter_, 1000, 20)
    drive(filter_, 0, 5)
    assert filter_.resets == 1 and filter_.condition() == LOCALISED
    np.testing.assert_allclose(filter_.estimate().position, [0.4, 0, 0], atol=1e-6)


def test_clock_that_was_set_back_without_odometry_begins_anew():
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    filter_.add_pose(1000 * S, at(), GOOD)
    refused = 0
    for i in range(20):
        try:
            filter_.add_pose(i * S // 10, at(1), GOOD)
        except MeasurementError as error:
            assert error.reason == "too_old"
            refused += 1
    assert refused == 9 and filter_.resets == 1
    np.testing.assert_allclose(filter_.estimate().position, [1, 0, 0], atol=1e-6)


def test_source_whose_clock_lags_takes_nothing_from_the_others():
    filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
    for i in range(0, 200):
        drive(filter_, i, 1, measure=i % 20 == 0)
        if i % 20:
            with pytest.raises(MeasurementError, match="older than the newest data"):
                filter_.add_pose(i * S // 10 - 8 * S, at(5), GOOD, "lagging")
    assert filter_.resets == 0 and filter_.condition() == LOCALISED
    np.testing.assert_allclose(filter_.estimate().position, [19.9, 0, 0], atol=1e-6)


# What cannot be used


@pytest.mark.parametrize(
    ("T", "covariance", "reason"),
    [
        (at(float("nan")), GOOD, "non_finite"),
        (at(), GOOD * float("nan"), "covariance"),
        (at(), np.zeros((6, 6)), "covariance"),
        (at(), -GOOD, "covariance"),
        (at(), GOOD + np.triu(np.full((6, 6), 0.1), 1), "covariance"),
        (at(), np.eye(3), "covariance"),
    ],
)
def test_measurements_that_are_none_are_refused_and_change_nothing(T, covariance, reason):
    filter_ = PoseFilter()
    drive(filter_, 0, 10)
    before = filter_.estimate()
    with pytest.raises(MeasurementError) as error:
        filter_.add_pose(S, T, covariance)
    assert error.value.reason == reason and "\n" not in str(error.value)
    np.testing.assert_array_equal(filter_.estimate().T, before.T)


def test_odometry_that_is_none_is_refused():
    filter_ = PoseFilter()
    filter_.add_odometry(S, at())
    for stamp, T, reason in (
        (2 * S, at(float("inf")), "non_finite"),
        (S, at(), "out_of_order"),
        (S // 2, at(), "out_of_order"),
    ):
        with pytest.raises(MeasurementError) as error:
            filter_.add_odometry(stamp, T)
        assert error.value.reason == reason


@pytest.mark.parametrize("name", ["gate_probability", "initialise_count", "speed_m_s", "history_s"])
def test_bad_settings_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        PoseFilterSettings(**{name: 0})
    with pytest.raises(ConfigError, match="position_per_m"):
        OdometryNoise(position_per_m=math.nan)


@pytest.mark.parametrize(
    ("away_s", "back", "word"),
    [
        (0.05, 0.0, "jumped"),  # set to zero while it runs, 1.5 m away
        (0.3, 0.0, "jumped"),
        (1.0, 0.0, "its driver was restarted"),
        (3.0, 0.0, "its driver was restarted"),
        (1.0, 8.9, ""),  # a silence alone is none: what went on is in the odometry
        (6.0, 8.9, "silent"),
    ],
)
def test_odometry_that_begins_again_is_no_motion(away_s, back, word):
    start = 1.5 if away_s < 0.1 else 4.0
    buffer = OdometryBuffer()
    for i in range(40):
        assert not buffer.add(i * S // 20, at(start - 2 + i / 20))
    why = buffer.add(39 * S // 20 + round(away_s * S), at(back if back == 0 else start + 0.5))
    assert word in (why or "") and bool(why) == bool(word)


def test_fast_robot_has_fast_odometry_once_it_was_seen():
    """At 15 m/s all is a jump at first, for speed_m_s is 1.5; then it is the robot's own speed."""
    buffer = OdometryBuffer()
    whys = [buffer.add(i * S // 10, at(1.5 * i)) for i in range(10)]
    assert whys[1] and not any(whys[5:])
    fast = OdometryBuffer(continuity=Continuity(5.0, 90.0))
    assert not any(fast.add(i * S // 10, at(1.5 * i)) for i in range(10))


@pytest.mark.slow
def test_source_whose_errors_are_independent_is_found_to_be():
    settings_ = PoseFilterSettings()
    rng = np.random.default_rng(0)
    sigma = {}
    for name in ("alike", "independent"):
        filter_ = PoseFilter(settings_)
        error, spread = rng.normal(size=6), np.sqrt(np.diagonal(GOOD))
        for i in range(300):
            fresh = rng.normal(size=6)
            kept = 0.0 if name == "independent" else 0.95
            error = kept * error + math.sqrt(1 - kept**2) * fresh
            filter_.add_odometry(i * S // 10, at(i / 20))
            filter_.add_pose(i * S // 10, at(i / 20) @ se3.exp(spread * error), GOOD)
        sigma[name] = filter_.estimate().sigma_m
    assert sigma["independent"] < 0.8 * sigma["alike"]


def test_buffer_interpolates_and_says_where_nothing_is_known():
    buffer = OdometryBuffer()
    buffer.add(0, at())
    buffer.add(S, at(1, yaw=math.pi / 2))
    parts = list(buffer.steps(-S, 2 * S))
    assert [p.motion is None for p in parts] == [True, False, True]
    half, rest = buffer.steps(0, S // 2), buffer.steps(S // 2, S)
    whole = np.eye(4)
    for step in (*half, *rest):
        whole = whole @ se3.exp(step.motion)
    np.testing.assert_allclose(whole, at(1, yaw=math.pi / 2), atol=1e-12)
    yaw = Rotation.from_matrix(buffer.pose_at(S // 2)[:3, :3]).as_euler("zyx")[0]
    assert yaw == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("least", [5e-324, 1e-320, 1e-100])
def test_variance_that_has_no_inverse_does_no_harm(least: float) -> None:
    filter_ = PoseFilter()
    covariance = np.diag([0.01, 0.01, least, 0.01, 0.01, 0.01])
    for i in range(30):
        T = np.eye(4)
        T[0, 3] = 0.01 * i
        filter_.add_pose(10**9 + i * 10**7, T, covariance, "camera")
    estimate = filter_.estimate()
    assert estimate is not None
    assert (
        np.all(np.isfinite(estimate.covariance)) and np.linalg.eigvalsh(estimate.covariance)[0] > 0
    )


def test_variances_of_very_different_size_do_no_harm() -> None:
    """As of a source that knows one axis alone; 1e9 is the largest that Nav2 takes."""
    covariance = np.diag([1e9, 1e-12, 1e-12, 1e9, 1e-12, 1e-12])
    for seed in range(10):
        filter_ = PoseFilter(PoseFilterSettings(**AT_ONCE))
        R = np.eye(4)
        R[:3, :3] = Rotation.random(random_state=seed).as_matrix()
        for i in range(6):
            T = at(0.02 * i) @ R
            filter_.add_odometry(S + i * S // 20, T)
            filter_.add_pose(S + i * S // 20, T, covariance, "camera")
        estimate = filter_.estimate()
        assert estimate is not None and np.all(np.isfinite(estimate.covariance))


def test_two_poses_of_one_image_are_taken() -> None:
    """Sent twice, with another between: the two differ by no motion and no noise of their own."""
    filter_ = PoseFilter()
    for i in range(20):
        filter_.add_odometry(S + i * S // 20, at(0.02 * i))
        filter_.add_pose(S + i * S // 20, at(0.02 * i), GOOD, "camera")
    (outcome,) = filter_.add_pose(S + 18 * S // 20, at(0.02 * 18 + 0.01), GOOD, "camera")
    assert outcome.verdict == ACCEPTED
    assert np.linalg.eigvalsh(filter_.estimate().covariance)[0] > 0


def test_a_refused_pose_makes_no_surer_of_odometry_that_nothing_has_proven() -> None:
    filter_ = PoseFilter()
    for i in range(100):
        filter_.add_odometry(S + i * S // 20, at(0.04 * i))
        if i < 6:
            filter_.add_pose(S + i * S // 20, at(0.04 * i), GOOD)
    before = filter_.estimate()
    (outcome,) = filter_.add_pose(before.stamp_ns, before.T @ at(0.0, 3.0), GOOD)
    assert outcome.verdict == REJECTED and before.sigma_m > 0.5
    after = filter_.estimate()
    assert np.linalg.eigvalsh(after.covariance - before.covariance)[0] > -1e-9


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_covariance_is_positive_definite_whatever_comes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    filter_ = PoseFilter(PoseFilterSettings(odometry_unproven=rng.uniform(0.01, 1)))
    odometry, truth, stamp = np.eye(4), np.eye(4), S
    drive = rng.normal(size=6) * np.repeat([0.05, 0.02], 3)
    wrong = se3.exp(rng.normal(size=6) * rng.choice([0, 0.3, 3]))
    for i in range(120):
        stamp += int(rng.choice([1, S // 100, S // 20, S // 20, S // 2]))
        truth = truth @ se3.exp(drive)
        odometry = odometry @ (wrong @ se3.exp(drive * rng.choice([0, 1, 1, 1])) @ inverse(wrong))
        if rng.random() < 0.8:
            filter_.add_odometry(stamp, odometry)
        if rng.random() < 0.5 and not 40 < i < 60:
            root = rng.normal(size=(6, 6)) * 10 ** rng.uniform(-4, 0, size=(6, 1))
            C = root @ root.T + 1e-9 * np.eye(6)
            off = rng.normal(size=6) * rng.choice([0.01, 0.1, 2.0])
            late = int(rng.choice([0, 0, 0, S // 10, S // 2]))
            with contextlib.suppress(MeasurementError):
                filter_.add_pose(stamp - late, truth @ se3.exp(off), C, str(rng.integers(2)))
        estimate = filter_.estimate()
        if estimate is not None:
            scale = np.sqrt(np.diagonal(estimate.covariance))
            assert np.all(np.isfinite(estimate.covariance)) and np.all(scale > 0)
            assert np.linalg.eigvalsh(estimate.covariance / np.outer(scale, scale))[0] > 0


def test_a_probability_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="odometry_unproven"):
        PoseFilterSettings(odometry_unproven=1.5)
