"""A camera's way through the world: poses, times and the room of each frame, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.simulation.world.world import World

CAMERA_HEIGHT_M = 1.1
_SPEED_M_S = 1.6  # along the path of a drive
_MARGIN_M = 0.12  # that a drive keeps from walls and furniture


@dataclass(frozen=True)
class DriveFrame:
    """Where the camera is at one time.

    Attributes:
        stamp_s: seconds since the drive's start.
        T_map_camera: (4, 4) pose of the camera's optical frame (z forward, x right, y down) in the map.
        room: name of the room that holds the camera.
    """

    stamp_s: float
    T_map_camera: NDArray[np.float64]
    room: str


def look(
    position: ArrayLike, yaw: float, pitch: float = 0.0, roll: float = 0.0
) -> NDArray[np.float64]:
    """Returns `T_map_camera` (4, 4) of a camera that looks along `yaw` (radians from +x to +y).

    A positive pitch looks up, a positive roll tilts the image's right side down.
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    T_map_camera = np.eye(4)
    T_map_camera[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    T_map_camera[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    T_map_camera[:3, 2] = forward
    T_map_camera[:3, 3] = position
    return T_map_camera


def tour(world: World, rooms: Sequence[tuple[str, bool]]) -> NDArray[np.float64]:
    """Returns the corner points (n, 2) of a walk into each named room in turn.

    Args:
        world: the rooms.
        rooms: name of each room to visit and whether its loop is walked backwards.
    """
    points = [p for name, back in rooms for p in world.room(name).loop[:: -1 if back else 1]]
    return np.array(points, dtype=float)


def drive(
    world: World,
    rooms: Sequence[tuple[str, bool]],
    seed: int,
    rate_hz: float = 10.0,
    offset_m: float = 0.15,
    sway_deg: float = 12.0,
) -> list[DriveFrame]:
    """Drives a camera along a tour.

    Args:
        world: the rooms.
        rooms: see `tour`.
        seed: of the offsets and of where the camera looks.
        rate_hz: frames a second.
        offset_m: how far, at most, the drive strays sideways from the tour's path.
        sway_deg: how far the heading strays from the direction of travel (about two thirds of the time
            less than this).

    Returns:
        One frame every 1 / rate_hz seconds.
    """
    return drive_along(world, tour(world, rooms), seed, rate_hz, offset_m, sway_deg)


def drive_along(
    world: World,
    points: ArrayLike,
    seed: int,
    rate_hz: float = 10.0,
    offset_m: float = 0.15,
    sway_deg: float = 12.0,
) -> list[DriveFrame]:
    """Drives a camera along corner points (n, 2) of a way; see `drive`."""
    rng = np.random.default_rng(seed)
    path = _resample(_round_corners(np.asarray(points, float)), _SPEED_M_S / rate_hz)
    count = len(path)
    second = rate_hz  # frames that one second takes
    tangent = np.gradient(path, axis=0)
    yaw = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    stray = offset_m * np.clip(_wander(rng, count, 2.0 * second), -1, 1)
    normal = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    path = _strayed(world, path, stray[:, None] * normal, _MARGIN_M)
    yaw = _smooth(yaw, 0.35 * second) + np.radians(sway_deg) * _wander(rng, count, 1.0 * second)
    pitch = np.radians(-4.0 + 2.0 * _wander(rng, count, 0.6 * second))
    roll = np.radians(1.0 * _wander(rng, count, 0.6 * second))
    height = CAMERA_HEIGHT_M + 0.03 * _wander(rng, count, 1.0 * second)
    return [
        DriveFrame(
            i / rate_hz,
            look((*path[i], height[i]), yaw[i], pitch[i], roll[i]),
            world.room_at(path[i]).name,
        )
        for i in range(count)
    ]


def mapping_drive(world: World, rate_hz: float = 5.0, seed: int = 1) -> list[DriveFrame]:
    """Returns the drive on which a robot would build its map: each room once around, then once back."""
    names = [room.name for room in world.rooms if room.loop]
    there = [(name, False) for name in names]
    back = [(name, True) for name in reversed(names)]
    return drive(world, there + back, seed, rate_hz, offset_m=0.05, sway_deg=4.0)


def evaluation_drive(world: World, rate_hz: float = 10.0, seed: int = 2) -> list[DriveFrame]:
    """Returns another drive: rooms in another order, loops in a random sense, other offsets and views."""
    rng = np.random.default_rng(seed)
    names = [room.name for room in world.rooms if room.loop]
    rooms = [(str(name), bool(rng.integers(2))) for name in rng.permutation(names)]
    return drive(world, rooms, seed, rate_hz)


def kidnapped_drive(
    frames: Sequence[DriveFrame], world: World, rate_hz: float, count: int | None = None
) -> tuple[list[DriveFrame], int | None]:
    """Carries the camera into another room, from one frame to the next, about halfway through a drive.

    The drive goes on from there: a piece of it is left out, and the frames that are left keep their poses.

    Args:
        frames: of a drive.
        world: its rooms.
        rate_hz: of the frames.
        count: frames to return; None for as many as there are.

    Returns:
        The frames, and the index of the first one after the jump; None if the drive is too short for one.
    """
    count = len(frames) if count is None else min(count, len(frames))
    margin = round(1.0 * rate_hz)  # seconds inside a room before and after
    inside = [
        i
        for i in range(margin, len(frames) - margin)
        if world.room(frames[i].room).loop
        and frames[i - margin].room == frames[i].room == frames[i + margin].room
    ]
    for start in sorted(inside, key=lambda i: abs(i - count // 2)):
        there = next(
            (i for i in inside if i > start and frames[i].room != frames[start].room), None
        )
        if there is not None and start + margin <= count:
            left = [*frames[:start], *frames[there:]][:count]
            stamped = [replace(frame, stamp_s=i / rate_hz) for i, frame in enumerate(left)]
            return stamped, start
    return list(frames[:count]), None


def random_frames(world: World, count: int, seed: int) -> list[DriveFrame]:
    """Returns `count` frames from free places all over the world, looking anywhere about level.

    Rooms are equally frequent, whatever their size.
    """
    rng = np.random.default_rng(seed)
    frames: list[DriveFrame] = []
    while len(frames) < count:
        room = world.rooms[len(frames) % len(world.rooms)]
        xy = rng.uniform(np.array(room.low) - 0.06, np.array(room.high) + 0.06)
        if world.room_at(xy) is not room or not world.is_free(xy, 0.2):
            continue
        height = CAMERA_HEIGHT_M + rng.normal(0, 0.04)
        yaw, pitch, roll = rng.uniform(-np.pi, np.pi), rng.normal(-0.07, 0.05), rng.normal(0, 0.02)
        frames.append(
            DriveFrame(float(len(frames)), look((*xy, height), yaw, pitch, roll), room.name)
        )
    return frames


def _round_corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chaikin's corner cutting: the curve stays inside the corners of the polyline."""
    points = points[np.r_[True, np.any(np.diff(points, axis=0) != 0, axis=1)]]
    for _ in range(4):
        a, b = points[:-1], points[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut, points[-1:]])
    return points


def _resample(points: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Returns points at equal distances along a polyline."""
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    at = np.arange(0, length[-1], step)
    return np.stack([np.interp(at, length, points[:, i]) for i in range(2)], axis=1)


def _smooth(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian smoothing with the ends held."""
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _wander(rng: np.random.Generator, count: int, sigma: float) -> NDArray[np.float64]:
    """Returns smooth noise of unit variance that changes over about `sigma` frames."""
    reach = int(3 * sigma) + 1
    noise = _smooth(rng.normal(size=count + 2 * reach), sigma)[reach : reach + count]
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)


def _strayed(
    world: World, path: NDArray[np.float64], offset: NDArray[np.float64], margin: float
) -> NDArray[np.float64]:
    """Adds sideways offsets, scaled down smoothly where they would touch something."""
    scale = np.ones(len(path))
    for i in range(len(path)):
        while scale[i] > 0.05 and not world.is_free(path[i] + scale[i] * offset[i], margin):
            scale[i] -= 0.25
    # The least of the neighbourhood, then smoothed: neither a jump nor a collision is left over.
    reach = 6
    least = np.array([scale[max(i - reach, 0) : i + reach + 1].min() for i in range(len(scale))])
    return path + np.clip(_smooth(least, reach / 3), 0, 1)[:, None] * offset
