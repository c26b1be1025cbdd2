"""Places on the earth: both sides of the equator, cities of several zones, positions by degrees."""

import numpy as np
import pytest
from tiny_datasets import gsv_cities, msls, place_name, write_image

from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError, SourceError
from robot_vision.geometry.earth import degrees_of_utm, east_north


def positions(samples):
    return {s.name: s.T_map_camera[:3, 3] for s in samples}


@pytest.mark.parametrize("written", ["letters", "latitudes", "in the zone"])
def test_images_on_both_sides_of_the_equator_are_neighbours(tmp_path, written):
    south = place_name("500010.0", "9999990.0", 90, "37", "M").replace("@37.1@", "@@")
    north = place_name("500010.0", "10.0", 90, "37", "N").replace("@37.1@", "@@")
    if written == "latitudes":
        south, north = south.replace("@M@@", "@@-0.0001@"), north.replace("@N@@", "@@0.0001@")
    elif written == "in the zone":
        south, north = south.replace("@37@M@", "@37M@@"), north.replace("@37@N@", "@37N@@")
    write_image(tmp_path / south, 0)
    write_image(tmp_path / north, 1)
    splits = open_dataset("place_folder", tmp_path, split="train")
    at = positions(splits.train)
    np.testing.assert_allclose(at[north] - at[south], [0, 20, 0], atol=1e-6)
    assert any("1 image is south of the equator and 1 north of it" in n for n in splits.notes)
    write_image(tmp_path / place_name("500010.0", "30.0", 90, "37", "").replace("@37.1@", "@@"), 2)
    with pytest.raises(SourceError, match="neither zone letter nor latitude"):
        open_dataset("place_folder", tmp_path)


def test_bands_of_one_half_stay_as_they_are(tmp_path):
    for i, letter in enumerate("KLM"):
        name = place_name(500000 + i, 9990000, "", "37", letter).replace("@37.1@", "@@")
        write_image(tmp_path / name, i)
    splits = open_dataset("place_folder", tmp_path)
    assert not any("equator" in note for note in splits.notes)
    assert any("northing 9990000" in note for note in splits.notes)


def utm_name(east, north, zone, letter):
    return place_name(f"{east:.3f}", f"{north:.3f}", 90, zone, letter).replace(
        "@37.1@-122.2@", "@@@"
    )


def test_towns_of_two_zones_are_apart_and_a_border_divides_none(tmp_path):
    # 6 degrees east of the meridian of zone 32 is the border to 33: the same distance from both meridians.
    west = [utm_name(690_000 + 10 * i, 6_100_000, "32", "U") for i in range(3)]
    here = metres_to_the_border(west[0])
    east = [
        utm_name(1_000_000 - e, n, "33", "U")
        for e, n in [(690_000 + 10 * i, 6_100_000) for i in range(3)]
    ]
    far = [utm_name(690_000, 6_100_000, "54", "U"), utm_name(690_000, 4_000_000, "54", "S")]
    for i, name in enumerate([*west, *east, *far]):
        write_image(tmp_path / name, i)
    splits = open_dataset("place_folder", tmp_path, split="train")
    at = positions(splits.train)
    border = at[east[0]] - at[west[0]]
    # Symmetric about the border: the way between them is 2 (border - west), and the border is at 12 degrees.
    assert border[0] == pytest.approx(2 * here, rel=2e-3) and abs(border[1]) < 1
    for a, b in ((west[0], far[0]), (far[0], far[1]), (west[0], far[1])):
        assert np.linalg.norm(at[a] - at[b]) > 90_000
    step = np.linalg.norm(at[west[1]] - at[west[0]])
    assert step == pytest.approx(10 / 1.00004, abs=0.01)  # UTM's scale, 190 km from the meridian
    assert any("zone 32 and 33 at 55.0" in note for note in splits.notes), splits.notes


def metres_to_the_border(name):
    """Metres from a place in zone 32 to the border at 12 degrees, along its parallel."""
    fields = name.split("@")
    lat, lon = degrees_of_utm(
        np.array([32]),
        np.array([False]),
        np.array([float(fields[1])]),
        np.array([float(fields[2])]),
    )
    return (
        np.radians(12 - lon[0])
        * 6378137
        * np.cos(np.radians(lat[0]))
        / np.sqrt(1 - 0.00669438 * np.sin(np.radians(lat[0])) ** 2)
    )


def test_degrees_of_utm_are_those_of_published_points():
    # The CN Tower: 43°38'33.24"N, 79°23'13.7"W, zone 17T.
    lat, lon = degrees_of_utm(
        np.array([17]), np.array([False]), np.array([630084.0]), np.array([4833438.0])
    )
    assert lat[0] == pytest.approx(43 + 38 / 60 + 33.24 / 3600, abs=2e-5)
    assert lon[0] == pytest.approx(-(79 + 23 / 60 + 13.7 / 3600), abs=2e-5)
    # On the meridian, northing is 0.9996 of the way from the equator: 4,984,944.4 m at 45 degrees on WGS 84.
    for south, sign in ((False, 1), (True, -1)):
        north = 0.9996 * 4984944.378 * sign + (1e7 if south else 0)
        lat, lon = degrees_of_utm(
            np.array([34]), np.array([south]), np.array([500000.0]), np.array([north])
        )
        assert lat[0] == pytest.approx(45 * sign, abs=1e-7) and lon[0] == pytest.approx(
            21, abs=1e-9
        )


def test_msls_opens_cities_of_two_zones_apart(tmp_path):
    # The same easting and northing in two zones: on one map they would lie on one another.
    msls(tmp_path, "cph", 55.7, 12.5, 347000.0)
    msls(tmp_path, "amsterdam", 52.4, 4.9, 347000.0)
    write_image(tmp_path / "test/miami/query/images/a.jpg", 1)
    splits = open_dataset("msls", tmp_path)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [6, 6, 0]
    assert {s.sequence for s in splits.train} == {"amsterdam/database", "amsterdam/query"}
    at = positions(splits.samples)
    step = (
        at["amsterdam/database/amsterdam-database_1"]
        - at["amsterdam/database/amsterdam-database_0"]
    )
    np.testing.assert_allclose(step, [10, 0, 0])
    apart = at["cph/query/cph-query_0"] - at["amsterdam/database/amsterdam-database_0"]
    np.testing.assert_allclose(apart, [100_000, 1, 0])
    # A heading of 90 degrees looks east.
    assert splits.has_orientation
    by_name = {s.name: s for s in splits.samples}
    np.testing.assert_allclose(
        by_name["cph/query/cph-query_0"].T_map_camera[:3, 2], [1, 0, 0], atol=1e-12
    )
    text = "\n".join(splits.notes)
    assert "4 frames skipped, which are panoramas" in text
    assert "in no list" not in text
    assert "miami/query has no positions (postprocessed.csv): 1 image left out" in text
    assert "amsterdam from x = 0 km, cph from x = 100 km" in text
    one = open_dataset("msls", tmp_path / "train_val/cph")
    assert len(one.samples) == 6
    with pytest.raises(ConfigError, match="'cpf'.*did you mean 'cph'"):
        open_dataset("msls", tmp_path, cities="cpf")


def test_a_city_across_two_zones_is_placed_by_its_degrees(tmp_path):
    msls(tmp_path, "tromso", 55.0, 11.99985, 690000.0)
    splits = open_dataset("msls", tmp_path, split="train")
    at = positions(splits.train)
    names = [f"tromso/database/tromso-database_{i}" for i in range(3)]
    steps = np.diff([at[name] for name in names], axis=0)
    np.testing.assert_allclose(steps, [[10, 0, 0]] * 2, atol=0.05)
    assert any("tromso lies in UTM zones 32 and 33" in note for note in splits.notes)


def test_gsv_cities_keeps_the_images_of_a_place_on_one_side(tmp_path):
    gsv_cities(tmp_path, "London", 12, 51.5, -0.1)
    gsv_cities(tmp_path, "Rio", 8, -22.9, -43.2)
    (tmp_path / "Images/London/extra.jpg").write_bytes(b"x")
    splits = open_dataset("gsv_cities", tmp_path, block_frames=2)
    sides: dict[str, set[str]] = {}
    for side in ("train", "validation", "test"):
        assert splits.split(side)
        for s in splits.split(side):
            sides.setdefault(s.name.rsplit("_", 7)[0] + s.name.split("_")[1], set()).add(side)
    assert len(splits.samples) == 60 and all(len(found) == 1 for found in sides.values())
    at = {n: p for n, p in positions(splits.samples).items() if "London/" in n and "_000_" in n}
    north = np.sort([p[1] for p in at.values()])
    np.testing.assert_allclose(np.diff(north), 100, atol=0.5)
    assert splits.has_orientation
    assert any("London from x = 0 km, Rio from x = 100 km" in note for note in splits.notes)
    assert any("1 image is in the folders of the listed images" in note for note in splits.notes)
    assert len(open_dataset("gsv_cities", tmp_path, cities="Rio").samples) == 24
    (tmp_path / "Dataframes/Rio.csv").write_text("place_id,lat,lon\n1,2,3\n")
    with pytest.raises(
        SourceError, match="Rio.csv lacks the columns year, month, northdeg, city_id"
    ):
        open_dataset("gsv_cities", tmp_path)


def test_metres_of_degrees_agree_with_the_length_of_an_arc():
    # A minute of latitude is 1843 m at the equator and 1861.6 m at the poles (WGS 84).
    for lat, expected in ((0.0, 1842.9), (89.9, 1861.57)):
        found = east_north(np.array([lat, lat + 1 / 60]), np.array([7.0, 7.0]))
        assert np.diff(found[:, 1])[0] == pytest.approx(expected, abs=0.1)
    found = east_north(np.array([60.0, 60.0]), np.array([7.0, 7.01]))
    assert np.diff(found[:, 0])[0] == pytest.approx(557.99, abs=0.2)
