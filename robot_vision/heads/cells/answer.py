"""What a head of cells says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer
from robot_vision.heads.cells.ground import Ground


@dataclass(frozen=True)
class CellsAnswer(Answer):
    """Where the camera is in a plane of the map or on the earth, as probabilities of cells.

    Attributes:
        ground: the K cells.
        probabilities: float32 (K,), sums to 1.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {"probabilities": "probabilities of cells"}

    ground: Ground
    probabilities: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The most probable cell, of equal ones the first."""
        return int(self.probabilities.argmax())

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre (D,) of the most probable cell."""
        return np.asarray(self.ground.centres[self.best])

    @property
    def expected(self) -> NDArray[np.float64]:
        """Expected position (D,): between two peaks it is where nobody is."""
        return self.ground.expected(self.probabilities)

    @property
    def entropy(self) -> float:
        """Entropy in nats: 0 where one cell is certain, log K where nothing is known."""
        p = self.probabilities.astype(np.float64)
        return float(-(p * np.log(np.maximum(p, 1e-300))).sum())

    def within(self, radius_m: float) -> float:
        """Returns the probability of the cells whose centres are within a radius of the best one's."""
        away = self.ground.apart(self.ground.centres, self.centre)
        return float(self.probabilities[away <= radius_m].sum(dtype=np.float64))

    @property
    def spread_m(self) -> float:
        """Root of the mean square of the distance from the most probable cell's centre, metres."""
        away = self.ground.apart(self.ground.centres, self.centre)
        p = self.probabilities.astype(np.float64)
        return float(np.sqrt(p @ (away**2 + self.ground.sides_m**2 / 6)))

    @property
    def peak(self) -> float:
        """Probability of the most probable cell and of all that lie within its side of its centre."""
        near = self.ground.distances(self.centre[None])[0] <= self.ground.sides_m[self.best]
        return float(self.probabilities[near].sum(dtype=np.float64))

    def top(self, count: int) -> list[int]:
        """Returns the most probable cells, the best first; of equal ones the first comes first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()
