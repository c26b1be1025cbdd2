"""What bundle.yaml says of a place head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

POOLINGS = ("netvlad", "gem")


@dataclass(frozen=True)
class PlaceSpec:
    """The place head (NetVLAD or GeM): an L2-normalised global descriptor.

    Attributes:
        tap: the backbone's feature tap; empty for the backbone's default (its last feature map).
        clusters: K, the number of NetVLAD's cluster centres; GeM has none.
        whitened_size: size after PCA whitening; 0 for none (then the descriptor has K * C numbers
            with NetVLAD, C with GeM).
        descriptor_size: numbers in a descriptor; 0 until the network is built.
        pooling: `netvlad` or `gem`.
    """

    KIND: ClassVar[str] = "place"

    tap: str = ""
    clusters: int = 64
    whitened_size: int = 0
    descriptor_size: int = 0
    pooling: str = "netvlad"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(unknown("place pooling", self.pooling, POOLINGS))
        require(1 <= self.clusters <= 4096, "clusters", self.clusters, "from 1 to 4096")
        require(0 <= self.whitened_size <= 65536, "whitened_size", self.whitened_size, "0 to 65536")
        require(
            0 <= self.descriptor_size <= 1 << 20,
            "descriptor_size",
            self.descriptor_size,
            "0 to 2^20",
        )
