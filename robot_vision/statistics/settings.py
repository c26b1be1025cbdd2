"""Settings of an evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from robot_vision.errors import ConfigError, unknown

ALIGNMENTS = ("none", "se3", "sim3")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured, and how. Every value stands in the resulting JSON.

    Attributes:
        place_radius_m: two images show the same place where their cameras were at most so far apart
        place_heading_deg: and turned by at most so much; None for any rotation.
        place_exclude_s: without a map, images of the same recording so close in time are not looked up in.
        alignments: of trajectories, see `trajectory`.
        rpe_delta_s: time over which relative pose errors are measured (rounded to frames), besides one frame.
        confidence: of the intervals.
        resamples: of the bootstrap; 0 gives no intervals.
        block_s: length of the bootstrap's blocks of consecutive frames. It should exceed the time over which
            errors are alike.
        seed: of the bootstrap.
    """

    place_radius_m: float = 1.0
    place_heading_deg: float | None = 45.0
    place_exclude_s: float = 10.0
    alignments: tuple[str, ...] = ALIGNMENTS
    rpe_delta_s: float = 1.0
    confidence: float = 0.95
    resamples: int = 1000
    block_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("place_radius_m", "rpe_delta_s", "block_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"Setting {name} is {value}: it must be above 0 and finite")
        if not 0 <= self.place_exclude_s < float("inf"):
            raise ConfigError(f"Setting place_exclude_s is {self.place_exclude_s}: use at least 0")
        if self.place_heading_deg is not None and not 0 < self.place_heading_deg <= 180:
            raise ConfigError(
                f"Setting place_heading_deg is {self.place_heading_deg}: use up to 180, or None"
            )
        if not 0 < self.confidence < 1:
            raise ConfigError(f"Setting confidence is {self.confidence}: use one between 0 and 1")
        if self.resamples < 0 or self.seed < 0:
            raise ConfigError("Settings resamples and seed must be at least 0")
        for name in self.alignments:
            if name not in ALIGNMENTS:
                raise ConfigError(unknown("alignment", name, ALIGNMENTS))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return {**dataclasses.asdict(self), "alignments": list(self.alignments)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvaluationSettings:
        """Reads what `to_dict` gave.

        Raises:
            ConfigError: an unknown setting, or one out of range.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ConfigError(unknown("setting", key, names))
        return cls(**{**values, "alignments": tuple(values.get("alignments", ALIGNMENTS))})
