"""What samplers of batches share: an epoch's plan, one process's share of it, and where to go on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from robot_vision.errors import ConfigError


class EpochSampler(Sampler[list[int]]):
    """Gives lists of indices, fully determined by seed and epoch (and by what a subclass learns).

    Args:
        seed: of everything random.
        rank: of this process.
        world_size: number of processes; each gets its share of the batches.

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
