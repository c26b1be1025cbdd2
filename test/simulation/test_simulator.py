"""The robot in its world: motion against closed forms, collisions, odometry, and runs equal to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from robot_vision.errors import ConfigError
from robot_vision.simulation.doors import sliding_doors
from robot_vision.simulation.drivers import Expert, Random
from robot_vision.simulation.referee import judge
from robot_vision.simulation.robot import STEP_NS, Motion, Mount, Odometry, Robot
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home
from robot_vision.simulation.world.obstacles import DistanceMap, Obstacles
from robot_vision.simulation.world.renderer import Renderer
from robot_vision.simulation.world.sensor import Sensor
from robot_vision.simulation.world.surfaces import SURFACES

HOME = default_world()
STEP_S = STEP_NS * 1e-9
IDEAL = Robot(odometry_drift=0, odometry_noise=0)


def run(simulator: Simulator, speed: float, turn_rate: float, seconds: float) -> list:
    simulator.command(speed, turn_rate)
    return [event for _ in range(round(seconds / STEP_S)) for event in simulator.step()]


# --- homes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_homes_have_rooms_that_a_robot_reaches_and_nothing_inside_anything(seed: int) -> None:
    world = random_home(seed)
    assert 2 <= len(world.rooms) <= 6 and len(world.doors) >= len(world.rooms) - 1
    free = DistanceMap.of(world)
    labels, largest = free.components(0.3)
    assert (labels == largest).sum() >= 0.97 * (labels > 0).sum()
    for room in world.rooms:
        inside = [
            world.room_at(p) is room for p in free.points(np.nonzero(labels == largest))[::20]
        ]
        assert any(inside), room.name
        for box in room.boxes:
            low, high = np.subtract(box.low[:2], room.low), np.subtract(room.high, box.high[:2])
            assert min(*low, *high) >= -1e-9
        for i, a in enumerate(world.rooms):
            for b in world.rooms[i + 1 :]:
                assert (
                    np.maximum(np.subtract(a.low, b.high), np.subtract(b.low, a.high)).max() > 0.1
                )
    for door in world.doors:
        for side in (-0.3, 0.3):  # a room on either side of each door
            middle = np.add(door.low, door.high) / 2
            middle[1 - door.axis] += side
            assert min(room.distance(middle) for room in world.rooms) == 0


@pytest.mark.slow
def test_homes_repeat_for_a_seed_and_differ_between_seeds() -> None:
    assert random_home(3) == random_home(3)
    homes = [random_home(seed) for seed in range(40)]
    assert len({home.rooms[0].low + home.rooms[0].high for home in homes}) == 40
    assert {len(home.rooms) for home in homes} == {2, 3, 4, 5, 6}


@pytest.mark.slow
def test_homes_have_no_hole_and_their_doors_can_be_seen_through() -> None:
    through = 0
    for seed in range(6):
        simulator = Simulator(random_home(seed), seed)
        renderer = Renderer(simulator.world, simulator.mount.camera)
        for _ in range(6):
            simulator.motion = Motion(*simulator._any_start())
            _, rooms = renderer.render_with_rooms(simulator.T_map_camera)
            assert (rooms >= 0).all()
            through += len(np.unique(rooms)) > 1
    assert through >= 10


@pytest.mark.slow
def test_rear_camera_sees_what_the_other_one_does_half_a_turn_on() -> None:
    still = Sensor(0, exposure=0.0, noise=0.0, vary=False)
    ahead, turned = (
        Simulator(HOME, 0, mount=Mount(width=160, height=120), sensor=still, start=(1.0, 0.3, yaw))
        for yaw in (0.4, 0.4 + math.pi)
    )
    seen = ahead.image().copy()
    np.testing.assert_array_equal(ahead.image(back=True), turned.image())
    np.testing.assert_array_equal(turned.image(back=True), seen)
    T_map_base = turned.T_map_camera @ np.linalg.inv(turned.T_base_camera)
    np.testing.assert_allclose(T_map_base @ turned.T_base_rear, ahead.T_map_camera, atol=1e-9)


# --- obstacles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [HOME, random_home(1), random_home(7)], ids=["demo", "1", "7"])
def test_distance_map_and_clearance_agree(world: object) -> None:
    free, obstacles = DistanceMap.of(world), Obstacles(world)  # type: ignore[arg-type]
    rows, columns = np.nonzero(free.distance > 0)
    points = free.points((rows, columns))
    chosen = np.random.default_rng(0).choice(len(points), 300, replace=False)
    exact = np.array([obstacles.clearance(points[i]) for i in chosen])
    assert np.abs(free.distance[rows, columns][chosen] - exact).max() < 0.061


@pytest.mark.slow
def test_scan_agrees_with_the_renderers_depth() -> None:
    """Two programs that share no code: rays in the plane, and the depth test of pictures."""
    checked = 0
    for seed in range(5):
        world = random_home(seed)
        rooms = [
            replace(room, boxes=tuple(b for b in room.boxes if b.low[2] < 0.4 < b.high[2]))
            for room in world.rooms
        ]  # what the camera's middle row sees
        world = replace(world, rooms=tuple(rooms))
        simulator = Simulator(world, seed, mount=Mount(forward_m=0.0))
        c = simulator.mount.camera
        kinds, depth = Renderer(simulator.world, c).truth(simulator.T_map_camera)
        row = round(c.cy)
        columns = np.arange(0, c.width, 7)
        angles = -np.arctan((columns - c.cx) / c.fx)
        seen = depth[row, columns] / np.cos(angles)
        scan = simulator.scan(angles)
        near = np.abs(seen - scan) < 0.03 + 0.02 * scan
        assert near.mean() > 0.9  # not at edges, which are drawn to the nearest pixel
        assert set(kinds[row, columns]) <= {SURFACES.index(s) for s in SURFACES}
        checked += len(columns)
    assert checked > 200


# --- motion -----------------------------------------------------------------------------------------------


def test_arc_is_a_circle() -> None:
    motion = Motion(1.0, 2.0, 0.3)
    for _ in range(100):
        motion = motion.moved(0.5, 0.8, 0.02)
    r = 0.5 / 0.8
    assert motion.x == pytest.approx(1.0 + r * (math.sin(0.3 + 1.6) - math.sin(0.3)), abs=1e-9)
    assert motion.y == pytest.approx(2.0 - r * (math.cos(0.3 + 1.6) - math.cos(0.3)), abs=1e-9)


def test_robot_accelerates_and_brakes_within_its_limits() -> None:
    simulator = Simulator(HOME, 0, start=(1.5, -0.4, 0.0))
    simulator.command(9.0, 9.0)
    rates = []
    for _ in range(100):
        simulator.step()
        rates.append((simulator.motion.speed_m_s, simulator.motion.turn_rate_rad_s))
    robot = simulator.robot
    assert rates[-1] == pytest.approx((robot.max_speed_m_s, robot.max_turn_rate_rad_s))
    assert rates[0][0] == pytest.approx(robot.max_acceleration_m_s2 * STEP_S)
    assert np.abs(np.diff(rates, axis=0)).max(axis=0) == pytest.approx(
        (robot.max_acceleration_m_s2 * STEP_S, robot.max_turn_acceleration_rad_s2 * STEP_S)
    )
    way, speed = simulator.way_m, simulator.motion.speed_m_s
    run(simulator, 0.0, 0.0, 2.0)
    assert simulator.motion.speed_m_s == 0
    braking = speed**2 / (2 * robot.max_acceleration_m_s2)
    assert simulator.way_m - way == pytest.approx(braking, abs=speed * STEP_S)


def test_wall_holds_the_robot_and_counts_once_until_it_has_left() -> None:
    simulator = Simulator(HOME, 0, start=(8.5, 0.5, 0.0))  # 1.5 m before the corridor's east wall
    events = run(simulator, 0.5, 0.0, 8.0)
    assert [event.kind for event in events] == ["collision"] and simulator.collisions == 1
    assert events[0].motion.speed_m_s == pytest.approx(0.5)
    assert simulator.motion.x == pytest.approx(10.0 - simulator.robot.radius_m, abs=0.02)
    assert simulator.obstacles.clearance((simulator.motion.x, 0.5)) >= simulator.robot.radius_m
    assert not run(simulator, -0.3, 0.0, 1.0)  # it comes free backwards, and may hit it again
    assert [event.kind for event in run(simulator, 0.5, 0.0, 4.0)] == ["collision"]


def test_low_robot_passes_under_a_table_that_a_high_one_hits() -> None:
    under = (1.0, 2.75, 0.0)  # the kitchen's table: legs at its corners, its top at 0.7 m
    low = Simulator(HOME, 0, Robot(radius_m=0.15, height_m=0.3), start=under)
    high = Simulator(HOME, 0, Robot(radius_m=0.15, height_m=1.1), start=under)
    assert not run(low, 0.5, 0.0, 4.0) and low.motion.x > 2.6
    assert run(high, 0.5, 0.0, 4.0) and high.motion.x < 1.75


def test_reset_carries_the_robot_to_where_it_has_room_in_the_same_room() -> None:
    simulator = Simulator(HOME, 0, start=(8.5, 0.5, 0.0))
    run(simulator, 0.5, 0.0, 5.0)
    odometry = simulator.odometry.motion
    event = simulator.reset()
    x, y = simulator.motion.x, simulator.motion.y
    assert event.kind == "reset" and event.motion == simulator.motion
    assert simulator.obstacles.clearance((x, y)) > simulator.robot.radius_m + 0.15
    assert HOME.room_at((x, y)).name == "corridor"
    assert simulator.odometry.motion == odometry  # wheels do not know that they were lifted
    assert not run(simulator, 0.3, 0.0, 1.0)  # it faces the open


def test_start_inside_something_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose a free place"):
        Simulator(HOME, 0, start=(9.0, -4.0, 0.0))
    with pytest.raises(ConfigError, match="make it smaller"):
        Simulator(HOME, 0, Robot(radius_m=3.0))


# --- odometry ---------------------------------------------------------------------------------------------


def test_odometry_without_errors_is_the_motion() -> None:
    simulator = Simulator(HOME, 0, IDEAL, start=(2.0, -0.4, 0.4))
    run(simulator, 0.4, 0.9, 3.0)
    m, o = simulator.motion, simulator.odometry.motion
    c, s = math.cos(0.4), math.sin(0.4)
    assert (o.x, o.y) == pytest.approx(
        (c * (m.x - 2) + s * (m.y + 0.4), c * (m.y + 0.4) - s * (m.x - 2)), abs=1e-9
    )
    assert o.yaw == pytest.approx(m.yaw - 0.4)


def test_odometry_slips_at_a_wall() -> None:
    for slip in (0.0, 1.0):
        robot = Robot(odometry_drift=0, odometry_noise=0, odometry_slip=slip)
        simulator = Simulator(HOME, 0, robot, start=(9.0, 0.5, 0.0))
        run(simulator, 0.5, 0.0, 2.0)
        reached = simulator.odometry.motion.x
        run(simulator, 0.5, 0.0, 2.0)
        assert simulator.odometry.motion.x - reached == pytest.approx(slip * 1.0, abs=0.02)


def test_odometrys_errors_have_the_variance_that_it_says() -> None:
    robot = Robot(odometry_drift=0.03, odometry_noise=0.05)
    ends, sigma = [], (0.0, 0.0)
    for seed in range(300):
        odometry = Odometry(robot, np.random.default_rng(seed))
        for _ in range(100):
            odometry.turn_wheels(0.5, 0.0, 0.1)
        ends.append((odometry.motion.x - 5.0, odometry.motion.yaw))
        sigma = odometry.variances()
    # Straight ahead the yaw has no error here, so the position's is along the way alone.
    assert np.var([x for x, _ in ends]) == pytest.approx(sigma[0], rel=0.25)
    assert np.var([yaw for _, yaw in ends]) == sigma[1] == 0


# --- runs -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_are_equal_to_the_bit_and_another_seed_is_not() -> None:
    def trace(seed: int) -> bytes:
        simulator, found = Simulator(random_home(4), seed), b""
        rng = np.random.default_rng(9)
        for _ in range(8):
            events = run(simulator, rng.uniform(0, 0.6), rng.uniform(-1, 1), 0.5)
            m, o = simulator.motion, simulator.odometry.motion
            found += simulator.image().tobytes() + simulator.scan(np.linspace(-1, 1, 9)).tobytes()
            found += repr((events, m, o, simulator.now_ns)).encode()
        return found

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


# --- walkers ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_walkers_walk_through_nothing_and_do_not_run_into_a_robot_that_stands() -> None:
    simulator = Simulator(random_home(6), 1, walkers=3)
    assert len(simulator._walkers) == 3
    walls, begun = Obstacles(simulator.world), [w.xy for w in simulator._walkers]
    farthest = np.zeros(3)
    for _ in range(1500):
        assert not simulator.step()
        for i, walker in enumerate(simulator._walkers):
            assert walls.clearance(walker.xy) > 0.2  # half a box's side
            farthest[i] = max(farthest[i], np.hypot(*(walker.xy - begun[i])))
    assert simulator.collisions == 0 and farthest.min() > 1.0


@pytest.mark.slow
def test_walker_stands_where_pictures_scan_and_collisions_say() -> None:
    simulator = Simulator(HOME, 0, mount=Mount(forward_m=0.0), start=(1.0, 0.3, 0.0), walkers=1)
    empty = Simulator(HOME, 0, mount=Mount(forward_m=0.0), start=(1.0, 0.3, 0.0))
    (walker,) = simulator._walkers
    free, before = empty.free_ahead(), empty.image()
    for x in (3.0, 4.5):
        walker.xy = np.array([x, 0.3])
        simulator._meet()
        assert simulator.scan([0.0])[0] == pytest.approx(x - 1.2)
        assert simulator.free_ahead() == pytest.approx(x - 1.4, abs=0.005) and free > 5 - 1e-9
        simulator.image()
        _, depth = simulator._renderer.truth(simulator.T_map_camera)  # type: ignore[union-attr]
        c = simulator.mount.camera
        assert depth[round(c.cy), round(c.cx)] == pytest.approx(x - 1.2, abs=0.01)
        changed = np.abs(simulator.image().astype(int) - before).max(axis=2) > 60
        columns = np.flatnonzero(changed[round(c.cy)])
        half = c.fx * 0.2 / (x - 1.2)  # of its near face
        assert np.median(columns) == pytest.approx(c.cx, abs=half)
        assert len(columns) < 2 * half + 8
    simulator.command(0.5, 0.0)
    while not simulator.step():
        walker.xy = np.array([4.5, 0.3])  # it would go away
    assert 1.0 + simulator.way_m + 0.2 == pytest.approx(walker.xy[0] - 0.2, abs=0.05)


def test_reset_puts_the_robot_beside_walkers_and_not_into_them() -> None:
    simulator = Simulator(HOME, 0, start=(3.0, 0.0, 0.0), walkers=1)
    simulator._walkers[0].xy = np.array([3.1, 0.0])  # where it would be put otherwise
    simulator._meet()
    simulator.reset()
    here = (simulator.motion.x, simulator.motion.y)
    assert simulator.obstacles.clearance(here) >= simulator.robot.radius_m + 0.1


# --- doors ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_leaf_is_where_picture_depth_scan_and_collisions_say() -> None:
    (door,) = [d for d in HOME.doors if d.low[1] > 0 and d.low[0] < 4]  # to the kitchen
    x, near = float(door.low[0] + door.high[0]) / 2, float(door.low[1] + door.high[1]) / 2 - 0.02
    where = {"mount": Mount(forward_m=0.0), "start": (x, 0.0, math.pi / 2)}
    moving, still = Simulator(HOME, 0, **where, moving_doors=True), Simulator(HOME, 0, **where)
    (leaf,) = [d for d in moving._doors if d.box.low[0] == door.low[0] and d.box.low[1] > 0]
    angles = np.radians(np.arange(-25, 25.5))
    # It begins open, and the wall hides it; its texture moves the others' by less than a grey value.
    assert np.abs(moving.image().astype(int) - still.image()).max() <= 1
    assert (moving.scan(angles) == still.scan(angles)).all()
    c, seen = still.mount.camera, still.scan(angles)
    for open_m, hit in ((0.0, 46), (0.3, None)):
        leaf._open_m = open_m
        moving._meet()
        moving.image()
        _, depth = moving._renderer.truth(moving.T_map_camera)  # type: ignore[union-attr]
        left = x - near * np.tan(angles)
        low = leaf.box.low[0] + leaf.offset[0]
        there = (low < left) & (left < low + 1.0) & (door.low[0] < left) & (left < door.high[0])
        wanted = np.where(there, near / np.cos(angles), seen)
        edge = np.abs(left - [[low], [low + 1.0], [x - 0.5], [x + 0.5]]).min(axis=0) < 0.03
        assert moving.scan(angles)[~edge] == pytest.approx(wanted[~edge])
        columns = np.round(c.cx - c.fx * np.tan(angles)).astype(int)
        shown = depth[round(c.cy), columns] < near + 0.01
        assert (shown == there)[~edge].all()
        assert hit is None or there.sum() >= hit
    leaf._open_m, leaf._shuts, leaf._left_s = 0.0, True, 100.0
    moving.command(0.5, 0.0)
    while not moving.step():
        pass
    assert moving.motion.y + 0.2 == pytest.approx(near, abs=0.02)


@pytest.mark.slow
def test_doors_close_on_nobody_and_repeat_by_seed() -> None:
    def trace(seed: int, steps: int) -> list[float]:
        simulator = Simulator(random_home(10_006), seed, walkers=1, moving_doors=True)
        driver, found, shut = Random(seed), [], 0
        for i in range(steps):
            if i % 5 == 0:
                simulator.command(*driver(simulator))
            if simulator.step() and not simulator.motion.speed_m_s:
                simulator.reset()
            here = (simulator.motion.x, simulator.motion.y)
            assert simulator.obstacles.clearance(here) >= simulator.robot.radius_m - 1e-9
            for walker in simulator._walkers:
                for leaf in simulator._doors:
                    corner = np.add(leaf.box.low[:2], leaf.offset)
                    other = np.add(leaf.box.high[:2], leaf.offset)
                    gap = np.maximum(corner - walker.xy, walker.xy - other).max()
                    assert gap > 0.15, (gap, i)
            shut += any(leaf._open_m == 0 for leaf in simulator._doors)
            found += [*here, *(leaf._open_m for leaf in simulator._doors)]
        assert 50 < shut < 0.9 * steps
        return found

    assert trace(1, 1000) == trace(1, 1000)
    assert trace(1, 1000) != trace(2, 1000)


@pytest.mark.slow
def test_expert_waits_at_doors_and_those_without_room_for_a_leaf_stay_open() -> None:
    homes = [random_home(seed) for seed in range(10_000, 10_020)]
    doors = [len(home.doors) for home in homes]
    sliding = [len(list(sliding_doors(home, 0))) for home in homes]
    assert 0.7 * sum(doors) < sum(sliding) < sum(doors) and min(sliding) > 0
    drive = judge(Simulator(homes[6], 0, moving_doors=True), Expert(0), 25.0)
    assert not drive.hits and not drive.stuck
    open_ = judge(Simulator(homes[6], 0), Expert(0), 25.0)
    assert drive.time_s > open_.time_s + 3
