"""Geometry against SciPy, and the covariance's lever arm against Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot_vision.geometry import rigid as geometry

angles = st.floats(-np.pi, np.pi)
rotvecs = st.tuples(angles, angles, angles).map(np.array)


@given(rotvecs)
def test_matrix_from_xyzw_agrees_with_scipy(rotvec):
    rotation = Rotation.from_rotvec(rotvec)
    np.testing.assert_allclose(
        geometry.matrix_from_xyzw(rotation.as_quat()), rotation.as_matrix(), atol=1e-12
    )


def test_one_quaternion_is_computed_as_many_are():
    """One is computed with plain numbers, since a node publishes one pose an image."""
    q = np.random.default_rng(0).normal(size=(200, 4)) * np.geomspace(1e-3, 1e3, 200)[:, None]
    for of in (geometry.canonical_xyzw, geometry.matrix_from_xyzw):
        np.testing.assert_array_equal(np.array([of(one) for one in q]), of(q))
    for bad in (np.zeros(4), np.array([0, np.nan, 0, 1]), np.array([np.inf, 0, 0, 1])):
        for shape in ((4,), (1, 4)):
            with pytest.raises(ValueError, match="has no direction"):
                geometry.canonical_xyzw(bad.reshape(shape))


@given(rotvecs)
def test_xyzw_from_matrix_agrees_with_scipy(rotvec):
    rotation = Rotation.from_rotvec(rotvec)
    actual = geometry.xyzw_from_matrix(rotation.as_matrix())
    expected = rotation.as_quat()
    assert actual[3] >= 0
    np.testing.assert_allclose(abs(actual @ expected), 1.0, atol=1e-12)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
def test_xyzw_from_matrix_keeps_precision_at_half_turns(axis):
    rotation = Rotation.from_rotvec(np.pi * np.array(axis) / np.linalg.norm(axis))
    actual = geometry.matrix_from_xyzw(geometry.xyzw_from_matrix(rotation.as_matrix()))
    np.testing.assert_allclose(actual, rotation.as_matrix(), atol=1e-12)


@given(st.tuples(angles, angles, angles).map(np.array))
def test_matrix_from_rpy_agrees_with_scipy(rpy):
    expected = Rotation.from_euler("xyz", rpy).as_matrix()  # lower case: fixed axes
    np.testing.assert_allclose(geometry.matrix_from_rpy(rpy), expected, atol=1e-12)


@given(rotvecs, rotvecs, st.sampled_from([-1, 1]))
def test_rotation_error_agrees_with_scipy_whatever_the_sign(a, b, sign):
    ra, rb = Rotation.from_rotvec(a), Rotation.from_rotvec(b)
    expected = np.degrees((ra.inv() * rb).magnitude())
    actual = geometry.rotation_error_deg(sign * ra.as_quat(), rb.as_quat())
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_rotation_error_of_a_tiny_angle_is_precise():
    q = Rotation.from_rotvec([1e-9, 0, 0]).as_quat()
    np.testing.assert_allclose(
        geometry.rotation_error_deg(q, [0, 0, 0, 1]), np.degrees(1e-9), rtol=1e-6
    )


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
def test_canonical_xyzw_refuses_what_has_no_direction(bad):
    with pytest.raises(ValueError, match="no direction"):
        geometry.canonical_xyzw(np.array(bad))


@given(rotvecs, st.integers(0, 1000))
def test_orthonormalised_finds_the_rotation_under_rounding(rotvec, seed):
    exact = Rotation.from_rotvec(rotvec).as_matrix()
    noisy = exact + np.random.default_rng(seed).normal(scale=4e-4, size=(3, 3))
    actual = geometry.orthonormalised(noisy)
    np.testing.assert_allclose(actual @ actual.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(actual), 1.0)
    np.testing.assert_allclose(actual, exact, atol=3e-3)


@pytest.mark.parametrize("bad", [np.diag([1, 1, -1]), np.eye(3) * 2, np.full((3, 3), np.nan)])
def test_orthonormalised_refuses_what_is_no_rotation(bad):
    with pytest.raises(ValueError, match="matrix"):
        geometry.orthonormalised(bad)


@given(rotvecs, st.tuples(angles, angles, angles).map(np.array))
def test_inverse_undoes_a_pose(rotvec, position):
    pose = geometry.pose_matrix(position, Rotation.from_rotvec(rotvec).as_quat())
    np.testing.assert_allclose(geometry.inverse(pose) @ pose, np.eye(4), atol=1e-12)


@pytest.mark.slow
@settings(max_examples=5)
@given(rotvecs, st.integers(0, 100))
def test_compose_with_covariance_agrees_with_monte_carlo(rotvec, seed):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(6, 6)) * 0.01
    covariance = factor @ factor.T
    T_map_a = geometry.pose_matrix(rng.normal(size=3), Rotation.from_rotvec(rotvec).as_quat())
    T_a_b = geometry.pose_matrix([0.3, -1.0, 2.0], Rotation.from_rotvec([0.1, 0.2, 0.3]).as_quat())

    mean, predicted = geometry.compose_with_covariance(T_map_a, covariance, T_a_b)

    samples = rng.multivariate_normal(np.zeros(6), covariance, size=200_000)
    turns = Rotation.from_rotvec(samples[:, 3:])
    arm = T_map_a[:3, :3] @ T_a_b[:3, 3]
    positions = samples[:, :3] + T_map_a[:3, 3] + turns.apply(arm)
    errors = np.hstack([positions - mean[:3, 3], samples[:, 3:]])
    np.testing.assert_allclose(np.cov(errors.T), predicted, atol=0.02 * np.abs(predicted).max())
    np.testing.assert_allclose(mean, T_map_a @ T_a_b)
