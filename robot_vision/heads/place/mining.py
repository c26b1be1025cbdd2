"""Triplets for place recognition, with hard negatives found by the descriptors learned so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.contract.batches import EpochSampler
from robot_vision.contract.training import Sampled
from robot_vision.errors import ConfigError, unknown
from robot_vision.heads.place.neighbours import Indices, PoseNeighbours
from robot_vision.text.counts import counted

CHOICES = ("best", "random")
BLOCK = 256  # queries whose distances to the pool are in memory at once


class TripletSampler(EpochSampler):
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
        choose: `best` as in the paper, for positions by GPS, where a potential positive may look
            elsewhere; or `random`, for poses that can be trusted: the best match of a frame of a video
            is the one before it, from which nothing is learned.
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
        choose: str = "best",
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
        if choose not in CHOICES:
            raise ConfigError(unknown("choice of positives", choose, CHOICES))
        self.neighbours, self.choose = neighbours, choose
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
                counted(
                    int(missing.sum()),
                    "descriptor that mining needs is",
                    "descriptors that mining needs are",
                )
                + " missing "
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
        if not tuples:
            relation = self.neighbours.relation
            raise ConfigError(
                f"none of {len(queries)} queries has an image farther away than negative_m = "
                f"{relation.negative_m:g} m (or turned by negative_deg): choose a smaller one, and with it "
                "positive_m; a room may want 0.5 m and 1.5 m"
            )
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
        if self.choose == "random":
            rng = np.random.default_rng([self.seed, self.epoch, 3, query])
            return rng.permutation(near)[: self.positives]
        if descriptors is None or row is None:
            return near[: self.positives]
        distance = np.square(descriptors[row[near]] - descriptors[row[query]]).sum(axis=1)
        return near[np.argsort(distance, kind="stable")[: self.positives]]


class Mined(Sampled):
    """Chooses hard negatives, by the descriptors of the network as it is at the epoch's start.

    Args:
        sampler: of tuples.
        describe: returns descriptors of the images of these numbers.
    """

    def __init__(self, sampler: TripletSampler, describe: Callable[[Tensor], Tensor]) -> None:
        super().__init__(sampler)
        self.describe = describe
        self._planned = -1  # the epoch whose plan is made

    def batches(self, epoch: int) -> Sequence[dict[str, Tensor]]:
        """See `Chooser.batches`; mines unless a checkpoint brought the epoch's plan."""
        self.sampler.set_epoch(epoch)
        if self._planned != epoch:
            wanted = self.sampler.wanted()
            self.sampler.mine(wanted, self.describe(torch.from_numpy(wanted)).numpy())
        self._planned = epoch
        return super().batches(epoch)

    def state(self) -> dict[str, Tensor]:
        """Returns the plan of this epoch and the hardest negatives of each query."""
        data = self.sampler.state_dict()
        plan = data["plan"] or []
        return {
            "epoch": torch.tensor(data["epoch"]),
            "hardest": torch.from_numpy(data["hardest"]),
            "plan": torch.tensor([i for batch in plan for i in batch], dtype=torch.int64),
            "lengths": torch.tensor([len(batch) for batch in plan], dtype=torch.int64),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on with the plan of a checkpoint."""
        parts = state["plan"].split(state["lengths"].tolist())
        self._planned = int(state["epoch"])
        self.sampler.load_state_dict(
            {
                "epoch": self._planned,
                "plan": [part.tolist() for part in parts],
                "hardest": state["hardest"].numpy(),
            }
        )
