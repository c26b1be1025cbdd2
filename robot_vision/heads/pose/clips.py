"""Batches of short clips of a sequence, for losses on relative poses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from robot_vision.errors import ConfigError


class ClipSampler(Sampler[list[int]]):
    """Gives batches of `clips` clips of `frames` frames, `spacing` frames apart, as MapNet trains.

    Every frame starts a clip once an epoch, as far as its sequence reaches. Determined by seed and epoch.

    Args:
        sequence: int (N,): the sequence of each training image; the images of one follow each other.
        clips: clips in a batch.
        frames: of a clip: 3 in the paper.
        spacing: between a clip's frames: 10 in the paper.
        seed: of the order.
        rank: of this process.
        world_size: number of processes; each gets its share of the batches.

    Raises:
        ConfigError: no sequence is long enough for a clip.
    """

    def __init__(
        self,
        sequence: NDArray[Any],
        clips: int = 16,
        frames: int = 3,
        spacing: int = 10,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if min(clips, spacing) < 1 or frames < 2 or not 0 <= rank < world_size:
            raise ConfigError(
                f"clips is {clips}, spacing {spacing}, frames {frames}, rank {rank} of {world_size}: "
                "clips and spacing must be at least 1, frames at least 2, rank below world_size"
            )
        sequence = np.asarray(sequence)
        reach = (frames - 1) * spacing
        starts = np.arange(max(0, len(sequence) - reach))
        # The whole stretch must be of one sequence, not only its ends.
        changes = np.concatenate([[0], np.cumsum(np.diff(sequence) != 0)])
        self._starts = starts[changes[starts] == changes[starts + reach]]
        if not len(self._starts):
            raise ConfigError(
                f"no sequence has {reach + 1} images in a row, which a clip of {frames} frames "
                f"{spacing} apart needs: choose a smaller spacing"
            )
        self.clips, self.offsets = clips, np.arange(frames) * spacing
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.start_batch = 0

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Chooses the epoch, and how many of its batches have been trained on already."""
        self.epoch, self.start_batch = epoch, start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self._starts)
        for i in range(self.start_batch, self._per_process()):
            batch = i * self.world_size + self.rank
            starts = order[batch * self.clips : (batch + 1) * self.clips]
            yield [int(s + o) for s in starts for o in self.offsets]

    def __len__(self) -> int:
        return max(0, self._per_process() - self.start_batch)

    def _per_process(self) -> int:
        return -(-len(self._starts) // self.clips) // self.world_size
