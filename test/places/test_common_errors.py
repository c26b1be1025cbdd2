"""How far features of one image err together, as a map's own keyframes tell."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.common_errors import CommonErrors, common_covariance
from robot_vision.places.verification.features import LocalFeatures
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.places.verification.verifier import VerificationCandidate, Verifier
from robot_vision.simulation.drive import drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

FIT = np.diag([0.004**2] * 3 + [0.002**2] * 3)
DISTANCE = 3.0


def pose(x: float) -> NDArray[np.float64]:
    T = np.eye(4)
    T[0, 3] = x
    return T


def located(share: float, count: int, seed: int = 0) -> CommonErrors:
    """Returns keyframes that err by a fit's covariance and a share of what neighbours show of a Kinect's."""
    rng, found = np.random.default_rng(seed), CommonErrors(VerificationOptions())
    truth = pose(0.3)
    arm = np.eye(6)
    arm[1, 5], arm[2, 4] = 0.3, -0.3  # a turn about z moves a camera at x along y
    of_map = arm @ np.diag([0.015**2] * 3 + [np.radians(0.45) ** 2] * 3) @ arm.T
    common = of_map + common_covariance(truth, FIT, DISTANCE)
    root = np.linalg.cholesky(FIT + share / 4 * common)
    for _ in range(count):
        error = root @ rng.normal(size=6)
        T = truth.copy()
        T[:3, 3] += error[:3]
        T[:3, :3] = cv2.Rodrigues(error[3:])[0]
        found.add(truth, T, FIT, DISTANCE)
    return found


@pytest.mark.parametrize("share", [0.0, 0.16, 0.48, 1.0])
def test_share_of_common_errors_is_the_one_that_they_were_drawn_with(share: float) -> None:
    assert located(share, 200).common_share == pytest.approx(share, abs=0.25 * share + 0.02)


def test_larger_errors_than_a_kinect_s_and_too_few_keyframes_count_as_a_kinect_s() -> None:
    assert located(5.0, 200).common_share == 1.0
    assert located(0.0, 19).common_share == 1.0


def test_common_errors_are_eight_more_fits_and_a_twentieth_of_the_way() -> None:
    expected = 8 * FIT + np.diag([0.015**2] * 3 + [0.005**2] * 3)
    assert common_covariance(pose(0.3), FIT, DISTANCE) == pytest.approx(expected)


def test_share_goes_through_bytes_and_maps_of_earlier_versions_have_a_kinect_s() -> None:
    features = LocalFeatures("sift", np.zeros((2, 2)), np.zeros((2, 128), np.uint8), 500.0)
    points, sigma = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    content = KeyframeStructure(features, points, sigma, 0.25).thinned(1).to_bytes()
    assert KeyframeStructure.from_bytes(content).common_share == 0.25
    with np.load(io.BytesIO(content)) as arrays:
        earlier = {name: arrays[name] for name in arrays if name != "common_share"}
    buffer = io.BytesIO()
    np.savez(buffer, **earlier)
    assert KeyframeStructure.from_bytes(buffer.getvalue()).common_share == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("error_m, error_deg", [(0.0, 0.0), (0.01, 0.3)])
def test_simulated_rooms_have_ellipsoids_of_the_size_of_their_errors(
    error_m: float, error_deg: float
) -> None:
    """Poses of the map are exact, then wrong by two thirds of what is assumed where a map does not tell."""
    world, camera = default_world(), Camera()
    rooms = [(r.name, False) for r in world.rooms if r.loop][:1]
    rng = np.random.default_rng(3)
    intrinsics = Intrinsics.of_matrix(camera.k, camera.width, camera.height)
    frames = drive(world, rooms, 1, 6.0, offset_m=0.05, sway_deg=4.0)[:60]
    builder, content, poses = StructureBuilder(provisional=False), {}, {}
    for i, (frame, image) in enumerate(
        zip(frames, render_frames(world, frames, Sensor(seed=1)), strict=True)
    ):
        T = frame.T_map_camera.copy()
        T[:3, 3] += error_m * rng.normal(size=3)
        turn = np.radians(error_deg) * rng.normal(size=3)
        T[:3, :3] = cv2.Rodrigues(turn)[0] @ T[:3, :3]
        poses[i] = T
        content |= builder.add(i, T, image, intrinsics)
    content |= builder.flush()
    structures = {i: KeyframeStructure.from_bytes(c) for i, c in content.items()}
    asked = drive(world, rooms, 2, 6.0, offset_m=0.1, sway_deg=4.0)[20:60:2]
    verifier, squares = Verifier(), []
    positions = np.stack([poses[i][:3, 3] for i in sorted(poses)])
    for frame, image in zip(asked, render_frames(world, asked, Sensor(seed=2)), strict=True):
        gap = np.linalg.norm(positions - frame.T_map_camera[:3, 3], axis=1)
        near = [int(i) for i in np.argsort(gap)[:3]]
        found = verifier.verify(
            image, [VerificationCandidate(i, poses[i], structures[i]) for i in near], intrinsics
        )
        if found.pose is not None:
            squares.append(_nees(found.pose, frame.T_map_camera))
    assert len(squares) >= 8
    # Of eight means of NEES over its ideal, all lie here if the covariances are of the errors' size.
    assert 0.3 < np.mean(squares) / 6 < 3.0


def _nees(found: Any, T: NDArray[np.float64]) -> float:
    turn = cv2.Rodrigues(matrix_from_xyzw(found.orientation_xyzw) @ T[:3, :3].T)[0][:, 0]
    error = np.concatenate([found.position - T[:3, 3], turn])
    return float(error @ np.linalg.solve(found.covariance, error))
