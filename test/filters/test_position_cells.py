"""Cells in the pose filter: against Bayes' rule on a grid, and robots carried away or without poses."""

from __future__ import annotations

from array import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

from benchmarks.belief import believe, events
from benchmarks.belief_world import FAULT_S, S, Source, make_drive
from benchmarks.cells import misled_s
from robot_vision.errors import MeasurementError
from robot_vision.filters.odometry import OdometryNoise
from robot_vision.filters.pose_filter import (
    CELLS_AGAINST,
    CELLS_EARLY,
    CELLS_ELSEWHERE,
    CELLS_USED,
    CONTRADICTED,
    LOCALISED,
    WAITING,
    PoseFilter,
    PoseFilterSettings,
)
from robot_vision.filters.position_cells import WRONG, PositionCells
from robot_vision.messages.clouds import MOST_CELLS, checked_cells
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors

NOISE = OdometryNoise(0.1, 2.0, 2.0, 0.02, 0.2)
GOOD = np.diag([0.01, 0.01, 0.01, 1e-3, 1e-3, 1e-3])


def squares(low, high, side):
    """Returns the corners (K, 4) of a floor of squares."""
    steps = np.arange(low, high, side)
    x, y = (a.reshape(-1) for a in np.meshgrid(steps, steps))
    return np.stack([x, y, x + side, y + side], axis=1)


def answer(corners, *peaks, rest=0.05):
    """Returns cells whose probability lies at points (x, y, share), and the rest anywhere."""
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    p = np.full(len(corners), rest / len(corners))
    for x, y, share in peaks:
        near = np.exp(-0.5 * ((middle - [x, y]) ** 2).sum(axis=1) / 0.5**2)
        p += (1 - rest) * share * near / near.sum()
    return PositionCells(corners, p / p.sum(), (0, 1))


def at(x=0.0, y=0.0, yaw=0.0):
    T = np.eye(4)
    T[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    T[:2, 3] = x, y
    return T


@pytest.mark.parametrize(
    ("mean", "covariance", "share"),
    [
        ((2.1, 1.9), [[0.3, 0.1], [0.1, 0.2]], 1.0),  # about a peak
        ((2.1, 1.9), [[0.3, 0.1], [0.1, 0.2]], 0.3),
        ((4.0, 2.2), [[2.0, -0.5], [-0.5, 1.0]], 1.0),  # over both
        ((3.5, 3.5), [[0.01, 0.0], [0.0, 0.01]], 1.0),  # in the middle of a cell
    ],
)
def test_a_belief_becomes_the_moments_of_bayes_rule(mean, covariance, share):
    """The oracle divides the plane into centimetres; SciPy blurs it by a quarter of a cell."""
    corners, m, V = squares(0, 8, 1.0), np.array(mean), np.array(covariance)
    cells = answer(corners, (2.5, 2.5, 0.6), (5.5, 2.5, 0.4))
    x, y = np.meshgrid(np.arange(0.005, 8, 0.02), np.arange(0.005, 8, 0.02))
    points = np.stack([x.reshape(-1), y.reshape(-1)], axis=1)
    p = cells.probabilities[(points[:, 1] // 1 * 8 + points[:, 0] // 1).astype(int)]
    p = gaussian_filter(p.reshape(x.shape), 0.25 / 0.02, mode="nearest").reshape(-1)
    L = (1 - WRONG) * len(corners) * p + WRONG
    prior = multivariate_normal(m, V).pdf(points)
    posterior = prior * L**share
    posterior /= posterior.sum()
    expected = posterior @ points
    spread = (points - expected).T * posterior @ (points - expected)
    agreement, found, rest = cells.weighed(m, V, share)
    sigma = np.sqrt(np.trace(V))
    assert agreement == pytest.approx(prior @ L / prior.sum(), rel=0.15)
    np.testing.assert_allclose(found, expected, atol=0.12 * sigma)
    np.testing.assert_allclose(rest, spread, atol=0.15 * np.trace(V))


def test_an_answer_that_knows_nothing_changes_nothing():
    corners = squares(0, 8, 1.0)
    cells = PositionCells(corners, np.full(64, 1 / 64), (0, 1))
    V = np.array([[0.5, 0.2], [0.2, 0.3]])
    agreement, mean, rest = cells.weighed(np.array([3.3, 4.0]), V, 1.0)
    assert agreement == pytest.approx(1)
    np.testing.assert_allclose(mean, [3.3, 4.0], atol=1e-9)
    np.testing.assert_allclose(rest, V, rtol=1e-6)


def started(poses=8):
    """Returns a filter that is localised at the origin, and the stamp of its last pose."""
    filter_ = PoseFilter()
    for i in range(1, poses + 1):
        filter_.add_odometry(i * S // 10, at())
        filter_.add_pose(i * S // 10, at(), GOOD, "network")
    assert filter_.condition() == LOCALISED
    return filter_, poses * S // 10


def test_cells_alone_start_nothing():
    filter_ = PoseFilter()
    for i in range(1, 40):
        filter_.add_odometry(i * S // 10, at())
        (outcome,) = filter_.add_cells(i * S // 10, answer(squares(-4, 4, 0.5), (0, 0, 1.0)))
        assert outcome.verdict == CELLS_EARLY
    assert filter_.condition() == WAITING and filter_.estimate() is None


def test_cells_contradict_a_robot_that_stands_elsewhere_and_agree_again():
    filter_, now = started()
    corners = squares(-8, 8, 0.5)
    conditions = []
    for _ in range(8):
        now += S // 10
        filter_.add_odometry(now, at())
        (outcome,) = filter_.add_cells(now, answer(corners, (5, 5, 1.0)))
        assert outcome.verdict == CELLS_AGAINST
        conditions.append(filter_.condition())
    np.testing.assert_allclose(filter_.estimate().position, 0, atol=0.05)  # drawn nowhere
    assert conditions[:2] == [LOCALISED] * 2 and conditions[-1] == CONTRADICTED
    now += S // 10
    filter_.add_odometry(now, at())
    (outcome,) = filter_.add_cells(now, answer(corners, (0, 0, 1.0)))
    assert outcome.verdict == CELLS_USED and filter_.condition() == LOCALISED


def test_a_twin_neither_draws_nor_contradicts():
    """Two rooms that look alike: most of the probability lies in the other."""
    filter_, now = started()
    for _ in range(20):
        now += S // 10
        filter_.add_odometry(now, at())
        twins = answer(squares(-8, 8, 0.5), (0, 0, 0.3), (5, 0, 0.7))
        (outcome,) = filter_.add_cells(now, twins)
        assert outcome.verdict == CELLS_USED and filter_.condition() == LOCALISED
    np.testing.assert_allclose(filter_.estimate().position, 0, atol=0.1)


def test_where_there_are_no_cells_they_say_nothing():
    filter_, now = started()
    for _ in range(10):
        now += S // 10
        (outcome,) = filter_.add_cells(now, answer(squares(20, 24, 0.5), (22, 22, 1.0)))
        assert outcome.verdict in (CELLS_ELSEWHERE, "pending")
        filter_.add_odometry(now, at())
    assert filter_.condition() == LOCALISED


def test_cells_are_of_the_camera():
    """A camera half a metre ahead of the robot, which looks along y."""
    filter_ = PoseFilter()
    for i in range(1, 9):
        filter_.add_odometry(i * S // 10, at())
        wide = np.diag([1.0, 1.0, 0.01, 1e-4, 1e-4, 1e-4])
        filter_.add_pose(i * S // 10, at(0.3, 0.2, np.pi / 2), wide, "network")
    cells = answer(squares(-4, 4, 0.25), (0.0, 0.5, 1.0), rest=0.01)
    filter_.add_cells(8 * S // 10, cells, "cells", np.array([0.5, 0, 0]))
    np.testing.assert_allclose(filter_.estimate().position[:2], [0, 0], atol=0.15)


def test_a_late_answer_is_put_in_its_place():
    found = []
    for late in (False, True):
        filter_, now = started()
        events = []
        for i in range(1, 10):
            stamp = now + i * S // 10
            events.append((stamp + (3 * S // 10 if late else 0), 1, stamp))
            events.append((stamp, 0, stamp))
        for _, cells, stamp in sorted(events):
            x = 0.05 * (stamp - now) / (S // 10)
            if cells:
                filter_.add_cells(stamp, answer(squares(-4, 4, 0.5), (x + 0.3, 0.2, 1.0)), "c")
            else:
                filter_.add_odometry(stamp, at(x))
        assert filter_.replays == 0  # cells alone: none overtakes another
        found.append(filter_.estimate())
    np.testing.assert_allclose(found[0].T, found[1].T, atol=1e-9)
    np.testing.assert_allclose(found[0].covariance, found[1].covariance, atol=1e-9)


# Robots that drive


def drive_with(seed, fault, poses, errors=None):
    """Returns a drive of which some poses are known, without and with cells of 1 m that err by 0.4 m."""
    drive = make_drive(seed, fault, (Source(outliers=0.0),), errors, seconds=26)
    rng = np.random.default_rng(seed)
    corners, error, said = squares(-20, 20, 1.0), rng.normal(size=2), []
    for stamp in drive.stamps_ns[::3].tolist():
        error = 0.7 * error + np.sqrt(1 - 0.7**2) * rng.normal(size=2)
        x, y = drive.true_at(stamp)[:2, 3] + 0.4 * error
        said.append((stamp, answer(corners, (x, y, 1.0))))
    thin = replace(drive, poses=drive.poses[:10] + drive.poses[poses])
    return thin, replace(thin, cells=said)


def off_in_the_plane(drive):
    """Returns the errors (N,) of the position in the cells' plane over the last five seconds."""
    filter_, errors = PoseFilter(PoseFilterSettings(noise=NOISE)), []
    for stamp, method, values in events(drive):
        getattr(filter_, method)(stamp, *values)
        if stamp > drive.stamps_ns[-1] - 5 * S:
            error = filter_.estimate(stamp).position - drive.true_at(stamp)[:3, 3]
            errors.append(np.linalg.norm(error[:2]))
    return np.array(errors)


@pytest.mark.slow
def test_carried_away_it_stops_sooner_and_is_found_sooner_with_cells():
    """Poses every two seconds, the first one 1.5 s after the robot was carried away, at 15 s."""
    misled, found = [0.0, 0.0], [0, 0]
    for seed in (1, 2):
        for i, drive in enumerate(drive_with(seed, "kidnapped", slice(15, None, 20))):
            belief = believe(drive)
            misled[i] += misled_s(belief)
            late = belief.seconds > FAULT_S + 7
            found[i] += bool(belief.localised[late].all() and (belief.error_m[late] < 1).all())
    assert misled[1] < 0.6 * misled[0]
    assert found == [0, 2]


@pytest.mark.slow
def test_cells_hold_a_robot_whose_poses_have_ended():
    """Odometry alone drifts, as much as the filter assumes; with cells the error stays within a cell."""
    drives = [drive_with(seed, "none", slice(0, 0), OdometryErrors(NOISE)) for seed in (5, 6)]
    alone, held = (
        np.concatenate([off_in_the_plane(drive) for drive in kind])
        for kind in zip(*drives, strict=True)
    )
    assert np.median(held) < 0.6 * np.median(alone)
    assert np.quantile(held, 0.9) < 0.8


# Messages


def cloud(points, names="x y z size probability", **changes):
    """Returns a PointCloud2 of float32 points (N, F)."""
    values = np.asarray(points, "<f4")
    fields = [
        SimpleNamespace(name=name, offset=4 * i, datatype=7) for i, name in enumerate(names.split())
    ]
    message = SimpleNamespace(
        fields=fields,
        point_step=4 * values.shape[1],
        is_bigendian=False,
        data=array("B", values.tobytes()),
    )
    vars(message).update(changes)
    return message


FLOOR = [[0.25, 0.25, 0, 0.5, 0.5], [0.75, 0.25, 0, 0.5, 0.5]]


def test_a_cloud_gives_corners_probabilities_and_the_plane():
    corners, p, axes = checked_cells(cloud(FLOOR))
    np.testing.assert_allclose(corners, [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]])
    assert p.tolist() == [0.5, 0.5] and axes == (0, 1)
    wall = [[x, 0, y, s, p] for x, y, _, s, p in FLOOR]
    assert checked_cells(cloud(wall))[2] == (0, 2)
    big = cloud(FLOOR, is_bigendian=True, data=array("B", np.array(FLOOR, ">f4").tobytes()))
    np.testing.assert_array_equal(checked_cells(big)[0], corners)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (cloud(np.zeros((0, 5))), "0 cells"),
        (cloud(np.zeros((MOST_CELLS + 1, 5))), f"at most {MOST_CELLS}"),
        (cloud(np.array(FLOOR) * [1, 1, 1, 1, 3]), "sum to 3"),
        (cloud(np.array(FLOOR) * [1, 1, 1, 1, np.nan]), "not finite"),
        (cloud(np.array(FLOOR) * [np.inf, 1, 1, 1, 1]), "not finite"),
        (cloud([[1, 1, 0, 1, 1.5], [2, 1, 0, 1, -0.5]]), "at least 0"),
        (cloud(np.array(FLOOR) * [1, 1, 1, 0, 1]), "its size is 0"),
        (cloud(np.array(FLOOR) * [1e9, 1, 1, 1, 1]), "within"),
        (cloud(np.array(FLOOR) + [0, 0, 1, 0, 0]), "one plane"),
        (cloud(np.array(FLOOR) * [1, 0, 1, 1, 1]), "one plane"),
        (cloud(FLOOR, "x y z size share"), "no x y z size probability"),
        (cloud(FLOOR, point_step=16), "16 bytes"),
        (cloud(FLOOR, point_step=0), "0 bytes"),
        (cloud(FLOOR, data=array("B", b"1234")), "0 cells"),
    ],
)
def test_hostile_clouds_are_refused(message, words):
    with pytest.raises(MeasurementError, match=words):
        checked_cells(message)
