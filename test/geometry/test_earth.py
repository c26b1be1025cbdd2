"""The earth: positions and distances against PROJ, and cells that tile it without a seam."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.errors import ConfigError
from robot_vision.geometry.earth import (
    RADIUS_M,
    apart_m,
    degrees_of_east_north,
    degrees_of_normals,
    east_north,
    east_north_up,
    normals,
    normals_of,
    on_earth,
    parsed_datum,
)
from robot_vision.geometry.earth_cells import MOST_LEVEL, EarthCells, level_of, squares_of

# Both poles, the date line from both sides, where faces of the cube meet, and where three do.
HARD = [
    (90, 0),
    (-90, 77),
    (0, 180),
    (0, -180),
    (-17, 179.9999),
    (-17, -179.9999),
    (0, 45),
    (45, 0),
]
HARD += [(np.degrees(np.arctan(0.5**0.5)), lon) for lon in (45, 135, -135, -45)]


def everywhere(count=500, seed=0):
    """Normals (N, 3) spread evenly, and those that are hard."""
    n = np.random.default_rng(seed).normal(size=(count, 3))
    hard = normals(*np.array(HARD, np.float64).T)
    return np.concatenate([n / np.linalg.norm(n, axis=1, keepdims=True), hard])


def squares(n, level):
    face, steps = squares_of(n, level)
    return np.column_stack([face, np.full(len(face), level), steps])


def test_positions_from_the_middle_of_the_earth_are_those_of_proj():
    pyproj = pytest.importorskip("pyproj")
    n = everywhere()
    lat, lon = degrees_of_normals(n)
    height = np.random.default_rng(1).uniform(-5e3, 90e3, len(n))
    to_ecef = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    expected = np.stack(to_ecef.transform(lon, lat, height), axis=-1)
    np.testing.assert_allclose(on_earth(n, height), expected, atol=1e-6)
    back, found = normals_of(expected)
    np.testing.assert_allclose(back * RADIUS_M, n * RADIUS_M, atol=1e-6)
    np.testing.assert_allclose(found, height, atol=1e-6)
    assert np.isnan(normals_of(np.full((1, 3), np.nan))[0]).all()


def test_great_circles_are_within_six_thousandths_of_geodesics():
    pyproj = pytest.importorskip("pyproj")
    a = everywhere()
    for b in (np.random.default_rng(2).permutation(a), a + 1e-4 * everywhere(seed=3)):
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        (lat, lon), (lat_b, lon_b) = degrees_of_normals(a), degrees_of_normals(b)
        true = pyproj.Geod(ellps="WGS84").inv(lon, lat, lon_b, lat_b)[2]
        far = true > 1
        assert np.abs(apart_m(a, b)[far] / true[far] - 1).max() < 0.006


@pytest.mark.parametrize("datum", [(52.2766, 7.4347), (-17.0, 179.99), (89.99, 30.0), (0.0, 0.0)])
def test_a_plane_there_and_back(datum):
    """And it is the east and north of PROJ's topocentric coordinates."""
    xy = np.random.default_rng(0).uniform(-2e4, 2e4, (200, 2))
    lat, lon = degrees_of_east_north(xy, datum)
    np.testing.assert_allclose(east_north(lat, lon, datum), xy, atol=1e-6)
    pyproj = pytest.importorskip("pyproj")
    to_enu = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +proj=cart +ellps=WGS84 "
        f"+step +proj=topocentric +ellps=WGS84 +lat_0={datum[0]} +lon_0={datum[1]} +h_0=0"
    )
    east, north, _ = to_enu.transform(lon, lat, np.zeros(200))
    np.testing.assert_allclose(np.column_stack([east, north]), xy, atol=1e-6)


def test_axes_are_east_north_and_up():
    n = everywhere()
    axes = east_north_up(n)
    np.testing.assert_allclose(
        axes @ axes.swapaxes(1, 2), np.tile(np.eye(3), (len(n), 1, 1)), atol=1e-12
    )
    assert (np.linalg.det(axes) > 0.99).all()
    lat, lon = degrees_of_normals(n[:500] + 1e-6 * axes[:500, 1])  # a step to the north
    assert (lat > degrees_of_normals(n[:500])[0]).all()


@pytest.mark.parametrize("bad", ["91,0", "0,361", "nan,0", "0", "north", "1,2,3", "0,inf"])
def test_what_is_no_datum_is_refused(bad):
    with pytest.raises(ConfigError, match="latitude,longitude in degrees, or earth"):
        parsed_datum(bad)


# Cells


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_cells_of_a_level_tile_the_earth(level):
    size = 1 << level
    rows = [(f, level, i, j) for f in range(6) for i in range(size) for j in range(size)]
    cells, n = EarthCells(np.array(rows)), everywhere(1000)
    within = cells.distances(n) == 0
    assert (within.sum(axis=1)[:1000] == 1).all(), "every place is in one cell"
    assert within.any(axis=1).all(), "also at poles, the date line and where faces meet"
    assert within[np.arange(len(n)), [rows.index(tuple(s)) for s in squares(n, level)]].all()
    some = EarthCells(cells.cells[:: 2 + level])
    away = some.distances(n)
    of, metres = some.nearest(n)
    assert (of == away.argmin(axis=1)).all() and (metres == away.min(axis=1)).all()
    a, b, c, d = np.moveaxis(cells.corners, 1, 0)

    def triangle(a, b, c):  # solid angle, Van Oosterom and Strackee 1983
        volume = np.einsum("ki,ki->k", a, np.cross(b, c))
        return 2 * np.arctan2(volume, 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1))

    area = triangle(a, b, c) + triangle(a, c, d)
    assert area.sum() == pytest.approx(4 * np.pi)
    assert area.max() / area.min() < 2**0.5
    assert cells.sides_m.max() / cells.sides_m.min() < 1.25


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, MOST_LEVEL))
def test_distance_to_a_cell_is_that_to_the_nearest_point_of_its_rim(seed, level):
    rng = np.random.default_rng(seed)
    cell = EarthCells(squares(everywhere(1, seed)[:1], level))
    n = everywhere(50, seed + 1)
    near = cell.centres + rng.normal(size=(50, 3)) * 3 * cell.sides_m[0] / RADIUS_M
    n = np.concatenate([n, near / np.linalg.norm(near, axis=1, keepdims=True)])
    found = cell.distances(n)[:, 0]
    t = np.linspace(0, 1, 1000)[:, None]
    rim = [
        (1 - t) * a + t * b
        for a, b in zip(*(np.roll(cell.corners[0], -k, 0) for k in (0, 1)), strict=True)
    ]
    rim = np.concatenate(rim)
    rim /= np.linalg.norm(rim, axis=1, keepdims=True)
    nearest = apart_m(n[:, None], rim).min(axis=1)
    outside = found > 0
    step = cell.sides_m[0] / 500
    assert (found[outside] <= nearest[outside] + 1e-6).all()
    assert (found[outside] >= nearest[outside] - step - 1e-6).all()
    own = (squares(n, level) == cell.cells).all(axis=1)
    assert (~outside)[own].all() and cell.distances(cell.centres)[0, 0] == 0


def test_levels_are_those_of_sides():
    assert level_of(1e9) == 0 and level_of(1e-9) == MOST_LEVEL
    for side in (50.0, 1e3, 1e5, 1e6):
        n = everywhere()
        sides = EarthCells(squares(n, level_of(side))).sides_m
        assert (sides > 0.77 * side).all() and (sides < 2.01 * side).all()
