"""Poses from scene coordinates: geometry by OpenCV, refusals, cameras that differ or are absent."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from robot_vision.contract.head import Material
from robot_vision.contract.topics import NO_CALIBRATION, LeftOut, Shot
from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import inverse, pose_matrix
from robot_vision.geometry.rotations import pose_error
from robot_vision.heads.coordinates.head import HEAD
from robot_vision.heads.coordinates.solving import solve
from robot_vision.heads.coordinates.spec import CoordinatesSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.messages.serialized import Stamp

LENS = (-0.2, 0.05, 0.001, -0.001, 0.0)
SPEC = CoordinatesSpec(
    (12, 16), (110.0, 108.0, 62.0, 49.0), LENS, centre=(500_000.25, -40.5, 2.0), least_inliers=0.3
)
CELLS = np.stack(
    np.meshgrid(8 * np.arange(16) + 3.5, 8 * np.arange(12) + 3.5), axis=-1
)  # in pixels of 96 x 128


def view(seed=0, lens=None, pixels=None):
    """Returns T_map_camera, and what each cell shows, from the centre; by OpenCV's own undistortion."""
    rng = np.random.default_rng(seed)
    K = SPEC.intrinsics().K if lens is None else lens.K
    distortion = np.array(LENS) if lens is None else lens.distortion
    at = (CELLS if pixels is None else pixels).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(at, K, distortion if len(distortion) else None)[:, 0]
    depth = rng.uniform(1, 4, (len(rays), 1))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rng.normal(0, 0.8, 3))[0], rng.normal(0, 2, 3)
    points = np.hstack([rays * depth, depth]) @ T[:3, :3].T + T[:3, 3]
    T[:3, 3] += SPEC.centre
    return T, points.reshape(12, 16, 3)


def off(found, T):
    """Returns metres and radians (6,) from an estimate to a pose."""
    from robot_vision.geometry.rigid import xyzw_from_matrix

    return pose_error(
        found.position[None], found.xyzw[None], T[None, :3, 3], xyzw_from_matrix(T[:3, :3])[None]
    )[0]


def test_points_that_cells_show_are_projected_to_their_centres_by_opencv():
    T, points = view()
    near = T.copy()
    near[:3, 3] -= SPEC.centre
    back = inverse(near)
    turn, K = cv2.Rodrigues(back[:3, :3])[0], SPEC.intrinsics().K
    pixels, _ = cv2.projectPoints(points.reshape(-1, 3), turn, back[:3, 3], K, np.array(LENS))
    assert np.abs(pixels[:, 0] - CELLS.reshape(-1, 2)).max() < 1e-2
    seen = (points.reshape(-1, 3) - near[:3, 3]) @ near[:3, :3]
    assert np.abs(seen[:, :2] / seen[:, 2:] - SPEC.rays().reshape(-1, 2)).max() < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_pose_is_found_among_wrong_points_far_from_the_maps_origin(seed):
    T, points = view(seed)
    rng = np.random.default_rng(seed)
    noisy = points + rng.normal(0, 0.005, points.shape)
    wrong = rng.random((12, 16)) < 0.4
    noisy[wrong] += rng.normal(0, 2, (wrong.sum(), 3))
    found = solve(noisy.astype(np.float32), np.full((12, 16), 0.01, np.float32), SPEC.rays(), SPEC)
    error = off(found, T)
    assert np.linalg.norm(error[:3]) < 0.02 and np.linalg.norm(error[3:]) < 0.01
    assert 0.5 < found.inliers < 0.75
    assert np.linalg.eigvalsh(found.covariance)[0] > 0


def test_covariance_is_true_where_cells_err_independently():
    """The mean of e^T C^-1 e is six, and the settings' factors multiply the variances."""
    rng, squares = np.random.default_rng(0), []
    for seed in range(60):
        T, points = view(seed)
        noisy = (points + rng.normal(0, 0.01, points.shape)).astype(np.float32)
        found = solve(noisy, np.full((12, 16), 0.02, np.float32), SPEC.rays(), SPEC)
        error = off(found, T)
        squares.append(error @ np.linalg.solve(found.covariance, error))
    assert 4.5 < np.mean(squares) < 8.0
    wider = replace(SPEC, position_scale=4.0, rotation_scale=9.0)
    again = solve(noisy, np.full((12, 16), 0.02, np.float32), wider.rays(), wider)
    scale = np.diagonal(again.covariance) / np.diagonal(found.covariance)
    np.testing.assert_allclose(scale, [4, 4, 4, 9, 9, 9])


def test_points_that_agree_on_nothing_are_refused_and_said():
    points = np.random.default_rng(0).normal(0, 3, (1, 3, 12, 16)).astype(np.float32)
    outputs = {"scene_points": points, "scene_deviation": np.ones((1, 12, 16), np.float32)}
    (answer,) = HEAD.decoder(SPEC, None, Material())(outputs)
    assert answer.is_refused and answer.inliers < SPEC.least_inliers
    assert HEAD.cell(answer, SPEC, None).startswith("few inliers")
    assert HEAD.json(answer, SPEC, None, None)["refused"] is True
    left = HEAD.published(answer, shot(), SPEC, None)
    assert isinstance(left, LeftOut) and left.reason == "few_inliers" and "30%" in left.text


def shot(lens=None, size=(96, 128)):
    """Returns an image that was squashed to the network's input."""
    given = SPEC.intrinsics() if lens is None else lens
    window = Window.of(size, InputSpec(96, 128))
    return Shot(Stamp(1, 2), "optical", "front", window=window, intrinsics=lambda: given)


def decoded(points):
    outputs = {
        "scene_points": points.transpose(2, 0, 1)[None].astype(np.float32),
        "scene_deviation": np.full((1, 12, 16), 0.01, np.float32),
    }
    return HEAD.decoder(SPEC, None, Material())(outputs)[0]


def test_another_camera_on_the_robot_gets_its_own_pose():
    """Its pixels are four times as many, its lens is longer and does not distort."""
    K = np.array([[500.0, 0, 250], [0, 500, 200], [0, 0, 1]])
    lens = Intrinsics.of_matrix(K, 512, 384)
    T, points = view(3, lens, 4 * (CELLS + 0.5) - 0.5)
    answer = decoded(points)
    pose = HEAD.published(answer, shot(lens, (384, 512)), SPEC, None)
    assert np.abs(pose.position - T[:3, 3]).max() < 1e-3
    assert answer.is_refused or np.abs(answer.position - T[:3, 3]).max() > 0.05
    T, points = view(4)
    same = decoded(points)
    assert HEAD.published(same, shot(), SPEC, None) is same


def test_without_calibration_there_is_no_pose_and_the_reason_is_said():
    _, points = view()
    answer = decoded(points)
    bad = LeftOut("bad_camera_info", "its K is all zeros")
    for left in (NO_CALIBRATION, bad):
        blind = replace(shot(), intrinsics=lambda left=left: left)
        assert HEAD.published(answer, blind, SPEC, None) is left
    unknown = HEAD.published(answer, replace(shot(), window=None), SPEC, None)
    assert isinstance(unknown, LeftOut) and unknown.reason == "no_image_size"


def test_pose_of_the_base_follows_from_the_mounting():
    T, points = view()
    answer = decoded(points)
    mounted = replace(shot(), base_frame="base_link")
    assert HEAD.published(answer, mounted, SPEC, None).reason == "no_transform"
    mounting = np.eye(4)
    mounting[:3, 3] = 0.1, 0.2, 0.3
    pose = HEAD.published(answer, replace(mounted, mounting=lambda frame: mounting), SPEC, None)
    expected = T @ inverse(mounting)
    found = pose_matrix(pose.position, pose.orientation_xyzw)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera": (0.0, 0.0, 64.0, 48.0)}, "camera"),
        ({"camera": (110.0, 108.0, 640.0, 49.0)}, "centre"),
        ({"camera": (110.0,)}, "fx, fy, cx, cy"),
        ({"distortion": (float("nan"),) * 5}, "istortion"),
        ({"size": (1, 16)}, "rows and columns"),
        ({"centre": (float("inf"), 0.0, 0.0)}, "centre"),
        ({"least_inliers": 0.0}, "least_inliers"),
        ({"lens": "wide"}, "distortion model"),
    ],
)
def test_settings_that_no_camera_has_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SPEC, **changes)
