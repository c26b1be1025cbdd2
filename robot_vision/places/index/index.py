"""Finds the most similar descriptors: exactly in a small map, through inverted lists in a large one.

A small index compares a query with every descriptor. A large one has an inverted file (Sivic and Zisserman
2003; FAISS's IVF): k-means cells, of which the nearest to a query are searched, in float16. How many cells
that takes depends on the building, so it is measured on the map itself whenever the index is built: each of
some hundred places is looked for among all others, exactly and through the cells.

Inverted lists rather than a graph (HNSW), since they are built in a tenth of the time, let places be removed,
take a thousand nearly equal places for what they are, and need no memory besides the descriptors.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.places.index.inverted import (
    build_inverted,
    empty_exact,
    one_thread,
    reconstructed,
)
from robot_vision.places.index.options import MIN_INVERTED, IndexOptions
from robot_vision.places.map.keyframe import check_descriptors

# Cells that were made for a map of a fourth of the size are twice too large.
_OUTGROWN = 4.0
_REBUILD_AT = 1.5  # times the exact limit, so that a map that hovers about it is not rebuilt


class PlaceIndex:
    """Descriptors in memory by their keyframes' ids. Threads may share it.

    What is added or removed is seen by the next search. When an index outgrows its kind, another is built in
    a thread of its own, and the old one serves until it is ready.

    Args:
        dimension: numbers of a descriptor.
        options: how to build and search.
    """

    def __init__(self, dimension: int, options: IndexOptions | None = None) -> None:
        self.dimension = dimension
        self.options = options or IndexOptions()
        self.revision = 0  # of the map that this index has followed (`index_cache.refresh`)
        # Changes take both, in this order; a search takes the second, a copy for a rebuild the first. So
        # searches wait for no copy.
        self._changing = threading.RLock()
        self._lock = threading.RLock()
        self._faiss: Any = empty_exact(dimension)
        self._ids: set[int] = set()
        self._built_for = 0  # places when the cells were made; 0 for an exact index
        self._builder: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._ids

    @property
    def kind(self) -> str:
        """`exact` or `inverted`."""
        return "inverted" if self._built_for else "exact"

    @property
    def probes(self) -> int:
        """Cells that a query looks into; 0 for an exact index."""
        return int(self._faiss.nprobe) if self._built_for else 0

    @property
    def memory_bytes(self) -> int:
        """What descriptors, cells and ids take, about."""
        with self._lock:
            count = len(self._ids)
            if not self._built_for:
                return count * (self.dimension * 4 + 8)
            cells = int(self._faiss.nlist)
            return count * (self.dimension * 2 + 8) + cells * (self.dimension * 4 + 64)

    def add(self, ids: Sequence[int] | NDArray[Any], descriptors: NDArray[Any]) -> None:
        """Adds descriptors; ids that are there already are left as they are.

        Args:
            ids: of the keyframes (N).
            descriptors: float32 (N, D), L2 norm 1.

        Raises:
            ConfigError: descriptors of another length, not finite or not of unit norm.
        """
        vectors = check_descriptors(np.atleast_2d(descriptors), self.dimension)
        numbers = np.asarray(ids, np.int64).reshape(-1)
        if len(numbers) != len(vectors):
            raise ConfigError(f"{len(numbers)} ids were given with {len(vectors)} descriptors")
        with self._changing, self._lock:
            _, first = np.unique(numbers, return_index=True)
            new = np.array([i for i in np.sort(first) if int(numbers[i]) not in self._ids], np.intp)
            if not len(new):
                return
            if len(new) < len(numbers):
                numbers, vectors = numbers[new], vectors[new]
            if self._wants_cells(len(self) + len(new)) and len(new) >= len(self):
                self._build_now(numbers, vectors)
            else:
                with one_thread(self.options.threads):
                    self._faiss.add_with_ids(vectors, numbers)
                self._ids.update(numbers.tolist())
                self._outgrown()

    def remove(self, ids: Sequence[int] | NDArray[Any]) -> int:
        """Removes descriptors and returns how many there were; unknown ids are no error."""
        with self._changing, self._lock:
            gone = [int(i) for i in set(np.asarray(ids, np.int64).reshape(-1).tolist()) & self._ids]
            if gone:
                self._faiss.remove_ids(np.array(gone, np.int64))
                self._ids.difference_update(gone)
            return len(gone)

    def search(
        self, queries: NDArray[Any], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the k most similar places of each query, most similar first, ties by id.

        Args:
            queries: float32 (Q, D) or (D,), L2 norm 1.
            k: how many.

        Returns:
            ids int64 (Q, k) and cosine similarities float32 (Q, k); where there are fewer than k places,
            ids of -1 with similarity -inf fill up.

        Raises:
            ConfigError: queries of another length, not finite or not of unit norm, or k below 1.
        """
        if k < 1:
            raise ConfigError(f"k is {k}: ask for 1 or more places")
        vectors = check_descriptors(np.atleast_2d(queries), self.dimension, "Query")
        with self._lock, one_thread(self.options.threads):
            similarities, ids = self._faiss.search(vectors, k)
        similarities[ids < 0] = -np.inf
        np.minimum(similarities, 1.0, out=similarities)  # rounding
        order = np.lexsort((ids, -similarities), axis=-1)
        return np.take_along_axis(ids, order, -1), np.take_along_axis(similarities, order, -1)

    def wait(self) -> None:
        """Waits for a build in the background, if there is one."""
        builder = self._builder
        if builder is not None:
            builder.join()

    def _wants_cells(self, count: int) -> bool:
        limit = max(MIN_INVERTED, self.options.exact_numbers // self.dimension)
        return count > limit * (1.0 if self._built_for else _REBUILD_AT)

    def _build_now(self, numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Builds cells for what there is and what comes with it, while the caller waits."""
        old_ids, old_vectors = reconstructed(self._faiss)
        if len(old_ids):
            numbers = np.concatenate((old_ids, numbers))
            vectors = np.concatenate((old_vectors, vectors))
        self._faiss = build_inverted(numbers, vectors, self.options)
        self._ids = set(numbers.tolist())
        self._built_for = len(numbers)

    def _outgrown(self) -> None:
        count = len(self)
        if self._builder is not None or not self._wants_cells(count):
            return
        if self._built_for and count < _OUTGROWN * self._built_for:
            return
        self._builder = threading.Thread(target=self._rebuild, name="place index", daemon=True)
        self._builder.start()

    def _rebuild(self) -> None:
        try:
            with self._changing:
                numbers, vectors = reconstructed(self._faiss)
            built = build_inverted(numbers, vectors, self.options)
            del vectors
            with self._changing, self._lock:
                before = set(numbers.tolist())
                late = np.array(sorted(self._ids - before), np.int64)
                gone = np.array(sorted(before - self._ids), np.int64)
                if len(late):
                    built.add_with_ids(reconstructed(self._faiss, late)[1], late)
                if len(gone):
                    built.remove_ids(gone)
                self._faiss, self._built_for = built, len(numbers)
        finally:
            self._builder = None

    def state(self) -> tuple[Any, int]:
        """Returns FAISS's index and for how many places its cells were made: what a cache keeps."""
        return self._faiss, self._built_for

    def restore(self, index: Any, built_for: int) -> None:
        """Takes over what `state` gave, from a cache."""
        with self._changing, self._lock:
            assert index.d == self.dimension and built_for
            self._faiss, self._built_for = index, built_for
            self._ids = set(reconstructed(index, ids_only=True)[0].tolist())
