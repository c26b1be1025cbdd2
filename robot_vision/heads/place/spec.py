"""What bundle.yaml says of a place head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

# Poolings to the settings that they have besides `clusters`, with the values of their papers.
POOLINGS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "netvlad": {},
        "gem": {},
        "salad": {"channels": 128, "token_size": 256, "hidden": 512},
        "boq": {"channels": 512, "rows": 32, "depth": 2},
        "mixvpr": {"channels": 1024, "rows": 4, "depth": 4},
        "cosplace": {"channels": 512},
    }
)
# Settings of poolings, and how large they may be; 0 stands for what POOLINGS says.
LARGEST = {"channels": 65536, "rows": 4096, "depth": 64, "token_size": 65536, "hidden": 65536}


@dataclass(frozen=True)
class PlaceSpec:
    """The place head: an L2-normalised global descriptor.

    Attributes:
        tap: the backbone's feature tap; empty for the backbone's default (its last feature map).
        clusters: K, the number of cluster centres of NetVLAD and SALAD, and of queries in each block of BoQ;
            GeM, MixVPR and CosPlace have none.
        whitened_size: size after PCA whitening; 0 for none.
        descriptor_size: numbers in a descriptor; 0 until the network is built.
        pooling: `netvlad`, `gem`, `salad`, `boq`, `mixvpr` or `cosplace` (EigenPlaces' too).
        channels: to which features are reduced, by SALAD, BoQ, MixVPR and CosPlace; 0 takes the
            paper's number, for this and what follows.
        rows: of BoQ and MixVPR: the descriptor has `channels` times as many numbers.
        depth: blocks of BoQ, mixers of MixVPR.
        token_size: numbers that SALAD makes of the global token.
        hidden: numbers between two layers of SALAD.
    """

    KIND: ClassVar[str] = "place"

    tap: str = ""
    clusters: int = 64
    whitened_size: int = 0
    descriptor_size: int = 0
    pooling: str = "netvlad"
    channels: int = 0
    rows: int = 0
    depth: int = 0
    token_size: int = 0
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(unknown("place pooling", self.pooling, tuple(POOLINGS)))
        require(1 <= self.clusters <= 4096, "clusters", self.clusters, "from 1 to 4096")
        require(0 <= self.whitened_size <= 65536, "whitened_size", self.whitened_size, "0 to 65536")
        require(
            0 <= self.descriptor_size <= 1 << 20,
            "descriptor_size",
            self.descriptor_size,
            "0 to 2^20",
        )
        own = POOLINGS[self.pooling]
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            require(0 <= value <= largest, name, value, f"0 to {largest}")
            if value and name not in own:
                has = f"its settings are {', '.join(own)}" if own else "it has no such settings"
                raise ConfigError(f"place {name} is {value}, but pooling is {self.pooling}: {has}")

    def of(self, name: str) -> int:
        """Returns a setting of the pooling: what is given, or its paper's."""
        value: int = getattr(self, name)
        return value or POOLINGS[self.pooling][name]
