"""How a known score is distributed over what is known, and the threshold below which an image is not.

Every head's score is high for images like those that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

_SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995)

Floats: TypeAlias = "NDArray[np.floating[Any]]"  # as text: NumPy before 1.22 cannot say it


def threshold_at(known: Floats, keep: float) -> float:
    """Returns the highest threshold that keeps a share of known images, on average over new ones.

    The j-th smallest of n scores, j = floor((1 - keep) (n + 1)): of new images of the same kind at most a
    share j / (n + 1) scores lower (split conformal prediction; Vovk et al. 2005).

    Args:
        known: (n,), of known images that the score was not fitted on.
        keep: in (0, 1).

    Raises:
        ConfigError: too few images for the share; the message says how many are needed.
    """
    scores = np.sort(np.asarray(known, np.float64))
    rank = int(np.floor((1 - keep) * (len(scores) + 1) + 1e-9))
    if rank < 1:
        needed = int(np.ceil(1 / (1 - keep) - 1 - 1e-9))
        raise ConfigError(
            f"{len(scores)} known images cannot tell where {keep:.4g} of them end: at least {needed} "
            "are needed"
        )
    return float(scores[rank - 1])


@dataclass(frozen=True)
class KnownScores:
    """How the known score is distributed over known images that it was not fitted on.

    Attributes:
        shares: of known images that are kept, ascending, in (0, 1).
        thresholds: for each; descending.
        count: of the images.
    """

    shares: tuple[float, ...]
    thresholds: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, known: Floats) -> KnownScores:
        """Summarises scores (n,), as far as their number allows."""
        shares = [s for s in _SHARES if (1 - s) * (len(known) + 1) >= 1 - 1e-9]
        return cls(
            tuple(shares),
            tuple(float(f"{threshold_at(known, s):.7g}") for s in shares),
            len(known),
        )

    def threshold(self, keep: float) -> float:
        """Returns the threshold for a share, between those that are kept; at most the last one's."""
        return float(np.interp(keep, self.shares, self.thresholds))

    def rarity(self, score: float) -> float:
        """Returns which share of known images looked more familiar: near 1 for an image like no other.

        It ends at what this many images can tell, n / (n + 1).
        """
        if score < self.thresholds[-1]:
            return self.count / (self.count + 1)
        return float(np.interp(-score, [-t for t in self.thresholds], self.shares, left=0.0))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for `bundle.yaml`."""
        return {
            "shares": list(self.shares),
            "thresholds": list(self.thresholds),
            "count": self.count,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KnownScores:
        """Reads what `to_dict` wrote.

        Raises:
            ConfigError: it is something else.
        """
        try:
            shares = tuple(float(v) for v in data["shares"])
            thresholds = tuple(float(v) for v in data["thresholds"])
            found = cls(shares, thresholds, int(data["count"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"The known scores of a calibration cannot be read: {error}"
            ) from error
        rising = bool(shares) and len(shares) == len(thresholds) and (np.diff(shares) > 0).all()
        if not rising or not (np.diff(thresholds) <= 0).all() or not np.isfinite(thresholds).all():
            raise ConfigError(
                "The known scores of a calibration must rise in share and fall in score"
            )
        return found
