"""A robot in a world, step by step: commands in; images, scans, odometry and what went wrong out.

Everything follows from the world, the seed and the commands: two runs are equal to the bit on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.errors import ConfigError
from robot_vision.simulation.doors import SlidingDoor, sliding_doors
from robot_vision.simulation.drive import look
from robot_vision.simulation.robot import STEP_NS, Motion, Mount, Odometry, Robot, towards
from robot_vision.simulation.walkers import HALF_M, Walker
from robot_vision.simulation.world.obstacles import DistanceMap, Obstacles
from robot_vision.simulation.world.renderer import Renderer
from robot_vision.simulation.world.sensor import Sensor
from robot_vision.simulation.world.surfaces import box_faces
from robot_vision.simulation.world.world import World

START_NS = 1_000_000_000  # a stamp of 0 means "not set"
_START_M = 0.2  # from the robot's edge to what is nearest, where it starts
_FACES = 5  # of a box that stands on the floor
_RAYS_AHEAD = 41  # over the robot's width
_REAR_NOISE = 1 << 30  # number of a rear image that none of the other camera reaches
_APART_M = 0.05  # that a robot moves away from what it hit until it can hit it again


@dataclass(frozen=True)
class Event:
    """What happened to the robot.

    Attributes:
        stamp_ns: when.
        kind: `collision` or `reset`.
        motion: where the robot was when it hit something, and how fast; or where it was put.
    """

    stamp_ns: int
    kind: str
    motion: Motion


class Simulator:
    """One robot in one world.

    Args:
        world: where it drives.
        seed: of the start, the camera's noise and the odometry's errors; at least 0.
        robot: size and limits.
        mount: of the camera.
        sensor: of the camera; None for one of the seed.
        start: x, y and yaw in the map; None for a free place by the seed.
        walkers: boxes of a person's size that walk about; they do not run into the robot.
        moving_doors: whether doors slide open and shut; see `doors`.

    Attributes:
        motion: true pose in the map, and rates.
        odometry: what the wheels say.
        now_ns: simulated time.
        free: distances for a robot of this height.
        obstacles: for a robot of this height, where they are now.
        way_m: that the robot has driven.
        collisions: how often it hit something.
        T_base_camera: (4, 4) the camera's optical frame in the robot's frame: on the floor under its
            centre, x forwards, z up.
        T_base_rear: (4, 4) the same of one that looks back, mounted as the first one is, half a turn on.

    Raises:
        ConfigError: the world has no place for the robot, or the start is none.
    """

    def __init__(
        self,
        world: World,
        seed: int = 0,
        robot: Robot | None = None,
        mount: Mount | None = None,
        sensor: Sensor | None = None,
        start: tuple[float, float, float] | None = None,
        walkers: int = 0,
        moving_doors: bool = False,
    ) -> None:
        self.world, self.seed = world, seed
        self.robot, self.mount = robot or Robot(), mount or Mount()
        self.sensor = sensor or Sensor(seed)
        self._fixed = self.obstacles = Obstacles(world, self.robot.height_m)
        self.free = DistanceMap.of(world, self.robot.height_m)
        self._rng = np.random.default_rng((seed, 21))
        m = self.mount
        self.T_base_camera = look((m.forward_m, 0.0, m.height_m), 0.0, math.radians(m.pitch_deg))
        self.T_base_rear = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.T_base_camera
        self.now_ns = START_NS
        self.motion = Motion(*(start or self._any_start()))
        if self.obstacles.clearance(self._xy) < self.robot.radius_m:
            raise ConfigError(
                f"start is x {self.motion.x:g}, y {self.motion.y:g}, where a robot of radius "
                f"{self.robot.radius_m:g} m touches something: choose a free place"
            )
        seeds = np.random.SeedSequence((seed, 26)).spawn(walkers)
        self._walkers = [Walker(self.free, np.random.default_rng(s)) for s in seeds]
        # One that would begin where the robot does is left out.
        near = self.robot.radius_m + 2 * HALF_M
        self._walkers = [w for w in self._walkers if np.hypot(*(w.xy - self._xy)) > near]
        self._doors = list(sliding_doors(world, seed)) if moving_doors else []
        self._meet()
        self.odometry = Odometry(self.robot, np.random.default_rng((seed, 22)))
        self.way_m = 0.0
        self.collisions = 0
        self._wanted = (0.0, 0.0)
        self._hit: NDArray[np.float64] | None = None  # where, until the robot has left it
        self._renderer: Renderer | None = None
        self._images = {False: 0, True: _REAR_NOISE}
        self._now: dict[bool, NDArray[np.uint8]] = {}  # images of now

    @property
    def _xy(self) -> NDArray[np.float64]:
        return np.array([self.motion.x, self.motion.y])

    @property
    def held(self) -> bool:
        """Whether the robot has not yet left what it hit."""
        return self._hit is not None

    def command(self, speed_m_s: float, turn_rate_rad_s: float) -> None:
        """Sets the rates that the robot tries to reach, as far as its limits allow."""
        speed, turn = self.robot.max_speed_m_s, self.robot.max_turn_rate_rad_s
        self._wanted = (
            min(max(speed_m_s, -speed), speed),
            min(max(turn_rate_rad_s, -turn), turn),
        )

    def step(self) -> list[Event]:
        """Moves everything by `STEP_NS`, and returns what happened to the robot."""
        robot, dt_s = self.robot, STEP_NS * 1e-9
        before = self.motion
        speed = towards(before.speed_m_s, self._wanted[0], robot.max_acceleration_m_s2 * dt_s)
        turn_rate = towards(
            before.turn_rate_rad_s, self._wanted[1], robot.max_turn_acceleration_rad_s2 * dt_s
        )
        self.now_ns += STEP_NS
        self._now = {}
        if self._moving:
            shut = Obstacles.of(*_corners(self._doors)) if self._doors else None
            for walker in self._walkers:
                walker.step(self._xy, shut, dt_s)
            bodies = [
                (before.x, before.y, robot.radius_m),
                *((float(w.xy[0]), float(w.xy[1]), HALF_M) for w in self._walkers),
            ]
            for door in self._doors:
                door.step(bodies, dt_s)
            self._meet()
        after = before.moved(speed, turn_rate, dt_s)
        events = []
        if self.obstacles.clearance((after.x, after.y)) >= robot.radius_m:
            self.motion = after
            self.odometry.turn_wheels(speed, turn_rate, dt_s)
            self.way_m += abs(speed) * dt_s
            if self._hit is not None and np.hypot(*(self._xy - self._hit)) > _APART_M:
                self._hit = None
        else:  # held by what it hit: it may turn on the spot
            self.motion = Motion(before.x, before.y, after.yaw, 0.0, turn_rate)
            self.odometry.turn_wheels(robot.odometry_slip * self._wanted[0], turn_rate, dt_s)
            if self._hit is None:
                self._hit = self._xy
                self.collisions += 1
                events.append(Event(self.now_ns, "collision", before))
        return events

    @property
    def _moving(self) -> list[Walker | SlidingDoor]:
        return [*self._walkers, *self._doors]

    def _meet(self) -> None:
        """Puts the obstacles where what moves is."""
        if self._moving:
            self.obstacles = self._fixed.with_boxes(*_corners(self._moving))
        self._now = {}

    def image(self, back: bool = False) -> NDArray[np.uint8]:
        """Returns what a camera sees now, RGB uint8 (height, width, 3); the same until it moves.

        Args:
            back: of the camera that looks back.
        """
        if back in self._now:
            return self._now[back]
        if self._renderer is None:  # painting a world takes longer than a hundred images
            faces = [
                face
                for thing in self._moving
                for face in box_faces(thing.box, self.world.room_at(thing.box.low[:2]).name)
            ]
            self._renderer = Renderer(self.world, self.mount.camera, faces)
        if self._moving:
            moved = [(*thing.offset, 0.0) for thing in self._moving]
            self._renderer.move_extra(np.repeat(moved, _FACES, axis=0))
        self._images[back] += 1
        seen = self._renderer.render_with_rooms(self._T_map(back))
        image = self._now[back] = self.sensor.expose(*seen, self._images[back])
        image.flags.writeable = False
        return image

    @property
    def T_map_camera(self) -> NDArray[np.float64]:
        """True pose (4, 4) of the camera's optical frame."""
        return self._T_map(False)

    def _T_map(self, back: bool) -> NDArray[np.float64]:
        m, mount = self.motion, self.mount
        yaw = m.yaw + math.pi if back else m.yaw
        x, y = m.x + mount.forward_m * math.cos(yaw), m.y + mount.forward_m * math.sin(yaw)
        return look((x, y, mount.height_m), yaw, math.radians(mount.pitch_deg))

    def scan(self, angles: ArrayLike, range_max_m: float = 10.0) -> NDArray[np.float64]:
        """Returns the true distances (m,) from the robot's centre in directions relative to its own."""
        return self.obstacles.scan(self._xy, np.add(angles, self.motion.yaw), range_max_m)

    def free_ahead(self, at_most_m: float = 5.0, moving: bool = True) -> float:
        """Returns how far the robot could go straight ahead until it hits something, in metres.

        Args:
            at_most_m: metres.
            moving: whether walkers and doors count.
        """
        return self._free_ahead(self.motion, at_most_m, self.obstacles if moving else self._fixed)

    def free_lengths(
        self,
        directions: ArrayLike,
        margin_m: float = 0.0,
        at_most_m: float = 5.0,
        in_view: bool = False,
    ) -> NDArray[np.float64]:
        """Returns how far the robot could go straight in directions from where it heads.

        Args:
            directions: (n,) radians, positive to the left.
            margin_m: that it keeps to each side.
            at_most_m: metres.
            in_view: whether only what lies between the camera's left and right edge is in the way.

        Returns:
            (n,) metres.
        """
        yaws = self.motion.yaw + np.asarray(directions, float)
        radius = self.robot.radius_m + margin_m
        return self._free_lengths(self.obstacles, self._xy, yaws, radius, at_most_m, in_view)

    def _free_ahead(
        self, m: Motion, at_most_m: float = 20.0, obstacles: Obstacles | None = None
    ) -> float:
        here, among = np.array([m.x, m.y]), obstacles or self.obstacles
        yaws, radius = np.array([m.yaw]), self.robot.radius_m
        return float(self._free_lengths(among, here, yaws, radius, at_most_m)[0])

    def _free_lengths(
        self,
        obstacles: Obstacles,
        xy: NDArray[np.float64],
        yaws: NDArray[np.float64],
        radius: float,
        at_most_m: float,
        in_view: bool = False,
    ) -> NDArray[np.float64]:
        aside = np.linspace(-radius, radius, _RAYS_AHEAD)
        across = np.stack([-np.sin(yaws), np.cos(yaws)], axis=1)
        starts = (xy + aside[None, :, None] * across[:, None]).reshape(-1, 2)
        angles = np.repeat(yaws, _RAYS_AHEAD)
        rays = obstacles.scan(starts, angles, at_most_m + radius)
        if in_view:
            along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            ends = starts + np.where(np.isfinite(rays), rays, at_most_m)[:, None] * along
            rays[~self._is_in_view(ends)] = np.inf
        free = rays.reshape(len(yaws), -1) - np.sqrt(np.maximum(radius**2 - aside**2, 0))
        return np.asarray(np.clip(free.min(axis=1), 0, at_most_m))

    def _is_in_view(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Says which points (n, 2) lie between the camera's left and right edge; nothing hides them."""
        half = math.radians(self.mount.field_deg) / 2
        right, _, ahead = ((points - self.T_map_camera[:2, 3]) @ self.T_map_camera[:2, :3]).T
        return np.asarray(np.abs(np.arctan2(right, ahead)) <= half)

    def reset(self) -> Event:
        """Carries the robot to the nearest place of its room where it has room, and turns it to the open.

        The odometry goes on from where it was, as that of a robot that is lifted does.
        """
        centres = self._starts()
        here = self.world.room_at(self._xy).name
        order = np.argsort(((centres - self._xy) ** 2).sum(axis=1), kind="stable")
        clear = self.robot.radius_m + _START_M / 2  # of what moves, too
        free = [i for i in order if self.obstacles.clearance(centres[i]) >= clear] or [order[0]]
        near = (centres[i] for i in free if self.world.room_at(centres[i]).name == here)
        x, y = (float(v) for v in next(near, centres[free[0]]))
        views = [Motion(x, y, float(yaw)) for yaw in np.linspace(-np.pi, np.pi, 36, endpoint=False)]
        self.motion = max(views, key=self._free_ahead)
        self._wanted = (0.0, 0.0)
        self._hit, self._now = None, {}
        return Event(self.now_ns, "reset", self.motion)

    def _any_start(self) -> tuple[float, float, float]:
        centres = self._starts()
        x, y = centres[int(self._rng.integers(len(centres)))]
        return float(x), float(y), float(self._rng.uniform(-np.pi, np.pi))

    def _starts(self) -> NDArray[np.float64]:
        """Returns the centres (n, 2) of cells from which the robot gets about."""
        labels, largest = self.free.components(self.robot.radius_m + _START_M / 2)
        for clear in (_START_M, _START_M / 2):
            rows, columns = np.nonzero(
                (labels == largest) & (self.free.distance >= self.robot.radius_m + clear)
            )
            if len(rows) and largest:
                return self.free.points((rows, columns))
        raise ConfigError(
            f"a robot of radius {self.robot.radius_m:g} m and height {self.robot.height_m:g} m has no "
            "room in this world: make it smaller"
        )


def _corners(
    moving: Sequence[Walker | SlidingDoor],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the rectangles (m, 2) in which they are now."""
    offsets = np.array([thing.offset for thing in moving])
    low = np.array([thing.box.low[:2] for thing in moving])
    high = np.array([thing.box.high[:2] for thing in moving])
    return low + offsets, high + offsets
