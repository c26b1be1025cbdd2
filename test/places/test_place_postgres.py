"""What is particular to maps on a PostgreSQL server. test_place_store.py has what every map does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from place_maps import DIMENSION, keyframe, make_map, server, server_uri, unit, uri

from robot_vision.cli import main
from robot_vision.errors import ConfigError
from robot_vision.places.index.index_cache import cache_path, open_index, refresh
from robot_vision.places.map.base import MapBusyError, MapError, MapReadOnlyError
from robot_vision.places.map.copying import copy_map
from robot_vision.places.map.opening import create_map, open_map
from robot_vision.places.map.postgres_map import PostgresMap
from robot_vision.places.map.postgres_server import Address
from robot_vision.ros.places.map_file import Model, open_or_make
from robot_vision.text.address import is_server

__all__ = ["server", "server_uri", "uri"]  # fixtures


def plain(uri: str) -> psycopg.Connection:
    return psycopg.connect(Address.parse(uri).server, autocommit=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.slow
def test_the_server_finds_what_brute_force_finds(
    server_uri: str, dtype: str, indexed: bool
) -> None:
    with make_map(server_uri, descriptor_dtype=dtype) as places:
        assert isinstance(places, PostgresMap)
        places.add_many(keyframe(i, thumbnail=None) for i in range(300))
        if indexed:
            places.make_server_index()
            places.add(keyframe(300))
        ids, vectors = places.descriptors()
        queries = np.array([unit(1000 + i) for i in range(5)])
        found, similarities = places.nearest(queries, 10)
        expected = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
        assert np.mean(found == ids[expected]) > (0.9 if indexed else 0.98)
        np.testing.assert_allclose(similarities[:, 0], (queries @ vectors.T).max(axis=1), atol=1e-3)
        assert places.nearest(unit(3), 400)[0].tolist()[0].count(-1) >= 400 - len(places)
        with pytest.raises(ConfigError, match="Query.* has 8 numbers"):
            places.nearest(unit(1, 8), 1)


def test_a_descriptor_is_the_same_in_sql(server_uri: str) -> None:
    """The bytes on the wire are what pgvector itself reads and prints."""
    with make_map(server_uri) as places:
        number = places.add(keyframe(5))
    with plain(server_uri) as connection:
        schema = Address.parse(server_uri).schema
        text = f"SELECT descriptor::text, x FROM {schema}.keyframe WHERE id = %s"
        row = connection.execute(text, [number]).fetchone()
    assert row is not None
    printed = np.array(row[0].strip("[]").split(","), np.float32)
    np.testing.assert_array_equal(printed, unit(5))
    assert row[1] == keyframe(5).position[0]


def test_robots_follow_one_another_and_go_on_while_the_network_is_away(
    server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with make_map(server_uri) as first, open_map(server_uri) as second:
        assert isinstance(second, PostgresMap)
        assert cache_path(second.info).parent == tmp_path / "robot_vision"
        index = open_index(second)
        first.add_many(keyframe(i) for i in range(20))
        assert len(refresh(index, second).added) == 20
        first.remove([4])
        with plain(server_uri) as connection:  # the network goes away
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'robot_vision'"
            )
        with pytest.raises(MapError, match=r"connection was lost .*; the next call reconnects"):
            refresh(index, second)
        assert index.search(unit(7), 1)[0][0, 0] == 8
        assert refresh(index, second).removed.tolist() == [4]  # and is back
        assert 4 not in index
        with pytest.raises(MapError):
            first.add(keyframe(30))
        assert first.add(keyframe(30)) == 21


@pytest.mark.slow
def test_a_map_held_by_another_robot_says_so(
    server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robot_vision.places.map.postgres_server.WAIT_S", 1)
    with make_map(server_uri) as places, plain(server_uri) as connection:
        schema = Address.parse(server_uri).schema
        with connection.transaction():
            connection.execute(f"UPDATE {schema}.map SET revision = revision")
            with pytest.raises(MapBusyError, match="locked by another robot"):
                places.add(keyframe(1))
            assert len(places) == 0
        assert places.add(keyframe(1)) == 1


def test_ids_stay_apart_under_many_writers(server_uri: str) -> None:
    make_map(server_uri).close()
    ids: list[int] = []

    def drive(robot: int) -> None:
        with open_map(server_uri) as places:
            for i in range(0, 12, 3):
                ids.extend(
                    places.add_many(
                        keyframe(robot * 100 + i + j, source=f"r{robot}") for j in (0, 1, 2)
                    )
                )

    robots = [threading.Thread(target=drive, args=(robot,)) for robot in range(4)]
    for robot in robots:
        robot.start()
    for robot in robots:
        robot.join()
    assert sorted(ids) == list(range(1, 49))
    with open_map(server_uri, "read") as places:
        assert places.changes(0).added.tolist() == list(range(1, 49))
        assert len(places.changes(places.revision - 1).added) == 3


def test_a_user_without_rights_can_read_and_is_told(server_uri: str, server: str) -> None:
    with make_map(server_uri) as places:
        places.add(keyframe(1))
    address = Address.parse(server_uri)
    with plain(server_uri) as connection:
        connection.execute("DROP ROLE IF EXISTS visitor")
        connection.execute("CREATE ROLE visitor LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {address.schema} TO visitor")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {address.schema} TO visitor")
    visitor = server_uri.replace("//postgres:", "//visitor:")
    assert visitor != server_uri
    with open_map(visitor) as places:
        assert len(places) == 1
        with pytest.raises(MapReadOnlyError, match="cannot be written: permission denied"):
            places.add(keyframe(2))
    with plain(server_uri) as connection:
        connection.execute("DROP OWNED BY visitor")
        connection.execute("DROP ROLE visitor")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("UPDATE {s}.keyframe SET x = 'NaN'", "keyframe 1 is not as it was written"),
        ("UPDATE {s}.keyframe SET qw = 5", "keyframe 1 is not as it was written"),
        ("UPDATE {s}.keyframe SET covariance = '\\x00'", "keyframe 1 is not as it was written"),
        ("UPDATE {s}.keyframe SET source = repeat('x', 100000)", "is not as it was written"),
        (
            "ALTER TABLE {s}.keyframe ALTER descriptor TYPE vector USING '[1,2]'::vector",
            "a descriptor has the wrong length",
        ),
        (
            "ALTER TABLE {s}.keyframe ALTER thumbnail TYPE text USING 'picture'",
            "'picture' stands where bytes should",
        ),
    ],
)
def test_rows_that_somebody_else_wrote_are_damage(server_uri: str, edit: str, words: str) -> None:
    make_map(server_uri).close()
    with open_map(server_uri) as places:
        places.add(keyframe(1))
    with plain(server_uri) as connection:
        connection.execute(edit.format(s=Address.parse(server_uri).schema))
    with open_map(server_uri, "read") as places, pytest.raises(MapError, match=words):
        places.poses()
        list(places.keyframes())


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("UPDATE {s}.map SET dimension = 2000000000", "its description is"),
        ("UPDATE {s}.map SET descriptor_dtype = 'object'", "its description is"),
        ("UPDATE {s}.map SET frame_id = repeat('x', 100000)", "its description is"),
        ("DELETE FROM {s}.map", "its description is gone"),
    ],
)
def test_a_description_that_somebody_else_wrote_is_damage(
    server_uri: str, edit: str, words: str
) -> None:
    make_map(server_uri).close()
    with plain(server_uri) as connection:
        connection.execute(edit.format(s=Address.parse(server_uri).schema))
    with pytest.raises(MapError, match=words) as caught:
        open_map(server_uri, "read")
    assert len(str(caught.value)) < 1000


def test_a_map_of_a_newer_version_is_refused(server_uri: str) -> None:
    make_map(server_uri).close()
    with plain(server_uri) as connection:
        schema = Address.parse(server_uri).schema
        connection.execute(f"UPDATE {schema}.map SET schema_version = 9")
    with pytest.raises(MapError, match="version 9, and this robot_vision reads up to 1"):
        open_map(server_uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://u:secret@localhost/places", r"name the map as \?map=NAME"),
        ("postgresql://u:secret@localhost/places?map=No-Good", "small letters"),
        ("postgresql://u:secret@localhost/places?map=a&map=b", "name the map"),
    ],
)
def test_a_bad_address_is_refused_without_its_password(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_map(uri)
    assert "secret" not in str(caught.value)


def test_no_server_is_one_line_without_the_password(tmp_path: Path) -> None:
    for address in (
        "postgresql://u:secret@127.0.0.1:9/places?map=hall",
        f"postgresql://u:@/places?host={tmp_path}&password=secret&map=hall",
    ):
        with pytest.raises(MapError, match="no connection to the server") as caught:
            open_map(address)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_descriptors_that_pgvector_cannot_keep_or_index_are_refused(server_uri: str) -> None:
    with pytest.raises(ConfigError, match="32768 numbers and pgvector keeps up to 16000"):
        create_map(server_uri, bundle_name="b", bundle_sha256="00", dimension=32768)
    with make_map(server_uri, dimension=2048) as places:
        assert isinstance(places, PostgresMap)
        places.add(keyframe(1, 2048))
        with pytest.raises(ConfigError, match="indexes up to 2000"):
            places.make_server_index()
        assert places.nearest(unit(1, 2048), 1)[0].tolist() == [[1]]
    assert DIMENSION < 2000


def test_a_call_in_a_radio_shadow_ends_within_seconds(server_uri: str) -> None:
    with make_map(server_uri) as places:
        assert isinstance(places, PostgresMap)
        given = places._connection.info.get_parameters()
        assert given["tcp_user_timeout"] == "5000"
        assert int(given["keepalives_interval"]) * int(given["keepalives_count"]) <= 5


@pytest.mark.slow
def test_many_creators_at_once_all_get_their_map(server: str, server_uri: str) -> None:
    """Each in a database without pgvector, which all of them add."""
    base = plain(server_uri)
    base.execute("DROP DATABASE IF EXISTS fleet_of_six")
    base.execute("CREATE DATABASE fleet_of_six")
    fleet = server.replace("/postgres?", "/fleet_of_six?")
    assert fleet != server
    errors: list[Exception] = []
    gate = threading.Barrier(6)

    def create(number: int) -> None:
        gate.wait()
        try:
            make_map(f"{fleet}&map=robot{number}").close()
        except Exception as error:
            errors.append(error)

    creators = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()
    try:
        assert not errors, errors
        errors.clear()
        outcomes = []

        def create_one() -> None:
            gate.wait()
            try:
                make_map(f"{fleet}&map=shared").close()
                outcomes.append("made")
            except MapError as error:
                outcomes.append(str(error))

        creators = [threading.Thread(target=create_one) for _ in range(6)]
        for creator in creators:
            creator.start()
        for creator in creators:
            creator.join()
        assert outcomes.count("made") == 1
        assert all(o == "made" or "exists already" in o for o in outcomes), outcomes
    finally:
        base.execute("DROP DATABASE fleet_of_six WITH (FORCE)")
        base.close()


COPY = """
import sys
from robot_vision.places.map.copying import copy_map
from robot_vision.places.map.opening import open_map
def say(done, all):
    print(done, flush=True)
    sys.stdin.readline()
with open_map(sys.argv[1], "read") as places:
    copy_map(places, sys.argv[2], say)
"""


@pytest.mark.slow
def test_a_copy_to_a_server_that_is_killed_leaves_no_half_map(
    server_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_map(tmp_path / "home.map") as places:
        places.add_many(keyframe(i, thumbnail=None) for i in range(450))
    command = [sys.executable, "-c", COPY, str(tmp_path / "home.map"), server_uri]
    copying = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert copying.stdout is not None and copying.stdout.readline() == b"200\n"
        with pytest.raises(MapError, match="does not exist"):
            open_map(server_uri, "read")
        with open_map(tmp_path / "home.map", "read") as places:
            with pytest.raises(MapError, match="made by another copy"):
                copy_map(places, server_uri)
    finally:
        copying.kill()
        copying.wait()
    with pytest.raises(MapError, match="does not exist"):
        open_map(server_uri, "read")
    with open_map(tmp_path / "home.map", "read") as places:
        end = time.monotonic() + 20  # until the server notices
        while True:
            try:
                copy_map(places, server_uri)
                break
            except MapError as error:
                assert "made by another copy" in str(error) and time.monotonic() < end
                time.sleep(0.1)
    assert main(["map", "check", server_uri]) == 0
    assert "450 keyframes, all as they were written" in capsys.readouterr().out
    assert main(["map", "copy", str(tmp_path / "home.map"), server_uri]) == 2
    assert "map drop" in capsys.readouterr().err
    with plain(server_uri) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%copying%'")
        assert rows.fetchall() == []


def test_drop_removes_a_map_and_what_a_killed_copy_left(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_map(uri) as places:
        places.add_many(keyframe(i) for i in range(3))
    assert main(["map", "drop", uri, "--dry-run"]) == 0
    assert main(["map", "info", uri]) == 0
    Path(f"{uri}.index").write_bytes(b"index") if not is_server(uri) else None
    capsys.readouterr()
    assert main(["map", "drop", uri]) == 0
    assert "removed, with 3 keyframes" in capsys.readouterr().out
    assert main(["map", "drop", uri]) == 2
    assert "does not exist" in capsys.readouterr().err
    if is_server(uri):
        with plain(uri) as connection:
            connection.execute(f"CREATE SCHEMA {Address.parse(uri).draft.schema}")
        assert main(["map", "drop", uri]) == 0
        assert main(["map", "drop", uri]) == 2
    else:
        assert list(tmp_path.iterdir()) == []
        Path(uri).write_text("a letter")
        assert main(["map", "drop", uri]) == 2
        assert Path(uri).read_text() == "a letter"


def test_mapping_makes_a_map_that_is_not_there(uri: str) -> None:
    model = Model("tiny", "ab" * 32)
    with pytest.raises(MapError, match="needs to know its model"):
        open_or_make(uri, None, DIMENSION, "map")
    with open_or_make(uri, model, DIMENSION, "hall") as places:
        assert places.add(keyframe(1)) == 1 and places.info.frame_id == "hall"
    with open_or_make(uri, model, DIMENSION, "hall") as places:
        assert len(places) == 1
    with pytest.raises(MapError, match="cannot be compared"):
        open_or_make(uri, Model("other", "cd" * 32), DIMENSION, "hall")
