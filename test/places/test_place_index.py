"""The index of places next to brute force, its cache, and what grows while it is searched."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from place_maps import keyframe, make_map, server, server_uri, unit, uri

from benchmarks.place_world import PlaceWorld
from robot_vision.errors import ConfigError
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.index.index_cache import cache_path, open_index, read_cache, refresh
from robot_vision.places.index.options import IndexOptions
from robot_vision.places.map.base import MapReplacedError, PlaceMap
from robot_vision.text.address import is_server

__all__ = ["server", "server_uri", "uri"]  # fixtures
SMALL = IndexOptions(exact_numbers=16 * 1000)  # so that some thousand places have cells


def clustered(count: int, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """Returns unit vectors (count, D) in rooms of about fifty."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // 50), dimension))
    vectors = centres[rng.integers(0, len(centres), count)]
    vectors = vectors + 0.35 * rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(places: PlaceMap, vectors: NDArray[np.float32]) -> None:
    places.add_many(
        keyframe(i, descriptor=v, thumbnail=None, covariance=None) for i, v in enumerate(vectors)
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove"]), st.lists(st.integers(0, 30), max_size=8)),
        max_size=12,
    ),
    st.integers(1, 12),
)
def test_any_order_of_adds_and_removals_finds_what_brute_force_finds(
    steps: list[tuple[str, list[int]]], k: int
) -> None:
    index = PlaceIndex(16)
    there: set[int] = set()
    for verb, ids in steps:
        if verb == "add":
            index.add(ids, np.array([unit(i) for i in ids]).reshape(-1, 16))
            there |= set(ids)
        else:
            assert index.remove(ids) == len(there & set(ids))
            there -= set(ids)
        assert len(index) == len(there)
        found, similarities = index.search(unit(99), k)
        known = np.array(sorted(there), np.int64)
        cosines = np.array([unit(int(i)) @ unit(99) for i in known], np.float32)
        order = np.argsort(-cosines, kind="stable")[:k]
        assert found[0, : len(order)].tolist() == known[order].tolist()
        np.testing.assert_allclose(similarities[0, : len(order)], cosines[order], atol=1e-6)
        assert np.all(found[0, len(order) :] == -1)
        assert np.all(np.isneginf(similarities[0, len(order) :]))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.14, 0.9])
def test_an_inverted_index_finds_what_the_exact_one_finds(noise: float) -> None:
    """Also where places hardly form clusters, since the cells to look into are measured."""
    places, queries = PlaceWorld(12_000, 64).arrays(400)
    rng = np.random.default_rng(3)
    places, queries = (
        (a + noise * rng.normal(size=a.shape).astype(np.float32) / 8) for a in (places, queries)
    )
    places, queries = ((a / np.linalg.norm(a, axis=1)[:, None]) for a in (places, queries))
    index = PlaceIndex(64, IndexOptions(exact_numbers=0))
    index.add(np.arange(len(places)), places)
    assert index.kind == "inverted"
    exact = faiss.IndexFlatIP(64)
    exact.add(places)
    expected = exact.search(queries, 10)[1]
    found, similarities = index.search(queries, 10)
    assert np.mean(found[:, 0] == expected[:, 0]) >= 0.99
    assert np.mean([len(set(f) & set(e)) / 10 for f, e in zip(found, expected, strict=True)]) > 0.97
    cosines = np.einsum("qd,qkd->qk", queries, places[found])
    np.testing.assert_allclose(similarities, cosines, atol=3e-4)
    assert np.all(np.diff(similarities, axis=1) <= 0)
    assert index.probes <= (32 if noise < 0.5 else 250)


@pytest.mark.slow
def test_what_is_added_to_cells_or_removed_is_seen_at_once() -> None:
    vectors = clustered(9000)
    index = PlaceIndex(16, SMALL)
    index.add(np.arange(8000), vectors[:8000])
    assert index.kind == "inverted" and len(index) == 8000
    for i in range(8000, 8100):
        index.add([i], vectors[i])
        assert index.search(vectors[i], 1)[0][0, 0] == i
    assert index.remove([8005, 8005, 123456]) == 1
    assert index.search(vectors[8005], 1)[0][0, 0] != 8005
    assert 8006 in index and 8005 not in index
    index.add([7], vectors[8])  # known: stays as it is
    assert index.search(vectors[7], 1)[0][0, 0] == 7


@pytest.mark.slow
def test_an_index_that_outgrows_its_kind_is_rebuilt_beside_the_searches() -> None:
    vectors = clustered(9800)
    index = PlaceIndex(16, SMALL)
    waits: list[float] = []
    wrong: list[int] = []
    done = threading.Event()

    def search() -> None:
        rng = np.random.default_rng(1)
        while not done.is_set():
            known = len(index)
            if known:
                i = int(rng.integers(known))
                start = time.perf_counter()
                found = index.search(vectors[i], 1)[0][0, 0]
                waits.append(time.perf_counter() - start)
                if found != i and i % 7:
                    wrong.append(i)
                time.sleep(0.001)

    searcher = threading.Thread(target=search)
    searcher.start()
    for start in range(0, 9800, 20):
        batch = np.arange(start, start + 20)
        index.add(batch, vectors[batch])
        index.remove(batch[batch % 7 == 0])
    index.wait()
    done.set()
    searcher.join()
    assert index.kind == "inverted"
    assert len(index) == np.count_nonzero(np.arange(9800) % 7)
    assert not wrong and len(waits) > 20
    for i in (0, 7, 9797):
        assert (i in index) == bool(i % 7)


@pytest.mark.slow
def test_a_cache_is_used_kept_in_step_and_made_anew_when_it_is_wrong(tmp_path: Path) -> None:
    vectors = clustered(8000)
    path = tmp_path / "home.map"
    with make_map(path) as places:
        fill(places, vectors[:7800])
        index = open_index(places, SMALL)
        cache = cache_path(places.info)
        assert cache == tmp_path / "home.map.index" and cache.is_file()
        written = cache.stat().st_mtime_ns

        places.add(keyframe(9000, descriptor=vectors[7900], thumbnail=None))
        places.remove([5])
        again = open_index(places, SMALL)
        assert cache.stat().st_mtime_ns == written, "a small lag is not worth a write"
        assert len(again) == len(places) == 7800
        assert again.search(vectors[7900], 1)[0][0, 0] == 7801
        assert again.search(vectors[4], 1)[0][0, 0] != 5
        refresh(index, places)
        for k in (1, 10):
            for a, b in zip(
                index.search(vectors[:200], k), again.search(vectors[:200], k), strict=True
            ):
                np.testing.assert_array_equal(a, b)

        whole = cache.read_bytes()
        assert read_cache(cache) is not None
        for damage in (whole[: len(whole) // 2], whole[:-1], b"", b"x" * 100, _flipped(whole)):
            cache.write_bytes(damage)
            assert read_cache(cache) is None
        assert len(open_index(places, SMALL)) == 7800
        assert cache.read_bytes() != _flipped(whole), "written anew"

    other = tmp_path / "other.map"
    with make_map(other) as places:  # another map's cache in its place
        fill(places, vectors[:7800][::-1])
        cache_path(places.info).write_bytes(whole)
        assert open_index(places, SMALL).search(vectors[0], 1)[0][0, 0] == 7800


@pytest.mark.slow
def test_a_map_put_back_from_a_backup_is_not_taken_for_its_cache(tmp_path: Path) -> None:
    vectors = clustered(8000)
    path, backup = tmp_path / "home.map", tmp_path / "backup"
    with make_map(path) as places:
        fill(places, vectors[:7600])
    backup.write_bytes(path.read_bytes())
    with make_map(tmp_path / "x"), open_places(path) as places:
        places.add_many(keyframe(20_000 + i, descriptor=vectors[7600 + i]) for i in range(200))
        open_index(places, SMALL)
    os.replace(backup, path)
    with open_places(path) as places:  # as many changes, of other places
        places.add_many(keyframe(30_000 + i, descriptor=vectors[7999 - i]) for i in range(200))
        index = open_index(places, SMALL)
        assert index.search(vectors[7999], 1)[0][0, 0] == 7601


@pytest.mark.slow
def test_a_map_put_in_place_of_another_of_its_id_and_revision_is_found_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of one map went on by themselves; the second stands where the first was indexed."""
    uri = tmp_path / "home.map"
    monkeypatch.setattr("robot_vision.places.index.index.MIN_INVERTED", 40)
    vectors = clustered(150)

    def grow(places: PlaceMap, numbers: range) -> None:
        places.add_many(keyframe(i, descriptor=vectors[i], thumbnail=None) for i in numbers)

    with make_map(uri) as places:
        grow(places, range(30))
        grow(places, range(30, 90))
        first = open_index(places, IndexOptions(exact_numbers=0))
        assert first.kind == "inverted"
        info = places.info
    with make_map(tmp_path / "other.map") as places:
        grow(places, range(30))
        grow(places, range(90, 150))
    with contextlib.closing(sqlite3.connect(tmp_path / "other.map")) as db:
        db.execute("UPDATE map SET map_id = ?", [info.map_id])
        db.commit()
    os.replace(tmp_path / "other.map", uri)
    with open_places(uri) as places:
        assert places.revision == first.revision
        index = open_index(places, IndexOptions(exact_numbers=0))
        ids, descriptors = places.descriptors()
        assert np.mean(index.search(descriptors, 1)[0][:, 0] == ids) == 1


def test_checksums_tell_descriptors_apart(uri: str) -> None:
    with make_map(uri) as places:
        places.add_many(keyframe(i, descriptor=unit(i // 2)) for i in range(6))
        places.remove([2])
        ids, sums = places.checksums()
        assert ids.tolist() == [1, 3, 4, 5, 6]
        assert len(set(sums.tolist())) == 3 and sums[1] == sums[2] and sums[3] == sums[4]


def test_another_map_in_place_of_an_open_one_is_noticed(uri: str, tmp_path: Path) -> None:
    make_map(uri).close()
    with open_places(uri) as places:
        index = open_index(places)
        if is_server(uri):
            PostgresMap = pytest.importorskip("robot_vision.places.map.postgres_map").PostgresMap
            PostgresMap.drop(uri)
            make_map(uri).close()
        else:
            make_map(tmp_path / "other.map").close()
            Path(uri).write_bytes((tmp_path / "other.map").read_bytes())  # the same inode
        for use in (lambda: refresh(index, places), lambda: places.add(keyframe(1))):
            with pytest.raises(MapReplacedError, match="open it again"):
                use()


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_map(tmp_path / "home.map") as places:
        fill(places, clustered(7700))
        cache_path(places.info).mkdir()
        index = open_index(places, SMALL)
        assert index.kind == "inverted" and len(index) == 7700
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home.map", "home.map.index"]


@pytest.mark.slow
def test_thousands_of_equal_places_hide_no_other() -> None:
    vectors = np.vstack((np.tile(unit(1), (7000, 1)), clustered(3000)))
    index = PlaceIndex(16, SMALL)
    index.add(np.arange(10_000), vectors)
    assert index.kind == "inverted"
    found, similarities = index.search(vectors[7000:], 1)
    assert np.mean(found[:, 0] == np.arange(7000, 10_000)) > 0.99
    found, similarities = index.search(unit(1), 10)
    np.testing.assert_allclose(similarities, 1, atol=1e-3)
    assert np.all(found < 7000)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (unit(1, 8), 1, "has 8 numbers and the map's have 16"),
        (np.full(16, np.nan), 1, "NaN or infinity"),
        (np.zeros(16), 1, "norm is 0 and must be 1"),
        (unit(1), 0, "k is 0"),
    ],
)
def test_a_bad_query_is_refused(queries: NDArray[np.float32], k: int, message: str) -> None:
    index = PlaceIndex(16)
    index.add([1], unit(1))
    with pytest.raises(ConfigError, match=message):
        index.search(queries, k)
    assert index.search(unit(1), 1)[0].tolist() == [[1]]


def test_searching_leaves_the_threads_of_others_alone() -> None:
    before = faiss.omp_get_max_threads()
    index = PlaceIndex(16)
    index.add([1], unit(1))
    index.search(unit(1), 1)
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(ConfigError, match="threads are 0"):
        IndexOptions(threads=0)


def open_places(path: Path | str) -> PlaceMap:
    from robot_vision.places.map.opening import open_map

    return open_map(path)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
