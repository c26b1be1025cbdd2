"""Batches for place recognition: hard negatives for triplets, and several images each of several places.

Both samplers give lists of indices, are fully determined by seed and epoch, and can go on in the middle of
an epoch: set `start_batch` to the number of batches that were trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from robot_vision.errors import ConfigError
from robot_vision.training.neighbours import Indices, PoseNeighbours, cover

SCAN = 16  # waiting places that are tried for each place of a batch, before it stays smaller
BLOCK = 256  # queries whose distances to the pool are in memory at once


class _EpochSampler(Sampler[list[int]]):
    """What both samplers share: an epoch's plan, the share of one process, and where to go on.

    Attributes:
        epoch: whose batches `__iter__` gives.
        start_batch: the first one that it gives.
    """

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"rank is {rank} of {world_size}: it must be from 0 to world_size - 1"
            )
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.start_batch = 0
        self._plan: list[list[int]] | None = None

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Chooses the epoch, and how many of its batches have been trained on already."""
        if epoch != self.epoch:
            self._plan = None
        self.epoch, self.start_batch = epoch, start_batch

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, purpose])

    def _batches(self) -> list[list[int]]:
        raise NotImplementedError

    def _mine(self) -> list[list[int]]:
        """This process's batches; every process has as many, or collective operations would hang."""
        if self._plan is None:
            self._plan = self._batches()
        count = len(self._plan) // self.world_size
        return self._plan[self.rank : count * self.world_size : self.world_size]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._mine()[self.start_batch :]

    def __len__(self) -> int:
        return max(0, len(self._mine()) - self.start_batch)


class TripletSampler(_EpochSampler):
    """Tuples (query, potential positives, hard negatives) with NetVLAD's cached mining.

    Arandjelovic et al. (CVPR 2016), appendix A: descriptors of the training images are computed now and
    then and kept; for each query 1000 random negatives and the 10 hardest of the last time are compared,
    and the 10 most similar are trained on.

    An epoch here is what is trained on between two refreshes of that cache: `queries` queries, the next
    ones of a seeded permutation of all. At its start:

        sampler.set_epoch(epoch)
        wanted = sampler.wanted()                       # images whose descriptors mining needs
        sampler.mine(wanted, describe(wanted))          # (n, D), in evaluation mode, not augmented

    With several processes, each mines with the same descriptors. Without `mine` the negatives are
    random definite ones. The mined plan and the remembered negatives are in `state_dict`, so a run
    that is resumed goes on with the same batches without descriptors.

    Args:
        neighbours: of the training images.
        queries_per_batch: tuples in a batch.
        positives: of each tuple: the potential positives nearest by descriptor (by pose before the first
            mining). Images with fewer repeat none.
        negatives: of each tuple.
        pool: random candidates an epoch, shared by its queries.
        queries: of an epoch; 0 for all.
        candidates: potential positives looked at, the nearest by pose.
        seed: of everything random.
        rank: of this process.
        world_size: number of processes; each gets its share of the batches.

    Attributes:
        dropped: queries of this epoch that had no definite negative.

    Raises:
        ConfigError: no image has a positive, or a number is out of range.
    """

    def __init__(
        self,
        neighbours: PoseNeighbours,
        queries_per_batch: int = 4,
        positives: int = 1,
        negatives: int = 10,
        pool: int = 1000,
        queries: int = 1000,
        candidates: int = 32,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed, rank, world_size)
        numbers = (queries_per_batch, positives, negatives, pool, candidates)
        if min(numbers) < 1 or queries < 0:
            raise ConfigError(
                f"queries_per_batch, positives, negatives, pool, candidates are {numbers} and queries "
                f"{queries}: they must be at least 1, and queries at least 0"
            )
        self.neighbours = neighbours
        self.queries_per_batch, self.positives, self.negatives = numbers[:3]
        self.pool, self.candidates = pool, max(candidates, positives)
        self.queries = neighbours.with_positives()
        if not len(self.queries):
            raise ConfigError(
                f"no training image has another within positive_m = {neighbours.relation.positive_m} m"
                " (and positive_deg): choose larger ones"
            )
        self.per_epoch = min(queries or len(self.queries), len(self.queries))
        self.dropped = 0
        # The hardest negatives of each query when it was last mined; -1 where there are none yet.
        self._hardest = np.full((len(neighbours), negatives), -1, np.int64)

    def epoch_queries(self) -> Indices:
        """Returns this epoch's queries: the next ones of a permutation that changes with each pass."""
        first = self.epoch * self.per_epoch
        taken: list[Indices] = []
        while sum(map(len, taken)) < self.per_epoch:
            turn, offset = divmod(first, len(self.queries))
            order = np.random.default_rng([self.seed, turn, 0]).permutation(self.queries)
            part = order[offset : offset + self.per_epoch - sum(map(len, taken))]
            taken.append(part)
            first += len(part)
        return np.concatenate(taken)

    def wanted(self) -> Indices:
        """Returns the images, ascending, whose descriptors this epoch's mining needs."""
        queries = self.epoch_queries()
        near = [self.neighbours.positives(int(q), self.candidates) for q in queries]
        remembered = self._hardest[queries]
        parts = [queries, *near, self._pool(), remembered[remembered >= 0]]
        return np.unique(np.concatenate(parts))

    def mine(self, indices: NDArray[Any], descriptors: NDArray[Any]) -> None:
        """Plans the epoch with hard negatives.

        Args:
            indices: what `wanted` returned, or a superset of it, without repetition.
            descriptors: (len(indices), D).

        Raises:
            ConfigError: descriptors that are missing or not finite.
        """
        row = np.full(len(self.neighbours), -1, np.int64)
        row[indices] = np.arange(len(indices))
        missing = row[self.wanted()] < 0
        if missing.any() or len(descriptors) != len(indices):
            raise ConfigError(
                f"{int(missing.sum())} descriptors that mining needs are missing "
                f"({len(descriptors)} for {len(indices)} images): describe all images of wanted()"
            )
        if not np.isfinite(descriptors).all():
            raise ConfigError("descriptors to mine with are not finite: training has diverged")
        self._plan = self._batches(np.asarray(descriptors, np.float32), row)

    def state_dict(self) -> dict[str, Any]:
        """Returns the plan and the remembered negatives: arrays and lists of numbers."""
        plan = None if self._plan is None else [list(batch) for batch in self._plan]
        return {"epoch": self.epoch, "plan": plan, "hardest": self._hardest.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; `start_batch` is the caller's to set.

        Raises:
            ConfigError: the state is of other training images or settings.
        """
        hardest = np.asarray(state["hardest"], np.int64)
        if hardest.shape != self._hardest.shape:
            raise ConfigError(
                f"mining state is for {hardest.shape} images x negatives, and these are "
                f"{self._hardest.shape}: resume with the data and settings that it was made with"
            )
        self._hardest = hardest.copy()
        self.epoch = int(state["epoch"])
        plan = state["plan"]
        self._plan = None if plan is None else [[int(i) for i in batch] for batch in plan]

    def _pool(self) -> Indices:
        known = np.flatnonzero(self.neighbours.known)
        size = min(self.pool, len(known))
        return self._generator(1).choice(known, size, replace=False)

    def _batches(
        self, descriptors: NDArray[np.float32] | None = None, row: Indices | None = None
    ) -> list[list[int]]:
        queries, pool = self.epoch_queries(), np.sort(self._pool())
        generator = self._generator(2)
        tuples: list[list[int]] = []
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            allowed = self.neighbours.is_negative(block, pool)  # (Q, P)
            if descriptors is not None and row is not None:
                similarity = descriptors[row[block]] @ descriptors[row[pool]].T
                squares = np.square(descriptors[row[pool]]).sum(axis=1)
                scores = squares - 2 * similarity  # grows with the distance; ||q||^2 is left out
            else:
                scores = generator.random(allowed.shape, np.float32)
            for i, query in enumerate(block):
                candidates = pool[allowed[i]]
                hardness = scores[i, allowed[i]]
                if descriptors is not None and row is not None:
                    candidates, hardness = self._remembered(
                        int(query), candidates, hardness, descriptors, row
                    )
                order = np.argsort(hardness, kind="stable")[: self.negatives]
                negatives = candidates[order]
                if not len(negatives):
                    continue
                if descriptors is not None:
                    self._hardest[query] = -1
                    self._hardest[query, : len(negatives)] = negatives
                near = self._best_positives(int(query), descriptors, row)
                tuples.append([int(query), *map(int, near), *map(int, negatives)])
        self.dropped = len(queries) - len(tuples)
        size = self.queries_per_batch
        return [sum(tuples[i : i + size], []) for i in range(0, len(tuples), size)]

    def _remembered(
        self,
        query: int,
        candidates: Indices,
        hardness: NDArray[np.float32],
        descriptors: NDArray[np.float32],
        row: Indices,
    ) -> tuple[Indices, NDArray[np.float32]]:
        """Adds the last time's hardest negatives to the candidates."""
        old = np.setdiff1d(self._hardest[query], candidates)
        old = old[old >= 0]
        x = descriptors[row[old]]
        scores = np.square(x).sum(axis=1) - 2 * x @ descriptors[row[query]]
        return np.concatenate([candidates, old]), np.concatenate([hardness, scores])

    def _best_positives(
        self, query: int, descriptors: NDArray[np.float32] | None, row: Indices | None
    ) -> Indices:
        near = self.neighbours.positives(query, self.candidates)
        if descriptors is None or row is None:
            return near[: self.positives]
        distance = np.square(descriptors[row[near]] - descriptors[row[query]]).sum(axis=1)
        return near[np.argsort(distance, kind="stable")[: self.positives]]


class PlaceSampler(_EpochSampler):
    """Batches of several places with several images each, for pair losses.

    Places are the greedy cover of the training poses (`neighbours.cover`). Two places of a batch are
    definite negatives of each other, as far as the batch can be filled so.

    Args:
        neighbours: of the training images.
        places_per_batch: P.
        images_per_place: K; places with fewer give all they have, and those with one are left out.
        seed: of the cover and the order.
        rank: of this process.
        world_size: number of processes; each gets its share of the batches.

    Attributes:
        place: int64 (N,): the place of each image, -1 for none.

    Raises:
        ConfigError: fewer than two places have two images.
    """

    def __init__(
        self,
        neighbours: PoseNeighbours,
        places_per_batch: int = 16,
        images_per_place: int = 4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed, rank, world_size)
        if places_per_batch < 2 or images_per_place < 2:
            raise ConfigError(
                f"places_per_batch is {places_per_batch} and images_per_place {images_per_place}: "
                "both must be at least 2"
            )
        self.neighbours = neighbours
        self.places_per_batch, self.images_per_place = places_per_batch, images_per_place
        self.place = cover(neighbours, seed)
        order = np.argsort(self.place, kind="stable")
        bounds = np.flatnonzero(np.diff(self.place[order])) + 1
        groups = [g for g in np.split(order, bounds) if self.place[g[0]] >= 0 and len(g) > 1]
        if len(groups) < 2:
            raise ConfigError(
                f"{len(groups)} places have two images or more: two are needed; choose another "
                "positive_m, or record more"
            )
        self._members = groups

    def _batches(self) -> list[list[int]]:
        generator = self._generator(0)
        # One image stands for its place when distances between places are asked.
        chosen = [generator.permutation(group)[: self.images_per_place] for group in self._members]
        waiting = [int(i) for i in generator.permutation(len(chosen))]
        batches = []
        while waiting:
            taken: list[int] = []
            left: list[int] = []
            for position, place in enumerate(waiting):
                if len(taken) == self.places_per_batch or position == SCAN * self.places_per_batch:
                    left += waiting[position:]
                    break
                (taken if self._apart(chosen, taken, place) else left).append(place)
            waiting = left
            if len(taken) > 1:  # a single place has no negatives
                batches.append([int(i) for place in taken for i in chosen[place]])
        if not batches:
            raise ConfigError(
                f"no two places are farther apart than negative_m = {self.neighbours.relation.negative_m}"
                " m (or turned by negative_deg): choose a smaller one"
            )
        return batches

    def _apart(self, chosen: list[Indices], taken: list[int], place: int) -> bool:
        if not taken:
            return True
        others = np.concatenate([chosen[t] for t in taken])
        return bool(self.neighbours.is_negative(chosen[place], others).all())
