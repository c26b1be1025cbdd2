"""Poses by time, transforms by time, and where the odometry's origin lies in the map."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from robot_vision.geometry.pose_buffer import PoseBuffer
from robot_vision.ros.places.anchor import CONFLICTS, Anchor, difference, moved
from robot_vision.ros.places.tf import MovingTransforms

S = 1_000_000_000


def random_pose(rng, scale=5.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
    T[:3, 3] = rng.uniform(-scale, scale, 3)
    return T


def add(buffer, stamp_ns, T):
    return buffer.add(stamp_ns, T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat())


# Poses by time


def test_pose_between_two_stamps_is_that_of_scipys_slerp():
    rng = np.random.default_rng(0)
    poses = [random_pose(rng) for _ in range(6)]
    buffer = PoseBuffer()
    for i, T in enumerate(poses):
        assert add(buffer, i * S // 10, T)
    slerp = Slerp(np.arange(6) * 0.1, Rotation.from_matrix([T[:3, :3] for T in poses]))
    for t in rng.uniform(0, 0.5, 40):
        found, _ = buffer.at(int(t * S), 0.1)
        i = int(t * 10)
        share = t * 10 - i
        position = (1 - share) * poses[i][:3, 3] + share * poses[i + 1][:3, 3]
        np.testing.assert_allclose(found[:3, 3], position, atol=1e-6)
        np.testing.assert_allclose(found[:3, :3], slerp(t).as_matrix(), atol=1e-6)


def test_nothing_is_made_up_across_a_gap_or_beyond_the_ends():
    buffer, T = PoseBuffer(), np.eye(4)
    for stamp in (0, S // 10, 5 * S):
        add(buffer, stamp, T)
    assert buffer.at(2 * S, 0.1) is None  # odometry stopped here
    assert buffer.at(S // 10 + S // 20, 0.1) is not None  # just after: the last one counts
    assert buffer.at(5 * S + S // 20, 0.1) is not None
    assert buffer.at(5 * S + S // 5, 0.1) is None
    assert buffer.at(-S, 0.1) is None
    assert PoseBuffer().at(0, 1.0) is None


@pytest.mark.parametrize("rate_hz", [4, 2, 1])
def test_slow_transform_is_interpolated_as_tf2_does(rate_hz):
    """A localiser corrects map to odom a few times a second; the images come at 30 Hz."""

    def message(stamp_ns, parent, child, x):
        header = SimpleNamespace(
            frame_id=parent, stamp=SimpleNamespace(sec=stamp_ns // S, nanosec=stamp_ns % S)
        )
        translation = SimpleNamespace(x=x, y=0.0, z=0.0)
        rotation = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        transform = SimpleNamespace(translation=translation, rotation=rotation)
        one = SimpleNamespace(header=header, child_frame_id=child, transform=transform)
        return SimpleNamespace(transforms=[one])

    def refuse(text):
        raise AssertionError(text)

    tree, located, live = MovingTransforms(), 0, 0
    images = [100 * S + i * S // 30 for i in range(300)]
    slow = [100 * S + i * S // rate_hz for i in range(10 * rate_hz + 1)]
    events = [(stamp, 0) for stamp in slow] + [(stamp, 1) for stamp in images]
    for stamp, kind in sorted(events):
        seconds = stamp / S - 100
        if kind == 0:
            tree.add_message(message(stamp, "map", "odom", 0.01 * seconds), False, refuse)
            continue
        tree.add_message(message(stamp, "odom", "base", seconds), False, refuse)
        found = tree.lookup_at("map", "base", stamp, 0.1)  # at once, as the newest comes later
        live += found is not None and abs(found[0, 3] - 1.01 * seconds) < 0.03
    for stamp in images:
        found = tree.lookup_at("map", "base", stamp, 0.1)
        located += found is not None and abs(found[0, 3] - 1.01 * (stamp / S - 100)) < 1e-6
    assert located == 300
    assert live >= 300 - 30 / rate_hz  # until the second transform says how often they come
    # What stopped is not carried on, and the reason is told.
    assert tree.lookup_at("map", "base", 115 * S, 0.1) is None
    why = tree.why("map", "base", 115 * S, 0.1)
    assert "of 'base' in 'odom': its newest is 5.0" in why and "comes every 0.03 s" in why
    assert "nothing joins 'base' and 'other'" in tree.why("other", "base", 100 * S, 0.1)


def test_slow_pose_of_what_moves_is_not_carried_on():
    """Odometry at 1 Hz of a robot at 1 m/s would be up to 1 m old."""
    buffer = PoseBuffer()
    for i in range(6):
        T = np.eye(4)
        T[0, 3] = i
        add(buffer, i * S, T)
    assert buffer.at(5 * S + S // 2, 0.1) is None
    assert "its newest is 0.50 s older than the image, and comes every 1.00 s" in buffer.why(
        5 * S + S // 2
    )
    assert buffer.at(4 * S + S // 2, 0.1)[0][0, 3] == pytest.approx(4.5)


def test_clock_that_goes_back_empties_the_buffer():
    buffer = PoseBuffer()
    for stamp in (10 * S, 11 * S):
        assert add(buffer, stamp, np.eye(4))
    assert not add(buffer, S, np.eye(4))
    assert buffer.newest_ns == S and buffer.at(10 * S, 0.5) is None


def test_pose_that_is_a_little_late_is_left_out_and_nothing_is_forgotten():
    buffer = PoseBuffer()
    for stamp in (10 * S, 11 * S):
        add(buffer, stamp, np.eye(4))
    assert add(buffer, 11 * S - S // 100, np.eye(4))  # of a second publisher
    assert buffer.newest_ns == 11 * S and buffer.at(10 * S, 0.5) is not None


def test_two_publishers_of_one_transform_are_no_clock_that_goes_back():
    tree = MovingTransforms()
    zero = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    for i in range(20):
        for late in (0, S // 200):
            stamp = SimpleNamespace(sec=100, nanosec=i * S // 50 + S // 10 - late)
            edge = SimpleNamespace(
                header=SimpleNamespace(frame_id="base_link", stamp=stamp),
                child_frame_id="wheel",
                transform=SimpleNamespace(translation=zero, rotation=zero),
            )
            tree.add_message(SimpleNamespace(transforms=[edge]), False, pytest.fail)
    assert tree.stamps_back == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pose_that_is_not_finite_is_refused(bad):
    buffer = PoseBuffer()
    with pytest.raises(ValueError, match="finite"):
        buffer.add(0, (bad, 0, 0), (0, 0, 0, 1))
    with pytest.raises(ValueError, match="direction"):
        buffer.add(0, (0, 0, 0), (0, 0, 0, 0))
    assert buffer.newest_ns is None


@pytest.mark.slow
def test_memory_is_bounded_at_any_rate():
    buffer = PoseBuffer(length_s=1.0)
    for i in range(30_000):
        buffer.add(i * 1_000_000, (i, 0, 0), (0, 0, 0, 1))
    assert len(buffer._stamps) <= 2002
    assert buffer.at(29_999 * 1_000_000, 0.1)[0][0, 3] == 29_999


def test_waiting_ends_when_the_pose_comes_and_not_much_later_than_the_limit():
    buffer = PoseBuffer()
    threading.Timer(0.1, lambda: add(buffer, S, np.eye(4))).start()
    start = time.monotonic()
    buffer.wait(S, 5.0)
    assert time.monotonic() - start < 2
    buffer.wait(2 * S, 0.05)
    assert buffer.newest_ns == S


# Transforms by time


def tf(parent, child, stamp_ns, T):
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    sec, nanosec = divmod(stamp_ns, S)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=T[0, 3], y=T[1, 3], z=T[2, 3]),
            rotation=SimpleNamespace(x=q[0], y=q[1], z=q[2], w=q[3]),
        ),
    )


def message(*transforms):
    return SimpleNamespace(transforms=transforms)


def test_chain_of_moving_and_fixed_transforms_is_their_product():
    rng = np.random.default_rng(1)
    map_odom, odom_base, base_camera, base_lidar = (random_pose(rng) for _ in range(4))
    tree = MovingTransforms()
    tree.add_message(
        message(tf("/base", "camera", 0, base_camera), tf("base", "lidar", 0, base_lidar)),
        True,
        pytest.fail,
    )
    tree.add_message(message(tf("map", "odom", 4 * S, map_odom)), False, pytest.fail)
    tree.add_message(message(tf("odom", "base", 4 * S, odom_base)), False, pytest.fail)
    found = tree.lookup_at("map", "camera", 4 * S, 0.1)
    np.testing.assert_allclose(found, map_odom @ odom_base @ base_camera, atol=1e-9)
    sideways = tree.lookup_at("lidar", "camera", 0, 0.1)  # joined below what moves
    np.testing.assert_allclose(sideways, np.linalg.inv(base_lidar) @ base_camera, atol=1e-9)
    assert tree.lookup_at("map", "camera", 6 * S, 0.1) is None  # nothing of that time
    assert tree.lookup_at("map", "gripper", 4 * S, 0.1) is None


def test_loop_of_transforms_and_numbers_that_are_not_finite_do_no_harm():
    tree = MovingTransforms()
    tree.add_message(
        message(tf("a", "b", S, np.eye(4)), tf("b", "a", S, np.eye(4))), False, pytest.fail
    )
    assert tree.lookup_at("x", "a", S, 0.1) is None
    broken = np.eye(4)
    broken[0, 3] = np.nan
    refused = []
    tree.add_message(message(tf("map", "base", S, broken)), False, refused.append)
    assert len(refused) == 1 and "'map' to 'base'" in refused[0]
    assert tree.lookup_at("map", "base", S, 0.1) is None


def test_lookup_waits_for_the_transform_of_the_image():
    tree = MovingTransforms()
    tree.add_message(message(tf("map", "base", S, np.eye(4))), False, pytest.fail)
    later = message(tf("map", "base", 2 * S, np.eye(4)))
    threading.Timer(0.1, lambda: tree.add_message(later, False, pytest.fail)).start()
    assert tree.wait("map", "base", 2 * S, 0.0, 5.0) is not None
    assert tree.wait("map", "base", 9 * S, 0.0, 0.05) is None


# The odometry's origin


@settings(max_examples=50)
@given(st.integers(0, 1 << 30), st.floats(1e-9, 3.14159265))
def test_difference_and_moved_are_inverse(seed, angle):
    rng = np.random.default_rng(seed)
    a = random_pose(rng)
    axis = rng.normal(size=3)
    error = np.concatenate([rng.normal(size=3), angle * axis / np.linalg.norm(axis)])
    turned = moved(a, error)
    expected = Rotation.from_rotvec(error[3:]).as_matrix() @ a[:3, :3]
    np.testing.assert_allclose(turned[:3, :3], expected, atol=1e-9)
    back = moved(a, difference(turned, a))
    np.testing.assert_allclose(back, turned, atol=1e-6)


@pytest.mark.slow
def test_origin_gets_better_with_every_match_than_the_first_alone():
    rng = np.random.default_rng(2)
    truth, covariance = random_pose(rng, 20), np.diag([0.04] * 3 + [0.0025] * 3)
    first, last = [], []
    for _ in range(30):
        anchor = Anchor()
        for i in range(25):
            T_odom_camera = random_pose(rng, 3)
            noise = rng.multivariate_normal(np.zeros(6), covariance)
            seen = moved(truth @ T_odom_camera, noise)
            assert anchor.match(seen, covariance, T_odom_camera) or i  # at most a rare outlier
            error = np.linalg.norm(
                (anchor.T_map_odom @ T_odom_camera)[:3, 3] - (truth @ T_odom_camera)[:3, 3]
            )
            if i == 0:
                first.append(error)
        last.append(error)
    assert np.median(last) < 0.75 * np.median(first)


def test_standing_still_makes_the_origin_hardly_surer():
    anchor, off, covariance = Anchor(), np.eye(4), np.diag([0.25**2] * 3 + [0.1**2] * 3)
    off[0, 3] = 0.25  # the nearest keyframe is so far away, in each view
    for _ in range(300):
        assert anchor.match(off, covariance, np.eye(4))
    T, P = anchor.camera(np.eye(4))
    assert np.sqrt(P[0, 0]) > 0.2 and T[0, 3] == pytest.approx(0.25)
    there = np.eye(4)
    there[0, 3] = 10.0  # where a right match says so, it counts as much as the first
    anchor.match(there, covariance, there)
    assert anchor.camera(there)[0][0, 3] == pytest.approx(10.125, abs=0.02)


def test_one_wrong_match_is_refused_and_a_carried_robot_is_found_again():
    rng = np.random.default_rng(3)
    covariance = np.diag([0.01] * 3 + [0.001] * 3)
    anchor, here, elsewhere = Anchor(), random_pose(rng), random_pose(rng)
    for _ in range(5):
        assert anchor.match(here, covariance, np.eye(4))
    assert not anchor.match(elsewhere, covariance, np.eye(4))
    np.testing.assert_allclose(anchor.T_map_odom, here, atol=1e-6)
    assert anchor.match(here, covariance, np.eye(4))
    answers = [anchor.match(elsewhere, covariance, np.eye(4)) for _ in range(CONFLICTS)]
    assert answers == [False] * (CONFLICTS - 1) + [True]
    np.testing.assert_allclose(anchor.T_map_odom, elsewhere, atol=1e-6)


def test_uncertainty_grows_with_the_way_driven():
    anchor = Anchor()
    anchor.set(np.eye(4))
    far = np.eye(4)
    _, start = anchor.camera(np.eye(4))
    far[0, 3] = 100.0
    _, end = anchor.camera(far)
    assert np.trace(start) == 0 and np.sqrt(end[0, 0]) == pytest.approx(0.2, rel=0.01)
