"""The simulated world: its geometry against OpenCV's projection, its drives, and that a seed decides all."""

import time

import cv2
import numpy as np
import pytest

from robot_vision.errors import ConfigError
from robot_vision.simulation.drive import (
    CAMERA_HEIGHT_M,
    DriveFrame,
    evaluation_drive,
    look,
    mapping_drive,
    random_frames,
)
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.simulation.world.surfaces import SURFACES, Rectangle
from robot_vision.simulation.world.textures import STYLES, paint
from robot_vision.simulation.world.world import Finish, World

WORLD = default_world()
COLOURS = [(250, 10, 20), (20, 240, 30), (10, 30, 250), (250, 240, 20), (240, 20, 240)]


def stamp(centre, right, down, colour):
    """A small unlit rectangle of one colour around a point."""
    right, down = np.array(right, float), np.array(down, float)
    origin = np.array(centre, float) - right / 2 - down / 2
    return Rectangle(origin, right, down, Finish("plain", colour), "kitchen", lit=False)


def project(points, T_map_camera, camera):
    """OpenCV's own projection of map points to pixels."""
    T_camera_map = np.linalg.inv(T_map_camera)
    rvec, _ = cv2.Rodrigues(T_camera_map[:3, :3])
    pixels, _ = cv2.projectPoints(
        np.array(points, float), rvec, T_camera_map[:3, 3], camera.k, None
    )
    return pixels[:, 0]


# --- renderer ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_render_shows_known_points_where_opencv_projects_them():
    camera = Camera()
    # Facing -x, -y and +z (as on a wall to the east, to the north, and on a floor), at several depths.
    points = [
        (4.0, 0.3, 1.3),
        (5.5, -0.4, 0.9),
        (2.5, 0.5, 0.6),
        (3.4, 0.1, 1.6),
        (3.0, -0.45, 0.5),
    ]
    edges = [((0, -0.12, 0), (0, 0, -0.12))] * 4 + [((0, -0.2, 0), (-0.2, 0, 0))]
    extra = [stamp(p, r, d, c) for p, (r, d), c in zip(points, edges, COLOURS, strict=True)]
    renderer = Renderer(WORLD, camera, extra)
    seen = 0
    for T in (
        look((0.8, 0.0, 1.1), 0.0),
        look((0.6, 0.3, 1.2), -0.2, 0.05, 0.03),
        look((1.0, -0.3, 1.0), 0.15, -0.1, -0.1),
    ):
        image = renderer.render(T)
        for (x, y), colour in zip(project(points, T, camera), COLOURS, strict=True):
            if 1 <= x < camera.width - 2 and 1 <= y < camera.height - 2:
                assert np.abs(image[round(y), round(x)].astype(int) - colour).max() <= 3, (x, y)
                seen += 1
    assert seen >= 12


def test_render_places_texture_corners_within_half_a_pixel():
    camera = Camera()
    board = stamp((3.0, 0.0, 1.1), (0, -1.0, 0), (0, 0, -1.0), (255, 255, 255))
    T = look((0.9, 0.25, 1.25), -0.1, -0.06, 0.04)
    image = Renderer(World((WORLD.room("kitchen"),), (), ""), camera, [board]).render(T)
    white = np.all(image == 255, axis=2).astype(np.uint8)
    found, _ = cv2.findContours(white, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(found, key=cv2.contourArea)
    hull = cv2.approxPolyDP(outline, 4, True)[:, 0]
    corners = [board.origin + a * board.right + b * board.down for a in (0, 1) for b in (0, 1)]
    expected = project(corners, T, camera)
    assert len(hull) == 4
    for corner in expected:
        assert np.abs(hull - corner).max(axis=1).min() <= 1.0


def test_render_maps_texture_perspectively():
    """The middle of a slanted checker is where the projection says, not half way across the image."""
    camera = Camera()
    board = Rectangle(
        np.array([2.0, 0.8, 2.0]), np.array([6.0, 0, 0]), np.array([0, 0, -1.6]),
        Finish("checker", (255, 255, 255), (0, 0, 0)), "kitchen", lit=False,
    )  # fmt: skip
    T = look((0.5, -0.5, 1.2), 0.35)
    image = Renderer(World((WORLD.room("kitchen"),), (), ""), camera, [board]).render(T)
    checked = 0
    for i in range(15):
        for j in range(4):
            point = board.origin + [(i + 0.5) * 0.4, 0, -(j + 0.5) * 0.4]
            x, y = project([point], T, camera)[0]
            if 2 <= x < camera.width - 3 and 2 <= y < camera.height - 3 and i < 9:
                bright = image[round(y), round(x)].mean() > 127
                assert bright == bool((i + j) % 2), (i, j)
                checked += 1
    assert checked >= 15


@pytest.mark.slow
def test_render_hides_what_is_behind():
    near = stamp((2.0, 0.0, 1.1), (0, -0.4, 0), (0, 0, -0.4), (255, 0, 0))
    far = stamp((3.0, 0.0, 1.1), (0, -0.9, 0), (0, 0, -0.9), (0, 255, 0))
    T = look((0.5, 0.0, 1.1), 0.0)
    for order in ([near, far], [far, near]):
        image = Renderer(WORLD, extra=order).render(T)
        assert tuple(image[119, 159]) == (255, 0, 0)
        assert tuple(image[119, 190]) == (0, 255, 0)


@pytest.mark.slow
def test_render_does_not_show_the_back_of_a_rectangle():
    back = stamp((2.0, 0.0, 1.1), (0, 0.4, 0), (0, 0, -0.4), (255, 0, 0))
    image = Renderer(WORLD, extra=[back]).render(look((0.5, 0.0, 1.1), 0.0))
    assert tuple(image[119, 159]) != (255, 0, 0)


@pytest.mark.slow
def test_render_leaves_no_hole_anywhere_inside():
    renderer = Renderer(WORLD)
    for frame in random_frames(WORLD, 60, seed=5):
        _, rooms = renderer.render_with_rooms(frame.T_map_camera)
        assert (rooms < 0).mean() == 0, frame


@pytest.mark.slow
def test_render_sees_mostly_its_own_room():
    renderer = Renderer(WORLD)
    for name in WORLD.labels:
        room = WORLD.room(name)
        frames = [f for f in random_frames(WORLD, 60, seed=6) if f.room == name]
        share = [
            (
                renderer.render_with_rooms(f.T_map_camera)[1] == renderer.room_names.index(name)
            ).mean()
            for f in frames
        ]
        assert np.mean(share) > 0.8, room.name


@pytest.mark.slow
def test_render_keeps_forty_frames_a_second():
    renderer, threads = Renderer(WORLD), cv2.getNumThreads()
    cv2.setNumThreads(1)
    frames = random_frames(WORLD, 40, seed=7)
    sensor, took = Sensor(), []
    for i, frame in enumerate(frames):
        start = time.process_time()
        sensor.expose(*renderer.render_with_rooms(frame.T_map_camera), i)
        took.append(time.process_time() - start)
    cv2.setNumThreads(threads)
    assert np.median(took) < 1 / 40


@pytest.mark.slow
def test_true_distances_put_each_pixel_onto_its_surface():
    """A pixel, cast back by its distance, is on the floor, on a ceiling or on furniture."""
    renderer, camera = Renderer(WORLD), Camera()
    y, x = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.k).T
    boxes = [(b.low, b.high) for room in WORLD.rooms for b in room.boxes]
    seen, away = set(), []
    for frame in random_frames(WORLD, 20, seed=8):
        surfaces, depth = renderer.truth(frame.T_map_camera)
        points = (rays * depth[..., None]) @ frame.T_map_camera[:3, :3].T + frame.T_map_camera[
            :3, 3
        ]
        of = {name: points[surfaces == i] for i, name in enumerate(SURFACES)}
        seen |= {name for name, found in of.items() if len(found)}
        np.testing.assert_allclose(of["floor"][:, 2], 0, atol=2e-3)
        heights = [room.height for room in WORLD.rooms]
        for z in of["ceiling"][::50, 2]:
            assert min(abs(z - h) for h in heights) < 2e-3
        away += [
            min(abs(np.maximum(low - point, point - high).max()) for low, high in boxes)
            for point in of["furniture"][::50]
        ]
    # Its edges are drawn to the nearest pixel, so a few points lie next to it, on the plane of its face.
    assert len(away) > 1000 and np.quantile(away, 0.97) < 2e-3
    assert seen == set(SURFACES)


# --- sensor -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_frames_depend_on_the_seed_and_not_on_the_number_of_workers():
    frames = random_frames(WORLD, 20, seed=1)
    one = list(render_frames(WORLD, frames, Sensor(seed=3)))
    two = list(render_frames(WORLD, frames, Sensor(seed=3), workers=2))
    other = list(render_frames(WORLD, frames, Sensor(seed=4)))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].shape == (240, 320, 3) and one[0].dtype == np.uint8


@pytest.mark.slow
def test_sensor_without_faults_changes_nothing():
    renderer = Renderer(WORLD)
    image, rooms = renderer.render_with_rooms(look((1.0, 0.0, 1.1), 0.0))
    ideal = Sensor(lamps=0, exposure=0, balance=0, noise=0, blur=0)
    assert np.abs(ideal.expose(image, rooms, 0).astype(int) - image).max() <= 1


def test_sensor_noise_has_the_given_sigma():
    flat = np.full((240, 320, 3), 128, np.uint8)
    sensor = Sensor(lamps=0, exposure=0, balance=0, noise=5.0, blur=0)
    exposed = sensor.expose(flat, np.zeros((240, 320), np.int16), 0).astype(float)
    assert exposed.std() == pytest.approx(5.0, rel=0.05)
    assert exposed.mean() == pytest.approx(128, abs=0.5)


# --- drives -----------------------------------------------------------------------------------------------


def drives() -> dict[str, list[DriveFrame]]:
    return {
        "mapping": mapping_drive(WORLD),
        "evaluation": evaluation_drive(WORLD),
        "other seed": evaluation_drive(WORLD, seed=9),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mapping", "evaluation", "other seed"])
def test_drive_is_smooth_free_of_collisions_and_visits_every_room(name):
    frames = drives()[name]
    poses = np.array([f.T_map_camera for f in frames])
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-9)
    dt = frames[1].stamp_s - frames[0].stamp_s
    assert np.linalg.norm(np.diff(position, axis=0), axis=1).max() / dt < 2.5  # m/s
    relative = rotation[:-1].transpose(0, 2, 1) @ rotation[1:]
    angle = np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert np.degrees(angle).max() / dt < 250  # degrees a second
    assert all(WORLD.is_free(p[:2], 0.1) for p in position)
    assert {f.room for f in frames} == set(WORLD.labels)
    assert (rotation[:, 2, 1] < -0.9).all()  # the camera's y axis points down in the map
    assert np.abs(position[:, 2] - CAMERA_HEIGHT_M).max() < 0.2


def test_room_of_a_frame_is_the_room_that_holds_its_position():
    for frame in evaluation_drive(WORLD):
        xy = frame.T_map_camera[:2, 3]
        room = WORLD.room(frame.room)
        inside = (xy >= np.array(room.low) - 0.0601).all() and (
            xy <= np.array(room.high) + 0.0601
        ).all()
        assert inside, (frame.room, xy)


@pytest.mark.slow
def test_drives_repeat_for_a_seed_and_differ_between_seeds():
    first, second = evaluation_drive(WORLD, seed=4), evaluation_drive(WORLD, seed=4)
    assert len(first) == len(second)
    assert all(
        np.array_equal(a.T_map_camera, b.T_map_camera) for a, b in zip(first, second, strict=True)
    )
    other = evaluation_drive(WORLD, seed=5)
    assert not np.array_equal(first[20].T_map_camera, other[20].T_map_camera)


def test_evaluation_drive_does_not_repeat_the_mapping_drive():
    mapped = np.array([f.T_map_camera[:3, 3] for f in mapping_drive(WORLD)])
    driven = np.array([f.T_map_camera[:3, 3] for f in evaluation_drive(WORLD)])
    nearest = np.linalg.norm(driven[:, None] - mapped[None], axis=2).min(axis=1)
    assert np.median(nearest) > 0.05 and nearest.max() < 1.0


def test_random_frames_cover_every_room_equally():
    frames = random_frames(WORLD, 100, seed=2)
    rooms = [f.room for f in frames]
    assert all(rooms.count(name) == 20 for name in WORLD.labels)
    assert all(WORLD.is_free(f.T_map_camera[:2, 3], 0.2) for f in frames)


# --- world and textures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xy", "free"),
    [
        ((1.0, 0.0), True),
        ((3.3, 0.95), True),
        ((4.45, 3.0), False),
        ((9.0, -4.0), False),
        ((12, 0), False),
    ],
)
def test_free_space_knows_walls_doors_and_furniture(xy, free):
    assert WORLD.is_free(xy, 0.2) == free


def test_rooms_do_not_overlap_and_panels_keep_clear_of_doors():
    rooms = WORLD.rooms
    for i, a in enumerate(rooms):
        for b in rooms[i + 1 :]:
            gap = np.maximum(np.subtract(a.low, b.high), np.subtract(b.low, a.high)).max()
            assert gap > 0.05, (a.name, b.name)
    for room in rooms:
        for panel in (p for p in room.panels if p.side in ("north", "south")):
            y = room.high[1] if panel.side == "north" else room.low[1]
            for door in WORLD.doors:
                if min(abs(door.low[1] - y), abs(door.high[1] - y)) < 0.01:
                    apart = abs((door.low[0] + door.high[0]) / 2 - panel.along)
                    assert apart > 0.5 + panel.width / 2, (room.name, panel)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_texture_has_the_size_asked_for_and_repeats(style):
    finish = Finish(style, (200, 120, 60), (30, 60, 90))
    for width, height in ((1.0, 0.5), (0.05, 2.0), (3.0, 0.06)):
        image = paint(finish, width, height, 64.0, seed=3)
        assert image.shape == (max(round(height * 64), 4), max(round(width * 64), 4), 3)
        assert image.dtype == np.uint8
        assert np.array_equal(image, paint(finish, width, height, 64.0, seed=3))


def test_unknown_style_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'planks'"):
        paint(Finish("plank", (1, 2, 3)), 1, 1, 64, 0)
