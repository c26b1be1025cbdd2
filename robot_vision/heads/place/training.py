"""How place heads are trained: k-means before, mined tuples during it, whitening after, and recall."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import Metric
from robot_vision.contract.training import (
    Chooser,
    DataFacts,
    Features,
    HeadSettings,
    Metrics,
    Published,
    Sampled,
    Shape,
    Share,
    Targets,
    Trainer,
    poses_of,
    require_poses,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.place import evaluation as places
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import mean, values
from robot_vision.text.counts import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

# Pooling to its module, which is called with the spec and the shapes of the taps.
_FOLDER = "robot_vision.heads.place.poolings"
MODULES = {
    "netvlad": f"{_FOLDER}.netvlad:NetVladHead",
    "gem": f"{_FOLDER}.gem:GemHead",
    "salad": f"{_FOLDER}.salad:SaladHead",
    "boq": f"{_FOLDER}.boq:BoqHead",
    "mixvpr": f"{_FOLDER}.mixvpr:MixVprHead",
    "cosplace": f"{_FOLDER}.cosplace:CosPlaceHead",
}
_COLUMNS = 50_000  # descriptors for k-means: the authors' code takes as many
_CHUNK = 64
_PROJECT_CLUSTERS = 16  # of a new project
# Of the extent of a new project's poses: the radius within which two images show one place.
_PLACE_SHARE, _LEAST_PLACE_M = 0.05, 0.25


@dataclass(frozen=True)
class PlaceConfig(HeadSettings):
    """How a place head is trained."""

    loss: str = option(
        "triplet",
        "name of the place head's loss: triplet, multi_similarity, or none (k-means alone)",
    )
    positive_m: float = option(
        10.0, "largest distance between two images of the same place, in metres"
    )
    positive_deg: float | None = option(
        None, "largest turn between two images of the same place, in degrees; null: any"
    )
    negative_m: float = option(
        25.0, "images further apart than this show different places, in metres"
    )
    negative_deg: float | None = option(
        None,
        "images turned by more than this show different places, in degrees; null: the turn does not"
        " count",
    )
    negatives: int = option(10, "hardest negatives per query, for triplet", low=1, high=1000)
    queries: int = option(
        0,
        "queries between two minings, which make an epoch, for triplet; 0 for all",
        low=0,
        high=1e9,
    )
    images_per_place: int = option(
        4, "images of each place in a batch, for multi_similarity", low=2, high=1000
    )
    kmeans_images: int = option(
        1000,
        "training images whose features are clustered to initialise the head",
        low=1,
        high=1e9,
    )
    kmeans_ratio: float = option(
        100.0,
        "NetVLAD's initial ratio between the assignment to the nearest cluster and that to the "
        "second nearest, on average; above 1; a smaller, softer value separates near viewpoints "
        "better",
        low=1.01,
        high=1e9,
    )

    @property
    def relation(self) -> dict[str, float | None]:
        """What counts as the same place and what as another, as losses and mining take it."""
        return {
            "positive_m": self.positive_m,
            "positive_deg": self.positive_deg,
            "negative_m": self.negative_m,
            "negative_deg": self.negative_deg,
        }


class PlaceTrainer(Trainer[PlaceSpec]):
    """See `Trainer`."""

    Settings = PlaceConfig
    losses = {
        "triplet": "robot_vision.heads.place.loss:TripletRankingLoss",
        "multi_similarity": "robot_vision.heads.place.loss:MultiSimilarityLoss",
    }
    baselines = {"pooling": "descriptors that need no training"}
    harms = frozenset({"flip", "crop", "mixup"})
    truth = "pose"
    looks_up = True

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> PlaceSpec:
        return from_mapping(PlaceSpec, f"network.{self.name}", settings)

    def check(self, splits: Any, where: str) -> None:
        require_poses(self.name, splits, where)
        settings = self.settings
        turned = settings.positive_deg is not None or settings.negative_deg is not None
        if turned and not splits.has_orientation:
            raise ConfigError(
                f"{self.name}.positive_deg and {self.name}.negative_deg need orientations, which {where} "
                "does not have: set both to null"
            )

    def suggested(self, splits: Any) -> Mapping[str, Any]:
        """Distances by the extent of the poses: by the defaults a room has no negatives."""
        positions = [s.T_map_camera[:3, 3] for s in splits.train if s.T_map_camera is not None]
        extent = float(np.linalg.norm(np.ptp(positions, axis=0)))
        positive_m = round(max(_LEAST_PLACE_M, extent * _PLACE_SHARE), 2)
        if positive_m >= PlaceConfig.positive_m:
            return {}
        turn = {"positive_deg": 30.0} if splits.has_orientation else {}
        return {"positive_m": positive_m, **turn, "negative_m": round(2.5 * positive_m, 3)}

    def suggested_network(self) -> Mapping[str, Any]:
        """Clusters whose descriptor a map takes: 64 of its 1,280 channels are more than 65,536 numbers."""
        return {"clusters": _PROJECT_CLUSTERS}

    def module(self, spec: PlaceSpec, shapes: Sequence[Shape]) -> nn.Module:
        module, _, name = MODULES[spec.pooling].partition(":")
        made: nn.Module = getattr(importlib.import_module(module), name)(spec, *shapes)
        return made

    def built(self, spec: PlaceSpec, module: Any) -> PlaceSpec:
        """Fills in the size of the descriptor."""
        return replace(spec, descriptor_size=module.size)

    def untrained(self, pretrained: bool, images: int) -> str:
        return f"The {self.name} head's clusters are from {counted(images, 'image')}, and it is not trained"

    def published(
        self, state: Mapping[str, Tensor], size: tuple[int, int] | None
    ) -> Published | None:
        """See `Trainer.published`: SALAD, MegaLoc, BoQ, CosPlace and EigenPlaces."""
        from robot_vision.heads.place.published import recognise

        return recognise(state, size)

    def prepare(self, module: Any, spec: PlaceSpec, features: Features, seed: int) -> None:
        """Sets NetVLAD's centres and assignment by k-means on training features; no other pooling needs any.

        Whitening, where there is one, is fitted too, so that validation during training means something.
        """
        import torch

        if hasattr(module, "initialise"):
            generator = torch.Generator().manual_seed(seed)
            some = torch.randperm(len(features), generator=generator)[: self.settings.kmeans_images]
            (maps,) = features.of(some)  # (n, C, h, w)
            columns = maps.permute(0, 2, 3, 1).flatten(0, 2)  # (n h w, C)
            chosen = torch.randperm(len(columns), generator=generator)[:_COLUMNS]
            module.initialise(
                columns[chosen].to(features.device), seed, ratio=self.settings.kmeans_ratio
            )
        self.finish(module, spec, features)

    def loss_settings(self, spec: PlaceSpec, targets: Targets) -> dict[str, Any]:
        """Adds what counts as the same place."""
        return {**self.settings.relation, **self.settings.settings}

    def chooser(self, module: Any, features: Features, share: Share) -> Chooser:
        """See `Trainer.chooser`: mined tuples, or images by place."""
        from robot_vision.heads.place.mining import Mined, TripletSampler
        from robot_vision.heads.place.neighbours import PlaceRelation, PoseNeighbours
        from robot_vision.heads.place.place_batches import PlaceSampler

        settings = self.settings
        relation: Any = settings.relation
        positions, xyzw = poses_of(features.targets)
        near = PoseNeighbours(positions, PlaceRelation(**relation), xyzw)
        if settings.loss != "triplet":
            places = max(2, share.batch_size // (settings.images_per_place * share.world))
            return Sampled(
                PlaceSampler(
                    near, places, settings.images_per_place, share.seed, share.rank, share.world
                )
            )
        sampler = TripletSampler(
            near,
            queries_per_batch=max(1, share.batch_size // ((2 + settings.negatives) * share.world)),
            negatives=settings.negatives,
            queries=settings.queries,
            seed=share.seed,
            rank=share.rank,
            world_size=share.world,
        )
        return Mined(sampler, lambda index: unwhitened(module, features, index))

    def finish(self, module: Any, spec: PlaceSpec, features: Features) -> None:
        """Fits PCA whitening on the descriptors of the training images, where the head has one."""
        import torch

        if spec.whitened_size:
            descriptors = unwhitened(module, features, torch.arange(len(features)))
            module.fit_whitening(descriptors.to(features.device))

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: PlaceSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """Measures retrieval over the answerable queries: those with at least one image of the same place.

        Samples without a pose are no queries.

        Returns:
            recall_at_1, _5 and _10, queries, and how many of them are answerable; each sample's share.
        """
        if stored is None:
            return {}, None
        settings = self.settings
        rule = places.SamePlace(
            place_radius_m=settings.positive_m, place_heading_deg=settings.positive_deg
        )
        found = places.score_places(_views(outputs, targets), _views(*stored), rule, False)
        answerable = found["place_positives"] > 0
        metrics: Metrics = {
            "queries": int((found["place_match"] >= 0).sum()),
            "answerable": int(answerable.sum()),
        }
        if not answerable.any():
            return metrics, None
        rank = found["place_rank"][answerable]
        hits = {f"recall_at_{k}": mean(rank < k) for k in (1, 5, 10)}
        metrics.update(values(hits, len(rank)))
        each = np.full((len(answerable), 1), np.nan)
        each[answerable, 0] = (rank < 1) + 0.01 * (rank < 5)
        return metrics, each

    def shown(self) -> dict[str, Metric]:
        counts = (Metric("answerable", "Answerable queries"), Metric("numbers", "Numbers"))
        return super().shown() | {metric.key: metric for metric in counts}

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns recall@1 plus a hundredth of recall@5."""
        if "recall_at_1" not in metrics:
            return None
        return float(metrics["recall_at_1"] + 0.01 * metrics["recall_at_5"])

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: PlaceSpec, seed: int
    ) -> dict[str, Metrics]:
        """Measures untrained descriptors: average pooling, GeM and the flattened map."""
        from robot_vision.contract.pooling import poolings

        if "pooling" not in names:
            return {}
        stored, wanted = poolings(seen.first()), poolings(asked.first())
        found = {}
        for name, descriptors in stored.items():
            database = {"descriptor": descriptors}, seen.targets
            said = {"descriptor": wanted[name]}
            found[name], _ = self.measure(said, asked.targets, spec, database)
            found[name]["numbers"] = descriptors.shape[1]
        return found


def _views(outputs: Targets, targets: Targets) -> places.PlaceViews:
    position, xyzw = poses_of(targets)
    none = np.zeros(len(position), np.int64)  # stamps: nothing is left out by them
    return places.PlaceViews(outputs["descriptor"].float().numpy(), position, xyzw, none)


def unwhitened(module: Any, features: Features, index: Tensor) -> Tensor:
    """Returns descriptors of some samples as they are before whitening, on the CPU."""
    import torch

    with torch.no_grad():
        return torch.cat(
            [
                module.aggregate(*(f.to(features.device) for f in features.of(part))).cpu()
                for part in index.split(_CHUNK)
            ]
        )
