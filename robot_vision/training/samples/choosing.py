"""Which images a batch holds where the loss asks for company: tuples, places, clips of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robot_vision.heads.place.mining import TripletSampler
from robot_vision.heads.place.neighbours import PlaceRelation, PoseNeighbours
from robot_vision.heads.place.place_batches import PlaceSampler
from robot_vision.heads.place.training import unwhitened
from robot_vision.heads.pose.clips import ClipSampler
from robot_vision.heads.pose.measures import quaternions_xyzw
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.objectives import relation
from robot_vision.training.samples.data import Batch
from robot_vision.training.ship.evaluate import Views


class Chooser(Protocol):
    """Chooses a process's batches, from the seed and what it remembers."""

    def batches(self, epoch: int) -> Sequence[Batch]:
        """Returns the batches of an epoch: `index` int64 (n,), and more if the loss wants it."""

    def state(self) -> dict[str, Tensor]:
        """Returns what it remembers, for a checkpoint."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a checkpoint."""


class _Sampled:
    """A sampler that is determined by seed and epoch alone."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def batches(self, epoch: int) -> Sequence[Batch]:
        """See `Chooser.batches`."""
        self.sampler.set_epoch(epoch)
        return [{"index": torch.tensor(batch, dtype=torch.int64)} for batch in self.sampler]

    def state(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing is remembered."""


class _Mined(_Sampled):
    """NetVLAD's hard negatives, by the descriptors of the network as it is at the epoch's start."""

    def __init__(self, sampler: TripletSampler, network: MultiHeadNetwork, train: Views) -> None:
        super().__init__(sampler)
        self.network, self.train = network, train
        self._planned = -1  # the epoch whose plan is made

    def batches(self, epoch: int) -> Sequence[Batch]:
        """See `Chooser.batches`; mines unless a checkpoint brought the epoch's plan."""
        self.sampler.set_epoch(epoch)
        if self._planned != epoch:
            wanted = self.sampler.wanted()
            index = torch.from_numpy(wanted)
            self.sampler.mine(wanted, unwhitened(self.network, self.train, index).numpy())
            self._planned = epoch
        return [{"index": torch.tensor(batch, dtype=torch.int64)} for batch in self.sampler]

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


def make_chooser(
    config: TrainingConfig,
    heads: Sequence[str],
    network: MultiHeadNetwork,
    train: Views,
    rank: int,
    world: int,
) -> Chooser | None:
    """Returns who chooses the batches, or None for all images in random order.

    Args:
        config: of the run.
        heads: that are trained.
        network: that describes images for mining.
        train: training samples.
        rank: of this process.
        world: number of processes.
    """
    seed, size = config.loop.seed, config.loop.batch_size
    targets = train.samples.targets
    if "place" in heads:
        place = config.place
        known = targets["has_pose"]
        positions = targets["T_map_camera"][:, :3, 3].double().clone()
        positions[~known] = torch.nan
        xyzw = quaternions_xyzw(targets["T_map_camera"][:, :3, :3]).numpy()
        same: Any = relation(config)
        near = PoseNeighbours(positions.numpy(), PlaceRelation(**same), xyzw)
        if place.loss == "triplet":
            queries = max(1, size // ((2 + place.negatives) * world))
            sampler = TripletSampler(
                near,
                queries_per_batch=queries,
                negatives=place.negatives,
                queries=place.queries,
                seed=seed,
                rank=rank,
                world_size=world,
            )
            return _Mined(sampler, network, train)
        places = max(2, size // (place.images_per_place * world))
        return _Sampled(PlaceSampler(near, places, place.images_per_place, seed, rank, world))
    clips = config.pose.clips
    if "pose" in heads and clips > 1:
        count = max(1, size // (clips * world))
        sequence = targets["sequence"].numpy().astype(np.int64)
        return _Sampled(
            ClipSampler(sequence, count, clips, config.pose.clip_spacing, seed, rank, world)
        )
    return None
