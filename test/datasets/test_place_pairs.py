"""Which images of two folders show the same places: by names, tables, VPR-Bench's list, and along a route."""

import io
import os

import cv2
import numpy as np
import pytest

from robot_vision.datasets.place_pairs import VPR_BENCH, open_pairs
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files import object_arrays
from robot_vision.files.object_arrays import load_object_array


def folder(path, names):
    path.mkdir(parents=True)
    image = np.zeros((4, 4, 3), np.uint8)
    for name in names:
        assert cv2.imwrite(str(path / name), image)
    return path


def utm(*places, zone="54", letter="S"):
    return [f"@{e}@{n}@{zone}@{letter}@@@@@@@@@@{i}@.jpg" for i, (e, n) in enumerate(places)]


def right(pairs):
    return [numbers.tolist() for numbers in pairs.right]


def test_utm_names_are_right_within_the_radius(tmp_path):
    known = folder(
        tmp_path / "db", utm((100.0, 200.0), (110.0, 200.0), (125.0, 200.0), (900.0, 1.0))
    )
    asked = folder(tmp_path / "q", utm((100.0, 200.0), (500.0, 500.0)))
    pairs = open_pairs(known, asked)
    by_name = [{float(pairs.database[i].name.split("@")[1]) for i in row} for row in pairs.right]
    assert by_name == [{100.0, 110.0, 125.0}, set()]  # 25 m counts
    pairs = open_pairs(known, asked, within_m=12.0)
    assert len(pairs.right[0]) == 2 and "12 m" in pairs.rule


def test_positions_of_two_zones_are_refused(tmp_path):
    known = folder(tmp_path / "db", utm((1.0, 2.0)))
    asked = folder(tmp_path / "q", utm((1.0, 2.0), zone="55"))
    with pytest.raises(SourceError, match="2 UTM zones"):
        open_pairs(known, asked)


def test_names_of_gsv_cities_are_degrees(tmp_path):
    def name(place, lat, lon):
        return f"Osaka_{place:07d}_2012_07_313_{lat}_{lon}_AbC-_x.jpg"

    step = 20 / 111_195  # degrees of latitude in 20 m, on the mean sphere
    known = folder(tmp_path / "db", [name(1, 34.7, 135.5), name(2, 34.7 + 2 * step, 135.5)])
    asked = folder(tmp_path / "q", [name(3, 34.7 + 0.5 * step, 135.5)])
    assert right(open_pairs(known, asked)) == [[0]]
    assert right(open_pairs(known, asked, within_m=31.0)) == [[0, 1]]


def test_mapillarys_tables_say_where_and_what_is_left_out(tmp_path):
    for side, rows in (("database", "a,100,0\nb,140,0\n"), ("query", "c,105,0\n")):
        folder(
            tmp_path / side / "images",
            ["a.jpg", "b.jpg"] if side == "database" else ["c.jpg", "d.jpg"],
        )
        (tmp_path / side / "postprocessed.csv").write_text(f"key,easting,northing\n{rows}")
    pairs = open_pairs(tmp_path / "database", tmp_path / "query")
    assert right(pairs) == [[0]] and [q.stem for q in pairs.queries] == ["c"]
    assert "1 image" in pairs.notes[-1] and "without a row" in pairs.notes[-1]
    (tmp_path / "query" / "postprocessed.csv").write_text("key,easting,northing\nc,nan,0\n")
    with pytest.raises(SourceError, match="easting and northing"):
        open_pairs(tmp_path / "database", tmp_path / "query")


def test_a_route_counts_images_in_their_natural_order(tmp_path):
    known = folder(tmp_path / "summer", [f"{i}.png" for i in range(12)])
    asked = folder(tmp_path / "winter", [f"{i}.png" for i in range(12)])
    pairs = open_pairs(known, asked, tolerance=1)
    assert right(pairs)[:2] == [[0, 1], [0, 1, 2]] and right(pairs)[11] == [10, 11]
    assert pairs.database[10].name == "10.png"
    with pytest.raises(ConfigError, match="--within and --tolerance exclude each other"):
        open_pairs(known, asked, within_m=5.0, tolerance=1)
    with pytest.raises(SourceError, match="has 12 images and the queries 3"):
        open_pairs(known, folder(tmp_path / "other", ["1.png", "2.png", "3.png"]), tolerance=1)


def vpr_bench(path, rows):
    known = folder(path / "ref", [f"{i:07d}.jpg" for i in range(4)])
    asked = folder(path / "query", [f"{i:07d}.jpg" for i in range(len(rows))])
    table = np.empty((len(rows), 2), object)
    for i, (query, images) in enumerate(rows):
        table[i] = query, images
    np.save(path / VPR_BENCH, table, allow_pickle=True)
    return known, asked


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_vpr_benchs_list_is_read(tmp_path, kind):
    rows = [(0, kind([1, 2])), (np.int64(1), kind([3])), (2, kind([0]))]
    known, asked = vpr_bench(tmp_path, rows)
    pairs = open_pairs(known, asked)
    assert right(pairs) == [[1, 2], [3], [0]] and VPR_BENCH in pairs.rule
    assert not pairs.notes
    assert "--within is not used" in open_pairs(known, asked, within_m=5.0).notes[0]


def test_a_list_that_does_not_fit_is_refused(tmp_path):
    known, asked = vpr_bench(tmp_path / "a", [(0, [1]), (1, [4])])
    with pytest.raises(SourceError, match="query 1 has image 4, and the database 4"):
        open_pairs(known, asked)
    known, asked = vpr_bench(tmp_path / "c", [(0, [-1, 2])])
    with pytest.raises(SourceError, match="query 0 has image -1, and the database 4"):
        open_pairs(known, asked)
    known, asked = vpr_bench(tmp_path / "b", [(0, [1]), (2, [1])])
    with pytest.raises(SourceError, match="lists 2 queries, and there are 2 images"):
        open_pairs(known, asked)


class Code:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_list_that_would_run_code_is_refused_and_runs_none(tmp_path):
    mark = tmp_path / "ran"
    known, asked = vpr_bench(tmp_path / "set", [(0, [Code(mark)])])
    with pytest.raises(SourceError, match="may run code: it calls (posix|os).system"):
        open_pairs(known, asked)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u2", "<f4"])
def test_object_arrays_are_what_numpy_reads(tmp_path, protocol, dtype):
    ragged = np.empty(3, object)
    ragged[:] = [np.arange(5, dtype=dtype), [1, 2.5], np.asfortranarray(np.arange(6).reshape(2, 3))]
    stream = io.BytesIO()
    np.lib.format.write_array(stream, ragged, allow_pickle=True, pickle_kwargs={})
    header = stream.getvalue()
    import pickle

    start = header.index(b"\n") + 1
    file = tmp_path / "a.npy"
    file.write_bytes(header[:start] + pickle.dumps(ragged, protocol=protocol))
    found = load_object_array(file)
    np.testing.assert_array_equal(found[0], ragged[0])
    assert found[1] == [1, 2.5]
    np.testing.assert_array_equal(found[2], ragged[2])


def test_numbers_need_no_following(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    np.testing.assert_array_equal(load_object_array(tmp_path / "a.npy"), np.eye(3))


@pytest.mark.parametrize("cut", [130, 160, 200, 260])
def test_damaged_objects_are_refused(tmp_path, cut):
    known, asked = vpr_bench(tmp_path, [(0, np.arange(3)), (1, np.arange(2))])
    file = tmp_path / VPR_BENCH
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(SourceError, match="cannot be read"):
        open_pairs(known, asked)


def object_array(file, shape, program):
    """Writes an array of objects whose state is what a program leaves on the stack."""
    np.save(file, np.empty(1, object), allow_pickle=True)
    content = file.read_bytes()
    made = b"cnumpy._core.multiarray\n_reconstruct\n(tR(I1\n"
    made += shape + b"cnumpy\ndtype\n(S'O8'\ntRI00\n" + program + b"tb."
    file.write_bytes(content[: content.index(b"\n") + 1] + made)


def test_a_small_file_of_many_objects_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(object_arrays, "MAX_OBJECTS", 10_000)
    file = tmp_path / "a.npy"
    program = b"(" + b"I1\n" * 60 + b"lp0\n"
    for i in range(1, 3):  # a list that holds the one before 60 times
        program = b"(" + program + b"g%d\n" % (i - 1) * 59 + b"lp%d\n" % i
    object_array(file, b"(I60\nt", program)
    assert file.stat().st_size < 1000
    with pytest.raises(ValueError, match="more than 10000 objects"):
        load_object_array(file)


def test_empty_rows_are_not_made_by_number(tmp_path):
    file = tmp_path / "a.npy"
    object_array(file, b"(I1000000000000\nI0\nt", b"]")
    assert load_object_array(file) == []


def test_without_any_sign_of_places_the_remedy_is_said(tmp_path):
    known, asked = folder(tmp_path / "a", ["1.png"]), folder(tmp_path / "b", ["1.png"])
    with pytest.raises(ConfigError, match="give --tolerance"):
        open_pairs(known, asked)
    with pytest.raises(SourceError, match="has no images"):
        (tmp_path / "empty").mkdir()
        open_pairs(tmp_path / "empty", asked)


def test_changed_bytes_give_numbers_or_one_kind_of_error(tmp_path):
    """Whatever a file says, nobody sees another error than ValueError."""
    vpr_bench(tmp_path, [(0, np.arange(3)), (1, [1, 2]), (2, (3,))])
    file = tmp_path / VPR_BENCH
    content, rng = file.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        for at in rng.integers(6, len(content), rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        file.write_bytes(changed)
        try:
            load_object_array(file)
        except ValueError:
            refused += 1
    assert refused > 100
