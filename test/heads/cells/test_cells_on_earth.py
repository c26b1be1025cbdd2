"""Cells on the earth: adaptive cells of photographs, soft labels, kilometres, fixes; and what is refused."""

import json

import numpy as np
import pytest
from test_cells import HEAD, judged, message_of, spec_of

from robot_vision.contract.head import Material
from robot_vision.contract.training import DataFacts
from robot_vision.errors import ConfigError, SourceError
from robot_vision.geometry.earth import (
    RADIUS_M,
    apart_m,
    degrees_of_east_north,
    degrees_of_normals,
    east_north_up,
    normals,
    on_earth,
)
from robot_vision.geometry.earth_cells import EarthCells, squares_of
from robot_vision.heads.cells.fix import fix_of
from robot_vision.heads.cells.partition import divide_earth
from robot_vision.settings.mappings import from_mapping

BERLIN, FIJI = (52.52, 13.405), (-17.0, 180.0)


def around(place, count, sigma_m, seed=0):
    """Normals (N, 3) about latitude and longitude."""
    up = normals(*(np.array(v) for v in place))
    east, north, _ = east_north_up(up)
    xy = np.random.default_rng(seed).normal(0, sigma_m, (count, 2))
    n = up + (xy[:, :1] * east + xy[:, 1:] * north) / RADIUS_M
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def trained(n, datum="earth", **network):
    return HEAD.trainer().spec(network, DataFacts(positions=on_earth(n, 40.0), datum=datum))


def earth_spec(cells, **more):
    return spec_of(cells, plane="earth", map_frame="earth", **more)


def squares_at(*places, level=6):
    """Cells of a level that hold places."""
    face, steps = squares_of(normals(*np.array(places, np.float64).T), level)
    return np.column_stack([face, np.full(len(face), level), steps])


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


# Partition


@pytest.mark.parametrize("place", [BERLIN, FIJI, (90.0, 0.0), (-90.0, 30.0), (35.2644, 45.0)])
def test_a_town_is_cut_as_finely_wherever_it_is(place):
    """Across the date line, at poles and where three faces of the cube meet as well."""
    wide, alone = around((10.0, 20.0), 30, 1e6), around((0.0, -60.0), 1, 1.0)
    n = np.concatenate([around(place, 900, 2000.0), wide, alone])
    cells, images = divide_earth(n, 40, 2, 50.0)
    ground = earth_spec(cells, images=images.tolist()).ground
    within = ground.distances(n) == 0
    assert (within.sum(axis=1) <= 1).all() and (within.sum(axis=0) == images).all()
    assert images.max() <= 40 and images.min() >= 2
    assert not within[-1].any(), "a place with one image has no cell"
    facts = DataFacts(positions=on_earth(n), datum="earth")
    spec = HEAD.trainer().spec({"most_images": 40}, facts)
    left = len(n) - int(images.sum())
    (note,) = HEAD.trainer().notes(spec, facts)
    assert left > 0 and note.startswith(f"{left} training image") and "fewer than 2" in note
    sides = ground.sides_m[within[:900].any(axis=0)]
    assert len(sides) > 25 and np.median(sides) < 3000 and sides.min() >= 0.77 * 50
    assert ground.sides_m[within[900:930].any(axis=0)].min() > 50 * np.median(sides)
    again, _ = divide_earth(n, 40, 2, 50.0)
    assert (again == cells).all()


def test_cells_of_two_continents_are_kept_in_the_bundle():
    n = np.concatenate([around(BERLIN, 300, 3000.0), around(FIJI, 300, 500.0, 1)])
    spec = trained(n)
    assert (spec.plane, spec.map_frame, spec.smallest_m) == ("earth", "map", 50.0)
    settings, files = HEAD.to_bundle(spec)
    assert files["cells.csv"].splitlines()[0] == b"face,level,column,row,images"
    assert b"." not in files["cells.csv"]
    assert from_mapping(HEAD.Spec, "cells", HEAD.from_bundle(settings, files)) == spec
    assert "on the earth" in HEAD.about(spec)
    lat, lon = degrees_of_normals(spec.ground.centres)
    assert {round(v) for v in lat} <= {52, 53, -17}
    assert (lon > 179.9).any() and (lon < -179.9).any(), "on both sides of the date line"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ((6, 1, 0, 0), "a face from 0 to 5"), ((0, 31, 0, 0), "a level up to 30"), ((0, 1, 2, 0), "a column"),
        ((0, 1, 0.5, 0), "a column"), ((0, -1, 0, 0), "a level"), ((np.nan, 1, 0, 0), "a face"),
    ],
)  # fmt: skip
def test_what_is_no_cell_of_the_earth_is_refused(cell, words):
    with pytest.raises(ConfigError, match=words):
        earth_spec([(0, 1, 0, 0), cell])


def test_data_that_cannot_be_cut_say_why():
    one = around(BERLIN, 200, 0.0)
    with pytest.raises(
        ConfigError, match=r"200 training positions make 1 cell .* within 0 m of the first"
    ):
        trained(one)
    alone = np.concatenate([around(BERLIN, 1, 0), around(FIJI, 1, 0)])
    with pytest.raises(ConfigError, match="2 training positions make 0 cells? "):
        trained(alone)
    two = np.concatenate([around(BERLIN, 50, 1e4), around(FIJI, 50, 1e4)])
    with pytest.raises(ConfigError, match="plane is 'xy': positions from the middle of the earth"):
        trained(two, plane="xy")
    facts = DataFacts(positions=np.random.default_rng(0).normal(0, 20, (90, 3)))
    with pytest.raises(
        SourceError, match=r"90 of 90 positions are not on the ground.* datum: earth"
    ):
        HEAD.trainer().spec({"plane": "earth"}, facts)
    local = DataFacts(positions=np.random.default_rng(0).normal(0, 20, (90, 3)), datum="91,0")
    with pytest.raises(ConfigError, match="datum is '91,0'"):
        HEAD.trainer().spec({}, local)
    with pytest.raises(ConfigError, match="plane is 'xz': it must be xy where there is a datum"):
        HEAD.trainer().spec({"plane": "xz", "datum": "1,2"}, local)


# Loss


def labels_of(cells, n, sigma_m, has=None):
    torch = pytest.importorskip("torch")
    given = {} if sigma_m is None else {"sigma_m": sigma_m}
    loss = HEAD.trainer().make_loss(
        "soft_cells", cells=torch.tensor(np.asarray(cells, np.float64)), plane="earth", **given
    )
    poses = np.tile(np.eye(4), (len(n), 1, 1))
    poses[:, :3, 3] = on_earth(n)
    has = torch.ones(len(n), dtype=torch.bool) if has is None else torch.tensor(has)
    return loss.labels(torch.from_numpy(poses), has).numpy()


@pytest.mark.slow
def test_soft_labels_are_shares_of_a_gaussian_on_the_ground():
    """At the date line, where faces of the cube meet there; cells of 2.4 km, a Gaussian of 1 km."""
    places = [(-17 + 0.02 * i, 180 + 0.02 * j) for i in range(-3, 4) for j in range(-3, 4)]
    cells = np.unique(squares_at(*places, level=12), axis=0)
    n = around(FIJI, 4, 800.0)
    found = labels_of(cells, n, 1000.0)
    for i in range(4):
        lat, lon = (float(v) for v in degrees_of_normals(n[i]))
        held = EarthCells(cells).distances(around((lat, lon), 5000, 1000.0, seed=i)) == 0
        np.testing.assert_allclose(found[i], held.mean(axis=0) / held.mean(axis=0).sum(), atol=0.03)
    np.testing.assert_allclose(labels_of(cells, n, None).sum(axis=1), 1)
    hard = labels_of(cells, n, 0.0)
    assert (hard == (EarthCells(cells).distances(n) == 0)).all() and (hard.sum(axis=1) == 1).all()


def test_the_other_side_of_the_earth_and_images_without_a_place_teach_nothing():
    cells = squares_at(BERLIN, FIJI, level=3)
    berlin, fiji = normals(*np.array([BERLIN, FIJI]).T)
    n = np.stack([-berlin, -fiji, berlin, berlin])
    found = labels_of(cells, n, 50e3, has=[True, True, True, False])
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [1, 0], [0, 0]], atol=1e-9)
    wide = labels_of(squares_at(BERLIN, (52.52, 20.0), level=5), np.stack([berlin] * 2), 300e3)
    assert wide[0, 0] > wide[0, 1] > 0.01 and wide[0].sum() == pytest.approx(1)


# Answers and messages


def test_two_continents_are_two_peaks_and_no_fix():
    spec = earth_spec(squares_at(BERLIN, FIJI, level=8))
    both = HEAD.Answer(spec.ground, np.array([0.45, 0.55], np.float32))
    fix = fix_of(both, "")
    assert (
        fix.lat_deg == pytest.approx(-17, abs=0.3) and fix.sure and both.peak == pytest.approx(0.55)
    )
    away = float(apart_m(*spec.ground.centres))
    assert both.spread_m == pytest.approx(np.sqrt(0.45) * away, rel=1e-3) and away > 15e6
    values = np.linalg.eigvalsh(fix.covariance)
    assert values[1] == pytest.approx(0.45 * away**2, rel=1e-3) and 0 < values[0] < 1e9
    assert 0.4e7 < apart_m(spec.ground.centres, both.expected).min(), "between them nobody is"
    torn = earth_spec(squares_at(BERLIN, FIJI, (40.7, -74.0), level=8))
    answer = HEAD.Answer(torn.ground, np.array([0.4, 0.3, 0.3], np.float32))
    assert not fix_of(answer, "").sure
    opposite = earth_spec(squares_at((0.1, 0.1), (-0.1, -179.9), level=8))
    half = HEAD.Answer(opposite.ground, np.array([0.5, 0.5], np.float32))
    assert np.isfinite(half.expected).all() and np.isfinite(fix_of(half, "").covariance).all()


def test_a_fix_covers_what_is_drawn_from_its_probabilities():
    n = around(FIJI, 400, 2000.0)
    spec = trained(n)
    p = softmax(np.random.default_rng(0).normal(0, 1.5, (1, len(spec.images))))[0]
    answer, rng = HEAD.Answer(spec.ground, p), np.random.default_rng(1)
    corners = spec.ground.squares.corners[rng.choice(len(p), 40_000, p=p / p.sum())]
    u, v = rng.uniform(size=(2, 40_000, 1))
    drawn = (1 - v) * ((1 - u) * corners[:, 0] + u * corners[:, 1]) + v * (
        (1 - u) * corners[:, 3] + u * corners[:, 2]
    )
    east, north, _ = east_north_up(answer.centre)
    xy = RADIUS_M * np.stack([drawn @ east, drawn @ north], axis=1)
    fix = fix_of(answer, "")
    np.testing.assert_allclose(fix.covariance, xy.T @ xy / len(xy), rtol=0.05, atol=2e4)
    assert answer.spread_m == pytest.approx(np.sqrt(np.trace(fix.covariance)), rel=1e-3)


def test_messages_say_where_on_the_earth():
    spec = earth_spec(squares_at(BERLIN, FIJI, level=8))
    answer = HEAD.Answer(spec.ground, np.array([0.9, 0.1], np.float32))
    assert [t.name for t in HEAD.topics(spec)] == ["cell_points", "cell_fix"]
    assert [t.name for t in HEAD.topics(None)] == ["cells", "cell_points", "cell_fix"]
    message = message_of("cell_fix", spec, answer, frame="")
    assert message.header.frame_id == "optical" and message.header.stamp.sec == 5
    assert (message.status.status, message.status.service) == (0, 0)
    assert np.isnan(message.altitude) and message.position_covariance_type == 1
    assert (message.latitude, message.longitude) == pytest.approx(BERLIN, abs=0.3)
    covariance = np.asarray(message.position_covariance).reshape(3, 3)
    np.testing.assert_allclose(covariance[:2, :2], fix_of(answer, "").covariance)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    unsure = HEAD.Answer(spec.ground, np.array([0.5, 0.5], np.float32))
    assert (
        message_of("cell_fix", spec, unsure).status.status == 0
    )  # half of it is in the one it names
    cloud = message_of("cell_points", spec, answer, frame="")
    assert cloud.header.frame_id == "earth"
    found = np.frombuffer(bytes(cloud.data), "<f4").reshape(-1, 5)
    np.testing.assert_allclose(found[:, :3], on_earth(spec.ground.centres), atol=0.5)
    said = HEAD.json(answer, spec, HEAD.options({}), None)
    assert said["best"][0]["centre"] == pytest.approx(BERLIN, abs=0.3)
    assert (
        said["fix"]["sure"] and said["fix"]["spread_m"] > 1e6 and said["within"]["2500000"] < 0.91
    )
    json.dumps(said, allow_nan=False)
    assert HEAD.cell(answer, spec, None).split()[1] == "N"


def test_a_map_with_a_datum_says_where_on_the_earth_too():
    xy = np.random.default_rng(0).uniform(-300, 300, (500, 2))
    xyz = np.column_stack([xy, np.full(500, 1.0)])
    spec = HEAD.trainer().spec({}, DataFacts(positions=xyz, datum="-17.0,179.9999"))
    assert (spec.plane, spec.datum) == ("xy", "-17.0,179.9999")
    p = np.full(len(spec.images), 0.2 / (len(spec.images) - 1), np.float32)
    p[3] = 0.8
    answer = HEAD.Answer(spec.ground, p)
    assert [t.name for t in HEAD.topics(spec)] == ["cells", "cell_points", "cell_fix"]
    message = message_of("cell_fix", spec, answer)
    lat, lon = degrees_of_east_north(answer.centre[None], (-17.0, 179.9999))
    assert (message.latitude, message.longitude) == pytest.approx((lat[0], lon[0]))
    assert "fix" in HEAD.json(answer, spec, HEAD.options({}), None)
    plain = HEAD.trainer().spec({}, DataFacts(positions=xyz))
    assert plain.datum == "" and [t.name for t in HEAD.topics(plain)] == ["cells", "cell_points"]
    assert "fix" not in HEAD.json(HEAD.Answer(plain.ground, p), plain, HEAD.options({}), None)
    assert HEAD.resolve(HEAD.options({}), plain, Material()).map_frame == "map"


# Measures


def test_measures_on_the_earth_agree_with_their_definitions():
    berlin, fiji = around(BERLIN, 150, 20e3), around(FIJI, 150, 1000.0, 1)
    n = np.concatenate([berlin, fiji, around((40.7, -74.0), 60, 3e5, 2)])
    spec = trained(n)
    rng = np.random.default_rng(0)
    away = np.stack([apart_m(spec.ground.centres, each) for each in n])
    p = softmax(-away / 20e3 + rng.normal(0, 2, away.shape))
    found = judged(spec, p, on_earth(n, rng.uniform(0, 300, len(n))))
    (lat, lon), (lat_c, lon_c) = degrees_of_normals(n), degrees_of_normals(spec.ground.centres)
    best = p.argmax(axis=1)
    a, b = np.radians(lat), np.radians(lat_c[best])  # haversines, as Im2GPS and PlaNet are measured
    half = np.sin((b - a) / 2) ** 2
    half += np.cos(a) * np.cos(b) * np.sin(np.radians(lon_c[best] - lon) / 2) ** 2
    error = 2 * RADIUS_M * np.arcsin(np.sqrt(half))
    assert found["median_m"]["value"] == pytest.approx(np.median(error), rel=1e-6)
    for km in (1, 25, 200, 750, 2500):
        assert found[f"within_{km}km"]["value"] == pytest.approx((error <= 1000 * km).mean())
        prior = found["baselines"]["prior"][f"within_{km}km"]["value"]
        assert 0 <= prior <= 1
    assert 0.1 < found["within_25km"]["value"] < 1 and "within_5m" in found
    within = spec.ground.distances(n) == 0
    assert found["covered"]["value"] == pytest.approx(within.any(axis=1).mean())
    true = spec.ground.distances(n).argmin(axis=1)
    nll = -np.log(np.maximum(p[np.arange(len(n)), true].astype(np.float64), 1e-12)).mean()
    assert found["nll"]["value"] == pytest.approx(nll, rel=1e-5)
    with pytest.raises(SourceError, match="not on the ground of the earth"):
        judged(spec, p, np.zeros((len(n), 3)))
