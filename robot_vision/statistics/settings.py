"""Settings of the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are made.

    Attributes:
        confidence: of the intervals.
        resamples: of the bootstrap; 0 gives no intervals.
        block_s: length of the bootstrap's blocks of consecutive frames. It should exceed the time over which
            errors are alike.
        seed: of the bootstrap.
    """

    confidence: float = 0.95
    resamples: int = 1000
    block_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.block_s < float("inf"):
            raise ConfigError(f"Setting block_s is {self.block_s}: it must be above 0 and finite")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"Setting confidence is {self.confidence}: use one between 0 and 1")
        if self.resamples < 0 or self.seed < 0:
            raise ConfigError("Settings resamples and seed must be at least 0")
