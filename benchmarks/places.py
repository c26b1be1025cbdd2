"""How fast places are found among 100,000 and 1,000,000, against NumPy's brute force and exact FAISS.

Descriptors come from `place_world`: 512 numbers, clustered as those of real rooms are. Queries are other
visits, one at a time on one core, as a robot asks. Recall is against the exact answer of NumPy in float32.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.place_world import PlaceWorld
from benchmarks.quiet import WATCH
from benchmarks.timing import percentiles
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.index.index_cache import cache_path, save
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map

SIZES = (100_000, 1_000_000)
QUICK_SIZES = (40_000,)
DIMENSION = 512
K = 10
QUERIES = 2000
SLOW_QUERIES = 100  # of what takes 100 ms each
ADDED = 300

# Loads a cached index in a process of its own and says how much memory that took.
_LOAD = """
import json, sys, time, psutil
from robot_vision.places.index.index_cache import read_cache
before = psutil.Process().memory_info().rss
start = time.perf_counter()
index = read_cache(sys.argv[1])
assert index is not None
seconds = time.perf_counter() - start
print(json.dumps([psutil.Process().memory_info().rss - before, seconds]))
"""


def lookups(quick: bool) -> dict[str, Any]:
    """Measures every size; returns one dictionary for each."""
    return {f"{n}": _size(n, quick) for n in (QUICK_SIZES if quick else SIZES)}


def _size(places: int, quick: bool) -> dict[str, Any]:
    vectors, queries = PlaceWorld(places, DIMENSION).arrays(200 if quick else QUERIES)
    ids = np.arange(1, places + 1)
    truth = _exact(vectors, queries)
    index = PlaceIndex(DIMENSION)
    start = time.perf_counter()
    index.add(ids, vectors)
    built_s = time.perf_counter() - start
    found = np.vstack([index.search(query, K)[0] for query in queries])
    result: dict[str, Any] = {
        "places": places,
        "kind": index.kind,
        "probes": index.probes,
        "build_s": round(built_s, 1),
        "recall_at_1": round(float(np.mean(found[:, 0] - 1 == truth[:, 0])), 4),
        "recall_of_10": round(_overlap(found - 1, truth), 4),
        **_memory(index),
    }
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(vectors)
    few = queries[:SLOW_QUERIES]

    def searches() -> dict[str, Any]:
        with one_core():
            return {
                "robot_vision": _time(lambda q: index.search(q, K), queries),
                "exact FAISS": _time(lambda q: flat.search(q[None], K), few),
                "NumPy brute force": _time(lambda q: _brute(vectors, q), few),
            }

    adds = PlaceWorld(ADDED, DIMENSION, seed=1).arrays(1)[0]
    result["times"] = WATCH.trial(searches)
    fresh = itertools.count(places + 1)
    result["add_to_index"] = WATCH.trial(lambda: _time(lambda q: index.add([next(fresh)], q), adds))
    result["add_to_map"] = WATCH.trial(lambda: _durable(adds))
    return result


def _exact(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.intp]:
    """Returns rows (Q, K) of the most similar vectors, best first."""
    best = np.full((len(queries), K), -2.0, np.float32)
    rows = np.zeros((len(queries), K), np.intp)
    for start in range(0, len(vectors), 50_000):
        similarities = queries @ vectors[start : start + 50_000].T
        top = np.argpartition(-similarities, K, axis=1)[:, :K]
        both = np.hstack((best, np.take_along_axis(similarities, top, 1)))
        at = np.hstack((rows, top + start))
        order = np.argsort(-both, axis=1, kind="stable")[:, :K]
        best, rows = np.take_along_axis(both, order, 1), np.take_along_axis(at, order, 1)
    return rows


def _brute(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.intp]:
    similarities = vectors @ query
    top = np.argpartition(-similarities, K)[:K]
    return top[np.argsort(-similarities[top])]


def _overlap(found: NDArray[Any], truth: NDArray[Any]) -> float:
    return float(np.mean([len(set(f) & set(t)) / K for f, t in zip(found, truth, strict=True)]))


def _time(run: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> Any:
    samples = []
    for number, query in enumerate(np.concatenate((queries[:10], queries))):
        start = time.perf_counter()
        run(query)
        if number >= 10:
            samples.append(time.perf_counter() - start)
    return percentiles(samples)


def _memory(index: PlaceIndex) -> dict[str, Any]:
    """Saves an index and loads it in another process; the size of an exact one is only calculated."""
    result = {"memory_mb": round(index.memory_bytes / 1e6, 1)}
    if index.kind != "inverted":
        return result
    with tempfile.TemporaryDirectory() as folder, _small_map(Path(folder) / "m") as places:
        info = replace(places.info, uri=f"{folder}/large")
        start = time.perf_counter()
        ids = np.arange(1, len(index) + 1)
        assert save(index, info, ids, np.zeros_like(ids))
        result["save_s"] = round(time.perf_counter() - start, 1)
        command = [sys.executable, "-c", _LOAD, str(cache_path(info))]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        resident, seconds = json.loads(run.stdout)
        result["resident_mb"] = round(resident / 1e6, 1)
        result["load_s"] = round(seconds, 1)
    return result


def _durable(descriptors: NDArray[np.float32]) -> Any:
    """Times `SqliteMap.add` of keyframes with a picture of 4 kB: one sync of the disk each."""
    with tempfile.TemporaryDirectory() as folder, _small_map(Path(folder) / "m") as places:
        stamps = iter(range(1, 10**9))
        picture = os.urandom(4096)

        def add(descriptor: NDArray[np.float32]) -> None:
            places.add(
                Keyframe.checked(
                    stamp_ns=next(stamps),
                    camera="front",
                    source="benchmark",
                    T_map_camera=np.eye(4),
                    descriptor=descriptor,
                    covariance=np.eye(6),
                    thumbnail=picture,
                )
            )

        return _time(add, descriptors)


def _small_map(path: Path) -> Any:
    return create_map(path, bundle_name="b", bundle_sha256="0" * 64, dimension=DIMENSION)


@contextmanager
def one_core() -> Iterator[None]:
    """Runs on one core, with one thread of every library."""
    from threadpoolctl import threadpool_limits

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with threadpool_limits(1):
            yield
    finally:
        os.sched_setaffinity(0, cores)
