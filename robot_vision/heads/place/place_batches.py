"""Batches of several images each of several places, for pair losses."""

from __future__ import annotations

import numpy as np

from robot_vision.contract.batches import EpochSampler
from robot_vision.errors import ConfigError
from robot_vision.heads.place.neighbours import Indices, PoseNeighbours, cover

SCAN = 16  # waiting places that are tried for each place of a batch, before it stays smaller


class PlaceSampler(EpochSampler):
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
        # Above a half two images of a place may be of an unknown relation, which losses leave out.
        self.place = cover(neighbours, seed, 0.5)
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
