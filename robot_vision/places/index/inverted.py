"""Builds FAISS's inverted lists for a map, and measures how many cells a query has to look into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

try:
    import faiss
except ImportError as error:  # pragma: no cover
    raise ConfigError(
        "The index of places needs FAISS: pip install 'robot_vision[places]'"
    ) from error

if TYPE_CHECKING:
    from robot_vision.places.index.options import IndexOptions

_POINTS_PER_CELL = 48  # FAISS asks for 39 at least
_ROUNDS = 8  # of k-means; cells need not be optimal, only known
_PROBED = 256  # places that the number of cells is measured with
_MIN_PROBES = 16
_MARGIN = 4  # queries lie further from the map than the map's places from one another
_SAME = 2e-4  # float16's rounding of a similarity
_CHUNK = 65536


@contextlib.contextmanager
def one_thread(threads: int = 1) -> Iterator[None]:
    """Runs FAISS with this many threads in the calling thread; others keep their own number."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def empty_exact(dimension: int) -> Any:
    """Returns a FAISS index that compares a query with every descriptor."""
    return faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))


def build_inverted(
    ids: NDArray[np.int64], vectors: NDArray[np.float32], options: IndexOptions
) -> Any:
    """Returns a FAISS index with cells for these places, its number of probes set.

    Args:
        ids: of the keyframes (N).
        vectors: float32 (N, D), L2 norm 1.
        options: threads and recall.
    """
    count, dimension = vectors.shape
    # With this many cells, choosing among them and looking into the chosen ones cost alike; more would take
    # longer to learn than they save.
    cells = max(16, min(round(2 * count**0.5), count // _POINTS_PER_CELL))
    quantizer: Any = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        dimension,
        cells,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the descriptor itself, not what is left of it without its cell's centre
    )
    quantizer.this.disown()  # the index frees it
    index.own_fields = True
    index.cp.spherical = True
    index.cp.niter = _ROUNDS
    index.cp.max_points_per_centroid = _POINTS_PER_CELL
    index.cp.seed = 1
    with one_thread(options.build_threads or os.cpu_count() or 1):
        rng = np.random.default_rng(1)
        sample = rng.permutation(count)[: cells * _POINTS_PER_CELL]
        index.train(vectors[np.sort(sample)])
        for start in range(0, count, _CHUNK):
            index.add_with_ids(vectors[start : start + _CHUNK], ids[start : start + _CHUNK])
        probed = np.sort(rng.permutation(count)[:_PROBED])
        index.nprobe = _probes(index, ids, vectors, probed, options.recall)
    return index


def _probes(
    index: Any,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    probed: NDArray[np.intp],
    recall: float,
) -> int:
    """Returns how many cells find the nearest other place of `recall` of the places, with a margin."""
    queries = vectors[probed]
    best = np.full(len(queries), -2.0, np.float32)
    for start in range(0, len(vectors), _CHUNK):
        similarities = queries @ vectors[start : start + _CHUNK].T  # (P, chunk)
        mine = (probed >= start) & (probed < start + _CHUNK)
        similarities[np.flatnonzero(mine), probed[mine] - start] = -2.0
        np.maximum(best, similarities.max(axis=1), out=best)
    probes = 1
    while probes < index.nlist:
        index.nprobe = probes
        similarities, found = index.search(queries, 2)
        similarities[found == ids[probed][:, None]] = -2.0
        if np.mean(similarities.max(axis=1) >= best - _SAME) >= recall:
            break
        probes *= 2
    return int(min(max(_MIN_PROBES, _MARGIN * probes), index.nlist))


def reconstructed(
    index: Any, ids: NDArray[np.int64] | None = None, ids_only: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns ids (N,) and descriptors (N, D) that an index holds, in its own order.

    Args:
        index: exact or inverted.
        ids: only these.
        ids_only: descriptors stay empty.
    """
    if isinstance(index, faiss.IndexIDMap2):
        held = faiss.vector_to_array(index.id_map)
        vectors = index.index.reconstruct_n(0, len(held)) if len(held) and not ids_only else None
    else:
        held, vectors = _from_lists(index, ids_only)
    if vectors is None:
        vectors = np.empty((0, index.d), np.float32)
    if ids is None:
        return held, vectors
    order = np.argsort(held, kind="stable")
    at = order[np.searchsorted(held, ids, sorter=order)]
    return ids, np.ascontiguousarray(vectors[at])


def _from_lists(index: Any, ids_only: bool) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    lists = index.invlists
    held, codes = [np.empty(0, np.int64)], [np.empty((0, index.d), np.float16)]
    for cell in range(index.nlist):
        size = lists.list_size(cell)
        if size:
            held.append(faiss.rev_swig_ptr(lists.get_ids(cell), size).copy())
            if not ids_only:
                raw = faiss.rev_swig_ptr(lists.get_codes(cell), size * index.code_size)
                codes.append(raw.copy().view(np.float16).reshape(size, index.d))
    return np.concatenate(held), None if ids_only else np.concatenate(codes).astype(np.float32)
