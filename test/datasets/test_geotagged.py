"""Photographs with GPS: tags that Pillow writes, in every container, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from robot_vision.datasets import open_dataset
from robot_vision.errors import SourceError
from robot_vision.geometry.earth import east_north, towns
from robot_vision.images.gps import gps_of

Image = pytest.importorskip("PIL.Image")
IFDRational = pytest.importorskip("PIL.TiffImagePlugin").IFDRational
RHEINE = (52.2766, 7.4347)


def photo(path, lat=None, lon=None, altitude=None, heading=None, north=b"", **gps):
    """Writes a picture whose EXIF says where it was taken."""
    exif, tags = Image.Exif(), {}
    if lat is not None:
        tags[1], tags[3] = "S" if lat < 0 else "N", "W" if lon < 0 else "E"
        for tag, value in ((2, abs(lat)), (4, abs(lon))):
            minutes, rest = int(value % 1 * 60), value * 60 % 1 * 60
            tags[tag] = (float(int(value)), float(minutes), round(rest, 4))
    if altitude is not None:
        tags[5], tags[6] = bytes([altitude < 0]), abs(altitude)
    if heading is not None:
        tags[16], tags[17] = north or "T", heading
    tags |= {int(key[1:]): value for key, value in gps.items()}
    exif[0x8825] = tags
    exif[0x0112] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":  # a TIFF is what EXIF is made of; here without pixels
        path.write_bytes(exif.tobytes().removeprefix(b"Exif\0\0"))
        return path
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("end", ["jpg", "png", "webp", "tif"])
def test_the_place_is_what_pillow_wrote(tmp_path, end):
    file = photo(tmp_path / f"a.{end}", -33.8568, 151.2153, altitude=-3.5, heading=271.25)
    tag = gps_of(file.read_bytes())
    assert tag.lat_deg == pytest.approx(-33.8568, abs=1e-7)
    assert tag.lon_deg == pytest.approx(151.2153, abs=1e-7)
    assert (tag.altitude_m, tag.heading_deg) == (-3.5, 271.25)
    assert gps_of(photo(tmp_path / f"b.{end}").read_bytes()) is None
    below = photo(tmp_path / f"d.{end}", 1.0, 1.0, altitude=2.0, _5=bytes([3]))  # EXIF 3.0
    assert gps_of(below.read_bytes()).altitude_m == -2
    by_compass = photo(tmp_path / f"c.{end}", 1.0, 1.0, heading=20.0, north="M")
    assert gps_of(by_compass.read_bytes()).heading_deg is None


def test_what_is_cut_off_or_no_place_says_so(tmp_path):
    whole = photo(tmp_path / "a.tif", *RHEINE).read_bytes()
    assert gps_of(whole) is not None
    for length in range(0, len(whole), 7):
        try:
            assert gps_of(whole[:length]) in (None, gps_of(whole))
        except ValueError as error:
            assert "its" in str(error)
    rng = np.random.default_rng(0)
    for _ in range(500):  # whatever the bytes say, it is a place, none, or an error of one line
        spoilt = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            spoilt[at] = rng.integers(256)
        try:
            tag = gps_of(bytes(spoilt))
        except ValueError:
            continue
        assert tag is None or (abs(tag.lat_deg) <= 90 and abs(tag.lon_deg) <= 180)
    for bad, words in (
        (photo(tmp_path / "zero.jpg", 0.0, 0.0), "both 0"),
        (photo(tmp_path / "north.jpg", 95.0, 7.0), "95 degrees"),
        (photo(tmp_path / "east.jpg", 9.0, 181.0), "181 degrees"),
        (photo(tmp_path / "over.jpg", *RHEINE, _2=(IFDRational(0, 0),) * 3), "nan degrees"),
        (photo(tmp_path / "sign.jpg", *RHEINE, _1="X"), "no N, S, E or W"),
        (photo(tmp_path / "minutes.jpg", *RHEINE, _2=(52.0, 75.0, 0.0)), "more than 60 minutes"),
        (photo(tmp_path / "seconds.jpg", *RHEINE, _4=(7.0, 26.0, 99.0)), "more than 60 minutes"),
    ):
        with pytest.raises(ValueError, match=words):
            gps_of(bad.read_bytes())


def test_photographs_become_positions_in_metres(tmp_path):
    """A hundred metres north and fifty east of each other, by the length of a degree there."""
    lat, lon = RHEINE
    up, right = 100 / 111_264.0, 50 / (111_320.0 * np.cos(np.radians(lat)))
    photo(tmp_path / "walk" / "1.jpg", lat, lon, altitude=40.0, heading=0.0)
    photo(tmp_path / "walk" / "2.jpg", lat + up, lon, altitude=41.0, heading=90.0)
    photo(tmp_path / "walk" / "3.jpg", lat, lon + right)
    photo(tmp_path / "walk" / "zero.jpg", 0.0, 0.0)
    photo(tmp_path / "walk" / "none.jpg")
    splits = open_dataset("geotagged", tmp_path, validation=0)
    at = {s.name: s.T_map_camera[:3, 3] for s in splits.samples}
    first, second, third = (at[f"walk/{i}.jpg"] for i in (1, 2, 3))
    np.testing.assert_allclose(second - first, [0, 100, 1], atol=0.2)
    np.testing.assert_allclose((third - first)[:2], [50, 0], atol=0.3)
    assert not splits.has_orientation and third[2] == 0
    notes = "\n".join(splits.notes)
    assert "1 frame skipped, has no GPS in EXIF" in notes or "have no GPS" in notes
    assert "both 0" in notes and "walk/zero.jpg" in notes and "1 image without altitude" in notes
    assert "latitude 52.27" in notes


def test_a_folder_without_gps_is_refused_with_the_reason(tmp_path):
    photo(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match="no image with GPS"):
        open_dataset("geotagged", tmp_path)
    with pytest.raises(SourceError, match="is not a folder: give the folder"):
        open_dataset("geotagged", photo(tmp_path / "b.jpg", *RHEINE))


@pytest.mark.parametrize(
    ("lat", "lon"), [(-17.0, 180.0), (90.0, 0.0), (-90.0, 12.0), (60.0, -180.0)]
)
def test_neither_the_date_line_nor_a_pole_tears_a_town(lat, lon):
    """Points on a ring of a kilometre are a kilometre from their middle, and of one town."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    if abs(lat) == 90:
        lats, lons = np.full(12, np.sign(lat) * (90 - 1 / 111.694)), np.degrees(angle) - 180
    else:
        lats = lat + np.sin(angle) / 110.9
        lons = lon + np.cos(angle) / (111.4 * np.cos(np.radians(lat)))
        lons = (lons + 180) % 360 - 180
    assert set(towns(lats, lons)) == {0}
    xy = east_north(lats, lons)
    away = np.linalg.norm(xy - xy.mean(axis=0), axis=1)
    np.testing.assert_allclose(away, 1000, atol=8)
